// Kernels of the fused neighbor attention: the forward over receivers here, what derivatives need over receivers and
// over senders in the headers of the same name.
#include "ops/neighbor_attention/neighbor_attention.h"

#include <algorithm>
#include <vector>

#include "ops/neighbor_attention/receivers.h"
#include "ops/neighbor_attention/senders.h"

namespace sdas::SDAS_SIMD {
namespace {

// Calls body(Constant<L>, Constant<N>). In float32, where speed matters most, the usual number of radial functions is
// known at compile time.
template <class T, class Body>
void for_sizes(const NeighborAttention<T>& job, const Body& body) {
    for_lmax(job.lmax, [&](auto lmax) {
        if constexpr (sizeof(T) == sizeof(float)) {
            if (job.radials == 8) return body(lmax, Constant<8>{});
        }
        body(lmax, Constant<0>{});
    });
}

template <int L, class T, int N>
class Forward {
  public:
    using Pass = AttentionPass<L, T, N>;
    static constexpr int M2 = Pass::M2, degrees = Pass::degrees;

    explicit Forward(const NeighborAttention<T>& job)
        : job_(job), pass_(job), softmax_(pass_), tile_(job.m1 * M2), rows_(job.rows) {}

    void receiver(std::int64_t i) {
        first_ = job_.row_ptr[i];
        count_ = job_.row_ptr[i + 1] - first_;
        weights(softmax_.u(i));
        for_channel_blocks<T>(job_.channels, [&](auto block) {
            if (job_.m1 == 1) {
                scalars(block);
            } else {
                if (count_ == 0) std::fill(tile_.begin(), tile_.end(), Vector<T>{});
                outer_products(block);
            }
            couple<T>(job_.out + i * job_.rows * job_.channels + block.first, tile_.data(), rows_.data(), job_, block);
        });
    }

  private:
    // α R W of every edge, [edges in quads, L+1, blocks].
    void weights(const Vector<T>* u) {
        const int blocks = pass_.blocks, columns = pass_.columns;
        Vector<T>* weight = weight_ = weight_room_.room(in_quads(count_) * columns);
        for (std::int64_t e = 0; e < count_; e += quad, u += quad * blocks, weight += quad * columns) {
            const Quad<T> q = pass_.take(first_ + e, count_ - e, job_.at);
            T f[quad];
            for (int k = 0; k < quad; ++k) f[k] = job_.at.envelope[first_ + std::min(e + k, count_ - 1)];
            for (int b = 0; b < blocks; ++b) {
                typename Pass::Gains g;
                pass_.clear(g);
                pass_.add_gains(g, pass_.gains.data(), q, b);
#pragma GCC unroll 4
                for (int k = 0; k < quad; ++k) {
                    const Vector<T> alpha = u[k * blocks + b] * f[k];
#pragma GCC unroll 8
                    for (int l = 0; l < degrees; ++l) weight[k * columns + l * blocks + b] = alpha * g[k][l];
                }
            }
        }
    }

    template <class Block>
    SDAS_INLINE const T* sent(std::int64_t e, Block block) const {
        return job_.at.value + job_.senders[first_ + e] * job_.m1 * job_.channels + block.first;
    }

    void fetch_next(std::int64_t edge) const {
        pass_.fetch_senders(job_.at.value, job_.m1 * job_.channels, edge, chunk);
        pass_.fetch_senders(job_.at.keys, job_.key_channels * pass_.padded, edge + chunk, chunk);
    }

    // tile = Σ_e v_j ⊗ w Y.
    template <class Block>
    SDAS_INLINE void outer_products(Block block) {
        constexpr int most = std::clamp(256 / M2, 8, 28);  // edges whose B stay in the first cache
        Vector<T> b[most * M2];
        const T* v[most];
        for (std::int64_t start = 0, size = 0; start < count_; start += size) {
            const std::int64_t rest = count_ - start;
            size = rest / ((rest + most - 1) / most);
            if (block.index == 0) fetch_next(first_ + start + size);
            for (int k = 0; k < size; ++k) {
                Vector<T> w[degrees];
                pass_.spread(w, weight_ + (start + k) * pass_.columns, block);
                weighted_harmonics<L, T>(b + k * M2, w, job_.at.harmonics + (first_ + start + k) * M2);
                v[k] = sent(start + k, block);
            }
            accumulate_rows<M2, T>(tile_.data(), b, v, static_cast<int>(size), job_, block, start == 0);
        }
    }

