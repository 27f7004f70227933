// The pass of the neighbor attention's derivatives over receivers. Included only by kernel files, like vector.h.
//
// With G = couplingᵀ · (cotangent of z) and D_e = Gᵀ v_j, the cotangent of w is Σ_m D Y and that of Y is Σ w D; the
// rest is the derivative of w = α R W and of the softmax. In a double backward (`second`) everything is taken along
// the steps, which ops/edge_softmax/reference.py and ops/neighbor_tensor_product/reference.py write out.
#pragma once

#include <vector>

#include "sdas/neighbor_attention_softmax.h"

namespace sdas::SDAS_SIMD {

template <int L, class T, bool second>
class ReceiverPass {
  public:
    using Pass = AttentionPass<L, T>;
    static constexpr int M2 = Pass::M2, degrees = Pass::degrees;

    explicit ReceiverPass(const Pass& pass)
        : pass_(pass), job_(pass.job), softmax_(pass), gain_sums_(pass.gain_vectors()) {
        if constexpr (second) {
            gains_step_.resize(pass_.gain_vectors());
            pass_.transpose_gains(gains_step_.data(), job_.step.radial_gain);
        }
    }

    // Receivers begin .. end, and their edges' sum for the radial gain.
    void block(std::int64_t begin, std::int64_t end) {
        std::fill(gain_sums_.begin(), gain_sums_.end(), Vector<T>{});
        for (std::int64_t i = begin; i < end; ++i) receiver(i);
        if (job_.gain_sums == nullptr) return;
        T* out = job_.gain_sums + begin / job_.receivers_per_block() * job_.gain_numbers();
        for (int l = 0; l < degrees; ++l) {
            heads_outermost(out + l * job_.radials, reinterpret_cast<const T*>(&gain_sums_[l * pass_.blocks]),
                            pass_.columns * width<T>, job_.heads, degrees * job_.radials, job_.radials);
        }
    }

  private:
    void receiver(std::int64_t i) {
        first_ = job_.row_ptr[i];
        count_ = job_.row_ptr[i + 1] - first_;
        weights(i);
        lanes_harmonics_ = lanes_[0].zeros(count_ * M2);
        lanes_radial_ = lanes_[1].zeros(count_ * job_.radials);
        products(i);
        by_weights();
        by_logits(i);
        store_totals<T>(job_.by_harmonics + first_ * M2, lanes_harmonics_, count_ * M2);
        store_totals<T>(job_.by_radial + first_ * job_.radials, lanes_radial_, count_ * job_.radials);
    }

    // α, the gain R W and the weight α R W of every edge, and their steps.
    void weights(std::int64_t i) {
        const int blocks = pass_.blocks, heads = job_.heads;
        u_ = softmax_.u(i);
        alpha_ = alphas_[0].room(count_ * blocks);
        if constexpr (second) step_alpha(i);
        for (std::int64_t e = 0; e < count_; ++e) {
            const T f = job_.at.envelope[first_ + e];
            for (int b = 0; b < blocks; ++b) alpha_[e * blocks + b] = u_[e * blocks + b] * f;
            if (job_.alpha == nullptr) continue;
            store_heads(job_.alpha + (first_ + e) * heads, alpha_ + e * blocks, heads);
            if constexpr (second) {
                store_heads(job_.alpha_step + (first_ + e) * heads, alpha_step_ + e * blocks, heads);
            }
        }
        gain_ = add_gains(gain_room_[0], job_.at.radial, pass_.gains, nullptr);
        weight_ = weight_room_[0].room(count_ * pass_.columns);
        if constexpr (second) {
            gain_step_ = add_gains(gain_room_[1], job_.at.radial, gains_step_, nullptr);
            add_gains(gain_room_[1], job_.step.radial, pass_.gains, gain_step_);
            weight_step_ = weight_room_[1].room(count_ * pass_.columns);
        }
        for_heads([&](std::int64_t c, std::int64_t h) {
            weight_[c] = alpha_[h] * gain_[c];
            if constexpr (second) weight_step_[c] = alpha_step_[h] * gain_[c] + alpha_[h] * gain_step_[c];
        });
    }

