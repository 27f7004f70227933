// The network's second order on nodes: tangents along the steps, and the cotangents of <cotangents, energies> + <steps,
// gradient by the vectors>, which give the gradient by the weights; see second_order.h. Included only by kernel files,
// like vector.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fused_sdas/product_second.h"

namespace sdas::SDAS_SIMD {

template <class T>
class InputsSecond : public SecondOrder<T, Inputs<T>> {
  public:
    using Base = SecondOrder<T, Inputs<T>>;
    using Base::C, Base::K, Base::D, Base::M;
    using Base::Base;

    // The operands' tangents; the first layer's input has none.
    void step() {
        prepare();
        this->map(this->pass_.step[this->layer_], this->y_step_, nullptr);
    }

    // second x, from the second cotangents of the operands, in two shares, and of x'.
    void second() {
        const NetworkArrays<T>& second = this->pass_.second[this->layer_];
        const bool first = this->layer_ == 0;
        const std::int64_t f = this->features_;
        add(second, *this->pass_.more);
        prepare();
        this->map_backward(this->second_y_, second);
        if (!first) this->map_backward(this->by_y_, this->pass_.by[this->layer_]);
        if (this->grads_ != nullptr) weights(second, first ? nullptr : this->pass_.by + this->layer_);
        T *x_second = this->of_block(second.x, f), *middle = this->of_block(second.middle, f);
        if (!first) {
            this->normalize_second(x_second, middle, this->norm_, x_, x_step_, this->s_);
            return;
        }
        this->normalize_backward(x_second, middle, this->second_y_, this->s_, x_);
        for (std::int64_t i = 0; this->grads_ != nullptr && i < this->count_; ++i) {
            T* row = this->gradients_->embedding + this->net_.kinds[this->begin_ + i] * C;
            for (int c = 0; c < C; ++c) row[c] += x_second[i * f + c];
        }
    }

  private:
    void prepare() {
        x_ = this->of_block(this->pass_.at[this->layer_].x, this->features_);
        x_step_ = this->of_block(this->pass_.step[this->layer_].x, this->features_);
        this->normalize(this->y_, this->s_, x_);
        if (this->layer_ > 0) this->normalize_step(this->norm_, x_, x_step_, this->s_);
    }

    void add(const NetworkArrays<T>& to, const NetworkArrays<T>& more) const {
        const auto add_block = [&](T* sum, const T* from, std::int64_t numbers) {
            sum = this->of_block(sum, numbers), from = this->of_block(from, numbers);
            for (std::int64_t k = 0; k < this->count_ * numbers; ++k) sum[k] += from[k];
        };
        add_block(to.query, more.query, this->query_);
        add_block(to.key, more.key, D * K);
        add_block(to.sink, more.sink, K);
        add_block(to.value, more.value, this->kind_.m1 * C);
    }

    void weights(const NetworkArrays<T>& second, const NetworkArrays<T>* by) {
        const std::int64_t q = this->query_, count = this->count_;
        const int n = this->net_.radials, m1 = this->kind_.m1;
        const T *query = this->of_block(second.query, q), *by_query = by ? this->of_block(by->query, q) : nullptr;
        const T *value = this->of_block(second.value, m1 * C),
                *by_value = by ? this->of_block(by->value, m1 * C) : nullptr;
        this->add_degrees(this->grads_->direction, this->y_, this->y_step_, query + D * K,
                          by ? by_query + D * K : nullptr, q, K, 0, M);
        this->add_degrees(this->grads_->value, this->y_, this->y_step_, value, by_value, m1 * C, C, 0, m1);
        const auto of_group = [&](int first, int size, const T* rows, const T* by_rows, std::int64_t row) {
            for (int d = 0; d < size; ++d) {
                // Rows k · size + d of the weight, for all heads k.
                T* grad = this->grads_->logits + std::int64_t{first + d} * C;
                add_outer<T>(grad, size * C, rows + d * K, row, K, this->y_, this->features_, C, count);
                if (by) add_outer<T>(grad, size * C, by_rows + d * K, row, K, this->y_step_, this->features_, C, count);
                T* bias = this->grads_->logits_bias + first + d;
                for (std::int64_t i = 0; i < count; ++i) {
                    for (int k = 0; k < K; ++k) bias[k * size] += rows[i * row + d * K + k];
                }
            }
        };
        const T *key = this->of_block(second.key, D * K), *sink = this->of_block(second.sink, K);
        const T *by_key = by ? this->of_block(by->key, D * K) : nullptr,
                *by_sink = by ? this->of_block(by->sink, K) : nullptr;
        const std::int64_t radial = std::int64_t{D + M} * K;
        of_group(0, D, query, by_query, q);
        of_group(K * D, D, key, by_key, D * K);
        of_group(2 * K * D, n, query + radial, by ? by_query + radial : nullptr, q);
        of_group(2 * K * D + K * n, 1, sink, by_sink, K);
    }

