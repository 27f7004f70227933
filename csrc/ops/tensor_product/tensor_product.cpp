// Kernels of the tensor product: forward, backward, double backward.
//
// A few samples are worked on at a time, and of them a group of channels. Features are transposed into rows of channels,
// once per group, and serve every path from there; then come the views of the output, one after the other, with all paths
// to each of them (tensor_product_paths.h). One sample is worked on by one thread in a fixed order.
#include "ops/tensor_product/tensor_product.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "ops/tensor_product/blocks.h"
#include "ops/tensor_product/paths.h"
#include "simd/channel_rows.h"
#include "simd/kept_vectors.h"
#include "simd/vector_products.h"

namespace sdas::SDAS_SIMD {
namespace {

// Vectors of channels in a group, at most, and bytes of the rows of the samples that are worked on at a time, if they are
// several: what paths share stays in the first cache.
constexpr std::int64_t group_vectors = 8, rows_bytes = 1 << 15;

template <class T, Order order>
class Kernel {
  public:
    explicit Kernel(const TensorProduct<T>& job)
        : job_(job),
          result_{job.by_x, job.by_y, order == backward ? nullptr : job.out},
          row_(std::clamp<std::int64_t>((job.max_mul + W - 1) / W, 1, group_vectors)) {
        const std::int64_t dims[] = {job.dim1, job.dim2, job.dim_out};
        for (int n = 0; n < 3; ++n) streams_[n] = job.is_part[n] || exceeds_caches(job.batch * dims[n] * sizeof(T));
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
        lanes_size_ = job.lane_rows * row_, result_size_ = out_dim * row_;
        const std::int64_t most_rows = lanes_size_ * (order == forward ? 1 : order == backward ? 2 : 3) + result_size_;
        while (2 * samples_ <= W && 2 * samples_ * most_rows * SDAS_VECTOR_BYTES <= rows_bytes) samples_ *= 2;
        const std::pair<Vector<T>**, std::int64_t> places[] = {
            {&lanes_, samples_ * lanes_size_},
            {&lanes_step_, samples_ * lanes_size_},
            {&by_lanes_, samples_ * lanes_size_},
            {&grad_, samples_ * result_size_},
            {&out_, samples_ * result_size_},
            {&ones_, row_},
            {&zeros_, row_},
            {&weight_, samples_ * row_},
            {&weight_step_, samples_ * row_},
            {&by_weight_, samples_ * row_},
            {&scaled_, first_dim * row_},
            {&own_matrix_, row_entries * row_},
            {&own_matrix_step_, row_entries * row_},
            {&outer_, std::max(row_entries * row_, entries)},
            {&uniforms_, job.uniform_rows},
            {&by_uniforms_, samples_ * job.uniform_rows},
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
                steps_.push_back(step(job.path[k], job.out_view[n], k + 1 == job.path_start[n + 1]));
                steps_.back().rows.fresh = k == job.path_start[n];
            }
        }
    }

