// Kernels of the radial basis: R_k(d) = √(2/c) sin(kπ d/c)/d · f(d/c), its first and its second derivative.
//
// A vector register holds one quantity of width<T> lengths. With θ = π d/c the functions s_k = sin(kθ)/d follow from
// s_1 by a recurrence that stays exact where θ is small,
//
//     D_1 = s_1,   D_{k+1} = D_k + δ s_k,   s_{k+1} = s_k + D_{k+1},   δ = 2(cos θ - 1),
//
// and so do their derivatives by d, by the product rule. In the upper half of the range θ is replaced by π - θ, from
// which sin(kθ) differs by the sign (-1)^{k+1}. So angles are at most π/2, where Taylor polynomials suffice, and below
// that half no quotient by d is ever formed: s_1 = π/c · sinc θ and its derivatives are polynomials, exact down to 0.
#include "ops/radial_basis/radial_basis.h"

#include "simd/vector.h"

namespace sdas::SDAS_SIMD {
namespace {

constexpr double pi = 3.14159265358979323846;

// Terms after which a Taylor polynomial of sine or cosine on [0, π/2] is exact to rounding.
template <class T>
constexpr int terms = sizeof(T) == 4 ? 8 : 13;

// Σ_m (-1)^m a_m y^m with a_m / a_{m-1} = numerator(m) / ((2m + first)(2m + first + 1)).
template <class T, class Numerator>
SDAS_INLINE Vector<T> alternating(Vector<T> y, int first, const Numerator& numerator) {
    Vector<T> sum = Vector<T>{} + 1;
    for (int m = terms<T> - 1; m > 0; --m) {
        sum = 1 - sum * y * T(numerator(m) / double((2 * m + first) * (2 * m + first + 1)));
    }
    return sum;
}

// A function of the length, with the derivatives that an order of the ladder needs.
template <class T, int order>
struct Jet {
    Vector<T> d[order + 1];
};

// What the recurrence starts from.
template <class T, int order>
struct Bessel {
    Jet<T, order> first;  // s_1
    Jet<T, order> delta;  // δ
    Vector<T> sign;       // -1 in the upper half

    // length <= cutoff, and `rest` = cutoff - length.
    SDAS_INLINE Bessel(Vector<T> length, Vector<T> rest, double cutoff) {
        using V = Vector<T>;
        const T rate = static_cast<T>(pi / cutoff);
        const auto upper = length > rest;
        const V angle = select<T>(upper, rest, length) * rate, y = angle * angle;
        const V slope = select<T>(upper, V{} - rate, V{} + rate);  // of the angle by the length
        const V over = 1 / select<T>(upper, length, V{} + static_cast<T>(cutoff));
        const V sinc = alternating<T>(y, 0, [](int) { return 1.0; });
        const V sine = angle * sinc;
        delta.d[0] = -y * alternating<T>(y, 1, [](int) { return 1.0; });
        const V cosine = 1 + delta.d[0] * T(0.5);
        first.d[0] = select<T>(upper, sine * over, rate * sinc);
        if constexpr (order > 0) {
            delta.d[1] = -2 * slope * sine;
            const V sinc1 = -angle * T(1.0 / 3) * alternating<T>(y, 2, [](int m) { return (m + 1.0) / m; });
            first.d[1] = select<T>(upper, (slope * cosine - first.d[0]) * over, rate * rate * sinc1);
        }
        if constexpr (order > 1) {
            delta.d[2] = -2 * slope * slope * cosine;
            const auto ratio = [](int m) { return (m + 1.0) * (2 * m + 1) / (m * (2 * m - 1.0)); };
            const V sinc2 = -T(1.0 / 3) * alternating<T>(y, 2, ratio);
            first.d[2] = select<T>(upper, (-slope * slope * sine - 2 * first.d[1]) * over, rate * rate * rate * sinc2);
        }
        sign = select<T>(upper, V{} - 1, V{} + 1);
    }

    // Calls body(k, s) for k = 0 .. functions - 1 with the signed jet of s_{k+1}.
    template <class Body>
    SDAS_INLINE void run(int functions, const Body& body) const {
        Jet<T, order> s = first, step = first;
        Vector<T> flip = Vector<T>{} + 1;
        for (int k = 0; k < functions; ++k) {
            Jet<T, order> given;
            for (int i = 0; i <= order; ++i) given.d[i] = flip * s.d[i];
            body(k, given);
            if constexpr (order > 1) {
                step.d[2] += delta.d[2] * s.d[0] + 2 * delta.d[1] * s.d[1] + delta.d[0] * s.d[2];
            }
            if constexpr (order > 0) step.d[1] += delta.d[1] * s.d[0] + delta.d[0] * s.d[1];
            step.d[0] += delta.d[0] * s.d[0];
            for (int i = 0; i <= order; ++i) s.d[i] += step.d[i];
            flip *= sign;
        }
    }
};

// f = (1-u)³ Σ_{k<p} (k+1)(k+2)/2 u^k with u = d/c, which does not cancel near u = 1, and its derivatives by d.
template <class T, int order>
SDAS_INLINE Jet<T, order> envelope(Vector<T> length, Vector<T> rest, double cutoff, int p) {
    using V = Vector<T>;
    const T inverse = static_cast<T>(1 / cutoff);
    const V u = length * inverse, v = rest * inverse;
    V sum = V{} + static_cast<T>(0.5 * p * (p + 1));
    for (int k = p - 2; k >= 0; --k) sum = sum * u + static_cast<T>(0.5 * (k + 1) * (k + 2));
    Jet<T, order> f;
    f.d[0] = v * v * v * sum;
    if constexpr (order > 0) {
        V power = V{} + static_cast<T>(-0.5 * p * (p + 1) * (p + 2)) * inverse;
        for (int k = 0; k < p - 2; ++k) power *= u;
        f.d[1] = power * u * v * v;
        if constexpr (order > 1) {
            f.d[2] = power * inverse * v * (static_cast<T>(p - 1) - static_cast<T>(p + 1) * u);
        }
    }
    return f;
}

// Elements 0, stride, 2 stride ..; zero from `lanes` on.
template <class T>
SDAS_INLINE Vector<T> gather(const T* p, std::int64_t stride, int lanes) {
    Vector<T> v{};
    for (int i = 0; i < lanes; ++i) v[i] = p[i * stride];
    return v;
}

template <class T>
SDAS_INLINE void scatter(T* p, std::int64_t stride, int lanes, Vector<T> v) {
    for (int i = 0; i < lanes; ++i) p[i * stride] = v[i];
}

// The envelope, the start of the recurrence, and √(2/c), for `lanes` lengths from the i-th on.
template <class T, int order>
struct Block {
    Vector<T> length, rest;
    Jet<T, order> f;
    Bessel<T, order> bessel;
    T scale;

