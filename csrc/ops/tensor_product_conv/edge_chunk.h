// What the kernels of the convolution share: packed rows of channels, the chunk of edges whose numbers M_e are at hand,
// and an edge's weights. Included only by kernel files, like vector.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops/tensor_product_conv/tensor_product_conv.h"
#include "simd/channel_rows.h"
#include "simd/vector_products.h"

namespace sdas::SDAS_SIMD {

// Numbers in a row of packed channels.
constexpr std::int64_t padded(std::int64_t mul) {
    return (mul + tensor_product_conv_padding - 1) / tensor_product_conv_padding * tensor_product_conv_padding;
}

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

template <class T, int G>
SDAS_INLINE Pack<T, G> load_pack(const T* p) {
    Pack<T, G> rows;
    for (int g = 0; g < G; ++g) rows.v[g] = load<T>(p + g * width<T>);
    return rows;
}

template <class T, int G>
SDAS_INLINE void store_pack(T* p, const Pack<T, G>& rows) {
    for (int g = 0; g < G; ++g) store<T>(p + g * width<T>, rows.v[g]);
}

// The edges first .. first + count of a list, and M_e of every path, one lane per edge.
template <class T>
class Chunk {
  public:
    explicit Chunk(const TensorProductConv<T>& job)
        : job_(job), y_(job.dim2), matrix_(job.pairs + 1), matrix_step_(job.second_order ? job.pairs + 1 : 0) {}

    bool holds(std::int64_t place) const { return place < first_ + count_; }
    int lane(std::int64_t place) const { return static_cast<int>(place - first_); }

    // Numbers of an edge's pairs, width<T> apart.
    const T* matrix(int lane) const { return reinterpret_cast<const T*>(matrix_.data()) + lane; }
    const T* matrix_step(int lane) const { return reinterpret_cast<const T*>(matrix_step_.data()) + lane; }

    void make(std::int64_t first, std::int64_t last) {
        first_ = first;
        count_ = std::min<std::int64_t>(width<T>, last - first);
        make(job_.y, matrix_.data());
        if (!job_.second_order) return;
        if (job_.y_step != nullptr) {
            make(job_.y_step, matrix_step_.data());
        } else {
            std::fill(matrix_step_.begin(), matrix_step_.end(), Vector<T>{});
        }
    }

  private:
    const TensorProductConv<T>& job_;
    std::int64_t first_ = 0, count_ = 0;
    std::vector<Vector<T>> y_, matrix_, matrix_step_;

    void make(const T* y, Vector<T>* matrix) {
        for (int lane = 0; lane < width<T>; ++lane) {
            const std::int64_t place = first_ + std::min<std::int64_t>(lane, count_ - 1);
            const T* row = y + (job_.order != nullptr ? job_.order[place] : place) * job_.dim2;
            for (std::int64_t j = 0; j < job_.dim2; ++j) y_[j][lane] = row[j];
        }
        const std::int32_t *start = job_.term_start, *j = job_.term_j;
        for (std::int64_t p = 0; p < job_.pairs; ++p) {
            Vector<T> sum{};
            for (int q = start[p]; q < start[p + 1]; ++q) sum += job_.term_value[q] * y_[j[q]];
            matrix[p] = sum;
        }
    }
};

// A path's weights of one edge as rows of channels: where they lie, or copied where they do not fill vectors.
template <class T>
class Weights {
  public:
    Weights(const TensorProductConv<T>& job, std::int64_t most, T otherwise)
        : job_(job), otherwise_(most / width<T>, Vector<T>{} + otherwise), zero_(most / width<T>), copy_(zero_) {}

    const T* operator()(const T* array, std::int64_t edge, const TensorProductConvPath& path) {
        if (path.weight < 0) return numbers(otherwise_);
        if (array == nullptr) return numbers(zero_);
        const T* w = array + (job_.shared ? 0 : edge * job_.weight_numel) + path.weight;
        if (path.weight_channel == 1 && path.mul % width<T> == 0) return w;
        T* copy = numbers(copy_);
        for (std::int64_t c = 0; c < path.mul; ++c) copy[c] = w[c * path.weight_channel];
        for (std::int64_t c = path.mul; c % width<T> != 0; ++c) copy[c] = T(0);
        return copy;
    }

  private:
    const TensorProductConv<T>& job_;
    std::vector<Vector<T>> otherwise_, zero_, copy_;

    static T* numbers(std::vector<Vector<T>>& rows) { return reinterpret_cast<T*>(rows.data()); }
};

// Calls body(Constant<G>, first channel) for groups of two vectors of channels, and one of one where that is left.
template <class T, class Body>
SDAS_INLINE void for_groups(std::int64_t mul, const Body& body) {
    std::int64_t first = 0;
    for (; first + width<T> < mul; first += 2 * width<T>) body(Constant<2>{}, first);
    if (first < mul) body(Constant<1>{}, first);
}

// Numbers in the longest row of channels.
template <class T>
std::int64_t widest(const TensorProductConv<T>& job) {
    std::int64_t most = 0;
    for (std::int64_t n = 0; n < job.paths; ++n) most = std::max(most, padded(job.path[n].mul));
    return most;
}

}  // namespace sdas::SDAS_SIMD
