// Products with small dense matrices whose rows are nodes, and sums of outer products over nodes. Included only by kernel
// files, like vector.h.
#pragma once

#include <cstdint>

#include "fused_sdas/memory.h"
#include "simd/channel_block.h"
#include "simd/vector_products.h"

namespace sdas::SDAS_SIMD {

// A vector of `count` elements or, where there are more, a whole one.
template <class T>
SDAS_INLINE Vector<T> load_up_to(const T* p, int count) {
    return count >= width<T> ? load<T>(p) : load_first(p, count);
}

template <class T>
SDAS_INLINE void store_up_to(T* p, Vector<T> v, int count) {
    if (count >= width<T>) {
        store<T>(p, v);
    } else {
        store_first(p, v, count);
    }
}

// Calls body(Constant<size>) for a size of at most `most`.
template <int most, class Body>
SDAS_INLINE void with_constant(std::int64_t size, const Body& body) {
    if (size == most) {
        body(Constant<most>{});
    } else if constexpr (most > 1) {
        with_constant<most - 1>(size, body);
    }
}

// Calls body(Constant<R>, k) for consecutive groups of R of `count` things, as few as there can be of at most `most`, and
// as equal as can be: a small group costs nearly what a large one does.
template <int most, class Body>
SDAS_INLINE void for_even_groups(std::int64_t count, const Body& body) {
    const std::int64_t groups = (count + most - 1) / most;
    for (std::int64_t g = 0, k = 0; g < groups; ++g) {
        const std::int64_t size = (count - k) / (groups - g);
        with_constant<most>(size, [&](auto group) { body(group, k); });
        k += size;
    }
}

// Nodes that share each load of a matrix.
constexpr int rows_at_once = SDAS_VECTOR_BYTES == 64 ? 8 : 4;

template <bool add, int R, int C, class T>
SDAS_INLINE void multiply_block(T* out, std::int64_t out_row, const T* x, std::int64_t x_row, const T* m,
                                std::int64_t row, int depth, const T* bias, int columns) {
    const auto last = [&](int c) { return columns - c * width<T>; };
    Vector<T> sum[R][C];
#pragma GCC unroll 16
    for (int k = 0; k < R * C; ++k) {
        const int r = k / C, c = k % C;
        const T* from = add ? out + r * out_row + c * width<T> : bias + c * width<T>;
        if (!add && bias == nullptr) {
            sum[r][c] = Vector<T>{};
        } else {
            sum[r][c] = load_up_to(from, last(c));
        }
    }
    for (int d = 0; d < depth; ++d, m += row) {
        Vector<T> factor[C];
        for (int c = 0; c < C; ++c) factor[c] = load<T>(m + c * width<T>);
#pragma GCC unroll 16
        for (int k = 0; k < R * C; ++k) sum[k / C][k % C] += x[k / C * x_row + d] * factor[k % C];
    }
#pragma GCC unroll 16
    for (int k = 0; k < R * C; ++k) {
        store_up_to(out + k / C * out_row + k % C * width<T>, sum[k / C][k % C], last(k % C));
    }
}

// out [rows, columns] = x [rows, depth] · m, plus a bias [columns] if there is one, or (`add`) plus what is in out.
template <bool add, class T>
[[gnu::noinline]] void multiply(T* out, std::int64_t out_row, const T* x, std::int64_t x_row, std::int64_t rows,
                                const Matrix<T>& m, const T* bias = nullptr) {
    const int vectors = (m.columns + width<T> - 1) / width<T>;
    for_groups_of<2>(vectors, [&](auto across, std::int64_t v) {
        const std::int64_t c = v * width<T>;
        for_even_groups<rows_at_once>(rows, [&](auto group, std::int64_t r) {
            multiply_block<add, decltype(group)::value, decltype(across)::value, T>(
                out + r * out_row + c, out_row, x + r * x_row, x_row, m.first + c, m.row, m.depth,
                bias == nullptr ? nullptr : bias + c, m.columns - static_cast<int>(c));
        });
    });
}

template <int R, int C, class T>
SDAS_INLINE void outer_block(T* out, std::int64_t out_row, const T* x, std::int64_t x_row, const T* y,
                             std::int64_t y_row, std::int64_t nodes, int columns) {
    const auto last = [&](int c) { return columns - c * width<T>; };
    Vector<T> sum[R][C];
#pragma GCC unroll 16
    for (int k = 0; k < R * C; ++k)
        sum[k / C][k % C] = load_up_to(out + k / C * out_row + k % C * width<T>, last(k % C));
    for (std::int64_t i = 0; i < nodes; ++i, x += x_row, y += y_row) {
        Vector<T> factor[C];
        for (int c = 0; c < C; ++c) factor[c] = load_up_to(y + c * width<T>, last(c));
#pragma GCC unroll 16
        for (int k = 0; k < R * C; ++k) sum[k / C][k % C] += x[k / C] * factor[k % C];
    }
#pragma GCC unroll 16
    for (int k = 0; k < R * C; ++k) {
        store_up_to(out + k / C * out_row + k % C * width<T>, sum[k / C][k % C], last(k % C));
    }
}

// out [depth, columns] += Σ over nodes of x [nodes, depth] ⊗ y [nodes, columns].
template <class T>
[[gnu::noinline]] void add_outer(T* out, std::int64_t out_row, const T* x, std::int64_t x_row, int depth, const T* y,
                                 std::int64_t y_row, int columns, std::int64_t nodes) {
    const int vectors = (columns + width<T> - 1) / width<T>;
    for_groups_of<2>(vectors, [&](auto across, std::int64_t v) {
        const std::int64_t c = v * width<T>;
        for_groups_of<rows_at_once>(depth, [&](auto group, std::int64_t d) {
            outer_block<decltype(group)::value, decltype(across)::value, T>(
                out + d * out_row + c, out_row, x + d, x_row, y + c, y_row, nodes, columns - static_cast<int>(c));
        });
    });
}

// Σ_k a_k b_k.
template <class T>
SDAS_INLINE T dot(const T* a, const T* b, std::int64_t count) {
    Vector<T> sum{};
    std::int64_t k = 0;
    for (; k + width<T> <= count; k += width<T>) sum += load<T>(a + k) * load<T>(b + k);
    if (k < count) {
        const int rest = static_cast<int>(count - k);
        sum += load_first(a + k, rest) * load_first(b + k, rest);
    }
    return total<T>(sum);
}

}  // namespace sdas::SDAS_SIMD
