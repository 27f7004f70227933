// The pass of the neighbor attention's derivatives that adds to senders. Included only by kernel files, like vector.h.
//
// A thread owns a range of senders. It goes through all receivers, takes of their edges those that come from its
// range, and adds to the senders; so the tile couplingᵀ · z of a receiver is made once for all of its edges, and every
// sender is summed in the order of its edges whatever the ranges are.
#pragma once

#include <vector>

#include "sdas/neighbor_attention_softmax.h"

namespace sdas::SDAS_SIMD {

template <int L, class T>
class SenderPass {
  public:
    using Pass = AttentionPass<L, T>;
    static constexpr int M2 = Pass::M2, degrees = Pass::degrees, batch = 64;

    SenderPass(const Pass& pass, std::int64_t begin, std::int64_t end)
        : pass_(pass),
          job_(pass.job),
          second_(job_.alpha_step != nullptr),
          begin_(begin),
          end_(end),
          pairs_(job_.m1 * M2),
          tiles_(pairs_ * channel_blocks<T>(job_.channels)),
          weight_(batch * pass.columns),
          gain_(batch * pass.columns) {
        const std::int64_t key = job_.key_channels * pass.padded, value = std::int64_t{job_.m1} * job_.channels;
        std::fill(job_.by_keys + begin * key, job_.by_keys + end * key, T(0));
        std::fill(job_.by_value + begin * value, job_.by_value + end * value, T(0));
        if (second_) {
            weight_step_.resize(batch * pass.columns);
            gain_step_.resize(batch * pass.columns);
            gains_step_.resize(pass.gain_vectors());
            pass_.transpose_gains(gains_step_.data(), job_.step.radial_gain);
        }
    }

    void run() {
        for (std::int64_t i = 0; i < job_.nodes; ++i) {
            count_ = 0;
            bool coupled = false;
            for (std::int64_t e = job_.row_ptr[i]; e < job_.row_ptr[i + 1]; ++e) {
                if (job_.senders[e] < begin_ || job_.senders[e] >= end_) continue;
                edges_[count_++] = e;
                if (count_ == batch) add_batch(i, coupled);
            }
            if (count_ > 0) add_batch(i, coupled);
        }
        const int channels = job_.key_channels, heads = job_.heads;
        for (std::int64_t j = begin_; j < end_; ++j) {
            heads_outermost(job_.by_key + j * heads * channels, job_.by_keys + j * channels * pass_.padded,
                            pass_.padded, heads, channels, channels);
        }
    }

  private:
    void add_batch(std::int64_t i, bool& coupled) {
        if (!coupled) {
            for_channel_blocks<T>(job_.channels, [&](auto block) {
                const T* z = job_.grad + i * job_.rows * job_.channels + block.first;
                uncouple<T>(tiles_.data() + block.index * pairs_, z, job_, pairs_, block);
            });
            load_query(query_, job_.at.query, i);
            if (second_) load_query(query_step_, job_.step.query, i);
            coupled = true;
        }
        weights();
        add_keys();
        for_channel_blocks<T>(job_.channels, [&](auto block) { add_values(block); });
        count_ = 0;
    }

    void load_query(Scratch<T>& room, const T* query, std::int64_t i) {
        const int places = static_cast<int>(job_.places());
        T* out = reinterpret_cast<T*>(room.zeros(job_.key_channels * pass_.blocks));
        heads_innermost(out, pass_.blocks * width<T>, query + i * job_.heads * places, job_.heads, places,
                        job_.key_channels);
    }

    // α R W of the batch, or its step.
    void weights() {
        const int blocks = pass_.blocks;
        add_gains(gain_, job_.at.radial, pass_.gains, true);
        if (second_) {
            add_gains(gain_step_, job_.at.radial, gains_step_, true);
            add_gains(gain_step_, job_.step.radial, pass_.gains, false);
        }
        Vector<T>*alpha = alpha_.room(blocks), *alpha_step = alpha_step_.room(blocks);
        for (int e = 0; e < count_; ++e) {
            load_heads<T>(alpha, job_.alpha + edges_[e] * job_.heads, job_.heads);
            if (second_) load_heads<T>(alpha_step, job_.alpha_step + edges_[e] * job_.heads, job_.heads);
            for (int c = e * pass_.columns; c < (e + 1) * pass_.columns; c += blocks) {
                for (int b = 0; b < blocks; ++b) {
                    weight_[c + b] = alpha[b] * gain_[c + b];
                    if (second_) weight_step_[c + b] = alpha_step[b] * gain_[c + b] + alpha[b] * gain_step_[c + b];
                }
            }
        }
    }