    void run(std::int64_t begin, std::int64_t end) {
        const bool partial_sums = job_.shared && job_.by_weight != nullptr;
        for (std::int64_t b = begin; b < end; b += count_) {
            if (partial_sums && b % job_.block == 0) std::memset(partial(b), 0, sizeof(T) * job_.weight_numel);
            if (lane_ = (b - begin) % W; lane_ == 0) make_matrices(b, std::min<std::int64_t>(W, end - b));
            count_ = std::min({samples_, W - lane_, end - b});
            if (partial_sums) count_ = std::min(count_, job_.block - b % job_.block);
            clear_results(b);
            for (std::int64_t first = 0; first < job_.max_mul; first += row_ * W) group(b, first);
            if (sums_uniforms_) add_uniforms(b);
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
        bool puts_out, want_weight;  // `puts_out`: z goes to the output at once
    };

    const TensorProduct<T>& job_;
    T* result_[3];
    bool streams_[3], streams_weight_;       // whether a result is stored past the caches
    bool sums_uniforms_ = false;             // whether a gradient by a uniform operand is wanted
    std::int64_t row_;                       // vectors of channels in a row
    std::int64_t lanes_size_, result_size_;  // vectors of a sample in `lanes_` and its like, in `grad_` and `out_`
    std::int64_t samples_ = 1, count_ = 1;   // worked on at a time, at most and now
    std::int64_t lane_ = 0;                  // of the first of them in `matrices_`
    std::vector<Step> steps_;
    Vectors<T> scratch_;
    Vector<T>*lanes_, *lanes_step_, *by_lanes_, *grad_, *out_, *ones_, *zeros_, *weight_, *weight_step_, *by_weight_,
        *scaled_, *own_matrix_, *own_matrix_step_, *outer_, *uniforms_, *by_uniforms_, *matrices_, *matrices_step_;

    // The path `p` to a view of the output; `last`: to which no other one follows.
    Step step(const TensorProductPath& p, const TensorProductView& view, bool last) {
        const TensorProductCoupling& c = job_.coupling[p.coupling];
        const std::int64_t first = p.first_row * row_, second = p.second_row * row_;
        Step step{};
        step.kernel = path_kernel<T, order>(p, c), step.coupling = &c;
        const bool moves = strides(view).rows() ? knows_size(p, c) : view.channel == 1;
        step.puts_out = last && view.mul % W == 0 && moves;
        step.want_weight = order != forward && job_.by_weight != nullptr && p.weight >= 0;
        PathRows<T>& rows = step.rows;
        rows.row = row_, rows.component = view.component;
        rows.terms = {c.entries, job_.index + c.term_start, job_.index + c.term_j, job_.values + c.term_value};
        rows.shares = {c.d2, job_.index + c.share_start, job_.index + c.share_entry, job_.values + c.share_value};
        rows.a = lanes_ + first, rows.a_step = lanes_step_ + first, rows.g = grad_;
        rows.copied_row = row_, rows.adds_a = true;
        rows.z = result_[array_out] != nullptr ? out_ : nullptr;
        rows.streams = streams_[array_out] && (view.component == 1 || view.component % W == 0);
        rows.by_a = result_[p.first_array] != nullptr ? by_lanes_ + first : nullptr;
        if (!p.copies) {
            if (!p.uniform) rows.s = lanes_ + second, rows.s_step = lanes_step_ + second;
            const bool wanted = order != forward && result_[1 - p.first_array] != nullptr;
            if (wanted) rows.by_s = p.uniform ? by_uniforms_ + p.second_row : by_lanes_ + second;
        }
        rows.b = scaled_, rows.n = outer_, rows.own_matrix = own_matrix_, rows.own_matrix_step = own_matrix_step_;
        rows.next_lanes = lanes_size_, rows.next_result = result_size_, rows.next_out = view.sample;
        rows.next_s = p.uniform ? job_.uniform_rows : lanes_size_;
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

    // Channels of a sample; those of the samples after these are fetched.
    void load(const TensorProductView& view, const T* array, std::int64_t b, std::int64_t first,
              Vector<T>* rows) const {
        const T* at = array + place(view, b, first);
        const std::int64_t size = channels(first, view.mul);
        load_channels<T>(at, strides(view), size, numbers(rows), row_ * W);
        const std::int64_t pieces = view.channel == 1 ? view.dim : 1, step = std::max(line<T>, view.channel);
        for (std::int64_t k = 0; k < pieces; ++k) {
            const T* next = at + samples_ * view.sample + k * view.component;
            for (std::int64_t n = 0; n < size * view.channel; n += step) fetch_ahead(next + n);
        }
    }

    void store(const TensorProductView& view, std::int64_t b, std::int64_t first, Vector<T>* rows) const {
        T* array = result_[view.array];
        if (array == nullptr) return;
        store_channels<T>(array + place(view, b, first), strides(view), channels(first, view.mul), numbers(rows),
                          row_ * W, streams_[view.array]);
    }

    // Zeros where no path leads, and in what is summed over the groups of a sample.
    void clear_results(std::int64_t b) {
        for (std::int64_t n = 0; n < job_.gaps; ++n) {
            const TensorProductGap& gap = job_.gap[n];
            T* array = result_[gap.array];
            if (array == nullptr || job_.adds[gap.array]) continue;
            const std::int64_t row = gap.array == array_out ? job_.dim_out : dim(gap.array);
            for (std::int64_t s = b; s < b + count_; ++s) {
                std::memset(array + s * row + gap.offset, 0, sizeof(T) * gap.size);
            }
        }
        if (sums_uniforms_) std::fill(by_uniforms_, by_uniforms_ + count_ * job_.uniform_rows, Vector<T>{});
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
                sum_terms<false>(steps_[n].rows.terms, uniforms_ + p.second_row, m, 1, 1);
            }
        }
    }

