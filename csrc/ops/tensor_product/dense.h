// Tensor product along paths whose weight mixes channels and is the same for all samples: z = Q(P(x, y) W, y).
//
// P and Q are tensor products without a weight (tensor_product.h). A path is contracted with its coupling either by P,
// so that W multiplies 2 l3 + 1 rows per sample, or by Q, so that it multiplies 2 l1 + 1; tables_dense.py chooses. What
// the other one does is to copy.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops/tensor_product/tensor_product.h"

namespace sdas {

// Rows of matrices are filled up to multiples of so many numbers.
constexpr std::int64_t matrix_padding = 16;

// One matrix of W, [depth, columns]. It takes `rows` rows of each sample from the products, the results of P, to the
// mixed features, the first operand of Q: arrays [batch, rows, depth] and [batch, rows, columns], which begin at batch
// times `products` and `mixed`. The matrix lies at `weight`, its transpose at `transposed`. All rows in memory are
// filled up to multiples of `matrix_padding`. `coupled`: whether Q multiplies the result with y.
struct TensorProductMatrix {
    std::int64_t rows, depth, columns, products, mixed, weight, transposed, coupled;
};

// The weight of one path, [rows, columns] from `source` on in the flat weight, as a part of a matrix and its transpose.
struct TensorProductPart {
    std::int64_t source, rows, columns, place, place_row, transposed, transposed_row;
};

// `inner` is P and `outer` Q, with the operands x, y and grad of the whole. `packed` and its tangent, which `run` makes
// of the flat `weight`, hold all matrices, `by_matrices` numbers, then all transposes, `numbers` in all. The gradient by
// W is summed over spans of samples, each span into a row of `partial`.
template <class T>
struct TensorProductDense {
    TensorProduct<T> inner, outer;
    std::int64_t matrices, parts, block, span, by_matrices, numbers;
    const TensorProductMatrix* matrix;
    const TensorProductPart* part;
    const T *weight, *weight_step, *packed, *packed_step;
    T *out, *by_x, *by_y, *by_weight, *partial;
};

// A few columns at a time: what is written of them stays in the first cache.
template <class T>
void transpose(const T* weight, T* transposed, const TensorProductPart& part) {
    constexpr std::int64_t few = 16;
    for (std::int64_t first = 0; first < part.columns; first += few) {
        const std::int64_t end = std::min(first + few, part.columns);
        for (std::int64_t r = 0; r < part.rows; ++r) {
            for (std::int64_t c = first; c < end; ++c) {
                transposed[c * part.transposed_row + r] = weight[r * part.columns + c];
            }
        }
    }
}

// All matrices, and their transposes if they are wanted; zeros fill up their rows.
template <class T>
std::vector<T> pack(const T* weight, const TensorProductDense<T>& job, bool transposes) {
    if (weight == nullptr) return {};
    std::vector<T> packed(transposes ? job.numbers : job.by_matrices);
    for (std::int64_t n = 0; n < job.parts; ++n) {
        const TensorProductPart& part = job.part[n];
        for (std::int64_t r = 0; r < part.rows; ++r) {
            const T* row = weight + part.source + r * part.columns;
            std::copy(row, row + part.columns, packed.data() + part.place + r * part.place_row);
        }
        if (transposes) transpose(weight + part.source, packed.data() + part.transposed, part);
    }
    return packed;
}

// The gradient by the flat weight, from those of all spans.
template <class T>
void add_spans(const TensorProductDense<T>& job) {
    const std::int64_t spans = (job.inner.batch + job.span - 1) / job.span;
    for (std::int64_t n = 0; n < job.parts; ++n) {
        const TensorProductPart& part = job.part[n];
        for (std::int64_t r = 0; r < part.rows; ++r) {
            T* row = job.by_weight + part.source + r * part.columns;
            std::fill(row, row + part.columns, T(0));
            for (std::int64_t s = 0; s < spans; ++s) {
                const T* more = job.partial + s * job.by_matrices + part.place + r * part.place_row;
                for (std::int64_t c = 0; c < part.columns; ++c) row[c] += more[c];
            }
        }
    }
}

#define SDAS_DECLARE_TENSOR_PRODUCT_DENSE(level)                                                         \
    namespace level {                                                                                    \
    template <class T>                                                                                   \
    void tensor_product_dense_forward(const TensorProductDense<T>&, std::int64_t, std::int64_t);         \
    template <class T>                                                                                   \
    void tensor_product_dense_backward(const TensorProductDense<T>&, std::int64_t, std::int64_t);        \
    template <class T>                                                                                   \
    void tensor_product_dense_double_backward(const TensorProductDense<T>&, std::int64_t, std::int64_t); \
    }

SDAS_DECLARE_TENSOR_PRODUCT_DENSE(baseline)
#if defined(__x86_64__)
SDAS_DECLARE_TENSOR_PRODUCT_DENSE(avx2)
SDAS_DECLARE_TENSOR_PRODUCT_DENSE(avx512)
#endif
#undef SDAS_DECLARE_TENSOR_PRODUCT_DENSE

template <class T>
void run(void (*kernel)(const TensorProductDense<T>&, std::int64_t, std::int64_t), TensorProductDense<T> job,
         int threads) {
    const std::int64_t batch = job.inner.batch;
    const bool transposes = job.outer.grad != nullptr;  // which a forward has not
    const std::vector<T> packed = pack(job.weight, job, transposes);
    const std::vector<T> packed_step = pack(job.weight_step, job, transposes);
    job.packed = packed.data(), job.packed_step = packed_step.data();
    const FreshResults<T> results{
        {{job.out, job.outer.dim_out}, {job.by_x, job.inner.dim1}, {job.by_y, job.inner.dim2}, {nullptr, 0}}};
    results.advise(batch);
    std::int64_t work = job.inner.work + job.outer.work;
    for (std::int64_t n = 0; n < job.matrices; ++n) {
        work += job.matrix[n].rows * job.matrix[n].depth * job.matrix[n].columns;
    }
    parallel_for(batch, job.span, useful_threads(threads, batch * work), [&](std::int64_t begin, std::int64_t end) {
        results.populate(begin, end);
        kernel(job, begin, end);
    });
    if (job.by_weight != nullptr) add_spans(job);
}

// out.
template <class T>
void tensor_product_dense_forward(const TensorProductDense<T>& job, int threads) {
    run(SDAS_SELECT(tensor_product_dense_forward, T), job, threads);
}

// by_x, by_y, by_weight, those that are wanted.
template <class T>
void tensor_product_dense_backward(const TensorProductDense<T>& job, int threads) {
    run(SDAS_SELECT(tensor_product_dense_backward, T), job, threads);
}

// The gradients of <steps, backward>: by grad (`out`), by_x, by_y, by_weight, those that are wanted.
template <class T>
void tensor_product_dense_double_backward(const TensorProductDense<T>& job, int threads) {
    run(SDAS_SELECT(tensor_product_dense_double_backward, T), job, threads);
}

}  // namespace sdas
