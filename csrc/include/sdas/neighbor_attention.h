// Attention over neighbors whose values are tensor products, fused: what the kernels take, and the calls that run them
// on the threads of the pool.
//
//   e = q_i · [k_j | Y_ij | R_ij]            u = exp(e) / (exp(s_i) + Σ_j f exp(e))      α = f u
//   w = α Σ_n W_n R_n                        A_i = Σ_j v_j ⊗ w Y                         z_i = coupling · A_i
//
// Everything that belongs to a receiver's edges stays in the scratch of the thread that works on that receiver. The
// gradients by values and keys are sums over what a node sends: a second pass, whose threads own ranges of senders,
// goes through the receivers once more and adds to the senders in its range. What it needs of the first pass are α and
// the cotangent of the logit, arrays of [E, heads], and in a double backward their steps. One thread alone adds to the
// senders in its only pass.
//
// Each result is summed in an order that the sizes alone decide: that of the edges, and for the gradient by the radial
// gain blocks of receivers whose partial sums are added in turn. So results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "sdas/coupling.h"
#include "sdas/huge_pages.h"
#include "sdas/simd.h"
#include "sdas/thread_pool.h"

namespace sdas {

// Scratch copies with heads innermost have their heads padded to a multiple of this, the widest vector's.
constexpr int head_padding = 16;

// The operands, or tangents of them, row-major and contiguous. Where heads are innermost, queries and keys, and their
// gradients, have them last.
template <class T>
struct NeighborAttentionOperands {
    const T* query;        // [N, heads, key_channels + M2 + radials]
    const T* key;          // [N, heads, key_channels]
    const T* sink;         // [N, heads]
    const T* value;        // [N, m1, channels]
    const T* radial_gain;  // [heads, L+1, radials]
    const T* harmonics;    // [E, M2]
    const T* radial;       // [E, radials]
    const T* envelope;     // [E]
    T* keys;               // [N, key_channels, padded heads]: the key once more, in scratch, or as it is
};

// L = harmonics' lmax, M2 = (L + 1)².
template <class T>
struct NeighborAttention {
    std::int64_t nodes, edges;
    int lmax, m1, rows, channels, heads, key_channels, radials;
    bool heads_inner, edges_add;
    const std::int64_t *senders, *row_ptr;
    Coupling<T> coupling;
    NeighborAttentionOperands<T> at, step;  // step: the tangents of a double backward
    const T* grad;                          // [N, rows, channels]: cotangent of z
    T* out;                                 // [N, rows, channels]: z; in a double backward the gradient by grad
    // Null where not wanted: query, sink, radial gain; key and value, but only both; harmonics, radial and envelope, but
    // only all three. To these three is added what they hold if `edges_add`.
    T *by_query, *by_key, *by_sink, *by_value, *by_radial_gain, *by_harmonics, *by_radial, *by_envelope;
    // Scratch that one pass leaves to the next, null where there is none.
    T *alpha, *alpha_step, *by_logit, *by_logit_step;  // [E, heads]
    T* by_keys;                                        // [N, key_channels, padded heads]
    T* gain_sums;                                      // [blocks of receivers, heads, L+1, radials]

    int padded_heads() const { return (heads + head_padding - 1) / head_padding * head_padding; }
    std::int64_t places() const { return key_channels + (lmax + 1) * (lmax + 1) + radials; }
    bool keys_as_given() const { return heads_inner && heads == padded_heads(); }
    std::int64_t key_numbers() const { return keys_as_given() ? 0 : nodes * key_channels * padded_heads(); }
    std::int64_t gain_numbers() const { return std::int64_t{heads} * (lmax + 1) * radials; }
    // Receivers whose edges are summed into one row of gain_sums.
    std::int64_t receivers_per_block() const { return std::max<std::int64_t>(8, (nodes + 63) / 64); }
};

#define SDAS_DECLARE_NEIGHBOR_ATTENTION(level)                                                            \
    namespace level {                                                                                     \
    template <class T>                                                                                    \
    void neighbor_attention_keys(const NeighborAttention<T>&, std::int64_t, std::int64_t);                \
    template <class T>                                                                                    \
    void neighbor_attention_forward(const NeighborAttention<T>&, std::int64_t, std::int64_t);             \
    template <class T>                                                                                    \
    void neighbor_attention_backward(const NeighborAttention<T>&, std::int64_t, std::int64_t);            \
    template <class T>                                                                                    \
    void neighbor_attention_double_backward(const NeighborAttention<T>&, std::int64_t, std::int64_t);     \
    template <class T>                                                                                    \
    void neighbor_attention_to_senders(const NeighborAttention<T>&, std::int64_t, std::int64_t);          \
    }

SDAS_DECLARE_NEIGHBOR_ATTENTION(baseline)
#if defined(__x86_64__)
SDAS_DECLARE_NEIGHBOR_ATTENTION(avx2)
SDAS_DECLARE_NEIGHBOR_ATTENTION(avx512)
#endif
#undef SDAS_DECLARE_NEIGHBOR_ATTENTION

// Room for the scratch of one call, not initialized.
template <class T>
class NeighborAttentionScratch {
  public:
    explicit NeighborAttentionScratch(std::int64_t size) : room_(new T[size]), next_(room_.get()) {
        advise_huge_pages(next_, size * sizeof(T));
    }

