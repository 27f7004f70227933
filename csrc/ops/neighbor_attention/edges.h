// What the passes of the neighbor attention share: the layout of heads, edges taken four at a time, their logits, softmax
// and radial gains. Included only by kernel files, like vector.h.
//
// What belongs to heads is kept as `blocks` vectors for each number per head, the lanes beyond the heads zero in every
// operand, so that they add nothing to a sum over heads. Four edges share each load of a factor that belongs to their
// receiver; where fewer are left, the last one stands in for the others, whose results go nowhere.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/edge_softmax/softmax.h"
#include "ops/neighbor_attention/neighbor_attention.h"
#include "ops/neighbor_tensor_product/tiles.h"
#include "simd/channel_block.h"
#include "simd/kept_vectors.h"
#include "simd/streaming.h"
#include "simd/transpose.h"

namespace sdas::SDAS_SIMD {

constexpr int quad = 4;

constexpr std::int64_t in_quads(std::int64_t count) { return (count + quad - 1) / quad * quad; }

// Vectors of one thread, as many as the largest request.
template <class T>
class Scratch {
  public:
    Vector<T>* room(std::int64_t size) {
        if (static_cast<std::int64_t>(vectors_.size()) < size) vectors_.resize(size);
        return vectors_.data();
    }

    Vector<T>* zeros(std::int64_t size) {
        Vector<T>* result = room(size);
        std::fill(result, result + size, Vector<T>{});
        return result;
    }

    T* numbers(std::int64_t size) { return reinterpret_cast<T*>(room((size + width<T> - 1) / width<T>)); }

  private:
    Vectors<T> vectors_;
};

template <class T>
SDAS_INLINE void load_heads(Vector<T>* v, const T* p, int heads) {
    for_channel_blocks<T>(heads, [&](auto block) { v[block.index] = block.load(p + block.first); });
}

template <class T>
SDAS_INLINE void store_heads(T* p, const Vector<T>* v, int heads) {
    for_channel_blocks<T>(heads, [&](auto block) { block.store(p + block.first, v[block.index]); });
}

// Where the operands of four edges lie, or the steps of these.
template <class T>
struct Quad {
    const T *key[quad], *harmonics[quad], *radial[quad];
};

// Sizes that all passes share, and the radial gain with heads innermost. N: how many radial functions, 0 for any number.
template <int L, class T, int N>
class AttentionPass {
  public:
    static constexpr int M2 = orders<L>, degrees = L + 1;
    using Gains = Vector<T>[quad][degrees];

    explicit AttentionPass(const NeighborAttention<T>& job)
        : job(job),
          blocks(channel_blocks<T>(job.heads)),
          columns(degrees * blocks),
          padded(job.padded_heads()),
          channels_per_head(job.channels / job.heads),
          gains(gain_vectors()) {
        arrange_gains(gains.data(), job.at.radial_gain);
    }

    SDAS_INLINE int radials() const { return N > 0 ? N : job.radials; }

    // Vectors of a radial gain, not none where there are no radial functions.
    int gain_vectors() const { return std::max(radials(), 1) * columns; }

    // [heads, L+1, radials] as vectors [radials, L+1, blocks], and back.
    void arrange_gains(Vector<T>* out, const T* radial_gain) const {
        T* numbers = reinterpret_cast<T*>(out);
        const int n = radials();
        for (int l = 0; l < degrees; ++l) {
            transpose_matrix<T>(numbers + l * row(), columns * width<T>, radial_gain + l * n, degrees * n, job.heads,
                                n);
        }
    }

    void restore_gains(T* radial_gain, const Vector<T>* arranged) const {
        const T* numbers = reinterpret_cast<const T*>(arranged);
        const int n = radials();
        for (int l = 0; l < degrees; ++l) {
            transpose_matrix<T>(radial_gain + l * n, degrees * n, numbers + l * row(), columns * width<T>, n,
                                job.heads);
        }
    }

