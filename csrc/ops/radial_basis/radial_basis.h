// Bessel functions times a polynomial envelope, and the envelope by itself, of many lengths: what the kernels take, and
// the call that runs them on the threads of the pool. The formulas are in cpu/radial_basis.cpp.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd/simd.h"
#include "system/thread_pool.h"

namespace sdas {

// All arrays are row-major and contiguous. Pointers that a kernel does not name are unused; those of the envelope may be
// null, where it is not wanted or has no cotangent.
template <class T>
struct RadialBasis {
    std::int64_t count;      // number of lengths
    int functions;           // n, at least 1
    int exponent;            // p of the envelope, at least 3
    double cutoff;           // Å
    const T* lengths;        // [count] Å
    const T* grad;           // [count, n] backward, double_backward: cotangent of the functions
    const T* grad_envelope;  // [count] likewise, of the envelope; or null
    const T* grad_grad;      // [count] double_backward: cotangent of the gradient
    T* radial;               // [count, n] forward: the functions; double_backward: the cotangent of grad
    T* envelope;             // [count] forward: the envelope; double_backward: the cotangent of grad_envelope; or null
    T* by_lengths;           // [count] backward: cotangent of the lengths; double_backward: likewise
};

#define SDAS_DECLARE_RADIAL_BASIS(level)                                                            \
    namespace level {                                                                               \
    template <class T>                                                                              \
    void radial_basis_forward(const RadialBasis<T>&, std::int64_t begin, std::int64_t end);         \
    template <class T>                                                                              \
    void radial_basis_backward(const RadialBasis<T>&, std::int64_t begin, std::int64_t end);        \
    template <class T>                                                                              \
    void radial_basis_double_backward(const RadialBasis<T>&, std::int64_t begin, std::int64_t end); \
    }

SDAS_DECLARE_RADIAL_BASIS(baseline)
#if defined(__x86_64__)
SDAS_DECLARE_RADIAL_BASIS(avx2)
SDAS_DECLARE_RADIAL_BASIS(avx512)
#endif
#undef SDAS_DECLARE_RADIAL_BASIS

// Runs a kernel on `threads` threads.
template <class T>
void run(void (*kernel)(const RadialBasis<T>&, std::int64_t, std::int64_t), const RadialBasis<T>& job, int threads) {
    constexpr std::int64_t work = 8;  // of a function of one length
    parallel_for(job.count, 64, useful_threads(threads, job.count * job.functions * work),
                 [&](std::int64_t begin, std::int64_t end) { kernel(job, begin, end); });
}

template <class T>
void radial_basis_forward(const RadialBasis<T>& job, int threads) {
    run(SDAS_SELECT(radial_basis_forward, T), job, threads);
}

template <class T>
void radial_basis_backward(const RadialBasis<T>& job, int threads) {
    run(SDAS_SELECT(radial_basis_backward, T), job, threads);
}

template <class T>
void radial_basis_double_backward(const RadialBasis<T>& job, int threads) {
    run(SDAS_SELECT(radial_basis_double_backward, T), job, threads);
}

}  // namespace sdas
