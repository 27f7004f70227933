// Kernels of the neighbor tensor product: tiles, edge dot, to senders.
//
// A vector register holds width<T> channels; a block of so many channels of one node is worked on at a time. The
// tile [m1, M2] of a block stays in the first-level cache and its accumulators in registers while the edges of a
// chunk pass by, a few rows m1 at a time, so that each loaded harmonic serves several multiply-adds.
#include "ops/neighbor_tensor_product/neighbor_tensor_product.h"

#include <vector>

#include "ops/neighbor_tensor_product/tiles.h"

namespace sdas::SDAS_SIMD {
namespace {

// Weights of one edge for a block of channels, a vector per degree.
template <int L, class T, class Block>
SDAS_INLINE void load_weights(Vector<T>* w, const T* weight, std::int64_t edge, const NeighborTensorProduct<T>& job,
                              Block block) {
    spread_weights<L, T>(w, weight + edge * (L + 1) * job.heads, job.heads, job.channels / job.heads, block);
}

// B_e, or its derivative along the steps.
template <int L, class T, class Block>
SDAS_INLINE void edge_harmonics(Vector<T>* b, std::int64_t edge, const NeighborTensorProduct<T>& job, Block block,
                                bool step) {
    Vector<T> w[L + 1];
    load_weights<L, T>(w, job.weight, edge, job, block);
    const T* y = job.harmonics + edge * orders<L>;
    if (!step) return weighted_harmonics<L, T>(b, w, y);
    Vector<T> w_step[L + 1];
    load_weights<L, T>(w_step, job.weight_step, edge, job, block);
    weighted_harmonics_step<L, T>(b, w, w_step, y, job.harmonics_step + edge * orders<L>);
}

// Adds v_j ⊗ B_e of the edges [first, last) to the tile.
template <int L, class T, class Block>
SDAS_INLINE void add_edges(Vector<T>* tile, const T* value, std::int64_t first, std::int64_t last, bool step,
                           const NeighborTensorProduct<T>& job, Block block) {
    constexpr int M2 = orders<L>;
    Vector<T> b[chunk * M2];
    const T* sent[chunk];
    for (std::int64_t start = first; start < last; start += chunk) {
        const int count = static_cast<int>(std::min<std::int64_t>(chunk, last - start));
        for (int e = 0; e < count; ++e) {
            edge_harmonics<L, T>(b + e * M2, start + e, job, block, step);
            sent[e] = value + job.senders[start + e] * job.m1 * job.channels + block.first;
        }
        accumulate_rows<M2, T>(tile, b, sent, count, job, block);
    }
}

template <int L, class T>
void tiles(const NeighborTensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    std::vector<Vector<T>> tile(job.m1 * orders<L>), rows(job.rows);
    for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = job.row_ptr[i], last = job.row_ptr[i + 1];
        for_channel_blocks<T>(job.channels, [&](auto block) {
            std::fill(tile.begin(), tile.end(), Vector<T>{});
            add_edges<L, T>(tile.data(), job.value, first, last, job.weight_step != nullptr, job, block);
            if (job.value_step) add_edges<L, T>(tile.data(), job.value_step, first, last, false, job, block);
            couple<T>(job.out_z + i * job.rows * job.channels + block.first, tile.data(), rows.data(), job, block);
        });
    }
}

template <int L, class T>
void edge_dot(const NeighborTensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    constexpr int M2 = orders<L>;
    const int pairs = job.m1 * M2;
    const bool second = job.value_step != nullptr;
    std::vector<Vector<T>> tiles(pairs * channel_blocks<T>(job.channels));
    HeadSums<T> by_weight(L + 1, job), by_weight_step(L + 1, job);
    for (std::int64_t i = begin; i < end; ++i) {
        if (job.row_ptr[i] == job.row_ptr[i + 1]) continue;
        for_channel_blocks<T>(job.channels, [&](auto block) {
            const T* z = job.z + i * job.rows * job.channels + block.first;
            uncouple<T>(tiles.data() + block.index * pairs, z, job, pairs, block);
        });
        for (std::int64_t e = job.row_ptr[i]; e < job.row_ptr[i + 1]; ++e) {
            Vector<T> by_harmonics[M2] = {};
            const T *y = job.harmonics + e * M2, *y_step = second ? job.harmonics_step + e * M2 : nullptr;
            for_channel_blocks<T>(job.channels, [&](auto block) {
                const std::int64_t sent = job.senders[e] * job.m1 * job.channels + block.first;
                const Vector<T>* tile = tiles.data() + block.index * pairs;
                Vector<T> p[M2], w[L + 1], sum[L + 1] = {};
                const T *v = job.value + sent, *v_step = job.value_step + sent;
                dot<1, M2, T>(p, tile, &v, job, block);
                load_weights<L, T>(w, job.weight, e, job, block);
                if (!second) {
                    for_orders<L>([&](int l, int m) {
                        sum[l] += p[m] * y[m];
                        by_harmonics[m] += p[m] * w[l];
                    });
                    by_weight.put(sum, job.out_weight, e, block);
                    return;
                }
                Vector<T> q[M2], w_step[L + 1], sum_step[L + 1] = {};
                dot<1, M2, T>(q, tile, &v_step, job, block);
                load_weights<L, T>(w_step, job.weight_step, e, job, block);
                for_orders<L>([&](int l, int m) {
                    sum_step[l] += p[m] * y[m];
                    sum[l] += p[m] * y_step[m] + q[m] * y[m];
                    by_harmonics[m] += p[m] * w_step[l] + q[m] * w[l];
                });
                by_weight.put(sum, job.out_weight, e, block);
                by_weight_step.put(sum_step, job.out_weight_step, e, block);
            });
            by_weight.finish(job.out_weight, e);
            if (second) by_weight_step.finish(job.out_weight_step, e);
            for (int m = 0; m < M2; ++m) job.out_harmonics[e * M2 + m] = total<T>(by_harmonics[m]);
        }
    }
}

template <int L, class T>
void to_senders(const NeighborTensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    constexpr int M2 = orders<L>;
    const bool step = job.weight_step != nullptr;
    const Coupling<T>& c = job.coupling;
    std::vector<Vector<T>> sums(job.m1);
    for (std::int64_t j = begin; j < end; ++j) {
        for_channel_blocks<T>(job.channels, [&](auto block) {
            std::fill(sums.begin(), sums.end(), Vector<T>{});
            for (std::int64_t place = job.sender_ptr[j]; place < job.sender_ptr[j + 1]; ++place) {
                const std::int64_t e = job.sender_order[place];
                Vector<T> b[M2];
                edge_harmonics<L, T>(b, e, job, block, step);
                const T* z = job.z + job.receivers[e] * job.rows * job.channels + block.first;
                for (int q = 0; q < c.entries; ++q) {
                    const Vector<T> scaled = c.coefficient[q] * b[c.pair[q] % M2];
                    sums[c.pair[q] / M2] += scaled * block.load(z + std::int64_t{c.row[q]} * job.channels);
                }
            }
            T* out = job.out_value + j * job.m1 * job.channels + block.first;
            for (int m1 = 0; m1 < job.m1; ++m1) block.store(out + m1 * job.channels, sums[m1]);
        });
    }
}

}  // namespace

