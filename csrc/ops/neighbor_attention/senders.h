// What the neighbor attention's derivatives add to senders, and the pass that does so by ranges of senders. Included only
// by kernel files, like vector.h.
//
// One thread adds while it goes through the receivers. Of several each owns a range of senders: it goes through all
// receivers once more, takes of their edges those that come from its range, and adds to the senders; so the tile
// couplingᵀ · z of a receiver is made once for all of its edges. Either way every sender is summed in the order of its
// edges; in a small system, in that of each part's edges.
#pragma once

#include <vector>

#include "ops/neighbor_attention/edges.h"

namespace sdas::SDAS_SIMD {

// Sums over what nodes begin .. end send.
template <int L, class T, int N>
class SenderSums {
  public:
    using Pass = AttentionPass<L, T, N>;
    static constexpr int M2 = Pass::M2, degrees = Pass::degrees;

    SenderSums(const Pass& pass, std::int64_t begin, std::int64_t end)
        : pass_(pass), job_(pass.job), begin_(begin), end_(end) {
        const std::int64_t key = job_.key_channels * pass.padded, value = std::int64_t{job_.m1} * job_.channels;
        std::fill(job_.by_keys + begin * key, job_.by_keys + end * key, T(0));
        std::fill(job_.by_value + begin * value, job_.by_value + end * value, T(0));
    }

    // by key, from the sums with heads innermost.
    void finish() const {
        if (job_.keys_as_given()) return;
        const std::int64_t numbers = job_.key_channels * pass_.padded;
        for (std::int64_t j = begin_; j < end_; ++j) {
            pass_.store_places(job_.by_key, j, job_.by_keys + j * numbers, pass_.padded, job_.key_channels);
        }
    }

    // by_keys[j] += c · query for edges of one receiver, c = by logit [edges, blocks], and the same of the steps if there
    // are any.
    void add_keys(const std::int64_t* edges, std::int64_t count, const Vector<T>* c, const Vector<T>* query,
                  const Vector<T>* c_step, const Vector<T>* query_step) const {
        const int blocks = pass_.blocks;
        for (std::int64_t e = 0; e < count; ++e) {
            T* key = job_.by_keys + job_.senders[edges[e]] * job_.key_channels * pass_.padded;
            for (int d = 0; d < job_.key_channels; ++d, key += pass_.padded) {
                for (int b = 0; b < blocks; ++b) {
                    T* at = key + b * width<T>;
                    Vector<T> sum = load<T>(at) + c[e * blocks + b] * query[d * blocks + b];
                    if (c_step != nullptr) sum += c_step[e * blocks + b] * query_step[d * blocks + b];
                    store<T>(at, sum);
                }
            }
        }
    }

    // by_value[j, m1] += Σ_m2 tile[m1, m2] B[m2] for edges of one receiver, B = w Y or, if there is one, its step.
    // weight, weight_step: [edges, L+1, blocks].
    template <class Block>
    SDAS_INLINE void add_values(const Vector<T>* tile, const std::int64_t* edges, int count, const Vector<T>* weight,
                                const Vector<T>* weight_step, Block block) const {
        constexpr int V = M2 <= 9 ? 2 : 1;  // edges that share the loads of the tile
        int e = 0;
        while (e < count) {
            if (V == 2 && e + 2 <= count && job_.senders[edges[e]] != job_.senders[edges[e + 1]]) {
                add_edges<V>(tile, edges, e, weight, weight_step, block);
                e += V;
            } else {
                add_edges<1>(tile, edges, e++, weight, weight_step, block);
            }
        }
    }

  private:
    // The same of V edges from different senders.
    template <int V, class Block>
    SDAS_INLINE void add_edges(const Vector<T>* tile, const std::int64_t* edges, int first, const Vector<T>* weight,
                               const Vector<T>* weight_step, Block block) const {
        Vector<T> b[V][M2];
        T* out[V];
        for (int k = 0; k < V; ++k) {
            const std::int64_t edge = edges[first + k], row = (first + k) * pass_.columns;
            const T* y = job_.at.harmonics + edge * M2;
            Vector<T> w[degrees], w_step[degrees];
            pass_.spread(w, weight + row, block);
            if (weight_step != nullptr) {
                pass_.spread(w_step, weight_step + row, block);
                weighted_harmonics_step<L, T>(b[k], w, w_step, y, job_.step.harmonics + edge * M2);
            } else {
                weighted_harmonics<L, T>(b[k], w, y);
            }
            out[k] = job_.by_value + job_.senders[edge] * job_.m1 * job_.channels + block.first;
        }
        for (int m1 = 0; m1 < job_.m1; ++m1, tile += M2) {
            Vector<T> sum[V];
            for (int k = 0; k < V; ++k) sum[k] = block.load(out[k]);
#pragma GCC unroll 32
            for (int m = 0; m < M2; ++m) {
                const Vector<T> factor = V > 1 ? in_register<T>(tile[m]) : tile[m];
                for (int k = 0; k < V; ++k) sum[k] += factor * b[k][m];
            }
            for (int k = 0; k < V; ++k) {
                block.store(out[k], sum[k]);
                out[k] += job_.channels;
            }
        }
    }

