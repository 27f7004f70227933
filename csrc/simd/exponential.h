// Exponential function of a vector register. Included only by kernel files, like vector.h.
#pragma once

#include <cstdint>

#include "simd/vector.h"

namespace sdas::SDAS_SIMD {

// Limits of the argument, the halves of ln 2, the degree of the Taylor polynomial that reaches half an ulp on
// |r| <= ln(2) / 2, and a number whose neighbors are 1 apart, so that adding it rounds to an integer in its last bits.
template <class T>
struct Exponential;
template <>
struct Exponential<float> {
    static constexpr float least = -87.0f, most = 88.0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr float rounding = 0x1.8p23f;
    static constexpr int degree = 7, mantissa = 23, bias = 127;
};
template <>
struct Exponential<double> {
    static constexpr double least = -708.0, most = 709.0, ln2_high = 6.93145751953125e-1,
                            ln2_low = 1.42860682030941723212e-6;
    static constexpr double rounding = 0x1.8p52;
    static constexpr int degree = 13, mantissa = 52, bias = 1023;
};

template <class T>
constexpr T inverse_factorial(int k) {
    return k < 2 ? T(1) : inverse_factorial<T>(k - 1) / k;
}

// exp(x) = 2^n exp(r), n the integer nearest to x / ln 2; zero where x is below the smallest normal result's logarithm.
template <class T>
SDAS_INLINE Vector<T> exponential(Vector<T> x) {
    using V = Vector<T>;
    using E = Exponential<T>;
    using Integers = typename Simd<T>::Mask;
    const auto vanishes = x < E::least;
    x = select<T>(x > E::most, V{} + E::most, x);
    const V shifted = x * T(1.44269504088896340736) + E::rounding;
    const V whole = shifted - E::rounding;
    const V r = x - whole * E::ln2_high - whole * E::ln2_low;
    V sum = V{} + inverse_factorial<T>(E::degree);
#pragma GCC unroll 16
    for (int k = E::degree - 1; k >= 0; --k) sum = sum * r + inverse_factorial<T>(k);
    const Integers power = (reinterpret_cast<Integers>(shifted) + E::bias) << E::mantissa;
    return select<T>(vanishes, V{}, sum * reinterpret_cast<V>(power));
}

}  // namespace sdas::SDAS_SIMD
