// Kernels of the real spherical harmonics: values, gradient, second derivatives.
//
// A vector register holds one component of width<T> vectors, so that the recurrences of solid_harmonics.h
// run without shuffles; their M results go to a tile in the first-level cache, and leave it transposed. The
// last, incomplete block is padded with zeros and takes the same path, so a vector's result does not depend
// on its place. For a given degree everything is unrolled.
#include "ops/spherical_harmonics/spherical_harmonics.h"

#include "ops/spherical_harmonics/solid_harmonics.h"
#include "simd/streaming.h"
#include "simd/transpose.h"

namespace sdas::SDAS_SIMD {
namespace {

// e3nn's axes: its (x, y, z) are the (Y, Z, X) of the textbook's harmonics.
template <class T>
SDAS_INLINE Point<Vector<T>> load_points(const T* block) {
    Vector<T> tile[3];
    load_rows<T, 3>(block, tile);
    return {tile[2], tile[0], tile[1]};
}

template <class T>
SDAS_INLINE void store_points(T* block, const Point<Vector<T>>& p) {
    const Vector<T> tile[] = {p.y, p.z, p.x};
    store_rows<T, 3>(block, tile);
}

// Limits between which a squared norm neither over- nor underflows, and powers of two that bring the vectors
// beyond them back.
template <class T>
struct Range;
template <>
struct Range<float> {
    static constexpr float least = 0x1p-100f, most = 0x1p+100f, enlarge = 0x1p+90f, reduce = 0x1p-70f;
};
template <>
struct Range<double> {
    static constexpr double least = 0x1p-900, most = 0x1p+900, enlarge = 0x1p+600, reduce = 0x1p-560;
};

// A vector's direction and the inverse of its norm, 1/r = inverse * factor. Both are zero at the origin.
template <class T>
struct Polar {
    Point<Vector<T>> unit;
    Vector<T> inverse, factor, r2;  // r2: the squared norm of `unit`, 1 or 0

    SDAS_INLINE explicit Polar(Point<Vector<T>> v) {
        using V = Vector<T>;
        V square = dot(v, v);
        inverse = inverse_square_root<T>(square);
        factor = r2 = V{} + 1;
        // False for what is not a number, which then takes the longer way and stays what it is.
        const auto inside = (square > Range<T>::least) & (square < Range<T>::most);
        if (!all<T>(inside)) {
            // What is inside stays as it is, so that a vector's result does not depend on its neighbors in the block.
            factor = select<T>(inside, factor, select<T>(square < 1, V{} + Range<T>::enlarge, V{} + Range<T>::reduce));
            v = {v.x * factor, v.y * factor, v.z * factor};
            square = dot(v, v);
            const auto zero = square == 0;
            inverse = select<T>(inside, inverse, select<T>(zero, V{}, 1 / square_root(square)));
            r2 = select<T>(zero, V{}, r2);
        }
        unit = {v.x * inverse, v.y * inverse, v.z * inverse};
    }

    SDAS_INLINE Point<Vector<T>> over_norm(const Point<Vector<T>>& h) const {
        return {h.x * inverse * factor, h.y * inverse * factor, h.z * inverse * factor};
    }

