// Runs every kernel of the fused neighbor attention on arrays of exactly the needed size, by several numbers of
// threads, for a sanitizer to watch. Exits with 1 if threads change a bit or a result is not a number.
#include "ops/neighbor_attention/neighbor_attention.h"

#include "driver.h"

namespace {

template <class T>
struct Arrays {
    using Job = sdas::NeighborAttention<T>;
    driver::Operands<T> operands;
    driver::Graph graph;
    driver::Coupling<T> coupling;
    Job job{};

    Arrays(std::int64_t nodes, std::int64_t edges, int lmax, int m1, int heads, int channels, int key, int radials)
        : graph(nodes, edges, operands), coupling(m1 * (lmax + 1) * (lmax + 1)) {
        const int m2 = (lmax + 1) * (lmax + 1);
        job.nodes = nodes, job.edges = edges, job.lmax = lmax, job.m1 = m1, job.heads = heads, job.channels = channels;
        job.key_channels = key, job.radials = radials, job.rows = m1 * m2;
        job.senders = graph.senders.data(), job.row_ptr = graph.row_ptr.data();
        coupling.give(job);
        for (auto* of : {&job.at, &job.step}) {
            of->query = operands.operand(nodes * heads * job.places());
            of->key = operands.operand(nodes * heads * key);
            of->sink = operands.operand(nodes * heads);
            of->value = operands.operand(nodes * m1 * channels);
            of->radial_gain = operands.operand(job.gain_numbers());
            of->harmonics = operands.operand(edges * m2);
            of->radial = operands.operand(edges * radials);
            of->envelope = operands.positive(edges, 1);
        }
        job.grad = operands.operand(nodes * job.rows * channels);
    }

    // All results of the three rungs; those that an evaluation may do without only if `every` is true.
    std::vector<T> run(bool every, int threads) const {
        driver::Results<T> results;
        Job one = job;
        const auto gradients = [&] {
            one.by_harmonics = results.result(job.edges * (job.lmax + 1) * (job.lmax + 1));
            one.by_radial = results.result(job.edges * job.radials);
            one.by_envelope = results.result(job.edges);
            if (!every) return;
            one.by_query = results.result(job.nodes * job.heads * job.places());
            one.by_key = results.result(job.nodes * job.heads * job.key_channels);
            one.by_sink = results.result(job.nodes * job.heads);
            one.by_value = results.result(job.nodes * job.m1 * job.channels);
            one.by_radial_gain = results.result(job.gain_numbers());
        };
        one.out = results.result(job.nodes * job.rows * job.channels);
        sdas::neighbor_attention_forward(one, threads);
        gradients();
        sdas::neighbor_attention_backward(one, threads);
        gradients();
        one.out = results.result(job.nodes * job.rows * job.channels);
        sdas::neighbor_attention_double_backward(one, threads);
        return results.all();
    }
};

template <class T, bool every = true, class... Sizes>
bool good(Sizes... sizes) {
    const Arrays<T> arrays(sizes...);
    return driver::good([&](int threads) { return arrays.run(every, threads); });
}

template <class T>
bool all_sizes() {
    bool result = true;
    for (int lmax = 0; lmax <= sdas::neighbor_max_degree; ++lmax) {
        result &= good<T>(1, 0, lmax, 1, 1, 1, 1, 1);
        result &= good<T>(5, 23, lmax, 4, 3, 9, 2, 5) & good<T, false>(5, 23, lmax, 4, 3, 9, 2, 5);
        result &= good<T>(4, 40, lmax, 1, 7, 7, 0, 0);
    }
    // More than a thousand edges at one node, and work for several threads.
    return result & good<T>(40, 2600, 2, 9, 17, 34, 4, 8) & good<T>(40, 2600, 1, 9, 2, 40, 3, 3);
}

}  // namespace

int main() {
    const bool result = all_sizes<float>() & all_sizes<double>();
    return driver::finish(result & driver::concurrently([] { return good<float>(40, 2600, 2, 4, 16, 32, 2, 2); }));
}