    const T *x_ = nullptr, *x_step_ = nullptr;
};

template <class T>
class UpdateSecond : public ProductSecond<T> {
  public:
    using Base = ProductSecond<T>;
    using Base::C, Base::M, Base::O, Base::R, Base::factors_width_;

    explicit UpdateSecond(const NetworkPass<T>& pass)
        : Base(pass),
          width_(this->net_.width()),
          values_(this->room(width_)),
          values_step_(this->room(width_)),
          silu_(this->room(2 * C)),
          silu_step_(this->room(2 * C)),
          hidden_step_(this->room(2 * C)),
          factors_step_(this->room(width_)),
          gated_step_(this->room(this->features_)),
          second_values_(this->room(width_)),
          second_hidden_(this->room(2 * C)),
          second_factors_(this->room(width_)),
          second_gated_(this->room(this->features_)),
          readout_step_(this->room(R)),
          readout_second_(this->room(R)),
          readout_by_(this->room(R)) {}

    // The tangents of x' and of the layer's output.
    void step() {
        const NetworkArrays<T>&at = this->pass_.at[this->layer_], &step = this->pass_.step[this->layer_];
        const std::int64_t f = this->features_, count = this->count_;
        const T* x_step = this->of_block(step.x, f);
        T *middle_step = this->of_block(step.middle, f), *joined_step = this->of_block(step.joined, f);
        T* out = this->of_block(this->pass_.step[this->layer_ + 1].x, f);
        std::copy(x_step, x_step + count * f, middle_step);
        this->mix_paths(middle_step, this->of_block(step.z, this->z_row()));
        if (this->has_product()) this->join_step(joined_step, this->of_block(at.middle, f), middle_step);
        prepare();
        const T *factor = this->of_block(at.factors, width_), *factor_step = factors_step_;
        const T *gated = this->of_block(at.gated, f), *gated_step = gated_step_;
        for (std::int64_t i = 0; i < count; ++i, factor += width_, factor_step += width_) {
            for (int c = 0; c < C; ++c) out[c] = joined_step[c] + factor_step[c];
            for (int m = 1; m < O; ++m) {
                const int of = degree_of(m) * C;
                for (int c = 0, k = m * C; c < C; ++c, ++k) {
                    out[k] = joined_step[k] + factor_step[of + c] * gated[k] + factor[of + c] * gated_step[k];
                }
            }
            out += f, joined_step += f, gated += f, gated_step += f;
        }
    }

    // second z and x', from second x of the next layer, to which the readout's share is added.
    void second() {
        const NetworkArrays<T>&by = this->pass_.by[this->layer_], &second = this->pass_.second[this->layer_];
        const std::int64_t f = this->features_;
        T *second_out = this->of_block(this->pass_.second[this->layer_ + 1].x, f),
          *joined = this->of_block(second.joined, f), *middle = this->of_block(second.middle, f);
        const T* by_out = this->of_block(this->pass_.by[this->layer_ + 1].x, f);
        readout_second(second_out);
        prepare();
        this->update_backward(by_out, this->y_);
        products(second_out, by_out);
        hidden_layer();
        features();
        this->normalize_second(joined, second_out, this->norm_, joined_, joined_step_, this->s_);
        if (this->has_product()) this->join_second(middle, joined);
        this->mix_paths_backward(this->of_block(second.z, this->z_row()), middle);
        if (this->grads_ != nullptr) weights(middle, this->of_block(by.middle, f));
    }

