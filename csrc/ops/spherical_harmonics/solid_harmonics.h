// Real solid harmonics r^l Y_lm and their first and second derivatives, contracted with given vectors.
//
// With Condon-Shortley's phase left out, the real solid harmonics of the point (X, Y, Z) are
//
//     R_lm = F_lm q_lm c_m,    R_l,-m = F_lm q_lm s_m,    c_m + i s_m = (X + iY)^m,    0 <= m <= l,
//
// where q_lm(Z, r²) = r^(l-m) (d/dt)^m P_l(t) / (l+m)! at t = Z/r, a polynomial. This scale of q is the one
// of the fast multipole method's regular harmonics: its recurrence and its derivatives are free of l and m
// but for one quotient,
//
//     q_mm = 1 / (2^m m!),    q_lm = ((2l-1) Z q_(l-1)m - r² q_(l-2)m) / (l² - m²),
//     dq_lm/dZ = q_(l-1)m,    dq_lm/dX = -X q_(l-1)(m+1),    dq_lm/dY = -Y q_(l-1)(m+1).
//
// The contractions are summed over l first, for each m, so that every element of the gradient costs six
// multiply-adds and no harmonic's derivative is ever stored. Second derivatives along a direction are these
// same sums differentiated once more.
//
// The templates take any type V with arithmetic: one number, or a SIMD vector of them. Element l² + l + m of
// an array of harmonics belongs to degree l and order m; element l(l+1)/2 + m of `scale` is F_lm.
#pragma once

#ifndef SDAS_INLINE
#define SDAS_INLINE inline __attribute__((always_inline))
#endif

