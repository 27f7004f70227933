// Products of matrices whose rows are filled up to whole vectors. Included only by kernel files, like vector.h.
//
// A tile of the result stays in registers while the depth is run through: R rows times N vectors of columns, which take
// R numbers of the left factor and N vectors of the right one for R N multiply-adds. The right factor is cut so that
// what all rows read of it stays in the first cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd/vector.h"
#include "simd/vector_products.h"

namespace sdas::SDAS_SIMD {

// Element (i, k) at p[i · row + k · column].
template <class T>
struct Factor {
    const T* p;
    std::int64_t row, column;
};

constexpr int tile_rows = 6;
#if defined(__AVX512F__)
constexpr int tile_vectors = 4;
#else
constexpr int tile_vectors = 2;
#endif

// The left factor in pieces: as a whole it would go through memory, and its next reader wait for it.
template <int R, int N, class T>
[[gnu::noinline]] void multiply_tile(T* c, std::int64_t c_row, const T* a, std::int64_t a_row, std::int64_t a_column,
                                     const T* b, std::int64_t b_row, std::int64_t depth, bool add) {
    Vector<T> sum[R][N];
#pragma GCC unroll 32
    for (int t = 0; t < R * N; ++t) {
        sum[t / N][t % N] = add ? load<T>(c + t / N * c_row + t % N * width<T>) : Vector<T>{};
    }
    for (std::int64_t k = 0; k < depth; ++k, a += a_column, b += b_row) {
        Vector<T> right[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) right[n] = in_register<T>(load<T>(b + n * width<T>));
#pragma GCC unroll 32
        for (int t = 0; t < R * N; ++t) sum[t / N][t % N] += a[t / N * a_row] * right[t % N];
    }
#pragma GCC unroll 32
    for (int t = 0; t < R * N; ++t) store<T>(c + t / N * c_row + t % N * width<T>, sum[t / N][t % N]);
}

// c [rows, columns] = a [rows, depth] · b [depth, columns], or +=. The columns are whole vectors.
template <class T>
void multiply(T* c, std::int64_t c_row, std::int64_t rows, std::int64_t columns, Factor<T> a, const T* b,
              std::int64_t b_row, std::int64_t depth, bool add) {
    constexpr std::int64_t most = (16 << 10) / (tile_vectors * SDAS_VECTOR_BYTES);
    do {
        const std::int64_t size = std::min(depth, most);
        for_groups_of<tile_vectors>(columns / width<T>, [&](auto vectors, std::int64_t n) {
            for_groups_of<tile_rows>(rows, [&](auto group, std::int64_t r) {
                multiply_tile<decltype(group)::value, decltype(vectors)::value, T>(c + r * c_row + n * width<T>, c_row,
                                                                                   a.p + r * a.row, a.row, a.column,
                                                                                   b + n * width<T>, b_row, size, add);
            });
        });
        depth -= size, a.p += size * a.column, b += size * b_row, add = true;
    } while (depth > 0);
}

}  // namespace sdas::SDAS_SIMD
