// Choice of the SIMD level at run time.
//
// Each kernel file is compiled once per level into the namespace sdas::<level>. The level is the widest
// that this processor has, or the one that the environment variable SDAS_KERNELS_SIMD names.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace sdas {

enum class Simd { baseline, avx2, avx512 };

inline const char* name(Simd level) {
    switch (level) {
        case Simd::avx512: return "avx512";
        case Simd::avx2: return "avx2";
        default: return "baseline";
    }
}

inline Simd widest_simd() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw")) {
        return Simd::avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return Simd::avx2;
    }
#endif
    return Simd::baseline;
}

// Throws std::runtime_error when the environment asks for a level that does not exist or that this
// processor lacks.
inline Simd choose_simd() {
    const Simd widest = widest_simd();
    const char* wanted = std::getenv("SDAS_KERNELS_SIMD");
    if (wanted == nullptr || *wanted == '\0') {
        return widest;
    }
    for (Simd level : {Simd::baseline, Simd::avx2, Simd::avx512}) {
        if (std::string(wanted) == name(level)) {
            if (level > widest) {
                throw std::runtime_error(std::string("SDAS_KERNELS_SIMD=") + wanted +
                                         ": this processor supports no more than " + name(widest));
            }
            return level;
        }
    }
    throw std::runtime_error(std::string("SDAS_KERNELS_SIMD=") + wanted + ": want baseline, avx2 or avx512");
}

inline Simd simd() {
    static const Simd level = choose_simd();
    return level;
}

}  // namespace sdas

// Address of a kernel in the namespace of the chosen level.
#if defined(__x86_64__)
#define SDAS_SELECT(operator_name, T)                   \
    (simd() == Simd::avx512 ? &avx512::operator_name<T> \
     : simd() == Simd::avx2 ? &avx2::operator_name<T>   \
                            : &baseline::operator_name<T>)
#else
#define SDAS_SELECT(operator_name, T) (&baseline::operator_name<T>)
#endif
