// Tiles [m1, M2] of one node for a block of channels: sums of outer products of values and weighted harmonics, and the
// coupling that leads from them to the rows z and back. Included only by kernel files, like vector.h.
//
// A job names `m1` and `channels` (ints) and the coupling tables row_start, row_pair, row_coefficient, pair_start,
// pair_row, pair_coefficient: entries row_start[r] .. row_start[r+1] of a row r of z name a pair m1·M2 + m2 and its
// coefficient; pair_start and its kind say the same from the side of the pair.
#pragma once

#include <algorithm>
#include <cstdint>

#include "sdas/channel_block.h"

namespace sdas::SDAS_SIMD {

constexpr int chunk = 8;  // edges whose weighted harmonics are kept at a time

// Rows of a tile whose accumulators fit in the registers together with what they need.
template <int M2>
constexpr int rows_in_registers = std::max(1, (SDAS_VECTOR_BYTES == 64 ? 27 : 12) / M2);

template <int L>
constexpr int orders = (L + 1) * (L + 1);

// The degree l of each order m2.
template <class Body>
SDAS_INLINE void for_degrees(int lmax, const Body& body) {
    for (int l = 0, m = 0; l <= lmax; ++l) {
        for (; m < (l + 1) * (l + 1); ++m) body(l, m);
    }
}

// Calls body with the degree of the harmonics as a compile-time constant.
template <class Body>
SDAS_INLINE void for_lmax(int lmax, const Body& body) {
    switch (lmax) {
        case 0: return body(Constant<0>{});
        case 1: return body(Constant<1>{});
        case 2: return body(Constant<2>{});
        case 3: return body(Constant<3>{});
        case 4: return body(Constant<4>{});
    }
}

// The weight of each degree, one per head and `stride` apart, for a block of channels.
template <int L, class T, class Block, class Job>
SDAS_INLINE void spread_weights(Vector<T>* w, const T* weight, std::int64_t stride, const Job& job, Block block) {
    for (int l = 0; l <= L; ++l) w[l] = block.spread(weight + l * stride, job);
}

// B[m2] = w[l] Y[m2].
template <int L, class T>
SDAS_INLINE void weighted_harmonics(Vector<T>* b, const Vector<T>* w, const T* y) {
    for_degrees(L, [&](int l, int m) { b[m] = w[l] * y[m]; });
}

// Its derivative along the steps of both.
template <int L, class T>
SDAS_INLINE void weighted_harmonics_step(Vector<T>* b, const Vector<T>* w, const Vector<T>* w_step, const T* y,
                                         const T* y_step) {
    for_degrees(L, [&](int l, int m) { b[m] = w_step[l] * y[m] + w[l] * y_step[m]; });
}

// tile[m1 .. m1+G, :] += Σ over `count` edges of v_j[m1] B_e.
template <int G, int M2, class T, class Block>
SDAS_INLINE void accumulate(Vector<T>* tile, const Vector<T>* b, const T* const* value, int count, int channels,
                            Block block) {
    Vector<T> sum[G][M2];
    for (int g = 0; g < G; ++g) {
        for (int m = 0; m < M2; ++m) sum[g][m] = tile[g * M2 + m];
    }
    for (int e = 0; e < count; ++e, b += M2) {
        Vector<T> v[G];
        for (int g = 0; g < G; ++g) v[g] = block.load(value[e] + g * channels);
        for (int m = 0; m < M2; ++m) {
            for (int g = 0; g < G; ++g) sum[g][m] += v[g] * b[m];
        }
    }
    for (int g = 0; g < G; ++g) {
        for (int m = 0; m < M2; ++m) tile[g * M2 + m] = sum[g][m];
    }
}

// tile += Σ over `count` <= chunk edges of v_j ⊗ B_e; sent[e] is the block's place in row 0 of v_j and moves on.
template <int M2, class T, class Block, class Job>
SDAS_INLINE void accumulate_rows(Vector<T>* tile, const Vector<T>* b, const T** sent, int count, const Job& job,
                                 Block block) {
    constexpr int G = rows_in_registers<M2>;
    int m1 = 0;
    const auto advance = [&](int by) {
        m1 += by;
        for (int e = 0; e < count; ++e) sent[e] += by * job.channels;
    };
    for (; m1 + G <= job.m1; advance(G)) accumulate<G, M2, T>(tile + m1 * M2, b, sent, count, job.channels, block);
    for (; m1 < job.m1; advance(1)) accumulate<1, M2, T>(tile + m1 * M2, b, sent, count, job.channels, block);
}

// z = coupling · tile for a block of channels.
template <class T, class Block, class Job>
SDAS_INLINE void couple(T* z, const Vector<T>* tile, const Job& job, Block block) {
    for (int r = 0; r < job.rows; ++r) {
        Vector<T> sum{};
        for (int q = job.row_start[r]; q < job.row_start[r + 1]; ++q) {
            sum += job.row_coefficient[q] * tile[job.row_pair[q]];
        }
        block.store(z + r * job.channels, sum);
    }
}

// tile = couplingᵀ · z for a block of channels.
template <class T, class Block, class Job>
SDAS_INLINE void uncouple(Vector<T>* tile, const T* z, const Job& job, int pairs, Block block) {
    for (int p = 0; p < pairs; ++p) {
        Vector<T> sum{};
        for (int q = job.pair_start[p]; q < job.pair_start[p + 1]; ++q) {
            sum += job.pair_coefficient[q] * block.load(z + job.pair_row[q] * job.channels);
        }
        tile[p] = sum;
    }
}

// d[i, m2] = Σ_m1 tile[m1, m2] v_i[m1] of V values.
template <int V, int M2, class T, class Block, class Job>
SDAS_INLINE void dot(Vector<T>* d, const Vector<T>* tile, const T* const* v, const Job& job, Block block) {
    Vector<T> sum[V][M2] = {};
    for (int m1 = 0; m1 < job.m1; ++m1, tile += M2) {
        Vector<T> x[V];
        for (int i = 0; i < V; ++i) x[i] = block.load(v[i] + m1 * job.channels);
        for (int m = 0; m < M2; ++m) {
            for (int i = 0; i < V; ++i) sum[i][m] += tile[m] * x[i];
        }
    }
    for (int i = 0; i < V; ++i) {
        for (int m = 0; m < M2; ++m) d[i * M2 + m] = sum[i][m];
    }
}

}  // namespace sdas::SDAS_SIMD
