// Stores past the caches, for results that do not fit in them. Included only by kernel files, like vector.h.
#pragma once

#include <cstdint>

#include "simd/vector.h"

namespace sdas::SDAS_SIMD {

// Whether a result of so many bytes is better stored past the caches.
constexpr bool exceeds_caches(std::int64_t bytes) { return bytes > std::int64_t{1} << 22; }

// Stores past the caches, which spares reading what is about to be overwritten: more than twice as fast where a result
// does not fit in them. `p` is aligned to a vector.
template <class T>
SDAS_INLINE void stream(T* p, Vector<T> v) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#elif defined(__x86_64__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
#else
    store<T>(p, v);
#endif
}

// `streams`: past the caches.
template <class T>
SDAS_INLINE void put_vector(T* p, Vector<T> v, bool streams) {
    streams ? stream<T>(p, v) : store<T>(p, v);
}

// Numbers in a line of the caches.
template <class T>
constexpr std::int64_t line = 64 / sizeof(T);

// Asks for the line of the caches at p, which may lie outside of all arrays, into the second one.
template <class T>
SDAS_INLINE void fetch_ahead(const T* p) {
    __builtin_prefetch(p, 0, 2);
}

// Makes streamed results visible to other threads.
inline void finish_streams() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

template <class T>
SDAS_INLINE bool aligned(const T* p) {
    return reinterpret_cast<std::uintptr_t>(p) % SDAS_VECTOR_BYTES == 0;
}

}  // namespace sdas::SDAS_SIMD