    T* take(std::int64_t size) {
        T* taken = next_;
        next_ += size;
        return taken;
    }

  private:
    std::unique_ptr<T[]> room_;
    T* next_;
};

// Of `threads`, as many as have enough to do.
template <class T>
int useful_threads(const NeighborAttention<T>& job, int threads) {
    const std::int64_t harmonics = (job.lmax + 1) * (job.lmax + 1);
    const std::int64_t work = job.edges * (job.m1 * harmonics * job.channels + job.heads * (job.places() + 16));
    return useful_threads(static_cast<int>(std::min<std::int64_t>(threads, job.nodes)), work);
}

template <class T>
void run(void (*kernel)(const NeighborAttention<T>&, std::int64_t, std::int64_t), const NeighborAttention<T>& job,
         std::int64_t grain, int threads) {
    parallel_for(job.nodes, grain, useful_threads(job, threads),
                 [&](std::int64_t begin, std::int64_t end) { kernel(job, begin, end); });
}

// The keys of the operands, and of their steps where there are any, as the kernels take them.
template <class T>
void arrange_keys(NeighborAttention<T>& job, NeighborAttentionScratch<T>& scratch, bool second, int threads) {
    for (auto* operands : {&job.at, second ? &job.step : nullptr}) {
        if (operands == nullptr) continue;
        operands->keys = job.keys_as_given() ? const_cast<T*>(operands->key) : scratch.take(job.key_numbers());
    }
    if (!job.keys_as_given()) run(SDAS_SELECT(neighbor_attention_keys, T), job, 1, threads);
}

// out.
template <class T>
void neighbor_attention_forward(const NeighborAttention<T>& given, int threads) {
    NeighborAttention<T> job = given;
    NeighborAttentionScratch<T> scratch(job.key_numbers());
    arrange_keys(job, scratch, false, threads);
    advise_huge_pages(job.out, job.nodes * job.rows * job.channels * sizeof(T));
    run(SDAS_SELECT(neighbor_attention_forward, T), job, 1, threads);
}

// The gradients of a job by its operands, by `receivers` and the pass over senders.
template <class T>
void differentiate(void (*receivers)(const NeighborAttention<T>&, std::int64_t, std::int64_t),
                   const NeighborAttention<T>& given, bool second, int threads) {
    NeighborAttention<T> job = given;
    const bool sends = job.by_value != nullptr, gains = job.by_radial_gain != nullptr;
    const bool passes = sends && useful_threads(job, threads) > 1;  // the senders have a pass of their own
    const std::int64_t per_block = job.receivers_per_block(), blocks = (job.nodes + per_block - 1) / per_block;
    const std::int64_t keys = job.key_numbers(), pairs = job.edges * job.heads, numbers = job.gain_numbers();
    const int orders = second ? 2 : 1;
    NeighborAttentionScratch<T> scratch(orders * keys + sends * keys + passes * orders * 2 * pairs + gains * blocks * numbers);
    arrange_keys(job, scratch, second, threads);
    if (sends) job.by_keys = job.keys_as_given() ? job.by_key : scratch.take(keys);
    if (passes) {
        job.alpha = scratch.take(pairs);
        job.by_logit = scratch.take(pairs);
        if (second) job.alpha_step = scratch.take(pairs);
        if (second) job.by_logit_step = scratch.take(pairs);
    }
    if (gains) job.gain_sums = scratch.take(blocks * numbers);
    if (second) advise_huge_pages(job.out, job.nodes * job.rows * job.channels * sizeof(T));
    run(receivers, job, gains ? per_block : 1, threads);
    if (passes) run(SDAS_SELECT(neighbor_attention_to_senders, T), job, 1, threads);
    if (!gains) return;
    std::fill(job.by_radial_gain, job.by_radial_gain + numbers, T(0));
    for (std::int64_t block = 0; block < blocks; ++block) {
        for (std::int64_t k = 0; k < numbers; ++k) job.by_radial_gain[k] += job.gain_sums[block * numbers + k];
    }
}

// by_query .. by_envelope.
template <class T>
void neighbor_attention_backward(const NeighborAttention<T>& job, int threads) {
    differentiate(SDAS_SELECT(neighbor_attention_backward, T), job, false, threads);
}

// The gradients of <steps, backward>: by grad (`out`), by_query .. by_envelope.
template <class T>
void neighbor_attention_double_backward(const NeighborAttention<T>& job, int threads) {
    differentiate(SDAS_SELECT(neighbor_attention_double_backward, T), job, true, threads);
}

}  // namespace sdas
