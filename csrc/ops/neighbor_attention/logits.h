// A receiver's attention weights α, and what becomes of their cotangents: those of the logits, and through them of query,
// key, sink, harmonics, radial basis and envelope. Included only by kernel files, like vector.h.
#pragma once

#include <optional>
#include <vector>

#include "ops/neighbor_attention/senders.h"
#include "simd/vector_products.h"

namespace sdas::SDAS_SIMD {

template <int L, class T, int N, bool second>
class ReceiverLogits {
  public:
    using Pass = AttentionPass<L, T, N>;
    using Operands = NeighborAttentionOperands<T>;
    static constexpr int M2 = Pass::M2;

    explicit ReceiverLogits(const NeighborAttention<T>& job)
        : job_(job),
          pass_(job),
          softmax_(pass_),
          to_edges_(job.by_harmonics != nullptr),
          query_harmonics_(job.heads, M2),
          query_radial_(job.heads, pass_.radials()) {
        if (job.by_keys != nullptr && job.alpha == nullptr) senders_.emplace(pass_, 0, job.nodes);
    }

    // After all receivers.
    void finish() const {
        if (senders_) senders_->finish();
    }

  protected:
    // u and α of every edge, and their steps.
    void attention(std::int64_t i) {
        const int blocks = pass_.blocks, heads = job_.heads;
        u_ = softmax_.u(i);
        alpha_ = alpha_room_[0].room(in_quads(count_) * blocks);
        by_alpha_ = by_alpha_room_[0].room(count_ * blocks);
        if constexpr (second) {
            by_alpha_step_ = by_alpha_room_[1].room(count_ * blocks);
            step_alpha(i);
        }
        for (std::int64_t e = 0; e < count_; ++e) {
            const T f = job_.at.envelope[first_ + e];
            for (int b = 0; b < blocks; ++b) alpha_[e * blocks + b] = u_[e * blocks + b] * f;
            if (job_.alpha == nullptr) continue;
            store_heads(job_.alpha + (first_ + e) * heads, alpha_ + e * blocks, heads);
            if constexpr (second) {
                store_heads(job_.alpha_step + (first_ + e) * heads, alpha_step_ + e * blocks, heads);
            }
        }
    }

    // From by α: by logit and its step, and through them by query, sink, harmonics, radial and envelope.
    void by_logits(std::int64_t i) {
        const int blocks = pass_.blocks, heads = job_.heads, places = static_cast<int>(job_.places());
        Vector<T>*by_query = by_query_room_.zeros(places * blocks), *by_sink = by_sink_room_.room(blocks);
        Vector<T>* lanes_envelope = lanes_envelope_.zeros(count_);
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
        spread_logits(i, by_query, by_alpha_, job_.at);
        if constexpr (second) spread_logits(i, by_query, by_alpha_step_, job_.step);
        if (senders_) {
            senders_->add_keys(edges_.data(), count_, by_alpha_, softmax_.query, by_alpha_step_, query_step_);
        }
        for (std::int64_t e = 0; job_.by_logit != nullptr && e < count_; ++e) {
            store_heads(job_.by_logit + (first_ + e) * heads, by_alpha_ + e * blocks, heads);
            if constexpr (second) {
                store_heads(job_.by_logit_step + (first_ + e) * heads, by_alpha_step_ + e * blocks, heads);
            }
        }
        if (to_edges_) store_totals<T>(job_.by_envelope + first_, lanes_envelope, count_, job_.edges_add);
        if (job_.by_sink != nullptr) store_heads(job_.by_sink + i * heads, by_sink, heads);
        if (job_.by_query == nullptr) return;
        pass_.store_places(job_.by_query, i, reinterpret_cast<const T*>(by_query), pass_.row(), places);
    }

    const NeighborAttention<T>& job_;
    const Pass pass_;
    ReceiverSoftmax<L, T, N> softmax_;
    const bool to_edges_;  // whether what belongs to edges is wanted
    std::optional<SenderSums<L, T, N>> senders_;
    std::vector<std::int64_t> edges_;     // all edges of the receiver in turn, for the senders
    std::int64_t first_ = 0, count_ = 0;  // the first of them, and how many
    Vector<T>*u_ = nullptr, *alpha_ = nullptr, *alpha_step_ = nullptr;  // [count, blocks of heads]
    Vector<T>*by_alpha_ = nullptr, *by_alpha_step_ = nullptr;

  private:
    // The step of the logit, ė, and of α: u (ė f + ḟ) - α drift.
    void step_alpha(std::int64_t i) {
        const int blocks = pass_.blocks;
        query_step_ = pass_.load_query(query_step_room_, job_.step.query, i, static_cast<int>(job_.places()));
        logit_step_ = logit_step_room_.zeros(in_quads(count_) * blocks);
        softmax_.add_logits(logit_step_, query_step_, job_.at, first_, count_);
        softmax_.add_logits(logit_step_, softmax_.query, job_.step, first_, count_);
        alpha_step_ = alpha_room_[1].room(in_quads(count_) * blocks);
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

    // by harmonics and radial += c · query.
    void add_to_edges(const T* query, const T* c) {
        const int places = static_cast<int>(job_.places()), channels = job_.key_channels, n = pass_.radials();
        if (job_.heads_inner) {
            T* heads_outer = heads_outer_.numbers(job_.heads * places);
            transpose_matrix<T>(heads_outer, places, query, job_.heads, places, job_.heads);
            query = heads_outer;
        }
        query_harmonics_.fill(query + channels, places);
        query_harmonics_.multiply(job_.by_harmonics + first_ * M2, c, pass_.row(), count_, true);
        query_radial_.fill(query + channels + M2, places);
        query_radial_.multiply(job_.by_radial + first_ * n, c, pass_.row(), count_, true);
    }

    // by_query += Σ_e c [key | harmonics | radial]; by harmonics and radial += c · query.
    void spread_logits(std::int64_t i, Vector<T>* by_query, const Vector<T>* c, const Operands& target) {
        const int blocks = pass_.blocks, channels = job_.key_channels, n = pass_.radials();
        const std::int64_t places = job_.places();
        if (to_edges_) add_to_edges(target.query + i * job_.heads * places, reinterpret_cast<const T*>(c));
        if (job_.by_query == nullptr) return;
        for (int d = 0; d < channels; ++d) {
            for (int b = 0; b < blocks; ++b) {
                const T* key = target.keys + d * pass_.padded + b * width<T>;
                Vector<T> sum{};
                for (std::int64_t e = 0; e < count_; ++e) {
                    sum += c[e * blocks + b] * load<T>(key + job_.senders[first_ + e] * channels * pass_.padded);
                }
                by_query[d * blocks + b] += sum;
            }
        }
        by_query += channels * blocks;
        add_edges<T>(by_query, target.harmonics + first_ * M2, M2, c, blocks, count_);
        by_query += M2 * blocks;
        add_edges<T>(by_query, target.radial + first_ * n, n, c, blocks, count_);
    }

    NarrowMatrix<T> query_harmonics_, query_radial_;
    Vectors<T> sink_step_, drift_;
    Scratch<T> alpha_room_[2], by_alpha_room_[2], lanes_envelope_, by_query_room_, by_sink_room_, query_step_room_;
    Scratch<T> logit_step_room_, heads_outer_;
    Vector<T>*logit_step_ = nullptr, *query_step_ = nullptr;
};

}  // namespace sdas::SDAS_SIMD
