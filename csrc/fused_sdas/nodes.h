// The network's work on nodes, a block of them at a time: what comes before and after the attention of a layer, and the
// cotangents of both. Included only by kernel files, like vector.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fused_sdas/product.h"

namespace sdas::SDAS_SIMD {

// What attention takes: linear maps of the normalized features.
template <class T>
class Inputs : public NodeBlock<T> {
  public:
    using Block = NodeBlock<T>;
    using Block::C, Block::K, Block::D, Block::M;

    using Block::y_, Block::s_, Block::by_y_;
    using Block::Block;

    void forward() {
        this->normalize(y_, s_, this->of_block(this->pass_.at[this->layer_].x, this->features_));
        map(this->pass_.at[this->layer_], y_, this->maps_.logits_bias);
    }

    // by x, of the layer's input, from the cotangents of the operands and of x'.
    void backward() {
        const NetworkArrays<T>& by = this->pass_.by[this->layer_];
        const T* x = this->of_block(this->pass_.at[this->layer_].x, this->features_);
        this->normalize(y_, s_, x);
        map_backward(by_y_, by);
        this->normalize_backward(this->of_block(by.x, this->features_), this->of_block(by.middle, this->features_),
                                 by_y_, s_, x);
    }

  protected:
    // The operands of y; without a bias those of a tangent.
    void map(const NetworkArrays<T>& out, const T* y, const T* bias) const {
        const auto& maps = this->maps_;
        const std::int64_t f = this->features_, q = this->query_, n = this->net_.radials, count = this->count_;
        const auto of_group = [&](std::int64_t group) { return bias == nullptr ? nullptr : bias + group * K; };
        T *query = this->of_block(out.query, q), *value = this->of_block(out.value, this->kind_.m1 * C);
        multiply<false>(query, q, y, f, count, maps.query.forward, of_group(0));
        multiply<false>(query + (D + M) * K, q, y, f, count, maps.radial.forward, of_group(D));
        multiply<false>(this->of_block(out.key, D * K), D * K, y, f, count, maps.key.forward, of_group(D + n));
        multiply<false>(this->of_block(out.sink, K), K, y, f, count, maps.sink.forward, of_group(2 * D + n));
        // The first layer's features have no other rows than the first.
        const int rows = this->layer_ == 0 ? 1 : M;
        this->template by_degree<false>(query + D * K, K, q, y, C, f, maps.direction, false, 0, rows);
        for (std::int64_t i = 0; rows < M && i < count; ++i)
            std::fill_n(query + i * q + (D + rows) * K, (M - rows) * K, T(0));
        this->template by_degree<false>(value, C, this->kind_.m1 * C, y, C, f, maps.value, false, 0, this->kind_.m1);
    }

    // by_y from the cotangents of the operands.
    void map_backward(T* by_y, const NetworkArrays<T>& by) const {
        const auto& maps = this->maps_;
        const std::int64_t f = this->features_, q = this->query_, count = this->count_;
        const T *query = this->of_block(by.query, q), *value = this->of_block(by.value, this->kind_.m1 * C);
        this->template by_degree<false>(by_y, C, f, query + D * K, K, q, maps.direction, true, 0, M);
        this->template by_degree<true>(by_y, C, f, value, C, this->kind_.m1 * C, maps.value, true, 0, this->kind_.m1);
        multiply<true>(by_y, f, query, q, count, maps.query.transpose);
        multiply<true>(by_y, f, query + (D + M) * K, q, count, maps.radial.transpose);
        multiply<true>(by_y, f, this->of_block(by.key, D * K), D * K, count, maps.key.transpose);
        multiply<true>(by_y, f, this->of_block(by.sink, K), K, count, maps.sink.transpose);
    }
};

// The same matrix without its last columns or rows.
template <class T>
Matrix<T> first_columns(Matrix<T> m, int columns) {
    m.columns = columns;
    return m;
}

template <class T>
Matrix<T> first_rows(Matrix<T> m, int rows) {
    m.depth = rows;
    return m;
}

// What follows attention: mixing of the paths, the product, the node's update and the readout. Nothing depends on other
// rows of the last layer's output than the first.
template <class T>
class Update : public Product<T> {
  public:
    using Block = NodeBlock<T>;
    using Block::C, Block::M, Block::y_, Block::s_, Block::by_y_;