    // The first four of `count` > 0 edges.
    SDAS_INLINE Quad<T> take(const std::int64_t* edges, std::int64_t count,
                             const NeighborAttentionOperands<T>& target) const {
        Quad<T> q;
        for (int k = 0; k < quad; ++k) put(q, k, edges[std::min<std::int64_t>(k, count - 1)], target);
        return q;
    }

    SDAS_INLINE Quad<T> take(std::int64_t first, std::int64_t count, const NeighborAttentionOperands<T>& target) const {
        Quad<T> q;
        for (int k = 0; k < quad; ++k) put(q, k, first + std::min<std::int64_t>(k, count - 1), target);
        return q;
    }

    // Asks for the rows of `array` that belong to the senders of `count` edges, before they are wanted: nobody can guess
    // them, and in a large system they are far away.
    SDAS_INLINE void fetch_senders(const T* array, std::int64_t row, std::int64_t edge, std::int64_t count) const {
        const std::int64_t end = std::min(edge + count, job.edges);
        for (; edge < end; ++edge) {
            const T* sent = array + job.senders[edge] * row;
            for (std::int64_t k = 0; k < row; k += line<T>) fetch_ahead(sent + k);
        }
    }

    // x [4, blocks] += query · [key | harmonics | radial].
    SDAS_INLINE void add_logits(Vector<T>* x, const Vector<T>* query, const Quad<T>& q) const {
        int b = 0;
        for (; b + 2 <= blocks; b += 2) add_logits<2>(x + b, query + b, q, b * width<T>);
        if (b < blocks) add_logits<1>(x + b, query + b, q, b * width<T>);
    }

    // g [4, L+1] += Σ_n R_n W_n for a block of heads.
    SDAS_INLINE void add_gains(Gains& g, const Vector<T>* arranged, const Quad<T>& q, int block) const {
        const Vector<T>* w = arranged + block;
        const auto add = [&](int n) {
#pragma GCC unroll 4
            for (int k = 0; k < quad; ++k) {
                const Vector<T> r = splat<T>(q.radial[k][n]);
#pragma GCC unroll 8
                for (int l = 0; l < degrees; ++l) g[k][l] += r * w[n * columns + l * blocks];
            }
        };
        for_radials(add);
    }

    SDAS_INLINE void clear(Gains& g) const {
#pragma GCC unroll 32
        for (int k = 0; k < quad * degrees; ++k) g[k / degrees][k % degrees] = Vector<T>{};
    }

    // A row [L+1, blocks], for a block of channels a vector per degree.
    template <class Block>
    SDAS_INLINE void spread(Vector<T>* w, const Vector<T>* row, Block block) const {
        spread_weights<L, T>(w, reinterpret_cast<const T*>(row), blocks * width<T>, channels_per_head, block);
    }

    // The first `count` places of a node's query, as vectors [count, blocks].
    Vector<T>* load_query(Scratch<T>& scratch, const T* query, std::int64_t node, int count) const {
        Vector<T>* out = scratch.room(count * blocks);
        query += node * job.heads * job.places();
        if (job.heads_inner) {
            for (int p = 0; p < count; ++p) load_heads<T>(out + p * blocks, query + p * job.heads, job.heads);
        } else {
            if (job.heads % width<T> != 0) std::fill(out, out + count * blocks, Vector<T>{});
            transpose_matrix<T>(reinterpret_cast<T*>(out), blocks * width<T>, query, job.places(), job.heads, count);
        }
        return out;
    }

    // From `places` rows of heads, `row` apart, to a node's gradient by its query or key.
    void store_places(T* out, std::int64_t node, const T* rows, std::int64_t row, int places) const {
        out += node * job.heads * places;
        if (job.heads_inner) {
            for (int p = 0; p < places; ++p) std::copy_n(rows + p * row, job.heads, out + p * job.heads);
        } else {
            transpose_matrix<T>(out, places, rows, row, places, job.heads);
        }
    }

