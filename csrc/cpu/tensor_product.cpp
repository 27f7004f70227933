// Kernels of the tensor product: forward, backward, double backward.
//
// A sample's channels are worked on in groups. Features are transposed into rows of channels, once per group, and serve
// every path from there; then come the views of the output, one after the other, with all paths to each of them
// (tensor_product_paths.h). One sample is worked on by one thread in a fixed order.
#include "sdas/tensor_product.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "sdas/channel_rows.h"
#include "sdas/kept_vectors.h"
#include "sdas/look_ahead.h"
#include "sdas/tensor_product_blocks.h"
#include "sdas/tensor_product_paths.h"
#include "sdas/vector_products.h"

namespace sdas::SDAS_SIMD {
namespace {

// Vectors of channels in a group, at most: what paths share stays in the first cache.
constexpr std::int64_t group_vectors = 8;

template <class T, Order order>
class Kernel {
  public:
    explicit Kernel(const TensorProduct<T>& job)
        : job_(job),
          result_{job.by_x, job.by_y, order == backward ? nullptr : job.out},
          row_(std::clamp<std::int64_t>((job.max_mul + W - 1) / W, 1, group_vectors)),
          ahead_((job.max_mul + row_ * W - 1) / (row_ * W) * job.paths) {
        const std::int64_t dims[] = {job.dim1, job.dim2, job.dim_out};
        for (int n = 0; n < 3; ++n) streams_[n] = exceeds_caches(job.batch * dims[n] * sizeof(T));
        streams_weight_ = !job.shared && exceeds_caches(job.batch * job.weight_numel * sizeof(T));
        for (std::int64_t n = 0; n < job.uniforms; ++n) sums_uniforms_ |= result_[job.uniform[n].array] != nullptr;
        sums_uniforms_ &= order != forward;
        std::int64_t out_dim = 0, first_dim = 0, row_entries = 0, entries = 0;
        for (std::int64_t n = 0; n < job.out_views; ++n) out_dim = std::max(out_dim, job.out_view[n].dim);
        for (std::int64_t n = 0; n < job.paths; ++n) {
            const TensorProductPath& path = job.path[n];
            const TensorProductCoupling& c = job.coupling[path.coupling];
            std::int64_t& most = path.uniform ? entries : row_entries;
            first_dim = std::max(first_dim, c.d1), most = std::max(most, c.entries);
        }
        const std::pair<Vector<T>**, std::int64_t> places[] = {
            {&lanes_, job.lane_rows * row_},
            {&lanes_step_, job.lane_rows * row_},
            {&by_lanes_, job.lane_rows * row_},
            {&grad_, out_dim * row_},
            {&out_, out_dim * row_},
            {&ones_, row_},
            {&zeros_, row_},
            {&weight_, row_},
            {&weight_step_, row_},
            {&by_weight_, row_},
            {&scaled_, first_dim * row_},
            {&row_matrix_, row_entries * row_},
            {&row_matrix_step_, row_entries * row_},
            {&outer_, std::max(row_entries * row_, entries)},
            {&uniforms_, job.uniform_rows},
            {&by_uniforms_, job.uniform_rows},
            {&matrices_, job.matrices},
            {&matrices_step_, job.matrices},
        };
        std::int64_t total = 0;
        for (auto [name, size] : places) total += size;
        scratch_ = Vectors<T>(total);
        Vector<T>* next = scratch_.data();
        for (auto [name, size] : places) *name = next, next += size;
        std::fill(ones_, ones_ + row_, splat<T>(1));
        for (std::int64_t n = 0; n < job.out_views; ++n) {
            for (std::int64_t k = job.path_start[n]; k < job.path_start[n + 1]; ++k) {
                steps_.push_back(step(job.path[k], job.out_view[n], job.path_start[n + 1] - job.path_start[n]));
                steps_.back().rows.fresh = k == job.path_start[n];
            }
        }
        ahead_.add(job.x, job.dim1);
        if (!job.shared) ahead_.add(job.weight, job.weight_numel);
        if (order != forward) ahead_.add(job.grad, job.dim_out);
        if (order == double_backward) ahead_.add(job.x_step, job.dim1);
        if (order == double_backward && !job.shared) ahead_.add(job.weight_step, job.weight_numel);
    }