    explicit Update(const NetworkPass<T>& pass)
        : Product<T>(pass),
          R(this->net_.readout),
          O(this->layer_ + 1 < this->net_.layers() ? M : 1),
          factors_width_((degree_of(O - 1) + 1) * C),
          invariants_(this->room(this->net_.width())),
          activated_(this->room(2 * C)),
          hidden_(this->room(2 * C)),
          factors_(this->room(this->net_.width())),
          gated_(this->room(this->features_)),
          readout_(this->room(R)) {}

    void forward() {
        const NetworkArrays<T>& at = this->pass_.at[this->layer_];
        const auto& weights = this->net_.weights[this->layer_];
        const std::int64_t f = this->features_, count = this->count_, width_of = this->net_.width();
        const T* x = this->of_block(at.x, f);
        T *middle = this->of_block(at.middle, f), *joined = this->of_block(at.joined, f);
        T* out = this->of_block(this->pass_.at[this->layer_ + 1].x, f);
        std::copy(x, x + count * f, middle);
        this->mix_paths(middle, this->of_block(at.z, this->z_row()));
        if (this->has_product()) this->join(joined, middle);
        this->normalize(y_, s_, joined);
        this->invariants(invariants_, y_);
        T *h = this->of_block(at.hidden, 2 * C), *factors = this->of_block(at.factors, width_of);
        T* gated = this->of_block(at.gated, f);
        multiply<false>(h, 2 * C, invariants_, width_of, count, this->maps_.hidden.forward, weights.hidden_bias);
        activate(activated_, h, count * 2 * C);
        multiply<false>(factors, width_of, activated_, 2 * C, count,
                        first_columns(this->maps_.factors.forward, factors_width_), weights.factors_bias);
        this->template by_degree<false>(gated, C, f, y_, C, f, this->maps_.gate, false, 1, O);
        for (std::int64_t i = 0; i < count; ++i, out += f, joined += f, factors += width_of, gated += f) {
            for (int c = 0; c < C; ++c) out[c] = joined[c] + factors[c];
            for (int m = 1; m < O; ++m) {
                const T* factor = factors + degree_of(m) * C;
                for (int c = 0; c < C; ++c) out[m * C + c] = joined[m * C + c] + factor[c] * gated[m * C + c];
            }
        }
        readout(weights);
    }

    // by z and by x', from by x of the next layer, to which the readout's share is added.
    void backward() {
        const NetworkArrays<T>&at = this->pass_.at[this->layer_], &by = this->pass_.by[this->layer_];
        const std::int64_t f = this->features_;
        T* by_out = this->of_block(this->pass_.by[this->layer_ + 1].x, f);
        readout_backward(by_out);
        const T* joined = this->of_block(at.joined, f);
        this->normalize(y_, s_, joined);
        update_backward(by_out, y_);
        T *by_joined = this->of_block(by.joined, f), *by_middle = this->of_block(by.middle, f);
        this->normalize_backward(by_joined, by_out, by_y_, s_, joined);
        if (this->has_product()) this->join_backward(by_middle, by_joined, this->of_block(at.middle, f));
        this->mix_paths_backward(this->of_block(by.z, this->z_row()), by_middle);
    }

  protected:
    // out += mixing · z, or by_z = mixingᵀ · by_out.
    void mix_paths(T* out, const T* z) const {
        this->mix(out, z, this->z_row(), this->kind_.paths, this->maps_.mixing);
    }

    void mix_paths_backward(T* by_z, const T* by_out) const {
        this->mix_backward(by_z, by_out, this->z_row(), this->kind_.paths, this->maps_.mixing);
    }

    static void activate(T* out, const T* h, std::int64_t count) {
        for_vectors<T>(count, [&](const auto& load, const auto& store) {
            const Vector<T> x = load(h);
            store(out, x * sigmoid<T>(x));
        });
    }

