// Clebsch–Gordan tensor product along paths that treat channels alike: what the kernels take, and the calls that run
// them on the threads of the pool.
//
//   z[out, k, c] += w[c] Σ_{i, j} C[i, j, k] a[i, c] s[j]          for every path
//
// The channels c of the first operand a are the lanes of a vector register. The second operand s either is the same for
// all channels (uniform) or has channels itself. Every connection mode is a set of such paths: `uvu` one per v, `uvv`
// one per u with the inputs exchanged, and so on; sdas_kernels/ops/tensor_product/tables.py makes them. The forms of
// the derivatives stand in tensor_product_paths.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "simd/simd.h"
#include "system/huge_pages.h"
#include "system/thread_pool.h"

namespace sdas {

// Where an array keeps component k of channel c of sample b: offset + per_batch · batch + b · sample + c · channel +
// k · component. Kernels hold an operand in the rows `row` .. `row + dim` of a scratch.
struct TensorProductView {
    std::int64_t array, offset, per_batch, sample, channel, component, mul, dim, row;
};

// A second operand without channels: `dim` neighboring numbers of each sample of x or y.
struct TensorProductUniform {
    std::int64_t array, offset, dim, row;
};

// A run of components that no view covers, so that a result has to be zero there.
struct TensorProductGap {
    std::int64_t array, offset, size;
};

// `weight` is the place of channel 0 in the flat weight, -1 for a weight of one; `matrix` the place of the path's
// first entry of its matrix among those of all paths. A path that `copies` has no second operand: z = a. Its a may be
// rows of whole vectors that no other path takes; they are read in place then, and the gradient by them is written, not
// added: number `row_view` of those views, or -1. A double backward leaves that gradient, which is zero, alone.
struct TensorProductPath {
    std::int64_t first_row, second_row, uniform, copies, row_view, first_array, mul, weight, weight_channel, coupling,
        matrix;
};

// Coefficients of one path; places in `index` and `values`. They make the matrix M[k, i] = Σ_j C s_j, whose entries have
// the numbers k · d1 + i, `entries` in all. Where s has one component, M is a number times the identity, and only that
// number is kept: `diagonal`.
struct TensorProductCoupling {
    std::int64_t d1, d2, d3, diagonal, entries;
    std::int64_t term_start, term_j, term_value;         // non-zero coefficients, those of each entry side by side
    std::int64_t share_start, share_entry, share_value;  // the same, those of each component of s side by side
};

enum TensorProductArray : std::int64_t { array_x, array_y, array_out };

// Arrays are row-major; pointers ending in `_step` are the tangents of a double backward. A result whose pointer is
// null is not wanted. With a shared weight, its gradient is summed over blocks of samples into the rows of `partial`.
template <class T>
struct TensorProduct {
    std::int64_t batch, block, dim1, dim2, dim_out, weight_numel, shared;
    std::int64_t lane_views, lane_rows, out_views, uniforms, uniform_rows, paths, matrices, gaps, max_mul, work;
    const TensorProductView *lane_view, *out_view, *row_view;
    const TensorProductUniform* uniform;
    const TensorProductGap* gap;
    const TensorProductPath* path;   // those to one view of the output side by side
    const std::int64_t* path_start;  // [out_views + 1], the first path to each view
    const TensorProductCoupling* coupling;
    const std::int32_t* index;
    const T* values;
    const T *x, *y, *weight, *grad;
    const T *x_step, *y_step, *weight_step;
    T* out;  // the product; in a double backward the gradient by grad
    T *by_x, *by_y, *by_weight, *partial;
    // By TensorProductArray: whether a result is a part of an array that exceeds the caches, and whether a gradient is
    // added to what is there.
    bool is_part[3] = {}, adds[3] = {};
};

#define SDAS_DECLARE_TENSOR_PRODUCT(level)                                                    \
    namespace level {                                                                         \
    template <class T>                                                                        \
    void tensor_product_forward(const TensorProduct<T>&, std::int64_t, std::int64_t);         \
    template <class T>                                                                        \
    void tensor_product_backward(const TensorProduct<T>&, std::int64_t, std::int64_t);        \
    template <class T>                                                                        \
    void tensor_product_double_backward(const TensorProduct<T>&, std::int64_t, std::int64_t); \
    }

SDAS_DECLARE_TENSOR_PRODUCT(baseline)
#if defined(__x86_64__)
SDAS_DECLARE_TENSOR_PRODUCT(avx2)
SDAS_DECLARE_TENSOR_PRODUCT(avx512)
#endif
#undef SDAS_DECLARE_TENSOR_PRODUCT

// Results of a kernel, or null, and their numbers per sample: about their pages.
template <class T>
struct FreshResults {
    std::pair<T*, std::int64_t> results[4];

    void advise(std::int64_t batch) const {
        for (auto [array, size] : results) {
            if (array != nullptr) advise_huge_pages(array, sizeof(T) * batch * size);
        }
    }

    void populate(std::int64_t begin, std::int64_t end) const {
        for (auto [array, size] : results) {
            if (array != nullptr) populate_pages(array + begin * size, sizeof(T) * (end - begin) * size);
        }
    }
};

template <class T>
void run(void (*kernel)(const TensorProduct<T>&, std::int64_t, std::int64_t), const TensorProduct<T>& job,
         int threads) {
    const FreshResults<T> results{{{job.out, job.dim_out},
                                   {job.by_x, job.dim1},
                                   {job.by_y, job.dim2},
                                   {job.shared ? nullptr : job.by_weight, job.weight_numel}}};
    results.advise(job.batch);
    parallel_for(job.batch, job.block, useful_threads(threads, job.batch * job.work),
                 [&](std::int64_t begin, std::int64_t end) {
                     results.populate(begin, end);
                     kernel(job, begin, end);
                 });
    if (!job.shared || job.by_weight == nullptr) return;
    std::fill(job.by_weight, job.by_weight + job.weight_numel, T(0));
    for (std::int64_t first = 0; first < job.batch; first += job.block) {
        const T* row = job.partial + first / job.block * job.weight_numel;
        for (std::int64_t i = 0; i < job.weight_numel; ++i) job.by_weight[i] += row[i];
    }
}

// out.
template <class T>
void tensor_product_forward(const TensorProduct<T>& job, int threads) {
    run(SDAS_SELECT(tensor_product_forward, T), job, threads);
}

// by_x, by_y, by_weight, those that are wanted.
template <class T>
void tensor_product_backward(const TensorProduct<T>& job, int threads) {
    run(SDAS_SELECT(tensor_product_backward, T), job, threads);
}

// The gradients of <steps, backward>: by grad (`out`), by_x, by_y, by_weight, those that are wanted.
template <class T>
void tensor_product_double_backward(const TensorProduct<T>& job, int threads) {
    run(SDAS_SELECT(tensor_product_double_backward, T), job, threads);
}

}  // namespace sdas
