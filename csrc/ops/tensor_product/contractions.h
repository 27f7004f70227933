// Contractions with the matrix M of a path, in the ways it lies in memory, and what they work on. Included only by kernel
// files, like vector.h.
//
// All entries of M are multiplied, though some are zero whatever s is: up to degree 3 a sixth of them, and a list of the
// others takes longer to read than it saves. They are numbers, or vectors of them where s has channels.
#pragma once

#include <cstdint>

#include "ops/tensor_product/tensor_product.h"
#include "simd/channel_rows.h"
#include "simd/vector.h"

namespace sdas::SDAS_SIMD {

// Up to so many components, kernels are compiled for every size of M.
constexpr int whole_components = 7;

// The non-zero coefficients C of a coupling: of each of `sums` sums of rows, one after the other, the row and the factor.
template <class T>
struct Terms {
    std::int64_t sums;
    const std::int32_t *start, *row;
    const T* value;
};

// What a path reads and writes of some samples: rows of vectors of channels, one for each component, `row` vectors apart,
// and numbers of the weight. Pointers are to the first sample; those ending in `_step` are tangents, and a result that is
// null is not wanted.
template <class T>
struct PathRows {
    std::int64_t samples, vectors, row;
    Terms<T> terms, shares;  // the entries of M of the components of s, and the gradients by these of those by M
    const Vector<T>*a, *a_step, *g;
    std::int64_t copied_row;     // between the rows of a and those of by_a where a path copies
    const Vector<T>*s, *s_step;  // null where s has no channels: then there is M
    const T *m, *m_step, *w, *w_step;
    Vector<T>* z;
    bool fresh;                    // whether this is the first path to z
    T* out;                        // where z goes in place of its rows if this is the last one, or null
    std::int64_t component;        // from one component to the next there, 1 where each channel has all of them
    bool streams, streams_weight;  // z and by_w past the caches
    Vector<T>*by_a, *by_s;
    bool adds_a;  // whether others add to by_a as well, where a path copies
    T* by_w;
    Vector<T>*b, *n, *own_matrix, *own_matrix_step;  // room for one sample
    std::int64_t next_lanes, next_s, next_result, next_out, next_w, next_by_w;
    std::int64_t ahead;  // from weights to those that are worked on after these

    SDAS_INLINE void next() {
        a += next_lanes, a_step += next_lanes, g += next_result, w += next_w, w_step += next_w, ++m, ++m_step;
        if (s != nullptr) s += next_lanes, s_step += next_lanes;
        if (z != nullptr) z += next_result;
        if (out != nullptr) out += next_out;
        if (by_a != nullptr) by_a += next_lanes;
        if (by_s != nullptr) by_s += next_s;
        if (by_w != nullptr) by_w += next_by_w;
    }
};

// Whether the kernel for such paths knows the number of components of z, which `out` asks for if `component` is 1.
inline bool knows_size(const TensorProductPath& p, const TensorProductCoupling& c) {
    return (p.uniform || p.copies) && c.d1 <= whole_components && c.d3 <= whole_components;
}

// Entries of matrices that are numbers, those of width<T> samples side by side, of which m points to one; sums over
// channels are vectors.
template <class T>
struct NumberEntries {
    static constexpr bool by_rows = false;

    static SDAS_INLINE T entry(const T* m, std::int64_t number, std::int64_t, std::int64_t) {
        return m[number * width<T>];
    }

    static SDAS_INLINE void put(Vector<T>* n, std::int64_t number, std::int64_t, std::int64_t v, Vector<T> product) {
        n[number] = v == 0 ? product : n[number] + product;
    }
};

// Entries that are rows of channels.
template <class T>
struct RowEntries {
    static constexpr bool by_rows = true;

    static SDAS_INLINE Vector<T> entry(const T* m, std::int64_t number, std::int64_t row, std::int64_t v) {
        return load<T>(m + (number * row + v) * width<T>);
    }

    static SDAS_INLINE void put(Vector<T>* n, std::int64_t number, std::int64_t row, std::int64_t v,
                                Vector<T> product) {
        n[number * row + v] = product;
    }
};

// All entries, numbers, of a matrix of a size known to the compiler.
template <class T, int D1, int D3>
struct Whole {
    static constexpr int most = D1 > D3 ? D1 : D3, size = D3;
    static constexpr bool by_rows = false;
    Whole(const TensorProductCoupling&) {}
    static constexpr int d1() { return D1; }
    static constexpr int d3() { return D3; }

    // out_k += Σ_i M_ki x_i, of vector v of the channels.
    SDAS_INLINE void add(Vector<T>* out, const T* m, const Vector<T>* x, std::int64_t, std::int64_t) const {
#pragma GCC unroll 64
        for (int t = 0; t < D1 * D3; ++t) out[t % D3] += m[(t % D3 * D1 + t / D3) * width<T>] * x[t / D3];
    }

    // out_i += Σ_k M_ki g_k.
    SDAS_INLINE void add_transposed(Vector<T>* out, const T* m, const Vector<T>* g, std::int64_t, std::int64_t) const {
#pragma GCC unroll 64
        for (int t = 0; t < D1 * D3; ++t) out[t % D1] += m[t * width<T>] * g[t / D1];
    }

