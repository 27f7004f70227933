// Kernels of the fused neighbor attention: the forward over receivers here, what derivatives need over receivers and
// over senders in the headers of the same name.
#include "sdas/neighbor_attention.h"

#include <vector>

#include "sdas/neighbor_attention_receivers.h"
#include "sdas/neighbor_attention_senders.h"

namespace sdas::SDAS_SIMD {
namespace {

template <int L, class T>
void forward(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    using Pass = AttentionPass<L, T>;
    constexpr int M2 = Pass::M2, degrees = Pass::degrees;
    const Pass pass(job);
    ReceiverSoftmax<L, T> softmax(pass);
    Scratch<T> weights;
    std::vector<Vector<T>> tile(job.m1 * M2), b(chunk * M2);
    const T* sent[chunk];
    for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = job.row_ptr[i], count = job.row_ptr[i + 1] - first;
        const Vector<T>* u = softmax.u(i);
        Vector<T>* weight = weights.zeros(count * pass.columns);
        add_product<T>(weight, pass.columns, Pass::rows_of(job.at.radial + first * job.radials, job.radials), count,
                       job.radials, pass.gains.data());
        for (std::int64_t e = 0; e < count; ++e) {
            for (int k = 0; k < pass.blocks; ++k) {
                const Vector<T> alpha = u[e * pass.blocks + k] * job.at.envelope[first + e];
                for (int l = 0; l < degrees; ++l) weight[e * pass.columns + l * pass.blocks + k] *= alpha;
            }
        }
        for_channel_blocks<T>(job.channels, [&](auto block) {
            std::fill(tile.begin(), tile.end(), Vector<T>{});
            for (std::int64_t start = 0; start < count; start += chunk) {
                const int size = static_cast<int>(std::min<std::int64_t>(chunk, count - start));
                for (int e = 0; e < size; ++e) {
                    Vector<T> w[degrees];
                    pass.spread(w, weight + (start + e) * pass.columns, block);
                    weighted_harmonics<L, T>(b.data() + e * M2, w, job.at.harmonics + (first + start + e) * M2);
                    sent[e] = job.at.value + job.senders[first + start + e] * job.m1 * job.channels + block.first;
                }
                accumulate_rows<M2, T>(tile.data(), b.data(), sent, size, job, block);
            }
            couple<T>(job.out + i * job.rows * job.channels + block.first, tile.data(), job, block);
        });
    }
}

template <int L, class T, bool second>
void to_receivers(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    const AttentionPass<L, T> pass(job);
    ReceiverPass<L, T, second> receivers(pass);
    for (const std::int64_t size = job.receivers_per_block(); begin < end; begin += size) {
        receivers.block(begin, std::min(begin + size, end));
    }
}

}  // namespace

template <class T>
void neighbor_attention_keys(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    const int channels = job.key_channels, padded = job.padded_heads();
    for (const auto* operands : {&job.at, &job.step}) {
        if (operands->keys == nullptr) continue;
        std::fill(operands->keys + begin * channels * padded, operands->keys + end * channels * padded, T(0));
        for (std::int64_t j = begin; j < end; ++j) {
            heads_innermost(operands->keys + j * channels * padded, padded, operands->key + j * job.heads * channels,
                            job.heads, channels, channels);
        }
    }
}

template <class T>
void neighbor_attention_forward(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    for_lmax(job.lmax, [&](auto lmax) { forward<decltype(lmax)::value, T>(job, begin, end); });
}

template <class T>
void neighbor_attention_backward(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    for_lmax(job.lmax, [&](auto lmax) { to_receivers<decltype(lmax)::value, T, false>(job, begin, end); });
}

template <class T>
void neighbor_attention_double_backward(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    for_lmax(job.lmax, [&](auto lmax) { to_receivers<decltype(lmax)::value, T, true>(job, begin, end); });
}

template <class T>
void neighbor_attention_to_senders(const NeighborAttention<T>& job, std::int64_t begin, std::int64_t end) {
    for_lmax(job.lmax, [&](auto lmax) {
        const AttentionPass<decltype(lmax)::value, T> pass(job);
        SenderPass<decltype(lmax)::value, T>(pass, begin, end).run();
    });
}

#define SDAS_INSTANTIATE(T)                                                                                     \
    template void neighbor_attention_keys(const NeighborAttention<T>&, std::int64_t, std::int64_t);             \
    template void neighbor_attention_forward(const NeighborAttention<T>&, std::int64_t, std::int64_t);          \
    template void neighbor_attention_backward(const NeighborAttention<T>&, std::int64_t, std::int64_t);         \
    template void neighbor_attention_double_backward(const NeighborAttention<T>&, std::int64_t, std::int64_t);  \
    template void neighbor_attention_to_senders(const NeighborAttention<T>&, std::int64_t, std::int64_t);
SDAS_INSTANTIATE(float)
SDAS_INSTANTIATE(double)
#undef SDAS_INSTANTIATE

}  // namespace sdas::SDAS_SIMD