    // Calls body(view, s, rows of sample b + s in `lanes_` and its like) for all that have channels in a group.
    template <class Body>
    void for_lanes(std::int64_t first, const Body& body) {
        for (std::int64_t n = 0; n < job_.lane_views; ++n) {
            const TensorProductView& view = job_.lane_view[n];
            if (view.mul <= first) continue;
            for (std::int64_t s = 0; s < count_; ++s) body(view, s, s * lanes_size_ + view.row * row_);
        }
    }

    void group(std::int64_t b, std::int64_t first) {
        for_lanes(first, [&](const TensorProductView& view, std::int64_t s, std::int64_t rows) {
            load(view, values(view.array), b + s, first, lanes_ + rows);
            if (order == double_backward) load(view, steps(view.array), b + s, first, lanes_step_ + rows);
        });
        if (order != forward) begin_gradients(b, first);
        for (std::int64_t n = 0; n < job_.out_views; ++n) {
            const TensorProductView& view = job_.out_view[n];
            if (view.mul <= first) continue;
            if (order != forward) {
                for (std::int64_t s = 0; s < count_; ++s) load(view, job_.grad, b + s, first, grad_ + s * result_size_);
            }
            T* out = result_[array_out] == nullptr ? nullptr : result_[array_out] + place(view, b, first);
            for (std::int64_t k = job_.path_start[n]; k < job_.path_start[n + 1]; ++k) {
                path(steps_[k], job_.path[k], out, b, first);
            }
            if (order == backward || steps_[job_.path_start[n + 1] - 1].puts_out) continue;
            for (std::int64_t s = 0; s < count_; ++s) store(view, b + s, first, out_ + s * result_size_);
        }
        if (order == forward) return;
        for_lanes(first, [&](const TensorProductView& view, std::int64_t s, std::int64_t rows) {
            store(view, b + s, first, by_lanes_ + rows);
        });
    }

    // Zeros, or what is to be added to.
    void begin_gradients(std::int64_t b, std::int64_t first) {
        std::fill(by_lanes_, by_lanes_ + count_ * lanes_size_, Vector<T>{});
        for_lanes(first, [&](const TensorProductView& view, std::int64_t s, std::int64_t rows) {
            const T* array = job_.adds[view.array] ? result_[view.array] : nullptr;
            if (array != nullptr) load(view, array, b + s, first, by_lanes_ + rows);
        });
    }

