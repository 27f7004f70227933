// Kernels of the convolution: pack, reduce, edge.
//
// The edges of a chunk are the lanes of the vectors in which the numbers M_e[k, i] are made, as many edges as a vector
// has elements; after that channels are the lanes. Weights stream through once, the features of a neighbor and the sums
// of a node stay in the first caches. With ' marking tangents, a double backward reduces
//
//   Σ_i M (w in' + w' in) + M' w in    and per edge    ∂w = Σ g (M in' + M' in),    ∂M = Σ_c g (w in' + w' in).
#include "ops/tensor_product_conv/tensor_product_conv.h"

#include <cstring>
#include <vector>

#include "ops/tensor_product_conv/edge_chunk.h"

namespace sdas::SDAS_SIMD {
namespace {

// out[k] += Σ_i M[k, i] w in[i], for D orders i and a group of channels; or its derivative along the steps.
template <class T, int D, int G, bool step>
SDAS_INLINE void add_path(T* out, const T* in, const T* in_step, const T* w, const T* w_step, const T* m,
                          const T* m_step, std::int64_t out_dim, std::int64_t stride) {
    using Rows = Pack<T, G>;
    Rows scaled[D], moved[D];
    const Rows weight = load_pack<T, G>(w), weight_step = load_pack<T, G>(step ? w_step : w);
    for (int i = 0; i < D; ++i) {
        const Rows value = load_pack<T, G>(in + i * stride);
        scaled[i] = weight * value;
        if (step) {
            moved[i] = weight_step * value;
            if (in_step != nullptr) moved[i] += weight * load_pack<T, G>(in_step + i * stride);
        }
    }
    for (std::int64_t k = 0; k < out_dim; ++k, m += D * width<T>, m_step += D * width<T>) {
        Rows sum = load_pack<T, G>(out + k * stride);
        for (int i = 0; i < D; ++i) {
            sum += m[i * width<T>] * (step ? moved[i] : scaled[i]);
            if (step) sum += m_step[i * width<T>] * scaled[i];
        }
        store_pack<T, G>(out + k * stride, sum);
    }
}

// The same where M is a number times the identity.
template <class T, int G, bool step>
SDAS_INLINE void add_diagonal(T* out, const T* in, const T* in_step, const T* w, const T* w_step, T m, T m_step,
                              std::int64_t dim, std::int64_t stride) {
    using Rows = Pack<T, G>;
    const Rows weight = load_pack<T, G>(w);
    Rows scale = m * weight;
    if (step) {
        scale = m_step * weight;
        scale += m * load_pack<T, G>(w_step);
    }
    for (std::int64_t k = 0; k < dim; ++k) {
        Rows sum = load_pack<T, G>(out + k * stride);
        sum += scale * load_pack<T, G>(in + k * stride);
        if (step && in_step != nullptr) sum += m * (weight * load_pack<T, G>(in_step + k * stride));
        store_pack<T, G>(out + k * stride, sum);
    }
}

template <class T, bool step>
void reduce(const TensorProductConv<T>& job, std::int64_t begin, std::int64_t end) {
    constexpr int W = width<T>;
    std::vector<Vector<T>> sums(job.out_width / W + 1);
    T* out = reinterpret_cast<T*>(sums.data());
    Chunk<T> chunk(job);
    Weights<T> weights(job, widest(job), T(1)), weights_step(job, widest(job), T(0));
    const std::int64_t last = job.pointers[end];
    for (std::int64_t n = begin; n < end; ++n) {
        std::fill(sums.begin(), sums.end(), Vector<T>{});
        for (std::int64_t place = job.pointers[n]; place < job.pointers[n + 1]; ++place) {
            if (!chunk.holds(place)) chunk.make(place, last);
            const int lane = chunk.lane(place);
            const std::int64_t edge = job.order != nullptr ? job.order[place] : place;
            const T* in = job.in + job.neighbors[edge] * job.in_width;
            const T* in_step = job.in_step != nullptr ? job.in_step + job.neighbors[edge] * job.in_width : nullptr;
            const T *matrix = chunk.matrix(lane), *matrix_step = chunk.matrix_step(lane);
            for (std::int64_t p = 0; p < job.paths; ++p) {
                const TensorProductConvPath& path = job.path[p];
                const std::int64_t stride = padded(path.mul);
                const T* w = weights(job.weight, edge, path);
                const T* w_step = step ? weights_step(job.weight_step, edge, path) : w;
                const T *m = matrix + path.matrix * W, *m_step = step ? matrix_step + path.matrix * W : m;
                const auto at = [](const T* rows, std::int64_t place) { return rows ? rows + place : nullptr; };
                if (path.diagonal) {
                    for_groups<T>(path.mul, [&](auto G, std::int64_t c) {
                        add_diagonal<T, decltype(G)::value, step>(out + path.out_row + c, in + path.in_row + c,
                                                                  at(in_step, path.in_row + c), w + c, w_step + c, *m,
                                                                  *m_step, path.out_dim, stride);
                    });
                    continue;
                }
                for_components(static_cast<int>(path.in_dim), [&](auto D) {
                    for_groups<T>(path.mul, [&](auto G, std::int64_t c) {
                        add_path<T, decltype(D)::value, decltype(G)::value, step>(
                            out + path.out_row + c, in + path.in_row + c, at(in_step, path.in_row + c), w + c,
                            w_step + c, m, m_step, path.out_dim, stride);
                    });
                });
            }
        }
        for (std::int64_t v = 0; v < job.out_entries; ++v) {
            const TensorProductConvEntry& entry = job.out_entry[v];
            const int dim = static_cast<int>(entry.dim);
            store_channels<T>(job.out + n * job.out_dim + entry.offset, {dim, 1, dim}, entry.mul, out + entry.row,
                              padded(entry.mul), false);
        }
    }
}

// by_w += Σ_{k, i} g[k] M[k, i] in[i], by_m[k, i] += w g[k] in[i], for D orders i and a group of channels; or their
// derivatives along the steps.
template <class T, int D, int G, bool step>
SDAS_INLINE void edge_path(Vector<T>* by_m, T* by_w, const T* grad, const T* in, const T* in_step, const T* w,
                           const T* w_step, const T* m, const T* m_step, std::int64_t out_dim, std::int64_t stride) {
    using Rows = Pack<T, G>;
    Rows value[D], moved[D], sum{};
    const Rows weight = load_pack<T, G>(w), weight_step = load_pack<T, G>(step ? w_step : w);
    for (int i = 0; i < D; ++i) {
        value[i] = load_pack<T, G>(in + i * stride);
        if (step) moved[i] = in_step != nullptr ? load_pack<T, G>(in_step + i * stride) : Rows{};
    }
    for (std::int64_t k = 0; k < out_dim; ++k, m += D * width<T>, m_step += D * width<T>, by_m += D) {
        const Rows g = load_pack<T, G>(grad + k * stride);
        const Rows scaled = weight * g, scaled_step = weight_step * g;
        Rows product{};
        for (int i = 0; i < D; ++i) {
            product += m[i * width<T>] * (step ? moved[i] : value[i]);
            if (step) product += m_step[i * width<T>] * value[i];
            Vector<T> total = by_m[i];
            for (int n = 0; n < G; ++n) {
                total += scaled.v[n] * (step ? moved[i] : value[i]).v[n];
                if (step) total += scaled_step.v[n] * value[i].v[n];
            }
            by_m[i] = total;
        }
        sum += g * product;
    }
    store_pack<T, G>(by_w, sum);
}

// The same where M is a number times the identity.
template <class T, int G, bool step>
SDAS_INLINE void edge_diagonal(Vector<T>* by_m, T* by_w, const T* grad, const T* in, const T* in_step, const T* w,
                               const T* w_step, T m, T m_step, std::int64_t dim, std::int64_t stride) {
    using Rows = Pack<T, G>;
    Rows dot{}, dot_step{};
    for (std::int64_t k = 0; k < dim; ++k) {
        const Rows g = load_pack<T, G>(grad + k * stride);
        dot += g * load_pack<T, G>(in + k * stride);
        if (step && in_step != nullptr) dot_step += g * load_pack<T, G>(in_step + k * stride);
    }
    Rows total = load_pack<T, G>(w) * (step ? dot_step : dot), sum = m * (step ? dot_step : dot);
    if (step) {
        total += load_pack<T, G>(w_step) * dot;
        sum += m_step * dot;
    }
    for (int n = 0; n < G; ++n) *by_m += total.v[n];
    store_pack<T, G>(by_w, sum);
}

template <class T, bool step>
class Edges {
  public:
    explicit Edges(const TensorProductConv<T>& job)
        : job_(job),
          row_((job.pairs + W - 1) / W),
          chunk_(job),
          weights_(job, widest(job), T(1)),
          weights_step_(job, widest(job), T(0)),
          by_m_(row_ * W),
          by_weight_(widest(job) / W + 1),
          by_matrix_(row_ * W),
          by_y_(job.dim2) {}

