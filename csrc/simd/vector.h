// Vectors of one SIMD level: arithmetic by the compiler's vector extensions, moves between them and
// row-major memory by shuffles. Included only by kernel files, which are compiled once per level, so
// everything lives in the namespace sdas::SDAS_SIMD and nothing is shared between levels.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define SDAS_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define SDAS_VECTOR_BYTES 32
#else
#define SDAS_VECTOR_BYTES 16
#endif

#define SDAS_INLINE inline __attribute__((always_inline))

namespace sdas::SDAS_SIMD {

template <class T>
struct Simd;

template <>
struct Simd<float> {
    typedef float V __attribute__((vector_size(SDAS_VECTOR_BYTES)));
    typedef float Lane __attribute__((vector_size(16)));
    typedef std::int32_t Mask __attribute__((vector_size(SDAS_VECTOR_BYTES)));
};

template <>
struct Simd<double> {
    typedef double V __attribute__((vector_size(SDAS_VECTOR_BYTES)));
    typedef double Lane __attribute__((vector_size(16)));
    typedef std::int64_t Mask __attribute__((vector_size(SDAS_VECTOR_BYTES)));
};

template <class T>
using Vector = typename Simd<T>::V;

// Number of elements of a vector, and of one of its 16-byte lanes.
template <class T>
constexpr int width = SDAS_VECTOR_BYTES / sizeof(T);
template <class T>
constexpr int lane_width = 16 / sizeof(T);

template <int n>
struct Constant {
    static constexpr int value = n;
};

template <class T>
SDAS_INLINE Vector<T> load(const T* p) {
    Vector<T> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
SDAS_INLINE void store(T* p, Vector<T> v) {
    std::memcpy(p, &v, sizeof v);
}

// The same number in every element. (0 + x would not be the same as x for a zero of x's sign, and cost an addition.)
template <class T>
SDAS_INLINE Vector<T> splat(T x) {
    return x - Vector<T>{};
}

// Keeps v in a register, where the compiler would load it anew for each product that it is a factor of.
template <class T>
SDAS_INLINE Vector<T> in_register(Vector<T> v) {
#if defined(__AVX512F__)
    __asm__("" : "+v"(v));
#elif defined(__AVX2__)
    __asm__("" : "+x"(v));
#endif
    return v;
}

// a b + c d, of which the first product is rounded: the same wherever it is inlined, as the compiler would not have it.
template <class T, class A, class B>
SDAS_INLINE Vector<T> sum_of_products(A a, Vector<T> b, B c, Vector<T> d) {
    return in_register<T>(a * b) + c * d;
}

// p[0], p[1], p[0], p[1], ..
template <class T>
SDAS_INLINE Vector<T> repeat_pair(const T* p) {
    if constexpr (sizeof(T) == sizeof(float)) {
        double pair;
        std::memcpy(&pair, p, sizeof pair);
        return reinterpret_cast<Vector<T>>(splat<double>(pair));
    } else {
#if defined(__AVX512F__)
        return _mm512_broadcast_f64x2(_mm_loadu_pd(p));
#elif defined(__AVX2__)
        return _mm256_setr_pd(p[0], p[1], p[0], p[1]);
#else
        return load<T>(p);
#endif
    }
}

// The first `count` elements from or to memory; the others of a load are zero.
SDAS_INLINE Vector<float> load_first(const float* p, int count) {
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
#else
    Vector<float> v{};
    for (int i = 0; i < width<float>; ++i) v[i] = i < count ? p[i] : 0.0f;
    return v;
#endif
}

SDAS_INLINE Vector<double> load_first(const double* p, int count) {
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), p);
#else
    Vector<double> v{};
    for (int i = 0; i < width<double>; ++i) v[i] = i < count ? p[i] : 0.0;
    return v;
#endif
}

SDAS_INLINE void store_first(float* p, Vector<float> v, int count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
#else
    for (int i = 0; i < count; ++i) p[i] = v[i];
#endif
}

SDAS_INLINE void store_first(double* p, Vector<double> v, int count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1), v);
#else
    for (int i = 0; i < count; ++i) p[i] = v[i];
#endif
}

