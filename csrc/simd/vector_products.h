// Small matrix products of numbers that belong to the edges of one receiver, with vectors of heads or of few columns.
// Included only by kernel files, like vector.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd/kept_vectors.h"
#include "simd/transpose.h"

namespace sdas::SDAS_SIMD {

// Calls body(Constant<R>, k) for consecutive groups of R of `count` things: as many of `most` as there are, then smaller
// powers of two.
template <int most, class Body>
SDAS_INLINE void for_groups_of(std::int64_t count, const Body& body, std::int64_t k = 0) {
    for (; k + most <= count; k += most) body(Constant<most>{}, k);
    if constexpr (most > 1) for_groups_of<most / 2>(count, body, k);
}

// out [P, C] += Σ_e x[e, p] v[e, c] of numbers x, whose rows are `row` apart, and vectors v, `columns` apart.
template <int P, int C, class T>
SDAS_INLINE void sum_edges(Vector<T>* out, std::int64_t out_row, const T* x, std::int64_t row, const Vector<T>* v,
                           std::int64_t columns, std::int64_t edges) {
    Vector<T> sum[P][C];
#pragma GCC unroll 16
    for (int k = 0; k < P * C; ++k) sum[k / C][k % C] = out[k / C * out_row + k % C];
    for (std::int64_t e = 0; e < edges; ++e, x += row, v += columns) {
#pragma GCC unroll 16
        for (int k = 0; k < P * C; ++k) sum[k / C][k % C] += x[k / C] * v[k % C];
    }
#pragma GCC unroll 16
    for (int k = 0; k < P * C; ++k) out[k / C * out_row + k % C] = sum[k / C][k % C];
}

// out [places, columns] += Σ_e x[e, p] v[e, c].
template <class T>
[[gnu::noinline]] void add_edges(Vector<T>* out, const T* x, int places, const Vector<T>* v, int columns,
                                 std::int64_t edges) {
    for_groups_of<4>(places, [&](auto group, std::int64_t p) {
        constexpr int P = decltype(group)::value;
        for_groups_of<2>(columns, [&](auto pair, std::int64_t c) {
            sum_edges<P, decltype(pair)::value, T>(out + p * columns + c, columns, x + p, places, v + c, columns,
                                                   edges);
        });
    });
}

// Sums of neighboring pairs of elements, those of a, then those of b.
template <class T>
SDAS_INLINE Vector<T> pair_sums(Vector<T> a, Vector<T> b) {
    return shuffle<T>(a, b, [](int i) { return 2 * i; }) + shuffle<T>(a, b, [](int i) { return 2 * i + 1; });
}

// Element i is the sum of the elements of v[i].
template <class T>
SDAS_INLINE Vector<T> totals(const Vector<T>* v) {
    Vector<T> sum[width<T>];
    int count = width<T>;
    const auto halve = [&](const Vector<T>* from, auto merge) {
        count /= 2;
        for (int n = 0; n < count; ++n) sum[n] = merge(from[2 * n], from[2 * n + 1]);
    };
    halve(v, [](Vector<T> a, Vector<T> b) { return unpack<T, 1, false>(a, b) + unpack<T, 1, true>(a, b); });
    if constexpr (lane_width<T> == 4) {
        halve(sum, [](Vector<T> a, Vector<T> b) { return unpack<T, 2, false>(a, b) + unpack<T, 2, true>(a, b); });
    }
    while (count > 1) halve(sum, [](Vector<T> a, Vector<T> b) { return lanes<T, false>(a, b) + lanes<T, true>(a, b); });
    return sum[0];
}

// out[i] = the sum of the elements of v[i], plus what is in out if `add`.
template <class T>
[[gnu::noinline]] void store_totals(T* out, const Vector<T>* v, std::int64_t count, bool add) {
    std::int64_t i = 0;
    for (; i + width<T> <= count; i += width<T>) {
        const Vector<T> sums = totals<T>(v + i);
        store<T>(out + i, add ? load<T>(out + i) + sums : sums);
    }
    if (i == count) return;
    const int left = static_cast<int>(count - i);
    Vector<T> rest[width<T>];
    for (int k = 0; k < width<T>; ++k) rest[k] = v[std::min(i + k, count - 1)];
    const Vector<T> sums = totals<T>(rest);
    store_first(out + i, add ? load_first(out + i, left) + sums : sums, left);
}

// Sums of `group` neighboring elements of v [count], in place: the result takes up the first 1/group of them.
template <class T>
void sum_groups(Vector<T>* v, int count, int group) {
    for (; group % 2 == 0; group /= 2) {
        for (int i = 0; 2 * i < count; ++i) {
            v[i] = pair_sums<T>(v[2 * i], 2 * i + 1 < count ? v[2 * i + 1] : Vector<T>{});
        }
        count = (count + 1) / 2;
    }
    if (group == 1) return;
    const int results = (count * width<T> + group - 1) / group;
    for (int k = 0; k < (results + width<T> - 1) / width<T> * width<T>; ++k) {
        T sum = 0;
        for (int t = k * group; t < std::min((k + 1) * group, count * width<T>); ++t) {
            sum += v[t / width<T>][t % width<T>];
        }
        v[k / width<T>][k % width<T>] = sum;
    }
}

// A matrix [depth, columns] of few columns, to be multiplied from the left by rows of numbers. Where two of its rows fit
// in a vector, their numbers take turns in one, and two numbers of the factor are multiplied at once.
template <class T>
class NarrowMatrix {
  public:
    NarrowMatrix(int depth, int columns)
        : columns_(columns),
          paired_(2 * columns <= width<T> && depth % 2 == 0),
          steps_(paired_ ? depth / 2 : depth),
          across_(paired_ ? 1 : (columns + width<T> - 1) / width<T>),
          vectors_(steps_ * across_) {}

