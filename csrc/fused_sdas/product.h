// The product of a node's features with themselves, between the attention of a layer and its update:
//
//   y' = x' / rms(x')     p[row] = Σ over entries of the coupling of coefficient · y'[first] · y'[second]
//   joined = x' + Σ product · p
//
// Included only by kernel files, like vector.h.
#pragma once

#include "fused_sdas/block.h"

namespace sdas::SDAS_SIMD {

template <class T>
class Product : public NodeBlock<T> {
  public:
    using Block = NodeBlock<T>;
    using Block::C, Block::M;

    explicit Product(const NetworkPass<T>& pass)
        : Block(pass),
          square_(this->net_.square),
          squares_(this->room(square_row())),
          z_(this->room(this->features_)),
          by_z_(this->room(this->features_)),
          z_s_(this->room(1)) {}

  protected:
    bool has_product() const { return square_.rows > 0; }
    std::int64_t square_row() const { return std::int64_t{square_.rows} * C; }

    void join(T* joined, const T* middle) {
        this->normalize(z_, z_s_, middle);
        zero(squares_, square_row());
        add_products<true>(squares_, z_, z_);
        std::copy(middle, middle + this->count_ * this->features_, joined);
        mix_squares(joined, squares_);
    }

    // by x' from by `joined`.
    void join_backward(T* by_middle, const T* by_joined, const T* middle) {
        this->normalize(z_, z_s_, middle);
        mix_squares_backward(squares_, by_joined);
        zero(by_z_, this->features_);
        add_cotangents(by_z_, squares_, z_);
        this->normalize_backward(by_middle, by_joined, by_z_, z_s_, middle);
    }

    void zero(T* rows, std::int64_t numbers) const { std::fill_n(rows, this->count_ * numbers, T(0)); }

    // Calls body(row, first, second, coefficient) for all entries and nodes; each of the three is [C].
    template <class Row, class Component, class Body>
    void for_entries(Row* rows, Component* components, const Body& body) const {
        const auto& coupling = square_.coupling;
        for (std::int64_t i = 0; i < this->count_; ++i, rows += square_row(), components += this->features_) {
            for (int e = 0; e < coupling.entries; ++e) {
                body(i, rows + coupling.row[e] * C, coupling.pair[e] / M * C, coupling.pair[e] % M * C,
                     coupling.coefficient[e], components);
            }
        }
    }

    // p += y ⊗ w or, unless `once`, y ⊗ w + w ⊗ y.
    template <bool once>
    void add_products(T* p, const T* y, const T* w) const {
        for_entries(p, y, [&](std::int64_t i, T* row, int first, int second, T coefficient, const T* a) {
            const T* b = w + i * this->features_;
            for_vectors<T>(C, [&](const auto& load, const auto& store) {
                Vector<T> pair = load(a + first) * load(b + second);
                if (!once) pair += load(b + first) * load(a + second);
                store(row, load(row) + coefficient * pair);
            });
        });
    }

    // by_y += the cotangent of y through y ⊗ w + w ⊗ y, which with w = y is that through y ⊗ y.
    void add_cotangents(T* by_y, const T* by_p, const T* w) const {
        for_entries(by_p, by_y, [&](std::int64_t i, const T* row, int first, int second, T coefficient, T* by) {
            const T* b = w + i * this->features_;
            for_vectors<T>(C, [&](const auto& load, const auto& store) {  // `first` and `second` may be one
                const Vector<T> g = coefficient * load(row);
                store(by + first, load(by + first) + g * load(b + second));
                store(by + second, load(by + second) + g * load(b + first));
            });
        });
    }

    // out += product · p, or by_p = productᵀ · by_out.
    void mix_squares(T* out, const T* p) const { this->mix(out, p, square_row(), square_.paths, this->maps_.product); }

    void mix_squares_backward(T* by_p, const T* by_out) const {
        this->mix_backward(by_p, by_out, square_row(), square_.paths, this->maps_.product);
    }

    const NetworkSquare<T>& square_;
    T* squares_;           // p, or its cotangent
    T *z_, *by_z_, *z_s_;  // the normalized x', its cotangent, and 1 / rms
};

}  // namespace sdas::SDAS_SIMD
