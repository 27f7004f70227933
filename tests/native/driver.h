// What the drivers share: random operands and graphs in arrays of exactly the needed size, results that are NaN until a
// kernel writes them, and runs by several numbers of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "system/thread_pool.h"

namespace driver {

// Operands, which live as long as this does. The numbers are the same on every machine.
template <class T>
class Operands {
  public:
    std::int64_t next() { return (state_ = state_ * 1664525u + 1013904223u) >> 8; }

    // Numbers between -1 and 1.
    T* operand(std::int64_t size) {
        arrays_.emplace_back(size);
        for (T& x : arrays_.back()) x = T(next()) / T(1 << 23) - 1;
        return arrays_.back().data();
    }

    // Numbers between 0 and `most`.
    T* positive(std::int64_t size, T most) {
        T* array = operand(size);
        for (std::int64_t i = 0; i < size; ++i) array[i] = std::abs(array[i]) * most;
        return array;
    }

  private:
    unsigned state_ = 1;
    std::vector<std::vector<T>> arrays_;
};

// Results of one run, and scratch of which a kernel may leave parts as they are.
template <class T>
class Results {
  public:
    T* result(std::int64_t size) { return add(results_, size); }
    T* scratch(std::int64_t size) { return add(scratch_, size); }

    std::vector<T> all() const {
        std::vector<T> joined;
        for (const auto& one : results_) joined.insert(joined.end(), one.begin(), one.end());
        return joined;
    }

  private:
    std::vector<std::vector<T>> results_, scratch_;

    static T* add(std::vector<std::vector<T>>& arrays, std::int64_t size) {
        arrays.emplace_back(size, T(std::nan("")));
        return arrays.back().data();
    }
};

// First place of each of `count` members in a list of their numbers, once sorted.
inline std::vector<std::int64_t> pointers(const std::vector<std::int64_t>& numbers, std::int64_t count) {
    std::vector<std::int64_t> first(count + 1, 0);
    for (std::int64_t n : numbers) ++first[n + 1];
    for (std::int64_t i = 0; i < count; ++i) first[i + 1] += first[i];
    return first;
}

// Edges sorted by receiver. Half of them go to node 0; of more than two nodes, node 1 neither receives nor sends.
struct Graph {
    std::int64_t nodes, edges;
    std::vector<std::int64_t> receivers, senders, row_ptr, sender_order, sender_ptr;

    template <class T>
    Graph(std::int64_t nodes, std::int64_t edges, Operands<T>& random)
        : nodes(nodes), edges(edges), receivers(edges), senders(edges), sender_order(edges) {
        const auto any = [&] {
            const std::int64_t node = random.next() % nodes;
            return nodes > 2 && node == 1 ? 2 : node;
        };
        for (std::int64_t e = 0; e < edges; ++e) {
            senders[e] = any();
            receivers[e] = e < edges / 2 ? 0 : any();
        }
        std::sort(receivers.begin(), receivers.end());
        row_ptr = pointers(receivers, nodes);
        sender_ptr = pointers(senders, nodes);
        std::vector<std::int64_t> place = sender_ptr;
        for (std::int64_t e = 0; e < edges; ++e) sender_order[place[senders[e]]++] = e;
    }

    template <class Job>
    void give(Job& job) const {
        job.nodes = nodes, job.edges = edges;
        job.receivers = receivers.data(), job.senders = senders.data(), job.row_ptr = row_ptr.data();
        job.sender_order = sender_order.data(), job.sender_ptr = sender_ptr.data();
    }
};

// A coupling of its own: row r of z is the sum of the pairs (m1, m2) r and r + 1 (mod pairs), each with a coefficient.
template <class T>
struct Coupling {
    std::vector<std::int32_t> row, pair;
    std::vector<T> coefficient;

    explicit Coupling(int pairs) {
        for (int k = 0; k < 2; ++k) {
            for (int r = 0; r < pairs; ++r) {
                row.push_back(r);
                pair.push_back((r + k) % pairs);
                coefficient.push_back(T(1 + k));
            }
        }
    }

    // Of a job with as many rows of z as there are pairs.
    template <class Job>
    void give(Job& job) const {
        job.coupling = {static_cast<int>(row.size()), row.data(), pair.data(), coefficient.data()};
    }
};

inline bool fail(const char* what) {
    std::fprintf(stderr, "failed: %s\n", what);
    return false;
}

// Whether the results `run(threads)` are numbers, and the same bits by every number of threads.
template <class Run>
bool good(const Run& run) {
    const auto expected = run(1);
    for (auto x : expected) {
        if (!std::isfinite(x)) return fail("a result is not a number");
    }
    for (int threads : {2, 5}) {
        const auto found = run(threads);
        if (!found.empty() && std::memcmp(found.data(), expected.data(), found.size() * sizeof(found[0])) != 0) {
            return fail("threads change a bit");
        }
    }
    return true;
}

// Whether `check` holds for two callers at once.
template <class Check>
bool concurrently(const Check& check) {
    bool found[2] = {};
    std::thread other([&] { found[1] = check(); });
    found[0] = check();
    other.join();
    return (found[0] && found[1]) || fail("two callers at once");
}

// What main returns: 0 if all is well.
inline int finish(bool result) {
    sdas::ThreadPool::instance().shutdown();
    return result ? 0 : 1;
}

}  // namespace driver
