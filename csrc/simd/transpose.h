// Moves between row-major memory and vectors that run across rows.
//
// A block is width<T> consecutive rows of M elements, contiguous in memory. A tile is the same data with
// one vector per column: element r of tile[k] is block[r * M + k]. The transposition works on squares of
// width<T> columns; the last square overlaps the one before it, so that M need not be a multiple. Matrices
// narrower than a vector are moved by 16-byte lanes, or by shuffles of whole vectors where they are narrow enough.
#pragma once

#include <cstdint>
#include <utility>

#include "simd/vector.h"

namespace sdas::SDAS_SIMD {

// Interleaves groups of `granule` elements of a and b within each 16-byte lane, from its low or high half.
template <class T, int granule, bool high>
SDAS_INLINE Vector<T> unpack(Vector<T> a, Vector<T> b) {
    constexpr int E = lane_width<T>;
    return shuffle<T>(a, b, [](int i) {
        const int group = (i % E) / granule;
        const int source = i / E * E + group / 2 * granule + i % granule + (high ? E / 2 : 0);
        return source + (group % 2 ? width<T> : 0);
    });
}

// The even or the odd 16-byte lanes of a, then those of b.
template <class T, bool odd>
SDAS_INLINE Vector<T> lanes(Vector<T> a, Vector<T> b) {
    constexpr int E = lane_width<T>;
    return shuffle<T>(a, b, [](int i) { return (2 * (i / E) + (odd ? 1 : 0)) * E + i % E; });
}

// Transposes each 16-byte lane's square across the lane_width<T> vectors v[0], v[1], ...
template <class T>
SDAS_INLINE void transpose_lanes(Vector<T>* v) {
    if constexpr (lane_width<T> == 2) {
        const Vector<T> a = v[0], b = v[1];
        v[0] = unpack<T, 1, false>(a, b);
        v[1] = unpack<T, 1, true>(a, b);
    } else {
        const Vector<T> a = unpack<T, 1, false>(v[0], v[1]), b = unpack<T, 1, true>(v[0], v[1]);
        const Vector<T> c = unpack<T, 1, false>(v[2], v[3]), d = unpack<T, 1, true>(v[2], v[3]);
        v[0] = unpack<T, 2, false>(a, c);
        v[1] = unpack<T, 2, true>(a, c);
        v[2] = unpack<T, 2, false>(b, d);
        v[3] = unpack<T, 2, true>(b, d);
    }
}

// Transposes the square of width<T> vectors.
template <class T>
SDAS_INLINE void transpose(Vector<T>* v) {
    constexpr int W = width<T>, E = lane_width<T>, L = W / E;
    for (int p = 0; p < L; ++p) {
        transpose_lanes<T>(v + p * E);
    }
    for (int e = 0; e < E; ++e) {
        if constexpr (L == 2) {
            const Vector<T> a = v[e], b = v[E + e];
            v[e] = lanes<T, false>(a, b);
            v[E + e] = lanes<T, true>(a, b);
        } else if constexpr (L == 4) {
            const Vector<T> a = v[e], b = v[E + e], c = v[2 * E + e], d = v[3 * E + e];
            const Vector<T> ab = lanes<T, false>(a, b), cd = lanes<T, false>(c, d);
            const Vector<T> AB = lanes<T, true>(a, b), CD = lanes<T, true>(c, d);
            v[e] = lanes<T, false>(ab, cd);
            v[E + e] = lanes<T, false>(AB, CD);
            v[2 * E + e] = lanes<T, true>(ab, cd);
            v[3 * E + e] = lanes<T, true>(AB, CD);
        }
    }
}

// The vector whose 16-byte lanes start at p, p + stride, p + 2 * stride, ...
template <class T>
SDAS_INLINE Vector<T> load_lanes(const T* p, std::int64_t stride) {
    const auto at = [&](int lane) {
        typename Simd<float>::Lane piece;
        std::memcpy(&piece, p + lane * stride, 16);
        return piece;
    };
#if defined(__AVX512F__)
    __m512 v = _mm512_castps128_ps512(at(0));
    v = _mm512_insertf32x4(v, at(1), 1);
    v = _mm512_insertf32x4(v, at(2), 2);
    return reinterpret_cast<Vector<T>>(_mm512_insertf32x4(v, at(3), 3));
#elif defined(__AVX2__)
    return reinterpret_cast<Vector<T>>(_mm256_set_m128(at(1), at(0)));
#else
    return reinterpret_cast<Vector<T>>(at(0));
#endif
}

// out[c, r] = in[r, c] for matrices whose rows are `out_row` and `in_row` apart.
template <class T>
void transpose_matrix(T* out, std::int64_t out_row, const T* in, std::int64_t in_row, int rows, int columns) {
    constexpr int W = width<T>, E = lane_width<T>;
    if (rows >= W && columns >= E && columns < W) {
        for (int r = 0; r < rows; r += W) {
            const T* row = in + (r + W <= rows ? r : rows - W) * in_row;
            T* target = out + (row - in) / in_row;
            for (int c = 0; c < columns; c += E) {
                const std::int64_t column = c + E <= columns ? c : columns - E;
                Vector<T> v[E];
                for (int i = 0; i < E; ++i) v[i] = load_lanes<T>(row + i * in_row + column, E * in_row);
                transpose_lanes<T>(v);
                for (int i = 0; i < E; ++i) store<T>(target + (column + i) * out_row, v[i]);
            }
        }
        return;
    }
    if (rows < W || columns < W) {
        for (int c = 0; c < columns; ++c) {
            for (int r = 0; r < rows; ++r) out[c * out_row + r] = in[r * in_row + c];
        }
        return;
    }
    for (int r = 0; r < rows; r += W) {
        const std::int64_t row = r + W <= rows ? r : rows - W;
        for (int c = 0; c < columns; c += W) {
            const std::int64_t column = c + W <= columns ? c : columns - W;
            Vector<T> v[W];
            for (int i = 0; i < W; ++i) v[i] = load<T>(in + (row + i) * in_row + column);
            transpose<T>(v);
            for (int i = 0; i < W; ++i) store<T>(out + (column + i) * out_row + row, v[i]);
        }
    }
}

// Calls put(k, v) with each vector v of the block of a tile of 4 columns, k = 0, 1, 2, 3.
template <class T, class Put>
SDAS_INLINE void put_quadruples(const Vector<T>* tile, const Put& put) {
    constexpr int W = width<T>, E = lane_width<T>;
    Vector<T> v[4] = {tile[0], tile[1], tile[2], tile[3]};
    for (int k = 0; k < 4; k += E) transpose_lanes<T>(v + k);
    // Lane p of a and b, of c and d, in the order in which rows lie: first both halves of a row of doubles.
    const Vector<T> a = v[0], b = v[E == 2 ? 2 : 1], c = v[E == 2 ? 1 : 2], d = v[3];
    const Vector<T> ab = lanes<T, false>(a, b), cd = lanes<T, false>(c, d);
    const Vector<T> AB = lanes<T, true>(a, b), CD = lanes<T, true>(c, d);
    if constexpr (W / E == 4) {
        put(0, lanes<T, false>(ab, cd));
        put(1, lanes<T, false>(AB, CD));
        put(2, lanes<T, true>(ab, cd));
        put(3, lanes<T, true>(AB, CD));
    } else {
        put(0, ab);
        put(1, cd);
        put(2, AB);
        put(3, CD);
    }
}

template <class T>
SDAS_INLINE void store_lane(T* p, Vector<T> v, int lane) {
    std::memcpy(p, reinterpret_cast<const char*>(&v) + 16 * lane, 16);
}

// Columns so few that each vector of a block or of a tile is put together from all of those of the other, by one shuffle
// for each but the first: faster than 16-byte lanes where an instruction takes elements of two vectors at any places.
template <int M>
constexpr bool few_to_load = M == 3 || (M == 5 && SDAS_VECTOR_BYTES == 64);
template <int M>
constexpr bool few_to_store = M == 3 || ((M == 5 || M == 7) && SDAS_VECTOR_BYTES == 64);

// Column c of a block of rows of M elements that lies in the vectors v.
template <class T, int M, int c, int... n>
SDAS_INLINE Vector<T> column_of(const Vector<T>* v, std::integer_sequence<int, n...>) {
    constexpr int W = width<T>;
    Vector<T> column = shuffle<T>(v[0], v[1], [](int row) { return row * M + c < 2 * W ? row * M + c : 0; });
    ((column = shuffle<T>(column, v[n + 2],
                          [](int row) { return (row * M + c) / W == n + 2 ? W + (row * M + c) % W : row; })),
     ...);
    return column;
}

// Vector k of a block of rows of M elements, from its columns.
template <class T, int M, int k, int... n>
SDAS_INLINE Vector<T> joined(const Vector<T>* columns, std::integer_sequence<int, n...>) {
    constexpr int W = width<T>;
    Vector<T> v = shuffle<T>(columns[0], columns[1], [](int i) {
        const int row = (k * W + i) / M, column = (k * W + i) % M;
        return column < 2 ? row + column * W : 0;
    });
    ((v = shuffle<T>(v, columns[n + 2], [](int i) { return (k * W + i) % M == n + 2 ? W + (k * W + i) / M : i; })),
     ...);
    return v;
}

template <class T, int M, int... k>
SDAS_INLINE void load_few(const T* block, Vector<T>* tile, std::integer_sequence<int, k...>) {
    const Vector<T> v[M] = {load<T>(block + k * width<T>)...};
    ((tile[k] = column_of<T, M, k>(v, std::make_integer_sequence<int, M - 2>{})), ...);
}

template <class T, int M, class Put, int... k>
SDAS_INLINE void put_few(const Vector<T>* tile, const Put& put, std::integer_sequence<int, k...>) {
    (put(k, joined<T, M, k>(tile, std::make_integer_sequence<int, M - 2>{})), ...);
}

template <class T, int M>
SDAS_INLINE void load_squares(const T* block, Vector<T>* tile) {
    constexpr int W = width<T>, E = lane_width<T>;
    constexpr int square = M >= W ? W : E;
    static_assert(M >= E);
    for (int start = 0; start < M; start += square) {
        const int k = start + square <= M ? start : M - square;
        Vector<T> v[square];
        for (int i = 0; i < square; ++i) {
            v[i] = square == W ? load<T>(block + i * M + k) : load_lanes<T>(block + i * M + k, E * M);
        }
        if constexpr (square == W) {
            transpose<T>(v);
        } else {
            transpose_lanes<T>(v);
        }
        for (int i = 0; i < square; ++i) {
            tile[k + i] = v[i];
        }
    }
}

template <class T, int M>
SDAS_INLINE void store_squares(T* block, const Vector<T>* tile) {
    constexpr int W = width<T>, E = lane_width<T>;
    constexpr int square = M >= W ? W : E;
    static_assert(M >= E);
    for (int start = 0; start < M; start += square) {
        const int k = start + square <= M ? start : M - square;
        Vector<T> v[square];
        for (int i = 0; i < square; ++i) {
            v[i] = tile[k + i];
        }
        if constexpr (square == W) {
            transpose<T>(v);
            for (int i = 0; i < W; ++i) {
                store<T>(block + i * M + k, v[i]);
            }
        } else {
            transpose_lanes<T>(v);
            for (int lane = 0; lane < W / E; ++lane) {
                for (int i = 0; i < E; ++i) {
                    store_lane<T>(block + (lane * E + i) * M + k, v[i], lane);
                }
            }
        }
    }
}

// Reads a block of rows of M elements into a tile.
template <class T, int M>
SDAS_INLINE void load_rows(const T* block, Vector<T>* tile) {
    if constexpr (M == 1) {
        tile[0] = load<T>(block);
    } else if constexpr (few_to_load<M>) {
        load_few<T, M>(block, tile, std::make_integer_sequence<int, M>{});
    } else {
        load_squares<T, M>(block, tile);
    }
}

// Writes a tile as a block of rows of M elements.
template <class T, int M>
SDAS_INLINE void store_rows(T* block, const Vector<T>* tile) {
    const auto put = [&](int k, Vector<T> v) { store<T>(block + k * width<T>, v); };
    if constexpr (M == 1) {
        put(0, tile[0]);
    } else if constexpr (few_to_store<M>) {
        put_few<T, M>(tile, put, std::make_integer_sequence<int, M>{});
    } else if constexpr (M == 4 && width<T> / lane_width<T> > 1) {
        put_quadruples<T>(tile, put);
    } else {
        store_squares<T, M>(block, tile);
    }
}

// Vector k of a block of rows of M >= width<T> elements, whose row i has the columns of square s in pieces[s * W + i].
template <class T, int M, int k>
SDAS_INLINE Vector<T> vector_of_block(const Vector<T>* pieces) {
    constexpr int W = width<T>, last = (M - 1) / W;
    constexpr int row = k * W / M, column = k * W % M;
    constexpr bool within = column + W <= M;  // one row; or else the end of this one and the beginning of the next
    constexpr int a = within ? column / W : last, b = within ? (column + W - 1) / W : 0;
    constexpr int a_start = a < last ? a * W : M - W, b_start = b < last ? b * W : M - W;
    if constexpr (column == a_start) {
        return pieces[a * W + row];
    } else {
        return shuffle<T>(pieces[a * W + row], pieces[b * W + (within ? row : row + 1)], [](int i) {
            const int c = column + i;
            if (c < M && c - a_start < W) return c - a_start;
            return W + (within ? c - b_start : c - M);
        });
    }
}

template <class T, int M, class Put, int... k>
SDAS_INLINE void put_vectors(const Vector<T>* pieces, const Put& put, std::integer_sequence<int, k...>) {
    (put(k, vector_of_block<T, M, k>(pieces)), ...);
}

// Calls put(k, v) with each vector v of a tile's block of rows of M elements, k = 0..M-1. Where the block begins at a
// multiple of a vector, to store these spares the writes across lines of the caches, which are all writes of store_rows
// with vectors as wide as a line. Narrower ones lack the instruction that joins two vectors at any place.
template <class T, int M, class Put>
SDAS_INLINE void put_rows(const Vector<T>* tile, const Put& put) {
    constexpr int W = width<T>, squares = (M + W - 1) / W;
    if constexpr (M == 1) {
        put(0, tile[0]);
    } else if constexpr (few_to_store<M>) {
        put_few<T, M>(tile, put, std::make_integer_sequence<int, M>{});
    } else if constexpr (M == 4 && W / lane_width<T> > 1) {
        put_quadruples<T>(tile, put);
    } else if constexpr (M >= W && SDAS_VECTOR_BYTES == 64) {
        Vector<T> pieces[squares * W];
        for (int s = 0; s < squares; ++s) {
            const int start = s + 1 < squares ? s * W : M - W;
            for (int i = 0; i < W; ++i) pieces[s * W + i] = tile[start + i];
            transpose<T>(pieces + s * W);
        }
        put_vectors<T, M>(pieces, put, std::make_integer_sequence<int, M>{});
    } else {
        alignas(SDAS_VECTOR_BYTES) T rows[M * W];
        store_rows<T, M>(rows, tile);
        for (int k = 0; k < M; ++k) put(k, load<T>(rows + k * W));
    }
}

}  // namespace sdas::SDAS_SIMD
