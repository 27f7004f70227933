// Kernels of the edge softmax: forward, backward, double backward over receivers, and the gradient by the keys over
// senders.
//
// A vector register holds width<T> heads. One node's block of heads is worked on at a time; what its edges need again
// (u, the logit's step, ...) stays in a scratch of [edges, values] vectors, so exponentials are taken once.
#include "ops/edge_softmax/edge_softmax.h"

#include <vector>

#include "ops/edge_softmax/softmax.h"
#include "simd/channel_block.h"

namespace sdas::SDAS_SIMD {
namespace {

// Σ_d q[d] k_j[d] + Σ_p q[D+p] place[p] of one edge.
template <class T, class Block>
SDAS_INLINE Vector<T> logit(const T* query, const T* key, const T* place, const EdgeSoftmax<T>& job, Block block) {
    Vector<T> even{}, odd{};
    for (int d = 0; d < job.key_channels; ++d) {
        even += block.load(query + d * job.heads) * block.load(key + d * job.heads);
    }
    query += job.key_channels * job.heads;
    int p = 0;
    for (; p + 2 <= job.places; p += 2) {
        even += block.load(query + p * job.heads) * place[p];
        odd += block.load(query + (p + 1) * job.heads) * place[p + 1];
    }
    if (p < job.places) even += block.load(query + p * job.heads) * place[p];
    return even + odd;
}

// Rows of one receiver and of its edges in the arrays of a job, for a block of heads.
template <class T, class Block>
struct Node {
    const EdgeSoftmax<T>& job;
    Block block;
    std::int64_t node, first, last;

    SDAS_INLINE Node(const EdgeSoftmax<T>& job, Block block, std::int64_t node)
        : job(job), block(block), node(node), first(job.row_ptr[node]), last(job.row_ptr[node + 1]) {}

    SDAS_INLINE const T* query(const T* q) const {
        return q + node * (job.key_channels + job.places) * job.heads + block.first;
    }
    SDAS_INLINE const T* key(const T* k, std::int64_t e) const {
        return k + job.senders[e] * job.key_channels * job.heads + block.first;
    }
    SDAS_INLINE Vector<T> of_node(const T* x) const { return block.load(x + node * job.heads + block.first); }
    SDAS_INLINE Vector<T> of_edge(const T* x, std::int64_t e) const {
        return block.load(x + e * job.heads + block.first);
    }
    SDAS_INLINE void set_edge(T* x, std::int64_t e, Vector<T> v) const {
        block.store(x + e * job.heads + block.first, v);
    }

    // u of every edge into u[0], u[stride], ..; returns exp(s)/Z.
    SDAS_INLINE Vector<T> normalize(Vector<T>* u, int stride) const {
        for (std::int64_t e = first; e < last; ++e) {
            u[(e - first) * stride] =
                logit<T>(query(job.query), key(job.key, e), job.place + e * job.places, job, block);
        }
        return SDAS_SIMD::normalize<T>(u, stride, job.envelope + first, last - first, of_node(job.sink));
    }

    // by_query = Σ_e c_e [k_j | place], and c_e q[D+p] added to by_place[e, p] lane by lane.
    SDAS_INLINE void spread(Vector<T>* by_query, Vector<T>* by_place, std::int64_t e, Vector<T> c, const T* query_rows,
                            const T* key_rows, const T* place) const {
        const int channels = job.key_channels;
        const T* k = key(key_rows, e);
        for (int d = 0; d < channels; ++d) by_query[d] += c * block.load(k + d * job.heads);
        const T* q = query(query_rows) + channels * job.heads;
        place += e * job.places;
        for (int p = 0; p < job.places; ++p) {
            by_query[channels + p] += c * place[p];
            by_place[p] += c * block.load(q + p * job.heads);
        }
    }

