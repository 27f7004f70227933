// What the second orders of the parts of a layer share. Included only by kernel files, like vector.h.
//
// Of a variable v with tangent v', `second` is the cotangent of v and `by` that of v', which is the cotangent of v in
// the first order. A product u = a b gives second_a = second_u b + by_u b' and by_a = by_u b; a function u = φ(v) gives
// second_v = φ' second_u + φ'' v' by_u and by_v = φ' by_u.
#pragma once

#include <cstdint>
#include <vector>

#include "fused_sdas/nodes.h"

namespace sdas::SDAS_SIMD {

// y = s x with s = (mean + ε)^(-1/2), along a step of x.
template <class T>
struct NormStep {
    T mean;  // the step of the mean
    T s;     // and of s
};

// A normalized feature's second order: its tangent and, for each node, what it is made of; its two cotangents.
template <class T>
struct NormSecond {
    T *y_step, *by_y, *second_y;
    std::vector<NormStep<T>> steps;
};

// grad [out, in] += second ⊗ x + by ⊗ x', as nn.Linear keeps its weight; `by` and x' may be null.
template <class T>
void add_linear(T* grad, const T* second, const T* by, std::int64_t row, int out, const T* x, const T* x_step,
                std::int64_t x_row, int in, std::int64_t count) {
    add_outer<T>(grad, in, second, row, out, x, x_row, in, count);
    if (by != nullptr) add_outer<T>(grad, in, by, row, out, x_step, x_row, in, count);
}

// sum [numbers] += the rows of x.
template <class T>
void add_rows(T* sum, const T* x, std::int64_t row, int numbers, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i, x += row) {
        for (int k = 0; k < numbers; ++k) sum[k] += x[k];
    }
}

// Both halves of a layer have a normalization before them.
template <class T, class Half>
class SecondOrder : public Half {
  public:
    explicit SecondOrder(const NetworkPass<T>& pass)
        : Half(pass),
          norm_{this->room(this->features_), this->by_y_, this->room(this->features_),
                std::vector<NormStep<T>>(node_block)},
          y_step_(norm_.y_step),
          second_y_(norm_.second_y) {}

    // The gradients to which is added from now on.
    void add_to(std::int64_t part) {
        if (this->pass_.gradients == nullptr) return;
        gradients_ = this->pass_.gradients + part;
        // Not by operator[], whose one copy for all SIMD levels could be of any of them.
        grads_ = gradients_->layers.data() + this->layer_;
    }

  protected:
    // y' = s x' + s' x.
    void normalize_step(NormSecond<T>& norm, const T* x, const T* x_step, const T* s) const {
        const std::int64_t f = this->features_, C = this->C;
        for (std::int64_t i = 0; i < this->count_; ++i, x += f, x_step += f) {
            T mean = 0;
            for (int m = 0; m < this->M; ++m) mean += 2 * this->weight_of(m) * dot<T>(x + m * C, x_step + m * C, C);
            norm.steps[i] = {mean, T(-0.5) * s[i] * s[i] * s[i] * mean};
            T* out = norm.y_step + i * f;
            for (std::int64_t k = 0; k < f; ++k) out[k] = s[i] * x_step[k] + norm.steps[i].s * x[k];
        }
    }

    // second_x = before + what comes through y and y'.
    void normalize_second(T* second_x, const T* before, const NormSecond<T>& norm, const T* x, const T* x_step,
                          const T* s) const {
        const std::int64_t f = this->features_, C = this->C;
        for (std::int64_t i = 0; i < this->count_; ++i) {
            const std::int64_t at = i * f;
            const T *by = norm.by_y + at, *second = norm.second_y + at, cube = s[i] * s[i] * s[i];
            const T by_s = dot<T>(by, x + at, f);
            T second_s = dot<T>(second, x + at, f) + dot<T>(by, x_step + at, f);
            second_s -= T(1.5) * s[i] * s[i] * norm.steps[i].mean * by_s;
            for (int m = 0; m < this->M; ++m) {
                const T second_mean = -cube * this->weight_of(m) * second_s,
                        by_mean = -cube * this->weight_of(m) * by_s;
                for (std::int64_t k = m * C; k < (m + 1) * C; ++k) {
                    second_x[at + k] = before[at + k] + s[i] * second[k] + norm.steps[i].s * by[k] +
                                       second_mean * x[at + k] + by_mean * x_step[at + k];
                }
            }
        }
    }

    // grad of a map of each degree, [L+1, in, out]: Σ_m x_m ⊗ second_m + x'_m ⊗ by_m.
    void add_degrees(T* grad, const T* x, const T* x_step, const T* second, const T* by, std::int64_t row, int out,
                     int first, int last) const {
        const int C = this->C;
        for (int m = first; m < last; ++m) {
            T* of = grad + std::int64_t{degree_of(m)} * C * out;
            add_outer<T>(of, out, x + m * C, this->features_, C, second + m * out, row, out, this->count_);
            if (by == nullptr) continue;
            add_outer<T>(of, out, x_step + m * C, this->features_, C, by + m * out, row, out, this->count_);
        }
    }

    // grad of each degree, [paths · C, C]: Σ_m z ⊗ second_m + z' ⊗ by_m, of the rows of z that lead to m.
    void add_mixing(T* const* grad, const T* z, const T* z_step, std::int64_t row, const int* paths, const T* second,
                    const T* by) const {
        const int C = this->C;
        this->for_rows(paths, [&](int m, std::int64_t first, int l) {
            const int in = paths[l] * C;
            add_outer<T>(grad[l], C, z + first, row, in, second + m * C, this->features_, C, this->count_);
            add_outer<T>(grad[l], C, z_step + first, row, in, by + m * C, this->features_, C, this->count_);
        });
    }

    NormSecond<T> norm_;
    T *y_step_, *second_y_;
    const NetworkGradients<T>* gradients_ = nullptr;
    const NetworkWeights<T>* grads_ = nullptr;  // of this layer
};

}  // namespace sdas::SDAS_SIMD
