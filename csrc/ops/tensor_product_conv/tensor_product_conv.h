// Sum over neighbors of Clebsch–Gordan products with a weight per edge, path and channel: what the kernels take, and the
// calls that run them on the threads of the pool.
//
// With M_e[k, i] = Σ_j C[i, j, k] y_e[j], numbers that all channels of a path share, the derivative ladder is
//
//   reduce   out_n[k, c] = Σ_e w_e[c] Σ_i M_e[k, i] in_{n(e)}[i, c]                      threads over nodes n
//   edge     ∂w_e[c] = Σ_{k, i} g[k, c] M_e[k, i] in[i, c],  ∂M_e[k, i] = Σ_c w g in     threads over receivers
//
// and ∂y by C from ∂M. `reduce` over the edges of each receiver is the value; with M transposed, over the edges of each
// sender and of the gradient at their receivers, it is the gradient by the features of the senders. Arrays of nodes are
// packed first: each entry of the irreps as rows of channels, one row per order. Each result is summed by one thread in
// the order of its edges.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd/simd.h"
#include "system/huge_pages.h"
#include "system/thread_pool.h"

namespace sdas {

// Channels in a row are a multiple of so many; the last ones are zero.
constexpr std::int64_t tensor_product_conv_padding = 16;

// An entry of the irreps: its place in a node's features (channels slow, orders fast), and in a packed node.
struct TensorProductConvEntry {
    std::int64_t offset, mul, dim, row;
};

// `in_row`, `out_row`: places in packed nodes; `weight`: place of channel 0, -1 for a weight of one; `matrix`: number of
// the path's first pair (k, i), k slow. A diagonal path, of a scalar y, has one number in place of its matrix.
struct TensorProductConvPath {
    std::int64_t in_row, out_row, in_dim, out_dim, mul, weight, weight_channel, matrix, diagonal;
};

// Arrays are row-major; pointers ending in `_step` are the tangents of a double backward, null for zero. `in`, `in_step`
// and `grad` are packed, but for `pack`. With a shared weight its gradient is summed over blocks of nodes into the rows
// of `partial`.
template <class T>
struct TensorProductConv {
    std::int64_t nodes, edges, block, second_order, shared, dim2, weight_numel, work;
    std::int64_t in_dim, in_entries, in_width, out_dim, out_entries, out_width, paths, pairs;
    const TensorProductConvEntry *in_entry, *out_entry;
    const TensorProductConvPath* path;
    const std::int32_t *term_start, *term_j;  // coefficients of each pair
    const T* term_value;
    const std::int64_t* pointers;   // [nodes + 1], first place of each node's edges
    const std::int64_t* order;      // [edges], the edge at each place; null if it is the place
    const std::int64_t* neighbors;  // [edges], the node at the other end of each edge
    const T *in, *in_step, *grad;
    const T *y, *y_step;            // [edges, dim2]
    const T *weight, *weight_step;  // [edges, weight_numel], or [weight_numel] if shared
    T* out;
    T *by_y, *by_weight, *partial;
};

#define SDAS_DECLARE_TENSOR_PRODUCT_CONV(level)                                               \
    namespace level {                                                                         \
    template <class T>                                                                        \
    void tensor_product_conv_pack(const TensorProductConv<T>&, std::int64_t, std::int64_t);   \
    template <class T>                                                                        \
    void tensor_product_conv_reduce(const TensorProductConv<T>&, std::int64_t, std::int64_t); \
    template <class T>                                                                        \
    void tensor_product_conv_edge(const TensorProductConv<T>&, std::int64_t, std::int64_t);   \
    }

SDAS_DECLARE_TENSOR_PRODUCT_CONV(baseline)
#if defined(__x86_64__)
SDAS_DECLARE_TENSOR_PRODUCT_CONV(avx2)
SDAS_DECLARE_TENSOR_PRODUCT_CONV(avx512)
#endif
#undef SDAS_DECLARE_TENSOR_PRODUCT_CONV

template <class T>
void run(void (*kernel)(const TensorProductConv<T>&, std::int64_t, std::int64_t), const TensorProductConv<T>& job,
         int threads) {
    const std::int64_t work = job.nodes * job.in_width + job.edges * job.work;
    parallel_for(job.nodes, job.block, useful_threads(threads, work),
                 [&](std::int64_t begin, std::int64_t end) { kernel(job, begin, end); });
}

// out [nodes, in_width], from in [nodes, in_dim].
template <class T>
void tensor_product_conv_pack(const TensorProductConv<T>& job, int threads) {
    run(SDAS_SELECT(tensor_product_conv_pack, T), job, threads);
}

// out [nodes, out_dim], in a double backward along the steps.
template <class T>
void tensor_product_conv_reduce(const TensorProductConv<T>& job, int threads) {
    run(SDAS_SELECT(tensor_product_conv_reduce, T), job, threads);
}

// by_y and by_weight, those that are wanted; in a double backward along the steps.
template <class T>
void tensor_product_conv_edge(const TensorProductConv<T>& job, int threads) {
    if (job.by_weight != nullptr && !job.shared) {
        advise_huge_pages(job.by_weight, sizeof(T) * job.edges * job.weight_numel);
    }
    run(SDAS_SELECT(tensor_product_conv_edge, T), job, threads);
    if (!job.shared || job.by_weight == nullptr) return;
    std::fill(job.by_weight, job.by_weight + job.weight_numel, T(0));
    for (std::int64_t first = 0; first < job.nodes; first += job.block) {
        const T* row = job.partial + first / job.block * job.weight_numel;
        for (std::int64_t i = 0; i < job.weight_numel; ++i) job.by_weight[i] += row[i];
    }
}

}  // namespace sdas