    SDAS_INLINE void store_query(const Vector<T>* by_query) const {
        T* out = job.by_query + (query(job.query) - job.query);
        for (int d = 0; d < job.key_channels + job.places; ++d) block.store(out + d * job.heads, by_query[d]);
    }
};

// What is summed over heads of each edge of a node: `places` numbers and the envelope's, as vectors until the end.
template <class T>
class EdgeSums {
  public:
    explicit EdgeSums(const EdgeSoftmax<T>& job) : job_(job) {}

    SDAS_INLINE void clear(std::int64_t edges) { sums_.assign(edges * (job_.places + 1), Vector<T>{}); }
    SDAS_INLINE Vector<T>* of(std::int64_t edge) { return sums_.data() + edge * (job_.places + 1); }

    SDAS_INLINE void finish(std::int64_t first, std::int64_t last) {
        const Vector<T>* sum = sums_.data();
        for (std::int64_t e = first; e < last; ++e) {
            for (int p = 0; p < job_.places; ++p) job_.by_place[e * job_.places + p] = total<T>(*sum++);
            job_.by_envelope[e] = total<T>(*sum++);
        }
    }

  private:
    const EdgeSoftmax<T>& job_;
    std::vector<Vector<T>> sums_;
};

}  // namespace

template <class T>
void edge_softmax_forward(const EdgeSoftmax<T>& job, std::int64_t begin, std::int64_t end) {
    std::vector<Vector<T>> u;
    for (std::int64_t i = begin; i < end; ++i) {
        u.resize(job.row_ptr[i + 1] - job.row_ptr[i]);
        for_channel_blocks<T>(job.heads, [&](auto block) {
            const Node<T, decltype(block)> node(job, block, i);
            node.normalize(u.data(), 1);
            for (std::int64_t e = node.first; e < node.last; ++e) {
                node.set_edge(job.alpha, e, u[e - node.first] * job.envelope[e]);
            }
        });
    }
}

template <class T>
void edge_softmax_backward(const EdgeSoftmax<T>& job, std::int64_t begin, std::int64_t end) {
    std::vector<Vector<T>> u, by_query(job.key_channels + job.places);
    EdgeSums<T> sums(job);
    for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = job.row_ptr[i], last = job.row_ptr[i + 1];
        u.resize(last - first);
        sums.clear(last - first);
        for_channel_blocks<T>(job.heads, [&](auto block) {
            const Node<T, decltype(block)> node(job, block, i);
            const Vector<T> sink = node.normalize(u.data(), 1);
            Vector<T> mean{};
            for (std::int64_t e = first; e < last; ++e) {
                mean += u[e - first] * job.envelope[e] * node.of_edge(job.grad, e);
            }
            std::fill(by_query.begin(), by_query.end(), Vector<T>{});
            for (std::int64_t e = first; e < last; ++e) {
                const Vector<T> slope = u[e - first] * (node.of_edge(job.grad, e) - mean);
                const Vector<T> by_logit = slope * job.envelope[e];
                node.set_edge(job.by_logit, e, by_logit);
                Vector<T>* sum = sums.of(e - first);
                node.spread(by_query.data(), sum, e, by_logit, job.query, job.key, job.place);
                sum[job.places] += slope;
            }
            node.store_query(by_query.data());
            block.store(job.by_sink + i * job.heads + block.first, -sink * mean);
        });
        sums.finish(first, last);
    }
}

