// The softmax of one receiver of the neighbor attention, and the moves between the layout of its operands and vectors
// of heads. Included only by kernel files, like vector.h.
//
// What belongs to heads is kept as `blocks` vectors for each number per head, the lanes beyond the heads zero in every
// operand, so that they add nothing to a sum over heads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sdas/channel_block.h"
#include "sdas/neighbor_attention.h"
#include "sdas/neighbor_tiles.h"
#include "sdas/softmax.h"
#include "sdas/vector_products.h"

namespace sdas::SDAS_SIMD {

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

  private:
    std::vector<Vector<T>> vectors_;
};

template <class T>
SDAS_INLINE void load_heads(Vector<T>* v, const T* p, int heads) {
    for_channel_blocks<T>(heads, [&](auto block) { v[block.index] = block.load(p + block.first); });
}

template <class T>
SDAS_INLINE void store_heads(T* p, const Vector<T>* v, int heads) {
    for_channel_blocks<T>(heads, [&](auto block) { block.store(p + block.first, v[block.index]); });
}

// p [heads, stride] to v [count, blocks], whose other lanes are left alone, and back.
template <class T>
void heads_innermost(T* v, std::int64_t padded, const T* p, int heads, int stride, int count) {
    for (int d = 0; d < count; ++d) {
        for (int k = 0; k < heads; ++k) v[d * padded + k] = p[k * stride + d];
    }
}

template <class T>
void heads_outermost(T* p, const T* v, std::int64_t padded, int heads, int stride, int count) {
    for (int k = 0; k < heads; ++k) {
        for (int d = 0; d < count; ++d) p[k * stride + d] = v[d * padded + k];
    }
}

// Sizes that all passes share, and the radial gain with heads innermost.
template <int L, class T>
class AttentionPass {
  public:
    static constexpr int M2 = orders<L>, degrees = L + 1;

    AttentionPass(const NeighborAttention<T>& job)
        : job(job),
          blocks(channel_blocks<T>(job.heads)),
          columns(degrees * blocks),
          padded(job.padded_heads()),
          gains(gain_vectors()) {
        transpose_gains(gains.data(), job.at.radial_gain);
    }

    // Vectors of a radial gain with heads innermost, not none where there are no radial functions.
    int gain_vectors() const { return std::max(job.radials, 1) * columns; }

    // gains [radials, L+1, blocks].
    void transpose_gains(Vector<T>* out, const T* radial_gain) const {
        for (int l = 0; l < degrees; ++l) {
            heads_innermost(reinterpret_cast<T*>(out + l * blocks), columns * width<T>, radial_gain + l * job.radials,
                            job.heads, degrees * job.radials, job.radials);
        }
    }

    // A row of columns, for a block of channels a vector per degree.
    template <class Block>
    SDAS_INLINE void spread(Vector<T>* w, const Vector<T>* row, Block block) const {
        spread_weights<L, T>(w, reinterpret_cast<const T*>(row), blocks * width<T>, job, block);
    }

    // A matrix with a row per edge as it is, and transposed.
    static Numbers<T> rows_of(const T* first, int count) { return {first, count, 1}; }
    static Numbers<T> columns_of(const T* first, int count) { return {first, 1, count}; }

    const NeighborAttention<T>& job;
    const int blocks, columns;  // vectors of a number per head, and of one per head and degree
    const std::int64_t padded;
    std::vector<Vector<T>> gains;
};

// Logits and weights of the edges [first, last) of a receiver.
template <int L, class T>
class ReceiverSoftmax {
  public:
    using Pass = AttentionPass<L, T>;
    using Operands = NeighborAttentionOperands<T>;

    explicit ReceiverSoftmax(const Pass& pass) : pass_(pass), job_(pass.job), sink_(pass.blocks) {}

    // u of every edge and head, [edges, blocks].
    Vector<T>* u(std::int64_t node) {
        const std::int64_t first = job_.row_ptr[node], count = job_.row_ptr[node + 1] - first;
        query = load_query(query_, job_.at.query, node);
        Vector<T>* x = u_.zeros(count * pass_.blocks);
        add_logits(x, query, job_.at, first, count);
        load_heads<T>(sink_.data(), job_.at.sink + node * job_.heads, job_.heads);
        for (int b = 0; b < pass_.blocks; ++b) {
            sink_[b] = normalize<T>(x + b, pass_.blocks, job_.at.envelope + first, count, sink_[b]);
        }
        return x;
    }

    // exp(s) / Z of a block of heads.
    Vector<T> sink(int block) const { return sink_[block]; }

    // x [edges, blocks] += query · [key | harmonics | radial].
    void add_logits(Vector<T>* x, const Vector<T>* query, const Operands& target, std::int64_t first,
                    std::int64_t count) const {
        const int blocks = pass_.blocks, channels = job_.key_channels;
        add_product<T>(x, blocks, Pass::rows_of(target.harmonics + first * Pass::M2, Pass::M2), count, Pass::M2,
                       query + channels * blocks);
        add_product<T>(x, blocks, Pass::rows_of(target.radial + first * job_.radials, job_.radials), count,
                       job_.radials, query + (channels + Pass::M2) * blocks);
        for (std::int64_t e = 0; e < count; ++e, x += blocks) {
            const T* key = target.keys + job_.senders[first + e] * channels * pass_.padded;
            for (int b = 0; b < blocks; ++b) {
                Vector<T> sum = x[b];
                for (int d = 0; d < channels; ++d) {
                    sum += query[d * blocks + b] * load<T>(key + d * pass_.padded + b * width<T>);
                }
                x[b] = sum;
            }
        }
    }

    // A node's query as [key_channels + M2 + radials, blocks].
    Vector<T>* load_query(Scratch<T>& scratch, const T* query, std::int64_t node) const {
        const int places = static_cast<int>(job_.places());
        Vector<T>* out = scratch.zeros(places * pass_.blocks);
        heads_innermost(reinterpret_cast<T*>(out), pass_.blocks * width<T>, query + node * job_.heads * places,
                        job_.heads, places, places);
        return out;
    }

    Vector<T>* query = nullptr;

  private:
    const Pass& pass_;
    const NeighborAttention<T>& job_;
    std::vector<Vector<T>> sink_;
    Scratch<T> query_, u_;
};

}  // namespace sdas::SDAS_SIMD
