// Exponential function of a vector register. Included only by kernel files, like vector.h.
#pragma once

#include <cstdint>

#include "sdas/vector.h"

namespace sdas::SDAS_SIMD {

// Limits of the argument, the halves of ln 2, and the degree of the Taylor polynomial that reaches half an ulp on
// |r| <= ln(2) / 2.
template <class T>
struct Exponential;
template <>
struct Exponential<float> {
    static constexpr float least = -87.0f, most = 88.0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr int degree = 7, mantissa = 23, bias = 127;
};
template <>
struct Exponential<double> {
    static constexpr double least = -708.0, most = 709.0, ln2_high = 6.93145751953125e-1,
                            ln2_low = 1.42860682030941723212e-6;
    static constexpr int degree = 13, mantissa = 52, bias = 1023;
};

// exp(x) = 2^n exp(r), n the integer nearest to x / ln 2; zero where x is below the smallest normal result's logarithm.
template <class T>
SDAS_INLINE Vector<T> exponential(Vector<T> x) {
    using V = Vector<T>;
    using E = Exponential<T>;
    using Integers = typename Simd<T>::Mask;
    const auto vanishes = x < E::least;
    x = select<T>(x > E::most, V{} + E::most, select<T>(vanishes, V{}, x));
    const V scaled = x * T(1.44269504088896340736);
    const Integers n = __builtin_convertvector(scaled + select<T>(scaled < 0, V{} - T(0.5), V{} + T(0.5)), Integers);
    const V whole = __builtin_convertvector(n, V);
    const V r = x - whole * E::ln2_high - whole * E::ln2_low;
    V sum = V{} + 1;
    for (int k = E::degree; k > 0; --k) sum = 1 + sum * r * (T(1) / k);
    const Integers power = (n + E::bias) << E::mantissa;
    return select<T>(vanishes, V{}, sum * reinterpret_cast<V>(power));
}

}  // namespace sdas::SDAS_SIMD