template <class T>
void edge_softmax_double_backward(const EdgeSoftmax<T>& job, std::int64_t begin, std::int64_t end) {
    constexpr int values = 3;  // of an edge: u, the logit's step, the weight's step before the drift is taken off
    std::vector<Vector<T>> scratch, by_query(job.key_channels + job.places);
    EdgeSums<T> sums(job);
    for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = job.row_ptr[i], last = job.row_ptr[i + 1];
        scratch.resize((last - first) * values);
        sums.clear(last - first);
        for_channel_blocks<T>(job.heads, [&](auto block) {
            const Node<T, decltype(block)> node(job, block, i);
            const Vector<T> sink = node.normalize(scratch.data(), values), sink_step = node.of_node(job.sink_step);
            Vector<T> drift = sink * sink_step, mean{};
            for (std::int64_t e = first; e < last; ++e) {
                Vector<T>* x = &scratch[(e - first) * values];
                const T *place = job.place + e * job.places, *place_step = job.place_step + e * job.places;
                x[1] = logit<T>(node.query(job.query_step), node.key(job.key, e), place, job, block) +
                       logit<T>(node.query(job.query), node.key(job.key_step, e), place_step, job, block);
                x[2] = x[0] * (x[1] * job.envelope[e] + job.envelope_step[e]);
                drift += x[2];
                mean += x[0] * job.envelope[e] * node.of_edge(job.grad, e);
            }
            Vector<T> total_step{};
            for (std::int64_t e = first; e < last; ++e) {
                Vector<T>* x = &scratch[(e - first) * values];
                x[2] -= x[0] * job.envelope[e] * drift;
                node.set_edge(job.alpha, e, x[2]);
                total_step += node.of_edge(job.grad, e) * x[2];
            }
            std::fill(by_query.begin(), by_query.end(), Vector<T>{});
            for (std::int64_t e = first; e < last; ++e) {
                const Vector<T>* x = &scratch[(e - first) * values];
                const Vector<T> excess = node.of_edge(job.grad, e) - mean;
                const Vector<T> by_logit_step = x[0] * job.envelope[e] * excess;
                const Vector<T> by_logit = excess * x[2] - x[0] * job.envelope[e] * total_step;
                node.set_edge(job.by_logit, e, by_logit);
                node.set_edge(job.by_logit_step, e, by_logit_step);
                Vector<T>* sum = sums.of(e - first);
                node.spread(by_query.data(), sum, e, by_logit, job.query, job.key, job.place);
                node.spread(by_query.data(), sum, e, by_logit_step, job.query_step, job.key_step, job.place_step);
                sum[job.places] += x[0] * (excess * (x[1] - drift) - total_step);
            }
            node.store_query(by_query.data());
            block.store(job.by_sink + i * job.heads + block.first, -sink * (mean * (sink_step - drift) + total_step));
        });
        sums.finish(first, last);
    }
}

template <class T>
void edge_softmax_to_senders(const EdgeSoftmax<T>& job, std::int64_t begin, std::int64_t end) {
    const int channels = job.key_channels, row = (channels + job.places) * job.heads;
    std::vector<Vector<T>> by_key(channels);
    for (std::int64_t j = begin; j < end; ++j) {
        for_channel_blocks<T>(job.heads, [&](auto block) {
            std::fill(by_key.begin(), by_key.end(), Vector<T>{});
            const auto add = [&](const T* cotangent, const T* query, std::int64_t e) {
                const Vector<T> c = block.load(cotangent + e * job.heads + block.first);
                const T* q = query + job.receivers[e] * row + block.first;
                for (int d = 0; d < channels; ++d) by_key[d] += c * block.load(q + d * job.heads);
            };
            for (std::int64_t place = job.sender_ptr[j]; place < job.sender_ptr[j + 1]; ++place) {
                const std::int64_t e = job.sender_order[place];
                add(job.by_logit, job.query, e);
                if (job.query_step) add(job.by_logit_step, job.query_step, e);
            }
            T* out = job.by_key + j * channels * job.heads + block.first;
            for (int d = 0; d < channels; ++d) block.store(out + d * job.heads, by_key[d]);
        });
    }
}

#define SDAS_INSTANTIATE(T)                                                                        \
    template void edge_softmax_forward(const EdgeSoftmax<T>&, std::int64_t, std::int64_t);         \
    template void edge_softmax_backward(const EdgeSoftmax<T>&, std::int64_t, std::int64_t);        \
    template void edge_softmax_double_backward(const EdgeSoftmax<T>&, std::int64_t, std::int64_t); \
    template void edge_softmax_to_senders(const EdgeSoftmax<T>&, std::int64_t, std::int64_t);
SDAS_INSTANTIATE(float)
SDAS_INSTANTIATE(double)
#undef SDAS_INSTANTIATE

}  // namespace sdas::SDAS_SIMD