    void run(std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = begin; b < end; ++b) {
            if (job_.shared && job_.by_weight != nullptr && b % job_.block == 0) {
                std::memset(partial(b), 0, sizeof(T) * job_.weight_numel);
            }
            const std::int64_t lane = (b - begin) % W;
            if (lane == 0) make_matrices(b, std::min<std::int64_t>(W, end - b));
            ahead_.begin(b + 1);
            sample(b, lane);
        }
        finish_streams();
    }

  private:
    static constexpr int W = width<T>;

    // A path, and what stays the same for all samples.
    struct Step {
        PathKernel<T> kernel;
        const TensorProductCoupling* coupling;
        PathRows<T> rows;
        bool alone, streams, want_second, want_weight;  // `alone`: z goes to the output at once
    };

    const TensorProduct<T>& job_;
    T* result_[3];
    bool streams_[3], streams_weight_;  // whether a result is stored past the caches
    bool sums_uniforms_ = false;        // whether a gradient by a uniform operand is wanted
    std::int64_t row_;                  // vectors of channels in a row
    LookAhead<T> ahead_;
    std::vector<Step> steps_;
    Vectors<T> scratch_;
    Vector<T> *lanes_, *lanes_step_, *by_lanes_, *grad_, *out_, *ones_, *zeros_, *weight_, *weight_step_, *by_weight_,
        *scaled_, *row_matrix_, *row_matrix_step_, *outer_, *uniforms_, *by_uniforms_, *matrices_, *matrices_step_;

    // The path `p`, one of `paths` to a view of the output.
    Step step(const TensorProductPath& p, const TensorProductView& view, std::int64_t paths) {
        const TensorProductCoupling& c = job_.coupling[p.coupling];
        const std::int64_t at = p.first_row * row_;
        Step step{};
        step.kernel = path_kernel<T, order>(c, p.uniform), step.coupling = &c;
        const bool moves = strides(view).rows() ? knows_size(c, p.uniform) : view.channel == 1;
        step.alone = paths == 1 && view.mul % W == 0 && moves;
        step.streams = streams_[array_out] && (view.component == 1 || view.component % W == 0);
        step.want_second = order != forward && result_[p.second_array] != nullptr;
        step.want_weight = order != forward && job_.by_weight != nullptr && p.weight >= 0;
        PathRows<T>& rows = step.rows;
        rows.row = row_, rows.a = lanes_ + at, rows.a_step = lanes_step_ + at, rows.g = grad_;
        rows.z = result_[array_out] != nullptr ? out_ : nullptr, rows.component = view.component;
        rows.by_a = result_[1 - p.second_array] != nullptr ? by_lanes_ + at : nullptr;
        rows.by_w = step.want_weight ? by_weight_ : nullptr;
        rows.b = step.want_second ? scaled_ : nullptr;
        return step;
    }

    T* partial(std::int64_t b) const { return job_.partial + b / job_.block * job_.weight_numel; }
    std::int64_t dim(std::int64_t array) const { return array == array_x ? job_.dim1 : job_.dim2; }
    const T* values(std::int64_t array) const { return array == array_x ? job_.x : job_.y; }
    const T* steps(std::int64_t array) const { return array == array_x ? job_.x_step : job_.y_step; }
    static T* numbers(Vector<T>* rows) { return reinterpret_cast<T*>(rows); }

    // Channels of a group that begins at `first`, of `mul` in all.
    std::int64_t channels(std::int64_t first, std::int64_t mul) const { return std::min(mul - first, row_ * W); }

    std::int64_t place(const TensorProductView& view, std::int64_t b, std::int64_t first) const {
        return view.offset + view.per_batch * job_.batch + b * view.sample + first * view.channel;
    }

    static Strides strides(const TensorProductView& view) {
        return {view.channel, view.component, static_cast<int>(view.dim)};
    }

    void load(const TensorProductView& view, const T* array, std::int64_t b, std::int64_t first,
              Vector<T>* rows) const {
        load_channels<T>(array + place(view, b, first), strides(view), channels(first, view.mul), numbers(rows),
                         row_ * W);
    }

    void store(const TensorProductView& view, std::int64_t b, std::int64_t first, Vector<T>* rows) const {
        T* array = result_[view.array];
        if (array == nullptr) return;
        store_channels<T>(array + place(view, b, first), strides(view), channels(first, view.mul), numbers(rows),
                          row_ * W, streams_[view.array]);
    }

