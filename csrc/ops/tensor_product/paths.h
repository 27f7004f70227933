// One path of the tensor product for some vectors of channels, in its three orders. Included only by
// csrc/ops/tensor_product/tensor_product.cpp.
//
// With the matrix M[k, i] = Σ_j C s_j of the second operand, a path multiplies the other ones by M and by its transpose:
//
//   forward           b_i = w a_i             z_k += Σ_i M_ki b_i
//   backward          u_i = Σ_k M_ki g_k      ∂a_i += w u_i                 ∂w = Σ_i a_i u_i
//                     b_i = w a_i             N_ki = Σ_c g_k b_i            ∂s_j += Σ_ki C N_ki
//   double backward   b_i = w a'_i + w' a_i   z_k += Σ_i M_ki b_i + M'_ki w a_i
//                     u'_i = Σ_k M'_ki g_k    ∂a_i += w u'_i + w' u_i       ∂w = Σ_i a'_i u_i + a_i u'_i
//                     N_ki = Σ_c g_k b_i      ∂s_j += Σ_ki C N_ki
//
// where ' marks the tangents, and M' is made of s'. How M lies in memory and is multiplied is the business of a
// contraction, `Whole`, `Rows` or `Diagonal` (tensor_product_contractions.h).
#pragma once

#include <cstdint>

#include "ops/tensor_product/contractions.h"
#include "simd/streaming.h"
#include "simd/vector.h"

