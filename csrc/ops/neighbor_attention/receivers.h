// The pass of the neighbor attention's derivatives over receivers. Included only by kernel files, like vector.h.
//
// With G = couplingᵀ · (cotangent of z) and D_e = Gᵀ v_j, the cotangent of w is Σ_m D Y and that of Y is Σ w D; the
// rest is the derivative of w = α R W and of the softmax. In a double backward (`second`) everything is taken along
// the steps, which ops/edge_softmax/reference.py and ops/neighbor_tensor_product/reference.py write out.
//
// The edges of a receiver are gone through twice: a chunk at a time up to the cotangents of α, and, when the softmax's
// means over all of them are known, from the cotangents of the logits on. What goes to senders is added on the way where
// one thread does it all; else α and the cotangents of the logits are kept for the pass over senders.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "ops/neighbor_attention/logits.h"

namespace sdas::SDAS_SIMD {

template <int L, class T, int N, bool second>
class ReceiverPass : public ReceiverLogits<L, T, N, second> {
  public:
    using Logits = ReceiverLogits<L, T, N, second>;
    using Pass = AttentionPass<L, T, N>;
    static constexpr int M2 = Pass::M2, degrees = Pass::degrees, orders_of = second ? 2 : 1;

    explicit ReceiverPass(const NeighborAttention<T>& job)
        : Logits(job),
          rows_(std::max(channel_blocks<T>(job.channels), pass_.blocks)),
          pairs_(job.m1 * M2),
          by_gain_(degrees * static_cast<int>(pass_.row()), pass_.radials()),
          by_gain_step_(second ? degrees * static_cast<int>(pass_.row()) : 0, pass_.radials()),
          gain_sums_(pass_.gain_vectors()),
          gain_(orders_of * chunk * pass_.columns),
          weight_(orders_of * chunk * pass_.columns),
          by_weight_(orders_of * chunk * degrees * rows_),
          lanes_(chunk * M2),
          tiles_(orders_of * pairs_ * channel_blocks<T>(job.channels)),
          coupled_(second ? job.rows : 0) {
        arrange(by_gain_, job.at.radial_gain);
        if constexpr (second) {
            arrange(by_gain_step_, job.step.radial_gain);
            gains_step_.resize(pass_.gain_vectors());
            pass_.arrange_gains(gains_step_.data(), job.step.radial_gain);
        }
    }

    // Receivers begin .. end, and their edges' sum for the radial gain.
    void block(std::int64_t begin, std::int64_t end) {
        std::fill(gain_sums_.begin(), gain_sums_.end(), Vector<T>{});
        for (std::int64_t i = begin; i < end; ++i) receiver(i);
        if (job_.gain_sums == nullptr) return;
        pass_.restore_gains(job_.gain_sums + begin / job_.block * job_.gain_numbers(), gain_sums_.data());
    }

  private:
    using Logits::job_, Logits::pass_, Logits::to_edges_, Logits::senders_, Logits::edges_, Logits::first_,
        Logits::count_, Logits::alpha_, Logits::alpha_step_, Logits::by_alpha_, Logits::by_alpha_step_;

    void arrange(NarrowMatrix<T>& by_gain, const T* radial_gain) const {
        const int n = pass_.radials(), row = static_cast<int>(pass_.row());
        for (int l = 0; l < degrees; ++l) by_gain.fill_rows(l * row, job_.heads, radial_gain + l * n, degrees * n);
    }

    void receiver(std::int64_t i) {
        first_ = job_.row_ptr[i];
        count_ = job_.row_ptr[i + 1] - first_;
        if (senders_) {
            edges_.resize(count_);
            std::iota(edges_.begin(), edges_.end(), first_);
        }
        this->attention(i);
        tiles(i);
        for (start_ = 0; start_ < count_; start_ += chunk) {
            size_ = static_cast<int>(std::min<std::int64_t>(chunk, count_ - start_));
            fetch_next(first_ + start_ + size_);
            weights();
            for_channel_blocks<T>(job_.channels, [&](auto block) { products(block); });
            if (to_edges_) {
                T* by_harmonics = job_.by_harmonics + (first_ + start_) * M2;
                store_totals<T>(by_harmonics, lanes_.data(), size_ * M2, job_.edges_add);
            }
            by_weights();
        }
        if constexpr (second) {
            for_channel_blocks<T>(job_.channels, [&](auto block) {
                T* z = job_.out + i * job_.rows * job_.channels + block.first;
                couple<T>(z, tile(block.index, 1), coupled_.data(), job_, block);
            });
        }
        this->by_logits(i);
    }

    void fetch_next(std::int64_t edge) const {
        const std::int64_t values = job_.m1 * job_.channels, keys = job_.key_channels * pass_.padded;
        pass_.fetch_senders(job_.at.value, values, edge, chunk);
        if (senders_) pass_.fetch_senders(job_.by_value, values, edge, chunk);
        if constexpr (second) pass_.fetch_senders(job_.step.value, values, edge, chunk);
        pass_.fetch_senders(job_.at.keys, keys, edge + chunk, chunk);
    }