    void sample(std::int64_t b, std::int64_t lane) {
        clear_results(b);
        for (std::int64_t first = 0; first < job_.max_mul; first += row_ * W) group(b, lane, first);
        if (sums_uniforms_) add_uniforms(b);
    }

    // Zeros where no path leads, and in what is summed over the groups of a sample.
    void clear_results(std::int64_t b) {
        for (std::int64_t n = 0; n < job_.gaps; ++n) {
            const TensorProductGap& gap = job_.gap[n];
            T* array = result_[gap.array];
            if (array == nullptr) continue;
            const std::int64_t row = gap.array == array_out ? job_.dim_out : dim(gap.array);
            std::memset(array + b * row + gap.offset, 0, sizeof(T) * gap.size);
        }
        if (sums_uniforms_) std::fill(by_uniforms_, by_uniforms_ + job_.uniform_rows, Vector<T>{});
    }

    // M, and M' for a double backward, of the paths whose second operand is uniform, for `count` samples: the lanes.
    void make_matrices(std::int64_t b, std::int64_t count) {
        for (const bool step : {false, true}) {
            if (step && order != double_backward) continue;
            for (std::int64_t n = 0; n < job_.uniforms; ++n) {
                const TensorProductUniform& u = job_.uniform[n];
                const T* s = (step ? steps(u.array) : values(u.array)) + b * dim(u.array) + u.offset;
                transpose_matrix<T>(numbers(uniforms_ + u.row), W, s, dim(u.array), static_cast<int>(count),
                                    static_cast<int>(u.dim));
            }
            for (std::int64_t n = 0; n < job_.paths; ++n) {
                const TensorProductPath& p = job_.path[n];
                if (!p.uniform) continue;
                Vector<T>* m = (step ? matrices_step_ : matrices_) + p.matrix;
                make_matrix(job_.coupling[p.coupling], uniforms_ + p.second_row, m, 1, 1);
            }
        }
    }

    // m[entry] = Σ_j C s_j of rows of some vectors.
    SDAS_INLINE void make_matrix(const TensorProductCoupling& c, const Vector<T>* s, Vector<T>* m, std::int64_t row,
                                 std::int64_t vectors) const {
        const std::int32_t *start = job_.index + c.term_start, *j = job_.index + c.term_j;
        const T* value = job_.values + c.term_value;
        for (std::int64_t k = 0; k < c.entries; ++k) {
            for (std::int64_t v = 0; v < vectors; ++v) {
                Vector<T> sum{};
                for (int q = start[k]; q < start[k + 1]; ++q) sum += value[q] * s[j[q] * row + v];
                m[k * row + v] = sum;
            }
        }
    }

    // by_s[j] += Σ C n[entry] of rows of some vectors. In the order of the entries a sum seldom waits for the one before.
    SDAS_INLINE void add_shares(const TensorProductCoupling& c, Vector<T>* by_s, const Vector<T>* n, std::int64_t row,
                                std::int64_t vectors) const {
        const std::int32_t *entry = job_.index + c.term_entry, *j = job_.index + c.term_j;
        const T* value = job_.values + c.term_value;
        const int terms = job_.index[c.term_start + c.entries];
        for (int q = 0; q < terms; ++q) {
            for (std::int64_t v = 0; v < vectors; ++v) by_s[j[q] * row + v] += value[q] * n[entry[q] * row + v];
        }
    }

    void group(std::int64_t b, std::int64_t lane, std::int64_t first) {
        for (std::int64_t n = 0; n < job_.lane_views; ++n) {
            const TensorProductView& view = job_.lane_view[n];
            if (view.mul <= first) continue;
            load(view, values(view.array), b, first, lanes_ + view.row * row_);
            if (order == double_backward) load(view, steps(view.array), b, first, lanes_step_ + view.row * row_);
        }
        if (order != forward) std::fill(by_lanes_, by_lanes_ + job_.lane_rows * row_, Vector<T>{});
        for (std::int64_t n = 0; n < job_.out_views; ++n) {
            const TensorProductView& view = job_.out_view[n];
            if (view.mul <= first) continue;
            if (order != forward) load(view, job_.grad, b, first, grad_);
            T* out = result_[array_out] == nullptr ? nullptr : result_[array_out] + place(view, b, first);
            for (std::int64_t k = job_.path_start[n]; k < job_.path_start[n + 1]; ++k) {
                path(steps_[k], job_.path[k], out, b, lane, first);
            }
            if (order != backward && !steps_[job_.path_start[n]].alone) store(view, b, first, out_);
        }
        if (order != forward) {
            for (std::int64_t n = 0; n < job_.lane_views; ++n) {
                const TensorProductView& view = job_.lane_view[n];
                if (view.mul > first) store(view, b, first, by_lanes_ + view.row * row_);
            }
        }
    }

