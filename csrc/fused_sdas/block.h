// A block of nodes, which the network's work on nodes goes through one after the other, and what its parts share.
// Included only by kernel files, like vector.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "fused_sdas/dense.h"
#include "fused_sdas/kernels.h"
#include "simd/exponential.h"

namespace sdas::SDAS_SIMD {

constexpr int node_block = 32;

// σ(h) and what follows from it: silu = h σ and its first and second derivative.
template <class T>
SDAS_INLINE Vector<T> sigmoid(Vector<T> h) {
    return 1 / (1 + exponential<T>(-h));
}

template <class T>
SDAS_INLINE Vector<T> silu_slope(Vector<T> h, Vector<T> s) {
    return s * (1 + h * (1 - s));
}

template <class T>
SDAS_INLINE Vector<T> silu_curvature(Vector<T> h, Vector<T> s) {
    return s * (1 - s) * (2 + h * (1 - 2 * s));
}

// Calls body(load, store) for consecutive vectors of `count` numbers: load(p), store(p, v) at the place in turn.
template <class T, class Body>
SDAS_INLINE void for_vectors(std::int64_t count, const Body& body) {
    for (std::int64_t k = 0; k < count; k += width<T>) {
        const int rest = static_cast<int>(std::min<std::int64_t>(width<T>, count - k));
        body([&](const T* p) { return load_up_to(p + k, rest); },
             [&](T* p, Vector<T> v) { store_up_to(p + k, v, rest); });
    }
}

// Nodes begin .. begin + count <= node_block, and sizes.
template <class T>
class NodeBlock {
  public:
    explicit NodeBlock(const NetworkPass<T>& pass)
        : net_(*pass.net),
          kind_(net_.kind(pass.layer)),
          maps_(pass.maps[pass.layer]),
          pass_(pass),
          layer_(pass.layer),
          C(net_.channels),
          K(net_.heads),
          D(net_.key_channels),
          M(net_.m()),
          L(net_.lmax),
          features_(std::int64_t{M} * C),
          query_(std::int64_t{net_.places()} * K),
          y_(room(features_)),
          by_y_(room(features_)),
          s_(room(1)) {}

    void move(std::int64_t begin, std::int64_t count) { begin_ = begin, count_ = count; }

  protected:
    // Rows of `numbers` for each node of a block, which the thread keeps for the next block's.
    T* room(std::int64_t numbers) {
        static thread_local std::vector<std::vector<Vector<T>>> kept;
        const std::size_t vectors = static_cast<std::size_t>((node_block * numbers + width<T> - 1) / width<T>);
        if (kept.size() == rooms_) kept.emplace_back();
        std::vector<Vector<T>>& room = kept[rooms_++];
        if (room.size() < vectors) room.resize(vectors);
        return reinterpret_cast<T*>(room.data());
    }

    // The block's rows of an array [N, numbers].
    template <class Number>
    Number* of_block(Number* array, std::int64_t numbers) const {
        return array + begin_ * numbers;
    }

    T weight_of(int m) const { return T(1) / T((2 * degree_of(m) + 1) * (L + 1) * C); }

    // 1 / √(mean over degrees of the mean square + ε) of a node's features.
    T inverse_rms(const T* x) const {
        T mean = 0;
        for (int m = 0; m < M; ++m) mean += weight_of(m) * dot<T>(x + m * C, x + m * C, C);
        return T(1) / std::sqrt(mean + static_cast<T>(net_.epsilon));
    }

    // y = s x; s is kept for each node.
    void normalize(T* y, T* s, const T* x) const {
        for (std::int64_t i = 0; i < count_; ++i) {
            s[i] = inverse_rms(x + i * features_);
            for (std::int64_t k = i * features_; k < (i + 1) * features_; ++k) y[k] = s[i] * x[k];
        }
    }

    // by_x = before + the cotangent through y = s x.
    void normalize_backward(T* by_x, const T* before, const T* by_y, const T* s, const T* x) const {
        for (std::int64_t i = 0; i < count_;
             ++i, by_x += features_, before += features_, by_y += features_, x += features_) {
            const T slope = -s[i] * s[i] * s[i] * dot<T>(by_y, x, features_);
            for (int m = 0; m < M; ++m) {
                const T factor = slope * weight_of(m);
                for (int k = m * C; k < (m + 1) * C; ++k) by_x[k] = before[k] + s[i] * by_y[k] + factor * x[k];
            }
        }
    }

    // Of each order m: out_m = x_m · map of its degree; rows of x and out are `in` and `out_row` numbers of a node.
    template <bool add>
    void by_degree(T* out, int out_width, std::int64_t out_row, const T* x, int in_width, std::int64_t x_row,
                   const LinearMap<T>* map, bool transposed, int first, int last) const {
        for (int m = first; m < last; ++m) {
            const Matrix<T>& matrix = transposed ? map[degree_of(m)].transpose : map[degree_of(m)].forward;
            multiply<add>(out + m * out_width, out_row, x + m * in_width, x_row, count_, matrix);
        }
    }

    // out += map · z, or by_z = mapᵀ · by_out, with a map for each degree: of its paths' rows of z, `row` numbers a node.
    void mix(T* out, const T* z, std::int64_t row, const int* paths, const LinearMap<T>* map) const {
        for_rows(paths, [&](int m, std::int64_t first, int l) {
            multiply<true>(out + m * C, features_, z + first, row, count_, map[l].forward);
        });
    }

    void mix_backward(T* by_z, const T* by_out, std::int64_t row, const int* paths, const LinearMap<T>* map) const {
        for_rows(paths, [&](int m, std::int64_t first, int l) {
            multiply<false>(by_z + first, row, by_out + m * C, features_, count_, map[l].transpose);
        });
    }

    // Calls body(m, place of its first path's row, l) for the components to which paths lead.
    template <class Body>
    void for_rows(const int* paths, const Body& body) const {
        std::int64_t row = 0;
        for (int m = 0; m < M; ++m) {
            const int l = degree_of(m);
            if (paths[l] == 0) continue;
            body(m, row, l);
            row += std::int64_t{paths[l]} * C;
        }
    }

    std::int64_t z_row() const { return std::int64_t{kind_.rows} * C; }

    // [y_0, |y_l|²].
    void invariants(T* out, const T* y) const {
        for (std::int64_t i = 0; i < count_; ++i, y += features_, out += net_.width()) {
            std::copy(y, y + C, out);
            std::fill(out + C, out + net_.width(), T(0));
            for (int m = 1; m < M; ++m) {
                T* sum = out + degree_of(m) * C;
                for (int c = 0; c < C; ++c) sum[c] += y[m * C + c] * y[m * C + c];
            }
        }
    }

    const Network<T>& net_;
    const NetworkKind<T>& kind_;
    const LayerMaps<T>& maps_;
    const NetworkPass<T>& pass_;
    const int layer_, C, K, D, M, L;
    const std::int64_t features_, query_;  // numbers of a node's features, of its query
    std::int64_t begin_ = 0, count_ = 0;

  private:
    std::size_t rooms_ = 0;  // that were given out

  protected:
    T *y_, *by_y_, *s_;  // the normalized features, their cotangent, and 1 / rms
};

}  // namespace sdas::SDAS_SIMD