    // Numbers in a row of heads, padded to vectors.
    std::int64_t row() const { return std::int64_t{blocks} * width<T>; }

    template <class Body>
    SDAS_INLINE void for_radials(const Body& body) const {
        if constexpr (N > 0) {
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) body(n);
        } else {
            for (int n = 0; n < job.radials; ++n) body(n);
        }
    }

    const NeighborAttention<T>& job;
    const int blocks, columns;  // vectors of a number per head, and of one per head and degree
    const std::int64_t padded;
    const int channels_per_head;
    Vectors<T> gains;

  private:
    SDAS_INLINE void put(Quad<T>& q, int k, std::int64_t e, const NeighborAttentionOperands<T>& target) const {
        q.key[k] = target.keys + job.senders[e] * job.key_channels * padded;
        q.harmonics[k] = target.harmonics + e * M2;
        q.radial[k] = target.radial + e * radials();
    }

    template <int C>
    SDAS_INLINE void add_logits(Vector<T>* x, const Vector<T>* query, const Quad<T>& q, std::int64_t head) const {
        Vector<T> sum[quad][C];
#pragma GCC unroll 8
        for (int k = 0; k < quad * C; ++k) sum[k / C][k % C] = x[k / C * blocks + k % C];
        for (int d = 0; d < job.key_channels; ++d, query += blocks, head += padded) {
#pragma GCC unroll 8
            for (int k = 0; k < quad * C; ++k) {
                sum[k / C][k % C] += query[k % C] * load<T>(q.key[k / C] + head + k % C * width<T>);
            }
        }
        const auto add = [&](const T* const* numbers, int n) {
#pragma GCC unroll 8
            for (int k = 0; k < quad * C; ++k) sum[k / C][k % C] += numbers[k / C][n] * query[k % C];
            query += blocks;
        };
#pragma GCC unroll 32
        for (int m = 0; m < M2; ++m) add(q.harmonics, m);
        for_radials([&](int n) { add(q.radial, n); });
#pragma GCC unroll 8
        for (int k = 0; k < quad * C; ++k) x[k / C * blocks + k % C] = sum[k / C][k % C];
    }
};

// The softmax of one receiver.
template <int L, class T, int N>
class ReceiverSoftmax {
  public:
    using Pass = AttentionPass<L, T, N>;

    explicit ReceiverSoftmax(const Pass& pass) : pass_(pass), job_(pass.job), sink_(pass.blocks) {}

    // u of every edge and head, [edges in quads, blocks].
    Vector<T>* u(std::int64_t node) {
        const std::int64_t first = job_.row_ptr[node], count = job_.row_ptr[node + 1] - first;
        const int blocks = pass_.blocks;
        query = pass_.load_query(query_, job_.at.query, node, static_cast<int>(job_.places()));
        Vector<T>* x = u_.zeros(in_quads(count) * blocks);
        add_logits(x, query, job_.at, first, count);
        load_heads<T>(sink_.data(), job_.at.sink + node * job_.heads, job_.heads);
        for (int b = 0; b < blocks; ++b) {
            sink_[b] = normalize<T>(x + b, blocks, job_.at.envelope + first, count, sink_[b]);
        }
        return x;
    }

    // exp(s) / Z of a block of heads.
    Vector<T> sink(int block) const { return sink_[block]; }

    // x [edges in quads, blocks] += query · [key | harmonics | radial].
    void add_logits(Vector<T>* x, const Vector<T>* query, const NeighborAttentionOperands<T>& target,
                    std::int64_t first, std::int64_t count) const {
        for (std::int64_t e = 0; e < count; e += quad) {
            pass_.add_logits(x + e * pass_.blocks, query, pass_.take(first + e, count - e, target));
        }
    }

    Vector<T>* query = nullptr;

  private:
    const Pass& pass_;
    const NeighborAttention<T>& job_;
    Vectors<T> sink_;
    Scratch<T> query_, u_;
};

}  // namespace sdas::SDAS_SIMD
