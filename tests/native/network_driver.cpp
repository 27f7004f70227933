// Runs both orders of the network on arrays of exactly the needed size, by several numbers of threads, for a sanitizer to
// watch. Exits with 1 if threads change a bit or a result is not a number.
#include "fused_sdas/passes.h"
#include "fused_sdas/weights.h"

#include "driver.h"

namespace {

template <class T>
struct Arrays {
    driver::Operands<T> operands;
    driver::Graph graph;
    driver::Coupling<T> first, other, square;
    std::vector<std::int64_t> kinds;
    sdas::Network<T> net{};

    Arrays(std::int64_t nodes, std::int64_t edges, int lmax, int layers, int heads, int channels, int key, int radials,
           bool product = false)
        : graph(nodes, edges, operands),
          first((lmax + 1) * (lmax + 1)),
          other((lmax + 1) * (lmax + 1) * (lmax + 1) * (lmax + 1)),
          square((lmax + 1) * (lmax + 1)) {
        const int m = (lmax + 1) * (lmax + 1);
        graph.give(net);
        net.lmax = lmax, net.heads = heads, net.channels = channels, net.key_channels = key, net.radials = radials;
        net.species = 2, net.readout = 3, net.exponent = 6, net.cutoff = 1.5, net.epsilon = 1e-3;
        give(net.first, first, 1, 1);
        give(net.other, other, m, m);
        if (product) give_square(m);
        for (std::int64_t i = 0; i < nodes; ++i) kinds.push_back(i % 2);
        net.kinds = kinds.data();
        net.vectors = operands.operand(3 * edges);
        net.scale = operands.operand((lmax + 1) * (lmax + 2) / 2);
        net.embedding = operands.operand(2 * channels);
        net.weights.resize(layers);
        for (int layer = 0; layer < layers; ++layer) give_weights(net.weights[layer], net.kind(layer));
        net.energy_cotangent = operands.operand(nodes);
        net.vectors_cotangent = operands.operand(3 * edges);
    }

    // `paths` to every degree: as many rows of z as the coupling has.
    void give(sdas::NetworkKind<T>& kind, const driver::Coupling<T>& coupling, int m1, int paths) const {
        kind.m1 = m1, kind.rows = paths * net.m();
        for (int l = 0; l <= net.lmax; ++l) kind.paths[l] = paths;
        struct {
            sdas::Coupling<T> coupling;
        } job;
        coupling.give(job);
        kind.coupling = job.coupling;
    }

    // A path to every degree.
    void give_square(int rows) {
        net.square.rows = rows;
        std::fill_n(net.square.paths, net.lmax + 1, 1);
        square.give(net.square);
    }

    void give_weights(sdas::NetworkWeights<const T>& w, const sdas::NetworkKind<T>& kind) {
        const int C = net.channels, K = net.heads, degrees = net.lmax + 1, R = net.readout;
        const int logits = (2 * net.key_channels + net.radials + 1) * K;
        w.logits = operands.operand(logits * C), w.logits_bias = operands.operand(logits);
        w.direction = operands.operand(degrees * C * K);
        w.value = operands.operand((kind.m1 == 1 ? 1 : degrees) * C * C);
        w.radial_gain = operands.operand(net.gain_numbers());
        for (int l = 0; l < degrees; ++l) w.mixing[l] = operands.operand(kind.paths[l] * C * C);
        for (int l = 0; l < degrees; ++l) {
            if (net.square.paths[l] > 0) w.product[l] = operands.operand(net.square.paths[l] * C * C);
        }
        w.hidden = operands.operand(2 * C * net.width()), w.hidden_bias = operands.operand(2 * C);
        w.factors = operands.operand(net.width() * 2 * C), w.factors_bias = operands.operand(net.width());
        w.gate = operands.operand(degrees * C * C);
        w.readout = operands.operand(R * C), w.readout_bias = operands.operand(R);
        w.energy = operands.operand(R), w.energy_bias = operands.operand(1);
    }

    // Energies and gradient without and with what the second order needs, and its results, all or one of the two.
    std::vector<T> run(bool vectors, bool weights, int threads) const {
        driver::Results<T> results;
        sdas::Network<T> one = net;
        sdas::Memory<T> scratch(nullptr);
        sdas::NetworkSecond<T>(scratch, one);
        const auto kept = kept_.find(one, threads);
        one.packed = kept->numbers();
        for (bool keep : {false, true}) {
            sdas::Memory<T> needed(nullptr);
            sdas::NetworkState<T>(needed, one, keep);
            one.state = results.scratch(needed.used());
            one.energy = results.result(one.nodes), one.by_vectors = results.result(3 * one.edges);
            sdas::NetworkRun<T>(one, keep, threads).first_order();
        }
        one.scratch = results.scratch(scratch.used());
        one.by_vectors = vectors ? results.result(3 * one.edges) : nullptr;
        one.by_weights = weights ? results.result(sdas::NetworkGradients<T>(nullptr, one).numbers) : nullptr;
        sdas::NetworkRun<T>(one, true, threads).second_order();
        return results.all();
    }

    bool good(bool vectors, bool weights) const {
        return driver::good([&](int threads) { return run(vectors, weights, threads); });
    }

  private:
    mutable sdas::KeptWeights<T> kept_;
};

template <class T, class... Sizes>
bool good(bool vectors, bool weights, Sizes... sizes) {
    return Arrays<T>(sizes...).good(vectors, weights);
}

template <class T>
bool all_sizes() {
    bool result = good<T>(true, true, 1, 0, 0, 1, 1, 1, 1, 1) & good<T>(true, true, 33, 40, 1, 2, 3, 9, 2, 5);
    result &= good<T>(true, true, 33, 40, 1, 2, 3, 9, 2, 5, true) & good<T>(true, false, 5, 23, 2, 2, 4, 8, 2, 3, true);
    result &= good<T>(true, false, 5, 23, 2, 2, 4, 8, 2, 3) & good<T>(false, true, 5, 23, 2, 1, 1, 3, 1, 8);
    return result & good<T>(true, true, 300, 2600, 1, 2, 16, 16, 4, 8);  // work for several threads
}

}  // namespace

int main() {
    const bool result = all_sizes<float>() & all_sizes<double>();
    const Arrays<float> shared(40, 600, 1, 2, 8, 8, 2, 2);
    return driver::finish(result & driver::concurrently([&] { return shared.good(true, true); }));
}