    // The step of the logit, ė, and of α: u (ė f + ḟ) - α drift.
    void step_alpha(std::int64_t i) {
        const int blocks = pass_.blocks;
        query_step_ = softmax_.load_query(query_step_room_, job_.step.query, i);
        logit_step_ = logit_step_room_.zeros(count_ * blocks);
        softmax_.add_logits(logit_step_, query_step_, job_.at, first_, count_);
        softmax_.add_logits(logit_step_, softmax_.query, job_.step, first_, count_);
        alpha_step_ = alphas_[1].room(count_ * blocks);
        sink_step_.resize(blocks);
        drift_.resize(blocks);
        load_heads<T>(sink_step_.data(), job_.step.sink + i * job_.heads, job_.heads);
        const T *f = job_.at.envelope + first_, *f_step = job_.step.envelope + first_;
        for (int b = 0; b < blocks; ++b) {
            Vector<T> drift{};
            for (std::int64_t e = 0; e < count_; ++e) {
                const Vector<T> step = u_[e * blocks + b] * (logit_step_[e * blocks + b] * f[e] + f_step[e]);
                alpha_step_[e * blocks + b] = step;
                drift += step;
            }
            drift += softmax_.sink(b) * sink_step_[b];
            for (std::int64_t e = 0; e < count_; ++e) alpha_step_[e * blocks + b] -= u_[e * blocks + b] * f[e] * drift;
            drift_[b] = drift;
        }
    }

    // Σ_n R_n W_n of every edge [edges, L+1, blocks], added to `out` unless that is null.
    Vector<T>* add_gains(Scratch<T>& room, const T* radial, const std::vector<Vector<T>>& gains, Vector<T>* out) const {
        if (out == nullptr) out = room.zeros(count_ * pass_.columns);
        add_product<T>(out, pass_.columns, Pass::rows_of(radial + first_ * job_.radials, job_.radials), count_,
                       job_.radials, gains.data());
        return out;
    }

    // Calls body(place in [edges, L+1, blocks], place in [edges, blocks]).
    template <class Body>
    SDAS_INLINE void for_heads(const Body& body) const {
        std::int64_t c = 0;
        for (std::int64_t e = 0; e < count_; ++e) {
            for (int l = 0; l < degrees; ++l) {
                for (int b = 0; b < pass_.blocks; ++b, ++c) body(c, e * pass_.blocks + b);
            }
        }
    }

    // From the tiles of the incoming cotangent: by harmonics, by weight and by its step; in a double backward also the
    // sum over edges along the steps.
    void products(std::int64_t i) {
        const int pairs = job_.m1 * M2, channel_rows = channel_blocks<T>(job_.channels);
        by_weight_ = by_weight_room_[0].zeros(count_ * degrees * std::max(channel_rows, pass_.blocks));
        if constexpr (second) {
            by_weight_step_ = by_weight_room_[1].zeros(count_ * degrees * std::max(channel_rows, pass_.blocks));
        }
        Vector<T>* tile = tile_room_.room(2 * pairs);
        for_channel_blocks<T>(job_.channels, [&](auto block) {
            const std::int64_t place = i * job_.rows * job_.channels + block.first;
            if (count_ > 0) uncouple<T>(tile, job_.grad + place, job_, pairs, block);
            dots(tile, channel_rows, block);
            if constexpr (second) {
                add_steps(tile + pairs, pairs, block);
                couple<T>(job_.out + place, tile + pairs, job_, block);
            }
        });
        sum_heads(by_weight_, channel_rows);
        if constexpr (second) sum_heads(by_weight_step_, channel_rows);
    }

    template <class Block>
    SDAS_INLINE const T* sent(const T* value, std::int64_t e, Block block) const {
        return value + job_.senders[first_ + e] * job_.m1 * job_.channels + block.first;
    }