  private:
    // The values and tangents of what lies between x' and the layer's output.
    void prepare() {
        const std::int64_t f = this->features_, count = this->count_;
        joined_ = this->of_block(this->pass_.at[this->layer_].joined, f);
        joined_step_ = this->of_block(this->pass_.step[this->layer_].joined, f);
        this->normalize(this->y_, this->s_, joined_);
        this->normalize_step(this->norm_, joined_, joined_step_, this->s_);
        this->invariants(values_, this->y_);
        for (std::int64_t i = 0; i < count; ++i) {
            const T *y = this->y_ + i * f, *y_step = this->y_step_ + i * f;
            T* out = values_step_ + i * width_;
            std::copy(y_step, y_step + C, out);
            std::fill(out + C, out + width_, T(0));
            for (int m = 1; m < M; ++m) {
                T* sum = out + degree_of(m) * C;
                for (int c = 0; c < C; ++c) sum[c] += 2 * y[m * C + c] * y_step[m * C + c];
            }
        }
        multiply<false>(hidden_step_, 2 * C, values_step_, width_, count, this->maps_.hidden.forward);
        const T* h = this->of_block(this->pass_.at[this->layer_].hidden, 2 * C);
        for_vectors<T>(count * 2 * C, [&](const auto& load, const auto& store) {
            const Vector<T> x = load(h), s = sigmoid<T>(x);
            store(silu_, x * s);
            store(silu_step_, silu_slope<T>(x, s) * load(hidden_step_));
        });
        multiply<false>(factors_step_, width_, silu_step_, 2 * C, count,
                        first_columns(this->maps_.factors.forward, factors_width_));
        this->template by_degree<false>(gated_step_, C, f, this->y_step_, C, f, this->maps_.gate, false, 1, O);
    }

    void readout_second(T* second_out) {
        const std::int64_t f = this->features_, count = this->count_;
        const auto& weights = this->net_.weights[this->layer_];
        const T* out = this->of_block(this->pass_.at[this->layer_ + 1].x, f);
        const T* out_step = this->of_block(this->pass_.step[this->layer_ + 1].x, f);
        const T* cotangent = this->net_.energy_cotangent + this->begin_;
        multiply<false>(this->readout_, R, out, f, count, this->maps_.readout.forward, weights.readout_bias);
        multiply<false>(readout_step_, R, out_step, f, count, this->maps_.readout.forward);
        T* of_energy = this->grads_ == nullptr ? nullptr : this->grads_->energy;
        for (std::int64_t i = 0; i < count; ++i) {
            const T *h = this->readout_ + i * R, *h_step = readout_step_ + i * R;
            T *second = readout_second_ + i * R, *by = readout_by_ + i * R;
            for_vectors<T>(R, [&](const auto& load, const auto& store) {
                const Vector<T> x = load(h), x_step = load(h_step), w = load(weights.energy), s = sigmoid<T>(x);
                const Vector<T> slope = silu_slope<T>(x, s);
                store(by, w * slope);
                store(second, w * (cotangent[i] * slope + silu_curvature<T>(x, s) * x_step));
                if (of_energy != nullptr) store(of_energy, load(of_energy) + cotangent[i] * x * s + slope * x_step);
            });
            if (of_energy != nullptr) *this->grads_->energy_bias += cotangent[i];
        }
        multiply<true>(second_out, f, readout_second_, R, count, this->maps_.readout.transpose);
        if (this->grads_ == nullptr) return;
        add_linear<T>(this->grads_->readout, readout_second_, readout_by_, R, R, out, out_step, f, C, count);
        add_rows<T>(this->grads_->readout_bias, readout_second_, R, R, count);
    }