    // N, a group of its rows after the other, such that their sums stay in registers.
    SDAS_INLINE void outer(Vector<T>* n, const PathRows<T>& p) const {
        constexpr int registers = SDAS_VECTOR_BYTES == 64 ? 25 : 10;
        constexpr int group = D1 * D3 <= registers ? D3 : registers / D1;
        int k = 0;
        for (; k + group <= D3; k += group) outer_rows<group>(n + k * D1, p, k);
        if constexpr (D3 % group != 0) outer_rows<D3 % group>(n + k * D1, p, k);
    }

    template <int K>
    static SDAS_INLINE void outer_rows(Vector<T>* n, const PathRows<T>& p, int first) {
        Vector<T> sum[K * D1];
#pragma GCC unroll 32
        for (int t = 0; t < K * D1; ++t) sum[t] = Vector<T>{};
        for (std::int64_t v = 0; v < p.vectors; ++v) {
            Vector<T> b[D1];
#pragma GCC unroll 8
            for (int i = 0; i < D1; ++i) b[i] = p.b[i * p.row + v];
#pragma GCC unroll 32
            for (int t = 0; t < K * D1; ++t) sum[t] += p.g[(first + t / D1) * p.row + v] * b[t % D1];
        }
#pragma GCC unroll 32
        for (int t = 0; t < K * D1; ++t) n[t] = sum[t];
    }
};

// A number, or a vector of them, times the identity of D components; of any number of them where D is 0.
template <class T, class Entries, int D>
struct Diagonal {
    static constexpr int most = D ? D : max_components, size = D;
    static constexpr bool by_rows = Entries::by_rows;
    const int components;
    Diagonal(const TensorProductCoupling& c) : components(static_cast<int>(c.d1)) {}
    SDAS_INLINE int d1() const { return D ? D : components; }
    SDAS_INLINE int d3() const { return d1(); }

    SDAS_INLINE void add(Vector<T>* out, const T* m, const Vector<T>* x, std::int64_t row, std::int64_t v) const {
        const auto entry = Entries::entry(m, 0, row, v);
        const int size = d1();
#pragma GCC unroll 8
        for (int k = 0; k < size; ++k) out[k] += entry * x[k];
    }

    SDAS_INLINE void add_transposed(Vector<T>* out, const T* m, const Vector<T>* g, std::int64_t row,
                                    std::int64_t v) const {
        add(out, m, g, row, v);
    }

    SDAS_INLINE void outer(Vector<T>* n, const PathRows<T>& p) const {
        const int size = d1();
        for (std::int64_t v = 0; v < p.vectors; ++v) {
            Vector<T> sum{};
#pragma GCC unroll 8
            for (int k = 0; k < size; ++k) sum += p.g[k * p.row + v] * p.b[k * p.row + v];
            Entries::put(n, 0, p.row, v, sum);
        }
    }
};

// All entries of a matrix with any number of rows, of which the compiler knows the length.
template <class T, class Entries, int D1>
struct Rows {
    static constexpr int most = max_components, size = 0;
    static constexpr bool by_rows = Entries::by_rows;
    const int rows;
    Rows(const TensorProductCoupling& c) : rows(static_cast<int>(c.d3)) {}
    static constexpr int d1() { return D1; }
    SDAS_INLINE int d3() const { return rows; }

    SDAS_INLINE void add(Vector<T>* out, const T* m, const Vector<T>* x, std::int64_t row, std::int64_t v) const {
        for (int k = 0; k < rows; ++k) {
            Vector<T> sum = out[k];
#pragma GCC unroll 17
            for (int i = 0; i < D1; ++i) sum += Entries::entry(m, k * D1 + i, row, v) * x[i];
            out[k] = sum;
        }
    }

    SDAS_INLINE void add_transposed(Vector<T>* out, const T* m, const Vector<T>* g, std::int64_t row,
                                    std::int64_t v) const {
        for (int k = 0; k < rows; ++k) {
#pragma GCC unroll 17
            for (int i = 0; i < D1; ++i) out[i] += Entries::entry(m, k * D1 + i, row, v) * g[k];
        }
    }

    SDAS_INLINE void outer(Vector<T>* n, const PathRows<T>& p) const {
        for (int k = 0; k < rows; ++k) {
            for (std::int64_t v = 0; v < p.vectors; ++v) {
                const Vector<T> g = p.g[k * p.row + v];
#pragma GCC unroll 17
                for (int i = 0; i < D1; ++i) Entries::put(n, k * D1 + i, p.row, v, g * p.b[i * p.row + v]);
            }
        }
    }
};

// The components of vector v of some rows.
template <class T>
SDAS_INLINE void components(Vector<T>* out, const Vector<T>* rows, std::int64_t row, std::int64_t v, int dim) {
#pragma GCC unroll 17
    for (int k = 0; k < dim; ++k) out[k] = rows[k * row + v];
}

template <class T>
SDAS_INLINE void clear(Vector<T>* out, int dim) {
#pragma GCC unroll 17
    for (int k = 0; k < dim; ++k) out[k] = Vector<T>{};
}

}  // namespace sdas::SDAS_SIMD
