// Runs every kernel of the edge softmax on arrays of exactly the needed size, by several numbers of threads, for a
// sanitizer to watch. Exits with 1 if threads change a bit or a result is not a number.
#include "ops/edge_softmax/edge_softmax.h"

#include "driver.h"

namespace {

template <class T>
struct Arrays {
    driver::Operands<T> operands;
    driver::Graph graph;
    sdas::EdgeSoftmax<T> forward{}, backward{}, double_backward{};

    Arrays(std::int64_t nodes, std::int64_t edges, int heads, int key_channels, int places)
        : graph(nodes, edges, operands) {
        sdas::EdgeSoftmax<T> job{};
        graph.give(job);
        job.heads = heads, job.key_channels = key_channels, job.places = places;
        const auto number = [&](const T*& query, const T*& key, const T*& sink, const T*& place, const T*& envelope) {
            query = operands.operand(nodes * (key_channels + places) * heads);
            key = operands.operand(nodes * key_channels * heads);
            sink = operands.operand(nodes * heads);
            place = operands.operand(edges * places);
            envelope = operands.positive(edges, 1);
        };
        number(job.query, job.key, job.sink, job.place, job.envelope);
        forward = job;
        job.grad = operands.operand(edges * heads);
        backward = job;
        number(job.query_step, job.key_step, job.sink_step, job.place_step, job.envelope_step);
        double_backward = job;
    }

    // All results of the three rungs.
    std::vector<T> run(int threads) const {
        driver::Results<T> results;
        const auto of_edges_and_heads = [&] { return results.result(graph.edges * forward.heads); };
        const auto gradients = [&](sdas::EdgeSoftmax<T>& job) {
            job.by_logit = of_edges_and_heads();
            job.by_query = results.result(job.nodes * (job.key_channels + job.places) * job.heads);
            job.by_key = results.result(job.nodes * job.key_channels * job.heads);
            job.by_sink = results.result(job.nodes * job.heads);
            job.by_place = results.result(job.edges * job.places);
            job.by_envelope = results.result(job.edges);
        };
        sdas::EdgeSoftmax<T> first = forward, second = backward, third = double_backward;
        first.alpha = of_edges_and_heads();
        sdas::edge_softmax_forward(first, threads);
        gradients(second);
        sdas::edge_softmax_backward(second, threads);
        gradients(third);
        third.alpha = of_edges_and_heads();
        third.by_logit_step = of_edges_and_heads();
        sdas::edge_softmax_double_backward(third, threads);
        return results.all();
    }
};

template <class T>
bool good(std::int64_t nodes, std::int64_t edges, int heads, int key_channels, int places) {
    const Arrays<T> arrays(nodes, edges, heads, key_channels, places);
    return driver::good([&](int threads) { return arrays.run(threads); });
}

template <class T>
bool all_sizes() {
    bool result = good<T>(0, 0, 1, 1, 1) && good<T>(1, 0, 3, 2, 5);
    for (int heads : {1, 3, 8, 13}) {
        result &= good<T>(5, 23, heads, 2, 7);
        result &= good<T>(4, 40, heads, 0, 1);
        result &= good<T>(3, 9, heads, 5, 0);
    }
    // More than a thousand edges at one node, and work for several threads.
    return result & good<T>(40, 2600, 33, 4, 17) & good<T>(700, 9000, 7, 3, 24);
}

}  // namespace

int main() {
    const bool result = all_sizes<float>() & all_sizes<double>();
    return driver::finish(result & driver::concurrently([] { return good<float>(40, 2600, 32, 4, 17); }));
}
