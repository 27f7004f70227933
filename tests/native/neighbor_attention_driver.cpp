// Runs every kernel of the fused neighbor attention on arrays of exactly the needed size, by several numbers of
// threads, for a sanitizer to watch. Exits with 1 if threads change a bit or a result is not a number.
#include "sdas/neighbor_attention.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

namespace {

// A coupling of its own: row r is the sum of the pairs r, r + 1 (mod pairs), each with a coefficient.
template <class T>
struct Arrays {
    sdas::NeighborAttention<T> job{};
    std::vector<std::int64_t> senders, row_ptr;
    std::vector<std::int32_t> row_start, row_pair, pair_start, pair_row;
    std::vector<T> row_coefficient, pair_coefficient;
    std::vector<std::vector<T>> inputs;
    unsigned state = 1;

    Arrays(std::int64_t nodes, std::int64_t edges, int lmax, int m1, int heads, int channels, int key, int radials) {
        job.nodes = nodes, job.edges = edges, job.lmax = lmax, job.m1 = m1, job.heads = heads, job.channels = channels;
        job.key_channels = key, job.radials = radials;
        const int m2 = (lmax + 1) * (lmax + 1), pairs = m1 * m2;
        job.rows = pairs;
        row_ptr.assign(nodes + 1, 0);
        for (std::int64_t e = 0; e < edges; ++e) {
            senders.push_back(next() % nodes);
            // Half of all edges go to node 0, the others anywhere but to node 1.
            const std::int64_t receiver = e % 2 || nodes < 3 ? 0 : 2 + next() % (nodes - 2);
            ++row_ptr[receiver + 1];
        }
        for (std::int64_t i = 0; i < nodes; ++i) row_ptr[i + 1] += row_ptr[i];
        for (int r = 0; r < pairs; ++r) {
            row_start.push_back(2 * r);
            pair_start.push_back(2 * r);
            for (int k = 0; k < 2; ++k) {
                row_pair.push_back((r + k) % pairs);
                row_coefficient.push_back(T(1 + k));
                pair_row.push_back((r + pairs - k) % pairs);
                pair_coefficient.push_back(T(1 + k));
            }
        }
        row_start.push_back(2 * pairs);
        pair_start.push_back(2 * pairs);
        job.senders = senders.data(), job.row_ptr = row_ptr.data();
        job.row_start = row_start.data(), job.row_pair = row_pair.data();
        job.pair_start = pair_start.data(), job.pair_row = pair_row.data();
        job.row_coefficient = row_coefficient.data(), job.pair_coefficient = pair_coefficient.data();
        for (auto* operands : {&job.at, &job.step}) {
            operands->query = input(nodes * heads * job.places());
            operands->key = input(nodes * heads * key);
            operands->sink = input(nodes * heads);
            operands->value = input(nodes * m1 * channels);
            operands->radial_gain = input(job.gain_numbers());
            operands->harmonics = input(edges * m2);
            operands->radial = input(edges * radials);
            operands->envelope = input(edges);
        }
        for (T& f : inputs[7]) f = std::abs(f);
        job.grad = input(nodes * job.rows * channels);
    }

    unsigned next() { return (state = state * 1664525u + 1013904223u) >> 8; }

    const T* input(std::int64_t size) {
        inputs.emplace_back(size);
        for (T& x : inputs.back()) x = T(next()) / T(1 << 23) - 1;
        return inputs.back().data();
    }

    // All results of the three rungs.
    std::vector<T> run(int threads) const {
        sdas::NeighborAttention<T> given = job;
        std::vector<std::vector<T>> results;
        const auto result = [&](T*& member, std::int64_t size) {
            results.emplace_back(size, T(std::nan("")));
            member = results.back().data();
        };
        const auto gradients = [&] {
            result(given.by_query, job.nodes * job.heads * job.places());
            result(given.by_key, job.nodes * job.heads * job.key_channels);
            result(given.by_sink, job.nodes * job.heads);
            result(given.by_value, job.nodes * job.m1 * job.channels);
            result(given.by_radial_gain, job.gain_numbers());
            result(given.by_harmonics, job.edges * (job.lmax + 1) * (job.lmax + 1));
            result(given.by_radial, job.edges * job.radials);
            result(given.by_envelope, job.edges);
        };
        result(given.out, job.nodes * job.rows * job.channels);
        sdas::neighbor_attention_forward(given, threads);
        gradients();
        sdas::neighbor_attention_backward(given, threads);
        gradients();
        result(given.out, job.nodes * job.rows * job.channels);
        sdas::neighbor_attention_double_backward(given, threads);
        std::vector<T> all;
        for (const auto& one : results) all.insert(all.end(), one.begin(), one.end());
        return all;
    }
};

template <class T, class... Sizes>
bool good(Sizes... sizes) {
    const Arrays<T> arrays(sizes...);
    const std::vector<T> expected = arrays.run(1);
    for (T x : expected) {
        if (!std::isfinite(x)) return std::fprintf(stderr, "a result is not a number\n"), false;
    }
    for (int threads : {2, 5}) {
        const std::vector<T> found = arrays.run(threads);
        if (std::memcmp(found.data(), expected.data(), found.size() * sizeof(T)) != 0) {
            return std::fprintf(stderr, "threads change a bit\n"), false;
        }
    }
    return true;
}

template <class T>
bool all_sizes() {
    bool result = true;
    for (int lmax = 0; lmax <= 4; ++lmax) {
        result &= good<T>(1, 0, lmax, 1, 1, 1, 1, 1);
        result &= good<T>(5, 23, lmax, 4, 3, 9, 2, 5);
        result &= good<T>(4, 40, lmax, 1, 7, 7, 0, 0);
    }
    // More than a thousand edges at one node, and work for several threads.
    result &= good<T>(40, 2600, 2, 9, 17, 34, 4, 8);
    result &= good<T>(40, 2600, 1, 9, 2, 40, 3, 3);
    return result;
}

}  // namespace

int main() {
    bool result = all_sizes<float>() && all_sizes<double>();
    bool concurrent = false;
    std::thread other([&] { concurrent = good<float>(40, 2600, 2, 4, 16, 32, 2, 2); });
    result &= good<float>(40, 2600, 2, 4, 16, 32, 2, 2);
    other.join();
    sdas::ThreadPool::instance().shutdown();
    return result && concurrent ? 0 : 1;
}