namespace sdas::SDAS_SIMD {

template <class V>
struct Point {
    V x, y, z;
};

template <class V>
SDAS_INLINE V dot(const Point<V>& a, const Point<V>& b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}

constexpr int row(int l, int m) { return l * l + l + m; }
constexpr int pair(int l, int m) { return l * (l + 1) / 2 + m; }

// q_lm for l = m..L; zero below, and nothing but zeros for m > L.
template <int L, int m, class T, class V>
SDAS_INLINE void column(V z, V r2, V (&q)[L + 1]) {
    T diagonal = 1;
    for (int k = 1; k <= m; ++k) diagonal /= 2 * k;
#pragma GCC unroll 16
    for (int l = 0; l <= L; ++l) {
        if (l < m) {
            q[l] = V{};
        } else if (l == m) {
            q[l] = V{} + diagonal;
        } else if (l == m + 1) {
            q[l] = z * q[m];
        } else {
            const T quotient = T(1) / (l * l - m * m);
            q[l] = (T(2 * l - 1) * quotient * z) * q[l - 1] - (quotient * r2) * q[l - 2];
        }
    }
}

// (c, s)_m -> (c, s)_(m+1)
template <class V>
SDAS_INLINE void next_order(const Point<V>& p, V& c, V& s) {
    const V previous = c;
    c = p.x * c - p.y * s;
    s = p.x * s + p.y * previous;
}

// R[row(l, ±m)] for the orders m and above.
template <int L, int m, class T, class V>
SDAS_INLINE void solid_harmonics(const Point<V>& p, V r2, V c, V s, const T* scale, V* R) {
    V q[L + 1];
    column<L, m, T, V>(p.z, r2, q);
#pragma GCC unroll 16
    for (int l = m; l <= L; ++l) {
        const V scaled = scale[pair(l, m)] * q[l];
        R[row(l, m)] = scaled * c;
        if (m > 0) R[row(l, -m)] = scaled * s;
    }
    if constexpr (m < L) {
        next_order(p, c, s);
        solid_harmonics<L, m + 1, T, V>(p, r2, c, s, scale, R);
    }
}

// What the orders have in common when g·R is differentiated: h = (gx, gy, gz) gathers the derivatives of
// c, s and of q's Z; gr those through r², to be multiplied by (-X, -Y).
template <class V>
struct Gradient {
    V x, y, z, r;
};

// Adds the orders m and above of the gradient of sum_k g[k] R_k. q = column m; (c, s) of order m and
// (c0, s0) of order m - 1.
template <int L, int m, class T, class V>
SDAS_INLINE void gradient(const Point<V>& p, V r2, const V (&q)[L + 1], V c0, V s0, V c, V s, const T* scale,
                          const V* g, Gradient<V>& h) {
    V q1[L + 1];
    column<L, m + 1, T, V>(p.z, r2, q1);
    V a{}, b{}, az{}, bz{}, ar{}, br{};
#pragma GCC unroll 16
    for (int l = m; l <= L; ++l) {
        const V gc = scale[pair(l, m)] * g[row(l, m)];
        if (m > 0) a += gc * q[l];
        if (l > m) az += gc * q[l - 1];
        if (l > m + 1) ar += gc * q1[l - 1];
        if (m > 0) {
            const V gs = scale[pair(l, m)] * g[row(l, -m)];
            b += gs * q[l];
            if (l > m) bz += gs * q[l - 1];
            if (l > m + 1) br += gs * q1[l - 1];
        }
    }
    h.z += c * az + s * bz;
    h.r += c * ar + s * br;
    if constexpr (m > 0) {
        h.x += T(m) * (a * c0 + b * s0);
        h.y += T(m) * (b * c0 - a * s0);
    }
    if constexpr (m < L) {
        V c1 = c, s1 = s;
        next_order(p, c1, s1);
        gradient<L, m + 1, T, V>(p, r2, q1, c, s, c1, s1, scale, g, h);
    }
}

// A number and its derivative along a direction.
template <class V>
struct Dual {
    V value, slope;
};

template <class V>
SDAS_INLINE Dual<V> operator+(const Dual<V>& a, const Dual<V>& b) {
    return {a.value + b.value, a.slope + b.slope};
}

template <class V>
SDAS_INLINE Dual<V> operator-(const Dual<V>& a, const Dual<V>& b) {
    return {a.value - b.value, a.slope - b.slope};
}

template <class V>
SDAS_INLINE Dual<V> operator*(const Dual<V>& a, const Dual<V>& b) {
    return {a.value * b.value, a.value * b.slope + a.slope * b.value};
}

// Derivatives of q_lm along (ux, uy, uz), given uz, rho = X ux + Y uy and the columns m and m + 1.
template <int L, int m, class V>
SDAS_INLINE void column_slope(V uz, V rho, const V (&q)[L + 1], const V (&q1)[L + 1], V (&slope)[L + 1]) {
#pragma GCC unroll 16
    for (int l = 0; l <= L; ++l) {
        slope[l] = l <= m ? V{} : l == m + 1 ? uz * q[l - 1] : uz * q[l - 1] - rho * q1[l - 1];
    }
}

// Adds the orders m and above of the derivative, along the direction u, of the gradient of sum_k g[k] R_k,
// and writes those of the derivative of R itself. q, q1 = columns m, m + 1, and dq = the slope of q.
template <int L, int m, class T, class V>
SDAS_INLINE void second(const Point<V>& p, V r2, const Point<V>& u, V rho, const V (&q)[L + 1], const V (&q1)[L + 1],
                        const V (&dq)[L + 1], Dual<V> c0, Dual<V> s0, Dual<V> c, Dual<V> s, const T* scale, const V* g,
                        V* slope, Dual<V> (&h)[4]) {
    V q2[L + 1], dq1[L + 1];
    column<L, m + 2, T, V>(p.z, r2, q2);
    column_slope<L, m + 1, V>(u.z, rho, q1, q2, dq1);
    Dual<V> a{}, b{}, az{}, bz{}, ar{}, br{};
#pragma GCC unroll 16
    for (int l = m; l <= L; ++l) {
        const T f = scale[pair(l, m)];
        const auto add = [&](V weight, Dual<V>& whole, Dual<V>& by_z, Dual<V>& by_r) {
            if (m > 0) {
                whole.value += weight * q[l];
                whole.slope += weight * dq[l];
            }
            if (l > m) {
                by_z.value += weight * q[l - 1];
                by_z.slope += weight * dq[l - 1];
            }
            if (l > m + 1) {
                by_r.value += weight * q1[l - 1];
                by_r.slope += weight * dq1[l - 1];
            }
        };
        add(f * g[row(l, m)], a, az, ar);
        slope[row(l, m)] = f * (q[l] * c.slope + dq[l] * c.value);
        if (m > 0) {
            add(f * g[row(l, -m)], b, bz, br);
            slope[row(l, -m)] = f * (q[l] * s.slope + dq[l] * s.value);
        }
    }
    h[2] = h[2] + c * az + s * bz;
    h[3] = h[3] + c * ar + s * br;
    if constexpr (m > 0) {
        const Dual<V> order{V{} + T(m), V{}};
        h[0] = h[0] + order * (a * c0 + b * s0);
        h[1] = h[1] + order * (b * c0 - a * s0);
    }
    if constexpr (m < L) {
        const Dual<V> x{p.x, u.x}, y{p.y, u.y};
        second<L, m + 1, T, V>(p, r2, u, rho, q1, q2, dq1, c, s, x * c - y * s, x * s + y * c, scale, g, slope, h);
    }
}

}  // namespace sdas::SDAS_SIMD
