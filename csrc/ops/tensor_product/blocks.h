// The steps of tensor_product_dense.h for blocks of samples whose arrays stay in the second cache. Included only by
// csrc/ops/tensor_product/tensor_product.cpp, after the kernels of P and Q.
//
// With p = P(x, y), h = p W, and γ = ∂Q(h, y)/∂h at g, and ' for tangents (γ' is γ with y' for y),
//
//   forward           z = Q(h, y)
//   backward          ∂W = pᵀ γ     ∂x, ∂y of P at γ Wᵀ, and ∂y of Q at g
//   double backward   h' = p' W + p W'     z' = Q(h', y) + Q(h, y')     ∂W = p'ᵀ γ + pᵀ γ'
//                     ∂x, ∂y of P' at γ Wᵀ, and of P at γ W'ᵀ + γ' Wᵀ, and ∂y of Q' at g
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "ops/tensor_product/dense.h"
#include "simd/matrix_product.h"
#include "simd/streaming.h"
#include "simd/vector.h"

namespace sdas::SDAS_SIMD {

template <class T>
class DenseBlocks {
  public:
    // For up to so many samples at a time.
    DenseBlocks(const TensorProductDense<T>& job, std::int64_t samples)
        : job_(job),
          products_(samples * job.inner.dim_out),
          products_step_(samples * job.inner.dim_out),
          by_products_(samples * job.inner.dim_out),
          mixed_(samples * job.outer.dim1),
          mixed_step_(samples * job.outer.dim1),
          by_mixed_(samples * job.outer.dim1),
          by_mixed_step_(samples * job.outer.dim1) {}

    void forward(std::int64_t begin, std::int64_t end) {
        for_blocks(begin, end, [&] {
            make_products();
            mix(mixed_, products_, job_.packed, false, false);
            TensorProduct<T> q = outer();
            q.out = result(job_.out, q.dim_out);
            tensor_product_forward(q, 0, size_);
        });
    }

    void backward(std::int64_t begin, std::int64_t end) {
        for_blocks(begin, end, [&] {
            if (job_.by_y != nullptr || job_.by_weight != nullptr) make_products();
            if (job_.by_y != nullptr) mix(mixed_, products_, job_.packed, true, false);
            TensorProduct<T> q = outer();
            q.by_x = by_mixed_.get();
            q.by_y = result(job_.by_y, q.dim2);
            tensor_product_backward(q, 0, size_);
            if (job_.by_weight != nullptr) add_by_weight(products_, by_mixed_, false);
            if (job_.by_x == nullptr && job_.by_y == nullptr) return;
            unmix(by_products_, by_mixed_, job_.packed, false, false);
            TensorProduct<T> p = inner();
            p.grad = by_products_.get();
            p.by_x = result(job_.by_x, p.dim1), p.by_y = result(job_.by_y, p.dim2);
            p.is_part[array_x] = exceeds_caches(job_.inner.batch * p.dim1 * sizeof(T));
            p.adds[array_y] = true;
            tensor_product_backward(p, 0, size_);
        });
    }

    void double_backward(std::int64_t begin, std::int64_t end) {
        for_blocks(begin, end, [&] {
            const bool inputs = job_.by_x != nullptr || job_.by_y != nullptr;
            make_products();
            TensorProduct<T> q = outer();
            q.by_x = by_mixed_.get();
            tensor_product_backward(q, 0, size_);
            if (inputs) unmix(by_products_, by_mixed_, job_.packed, false, false);
            TensorProduct<T> p = inner();
            p.grad = by_products_.get(), p.out = products_step_.get();
            p.by_x = result(job_.by_x, p.dim1), p.by_y = result(job_.by_y, p.dim2);
            tensor_product_double_backward(p, 0, size_);

            if (job_.out != nullptr) mix(mixed_, products_, job_.packed, true, false);
            if (job_.out != nullptr || job_.by_y != nullptr) {
                mix(mixed_step_, products_step_, job_.packed, false, false);
                mix(mixed_step_, products_, job_.packed_step, false, true);
            }
            q = outer();
            q.by_x = by_mixed_step_.get();
            q.out = result(job_.out, q.dim_out);
            q.by_y = p.by_y;
            q.adds[array_y] = true;
            tensor_product_double_backward(q, 0, size_);
            if (job_.by_weight != nullptr) {
                add_by_weight(products_step_, by_mixed_, false);
                add_by_weight(products_, by_mixed_step_, true);
            }
            if (!inputs) return;
            unmix(by_products_, by_mixed_, job_.packed_step, false, false);
            unmix(by_products_, by_mixed_step_, job_.packed, true, true);
            TensorProduct<T> more = inner();
            more.grad = by_products_.get();
            more.by_x = p.by_x, more.by_y = p.by_y;
            more.adds[array_x] = more.adds[array_y] = true;
            tensor_product_backward(more, 0, size_);
        });
    }

  private:
    // Numbers of a block, made when they are first asked for; zero, so that what fills up rows is a number. Of vectors,
    // not of T: std::vector<T> would be one symbol for all SIMD levels, of whichever the linker picks.
    class Scratch {
      public:
        explicit Scratch(std::int64_t numbers) : vectors_(numbers / width<T> + 1) {}

