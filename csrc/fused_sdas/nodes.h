// The network's work on nodes, a block of them at a time: what comes before and after the attention of a layer, and the
// cotangents of both. Included only by kernel files, like vector.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "fused_sdas/dense.h"
#include "fused_sdas/kernels.h"
#include "simd/exponential.h"

namespace sdas::SDAS_SIMD {

constexpr int node_block = 32;

// σ(h) and what follows from it: silu = h σ and its first and second derivative.
template <class T>
SDAS_INLINE Vector<T> sigmoid(Vector<T> h) {
    return 1 / (1 + exponential<T>(-h));
}

template <class T>
SDAS_INLINE Vector<T> silu_slope(Vector<T> h, Vector<T> s) {
    return s * (1 + h * (1 - s));
}

template <class T>
SDAS_INLINE Vector<T> silu_curvature(Vector<T> h, Vector<T> s) {
    return s * (1 - s) * (2 + h * (1 - 2 * s));
}

// Calls body(load, store) for consecutive vectors of `count` numbers: load(p), store(p, v) at the place in turn.
template <class T, class Body>
SDAS_INLINE void for_vectors(std::int64_t count, const Body& body) {
    for (std::int64_t k = 0; k < count; k += width<T>) {
        const int rest = static_cast<int>(std::min<std::int64_t>(width<T>, count - k));
        body([&](const T* p) { return load_up_to(p + k, rest); },
             [&](T* p, Vector<T> v) { store_up_to(p + k, v, rest); });
    }
}

// Nodes begin .. begin + count <= node_block, and sizes.
template <class T>
class NodeBlock {
  public:
    explicit NodeBlock(const NetworkPass<T>& pass)
        : net_(*pass.net),
          kind_(net_.kind(pass.layer)),
          maps_(pass.maps[pass.layer]),
          pass_(pass),
          layer_(pass.layer),
          C(net_.channels),
          K(net_.heads),
          D(net_.key_channels),
          M(net_.m()),
          L(net_.lmax),
          features_(std::int64_t{M} * C),
          query_(std::int64_t{net_.places()} * K),
          y_(room(features_)),
          by_y_(room(features_)),
          s_(room(1)) {}

    void move(std::int64_t begin, std::int64_t count) { begin_ = begin, count_ = count; }

  protected:
    // Rows of `numbers` for each node of a block, which the thread keeps for the next block's.
    T* room(std::int64_t numbers) {
        static thread_local std::vector<std::vector<Vector<T>>> kept;
        const std::size_t vectors = static_cast<std::size_t>((node_block * numbers + width<T> - 1) / width<T>);
        if (kept.size() == rooms_) kept.emplace_back();
        std::vector<Vector<T>>& room = kept[rooms_++];
        if (room.size() < vectors) room.resize(vectors);
        return reinterpret_cast<T*>(room.data());
    }

    // The block's rows of an array [N, numbers].
    template <class Number>
    Number* of_block(Number* array, std::int64_t numbers) const {
        return array + begin_ * numbers;
    }

    T weight_of(int m) const { return T(1) / T((2 * degree_of(m) + 1) * (L + 1) * C); }

    // 1 / √(mean over degrees of the mean square + ε) of a node's features.
    T inverse_rms(const T* x) const {
        T mean = 0;
        for (int m = 0; m < M; ++m) mean += weight_of(m) * dot<T>(x + m * C, x + m * C, C);
        return T(1) / std::sqrt(mean + static_cast<T>(net_.epsilon));
    }

    // y = s x; s is kept for each node.
    void normalize(T* y, T* s, const T* x) const {
        for (std::int64_t i = 0; i < count_; ++i) {
            s[i] = inverse_rms(x + i * features_);
            for (std::int64_t k = i * features_; k < (i + 1) * features_; ++k) y[k] = s[i] * x[k];
        }
    }

    // by_x = before + the cotangent through y = s x.
    void normalize_backward(T* by_x, const T* before, const T* by_y, const T* s, const T* x) const {
        for (std::int64_t i = 0; i < count_;
             ++i, by_x += features_, before += features_, by_y += features_, x += features_) {
            const T slope = -s[i] * s[i] * s[i] * dot<T>(by_y, x, features_);
            for (int m = 0; m < M; ++m) {
                const T factor = slope * weight_of(m);
                for (int k = m * C; k < (m + 1) * C; ++k) by_x[k] = before[k] + s[i] * by_y[k] + factor * x[k];
            }
        }
    }

