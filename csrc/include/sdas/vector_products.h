// Small matrix products whose columns are vectors: what belongs to the edges of one receiver times what belongs to the
// receiver. Included only by kernel files, like vector.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "sdas/vector.h"

namespace sdas::SDAS_SIMD {

// Rows and columns, or rows and columns exchanged, of a matrix of numbers.
template <class T>
struct Numbers {
    const T* first;
    std::int64_t row, column;  // distance of neighboring rows, of neighboring columns
};

// Rows r .. r+R and columns c .. c+C of out += x · m.
template <int R, int C, class T>
SDAS_INLINE void product_block(Vector<T>* out, const T* x, std::int64_t row, std::int64_t column, int depth,
                               const Vector<T>* m, int columns) {
    Vector<T> sum[R][C];
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) sum[r][c] = out[r * columns + c];
    }
    for (int d = 0; d < depth; ++d, x += column, m += columns) {
        Vector<T> b[C];
        for (int c = 0; c < C; ++c) b[c] = m[c];
        for (int r = 0; r < R; ++r) {
            for (int c = 0; c < C; ++c) sum[r][c] += x[r * row] * b[c];
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) out[r * columns + c] = sum[r][c];
    }
}

// out [rows, columns] += x [rows, depth] · m [depth, columns].
template <class T>
[[gnu::noinline]] void add_product(Vector<T>* out, int columns, Numbers<T> x, std::int64_t rows, int depth,
                                   const Vector<T>* m) {
    const auto of_columns = [&](auto height, std::int64_t r) {
        constexpr int R = decltype(height)::value;
        const T* at = x.first + r * x.row;
        Vector<T>* target = out + r * columns;
        int c = 0;
        for (; c + 2 <= columns; c += 2) {
            product_block<R, 2, T>(target + c, at, x.row, x.column, depth, m + c, columns);
        }
        if (c < columns) product_block<R, 1, T>(target + c, at, x.row, x.column, depth, m + c, columns);
    };
    std::int64_t r = 0;
    for (; r + 4 <= rows; r += 4) of_columns(Constant<4>{}, r);
    for (; r < rows; ++r) of_columns(Constant<1>{}, r);
}

template <int R, int P, class T>
SDAS_INLINE void lane_block(Vector<T>* out, int places, const Vector<T>* x, const Vector<T>* m, int columns) {
    Vector<T> sum[R][P];
    for (int r = 0; r < R; ++r) {
        for (int p = 0; p < P; ++p) sum[r][p] = out[r * places + p];
    }
    for (int c = 0; c < columns; ++c) {
        Vector<T> b[P];
        for (int p = 0; p < P; ++p) b[p] = m[p * columns + c];
        for (int r = 0; r < R; ++r) {
            for (int p = 0; p < P; ++p) sum[r][p] += x[r * columns + c] * b[p];
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int p = 0; p < P; ++p) out[r * places + p] = sum[r][p];
    }
}

// out [rows, places] += x [rows, columns] · mᵀ for m [places, columns], lane by lane: the sum over lanes is left over.
template <class T>
[[gnu::noinline]] void add_lane_product(Vector<T>* out, int places, const Vector<T>* x, std::int64_t rows, int columns,
                                        const Vector<T>* m) {
    const auto of_places = [&](auto height, std::int64_t r) {
        constexpr int R = decltype(height)::value;
        int p = 0;
        for (; p + 4 <= places; p += 4) {
            lane_block<R, 4, T>(out + r * places + p, places, x + r * columns, m + p * columns, columns);
        }
        for (; p < places; ++p) {
            lane_block<R, 1, T>(out + r * places + p, places, x + r * columns, m + p * columns, columns);
        }
    };
    constexpr int R = SDAS_VECTOR_BYTES == 64 ? 4 : 2;
    std::int64_t r = 0;
    for (; r + R <= rows; r += R) of_places(Constant<R>{}, r);
    for (; r < rows; ++r) of_places(Constant<1>{}, r);
}

// Sums of neighboring pairs of elements, those of a, then those of b.
template <class T>
SDAS_INLINE Vector<T> pair_sums(Vector<T> a, Vector<T> b) {
    return shuffle<T>(a, b, [](int i) { return 2 * i; }) + shuffle<T>(a, b, [](int i) { return 2 * i + 1; });
}

// Element i is the sum of the elements of v[i].
template <class T>
SDAS_INLINE Vector<T> totals(const Vector<T>* v) {
    Vector<T> sum[width<T>];
    for (int i = 0; i < width<T>; ++i) sum[i] = v[i];
    for (int n = width<T> / 2; n > 0; n /= 2) {
        for (int i = 0; i < n; ++i) sum[i] = pair_sums<T>(sum[2 * i], sum[2 * i + 1]);
    }
    return sum[0];
}

// out[i] = the sum of the elements of v[i].
template <class T>
[[gnu::noinline]] void store_totals(T* out, const Vector<T>* v, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + width<T> <= count; i += width<T>) store<T>(out + i, totals<T>(v + i));
    if (i == count) return;
    Vector<T> rest[width<T>] = {};
    std::copy(v + i, v + count, rest);
    const Vector<T> sums = totals<T>(rest);
    for (int t = 0; i + t < count; ++t) out[i + t] = sums[t];
}

// Sums of `group` neighboring elements of v [count], in place: the result takes up the first 1/group of them.
template <class T>
void sum_groups(Vector<T>* v, int count, int group) {
    for (; group % 2 == 0; group /= 2) {
        for (int i = 0; 2 * i < count; ++i) {
            v[i] = pair_sums<T>(v[2 * i], 2 * i + 1 < count ? v[2 * i + 1] : Vector<T>{});
        }
        count = (count + 1) / 2;
    }
    if (group == 1) return;
    const int results = (count * width<T> + group - 1) / group;
    for (int k = 0; k < (results + width<T> - 1) / width<T> * width<T>; ++k) {
        T sum = 0;
        for (int t = k * group; t < std::min((k + 1) * group, count * width<T>); ++t) {
            sum += v[t / width<T>][t % width<T>];
        }
        v[k / width<T>][k % width<T>] = sum;
    }
}

}  // namespace sdas::SDAS_SIMD
