// Runs the three contractions of the neighbor tensor product, alone and along the steps of a double backward, on arrays
// of exactly the needed size, by several numbers of threads, for a sanitizer to watch. Exits with 1 if threads change a
// bit or a result is not a number.
#include "ops/neighbor_tensor_product/neighbor_tensor_product.h"

#include "driver.h"

namespace {

template <class T>
struct Arrays {
    using Job = sdas::NeighborTensorProduct<T>;
    driver::Operands<T> operands;
    driver::Graph graph;
    driver::Coupling<T> coupling;
    Job plain{}, stepped{};

    Arrays(std::int64_t nodes, std::int64_t edges, int lmax, int m1, int channels, int heads)
        : graph(nodes, edges, operands), coupling(m1 * (lmax + 1) * (lmax + 1)) {
        const int m2 = (lmax + 1) * (lmax + 1);
        graph.give(plain);
        coupling.give(plain);
        plain.lmax = lmax, plain.m1 = m1, plain.channels = channels, plain.heads = heads, plain.rows = m1 * m2;
        plain.z = operands.operand(nodes * plain.rows * channels);
        plain.weight = operands.operand(edges * (lmax + 1) * heads);
        plain.harmonics = operands.operand(edges * m2);
        plain.value = operands.operand(nodes * m1 * channels);
        stepped = plain;
        stepped.weight_step = operands.operand(edges * (lmax + 1) * heads);
        stepped.harmonics_step = operands.operand(edges * m2);
        stepped.value_step = operands.operand(nodes * m1 * channels);
    }

    // All results of the contractions, first without steps.
    std::vector<T> run(int threads) const {
        driver::Results<T> results;
        for (Job job : {plain, stepped}) {
            const auto of_weight = [&] { return results.result(job.edges * (job.lmax + 1) * job.heads); };
            job.out_z = results.result(job.nodes * job.rows * job.channels);
            sdas::neighbor_tensor_product_tiles(job, threads);
            job.out_value = results.result(job.nodes * job.m1 * job.channels);
            sdas::neighbor_tensor_product_to_senders(job, threads);
            job.out_weight = of_weight();
            job.out_harmonics = results.result(job.edges * (job.lmax + 1) * (job.lmax + 1));
            if (job.weight_step != nullptr) job.out_weight_step = of_weight();
            sdas::neighbor_tensor_product_edge_dot(job, threads);
        }
        return results.all();
    }
};

template <class T>
bool good(std::int64_t nodes, std::int64_t edges, int lmax, int m1, int channels, int heads) {
    const Arrays<T> arrays(nodes, edges, lmax, m1, channels, heads);
    return driver::good([&](int threads) { return arrays.run(threads); });
}

template <class T>
bool all_sizes() {
    bool result = good<T>(0, 0, 1, 1, 1, 1);
    for (int lmax = 0; lmax <= sdas::neighbor_max_degree; ++lmax) {
        result &= good<T>(1, 0, lmax, 1, 1, 1);
        result &= good<T>(5, 23, lmax, 4, 9, 3);
        result &= good<T>(4, 40, lmax, 1, 7, 7);
    }
    for (int channels_per_head : {2, 4, 8}) result &= good<T>(3, 17, 1, 4, 3 * channels_per_head, 3);
    // More than a thousand edges at one node, and work for several threads.
    return result & good<T>(40, 2600, 2, 9, 34, 17) & good<T>(40, 2600, 1, 9, 40, 2);
}

}  // namespace

int main() {
    const bool result = all_sizes<float>() & all_sizes<double>();
    return driver::finish(result & driver::concurrently([] { return good<float>(40, 2600, 2, 4, 32, 16); }));
}
