// Kernels of the tensor product: forward, backward, double backward.
//
// A sample's features are transposed into rows of channels, once per group of channels, and serve every path from
// there. With M[k, i] = Σ_j C s_j, which belongs to a sample and a path, and h_j = Σ_{k, i} C g_k a_i, a path is
//
//   forward           z_k += w Σ_i M_ki a_i
//   backward          ∂a_i += Σ_k M_ki w g_k        ∂s_j += Σ_c w h_j        ∂w = Σ_j s_j h_j
//   double backward   z_k += Σ_i M_ki (w a'_i + w' a_i) + M'_ki w a_i        ∂a_i += Σ_k M'_ki w g_k + M_ki w' g_k
//                     ∂s_j += Σ_c w h'_j + w' h_j                             ∂w = Σ_j s_j h'_j + s'_j h_j
//
// where ' marks the tangents, M' is made of s' and h' of a'. One sample is worked on by one thread in a fixed order.
#include "sdas/tensor_product.h"

#include <vector>

#include "sdas/channel_block.h"
#include "sdas/channel_rows.h"
#include "sdas/tensor_product_blocks.h"

namespace sdas::SDAS_SIMD {
namespace {

enum Order { forward, backward, double_backward };

template <class T, int G, Order order>
class Kernel {
  public:
    using Rows = Pack<T, G>;

    explicit Kernel(const TensorProduct<T>& job) : job_(job), result_{job.by_x, job.by_y, job.out} {
        if (order == backward) result_[array_out] = nullptr;
        const std::int64_t dims[] = {job.dim1, job.dim2, job.dim_out};
        for (int n = 0; n < 3; ++n) streams_[n] = exceeds_caches(job.batch * dims[n] * sizeof(T));
        streams_weight_ = !job.shared && exceeds_caches(job.batch * job.weight_numel * sizeof(T));
        const std::int64_t matrices = job.matrices / Rows::size + 1;
        std::int64_t total = 0;
        const auto place = [&](std::int64_t rows) {
            total += rows;
            return total - rows;
        };
        std::int64_t most_pairs = 0;  // of a path whose second operand has channels of its own
        for (std::int64_t n = 0; n < job.paths; ++n) {
            const TensorProductPath& path = job.path[n];
            if (!path.uniform) most_pairs = std::max<std::int64_t>(most_pairs, job.coupling[path.coupling].pairs);
        }
        const std::int64_t places[] = {place(job.lane_rows), place(job.lane_rows), place(job.lane_rows),
                                       place(job.out_rows),  place(job.out_rows),  place(job.uniform_rows),
                                       place(most_pairs),    place(most_pairs),    place(matrices),
                                       place(matrices)};
        scratch_.resize(total);
        Rows** const names[] = {&lanes_,      &lanes_step_,  &by_lanes_,         &grad_,
                                &out_,        &by_uniform_,  &lane_matrix_,      &lane_matrix_step_,
                                &matrix_rows_, &matrix_step_rows_};
        for (int n = 0; n < 10; ++n) *names[n] = scratch_.data() + places[n];
    }

    void run(std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = begin; b < end; ++b) {
            if (job_.shared && job_.by_weight != nullptr && b % job_.block == 0) {
                std::memset(partial(b), 0, sizeof(T) * job_.weight_numel);
            }
            sample(b);
        }
        finish_streams();
    }

  private:
    const TensorProduct<T>& job_;
    T* result_[3];
    bool streams_[3], streams_weight_;  // whether a result is stored past the caches
    std::vector<Rows> scratch_;
    Rows *lanes_, *lanes_step_, *by_lanes_, *grad_, *out_, *by_uniform_, *lane_matrix_, *lane_matrix_step_,
        *matrix_rows_, *matrix_step_rows_;

    T* partial(std::int64_t b) const { return job_.partial + b / job_.block * job_.weight_numel; }
    std::int64_t dim(std::int64_t array) const { return array == array_x ? job_.dim1 : job_.dim2; }
    const T* values(std::int64_t array) const { return array == array_x ? job_.x : job_.y; }
    const T* steps(std::int64_t array) const { return array == array_x ? job_.x_step : job_.y_step; }

    std::int64_t place(const TensorProductView& view, std::int64_t b, std::int64_t first) const {
        return view.offset + view.per_batch * job_.batch + b * view.sample + first * view.channel;
    }

    static Strides strides(const TensorProductView& view) {
        return {view.channel, view.component, static_cast<int>(view.dim)};
    }