    template <class Block>
    SDAS_INLINE void dots(const Vector<T>* tile, int channel_rows, Block block) {
        constexpr int V = rows_in_registers<M2> >= 2 ? 2 : 1;  // values whose dots share the loads of the tile
        Vector<T> d[2 * M2];
        const T* v[2];
        std::int64_t e = 0;
        if constexpr (second) {
            for (; e < count_; ++e) {
                v[0] = sent(job_.at.value, e, block);
                v[1] = sent(job_.step.value, e, block);
                dot<V, M2, T>(d, tile, v, job_, block);
                if constexpr (V == 1) dot<V, M2, T>(d + M2, tile, v + 1, job_, block);
                edge(d, e, channel_rows, block);
            }
        } else {
            for (; e + V <= count_; e += V) {
                for (int k = 0; k < V; ++k) v[k] = sent(job_.at.value, e + k, block);
                dot<V, M2, T>(d, tile, v, job_, block);
                for (int k = 0; k < V; ++k) edge(d + k * M2, e + k, channel_rows, block);
            }
            for (; e < count_; ++e) {
                v[0] = sent(job_.at.value, e, block);
                dot<1, M2, T>(d, tile, v, job_, block);
                edge(d, e, channel_rows, block);
            }
        }
    }

    // What D, and in a double backward the D of the value's step, give to the weights and harmonics of an edge.
    template <class Block>
    SDAS_INLINE void edge(const Vector<T>* d, std::int64_t e, int channel_rows, Block block) {
        const T* y = job_.at.harmonics + (first_ + e) * M2;
        Vector<T>* by_harmonics = lanes_harmonics_ + e * M2;
        Vector<T> w[degrees], sum[degrees] = {};
        pass_.spread(w, weight_ + e * pass_.columns, block);
        Vector<T>* out = by_weight_ + e * degrees * channel_rows + block.index;
        if constexpr (second) {
            const T* y_step = job_.step.harmonics + (first_ + e) * M2;
            Vector<T> w_step[degrees], sum_step[degrees] = {};
            pass_.spread(w_step, weight_step_ + e * pass_.columns, block);
            const Vector<T>* d_step = d + M2;
            for_degrees(L, [&](int l, int m) {
                sum_step[l] += d[m] * y[m];
                sum[l] += d[m] * y_step[m] + d_step[m] * y[m];
                by_harmonics[m] += d[m] * w_step[l] + d_step[m] * w[l];
            });
            Vector<T>* out_step = by_weight_step_ + e * degrees * channel_rows + block.index;
            for (int l = 0; l < degrees; ++l) out_step[l * channel_rows] = sum_step[l];
        } else {
            for_degrees(L, [&](int l, int m) {
                sum[l] += d[m] * y[m];
                by_harmonics[m] += d[m] * w[l];
            });
        }
        for (int l = 0; l < degrees; ++l) out[l * channel_rows] = sum[l];
    }

    // tile = Σ_e v_j ⊗ (the step of w Y) + (the step of v_j) ⊗ w Y.
    template <class Block>
    SDAS_INLINE void add_steps(Vector<T>* tile, int pairs, Block block) {
        std::fill(tile, tile + pairs, Vector<T>{});
        Vector<T> b[chunk * M2], b_step[chunk * M2];
        const T *v[chunk], *v_step[chunk];
        for (std::int64_t start = 0; start < count_; start += chunk) {
            const int size = static_cast<int>(std::min<std::int64_t>(chunk, count_ - start));
            for (int k = 0; k < size; ++k) {
                const std::int64_t e = start + k;
                const T *y = job_.at.harmonics + (first_ + e) * M2, *y_step = job_.step.harmonics + (first_ + e) * M2;
                Vector<T> w[degrees], w_step[degrees];
                pass_.spread(w, weight_ + e * pass_.columns, block);
                pass_.spread(w_step, weight_step_ + e * pass_.columns, block);
                weighted_harmonics<L, T>(b + k * M2, w, y);
                weighted_harmonics_step<L, T>(b_step + k * M2, w, w_step, y, y_step);
                v[k] = sent(job_.at.value, e, block);
                v_step[k] = sent(job_.step.value, e, block);
            }
            accumulate_rows<M2, T>(tile, b_step, v, size, job_, block);
            accumulate_rows<M2, T>(tile, b, v_step, size, job_, block);
        }
    }

