// Blocks of channels: width<T> neighboring channels in one vector register, the last block possibly with fewer.
// Included only by kernel files, like vector.h.
#pragma once

#include <cstdint>
#include <vector>

#include "simd/vector.h"

namespace sdas::SDAS_SIMD {

// Channels first .. first + size; `full` says at compile time that size is width<T>. Lanes beyond the size load as
// zero and are not stored.
template <class T, bool full>
struct ChannelBlock {
    int first, size, index;

    SDAS_INLINE Vector<T> load(const T* p) const {
        if constexpr (full) return SDAS_SIMD::load<T>(p);
        Vector<T> v{};
        for (int t = 0; t < size; ++t) v[t] = p[t];
        return v;
    }

    SDAS_INLINE void store(T* p, Vector<T> v) const {
        if constexpr (full) return SDAS_SIMD::store<T>(p, v);
        for (int t = 0; t < size; ++t) p[t] = v[t];
    }

    // One number per head, given to each of the head's channels.
    SDAS_INLINE Vector<T> spread(const T* per_head, int channels_per_head) const {
        if (channels_per_head == 1) return load(per_head + first);
        if constexpr (full) {
            if (channels_per_head % width<T> == 0) return splat<T>(per_head[first / channels_per_head]);
            if (channels_per_head == 2) return repeat<2>(per_head + first / 2);
            if (channels_per_head == 4 && width<T> >= 4) return repeat<4>(per_head + first / 4);
            if (channels_per_head == 8 && width<T> >= 8) return repeat<8>(per_head + first / 8);
        }
        Vector<T> v{};
        for (int t = 0; t < size; ++t) v[t] = per_head[(first + t) / channels_per_head];
        return v;
    }

  private:
    // width / times numbers, each `times` times in a row.
    template <int times>
    static SDAS_INLINE Vector<T> repeat(const T* p) {
        const Vector<T> v = load_part<SDAS_VECTOR_BYTES / times>(p);
        return shuffle<T>(v, v, [](int i) { return i / times; });
    }
};

template <class T>
constexpr int channel_blocks(int channels) {
    return (channels + width<T> - 1) / width<T>;
}

template <class T, class Body>
SDAS_INLINE void for_channel_blocks(int channels, const Body& body) {
    int first = 0, index = 0;
    for (; first + width<T> <= channels; first += width<T>) body(ChannelBlock<T, true>{first, width<T>, index++});
    if (first < channels) body(ChannelBlock<T, false>{first, channels - first, index});
}

// Sum of a vector's elements, in a fixed order.
template <class T>
SDAS_INLINE T total(Vector<T> v) {
    T half[width<T>];
    store<T>(half, v);
    for (int n = width<T> / 2; n > 0; n /= 2) {
        for (int t = 0; t < n; ++t) half[t] += half[t + n];
    }
    return half[0];
}

// Sums over the channels of each head of `rows` numbers per channel, block by block, into out [.., rows, heads].
template <class T>
class HeadSums {
  public:
    template <class Job>
    HeadSums(int rows, const Job& job)
        : rows_(rows),
          heads_(job.heads),
          channels_(job.channels),
          per_channel_(job.heads == job.channels ? 0 : channel_blocks<T>(rows * job.channels)) {}

    template <class Block>
    SDAS_INLINE void put(const Vector<T>* v, T* out, std::int64_t edge, Block block) {
        T* target = heads_ == channels_ ? out + edge * rows_ * heads_ : numbers();
        for (int r = 0; r < rows_; ++r) block.store(target + r * channels_ + block.first, v[r]);
    }

    SDAS_INLINE void finish(T* out, std::int64_t edge) {
        if (heads_ == channels_) return;
        out += edge * rows_ * heads_;
        switch (channels_ / heads_) {
            case 2: return sum_groups(out, Constant<2>{});
            case 4: return sum_groups(out, Constant<4>{});
            case 8: return sum_groups(out, Constant<8>{});
            default: return sum_groups(out, Constant<0>{});
        }
    }

  private:
    // out[k] = the sum of the k-th `size` numbers; size 0 stands for one known only now.
    template <int size>
    SDAS_INLINE void sum_groups(T* __restrict out, Constant<size>) {
        const int count = size ? size : channels_ / heads_;
        const T* x = numbers();
        for (int k = 0; k < rows_ * heads_; ++k, x += count) {
            T sum = 0;
            for (int t = 0; t < count; ++t) sum += x[t];
            out[k] = sum;
        }
    }

    SDAS_INLINE T* numbers() { return reinterpret_cast<T*>(per_channel_.data()); }

    int rows_, heads_, channels_;
    // Of vectors, not of T: std::vector<T> would be one symbol for all SIMD levels, of whichever the linker picks.
    std::vector<Vector<T>> per_channel_;
};

}  // namespace sdas::SDAS_SIMD