    // One path for one group of channels. `out`: the group's place in the output.
    void path(Step& step, const TensorProductPath& p, T* out, std::int64_t b, std::int64_t first) {
        PathRows<T>& rows = step.rows;
        const std::int64_t size = channels(first, p.mul);
        rows.samples = count_, rows.vectors = (size + W - 1) / W;
        rows.m = numbers(matrices_ + p.matrix) + lane_, rows.m_step = numbers(matrices_step_ + p.matrix) + lane_;
        rows.out = step.puts_out ? out : nullptr;
        if (p.row_view >= 0) take_rows(job_.row_view[p.row_view], b, first, rows);
        // Weights, and gradients by them, in place where they are whole vectors.
        const bool in_place = p.weight >= 0 && p.weight_channel == 1 && size % W == 0;
        rows.w = rows.w_step = numbers(ones_), rows.next_w = rows.ahead = 0;
        if (order == double_backward) rows.w_step = numbers(zeros_);
        if (in_place) {
            const std::int64_t at = weight_place(p, b, first);
            rows.w = job_.weight + at, rows.next_w = job_.shared ? 0 : job_.weight_numel;
            rows.w_step = order == double_backward ? job_.weight_step + at : rows.w;
            rows.ahead = samples_ * rows.next_w;
        } else if (p.weight >= 0) {
            rows.w = rows.w_step = copy_weights(p, job_.weight, b, first, weight_), rows.next_w = row_ * W;
            if (order == double_backward) rows.w_step = copy_weights(p, job_.weight_step, b, first, weight_step_);
        }
        rows.by_w = nullptr;
        const bool puts_weight = step.want_weight && (!in_place || job_.shared);
        if (puts_weight) {
            rows.by_w = numbers(by_weight_), rows.next_by_w = row_ * W, rows.streams_weight = false;
        } else if (step.want_weight) {
            rows.by_w = job_.by_weight + weight_place(p, b, first), rows.next_by_w = job_.weight_numel;
            rows.streams_weight = streams_weight_;
        }
        step.kernel(*step.coupling, rows);
        if (puts_weight) put_weights(p, b, first);
    }

    // Has a path that copies work on rows in place.
    void take_rows(const TensorProductView& view, std::int64_t b, std::int64_t first, PathRows<T>& rows) const {
        const auto at = [&](auto* array) { return array + place(view, b, first); };
        rows.a = reinterpret_cast<const Vector<T>*>(at(values(view.array)));
        if (order == double_backward) rows.a_step = reinterpret_cast<const Vector<T>*>(at(steps(view.array)));
        if (rows.by_a != nullptr) rows.by_a = reinterpret_cast<Vector<T>*>(at(result_[view.array]));
        rows.copied_row = view.component / W, rows.next_lanes = view.sample / W, rows.adds_a = false;
    }

    std::int64_t weight_place(const TensorProductPath& p, std::int64_t b, std::int64_t first) const {
        return (job_.shared ? 0 : b * job_.weight_numel) + p.weight + first * p.weight_channel;
    }

    // The weights of a group of channels as whole vectors.
    const T* copy_weights(const TensorProductPath& p, const T* array, std::int64_t b, std::int64_t first,
                          Vector<T>* copy) const {
        for (std::int64_t s = 0; s < count_; ++s, copy += row_) {
            const T* row = array + weight_place(p, b + s, first);
            for_channels<T>(channels(first, p.mul), [&](std::int64_t c, int count) {
                const T* at = row + c * p.weight_channel;
                if (!job_.shared) fetch_ahead(at + samples_ * job_.weight_numel);
                copy[c / W] = load_numbers<T>(at, p.weight_channel, count);
            });
        }
        return numbers(copy - count_ * row_);
    }

    void put_weights(const TensorProductPath& p, std::int64_t b, std::int64_t first) const {
        for (std::int64_t s = 0; s < count_; ++s) {
            T* row = (job_.shared ? partial(b) : job_.by_weight) + weight_place(p, b + s, first);
            for_channels<T>(channels(first, p.mul), [&](std::int64_t c, int count) {
                T* target = row + c * p.weight_channel;
                Vector<T> by_weight = by_weight_[s * row_ + c / W];
                if (job_.shared) by_weight += load_numbers<T>(target, p.weight_channel, count);
                store_numbers<T>(target, p.weight_channel, count, by_weight, streams_weight_);
            });
        }
    }

    void add_uniforms(std::int64_t b) const {
        T* sums = numbers(uniforms_);
        for (std::int64_t s = 0; s < count_; ++s) {
            store_totals<T>(sums, by_uniforms_ + s * job_.uniform_rows, job_.uniform_rows, false);
            for (std::int64_t n = 0; n < job_.uniforms; ++n) {
                const TensorProductUniform& u = job_.uniform[n];
                if (result_[u.array] == nullptr) continue;
                T* array = result_[u.array] + (b + s) * dim(u.array) + u.offset;
                for (std::int64_t j = 0; j < u.dim; ++j) array[j] += sums[u.row + j];
            }
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
