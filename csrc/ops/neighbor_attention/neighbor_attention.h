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
// senders in its only pass. In a small system that pass would take longer than what it spares: there each part of the
// receivers makes sums of its own, and the parts are added.
//
// Each result is summed in an order that the sizes alone decide: that of the edges, or of the parts' edges, and for the
// gradient by the radial gain blocks of receivers whose partial sums are added in turn. So results do not depend on the
// number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "ops/neighbor_tensor_product/coupling.h"
#include "simd/simd.h"
#include "system/huge_pages.h"
#include "system/thread_pool.h"

namespace sdas {

// Scratch copies with heads innermost have their heads padded to a multiple of this, the widest vector's.
constexpr int head_padding = 16;

// Nodes of a small system at most, and into how many parts its receivers are cut.
constexpr int neighbor_attention_small = 256, neighbor_attention_parts = 2;

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
    std::int64_t block;                                // receivers whose edges are summed into one row of gain_sums

    int padded_heads() const { return (heads + head_padding - 1) / head_padding * head_padding; }
    std::int64_t places() const { return key_channels + (lmax + 1) * (lmax + 1) + radials; }
    bool keys_as_given() const { return heads_inner && heads == padded_heads(); }
    std::int64_t key_numbers() const { return keys_as_given() ? 0 : nodes * key_channels * padded_heads(); }
    std::int64_t gain_numbers() const { return std::int64_t{heads} * (lmax + 1) * radials; }
};

#define SDAS_DECLARE_NEIGHBOR_ATTENTION(level)                                                        \
    namespace level {                                                                                 \
    template <class T>                                                                                \
    void neighbor_attention_keys(const NeighborAttention<T>&, std::int64_t, std::int64_t);            \
    template <class T>                                                                                \
    void neighbor_attention_forward(const NeighborAttention<T>&, std::int64_t, std::int64_t);         \
    template <class T>                                                                                \
    void neighbor_attention_backward(const NeighborAttention<T>&, std::int64_t, std::int64_t);        \
    template <class T>                                                                                \
    void neighbor_attention_double_backward(const NeighborAttention<T>&, std::int64_t, std::int64_t); \
    template <class T>                                                                                \
    void neighbor_attention_to_senders(const NeighborAttention<T>&, std::int64_t, std::int64_t);      \
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
using NeighborAttentionKernel = void (*)(const NeighborAttention<T>&, std::int64_t, std::int64_t);

// The first receiver of part i of `parts` with about as many edges each, a multiple of `grain`; behind the last part, N.
template <class T>
std::int64_t first_of_part(const NeighborAttention<T>& job, std::int64_t i, std::int64_t parts, std::int64_t grain) {
    if (i == parts) return job.nodes;
    return (std::lower_bound(job.row_ptr, job.row_ptr + job.nodes, job.edges * i / parts) - job.row_ptr) / grain *
           grain;
}

template <class T>
void run(NeighborAttentionKernel<T> kernel, const NeighborAttention<T>& job, std::int64_t grain, int threads) {
    const int parts = useful_threads(job, threads);
    parallel_for(parts, 1, parts, [&](std::int64_t begin, std::int64_t end) {
        kernel(job, first_of_part(job, begin, parts, grain), first_of_part(job, end, parts, grain));
    });
}

// The keys of the operands, and of their steps where there are any, as the kernels take them.
template <class T>
void arrange_keys(NeighborAttention<T>& job, NeighborAttentionScratch<T>& scratch, bool second, int threads) {
    const auto keys = [&](const T* given) {
        return job.keys_as_given() ? const_cast<T*>(given) : scratch.take(job.key_numbers());
    };
    job.at.keys = keys(job.at.key);
    if (second) job.step.keys = keys(job.step.key);
    if (!job.keys_as_given()) run<T>(SDAS_SELECT(neighbor_attention_keys, T), job, 1, threads);
}

// out.
template <class T>
void neighbor_attention_forward(const NeighborAttention<T>& given, int threads) {
    NeighborAttention<T> job = given;
    NeighborAttentionScratch<T> scratch(job.key_numbers());
    arrange_keys(job, scratch, false, threads);
    advise_huge_pages(job.out, job.nodes * job.rows * job.channels * sizeof(T));
    run<T>(SDAS_SELECT(neighbor_attention_forward, T), job, 1, threads);
}

// sum += parts 1 .. of the same size.
template <class T>
void add_parts(T* sum, const std::vector<const T*>& parts, std::int64_t numbers, int threads) {
    parallel_for(numbers, 16, useful_threads(threads, 8 * numbers), [&](std::int64_t begin, std::int64_t end) {
        for (const T* part : parts) {
            for (std::int64_t k = begin; k < end; ++k) sum[k] += part[k];
        }
    });
}

// The gradients of a small system: see above.
template <class T>
void differentiate_in_parts(NeighborAttentionKernel<T> receivers, NeighborAttention<T> job,
                            NeighborAttentionScratch<T>& scratch, int threads) {
    constexpr int parts = neighbor_attention_parts;
    const std::int64_t values = job.nodes * job.m1 * job.channels, keys = job.nodes * job.heads * job.key_channels;
    const std::int64_t numbers = job.gain_numbers();
    job.block = std::max<std::int64_t>(1, job.nodes);
    std::vector<NeighborAttention<T>> of(parts, job);
    std::vector<const T*> more_values, more_keys, more_gains;
    const bool sends = job.by_value != nullptr, gains = job.by_radial_gain != nullptr;
    for (int p = 0; p < parts; ++p) {
        if (sends && p > 0) {
            more_values.push_back(of[p].by_value = scratch.take(values));
            more_keys.push_back(of[p].by_key = scratch.take(keys));
        }
        if (sends) of[p].by_keys = job.keys_as_given() ? of[p].by_key : scratch.take(job.key_numbers());
        if (!gains) continue;
        more_gains.push_back(of[p].gain_sums = scratch.take(numbers));
        std::fill_n(of[p].gain_sums, numbers, T(0));
    }
    parallel_for(parts, 1, useful_threads(job, threads), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t p = begin; p < end; ++p) {
            receivers(of[p], first_of_part(job, p, parts, 1), first_of_part(job, p + 1, parts, 1));
        }
    });
    if (sends) {
        add_parts(job.by_value, more_values, values, threads);
        add_parts(job.by_key, more_keys, keys, threads);
    }
    if (!gains) return;
    std::fill_n(job.by_radial_gain, numbers, T(0));
    add_parts(job.by_radial_gain, more_gains, numbers, 1);
}

