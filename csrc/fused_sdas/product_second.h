// The second order of the product of a node's features with themselves. Included only by kernel files, like vector.h.
#pragma once

#include <cstdint>
#include <vector>

#include "fused_sdas/second_order.h"

namespace sdas::SDAS_SIMD {

template <class T>
class ProductSecond : public SecondOrder<T, Update<T>> {
  public:
    using Base = SecondOrder<T, Update<T>>;
    using Base::C;

    explicit ProductSecond(const NetworkPass<T>& pass)
        : Base(pass),
          norm_of_product_{this->room(this->features_), this->by_z_, this->room(this->features_),
                           std::vector<NormStep<T>>(node_block)},
          products_(this->room(this->square_row())),
          products_step_(this->room(this->square_row())),
          second_products_(this->room(this->square_row())) {}

  protected:
    // The products' tangents, and those of x' with them.
    void join_step(T* joined_step, const T* middle, const T* middle_step) {
        product_steps(middle, middle_step);
        std::copy(middle_step, middle_step + this->count_ * this->features_, joined_step);
        this->mix_squares(joined_step, products_step_);
    }

    // second x', from that of x' with the products.
    void join_second(T* second_middle, const T* second_joined) {
        const std::int64_t f = this->features_, row = this->square_row();
        const T* middle = this->of_block(this->pass_.at[this->layer_].middle, f);
        const T* middle_step = this->of_block(this->pass_.step[this->layer_].middle, f);
        const T* by_joined = this->of_block(this->pass_.by[this->layer_].joined, f);
        T *by_z = norm_of_product_.by_y, *second_z = norm_of_product_.second_y, *by_products = this->squares_;
        product_steps(middle, middle_step);
        this->mix_squares_backward(by_products, by_joined);
        this->mix_squares_backward(second_products_, second_joined);
        this->zero(by_z, f);
        this->add_cotangents(by_z, by_products, this->z_);
        this->zero(second_z, f);
        this->add_cotangents(second_z, second_products_, this->z_);
        this->add_cotangents(second_z, by_products, norm_of_product_.y_step);
        this->normalize_second(second_middle, second_joined, norm_of_product_, middle, middle_step, this->z_s_);
        if (this->grads_ == nullptr) return;
        this->zero(products_, row);
        this->template add_products<true>(products_, this->z_, this->z_);
        this->add_mixing(this->grads_->product, products_, products_step_, row, this->square_.paths, second_joined,
                         by_joined);
    }

  private:
    void product_steps(const T* middle, const T* middle_step) {
        this->normalize(this->z_, this->z_s_, middle);
        this->normalize_step(norm_of_product_, middle, middle_step, this->z_s_);
        this->zero(products_step_, this->square_row());
        this->template add_products<false>(products_step_, this->z_, norm_of_product_.y_step);
    }

    NormSecond<T> norm_of_product_;
    T *products_, *products_step_, *second_products_;
};

}  // namespace sdas::SDAS_SIMD