    void add_gains(std::vector<Vector<T>>& out, const T* radial, const std::vector<Vector<T>>& gains, bool fresh) {
        const int n = job_.radials, filled = count_ * pass_.columns;
        T* rows = reinterpret_cast<T*>(rows_.room((batch * n + width<T> - 1) / width<T>));
        for (int e = 0; e < count_; ++e) std::copy(radial + edges_[e] * n, radial + (edges_[e] + 1) * n, rows + e * n);
        if (fresh) std::fill(out.begin(), out.begin() + filled, Vector<T>{});
        add_product<T>(out.data(), pass_.columns, Pass::rows_of(rows, n), count_, n, gains.data());
    }

    // by_keys[j] += by logit · query, edge by edge, so that the order of a sender's sum is that of its edges.
    void add_keys() {
        for (int k = 0; k < count_; ++k) {
            const std::int64_t e = edges_[k];
            add_key(e, job_.by_logit, query_.room(0));
            if (second_) add_key(e, job_.by_logit_step, query_step_.room(0));
        }
    }

    SDAS_INLINE void add_key(std::int64_t e, const T* cotangent, const Vector<T>* query) {
        const int blocks = pass_.blocks;
        Vector<T>* c = cotangent_.room(blocks);
        load_heads<T>(c, cotangent + e * job_.heads, job_.heads);
        T* key = job_.by_keys + job_.senders[e] * job_.key_channels * pass_.padded;
        for (int d = 0; d < job_.key_channels; ++d, key += pass_.padded, query += blocks) {
            for (int b = 0; b < blocks; ++b) {
                T* at = key + b * width<T>;
                store<T>(at, load<T>(at) + c[b] * query[b]);
            }
        }
    }

    template <class Block>
    SDAS_INLINE void add_values(Block block) {
        constexpr int V = M2 <= 9 ? 2 : 1;  // edges that share the loads of the tile
        const Vector<T>* tile = tiles_.data() + block.index * pairs_;
        int e = 0;
        while (e < count_) {
            if (V == 2 && e + 2 <= count_ && job_.senders[edges_[e]] != job_.senders[edges_[e + 1]]) {
                add_edges<V>(tile, e, block);
                e += V;
            } else {
                add_edges<1>(tile, e++, block);
            }
        }
    }

    // by_value[j, m1] += Σ_m2 tile[m1, m2] B[m2] of V edges from different senders.
    template <int V, class Block>
    SDAS_INLINE void add_edges(const Vector<T>* tile, int first, Block block) {
        Vector<T> b[V][M2];
        T* out[V];
        for (int k = 0; k < V; ++k) {
            const int e = first + k;
            const T* y = job_.at.harmonics + edges_[e] * M2;
            Vector<T> w[degrees], w_step[degrees];
            pass_.spread(w, &weight_[e * pass_.columns], block);
            if (second_) {
                pass_.spread(w_step, &weight_step_[e * pass_.columns], block);
                weighted_harmonics_step<L, T>(b[k], w, w_step, y, job_.step.harmonics + edges_[e] * M2);
            } else {
                weighted_harmonics<L, T>(b[k], w, y);
            }
            out[k] = job_.by_value + job_.senders[edges_[e]] * job_.m1 * job_.channels + block.first;
        }
        for (int m1 = 0; m1 < job_.m1; ++m1, tile += M2) {
            Vector<T> sum[V];
            for (int k = 0; k < V; ++k) sum[k] = block.load(out[k]);
            for (int m = 0; m < M2; ++m) {
                for (int k = 0; k < V; ++k) sum[k] += tile[m] * b[k][m];
            }
            for (int k = 0; k < V; ++k) {
                block.store(out[k], sum[k]);
                out[k] += job_.channels;
            }
        }
    }

    const Pass& pass_;
    const NeighborAttention<T>& job_;
    const bool second_;
    const std::int64_t begin_, end_;
    const int pairs_;
    std::vector<Vector<T>> tiles_, weight_, weight_step_, gain_, gain_step_, gains_step_;
    Scratch<T> query_, query_step_, alpha_, alpha_step_, cotangent_, rows_;
    std::int64_t edges_[batch];
    int count_ = 0;
};

}  // namespace sdas::SDAS_SIMD
