// Softmax over the edges of one receiver with an envelope and a sink, a vector register of heads at a time. Included
// only by kernel files, like vector.h.
#pragma once

#include <cstdint>
#include <limits>

#include "simd/exponential.h"

namespace sdas::SDAS_SIMD {

// Logits x[0], x[stride], .. of `count` edges become u = exp(x) / Z, Z = exp(s) + Σ f exp(x); returns exp(s) / Z.
template <class T>
SDAS_INLINE Vector<T> normalize(Vector<T>* x, int stride, const T* envelope, std::int64_t count, Vector<T> sink) {
    constexpr T infinity = std::numeric_limits<T>::infinity();
    Vector<T> top = sink;
    for (std::int64_t e = 0; e < count; ++e) {
        const Vector<T> logit = x[e * stride];
        top = select<T>(logit > top, logit, top);
    }
    top = select<T>(top == -infinity, Vector<T>{}, top);
    const Vector<T> raw_sink = exponential<T>(sink - top);
    Vector<T> sum{};
    for (std::int64_t e = 0; e < count; ++e) {
        Vector<T>& u = x[e * stride];
        u = exponential<T>(u - top);
        sum += u * envelope[e];
    }
    sum += raw_sink;
    const Vector<T> inverse = 1 / select<T>(sum == 0, Vector<T>{} + 1, sum);
    for (std::int64_t e = 0; e < count; ++e) x[e * stride] *= inverse;
    return raw_sink * inverse;
}

}  // namespace sdas::SDAS_SIMD