template <class T>
void neighbor_tensor_product_tiles(const NeighborTensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    for_lmax(job.lmax, [&](auto lmax) { tiles<decltype(lmax)::value, T>(job, begin, end); });
}

template <class T>
void neighbor_tensor_product_edge_dot(const NeighborTensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    for_lmax(job.lmax, [&](auto lmax) { edge_dot<decltype(lmax)::value, T>(job, begin, end); });
}

template <class T>
void neighbor_tensor_product_to_senders(const NeighborTensorProduct<T>& job, std::int64_t begin, std::int64_t end) {
    for_lmax(job.lmax, [&](auto lmax) { to_senders<decltype(lmax)::value, T>(job, begin, end); });
}

#define SDAS_INSTANTIATE(T)                                                                                      \
    template void neighbor_tensor_product_tiles(const NeighborTensorProduct<T>&, std::int64_t, std::int64_t);    \
    template void neighbor_tensor_product_edge_dot(const NeighborTensorProduct<T>&, std::int64_t, std::int64_t); \
    template void neighbor_tensor_product_to_senders(const NeighborTensorProduct<T>&, std::int64_t, std::int64_t);
SDAS_INSTANTIATE(float)
SDAS_INSTANTIATE(double)
#undef SDAS_INSTANTIATE

}  // namespace sdas::SDAS_SIMD