    // Through x''_l = x'_l + f_l gated_l: second f and gated.
    void products(const T* second_out, const T* by_out) {
        const NetworkArrays<T>& at = this->pass_.at[this->layer_];
        const T *factors = this->of_block(at.factors, width_), *gated = this->of_block(at.gated, this->features_);
        for (std::int64_t i = 0; i < this->count_; ++i) {
            const std::int64_t node = i * this->features_, row = i * width_;
            T* second_factor = second_factors_ + row;
            std::copy(second_out + node, second_out + node + C, second_factor);
            std::fill(second_factor + C, second_factor + factors_width_, T(0));
            for (int m = 1; m < O; ++m) {
                const int of = degree_of(m) * C;
                for (int c = 0; c < C; ++c) {
                    const std::int64_t k = node + m * C + c, l = row + of + c;
                    second_factor[of + c] += second_out[k] * gated[k] + by_out[k] * gated_step_[k];
                    second_gated_[k] = second_out[k] * factors[l] + by_out[k] * factors_step_[l];
                }
            }
        }
    }

    // Through the hidden layer: second h and the invariants'.
    void hidden_layer() {
        const std::int64_t count = this->count_;
        multiply<false>(second_hidden_, 2 * C, second_factors_, width_, count,
                        first_rows(this->maps_.factors.transpose, factors_width_));
        const T *h = this->of_block(this->pass_.at[this->layer_].hidden, 2 * C), *by_silu = this->activated_;
        for_vectors<T>(count * 2 * C, [&](const auto& load, const auto& store) {
            const Vector<T> x = load(h), s = sigmoid<T>(x), curved = silu_curvature<T>(x, s) * load(hidden_step_);
            store(second_hidden_, load(second_hidden_) * silu_slope<T>(x, s) + load(by_silu) * curved);
        });
        multiply<false>(second_values_, width_, second_hidden_, 2 * C, count, this->maps_.hidden.transpose);
    }

    // Through the invariants and the gates: second y.
    void features() {
        const std::int64_t f = this->features_;
        this->gates_backward(this->second_y_, second_gated_);
        for (std::int64_t i = 0; i < this->count_; ++i) {
            const T *second = second_values_ + i * width_, *by = this->invariants_ + i * width_;
            const T *y = this->y_ + i * f, *y_step = this->y_step_ + i * f;
            T* out = this->second_y_ + i * f;
            std::copy(second, second + C, out);
            for (int m = 1; m < M; ++m) {
                const int of = degree_of(m) * C;
                for (int c = 0, k = m * C; c < C; ++c, ++k)
                    out[k] += 2 * (y[k] * second[of + c] + y_step[k] * by[of + c]);
            }
        }
    }

    void weights(const T* second_middle, const T* by_middle) {
        const std::int64_t count = this->count_, f = this->features_;
        const NetworkWeights<T>& g = *this->grads_;
        add_linear<T>(g.factors, second_factors_, this->factors_, width_, factors_width_, silu_, silu_step_, 2 * C,
                      2 * C, count);
        add_rows<T>(g.factors_bias, second_factors_, width_, factors_width_, count);
        add_linear<T>(g.hidden, second_hidden_, this->hidden_, 2 * C, 2 * C, values_, values_step_, width_, width_,
                      count);
        add_rows<T>(g.hidden_bias, second_hidden_, 2 * C, 2 * C, count);
        this->add_degrees(g.gate, this->y_, this->y_step_, second_gated_, this->gated_, f, C, 1, O);
        const NetworkArrays<T>&at = this->pass_.at[this->layer_], &step = this->pass_.step[this->layer_];
        const T *z = this->of_block(at.z, this->z_row()), *z_step = this->of_block(step.z, this->z_row());
        this->add_mixing(g.mixing, z, z_step, this->z_row(), this->kind_.paths, second_middle, by_middle);
    }

    const int width_;
    T *values_, *values_step_;  // the invariants
    T *silu_, *silu_step_, *hidden_step_, *factors_step_, *gated_step_;
    T *second_values_, *second_hidden_, *second_factors_, *second_gated_;
    T *readout_step_, *readout_second_, *readout_by_;
    const T *joined_ = nullptr, *joined_step_ = nullptr;
};

}  // namespace sdas::SDAS_SIMD