namespace sdas::SDAS_SIMD {

// A vector of weights. Those that are worked on after these are fetched: rows that are read once, in pieces, come too late
// if the processor has to guess them.
template <class T>
SDAS_INLINE Vector<T> weights(const T* w, std::int64_t v, std::int64_t ahead) {
    fetch_ahead(w + v * width<T> + ahead);
    return load<T>(w + v * width<T>);
}

// Vector v of the channels of z before the path adds to it.
template <class T>
SDAS_INLINE void result_so_far(Vector<T>* z, const PathRows<T>& p, std::int64_t v, int dim) {
    if (p.fresh) {
        clear<T>(z, dim);
    } else {
        components<T>(z, p.z, p.row, v, dim);
    }
}

// And after; `size` is the number of its components if the compiler knows it, or 0.
template <int size, class T>
SDAS_INLINE void put_result(const PathRows<T>& p, const Vector<T>* z, std::int64_t v, int dim) {
    const auto put = [&](T* target, Vector<T> part) { put_vector<T>(target, part, p.streams); };
    if (p.out == nullptr) {
#pragma GCC unroll 8
        for (int k = 0; k < dim; ++k) p.z[k * p.row + v] = z[k];
    } else if (size > 0 && p.component == 1) {
        T* block = p.out + v * size * width<T>;
        if constexpr (size > 0) put_rows<T, size>(z, [&](int k, Vector<T> part) { put(block + k * width<T>, part); });
    } else {
#pragma GCC unroll 8
        for (int k = 0; k < dim; ++k) put(p.out + k * p.component + v * width<T>, z[k]);
    }
}

template <class T, class Contraction>
SDAS_INLINE void path_forward(const Contraction& c, const PathRows<T>& p, const T* m) {
    const int d1 = c.d1(), d3 = c.d3();
    for (std::int64_t v = 0; v < p.vectors; ++v) {
        Vector<T> b[Contraction::most], z[Contraction::most];
        const Vector<T> w = weights<T>(p.w, v, p.ahead);
#pragma GCC unroll 17
        for (int i = 0; i < d1; ++i) b[i] = w * p.a[i * p.row + v];
        result_so_far<T>(z, p, v, d3);
        c.add(z, m, b, p.row, v);
        put_result<Contraction::size>(p, z, v, d3);
    }
}

template <class T, class Contraction>
SDAS_INLINE void path_backward(const Contraction& c, const PathRows<T>& p, const T* m) {
    const int d1 = c.d1(), d3 = c.d3();
    for (std::int64_t v = 0; v < p.vectors; ++v) {
        Vector<T> a[Contraction::most];
        components<T>(a, p.a, p.row, v, d1);
        const Vector<T> w = weights<T>(p.w, v, p.ahead);
        if (p.by_a != nullptr || p.by_w != nullptr) {
            Vector<T> g[Contraction::most], u[Contraction::most];
            components<T>(g, p.g, p.row, v, d3);
            clear<T>(u, d1);
            c.add_transposed(u, m, g, p.row, v);
            Vector<T> by_w{};
#pragma GCC unroll 17
            for (int i = 0; i < d1; ++i) {
                if (p.by_a != nullptr) p.by_a[i * p.row + v] += w * u[i];
                by_w += a[i] * u[i];
            }
            if (p.by_w != nullptr) put_vector<T>(p.by_w + v * width<T>, by_w, p.streams_weight);
        }
        if (p.by_s == nullptr) continue;
#pragma GCC unroll 17
        for (int i = 0; i < d1; ++i) p.b[i * p.row + v] = w * a[i];
    }
}

template <class T, class Contraction>
SDAS_INLINE void path_double_backward(const Contraction& c, const PathRows<T>& p, const T* m, const T* m_step) {
    const int d1 = c.d1(), d3 = c.d3();
    for (std::int64_t v = 0; v < p.vectors; ++v) {
        const Vector<T> w = weights<T>(p.w, v, p.ahead), w_step = weights<T>(p.w_step, v, p.ahead);
        Vector<T> a[Contraction::most], a_step[Contraction::most];
        components<T>(a, p.a, p.row, v, d1);
        components<T>(a_step, p.a_step, p.row, v, d1);
        if (p.by_a != nullptr || p.by_w != nullptr) {
            Vector<T> g[Contraction::most], u[Contraction::most], u_step[Contraction::most];
            components<T>(g, p.g, p.row, v, d3);
            clear<T>(u, d1);
            clear<T>(u_step, d1);
            c.add_transposed(u, m, g, p.row, v);
            c.add_transposed(u_step, m_step, g, p.row, v);
            Vector<T> by_w{};
#pragma GCC unroll 17
            for (int i = 0; i < d1; ++i) {
                if (p.by_a != nullptr) p.by_a[i * p.row + v] += w * u_step[i] + w_step * u[i];
                by_w += a_step[i] * u[i];
                by_w += a[i] * u_step[i];
            }
            if (p.by_w != nullptr) put_vector<T>(p.by_w + v * width<T>, by_w, p.streams_weight);
        }
        if (p.z == nullptr && p.by_s == nullptr) continue;
#pragma GCC unroll 17
        for (int i = 0; i < d1; ++i) {
            a_step[i] = w * a_step[i] + w_step * a[i];
            a[i] = w * a[i];
            if (p.by_s != nullptr) p.b[i * p.row + v] = a_step[i];
        }
        if (p.z == nullptr) continue;
        Vector<T> z[Contraction::most];
        result_so_far<T>(z, p, v, d3);
        c.add(z, m, a_step, p.row, v);
        c.add(z, m_step, a, p.row, v);
        put_result<Contraction::size>(p, z, v, d3);
    }
}

enum Order { forward, backward, double_backward };

// out[k] = Σ C in[terms of k], of rows of some vectors, plus what is in out if `adds`.
template <bool adds, class T>
SDAS_INLINE void sum_terms(const Terms<T>& terms, const Vector<T>* in, Vector<T>* out, std::int64_t row,
                           std::int64_t vectors) {
    for (std::int64_t k = 0; k < terms.sums; ++k) {
        for (std::int64_t v = 0; v < vectors; ++v) {
            Vector<T> sum = adds ? out[k * row + v] : Vector<T>{};
            for (int q = terms.start[k]; q < terms.start[k + 1]; ++q)
                sum += terms.value[q] * in[terms.row[q] * row + v];
            out[k * row + v] = sum;
        }
    }
}

// One order of a path for some samples.
template <class T>
using PathKernel = void (*)(const TensorProductCoupling&, const PathRows<T>&);

template <class T, Order order, class Contraction>
void run_path(const TensorProductCoupling& coupling, const PathRows<T>& rows) {
    const Contraction c(coupling);
    PathRows<T> p = rows;
    for (std::int64_t n = 0; n < rows.samples; ++n, p.next()) {
        p.streams = rows.streams && aligned(p.out), p.streams_weight = rows.streams_weight && aligned(p.by_w);
        const T *m = p.m, *m_step = p.m_step;
        if constexpr (Contraction::by_rows) {
            sum_terms<false>(p.terms, p.s, p.own_matrix, p.row, p.vectors);
            if constexpr (order == double_backward) {
                sum_terms<false>(p.terms, p.s_step, p.own_matrix_step, p.row, p.vectors);
            }
            m = reinterpret_cast<const T*>(p.own_matrix), m_step = reinterpret_cast<const T*>(p.own_matrix_step);
        }
        if constexpr (order == forward) path_forward<T>(c, p, m);
        if constexpr (order == backward) path_backward<T>(c, p, m);
        if constexpr (order == double_backward) path_double_backward<T>(c, p, m, m_step);
        if constexpr (order != forward) {
            if (p.by_s == nullptr) continue;
            c.outer(p.n, p);
            constexpr bool rows_of_s = Contraction::by_rows;
            sum_terms<true>(p.shares, p.n, p.by_s, rows_of_s ? p.row : 1, rows_of_s ? p.vectors : 1);
        }
    }
}

// One order of a path that copies `D` components, or any number of them where D is 0.
template <class T, Order order, int D>
void run_copy(const TensorProductCoupling& coupling, const PathRows<T>& rows) {
    const int dim = D ? D : static_cast<int>(coupling.d1);
    Vector<T> z[D ? D : max_components];
    PathRows<T> p = rows;
    for (std::int64_t n = 0; n < rows.samples; ++n, p.next()) {
        p.streams = rows.streams && aligned(p.out);
        for (std::int64_t v = 0; v < p.vectors; ++v) {
            if constexpr (order == backward) {
                if (p.by_a == nullptr) return;
#pragma GCC unroll 8
                for (int k = 0; k < dim; ++k) {
                    Vector<T>& by_a = p.by_a[k * p.copied_row + v];
                    by_a = p.adds_a ? by_a + p.g[k * p.row + v] : p.g[k * p.row + v];
                }
            } else {
                const Vector<T>* a = order == forward ? p.a : p.a_step;
                if (p.z == nullptr) return;
                result_so_far<T>(z, p, v, dim);
#pragma GCC unroll 8
                for (int k = 0; k < dim; ++k) z[k] += a[k * p.copied_row + v];
                put_result<D>(p, z, v, dim);
            }
        }
    }
}

template <class T, Order order>
PathKernel<T> copy_kernel(const TensorProductCoupling& c) {
    switch (c.d1) {
        case 1: return run_copy<T, order, 1>;
        case 3: return run_copy<T, order, 3>;
        case 5: return run_copy<T, order, 5>;
        case 7: return run_copy<T, order, 7>;
        default: return run_copy<T, order, 0>;
    }
}

template <class T, Order order, class Entries>
PathKernel<T> kernel_of_any_size(const TensorProductCoupling& c) {
    if (c.diagonal) return run_path<T, order, Diagonal<T, Entries, 0>>;
    switch (c.d1) {
        case 1: return run_path<T, order, Rows<T, Entries, 1>>;
        case 3: return run_path<T, order, Rows<T, Entries, 3>>;
        case 5: return run_path<T, order, Rows<T, Entries, 5>>;
        case 7: return run_path<T, order, Rows<T, Entries, 7>>;
        case 9: return run_path<T, order, Rows<T, Entries, 9>>;
        case 11: return run_path<T, order, Rows<T, Entries, 11>>;
        case 13: return run_path<T, order, Rows<T, Entries, 13>>;
        case 15: return run_path<T, order, Rows<T, Entries, 15>>;
        default: return run_path<T, order, Rows<T, Entries, 17>>;
    }
}

template <class T, Order order, int D3>
PathKernel<T> kernel_of_size(int d1) {
    switch (d1) {
        case 1: return run_path<T, order, Whole<T, 1, D3>>;
        case 3: return run_path<T, order, Whole<T, 3, D3>>;
        case 5: return run_path<T, order, Whole<T, 5, D3>>;
        default: return run_path<T, order, Whole<T, 7, D3>>;
    }
}

// The kernel of a path, by its form and its coupling.
template <class T, Order order>
PathKernel<T> path_kernel(const TensorProductPath& p, const TensorProductCoupling& c) {
    using Numbers = NumberEntries<T>;
    const int d1 = static_cast<int>(c.d1);
    if (p.copies) return copy_kernel<T, order>(c);
    if (!p.uniform) return kernel_of_any_size<T, order, RowEntries<T>>(c);
    if (!knows_size(p, c)) return kernel_of_any_size<T, order, Numbers>(c);
    if (c.diagonal && d1 == 3) return run_path<T, order, Diagonal<T, Numbers, 3>>;
    if (c.diagonal && d1 == 5) return run_path<T, order, Diagonal<T, Numbers, 5>>;
    if (c.diagonal && d1 == 7) return run_path<T, order, Diagonal<T, Numbers, 7>>;
    switch (c.d3) {
        case 1: return kernel_of_size<T, order, 1>(d1);
        case 3: return kernel_of_size<T, order, 3>(d1);
        case 5: return kernel_of_size<T, order, 5>(d1);
        default: return kernel_of_size<T, order, 7>(d1);
    }
}

}  // namespace sdas::SDAS_SIMD
