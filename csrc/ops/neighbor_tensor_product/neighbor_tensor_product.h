// Sum over neighbors of the tensor product of their features with weighted harmonics: what the kernels take, and
// the calls that run them on the threads of the pool.
//
// With B_e[m2, c] = weight_e[l(m2), k(c)] Y_e[m2] the whole derivative ladder is three contractions:
//
//   tiles       A_i[m1, m2, c] = Σ_e v_j[m1, c] B_e[m2, c],  z_i = coupling · A_i      threads over receivers
//   edge dot    D_e[m2, c]     = Σ_m1 (couplingᵀ · z_i)[m1, m2, c] v_j[m1, c]          threads over receivers
//   to senders  v_j[m1, c]     = Σ_e Σ_m2 (couplingᵀ · z_i)[m1, m2, c] B_e[m2, c]      threads over senders
//
// Each result is summed by one thread in the order of its edges, so results do not depend on the thread count.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/neighbor_tensor_product/coupling.h"
#include "simd/simd.h"
#include "system/thread_pool.h"

namespace sdas {

// All arrays are row-major and contiguous; L = harmonics' lmax, M2 = (L + 1)². The pointers ending in `_step` are
// the tangents of a double backward and null otherwise.
template <class T>
struct NeighborTensorProduct {
    std::int64_t nodes, edges;
    int lmax, m1, rows, channels, heads;  // heads divide channels
    const std::int64_t *receivers, *senders, *row_ptr, *sender_order, *sender_ptr;
    Coupling<T> coupling;
    const T *weight, *weight_step;        // [E, L+1, heads]
    const T *harmonics, *harmonics_step;  // [E, M2]
    const T *value, *value_step;          // [N, m1, channels]
    const T* z;                           // [N, rows, channels]: cotangent of the result
    T* out_z;                             // [N, rows, channels]
    T* out_value;                         // [N, m1, channels]
    T *out_weight, *out_weight_step;      // [E, L+1, heads]
    T* out_harmonics;                     // [E, M2]
};

#define SDAS_DECLARE_NEIGHBOR_TENSOR_PRODUCT(level)                                                       \
    namespace level {                                                                                     \
    template <class T>                                                                                    \
    void neighbor_tensor_product_tiles(const NeighborTensorProduct<T>&, std::int64_t, std::int64_t);      \
    template <class T>                                                                                    \
    void neighbor_tensor_product_edge_dot(const NeighborTensorProduct<T>&, std::int64_t, std::int64_t);   \
    template <class T>                                                                                    \
    void neighbor_tensor_product_to_senders(const NeighborTensorProduct<T>&, std::int64_t, std::int64_t); \
    }

SDAS_DECLARE_NEIGHBOR_TENSOR_PRODUCT(baseline)
#if defined(__x86_64__)
SDAS_DECLARE_NEIGHBOR_TENSOR_PRODUCT(avx2)
SDAS_DECLARE_NEIGHBOR_TENSOR_PRODUCT(avx512)
#endif
#undef SDAS_DECLARE_NEIGHBOR_TENSOR_PRODUCT

template <class T>
void run(void (*kernel)(const NeighborTensorProduct<T>&, std::int64_t, std::int64_t),
         const NeighborTensorProduct<T>& job, int threads) {
    const std::int64_t work = job.edges * job.m1 * (job.lmax + 1) * (job.lmax + 1) * job.channels;
    parallel_for(job.nodes, 1, useful_threads(threads, work),
                 [&](std::int64_t begin, std::int64_t end) { kernel(job, begin, end); });
}

// out_z, from weight, harmonics and value, or in a double backward the derivative along the steps.
template <class T>
void neighbor_tensor_product_tiles(const NeighborTensorProduct<T>& job, int threads) {
    run(SDAS_SELECT(neighbor_tensor_product_tiles, T), job, threads);
}

// out_weight and out_harmonics, in a double backward also out_weight_step.
template <class T>
void neighbor_tensor_product_edge_dot(const NeighborTensorProduct<T>& job, int threads) {
    run(SDAS_SELECT(neighbor_tensor_product_edge_dot, T), job, threads);
}

// out_value.
template <class T>
void neighbor_tensor_product_to_senders(const NeighborTensorProduct<T>& job, int threads) {
    run(SDAS_SELECT(neighbor_tensor_product_to_senders, T), job, threads);
}

}  // namespace sdas