// The numbers of the first `bytes`, half a vector or less; what the other elements are is not said. (Copying them into a
// vector of zeros would go through memory, where a load of what two stores wrote waits for both.)
template <int bytes, class T>
SDAS_INLINE Vector<T> load_part(const T* p) {
    static_assert(bytes < SDAS_VECTOR_BYTES);
#if defined(__x86_64__)
    __m128 part;
    if constexpr (bytes <= 4) {
        float number;
        std::memcpy(&number, p, sizeof number);
        part = _mm_set_ss(number);
    } else if constexpr (bytes == 8) {
        double pair;
        std::memcpy(&pair, p, sizeof pair);
        part = _mm_castpd_ps(_mm_set_sd(pair));
    } else {
        part = _mm_loadu_ps(reinterpret_cast<const float*>(p));
    }
#if defined(__AVX512F__)
    if constexpr (bytes == 32) {
        return reinterpret_cast<Vector<T>>(_mm512_castps256_ps512(_mm256_loadu_ps(reinterpret_cast<const float*>(p))));
    }
    return reinterpret_cast<Vector<T>>(_mm512_castps128_ps512(part));
#elif defined(__AVX2__)
    return reinterpret_cast<Vector<T>>(_mm256_castps128_ps256(part));
#else
    return reinterpret_cast<Vector<T>>(part);
#endif
#else
    Vector<T> v{};
    std::memcpy(&v, p, bytes);
    return v;
#endif
}

template <class T>
SDAS_INLINE Vector<T> select(typename Simd<T>::Mask mask, Vector<T> yes, Vector<T> no) {
    return mask ? yes : no;
}

// Whether every element of a comparison's result is true.
template <class T>
SDAS_INLINE bool all(typename Simd<T>::Mask mask) {
#if defined(__AVX512F__)
    return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) == 0xffff;
#elif defined(__AVX2__)
    return _mm256_movemask_epi8(reinterpret_cast<__m256i>(mask)) == -1;
#else
    bool result = true;
    for (int i = 0; i < width<T>; ++i) result = result && mask[i];
    return result;
#endif
}

SDAS_INLINE Vector<float> square_root(Vector<float> v) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(v);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(v);
#elif defined(__x86_64__)
    return _mm_sqrt_ps(v);
#else
    for (int i = 0; i < width<float>; ++i) v[i] = __builtin_sqrtf(v[i]);
    return v;
#endif
}

SDAS_INLINE Vector<double> square_root(Vector<double> v) {
#if defined(__AVX512F__)
    return _mm512_sqrt_pd(v);
#elif defined(__AVX2__)
    return _mm256_sqrt_pd(v);
#elif defined(__x86_64__)
    return _mm_sqrt_pd(v);
#else
    for (int i = 0; i < width<double>; ++i) v[i] = __builtin_sqrt(v[i]);
    return v;
#endif
}

// 1 / √v, as precise as the square root and the quotient, for numbers far from the ends of the range.
template <class T>
SDAS_INLINE Vector<T> inverse_square_root(Vector<T> v) {
#if defined(__AVX512F__)
    // The processor's estimate has 14 bits. With e = 1 - v y², 1 / √v is y / √(1 - e) = y (1 + e/2 + 3e²/8 + ..).
    Vector<T> y, e;
    if constexpr (sizeof(T) == sizeof(float)) {
        y = _mm512_rsqrt14_ps(v);
    } else {
        y = _mm512_rsqrt14_pd(v);
        e = 1 - (v * y) * y;
        y += (y * e) * (T(0.5) + T(0.375) * e);
    }
    e = 1 - (v * y) * y;
    return y + (y * T(0.5)) * e;
#else
    return 1 / square_root(v);
#endif
}

// Element i of the result is element index(i) of the concatenation of a and b.
template <class T, class Index>
SDAS_INLINE Vector<T> shuffle(Vector<T> a, Vector<T> b, Index index) {
#if defined(__clang__)
    Vector<T> v{};
    for (int i = 0; i < width<T>; ++i) v[i] = index(i) < width<T> ? a[index(i)] : b[index(i) - width<T>];
    return v;
#else
    typename Simd<T>::Mask mask{};
    for (int i = 0; i < width<T>; ++i) mask[i] = index(i);
    return __builtin_shuffle(a, b, mask);
#endif
}

}  // namespace sdas::SDAS_SIMD