    void run(std::int64_t begin, std::int64_t end) {
        const std::int64_t last = job_.pointers[end];
        for (std::int64_t n = begin; n < end; ++n) {
            if (job_.shared && job_.by_weight != nullptr && n % job_.block == 0) {
                std::memset(partial(n), 0, sizeof(T) * job_.weight_numel);
            }
            const T* grad = job_.grad + n * job_.out_width;
            for (std::int64_t e = job_.pointers[n]; e < job_.pointers[n + 1]; ++e) {
                if (!chunk_.holds(e)) chunk_.make(first_ = e, last);
                edge(e, grad, job_.shared ? partial(n) : job_.by_weight + e * job_.weight_numel);
                if (job_.by_y != nullptr && !chunk_.holds(e + 1)) put_y(e + 1 - first_);
            }
        }
    }

  private:
    static constexpr int W = width<T>;
    const TensorProductConv<T>& job_;
    const std::int64_t row_;  // vectors that hold one number per pair
    std::int64_t first_ = 0;
    Chunk<T> chunk_;
    Weights<T> weights_, weights_step_;
    std::vector<Vector<T>> by_m_;       // of the edge, per pair and channel of a vector
    std::vector<Vector<T>> by_weight_;  // of the path
    std::vector<Vector<T>> by_matrix_;  // [edge of the chunk, pair], summed over channels
    std::vector<Vector<T>> by_y_;