    // From a matrix whose rows are `row` apart.
    void fill(const T* m, std::int64_t row) { fill_rows(0, paired_ ? 2 * steps_ : steps_, m, row); }

    // Rows first .. first + count, the first one even.
    void fill_rows(int first, int count, const T* m, std::int64_t row) {
        if (paired_) {
            for (int k = first / 2; 2 * k < first + count; ++k, m += 2 * row) {
                const bool last = 2 * k + 1 == first + count;
                const Vector<T> even = load_first(m, columns_),
                                odd = last ? Vector<T>{} : load_first(m + row, columns_);
                vectors_[k] = shuffle<T>(even, odd, [](int i) { return i / 2 + (i % 2 ? width<T> : 0); });
            }
        } else {
            T* numbers = reinterpret_cast<T*>(vectors_.data());
            for (int k = first; k < first + count; ++k, m += row) {
                std::copy(m, m + columns_, numbers + k * across_ * width<T>);
            }
        }
    }

    // out [rows, columns] = a [rows, depth] · this, plus what is in out if `add`; rows of out are contiguous, those of a
    // `row` apart.
    [[gnu::noinline]] void multiply(T* out, const T* a, std::int64_t row, std::int64_t rows, bool add) const {
        for (int c = 0; c < across_; ++c) {
            const int first = c * width<T>, count = std::min(width<T>, columns_ - first);
            for_groups_of<8>(rows, [&](auto group, std::int64_t r) {
                constexpr int R = decltype(group)::value;
                Vector<T> sum[R];
                if (paired_) {
                    sum_pairs<R>(sum, a + r * row, row);
                } else {
                    sum_rows<R>(sum, a + r * row, row, c);
                }
                // All loads before all stores: a load of part of what was just stored would wait for it.
                T* target = out + r * columns_ + first;
                if (add) {
#pragma GCC unroll 8
                    for (int k = 0; k < R; ++k) sum[k] += load_first(target + k * columns_, count);
                }
#pragma GCC unroll 8
                for (int k = 0; k < R; ++k) store_first(target + k * columns_, sum[k], count);
            });
        }
    }

  private:
    template <int R>
    SDAS_INLINE void sum_rows(Vector<T>* sum, const T* a, std::int64_t row, int block) const {
        const Vector<T>* m = vectors_.data() + block;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = Vector<T>{};
        for (int k = 0; k < steps_; ++k, m += across_) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r] += a[r * row + k] * *m;
        }
    }

    template <int R>
    SDAS_INLINE void sum_pairs(Vector<T>* sum, const T* a, std::int64_t row) const {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = Vector<T>{};
        for (int k = 0; k < steps_; ++k) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r] += repeat_pair<T>(a + r * row + 2 * k) * vectors_[k];
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = pair_sums<T>(sum[r], sum[r]);
    }

    int columns_;
    bool paired_;
    int steps_, across_;
    Vectors<T> vectors_;
};

}  // namespace sdas::SDAS_SIMD