    SDAS_INLINE Block(const RadialBasis<T>& job, std::int64_t i, int lanes) : Block(job, clipped(job, i, lanes)) {}

  private:
    // What is not a number stays what it is.
    static SDAS_INLINE Vector<T> clipped(const RadialBasis<T>& job, std::int64_t i, int lanes) {
        const Vector<T> d = gather(job.lengths + i, 1, lanes), most = Vector<T>{} + static_cast<T>(job.cutoff);
        return select<T>(d >= most, most, d);
    }

    SDAS_INLINE Block(const RadialBasis<T>& job, Vector<T> d)
        : length(d),
          rest(static_cast<T>(job.cutoff) - d),
          f(envelope<T, order>(length, rest, job.cutoff, job.exponent)),
          bessel(length, rest, job.cutoff),
          scale(static_cast<T>(__builtin_sqrt(2 / job.cutoff))) {}
};

template <class T>
SDAS_INLINE void forward(const RadialBasis<T>& job, std::int64_t i, int lanes) {
    const Block<T, 0> b(job, i, lanes);
    const Vector<T> f = b.scale * b.f.d[0];
    const int n = job.functions;
    b.bessel.run(n, [&](int k, const Jet<T, 0>& s) { scatter(job.radial + i * n + k, n, lanes, f * s.d[0]); });
    if (job.envelope != nullptr) scatter(job.envelope + i, 1, lanes, b.f.d[0]);
}

template <class T>
SDAS_INLINE void backward(const RadialBasis<T>& job, std::int64_t i, int lanes) {
    using V = Vector<T>;
    const Block<T, 1> b(job, i, lanes);
    const int n = job.functions;
    V g0{}, g1{};  // Σ_k grad_k s_k and Σ_k grad_k s_k'
    b.bessel.run(n, [&](int k, const Jet<T, 1>& s) {
        const V g = gather(job.grad + i * n + k, n, lanes);
        g0 += g * s.d[0];
        g1 += g * s.d[1];
    });
    V by = b.scale * (g1 * b.f.d[0] + g0 * b.f.d[1]);
    if (job.grad_envelope != nullptr) by += gather(job.grad_envelope + i, 1, lanes) * b.f.d[1];
    scatter(job.by_lengths + i, 1, lanes, by);
}

template <class T>
SDAS_INLINE void double_backward(const RadialBasis<T>& job, std::int64_t i, int lanes) {
    using V = Vector<T>;
    const Block<T, 2> b(job, i, lanes);
    const V along = gather(job.grad_grad + i, 1, lanes), scaled = b.scale * along;
    const int n = job.functions;
    V g0{}, g1{}, g2{};
    b.bessel.run(n, [&](int k, const Jet<T, 2>& s) {
        const V g = gather(job.grad + i * n + k, n, lanes);
        g0 += g * s.d[0];
        g1 += g * s.d[1];
        g2 += g * s.d[2];
        scatter(job.radial + i * n + k, n, lanes, scaled * (s.d[1] * b.f.d[0] + s.d[0] * b.f.d[1]));
    });
    V by = b.scale * (g2 * b.f.d[0] + 2 * g1 * b.f.d[1] + g0 * b.f.d[2]);
    if (job.grad_envelope != nullptr) by += gather(job.grad_envelope + i, 1, lanes) * b.f.d[2];
    if (job.envelope != nullptr) scatter(job.envelope + i, 1, lanes, along * b.f.d[1]);
    scatter(job.by_lengths + i, 1, lanes, along * by);
}

}  // namespace

#define SDAS_RADIAL_BASIS(order)                                                                 \
    template <class T>                                                                           \
    void radial_basis_##order(const RadialBasis<T>& job, std::int64_t begin, std::int64_t end) { \
        std::int64_t i = begin;                                                                  \
        for (; i + width<T> <= end; i += width<T>) order<T>(job, i, width<T>);                   \
        if (i < end) order<T>(job, i, static_cast<int>(end - i));                                \
    }                                                                                            \
    template void radial_basis_##order(const RadialBasis<float>&, std::int64_t, std::int64_t);   \
    template void radial_basis_##order(const RadialBasis<double>&, std::int64_t, std::int64_t);

SDAS_RADIAL_BASIS(forward)
SDAS_RADIAL_BASIS(backward)
SDAS_RADIAL_BASIS(double_backward)
#undef SDAS_RADIAL_BASIS

}  // namespace sdas::SDAS_SIMD