    // The part of h perpendicular to the vector, over the norm: the derivative of the unit vector along h.
    SDAS_INLINE Point<Vector<T>> project(const Point<Vector<T>>& h) const {
        const Vector<T> along = dot(unit, h);
        return over_norm({h.x - unit.x * along, h.y - unit.y * along, h.z - unit.z * along});
    }
};

// Where the harmonics go: rows that begin anywhere, or a block of rows that begins at a multiple of a vector, and then
// by whole vectors, past the caches where there are too many.
enum class Target { anywhere, aligned, past_caches };

template <Target target, int M, class T>
SDAS_INLINE void store_harmonics(T* block, const Vector<T>* tile) {
    constexpr int W = width<T>;
    if constexpr (target == Target::past_caches) {
        put_rows<T, M>(tile, [&](int k, Vector<T> v) { stream<T>(block + k * W, v); });
    } else if constexpr (target == Target::aligned && M >= W) {
        put_rows<T, M>(tile, [&](int k, Vector<T> v) { store<T>(block + k * W, v); });
    } else {
        store_rows<T, M>(block, tile);
    }
}

template <int L, Target target, class T>
SDAS_INLINE void forward(const SphericalHarmonics<T>& job, const T* vectors, T* harmonics) {
    using V = Vector<T>;
    Point<V> p = load_points<T>(vectors);
    V r2;
    if (job.normalize) {
        const Polar<T> polar(p);
        p = polar.unit;
        r2 = polar.r2;
    } else {
        r2 = dot(p, p);
    }
    V tile[(L + 1) * (L + 1)];
    solid_harmonics<L, 0, T, V>(p, r2, V{} + 1, V{}, job.scale, tile);
    store_harmonics<target, (L + 1) * (L + 1), T>(harmonics, tile);
}

template <int L, class T>
SDAS_INLINE Point<Vector<T>> solid_gradient(const Point<Vector<T>>& p, Vector<T> r2, const T* scale,
                                            const Vector<T>* g) {
    using V = Vector<T>;
    V q[L + 1];
    column<L, 0, T, V>(p.z, r2, q);
    Gradient<V> h{};
    gradient<L, 0, T, V>(p, r2, q, V{}, V{}, V{} + 1, V{}, scale, g, h);
    return {h.x - p.x * h.r, h.y - p.y * h.r, h.z};
}

template <int L, class T>
SDAS_INLINE void backward(const SphericalHarmonics<T>& job, const T* vectors, const T* grad, T* gradient) {
    using V = Vector<T>;
    V g[(L + 1) * (L + 1)];
    load_rows<T, (L + 1) * (L + 1)>(grad, g);
    const Point<V> v = load_points<T>(vectors);
    if (job.normalize) {
        const Polar<T> polar(v);
        store_points<T>(gradient, polar.project(solid_gradient<L, T>(polar.unit, V{} + 1, job.scale, g)));
    } else {
        store_points<T>(gradient, solid_gradient<L, T>(v, dot(v, v), job.scale, g));
    }
}

// The gradient of g·R and its derivative along u; slope receives the derivative of R along u.
template <int L, class T>
SDAS_INLINE void solid_second(const Point<Vector<T>>& p, Vector<T> r2, const Point<Vector<T>>& u, const T* scale,
                              const Vector<T>* g, Vector<T>* slope, Point<Vector<T>>& first,
                              Point<Vector<T>>& second_along) {
    using V = Vector<T>;
    const V rho = p.x * u.x + p.y * u.y;
    V q[L + 1], q1[L + 1], dq[L + 1];
    column<L, 0, T, V>(p.z, r2, q);
    column<L, 1, T, V>(p.z, r2, q1);
    column_slope<L, 0, V>(u.z, rho, q, q1, dq);
    Dual<V> h[4]{};
    const Dual<V> zero{}, one{V{} + 1, V{}};
    second<L, 0, T, V>(p, r2, u, rho, q, q1, dq, zero, zero, one, zero, scale, g, slope, h);
    const Dual<V> x = h[0] - Dual<V>{p.x, u.x} * h[3], y = h[1] - Dual<V>{p.y, u.y} * h[3];
    first = {x.value, y.value, h[2].value};
    second_along = {x.slope, y.slope, h[2].slope};
}

template <int L, class T>
SDAS_INLINE void double_backward(const SphericalHarmonics<T>& job, const T* vectors, const T* grad, const T* grad_grad,
                                 T* harmonics, T* gradient) {
    using V = Vector<T>;
    constexpr int M = (L + 1) * (L + 1);
    V g[M], slope[M];
    load_rows<T, M>(grad, g);
    const Point<V> v = load_points<T>(vectors), G = load_points<T>(grad_grad);
    Point<V> h, Hu;
    if (job.normalize) {
        // The gradient is h - u(u·h), over r. Its product with G, differentiated: the derivative through h is
        // H du with du = (G - u(u·G)) / r, the one through the explicit u is -(h(u·G) + G(u·h)) / r, both then
        // projected; the one through r is -u (h·du) / r.
        const Polar<T> polar(v);
        const Point<V>& u = polar.unit;
        const Point<V> du = polar.project(G);
        solid_second<L, T>(u, V{} + 1, du, job.scale, g, slope, h, Hu);
        const V uG = dot(u, G), uh = dot(u, h), hdu = dot(h, du);
        const Point<V> turn = polar.over_norm({h.x * uG + G.x * uh, h.y * uG + G.y * uh, h.z * uG + G.z * uh});
        const Point<V> across = polar.project({Hu.x - turn.x, Hu.y - turn.y, Hu.z - turn.z});
        const Point<V> along = polar.over_norm({u.x * hdu, u.y * hdu, u.z * hdu});
        store_points<T>(gradient, {across.x - along.x, across.y - along.y, across.z - along.z});
    } else {
        solid_second<L, T>(v, dot(v, v), G, job.scale, g, slope, h, Hu);
        store_points<T>(gradient, Hu);
    }
    store_rows<T, M>(harmonics, slope);
}

template <class T>
void copy(T* to, const T* from, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = from[i];
}

template <int L, Target target, class T>
void forward_range(const SphericalHarmonics<T>& job, std::int64_t begin, std::int64_t end) {
    constexpr int W = width<T>, M = (L + 1) * (L + 1);
    std::int64_t i = begin;
    // Where there are few harmonics for a vector, the processor does not read far enough ahead by itself.
    constexpr int ahead = 2048 / sizeof(T);
    for (; i + W <= end; i += W) {
        for (int k = 0; k < 3 * W; k += line<T>) __builtin_prefetch(job.vectors + 3 * i + ahead + k);
        forward<L, target, T>(job, job.vectors + 3 * i, job.harmonics + M * i);
    }
    if (const std::int64_t rest = end - i) {
        T vectors[3 * W] = {}, harmonics[M * W];
        copy(vectors, job.vectors + 3 * i, 3 * rest);
        forward<L, Target::anywhere, T>(job, vectors, harmonics);
        copy(job.harmonics + M * i, harmonics, M * rest);
    }
    if (target == Target::past_caches) finish_streams();
}

template <int L, class T>
void forward_range(const SphericalHarmonics<T>& job, std::int64_t begin, std::int64_t end) {
    constexpr int M = (L + 1) * (L + 1);
    // Blocks start at multiples of a vector: all are aligned, or none.
    if (!aligned(job.harmonics + M * begin)) return forward_range<L, Target::anywhere, T>(job, begin, end);
    if (exceeds_caches(job.count * M * sizeof(T))) return forward_range<L, Target::past_caches, T>(job, begin, end);
    forward_range<L, Target::aligned, T>(job, begin, end);
}

template <int L, class T>
void backward_range(const SphericalHarmonics<T>& job, std::int64_t begin, std::int64_t end) {
    constexpr int W = width<T>, M = (L + 1) * (L + 1);
    std::int64_t i = begin;
    for (; i + W <= end; i += W) backward<L, T>(job, job.vectors + 3 * i, job.grad + M * i, job.gradient + 3 * i);
    if (const std::int64_t rest = end - i) {
        T vectors[3 * W] = {}, grad[M * W] = {}, gradient[3 * W];
        copy(vectors, job.vectors + 3 * i, 3 * rest);
        copy(grad, job.grad + M * i, M * rest);
        backward<L, T>(job, vectors, grad, gradient);
        copy(job.gradient + 3 * i, gradient, 3 * rest);
    }
}

template <int L, class T>
void double_backward_range(const SphericalHarmonics<T>& job, std::int64_t begin, std::int64_t end) {
    constexpr int W = width<T>, M = (L + 1) * (L + 1);
    std::int64_t i = begin;
    for (; i + W <= end; i += W) {
        double_backward<L, T>(job, job.vectors + 3 * i, job.grad + M * i, job.grad_grad + 3 * i, job.harmonics + M * i,
                              job.gradient + 3 * i);
    }
    if (const std::int64_t rest = end - i) {
        T vectors[3 * W] = {}, grad[M * W] = {}, grad_grad[3 * W] = {}, harmonics[M * W], gradient[3 * W];
        copy(vectors, job.vectors + 3 * i, 3 * rest);
        copy(grad, job.grad + M * i, M * rest);
        copy(grad_grad, job.grad_grad + 3 * i, 3 * rest);
        double_backward<L, T>(job, vectors, grad, grad_grad, harmonics, gradient);
        copy(job.harmonics + M * i, harmonics, M * rest);
        copy(job.gradient + 3 * i, gradient, 3 * rest);
    }
}

template <class T>
void fill(T* p, std::int64_t count, T value) {
    for (std::int64_t i = 0; i < count; ++i) p[i] = value;
}

// Calls body with the degree as a compile-time constant, from 1 on.
template <int L = 1, class Body>
SDAS_INLINE void for_degree(int lmax, const Body& body) {
    if (lmax == L) {
        body(Constant<L>{});
    } else if constexpr (L < spherical_harmonics_max_degree) {
        for_degree<L + 1>(lmax, body);
    }
}

}  // namespace

template <class T>
void spherical_harmonics_forward(const SphericalHarmonics<T>& job, std::int64_t begin, std::int64_t end) {
    if (job.lmax == 0) return fill(job.harmonics + begin, end - begin, job.scale[0]);
    for_degree(job.lmax, [&](auto degree) { forward_range<decltype(degree)::value, T>(job, begin, end); });
}

template <class T>
void spherical_harmonics_backward(const SphericalHarmonics<T>& job, std::int64_t begin, std::int64_t end) {
    if (job.lmax == 0) return fill(job.gradient + 3 * begin, 3 * (end - begin), T(0));
    for_degree(job.lmax, [&](auto degree) { backward_range<decltype(degree)::value, T>(job, begin, end); });
}

template <class T>
void spherical_harmonics_double_backward(const SphericalHarmonics<T>& job, std::int64_t begin, std::int64_t end) {
    if (job.lmax == 0) {
        fill(job.harmonics + begin, end - begin, T(0));
        return fill(job.gradient + 3 * begin, 3 * (end - begin), T(0));
    }
    for_degree(job.lmax, [&](auto degree) { double_backward_range<decltype(degree)::value, T>(job, begin, end); });
}

template void spherical_harmonics_forward(const SphericalHarmonics<float>&, std::int64_t, std::int64_t);
template void spherical_harmonics_forward(const SphericalHarmonics<double>&, std::int64_t, std::int64_t);
template void spherical_harmonics_backward(const SphericalHarmonics<float>&, std::int64_t, std::int64_t);
template void spherical_harmonics_backward(const SphericalHarmonics<double>&, std::int64_t, std::int64_t);
template void spherical_harmonics_double_backward(const SphericalHarmonics<float>&, std::int64_t, std::int64_t);
template void spherical_harmonics_double_backward(const SphericalHarmonics<double>&, std::int64_t, std::int64_t);

}  // namespace sdas::SDAS_SIMD