    void load(const TensorProductView& view, const T* array, std::int64_t b, std::int64_t first, Rows* rows) const {
        load_group<T, G>(array + place(view, b, first), strides(view), view.mul - first, rows + view.row);
    }

    void store(const TensorProductView& view, std::int64_t b, std::int64_t first, const Rows* rows) const {
        T* array = result_[view.array];
        if (array == nullptr || view.mul <= first) return;
        store_group<T, G>(array + place(view, b, first), strides(view), view.mul - first, rows + view.row,
                          streams_[view.array]);
    }

    void sample(std::int64_t b) {
        clear(b);
        matrices(b);
        for (std::int64_t first = 0; first < job_.max_mul; first += Rows::size) group(b, first);
        if (order != forward) add_uniforms(b);
    }

    // Zeros where no path leads, and in what is summed over the groups of a sample.
    void clear(std::int64_t b) {
        for (std::int64_t n = 0; n < job_.gaps; ++n) {
            const TensorProductGap& gap = job_.gap[n];
            T* array = result_[gap.array];
            if (array == nullptr) continue;
            const std::int64_t row = gap.array == array_out ? job_.dim_out : dim(gap.array);
            std::memset(array + b * row + gap.offset, 0, sizeof(T) * gap.size);
        }
        if (order != forward) std::fill(by_uniform_, by_uniform_ + job_.uniform_rows, Rows{});
    }

    // M, and M' for a double backward, of the paths whose second operand is uniform.
    void matrices(std::int64_t b) {
        for (std::int64_t n = 0; n < job_.paths; ++n) {
            const TensorProductPath& path = job_.path[n];
            if (!path.uniform) continue;
            const std::int64_t at = b * dim(path.second_array) + path.second_offset;
            const TensorProductCoupling& c = job_.coupling[path.coupling];
            matrix(c, values(path.second_array) + at, numbers(matrix_rows_) + path.matrix);
            if (order == double_backward) {
                matrix(c, steps(path.second_array) + at, numbers(matrix_step_rows_) + path.matrix);
            }
        }
    }

    // m[pair] = Σ_j C s_j of numbers; the pairs are the lanes, and there is room for whole vectors.
    SDAS_INLINE void matrix(const TensorProductCoupling& c, const T* s, T* m) const {
        const T* column = job_.values + c.pair_value;
        const std::int64_t padded = (c.pairs + matrix_padding - 1) / matrix_padding * matrix_padding;
        for (std::int64_t p = 0; p < c.pairs; p += width<T>) {
            Vector<T> sum{};
            for (std::int64_t j = 0; j < c.d2; ++j) sum += s[j] * SDAS_SIMD::load<T>(column + j * padded + p);
            SDAS_SIMD::store<T>(m + p, sum);
        }
    }

    // The same of rows.
    SDAS_INLINE void matrix(const TensorProductCoupling& c, const Rows* s, Rows* m) const {
        const std::int32_t *start = job_.index + c.term_start, *j = job_.index + c.term_j;
        const T* value = job_.values + c.term_value;
        for (std::int64_t p = 0; p < c.pairs; ++p) {
            Rows sum{};
            for (int q = start[p]; q < start[p + 1]; ++q) sum += value[q] * s[j[q]];
            m[p] = sum;
        }
    }

    static T* numbers(Rows* rows) { return reinterpret_cast<T*>(rows); }

    void group(std::int64_t b, std::int64_t first) {
        for (std::int64_t n = 0; n < job_.lane_views; ++n) {
            const TensorProductView& view = job_.lane_view[n];
            if (view.mul <= first) continue;
            load(view, values(view.array), b, first, lanes_);
            if (order == double_backward) load(view, steps(view.array), b, first, lanes_step_);
        }
        if (order != forward) {
            for (std::int64_t n = 0; n < job_.out_views; ++n) {
                if (job_.out_view[n].mul > first) load(job_.out_view[n], job_.grad, b, first, grad_);
            }
            std::fill(by_lanes_, by_lanes_ + job_.lane_rows, Rows{});
        }
        if (order != backward) std::fill(out_, out_ + job_.out_rows, Rows{});
        for (std::int64_t n = 0; n < job_.paths; ++n) {
            const TensorProductPath& p = job_.path[n];
            if (p.mul <= first) continue;
            const TensorProductCoupling& c = job_.coupling[p.coupling];
            if (p.uniform) {
                const std::int64_t at = b * dim(p.second_array) + p.second_offset;
                path(p, c, values(p.second_array) + at, steps(p.second_array) + at, by_uniform_,
                     numbers(matrix_rows_) + p.matrix, numbers(matrix_step_rows_) + p.matrix, b, first);
            } else {
                const Rows *s = lanes_ + p.second_row, *s_step = lanes_step_ + p.second_row;
                matrix(c, s, lane_matrix_);
                if (order == double_backward) matrix(c, s_step, lane_matrix_step_);
                path(p, c, s, s_step, by_lanes_, lane_matrix_, lane_matrix_step_, b, first);
            }
        }
        if (order != forward) {
            for (std::int64_t n = 0; n < job_.lane_views; ++n) store(job_.lane_view[n], b, first, by_lanes_);
        }
        if (order != backward) {
            for (std::int64_t n = 0; n < job_.out_views; ++n) store(job_.out_view[n], b, first, out_);
        }
    }