    T* partial(std::int64_t n) const { return job_.partial + n / job_.block * job_.weight_numel; }

    void edge(std::int64_t e, const T* grad, T* target) {
        const int lane = chunk_.lane(e);
        const T* in = job_.in + job_.neighbors[e] * job_.in_width;
        const T* in_step = step && job_.in_step ? job_.in_step + job_.neighbors[e] * job_.in_width : nullptr;
        const T *matrix = chunk_.matrix(lane), *matrix_step = chunk_.matrix_step(lane);
        std::fill(by_m_.begin(), by_m_.end(), Vector<T>{});
        T* by_w = reinterpret_cast<T*>(by_weight_.data());
        for (std::int64_t p = 0; p < job_.paths; ++p) {
            const TensorProductConvPath& path = job_.path[p];
            const std::int64_t stride = padded(path.mul);
            const T* w = weights_(job_.weight, e, path);
            const T* w_step = step ? weights_step_(job_.weight_step, e, path) : w;
            const T *m = matrix + path.matrix * W, *m_step = step ? matrix_step + path.matrix * W : m;
            Vector<T>* by_m = by_m_.data() + path.matrix;
            const auto at = [](const T* rows, std::int64_t place) { return rows ? rows + place : nullptr; };
            if (path.diagonal) {
                for_groups<T>(path.mul, [&](auto G, std::int64_t c) {
                    edge_diagonal<T, decltype(G)::value, step>(by_m, by_w + c, grad + path.out_row + c,
                                                               in + path.in_row + c, at(in_step, path.in_row + c),
                                                               w + c, w_step + c, *m, *m_step, path.out_dim, stride);
                });
            } else {
                for_components(static_cast<int>(path.in_dim), [&](auto D) {
                    for_groups<T>(path.mul, [&](auto G, std::int64_t c) {
                        edge_path<T, decltype(D)::value, decltype(G)::value, step>(
                            by_m, by_w + c, grad + path.out_row + c, in + path.in_row + c, at(in_step, path.in_row + c),
                            w + c, w_step + c, m, m_step, path.out_dim, stride);
                    });
                });
            }
            if (job_.by_weight != nullptr && path.weight >= 0) put_weight(path, by_w, target + path.weight);
        }
        if (job_.by_y == nullptr) return;
        for (std::int64_t r = 0; r < row_; ++r) by_matrix_[lane * row_ + r] = totals<T>(by_m_.data() + r * W);
    }