// The gradients of a job by its operands, by `receivers` and the pass over senders.
template <class T>
void differentiate(NeighborAttentionKernel<T> receivers, const NeighborAttention<T>& given, bool second, int threads) {
    NeighborAttention<T> job = given;
    const bool sends = job.by_value != nullptr, gains = job.by_radial_gain != nullptr;
    const bool in_parts = (sends || gains) && job.nodes <= neighbor_attention_small;
    const bool passes = sends && !in_parts && useful_threads(job, threads) > 1;  // the senders have a pass of their own
    job.block = std::max<std::int64_t>(8, (job.nodes + 63) / 64);
    const std::int64_t blocks = (job.nodes + job.block - 1) / job.block;
    const std::int64_t keys = job.key_numbers(), pairs = job.edges * job.heads, numbers = job.gain_numbers();
    const std::int64_t orders = second ? 2 : 1;
    std::int64_t size = orders * keys + passes * orders * 2 * pairs;
    if (in_parts) {
        const std::int64_t sums = job.nodes * (job.m1 * job.channels + job.heads * job.key_channels);
        size += (neighbor_attention_parts - 1) * sums + neighbor_attention_parts * (keys + gains * numbers);
    } else {
        size += sends * keys + gains * blocks * numbers;
    }
    NeighborAttentionScratch<T> scratch(size);
    arrange_keys(job, scratch, second, threads);
    if (second) advise_huge_pages(job.out, job.nodes * job.rows * job.channels * sizeof(T));
    if (in_parts) return differentiate_in_parts(receivers, job, scratch, threads);
    if (sends) job.by_keys = job.keys_as_given() ? job.by_key : scratch.take(keys);
    if (passes) {
        job.alpha = scratch.take(pairs);
        job.by_logit = scratch.take(pairs);
        if (second) job.alpha_step = scratch.take(pairs);
        if (second) job.by_logit_step = scratch.take(pairs);
    }
    if (gains) job.gain_sums = scratch.take(blocks * numbers);
    run<T>(receivers, job, gains ? job.block : 1, threads);
    if (passes) run<T>(SDAS_SELECT(neighbor_attention_to_senders, T), job, 1, threads);
    if (!gains) return;
    std::fill(job.by_radial_gain, job.by_radial_gain + numbers, T(0));
    for (std::int64_t block = 0; block < blocks; ++block) {
        for (std::int64_t k = 0; k < numbers; ++k) job.by_radial_gain[k] += job.gain_sums[block * numbers + k];
    }
}

// by_query .. by_envelope.
template <class T>
void neighbor_attention_backward(const NeighborAttention<T>& job, int threads) {
    differentiate<T>(SDAS_SELECT(neighbor_attention_backward, T), job, false, threads);
}

// The gradients of <steps, backward>: by grad (`out`), by_query .. by_envelope.
template <class T>
void neighbor_attention_double_backward(const NeighborAttention<T>& job, int threads) {
    differentiate<T>(SDAS_SELECT(neighbor_attention_double_backward, T), job, true, threads);
}

}  // namespace sdas
