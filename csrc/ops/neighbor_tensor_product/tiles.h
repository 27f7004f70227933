// Tiles [m1, M2] of one node for a block of channels: sums of outer products of values and weighted harmonics, and the
// coupling that leads from them to the rows z and back. Included only by kernel files, like vector.h.
//
// A job names `m1`, `rows` and `channels` (ints) and the `coupling`.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/neighbor_tensor_product/coupling.h"
#include "simd/channel_block.h"

namespace sdas::SDAS_SIMD {

constexpr int chunk = 16;  // edges whose weighted harmonics are kept at a time

// Rows of a tile whose accumulators fit in the registers together with what they need.
template <int M2>
constexpr int rows_in_registers = std::max(1, (SDAS_VECTOR_BYTES == 64 ? 27 : 12) / M2);

template <int L>
constexpr int orders = (L + 1) * (L + 1);

// Calls body(l, m) for every order m = m2 of the degrees up to L, unrolled.
template <int L, class Body>
SDAS_INLINE void for_orders(const Body& body) {
#pragma GCC unroll 32
    for (int m = 0; m < orders<L>; ++m) body(degree_of(m), m);
}

// Calls body with the degree of the harmonics as a compile-time constant.
template <int L = 0, class Body>
SDAS_INLINE void for_lmax(int lmax, const Body& body) {
    if (lmax == L) return body(Constant<L>{});
    if constexpr (L < neighbor_max_degree) for_lmax<L + 1>(lmax, body);
}

// The weight of each degree, one per head and `stride` apart, for a block of channels.
template <int L, class T, class Block>
SDAS_INLINE void spread_weights(Vector<T>* w, const T* weight, std::int64_t stride, int channels_per_head,
                                Block block) {
    for (int l = 0; l <= L; ++l) w[l] = block.spread(weight + l * stride, channels_per_head);
}

// B[m2] = w[l] Y[m2].
template <int L, class T>
SDAS_INLINE void weighted_harmonics(Vector<T>* b, const Vector<T>* w, const T* y) {
    for_orders<L>([&](int l, int m) { b[m] = w[l] * y[m]; });
}

// Its derivative along the steps of both.
template <int L, class T>
SDAS_INLINE void weighted_harmonics_step(Vector<T>* b, const Vector<T>* w, const Vector<T>* w_step, const T* y,
                                         const T* y_step) {
    for_orders<L>([&](int l, int m) { b[m] = sum_of_products<T>(y[m], w_step[l], y_step[m], w[l]); });
}

// tile[m1 .. m1+G, :] += Σ over `count` edges of v_j[m1] B_e, or = if it is `fresh`.
template <int G, int M2, class T, class Block>
SDAS_INLINE void accumulate(Vector<T>* tile, const Vector<T>* b, const T* const* value, int count, int channels,
                            Block block, bool fresh) {
    Vector<T> sum[G][M2];
    for (int g = 0; g < G; ++g) {
        for (int m = 0; m < M2; ++m) sum[g][m] = fresh ? Vector<T>{} : tile[g * M2 + m];
    }
    for (int e = 0; e < count; ++e, b += M2) {
        Vector<T> v[G];
        for (int g = 0; g < G; ++g) v[g] = block.load(value[e] + g * channels);
#pragma GCC unroll 32
        for (int m = 0; m < M2; ++m) {
            const Vector<T> factor = G > 1 ? in_register<T>(b[m]) : b[m];
#pragma GCC unroll 32
            for (int g = 0; g < G; ++g) sum[g][m] += v[g] * factor;
        }
    }
    for (int g = 0; g < G; ++g) {
        for (int m = 0; m < M2; ++m) tile[g * M2 + m] = sum[g][m];
    }
}

// tile += Σ over `count` edges of v_j ⊗ B_e, or = if it is `fresh`; sent[e] is the block's place in row 0 of v_j and
// moves on.
template <int M2, class T, class Block, class Job>
SDAS_INLINE void accumulate_rows(Vector<T>* tile, const Vector<T>* b, const T** sent, int count, const Job& job,
                                 Block block, bool fresh = false) {
    constexpr int G = rows_in_registers<M2>;
    int m1 = 0;
    const auto advance = [&](int by) {
        m1 += by;
        for (int e = 0; e < count; ++e) sent[e] += by * job.channels;
    };
    for (; m1 + G <= job.m1; advance(G)) {
        accumulate<G, M2, T>(tile + m1 * M2, b, sent, count, job.channels, block, fresh);
    }
    for (; m1 < job.m1; advance(1)) {
        accumulate<1, M2, T>(tile + m1 * M2, b, sent, count, job.channels, block, fresh);
    }
}

// z = coupling · tile for a block of channels; `sum` is room for the rows of z.
template <class T, class Block, class Job>
[[gnu::noinline]] void couple(T* z, const Vector<T>* __restrict tile, Vector<T>* __restrict sum, const Job& job,
                              Block block) {
    const Coupling<T> c = job.coupling;
    std::fill(sum, sum + job.rows, Vector<T>{});
    for (int q = 0; q < c.entries; ++q) sum[c.row[q]] += c.coefficient[q] * tile[c.pair[q]];
    for (int r = 0; r < job.rows; ++r) block.store(z + r * job.channels, sum[r]);
}

// tile = couplingᵀ · z for a block of channels.
template <class T, class Block, class Job>
[[gnu::noinline]] void uncouple(Vector<T>* __restrict tile, const T* __restrict z, const Job& job, int pairs,
                                Block block) {
    const Coupling<T> c = job.coupling;
    const std::int64_t channels = job.channels;
    std::fill(tile, tile + pairs, Vector<T>{});
    for (int q = 0; q < c.entries; ++q) {
        tile[c.pair[q]] += c.coefficient[q] * block.load(z + c.row[q] * channels);
    }
}

// d[i, m2] = Σ_m1 tile[m1, m2] v_i[m1] of V values.
template <int V, int M2, class T, class Block, class Job>
SDAS_INLINE void dot(Vector<T>* d, const Vector<T>* tile, const T* const* v, const Job& job, Block block) {
    Vector<T> sum[V][M2] = {};
    for (int m1 = 0; m1 < job.m1; ++m1, tile += M2) {
        Vector<T> x[V];
        for (int i = 0; i < V; ++i) x[i] = block.load(v[i] + m1 * job.channels);
#pragma GCC unroll 32
        for (int m = 0; m < M2; ++m) {
            const Vector<T> factor = V > 1 ? in_register<T>(tile[m]) : tile[m];
            for (int i = 0; i < V; ++i) sum[i][m] += factor * x[i];
        }
    }
    for (int i = 0; i < V; ++i) {
        for (int m = 0; m < M2; ++m) d[i * M2 + m] = sum[i][m];
    }
}

}  // namespace sdas::SDAS_SIMD
