// Softmax over the neighbors of each node with geometry in the logit: what the kernels take, and the calls that run
// them on the threads of the pool.
//
//   e = q_i · [k_j | Y_ij | R_ij]     u = exp(e) / (exp(s_i) + Σ_j f exp(e))     α = f u
//
// One pass over the receivers gives everything that is summed over neighbors or belongs to an edge; one pass over the
// senders gives the gradient by the keys. The formulas of the derivatives are in ops/edge_softmax/reference.py.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd/simd.h"
#include "system/thread_pool.h"

namespace sdas {

// All arrays are row-major and contiguous, heads innermost; `place` is what harmonics and radial functions are together.
// Pointers that a kernel does not name are unused.
template <class T>
struct EdgeSoftmax {
    std::int64_t nodes, edges;
    int heads, key_channels, places;
    const std::int64_t *receivers, *senders, *row_ptr, *sender_order, *sender_ptr;
    const T *query, *query_step;        // [N, key_channels + places, heads]
    const T *key, *key_step;            // [N, key_channels, heads]
    const T *sink, *sink_step;          // [N, heads]
    const T *place, *place_step;        // [E, places]
    const T *envelope, *envelope_step;  // [E]
    const T* grad;                      // [E, heads]: cotangent of α
    T* alpha;                           // [E, heads]; in a double backward the step of α, cotangent of grad
    T *by_logit, *by_logit_step;        // [E, heads]: cotangents of the logit and of its step
    T* by_query;                        // [N, key_channels + places, heads]
    T* by_key;                          // [N, key_channels, heads]
    T* by_sink;                         // [N, heads]
    T* by_place;                        // [E, places]
    T* by_envelope;                     // [E]
};

#define SDAS_DECLARE_EDGE_SOFTMAX(level)                                                  \
    namespace level {                                                                     \
    template <class T>                                                                    \
    void edge_softmax_forward(const EdgeSoftmax<T>&, std::int64_t, std::int64_t);         \
    template <class T>                                                                    \
    void edge_softmax_backward(const EdgeSoftmax<T>&, std::int64_t, std::int64_t);        \
    template <class T>                                                                    \
    void edge_softmax_double_backward(const EdgeSoftmax<T>&, std::int64_t, std::int64_t); \
    template <class T>                                                                    \
    void edge_softmax_to_senders(const EdgeSoftmax<T>&, std::int64_t, std::int64_t);      \
    }

SDAS_DECLARE_EDGE_SOFTMAX(baseline)
#if defined(__x86_64__)
SDAS_DECLARE_EDGE_SOFTMAX(avx2)
SDAS_DECLARE_EDGE_SOFTMAX(avx512)
#endif
#undef SDAS_DECLARE_EDGE_SOFTMAX

template <class T>
void run(void (*kernel)(const EdgeSoftmax<T>&, std::int64_t, std::int64_t), const EdgeSoftmax<T>& job, int threads) {
    const std::int64_t work = job.edges * job.heads * (job.key_channels + job.places + 16);
    parallel_for(job.nodes, 1, useful_threads(threads, work),
                 [&](std::int64_t begin, std::int64_t end) { kernel(job, begin, end); });
}

// alpha.
template <class T>
void edge_softmax_forward(const EdgeSoftmax<T>& job, int threads) {
    run(SDAS_SELECT(edge_softmax_forward, T), job, threads);
}

// by_logit and the gradients by query, key, sink, place and envelope.
template <class T>
void edge_softmax_backward(const EdgeSoftmax<T>& job, int threads) {
    run(SDAS_SELECT(edge_softmax_backward, T), job, threads);
    run(SDAS_SELECT(edge_softmax_to_senders, T), job, threads);
}

// The same of a backward along the steps, and alpha: the cotangent of grad.
template <class T>
void edge_softmax_double_backward(const EdgeSoftmax<T>& job, int threads) {
    run(SDAS_SELECT(edge_softmax_double_backward, T), job, threads);
    run(SDAS_SELECT(edge_softmax_to_senders, T), job, threads);
}

}  // namespace sdas