    void put_weight(const TensorProductConvPath& path, const T* by_w, T* target) const {
        if (job_.shared) {
            for (std::int64_t c = 0; c < path.mul; ++c) target[c * path.weight_channel] += by_w[c];
        } else if (path.weight_channel == 1) {
            std::memcpy(target, by_w, sizeof(T) * path.mul);
        } else {
            for (std::int64_t c = 0; c < path.mul; ++c) target[c * path.weight_channel] = by_w[c];
        }
    }

    // ∂y = Σ C ∂M of the chunk's edges.
    void put_y(std::int64_t count) {
        std::fill(by_y_.begin(), by_y_.end(), Vector<T>{});
        for (std::int64_t r = 0; r < row_; ++r) {
            Vector<T> tile[W];
            for (int lane = 0; lane < W; ++lane) tile[lane] = by_matrix_[lane * row_ + r];
            transpose<T>(tile);
            const std::int64_t pairs = std::min<std::int64_t>(W, job_.pairs - r * W);
            for (std::int64_t p = 0; p < pairs; ++p) {
                const std::int32_t* start = job_.term_start + r * W + p;
                for (int q = start[0]; q < start[1]; ++q) by_y_[job_.term_j[q]] += job_.term_value[q] * tile[p];
            }
        }
        for (std::int64_t lane = 0; lane < count; ++lane) {
            T* row = job_.by_y + (first_ + lane) * job_.dim2;
            for (std::int64_t j = 0; j < job_.dim2; ++j) row[j] = by_y_[j][lane];
        }
    }
};

}  // namespace

template <class T>
void tensor_product_conv_pack(const TensorProductConv<T>& job, std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
        for (std::int64_t v = 0; v < job.in_entries; ++v) {
            const TensorProductConvEntry& entry = job.in_entry[v];
            const int dim = static_cast<int>(entry.dim);
            load_channels<T>(job.in + n * job.in_dim + entry.offset, {dim, 1, dim}, entry.mul,
                             job.out + n * job.in_width + entry.row, padded(entry.mul));
        }
    }
}

template <class T>
void tensor_product_conv_reduce(const TensorProductConv<T>& job, std::int64_t begin, std::int64_t end) {
    job.second_order ? reduce<T, true>(job, begin, end) : reduce<T, false>(job, begin, end);
}

template <class T>
void tensor_product_conv_edge(const TensorProductConv<T>& job, std::int64_t begin, std::int64_t end) {
    job.second_order ? Edges<T, true>(job).run(begin, end) : Edges<T, false>(job).run(begin, end);
}

#define SDAS_INSTANTIATE(T)                                                                            \
    template void tensor_product_conv_pack(const TensorProductConv<T>&, std::int64_t, std::int64_t);   \
    template void tensor_product_conv_reduce(const TensorProductConv<T>&, std::int64_t, std::int64_t); \
    template void tensor_product_conv_edge(const TensorProductConv<T>&, std::int64_t, std::int64_t);
SDAS_INSTANTIATE(float)
SDAS_INSTANTIATE(double)
#undef SDAS_INSTANTIATE

}  // namespace sdas::SDAS_SIMD