    // One path for one group of channels; S is T or Rows.
    template <class S>
    SDAS_INLINE void path(const TensorProductPath& p, const TensorProductCoupling& c, const S* s, const S* s_step,
                          Rows* by_second, const S* m, const S* m_step, std::int64_t b, std::int64_t first) {
        const Rows *a = lanes_ + p.first_row, *a_step = lanes_step_ + p.first_row;
        const Rows* g = grad_ + p.out_row;
        Rows *z = out_ + p.out_row, *by_first = by_lanes_ + p.first_row;
        const Rows w = weight(p, job_.weight, b, first, T(1));
        const std::int32_t *pair_start = job_.index + c.pair_start, *pair_i = job_.index + c.pair_i;
        if constexpr (order == forward) {
            for (std::int64_t k = 0; k < c.d3; ++k) {
                Rows sum{};
                for (int q = pair_start[k]; q < pair_start[k + 1]; ++q) sum += m[q] * a[pair_i[q]];
                z[k] += w * sum;
            }
            return;
        }
        const std::int32_t *column_start = job_.index + c.column_start, *column_pair = job_.index + c.column_pair,
                           *column_k = job_.index + c.column_k;
        const bool want_first = result_[1 - p.second_array] != nullptr, want_second = result_[p.second_array] != nullptr;
        const bool want_weight = job_.by_weight != nullptr && p.weight >= 0;
        Rows one[max_components], two[max_components];
        if constexpr (order == backward) {
            if (want_first) {
                for (std::int64_t k = 0; k < c.d3; ++k) one[k] = w * g[k];
                for (std::int64_t i = 0; i < c.d1; ++i) {
                    Rows sum = by_first[i];
                    for (int q = column_start[i]; q < column_start[i + 1]; ++q) {
                        sum += m[column_pair[q]] * one[column_k[q]];
                    }
                    by_first[i] = sum;
                }
            }
            if (!want_second && !want_weight) return;
            Rows by_weight{};
            by_entries(c, [&](std::int64_t j, int start, int stop, const std::int32_t* k, const std::int32_t* i,
                              const T* value) {
                Rows h{};
                for (int q = start; q < stop; ++q) h += value[q] * (g[k[q]] * a[i[q]]);
                by_second[p.second_row + j] += w * h;
                by_weight += s[j] * h;
            });
            if (want_weight) put_weight(p, by_weight, b, first);
        } else {
            const Rows w_step = weight(p, job_.weight_step, b, first, T(0));
            if (result_[array_out] != nullptr) {
                for (std::int64_t i = 0; i < c.d1; ++i) {
                    one[i] = w * a_step[i];
                    one[i] += w_step * a[i];
                    two[i] = w * a[i];
                }
                for (std::int64_t k = 0; k < c.d3; ++k) {
                    Rows sum = z[k];
                    for (int q = pair_start[k]; q < pair_start[k + 1]; ++q) {
                        sum += m[q] * one[pair_i[q]];
                        sum += m_step[q] * two[pair_i[q]];
                    }
                    z[k] = sum;
                }
            }
            if (want_first) {
                for (std::int64_t k = 0; k < c.d3; ++k) {
                    one[k] = w_step * g[k];
                    two[k] = w * g[k];
                }
                for (std::int64_t i = 0; i < c.d1; ++i) {
                    Rows sum = by_first[i];
                    for (int q = column_start[i]; q < column_start[i + 1]; ++q) {
                        sum += m[column_pair[q]] * one[column_k[q]];
                        sum += m_step[column_pair[q]] * two[column_k[q]];
                    }
                    by_first[i] = sum;
                }
            }
            if (!want_second && !want_weight) return;
            Rows by_weight{};
            by_entries(c, [&](std::int64_t j, int start, int stop, const std::int32_t* k, const std::int32_t* i,
                              const T* value) {
                Rows h{}, h_step{};
                for (int q = start; q < stop; ++q) {
                    const Rows scaled = value[q] * g[k[q]];
                    h += scaled * a[i[q]];
                    h_step += scaled * a_step[i[q]];
                }
                by_second[p.second_row + j] += w * h_step;
                by_second[p.second_row + j] += w_step * h;
                by_weight += s[j] * h_step;
                by_weight += s_step[j] * h;
            });
            if (want_weight) put_weight(p, by_weight, b, first);
        }
    }