    // energy (of the layer before, if any) += the readout of the layer's output.
    template <class Weights>
    void readout(const Weights& weights) {
        const T* out = this->of_block(this->pass_.at[this->layer_ + 1].x, this->features_);
        multiply<false>(readout_, R, out, this->features_, this->count_, this->maps_.readout.forward,
                        weights.readout_bias);
        activate(readout_, readout_, this->count_ * R);
        T* energy = this->net_.energy + this->begin_;
        for (std::int64_t i = 0; i < this->count_; ++i) {
            const T part = dot<T>(readout_ + i * R, weights.energy, R) + *weights.energy_bias;
            energy[i] = this->layer_ == 0 ? part : energy[i] + part;
        }
    }

    void readout_backward(T* by_out) {
        const auto& weights = this->net_.weights[this->layer_];
        const T* out = this->of_block(this->pass_.at[this->layer_ + 1].x, this->features_);
        multiply<false>(readout_, R, out, this->features_, this->count_, this->maps_.readout.forward,
                        weights.readout_bias);
        for (std::int64_t i = 0; i < this->count_; ++i) {
            T* row = readout_ + i * R;
            for_vectors<T>(R, [&](const auto& load, const auto& store) {
                const Vector<T> h = load(row);
                store(row, silu_slope<T>(h, sigmoid<T>(h)) * load(weights.energy));
            });
        }
        multiply<true>(by_out, this->features_, readout_, R, this->count_, this->maps_.readout.transpose);
    }

    // From the cotangent of the output, through the update alone: cotangents of f, silu(h), h, the invariants, `gated` and y
    // into the rooms of these names.
    void update_backward(const T* by_out, const T* y) {
        const NetworkArrays<T>& at = this->pass_.at[this->layer_];
        const std::int64_t f = this->features_, count = this->count_, width_of = this->net_.width();
        const T *factors = this->of_block(at.factors, width_of), *gated = this->of_block(at.gated, f);
        for (std::int64_t i = 0; i < count; ++i) {
            const T *by = by_out + i * f, *factor = factors + i * width_of, *g = gated + i * f;
            T *by_factor = factors_ + i * width_of, *by_gated = gated_ + i * f;
            std::copy(by, by + C, by_factor);
            std::fill(by_factor + C, by_factor + factors_width_, T(0));
            for (int m = 1; m < O; ++m) {
                const int of = degree_of(m) * C;
                for (int c = 0; c < C; ++c) {
                    by_factor[of + c] += by[m * C + c] * g[m * C + c];
                    by_gated[m * C + c] = by[m * C + c] * factor[of + c];
                }
            }
        }
        multiply<false>(activated_, 2 * C, factors_, width_of, count,
                        first_rows(this->maps_.factors.transpose, factors_width_));
        const T* h = this->of_block(at.hidden, 2 * C);
        for_vectors<T>(count * 2 * C, [&](const auto& load, const auto& store) {
            const Vector<T> x = load(h);
            store(hidden_, load(activated_) * silu_slope<T>(x, sigmoid<T>(x)));
        });
        multiply<false>(invariants_, width_of, hidden_, 2 * C, count, this->maps_.hidden.transpose);
        this->gates_backward(by_y_, gated_);
        for (std::int64_t i = 0; i < count; ++i) {
            const T *by = invariants_ + i * width_of, *of = y + i * f;
            T* out = by_y_ + i * f;
            std::copy(by, by + C, out);
            for (int m = 1; m < M; ++m) {
                const T* by_square = by + degree_of(m) * C;
                for (int c = 0; c < C; ++c) out[m * C + c] += 2 * of[m * C + c] * by_square[c];
            }
        }
    }

    // by y of all degrees but the first, from by `gated`.
    void gates_backward(T* by_y, const T* by_gated) const {
        const std::int64_t f = this->features_;
        this->template by_degree<false>(by_y, C, f, by_gated, C, f, this->maps_.gate, true, 1, O);
        for (std::int64_t i = 0; O < M && i < this->count_; ++i) std::fill_n(by_y + i * f + O * C, (M - O) * C, T(0));
    }

    const int R, O, factors_width_;  // of the readout; rows of the output that matter; numbers of f that they take
    T *invariants_, *activated_, *hidden_, *factors_, *gated_, *readout_;
};

}  // namespace sdas::SDAS_SIMD
