// Rows of channels: a group of G vectors of neighboring channels for every component of a feature, moved between them
// and memory in any layout. Included only by kernel files, like vector.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "sdas/streaming.h"
#include "sdas/transpose.h"
#include "sdas/vector.h"

namespace sdas::SDAS_SIMD {

constexpr int max_components = 17;

// G · width<T> neighboring channels.
template <class T, int G>
struct Pack {
    static constexpr int size = G * width<T>;
    Vector<T> v[G];

    SDAS_INLINE Pack& operator+=(const Pack& other) {
        for (int g = 0; g < G; ++g) v[g] += other.v[g];
        return *this;
    }
};

template <class T, int G>
SDAS_INLINE Pack<T, G> operator*(const Pack<T, G>& a, const Pack<T, G>& b) {
    Pack<T, G> c;
    for (int g = 0; g < G; ++g) c.v[g] = a.v[g] * b.v[g];
    return c;
}

template <class T, int G>
SDAS_INLINE Pack<T, G> operator*(T a, const Pack<T, G>& b) {
    Pack<T, G> c;
    for (int g = 0; g < G; ++g) c.v[g] = a * b.v[g];
    return c;
}

// Where channel c has component k: c · channel + k · component.
struct Strides {
    std::int64_t channel, component;
    int dim;

    SDAS_INLINE bool rows() const { return component == 1 && channel == dim; }
};

template <class T, int M>
void load_tile(const T* block, Vector<T>* tile) {
    if constexpr (M == 1) {
        tile[0] = load<T>(block);
    } else if constexpr (M == 3) {
        load_triples<T>(block, tile[0], tile[1], tile[2]);
    } else {
        load_rows<T, M>(block, tile);
    }
}

template <class T, int M>
void store_tile(T* block, const Vector<T>* tile) {
    if constexpr (M == 1) {
        store<T>(block, tile[0]);
    } else if constexpr (M == 3) {
        store_triples<T>(block, tile[0], tile[1], tile[2]);
    } else {
        store_rows<T, M>(block, tile);
    }
}

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

// Channels 0 .. count <= width<T> at p into one vector per component; the other lanes are zero.
template <class T>
SDAS_INLINE void load_channels(const T* p, Strides s, int count, Vector<T>* tile) {
    if (s.rows()) {
        T padded[width<T> * max_components];
        if (count < width<T>) {
            std::memset(padded, 0, sizeof(T) * width<T> * s.dim);
            std::memcpy(padded, p, sizeof(T) * count * s.dim);
            p = padded;
        }
        for_components(s.dim, [&](auto dim) { load_tile<T, decltype(dim)::value>(p, tile); });
    } else if (s.channel == 1 && count == width<T>) {
        for (int k = 0; k < s.dim; ++k) tile[k] = load<T>(p + k * s.component);
    } else {
        for (int k = 0; k < s.dim; ++k) {
            tile[k] = Vector<T>{};
            for (int c = 0; c < count; ++c) tile[k][c] = p[c * s.channel + k * s.component];
        }
    }
}

template <class T>
SDAS_INLINE void store_channels(T* p, Strides s, int count, const Vector<T>* tile, bool streams) {
    if (s.rows()) {
        T padded[width<T> * max_components];
        streams = streams && count == width<T> && aligned(p);
        T* block = streams || count < width<T> ? padded : p;
        for_components(s.dim, [&](auto dim) { store_tile<T, decltype(dim)::value>(block, tile); });
        if (streams) {
            for (int k = 0; k < s.dim; ++k) stream<T>(p + k * width<T>, load<T>(padded + k * width<T>));
        } else if (count < width<T>) {
            std::memcpy(p, padded, sizeof(T) * count * s.dim);
        }
    } else if (s.channel == 1 && count == width<T>) {
        streams = streams && aligned(p) && s.component % width<T> == 0;
        for (int k = 0; k < s.dim; ++k) {
            if (streams) {
                stream<T>(p + k * s.component, tile[k]);
            } else {
                store<T>(p + k * s.component, tile[k]);
            }
        }
    } else {
        for (int k = 0; k < s.dim; ++k) {
            for (int c = 0; c < count; ++c) p[c * s.channel + k * s.component] = tile[k][c];
        }
    }
}

// The group of channels at p of which `count` > 0 exist, as s.dim rows.
template <class T, int G>
SDAS_INLINE void load_group(const T* p, Strides s, std::int64_t count, Pack<T, G>* rows) {
    for (int g = 0; g < G; ++g, count -= width<T>) {
        if (count > 0) {
            const int size = static_cast<int>(std::min<std::int64_t>(count, width<T>));
            Vector<T> tile[max_components];
            load_channels<T>(p + g * width<T> * s.channel, s, size, tile);
            for (int k = 0; k < s.dim; ++k) rows[k].v[g] = tile[k];
        } else {
            for (int k = 0; k < s.dim; ++k) rows[k].v[g] = Vector<T>{};
        }
    }
}

// One number per channel, `channel` apart.
template <class T, int G>
SDAS_INLINE Pack<T, G> load_numbers(const T* p, std::int64_t channel, std::int64_t count) {
    Pack<T, G> result;
    for (int g = 0; g < G; ++g, count -= width<T>, p += width<T> * channel) {
        if (channel == 1 && count >= width<T>) {
            result.v[g] = load<T>(p);
        } else {
            result.v[g] = Vector<T>{};
            for (int c = 0; c < std::min<std::int64_t>(count, width<T>); ++c) result.v[g][c] = p[c * channel];
        }
    }
    return result;
}

template <class T, int G>
SDAS_INLINE void store_numbers(T* p, std::int64_t channel, std::int64_t count, const Pack<T, G>& numbers,
                               bool streams) {
    for (int g = 0; g < G; ++g, count -= width<T>, p += width<T> * channel) {
        if (streams && channel == 1 && count >= width<T> && aligned(p)) {
            stream<T>(p, numbers.v[g]);
        } else if (channel == 1 && count >= width<T>) {
            store<T>(p, numbers.v[g]);
        } else {
            for (int c = 0; c < std::min<std::int64_t>(count, width<T>); ++c) p[c * channel] = numbers.v[g][c];
        }
    }
}

template <class T, int G>
SDAS_INLINE void store_group(T* p, Strides s, std::int64_t count, const Pack<T, G>* rows, bool streams) {
    for (int g = 0; g < G && count > 0; ++g, count -= width<T>) {
        Vector<T> tile[max_components];
        for (int k = 0; k < s.dim; ++k) tile[k] = rows[k].v[g];
        const int size = static_cast<int>(std::min<std::int64_t>(count, width<T>));
        store_channels<T>(p + g * width<T> * s.channel, s, size, tile, streams);
    }
}

}  // namespace sdas::SDAS_SIMD
