// Real spherical harmonics of many vectors: what the kernels take, and the call that runs them on the
// threads of the pool. The formulas are in solid_harmonics.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd/simd.h"
#include "system/huge_pages.h"
#include "system/thread_pool.h"

namespace sdas {

// The largest degree with kernels. Builds under a sanitizer lower it, since they compile slowly.
#ifndef SDAS_MAX_DEGREE
#define SDAS_MAX_DEGREE 8
#endif
constexpr int spherical_harmonics_max_degree = SDAS_MAX_DEGREE;

// All arrays are row-major and contiguous; M = (lmax + 1)². Pointers that a kernel does not name are unused.
template <class T>
struct SphericalHarmonics {
    std::int64_t count;  // number of vectors
    int lmax;            // largest degree, from 0 to spherical_harmonics_max_degree
    bool normalize;      // whether the vectors are divided by their lengths
    const T* scale;      // [(lmax + 1)(lmax + 2) / 2] factors F_lm, see solid_harmonics.h
    const T* vectors;    // [count, 3]
    const T* grad;       // [count, M] backward, double_backward: cotangent of the harmonics
    const T* grad_grad;  // [count, 3] double_backward: cotangent of the gradient
    T* harmonics;        // [count, M] forward: the values; double_backward: the cotangent of grad
    T* gradient;         // [count, 3] backward: cotangent of the vectors; double_backward: likewise
};

#define SDAS_DECLARE_SPHERICAL_HARMONICS(level)                                                                   \
    namespace level {                                                                                             \
    template <class T>                                                                                            \
    void spherical_harmonics_forward(const SphericalHarmonics<T>&, std::int64_t begin, std::int64_t end);         \
    template <class T>                                                                                            \
    void spherical_harmonics_backward(const SphericalHarmonics<T>&, std::int64_t begin, std::int64_t end);        \
    template <class T>                                                                                            \
    void spherical_harmonics_double_backward(const SphericalHarmonics<T>&, std::int64_t begin, std::int64_t end); \
    }

SDAS_DECLARE_SPHERICAL_HARMONICS(baseline)
#if defined(__x86_64__)
SDAS_DECLARE_SPHERICAL_HARMONICS(avx2)
SDAS_DECLARE_SPHERICAL_HARMONICS(avx512)
#endif
#undef SDAS_DECLARE_SPHERICAL_HARMONICS

// Runs a kernel on `threads` threads.
template <class T>
void run(void (*kernel)(const SphericalHarmonics<T>&, std::int64_t, std::int64_t), const SphericalHarmonics<T>& job,
         int threads) {
    const std::int64_t numbers = job.count * (job.lmax + 1) * (job.lmax + 1);
    if (job.harmonics != nullptr) advise_huge_pages(job.harmonics, numbers * sizeof(T));
    parallel_for(job.count, 64, useful_threads(threads, 4 * numbers),
                 [&](std::int64_t begin, std::int64_t end) { kernel(job, begin, end); });
}

template <class T>
void spherical_harmonics_forward(const SphericalHarmonics<T>& job, int threads) {
    run(SDAS_SELECT(spherical_harmonics_forward, T), job, threads);
}

template <class T>
void spherical_harmonics_backward(const SphericalHarmonics<T>& job, int threads) {
    run(SDAS_SELECT(spherical_harmonics_backward, T), job, threads);
}

template <class T>
void spherical_harmonics_double_backward(const SphericalHarmonics<T>& job, int threads) {
    run(SDAS_SELECT(spherical_harmonics_double_backward, T), job, threads);
}

}  // namespace sdas