    // [edges, L+1, blocks of channels] to [edges, L+1, blocks of heads], in place.
    void sum_heads(Vector<T>* v, int channel_rows) const {
        if (job_.heads == job_.channels) return;
        Vector<T>* out = v;
        for (std::int64_t r = 0; r < count_ * degrees; ++r, v += channel_rows, out += pass_.blocks) {
            sum_groups<T>(v, channel_rows, job_.channels / job_.heads);
            std::copy(v, v + pass_.blocks, out);
        }
    }

    // From by weight: by α, into by_alpha_ and by_alpha_step_, by radial, and the sums for the radial gain.
    void by_weights() {
        by_alpha_ = by_alpha_room_[0].zeros(count_ * pass_.blocks);
        if constexpr (second) by_alpha_step_ = by_alpha_room_[1].zeros(count_ * pass_.blocks);
        for_heads([&](std::int64_t c, std::int64_t h) {
            by_alpha_[h] += by_weight_[c] * gain_[c];
            if constexpr (second) {
                by_alpha_[h] += by_weight_step_[c] * gain_step_[c];
                by_alpha_step_[h] += by_weight_step_[c] * gain_[c];
                by_weight_[c] = by_weight_[c] * alpha_[h] + by_weight_step_[c] * alpha_step_[h];
                by_weight_step_[c] *= alpha_[h];
            } else {
                by_weight_[c] *= alpha_[h];
            }
        });
        by_gains(by_weight_, pass_.gains, job_.at.radial);
        if constexpr (second) by_gains(by_weight_step_, gains_step_, job_.step.radial);
    }

    void by_gains(const Vector<T>* by_gain, const std::vector<Vector<T>>& gains, const T* radial) {
        const int n = job_.radials;
        add_lane_product<T>(lanes_radial_, n, by_gain, count_, pass_.columns, gains.data());
        if (job_.gain_sums == nullptr) return;
        add_product<T>(gain_sums_.data(), pass_.columns, Pass::columns_of(radial + first_ * n, n), n,
                       static_cast<int>(count_), by_gain);
    }

    // From by α: by logit and its step, and through them by query, sink, harmonics, radial and envelope.
    void by_logits(std::int64_t i) {
        const int blocks = pass_.blocks, heads = job_.heads, places = static_cast<int>(job_.places());
        Vector<T>*by_query = by_query_room_.zeros(places * blocks), *by_sink = by_sink_room_.room(blocks);
        Vector<T>* lanes_envelope = lanes_[2].zeros(count_);
        const T* f = job_.at.envelope + first_;
        for (int b = 0; b < blocks; ++b) {
            if constexpr (second) {
                by_sink[b] = softmax_step(lanes_envelope, b);
            } else {
                Vector<T> mean{};
                for (std::int64_t h = b; h < count_ * blocks; h += blocks) mean += alpha_[h] * by_alpha_[h];
                for (std::int64_t e = 0; e < count_; ++e) {
                    const Vector<T> slope = u_[e * blocks + b] * (by_alpha_[e * blocks + b] - mean);
                    by_alpha_[e * blocks + b] = slope * f[e];
                    lanes_envelope[e] += slope;
                }
                by_sink[b] = -softmax_.sink(b) * mean;
            }
        }
        spread_logits(by_query, by_alpha_, softmax_.query, job_.at);
        if constexpr (second) spread_logits(by_query, by_alpha_step_, query_step_, job_.step);
        for (std::int64_t e = 0; job_.by_logit != nullptr && e < count_; ++e) {
            store_heads(job_.by_logit + (first_ + e) * heads, by_alpha_ + e * blocks, heads);
            if constexpr (second) {
                store_heads(job_.by_logit_step + (first_ + e) * heads, by_alpha_step_ + e * blocks, heads);
            }
        }
        store_totals<T>(job_.by_envelope + first_, lanes_envelope, count_);
        if (job_.by_sink != nullptr) store_heads(job_.by_sink + i * heads, by_sink, heads);
        if (job_.by_query == nullptr) return;
        heads_outermost(job_.by_query + i * heads * places, reinterpret_cast<const T*>(by_query), blocks * width<T>,
                        heads, places, places);
    }