    // The same where v_j is one row.
    template <class Block>
    SDAS_INLINE void scalars(Block block) {
        Vector<T> sum[M2] = {};
        for (std::int64_t e = 0; e < count_; ++e) {
            Vector<T> w[degrees];
            pass_.spread(w, weight_ + e * pass_.columns, block);
            const Vector<T> v = block.load(sent(e, block));
            for (int l = 0; l < degrees; ++l) w[l] *= v;
            const T* y = job_.at.harmonics + (first_ + e) * M2;
            for_orders<L>([&](int l, int m) { sum[m] += y[m] * w[l]; });
        }
        std::copy(sum, sum + M2, tile_.begin());
    }

    const NeighborAttention<T>& job_;
    const Pass pass_;
    ReceiverSoftmax<L, T, N> softmax_;
    Vectors<T> tile_, rows_;
    Scratch<T> weight_room_;
    Vector<T>* weight_ = nullptr;
    std::int64_t first_ = 0, count_ = 0;  // edges of the receiver in turn
};

template <class T, bool second>
void to_receivers(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    for_sizes(job, [&](auto lmax, auto radials) {
        ReceiverPass<decltype(lmax)::value, T, decltype(radials)::value, second> receivers(job);
        for (std::int64_t i = begin; i < end; i += job.block) {
            receivers.block(i, std::min(i + job.block, end));
        }
        receivers.finish();
    });
}

}  // namespace

template <class T>
void neighbor_attention_keys(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    const int channels = job.key_channels, padded = job.padded_heads();
    for (const auto* operands : {&job.at, &job.step}) {
        if (operands->keys == nullptr) continue;
        std::fill(operands->keys + begin * channels * padded, operands->keys + end * channels * padded, T(0));
        for (std::int64_t j = begin; j < end; ++j) {
            const T* key = operands->key + j * job.heads * channels;
            T* keys = operands->keys + j * channels * padded;
            if (job.heads_inner) {
                for (int d = 0; d < channels; ++d) std::copy_n(key + d * job.heads, job.heads, keys + d * padded);
            } else {
                transpose_matrix<T>(keys, padded, key, channels, job.heads, channels);
            }
        }
    }
}

template <class T>
void neighbor_attention_forward(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    for_sizes(job, [&](auto lmax, auto radials) {
        Forward<decltype(lmax)::value, T, decltype(radials)::value> forward(job);
        for (std::int64_t i = begin; i < end; ++i) forward.receiver(i);
    });
}

template <class T>
void neighbor_attention_backward(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    to_receivers<T, false>(job, begin, end);
}

template <class T>
void neighbor_attention_double_backward(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    to_receivers<T, true>(job, begin, end);
}

template <class T>
void neighbor_attention_to_senders(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    for_sizes(job, [&](auto lmax, auto radials) {
        SenderPass<decltype(lmax)::value, T, decltype(radials)::value>(job, begin, end).run();
    });
}

#define SDAS_INSTANTIATE(T)                                                                                    \
    template void neighbor_attention_keys(const NeighborAttention<T>&, std::int64_t, std::int64_t);            \
    template void neighbor_attention_forward(const NeighborAttention<T>&, std::int64_t, std::int64_t);         \
    template void neighbor_attention_backward(const NeighborAttention<T>&, std::int64_t, std::int64_t);        \
    template void neighbor_attention_double_backward(const NeighborAttention<T>&, std::int64_t, std::int64_t); \
    template void neighbor_attention_to_senders(const NeighborAttention<T>&, std::int64_t, std::int64_t);
SDAS_INSTANTIATE(float)
SDAS_INSTANTIATE(double)
#undef SDAS_INSTANTIATE

}  // namespace sdas::SDAS_SIMD