    const Pass& pass_;
    const NeighborAttention<T>& job_;
    const std::int64_t begin_, end_;
};

template <int L, class T, int N>
class SenderPass {
  public:
    using Pass = AttentionPass<L, T, N>;
    static constexpr int M2 = Pass::M2, degrees = Pass::degrees, batch = 64;

    SenderPass(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end)
        : job_(job),
          pass_(job),
          sums_(pass_, begin, end),
          second_(job.alpha_step != nullptr),
          begin_(begin),
          end_(end),
          pairs_(job.m1 * M2),
          tiles_(pairs_ * channel_blocks<T>(job.channels)),
          weight_(batch * pass_.columns) {
        if (second_) {
            weight_step_.resize(batch * pass_.columns);
            gains_step_.resize(pass_.gain_vectors());
            pass_.arrange_gains(gains_step_.data(), job.step.radial_gain);
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
        sums_.finish();
    }

  private:
    void add_batch(std::int64_t i, bool& coupled) {
        if (!coupled) {
            for_channel_blocks<T>(job_.channels, [&](auto block) {
                const T* z = job_.grad + i * job_.rows * job_.channels + block.first;
                uncouple<T>(tiles_.data() + block.index * pairs_, z, job_, pairs_, block);
            });
            coupled = true;
        }
        weights();
        add_keys(i);
        for_channel_blocks<T>(job_.channels, [&](auto block) {
            const Vector<T>* tile = tiles_.data() + block.index * pairs_;
            sums_.add_values(tile, edges_, count_, weight_.data(), second_ ? weight_step_.data() : nullptr, block);
        });
        count_ = 0;
    }

    // The batch's rows of x [E, heads], as [edges, blocks].
    const Vector<T>* load(Scratch<T>& room, const T* x) const {
        Vector<T>* rows = room.zeros(in_quads(count_) * pass_.blocks);
        for (int e = 0; e < count_; ++e) load_heads<T>(rows + e * pass_.blocks, x + edges_[e] * job_.heads, job_.heads);
        return rows;
    }

    void add_keys(std::int64_t i) {
        const Vector<T>*c = load(rows_, job_.by_logit), *c_step = nullptr, *query_step = nullptr;
        if (second_) {
            c_step = load(steps_, job_.by_logit_step);
            query_step = pass_.load_query(query_step_, job_.step.query, i, job_.key_channels);
        }
        const Vector<T>* query = pass_.load_query(query_, job_.at.query, i, job_.key_channels);
        sums_.add_keys(edges_, count_, c, query, c_step, query_step);
    }

    // α R W of the batch, and its step.
    void weights() {
        const int blocks = pass_.blocks;
        const Vector<T>*alpha = load(rows_, job_.alpha),
              *alpha_step = second_ ? load(steps_, job_.alpha_step) : nullptr;
        for (int e = 0; e < count_; e += quad) {
            const Quad<T> at = pass_.take(edges_ + e, count_ - e, job_.at);
            for (int b = 0; b < blocks; ++b) {
                typename Pass::Gains g, g_step;
                pass_.clear(g);
                pass_.add_gains(g, pass_.gains.data(), at, b);
                if (second_) {
                    pass_.clear(g_step);
                    pass_.add_gains(g_step, gains_step_.data(), at, b);
                    pass_.add_gains(g_step, pass_.gains.data(), pass_.take(edges_ + e, count_ - e, job_.step), b);
                }
#pragma GCC unroll 4
                for (int k = 0; k < quad; ++k) {
                    const int h = (e + k) * blocks + b, c = (e + k) * pass_.columns + b;
#pragma GCC unroll 8
                    for (int l = 0; l < degrees; ++l) {
                        weight_[c + l * blocks] = alpha[h] * g[k][l];
                        if (second_) {
                            const int place = c + l * blocks;
                            weight_step_[place] = sum_of_products<T>(alpha_step[h], g[k][l], alpha[h], g_step[k][l]);
                        }
                    }
                }
            }
        }
    }

    const NeighborAttention<T>& job_;
    const Pass pass_;
    SenderSums<L, T, N> sums_;
    const bool second_;
    const std::int64_t begin_, end_;
    const int pairs_;
    Vectors<T> tiles_, weight_, weight_step_, gains_step_;
    Scratch<T> query_, query_step_, rows_, steps_;
    std::int64_t edges_[batch];
    int count_ = 0;
};

}  // namespace sdas::SDAS_SIMD