    // One path for one group of channels. `out`: the group's place in the output.
    void path(Step& step, const TensorProductPath& p, T* out, std::int64_t b, std::int64_t lane, std::int64_t first) {
        ahead_.fetch();
        const TensorProductCoupling& c = *step.coupling;
        PathRows<T>& rows = step.rows;
        rows.vectors = (channels(first, p.mul) + W - 1) / W;
        rows.out = step.alone ? out : nullptr, rows.streams = step.streams && aligned(out);
        rows.w = weights(p, job_.weight, b, first, ones_, weight_);
        if (order == double_backward) rows.w_step = weights(p, job_.weight_step, b, first, zeros_, weight_step_);
        const std::int64_t second = p.second_row * row_;
        const T *m = numbers(matrices_ + p.matrix) + lane, *m_step = numbers(matrices_step_ + p.matrix) + lane;
        if (!p.uniform) {
            make_matrix(c, lanes_ + second, row_matrix_, row_, rows.vectors);
            if (order == double_backward) make_matrix(c, lanes_step_ + second, row_matrix_step_, row_, rows.vectors);
            m = numbers(row_matrix_), m_step = numbers(row_matrix_step_);
        }
        step.kernel(c, rows, m, m_step, outer_);
        if (step.want_second && p.uniform) add_shares(c, by_uniforms_ + p.second_row, outer_, 1, 1);
        if (step.want_second && !p.uniform) add_shares(c, by_lanes_ + second, outer_, row_, rows.vectors);
        if (step.want_weight) put_weight(p, b, first);
    }

    // The weights of a group of channels as whole vectors, in place or copied.
    const T* weights(const TensorProductPath& p, const T* array, std::int64_t b, std::int64_t first,
                     Vector<T>* otherwise, Vector<T>* copy) const {
        if (p.weight < 0) return numbers(otherwise);
        const T* row = array + (job_.shared ? 0 : b * job_.weight_numel) + p.weight + first * p.weight_channel;
        const std::int64_t size = channels(first, p.mul);
        if (p.weight_channel == 1 && size % W == 0) return row;
        for_channels<T>(size, [&](std::int64_t c, int count) {
            copy[c / W] = load_numbers<T>(row + c * p.weight_channel, p.weight_channel, count);
        });
        return numbers(copy);
    }

    void put_weight(const TensorProductPath& p, std::int64_t b, std::int64_t first) const {
        T* row = (job_.shared ? partial(b) : job_.by_weight + b * job_.weight_numel) + p.weight;
        row += first * p.weight_channel;
        for_channels<T>(channels(first, p.mul), [&](std::int64_t c, int count) {
            T* target = row + c * p.weight_channel;
            Vector<T> by_weight = by_weight_[c / W];
            if (job_.shared) by_weight += load_numbers<T>(target, p.weight_channel, count);
            store_numbers<T>(target, p.weight_channel, count, by_weight, streams_weight_);
        });
    }

    void add_uniforms(std::int64_t b) const {
        T* sums = numbers(uniforms_);
        store_totals<T>(sums, by_uniforms_, job_.uniform_rows, false);
        for (std::int64_t n = 0; n < job_.uniforms; ++n) {
            const TensorProductUniform& u = job_.uniform[n];
            if (result_[u.array] == nullptr) continue;
            T* array = result_[u.array] + b * dim(u.array) + u.offset;
            for (std::int64_t j = 0; j < u.dim; ++j) array[j] += sums[u.row + j];
        }
    }
};

}  // namespace

template <class T>
void tensor_product_forward(const TensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    Kernel<T, forward>(job).run(begin, end);
}

template <class T>
void tensor_product_backward(const TensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    Kernel<T, backward>(job).run(begin, end);
}

template <class T>
void tensor_product_double_backward(const TensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    Kernel<T, double_backward>(job).run(begin, end);
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