    // Of each order m: out_m = x_m · map of its degree; rows of x and out are `in` and `out_row` numbers of a node.
    template <bool add>
    void by_degree(T* out, int out_width, std::int64_t out_row, const T* x, int in_width, std::int64_t x_row,
                   const LinearMap<T>* map, bool transposed, int first, int last) const {
        for (int m = first; m < last; ++m) {
            const Matrix<T>& matrix = transposed ? map[degree_of(m)].transpose : map[degree_of(m)].forward;
            multiply<add>(out + m * out_width, out_row, x + m * in_width, x_row, count_, matrix);
        }
    }

    // out += mixing · z, or by_z = mixingᵀ · by_out.
    void mix(T* out, const T* z) const {
        for_mixing([&](int m, std::int64_t row, int l) {
            multiply<true>(out + m * C, features_, z + row, z_row(), count_, maps_.mixing[l].forward);
        });
    }

    void mix_backward(T* by_z, const T* by_out) const {
        for_mixing([&](int m, std::int64_t row, int l) {
            multiply<false>(by_z + row, z_row(), by_out + m * C, features_, count_, maps_.mixing[l].transpose);
        });
    }

    // Calls body(m, place of its first path's row in z, l).
    template <class Body>
    void for_mixing(const Body& body) const {
        std::int64_t row = 0;
        for (int m = 0; m < M; ++m) {
            const int l = degree_of(m);
            body(m, row, l);
            row += std::int64_t{kind_.paths[l]} * C;
        }
    }

    std::int64_t z_row() const { return std::int64_t{kind_.rows} * C; }

    // [y_0, |y_l|²].
    void invariants(T* out, const T* y) const {
        for (std::int64_t i = 0; i < count_; ++i, y += features_, out += net_.width()) {
            std::copy(y, y + C, out);
            std::fill(out + C, out + net_.width(), T(0));
            for (int m = 1; m < M; ++m) {
                T* sum = out + degree_of(m) * C;
                for (int c = 0; c < C; ++c) sum[c] += y[m * C + c] * y[m * C + c];
            }
        }
    }

    const Network<T>& net_;
    const NetworkKind<T>& kind_;
    const LayerMaps<T>& maps_;
    const NetworkPass<T>& pass_;
    const int layer_, C, K, D, M, L;
    const std::int64_t features_, query_;  // numbers of a node's features, of its query
    std::int64_t begin_ = 0, count_ = 0;

  private:
    std::size_t rooms_ = 0;  // that were given out

  protected:
    T *y_, *by_y_, *s_;  // the normalized features, their cotangent, and 1 / rms
};

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

// What follows attention: mixing of the paths, the node's update and the readout. Nothing depends on other rows of the
// last layer's output than the first.
template <class T>
class Update : public NodeBlock<T> {
  public:
    using Block = NodeBlock<T>;
    using Block::C, Block::M, Block::y_, Block::s_, Block::by_y_;

    explicit Update(const NetworkPass<T>& pass)
        : Block(pass),
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
        T *middle = this->of_block(at.middle, f), *out = this->of_block(this->pass_.at[this->layer_ + 1].x, f);
        std::copy(x, x + count * f, middle);
        this->mix(middle, this->of_block(at.z, this->z_row()));
        this->normalize(y_, s_, middle);
        this->invariants(invariants_, y_);
        T *h = this->of_block(at.hidden, 2 * C), *factors = this->of_block(at.factors, width_of);
        T* gated = this->of_block(at.gated, f);
        multiply<false>(h, 2 * C, invariants_, width_of, count, this->maps_.hidden.forward, weights.hidden_bias);
        activate(activated_, h, count * 2 * C);
        multiply<false>(factors, width_of, activated_, 2 * C, count,
                        first_columns(this->maps_.factors.forward, factors_width_), weights.factors_bias);
        this->template by_degree<false>(gated, C, f, y_, C, f, this->maps_.gate, false, 1, O);
        for (std::int64_t i = 0; i < count; ++i, out += f, middle += f, factors += width_of, gated += f) {
            for (int c = 0; c < C; ++c) out[c] = middle[c] + factors[c];
            for (int m = 1; m < O; ++m) {
                const T* factor = factors + degree_of(m) * C;
                for (int c = 0; c < C; ++c) out[m * C + c] = middle[m * C + c] + factor[c] * gated[m * C + c];
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
        const T* middle = this->of_block(at.middle, f);
        this->normalize(y_, s_, middle);
        update_backward(by_out, y_);
        T* by_middle = this->of_block(by.middle, f);
        this->normalize_backward(by_middle, by_out, by_y_, s_, middle);
        this->mix_backward(this->of_block(by.z, this->z_row()), by_middle);
    }

  protected:
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