    // Of a block of channels, G, or (1) the sum over edges along the steps.
    Vector<T>* tile(int block, int step) {
        return tiles_.data() + (step * channel_blocks<T>(job_.channels) + block) * pairs_;
    }

    void tiles(std::int64_t i) {
        for_channel_blocks<T>(job_.channels, [&](auto block) {
            const T* grad = job_.grad + i * job_.rows * job_.channels + block.first;
            if (count_ > 0) uncouple<T>(tile(block.index, 0), grad, job_, pairs_, block);
            if constexpr (second) std::fill_n(tile(block.index, 1), pairs_, Vector<T>{});
        });
    }

    // Of the chunk's edges, the gain R W, the weight α R W, and their steps.
    void weights() {
        const int blocks = pass_.blocks, columns = pass_.columns;
        for (int e = 0; e < size_; e += quad) {
            const std::int64_t edge = first_ + start_ + e;
            const Quad<T> at = pass_.take(edge, size_ - e, job_.at);
            for (int b = 0; b < blocks; ++b) {
                typename Pass::Gains g, g_step;
                pass_.clear(g);
                pass_.add_gains(g, pass_.gains.data(), at, b);
                if constexpr (second) {
                    pass_.clear(g_step);
                    pass_.add_gains(g_step, gains_step_.data(), at, b);
                    pass_.add_gains(g_step, pass_.gains.data(), pass_.take(edge, size_ - e, job_.step), b);
                }
#pragma GCC unroll 4
                for (int k = 0; k < quad; ++k) {
                    const std::int64_t h = (start_ + e + k) * blocks + b;
#pragma GCC unroll 8
                    for (int l = 0; l < degrees; ++l) {
                        const int c = (e + k) * columns + l * blocks + b;
                        gain_[c] = g[k][l];
                        weight_[c] = alpha_[h] * g[k][l];
                        if constexpr (second) {
                            gain_[chunk * columns + c] = g_step[k][l];
                            weight_[chunk * columns + c] =
                                sum_of_products<T>(alpha_step_[h], g[k][l], alpha_[h], g_step[k][l]);
                        }
                    }
                }
            }
        }
    }

    template <class Block>
    SDAS_INLINE const T* sent(const T* value, int e, Block block) const {
        return value + job_.senders[first_ + start_ + e] * job_.m1 * job_.channels + block.first;
    }

    // From the tile of the incoming cotangent: by harmonics, by weight and by its step; in a double backward also the
    // sum over edges along the steps.
    template <class Block>
    SDAS_INLINE void products(Block block) {
        constexpr int V = rows_in_registers<M2> >= 2 ? 2 : 1;  // values whose dots share the loads of the tile
        const Vector<T>* tile = this->tile(block.index, 0);
        Vector<T> d[2 * M2];
        const T* v[2];
        if constexpr (second) {
            for (int e = 0; e < size_; ++e) {
                v[0] = sent(job_.at.value, e, block);
                v[1] = sent(job_.step.value, e, block);
                dot<V, M2, T>(d, tile, v, job_, block);
                if constexpr (V == 1) dot<V, M2, T>(d + M2, tile, v + 1, job_, block);
                edge(d, e, block);
            }
            add_steps(this->tile(block.index, 1), block);
            if (senders_) send(tile, &weight_[chunk * pass_.columns], block);
        } else {
            for_groups_of<V>(size_, [&](auto group, std::int64_t e) {
                constexpr int G = decltype(group)::value;
                for (int k = 0; k < G; ++k) v[k] = sent(job_.at.value, static_cast<int>(e) + k, block);
                dot<G, M2, T>(d, tile, v, job_, block);
                for (int k = 0; k < G; ++k) edge(d + k * M2, static_cast<int>(e) + k, block);
            });
            if (senders_) send(tile, nullptr, block);
        }
    }

    template <class Block>
    SDAS_INLINE void send(const Vector<T>* tile, const Vector<T>* weight_step, Block block) const {
        senders_->add_values(tile, edges_.data() + start_, size_, weight_.data(), weight_step, block);
    }

    // What D, and in a double backward the D of the value's step, give to the weights and harmonics of an edge.
    template <class Block>
    SDAS_INLINE void edge(const Vector<T>* d, int e, Block block) {
        const T* y = job_.at.harmonics + (first_ + start_ + e) * M2;
        Vector<T> w[degrees], sum[degrees] = {}, by_harmonics[M2];
        pass_.spread(w, &weight_[e * pass_.columns], block);
        Vector<T>* out = &by_weight_[e * degrees * rows_ + block.index];
        if constexpr (second) {
            const T* y_step = job_.step.harmonics + (first_ + start_ + e) * M2;
            Vector<T> w_step[degrees], sum_step[degrees] = {};
            pass_.spread(w_step, &weight_[(chunk + e) * pass_.columns], block);
            const Vector<T>* d_step = d + M2;
            for_orders<L>([&](int l, int m) {
                sum_step[l] += d[m] * y[m];
                sum[l] += d[m] * y_step[m] + d_step[m] * y[m];
                by_harmonics[m] = d[m] * w_step[l] + d_step[m] * w[l];
            });
            Vector<T>* out_step = out + chunk * degrees * rows_;
            for (int l = 0; l < degrees; ++l) out_step[l * rows_] = sum_step[l];
        } else {
            for_orders<L>([&](int l, int m) {
                sum[l] += d[m] * y[m];
                by_harmonics[m] = d[m] * w[l];
            });
        }
        for (int l = 0; l < degrees; ++l) out[l * rows_] = sum[l];
        if (!to_edges_) return;
        Vector<T>* lanes = &lanes_[e * M2];
        if (block.index == 0) {
            for_orders<L>([&](int, int m) { lanes[m] = by_harmonics[m]; });
        } else {
            for_orders<L>([&](int, int m) { lanes[m] += by_harmonics[m]; });
        }
    }

