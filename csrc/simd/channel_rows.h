// Vectors of neighboring channels, one for every component of a feature, moved between them and memory in any layout.
// Included only by kernel files, like vector.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd/streaming.h"
#include "simd/transpose.h"
#include "simd/vector.h"

namespace sdas::SDAS_SIMD {

constexpr int max_components = 17;

// Where channel c has component k: c · channel + k · component.
struct Strides {
    std::int64_t channel, component;
    int dim;

    SDAS_INLINE bool rows() const { return component == 1 && channel == dim; }
};

// Calls body with the number of components, 2 l + 1, as a compile-time constant.
template <class Body>
SDAS_INLINE void for_components(int dim, const Body& body) {
    switch (dim) {
        case 1: return body(Constant<1>{});
        case 3: return body(Constant<3>{});
        case 5: return body(Constant<5>{});
        case 7: return body(Constant<7>{});
        case 9: return body(Constant<9>{});
        case 11: return body(Constant<11>{});
        case 13: return body(Constant<13>{});
        case 15: return body(Constant<15>{});
        case 17: return body(Constant<17>{});
    }
}

// One number for each of `count` channels, `channel` apart; zeros fill the vector.
template <class T>
SDAS_INLINE Vector<T> load_numbers(const T* p, std::int64_t channel, int count) {
    if (channel == 1) return count == width<T> ? load<T>(p) : load_first(p, count);
    T numbers[width<T>] = {};
    for (int c = 0; c < count; ++c) numbers[c] = p[c * channel];
    return load<T>(numbers);
}

template <class T>
SDAS_INLINE void store_numbers(T* p, std::int64_t channel, int count, Vector<T> v, bool streams) {
    if (channel == 1 && count == width<T>) return put_vector<T>(p, v, streams && aligned(p));
    T numbers[width<T>];
    store<T>(numbers, v);
    for (int c = 0; c < count; ++c) p[c * channel] = numbers[c];
}

// Calls body(first, count) for each vector of some channels, all of width<T> but the last.
template <class T, class Body>
SDAS_INLINE void for_channels(std::int64_t channels, const Body& body) {
    std::int64_t c = 0;
    for (; c + width<T> <= channels; c += width<T>) body(c, width<T>);
    if (c < channels) body(c, static_cast<int>(channels - c));
}

// The channels at p into rows, one for each component, `row` numbers apart; where they end within a vector, zeros fill it.
template <class T>
SDAS_INLINE void load_channels(const T* p, Strides s, std::int64_t channels, T* rows, std::int64_t row) {
    if (s.rows()) {
        for_components(s.dim, [&](auto dim) {
            constexpr int M = decltype(dim)::value;
            for_channels<T>(channels, [&](std::int64_t c, int count) {
                Vector<T> tile[M];
                if (count == width<T>) {
                    load_rows<T, M>(p + c * M, tile);
                } else {
                    T padded[width<T> * M] = {};
                    std::memcpy(padded, p + c * M, sizeof(T) * count * M);
                    load_rows<T, M>(padded, tile);
                }
#pragma GCC unroll 17
                for (int k = 0; k < M; ++k) store<T>(rows + k * row + c, tile[k]);
            });
        });
        return;
    }
    for (int k = 0; k < s.dim; ++k) {
        for_channels<T>(channels, [&](std::int64_t c, int count) {
            store<T>(rows + k * row + c, load_numbers<T>(p + c * s.channel + k * s.component, s.channel, count));
        });
    }
}

// The other way round; `streams`: past the caches.
template <class T>
SDAS_INLINE void store_channels(T* p, Strides s, std::int64_t channels, const T* rows, std::int64_t row, bool streams) {
    if (s.rows()) {
        streams = streams && aligned(p);
        for_components(s.dim, [&](auto dim) {
            constexpr int M = decltype(dim)::value;
            for_channels<T>(channels, [&](std::int64_t c, int count) {
                Vector<T> tile[M];
#pragma GCC unroll 17
                for (int k = 0; k < M; ++k) tile[k] = load<T>(rows + k * row + c);
                T* block = p + c * M;
                if (count < width<T>) {
                    T padded[width<T> * M];
                    store_rows<T, M>(padded, tile);
                    std::memcpy(block, padded, sizeof(T) * count * M);
                } else if (streams) {
                    put_rows<T, M>(tile, [&](int k, Vector<T> v) { stream<T>(block + k * width<T>, v); });
                } else {
                    store_rows<T, M>(block, tile);
                }
            });
        });
        return;
    }
    for (int k = 0; k < s.dim; ++k) {
        for_channels<T>(channels, [&](std::int64_t c, int count) {
            const Vector<T> v = load<T>(rows + k * row + c);
            store_numbers<T>(p + c * s.channel + k * s.component, s.channel, count, v, streams);
        });
    }
}

}  // namespace sdas::SDAS_SIMD