    // body(j, start, stop, k, i, value): coefficients start .. stop of component j of the second operand.
    template <class Body>
    SDAS_INLINE void by_entries(const TensorProductCoupling& c, const Body& body) const {
        const std::int32_t* start = job_.index + c.entry_start;
        for (std::int64_t j = 0; j < c.d2; ++j) {
            body(j, start[j], start[j + 1], job_.index + c.entry_k, job_.index + c.entry_i,
                 job_.values + c.entry_value);
        }
    }

    SDAS_INLINE Rows weight(const TensorProductPath& p, const T* array, std::int64_t b, std::int64_t first,
                            T otherwise) const {
        if (p.weight < 0) {
            Rows w;
            for (int g = 0; g < G; ++g) w.v[g] = Vector<T>{} + otherwise;
            return w;
        }
        const T* row = array + (job_.shared ? 0 : b * job_.weight_numel) + p.weight;
        return load_numbers<T, G>(row + first * p.weight_channel, p.weight_channel, p.mul - first);
    }

    SDAS_INLINE void put_weight(const TensorProductPath& p, Rows by_weight, std::int64_t b, std::int64_t first) const {
        T* row = (job_.shared ? partial(b) : job_.by_weight + b * job_.weight_numel) + p.weight;
        T* target = row + first * p.weight_channel;
        if (job_.shared) by_weight += load_numbers<T, G>(target, p.weight_channel, p.mul - first);
        store_numbers<T, G>(target, p.weight_channel, p.mul - first, by_weight, streams_weight_);
    }

    void add_uniforms(std::int64_t b) const {
        for (std::int64_t n = 0; n < job_.uniforms; ++n) {
            const TensorProductUniform& u = job_.uniform[n];
            if (result_[u.array] == nullptr) continue;
            T* array = result_[u.array] + b * dim(u.array) + u.offset;
            for (std::int64_t j = 0; j < u.dim; ++j) {
                Rows& sum = by_uniform_[u.row + j];
                for (int g = 1; g < G; ++g) sum.v[0] += sum.v[g];
                array[j] += total<T>(sum.v[0]);
            }
        }
    }
};

template <Order order, class T>
void run_groups(const TensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    if (job.max_mul > width<T>) {
        Kernel<T, 2, order>(job).run(begin, end);
    } else {
        Kernel<T, 1, order>(job).run(begin, end);
    }
}

}  // namespace

template <class T>
void tensor_product_forward(const TensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    run_groups<forward>(job, begin, end);
}

template <class T>
void tensor_product_backward(const TensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    run_groups<backward>(job, begin, end);
}

template <class T>
void tensor_product_double_backward(const TensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    run_groups<double_backward>(job, begin, end);
}

#define SDAS_INSTANTIATE(T)                                                                                \
    template void tensor_product_forward(const TensorProduct<T>&, std::int64_t, std::int64_t);             \
    template void tensor_product_backward(const TensorProduct<T>&, std::int64_t, std::int64_t);            \
    template void tensor_product_double_backward(const TensorProduct<T>&, std::int64_t, std::int64_t);     \
    template void tensor_product_dense_forward(const TensorProductDense<T>&, std::int64_t, std::int64_t);  \
    template void tensor_product_dense_backward(const TensorProductDense<T>&, std::int64_t, std::int64_t); \
    template void tensor_product_dense_double_backward(const TensorProductDense<T>&, std::int64_t, std::int64_t);
SDAS_INSTANTIATE(float)
SDAS_INSTANTIATE(double)
#undef SDAS_INSTANTIATE

}  // namespace sdas::SDAS_SIMD