        T* get() {
            if (data_.empty()) data_.resize(vectors_);
            return reinterpret_cast<T*>(data_.data());
        }

      private:
        std::int64_t vectors_;
        std::vector<Vector<T>> data_;
    };

    const TensorProductDense<T>& job_;
    Scratch products_, products_step_, by_products_, mixed_, mixed_step_, by_mixed_, by_mixed_step_;
    std::int64_t first_ = 0, size_ = 0;  // samples of the block
    T* partial_ = nullptr;

    template <class Body>
    void for_blocks(std::int64_t begin, std::int64_t end, const Body& body) {
        for (std::int64_t span = begin; span < end; span += job_.span) {
            if (job_.by_weight != nullptr) {
                partial_ = job_.partial + span / job_.span * job_.by_matrices;
                std::memset(partial_, 0, sizeof(T) * job_.by_matrices);
            }
            const std::int64_t stop = std::min(end, span + job_.span);
            for (first_ = span; first_ < stop; first_ += job_.block) {
                size_ = std::min(job_.block, stop - first_);
                body();
            }
        }
    }

    static std::int64_t padded(std::int64_t n) { return (n + matrix_padding - 1) / matrix_padding * matrix_padding; }

    T* result(T* array, std::int64_t dim) const { return array == nullptr ? nullptr : array + first_ * dim; }

    TensorProduct<T> inner() const {
        TensorProduct<T> p = job_.inner;
        p.batch = size_;
        p.x += first_ * p.dim1, p.y += first_ * p.dim2;
        if (p.x_step != nullptr) p.x_step += first_ * p.dim1, p.y_step += first_ * p.dim2;
        return p;
    }

    TensorProduct<T> outer() {
        TensorProduct<T> q = job_.outer;
        q.batch = size_;
        q.x = mixed_.get(), q.x_step = mixed_step_.get();
        q.is_part[array_out] = exceeds_caches(job_.inner.batch * q.dim_out * sizeof(T));
        q.y += first_ * q.dim2;
        if (q.y_step != nullptr) q.y_step += first_ * q.dim2;
        if (q.grad != nullptr) q.grad += first_ * q.dim_out;
        return q;
    }

    void make_products() {
        TensorProduct<T> p = inner();
        p.out = products_.get();
        tensor_product_forward(p, 0, size_);
    }

    template <class Body>
    void for_matrices(bool coupled_only, const Body& body) const {
        for (std::int64_t n = 0; n < job_.matrices; ++n) {
            if (job_.matrix[n].coupled || !coupled_only) body(job_.matrix[n]);
        }
    }

    // mixed = products W, or +=.
    void mix(Scratch& mixed, Scratch& products, const T* weight, bool coupled_only, bool adds) {
        for_matrices(coupled_only, [&](const TensorProductMatrix& m) {
            const std::int64_t depth = padded(m.depth), columns = padded(m.columns);
            multiply<T>(mixed.get() + size_ * m.mixed, columns, size_ * m.rows, columns,
                        {products.get() + size_ * m.products, depth, 1}, weight + m.weight, columns, m.depth, adds);
        });
    }

    // products = mixed Wᵀ, or +=.
    void unmix(Scratch& products, Scratch& mixed, const T* weight, bool coupled_only, bool adds) {
        for_matrices(coupled_only, [&](const TensorProductMatrix& m) {
            const std::int64_t depth = padded(m.depth), columns = padded(m.columns);
            multiply<T>(products.get() + size_ * m.products, depth, size_ * m.rows, depth,
                        {mixed.get() + size_ * m.mixed, columns, 1}, weight + m.transposed, depth, m.columns, adds);
        });
    }

    // ∂W += productsᵀ mixed.
    void add_by_weight(Scratch& products, Scratch& mixed, bool coupled_only) {
        for_matrices(coupled_only, [&](const TensorProductMatrix& m) {
            const std::int64_t depth = padded(m.depth), columns = padded(m.columns);
            multiply<T>(partial_ + m.weight, columns, m.depth, columns, {products.get() + size_ * m.products, 1, depth},
                        mixed.get() + size_ * m.mixed, columns, size_ * m.rows, true);
        });
    }
};

template <class T>
void tensor_product_dense_forward(const TensorProductDense<T>& job, std::int64_t begin, std::int64_t end) {
    DenseBlocks<T>(job, std::min(job.block, end - begin)).forward(begin, end);
}

template <class T>
void tensor_product_dense_backward(const TensorProductDense<T>& job, std::int64_t begin, std::int64_t end) {
    DenseBlocks<T>(job, std::min(job.block, end - begin)).backward(begin, end);
}

template <class T>
void tensor_product_dense_double_backward(const TensorProductDense<T>& job, std::int64_t begin, std::int64_t end) {
    DenseBlocks<T>(job, std::min(job.block, end - begin)).double_backward(begin, end);
}

}  // namespace sdas::SDAS_SIMD