    // Of a block of heads, by_alpha_ (g') and by_alpha_step_ (g) become by logit and by its step; returns by sink.
    SDAS_INLINE Vector<T> softmax_step(Vector<T>* lanes_envelope, int b) {
        const int blocks = pass_.blocks;
        Vector<T> mean{}, mean_step{}, total{};
        for (std::int64_t h = b; h < count_ * blocks; h += blocks) {
            mean += alpha_[h] * by_alpha_[h];
            mean_step += alpha_[h] * by_alpha_step_[h];
            total += by_alpha_step_[h] * alpha_step_[h];
        }
        for (std::int64_t e = 0; e < count_; ++e) {
            const std::int64_t h = e * blocks + b;
            const Vector<T> excess = by_alpha_step_[h] - mean_step, rest = by_alpha_[h] - mean - total;
            by_alpha_step_[h] = alpha_[h] * excess;
            by_alpha_[h] = excess * alpha_step_[h] + alpha_[h] * rest;
            lanes_envelope[e] += u_[h] * (excess * (logit_step_[h] - drift_[b]) + rest);
        }
        return -softmax_.sink(b) * (mean_step * (sink_step_[b] - drift_[b]) + total + mean);
    }

    // by harmonics and radial += query · c; by_query += Σ_e c [key | harmonics | radial].
    void spread_logits(Vector<T>* by_query, const Vector<T>* c, const Vector<T>* query,
                       const NeighborAttentionOperands<T>& target) {
        const int blocks = pass_.blocks, channels = job_.key_channels, count = static_cast<int>(count_);
        const int n = job_.radials;
        query += channels * blocks;
        add_lane_product<T>(lanes_harmonics_, M2, c, count_, blocks, query);
        add_lane_product<T>(lanes_radial_, n, c, count_, blocks, query + M2 * blocks);
        if (job_.by_query == nullptr) return;
        for (std::int64_t e = 0; e < count_; ++e) {
            const T* key = target.keys + job_.senders[first_ + e] * channels * pass_.padded;
            for (int d = 0; d < channels; ++d) {
                for (int b = 0; b < blocks; ++b) {
                    by_query[d * blocks + b] += c[e * blocks + b] * load<T>(key + d * pass_.padded + b * width<T>);
                }
            }
        }
        by_query += channels * blocks;
        add_product<T>(by_query, blocks, Pass::columns_of(target.harmonics + first_ * M2, M2), M2, count, c);
        by_query += M2 * blocks;
        add_product<T>(by_query, blocks, Pass::columns_of(target.radial + first_ * n, n), n, count, c);
    }

    const Pass& pass_;
    const NeighborAttention<T>& job_;
    ReceiverSoftmax<L, T> softmax_;
    std::vector<Vector<T>> gain_sums_, gains_step_, sink_step_, drift_;
    Scratch<T> alphas_[2], gain_room_[2], weight_room_[2], by_weight_room_[2], by_alpha_room_[2], lanes_[3];
    Scratch<T> tile_room_, by_query_room_, by_sink_room_, query_step_room_, logit_step_room_;
    std::int64_t first_ = 0, count_ = 0;  // edges of the receiver in turn; what follows belongs to them
    Vector<T> *u_ = nullptr, *alpha_ = nullptr, *alpha_step_ = nullptr, *logit_step_ = nullptr, *query_step_ = nullptr;
    Vector<T> *gain_ = nullptr, *gain_step_ = nullptr, *weight_ = nullptr, *weight_step_ = nullptr;
    Vector<T> *by_weight_ = nullptr, *by_weight_step_ = nullptr, *by_alpha_ = nullptr, *by_alpha_step_ = nullptr;
    Vector<T> *lanes_harmonics_ = nullptr, *lanes_radial_ = nullptr;
};

}  // namespace sdas::SDAS_SIMD