    // tile += Σ_e v_j ⊗ (the step of w Y) + (the step of v_j) ⊗ w Y.
    template <class Block>
    SDAS_INLINE void add_steps(Vector<T>* tile, Block block) {
        Vector<T> b[chunk * M2], b_step[chunk * M2];
        const T *v[chunk], *v_step[chunk];
        for (int e = 0; e < size_; ++e) {
            const std::int64_t edge = first_ + start_ + e;
            const T *y = job_.at.harmonics + edge * M2, *y_step = job_.step.harmonics + edge * M2;
            Vector<T> w[degrees], w_step[degrees];
            pass_.spread(w, &weight_[e * pass_.columns], block);
            pass_.spread(w_step, &weight_[(chunk + e) * pass_.columns], block);
            weighted_harmonics<L, T>(b + e * M2, w, y);
            weighted_harmonics_step<L, T>(b_step + e * M2, w, w_step, y, y_step);
            v[e] = sent(job_.at.value, e, block);
            v_step[e] = sent(job_.step.value, e, block);
        }
        accumulate_rows<M2, T>(tile, b_step, v, size_, job_, block);
        accumulate_rows<M2, T>(tile, b, v_step, size_, job_, block);
    }

    // From the chunk's by weight: by α and its step, by radial, and the sums for the radial gain.
    void by_weights() {
        const int blocks = pass_.blocks, columns = pass_.columns, n = pass_.radials();
        Vector<T>*by_weight = by_weight_.data(), *by_step = by_weight + chunk * degrees * rows_;
        const Vector<T>*gain = gain_.data(), *gain_step = gain + chunk * columns;
        sum_heads(by_weight);
        if constexpr (second) sum_heads(by_step);
        for (int e = 0; e < size_; ++e) {
            for (int b = 0; b < blocks; ++b) {
                const std::int64_t h = (start_ + e) * blocks + b;
                const Vector<T> alpha = alpha_[h];
                Vector<T> sum{}, sum_step{};
                for (int c = e * columns + b; c < (e + 1) * columns; c += blocks) {
                    sum += by_weight[c] * gain[c];
                    if constexpr (second) {
                        sum += by_step[c] * gain_step[c];
                        sum_step += by_step[c] * gain[c];
                        by_weight[c] = by_weight[c] * alpha + by_step[c] * alpha_step_[h];
                        by_step[c] *= alpha;
                    } else {
                        by_weight[c] *= alpha;
                    }
                }
                by_alpha_[h] = sum;
                if constexpr (second) by_alpha_step_[h] = sum_step;
            }
        }
        const std::int64_t edge = first_ + start_, row = std::int64_t{columns} * width<T>;
        T* by_radial = job_.by_radial + edge * n;
        if (to_edges_) {
            by_gain_.multiply(by_radial, reinterpret_cast<const T*>(by_weight), row, size_, job_.edges_add);
            if constexpr (second)
                by_gain_step_.multiply(by_radial, reinterpret_cast<const T*>(by_step), row, size_, true);
        }
        if (job_.gain_sums == nullptr) return;
        add_edges<T>(gain_sums_.data(), job_.at.radial + edge * n, n, by_weight, columns, size_);
        if constexpr (second) {
            add_edges<T>(gain_sums_.data(), job_.step.radial + edge * n, n, by_step, columns, size_);
        }
    }

    // The chunk's [edges, L+1, rows of channels] to [edges, L+1, blocks of heads], in place.
    void sum_heads(Vector<T>* v) const {
        if (job_.heads == job_.channels) return;
        Vector<T>* out = v;
        for (int r = 0; r < size_ * degrees; ++r, v += rows_, out += pass_.blocks) {
            sum_groups<T>(v, channel_blocks<T>(job_.channels), job_.channels / job_.heads);
            std::copy(v, v + pass_.blocks, out);
        }
    }

    const int rows_, pairs_;  // vectors of a row of channels or heads; of a tile
    NarrowMatrix<T> by_gain_, by_gain_step_;
    Vectors<T> gain_sums_, gains_step_;
    Vectors<T> gain_, weight_, by_weight_, lanes_;  // of a chunk of edges; then of its steps
    Vectors<T> tiles_, coupled_;
    std::int64_t start_ = 0;  // the chunk's first edge among those of the receiver in turn
    int size_ = 0;
};

}  // namespace sdas::SDAS_SIMD
