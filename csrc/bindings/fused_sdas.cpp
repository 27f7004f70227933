// The network's part of the Python module: an object that holds its sizes, and runs it on arrays given by address.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "bindings/members.h"
#include "fused_sdas/evaluation.h"
#include "fused_sdas/pairs.h"

namespace {

namespace py = pybind11;
using namespace bindings;

template <class T>
void read(sdas::NetworkKind<T>& kind, const Members& members) {
    members.size(kind.m1, "m1");
    members.size(kind.rows, "rows");
    std::vector<int> paths;
    members.size(paths, "paths");
    std::copy(paths.begin(), paths.end(), kind.paths);
    bindings::read(kind.coupling, members);
}

template <class T>
void read(sdas::NetworkSquare<T>& square, const Members& members) {
    members.size(square.rows, "rows");
    std::vector<int> paths;
    members.size(paths, "paths");
    std::copy(paths.begin(), paths.end(), square.paths);
    bindings::read(square.coupling, members);
}

template <class T>
void read_weights(sdas::Network<T>& net, const std::vector<Address>& addresses) {
    auto next = addresses.begin();
    sdas::for_weights(net, net.embedding, net.weights,
                      [&](const T*& weight, std::int64_t) { weight = at<const T>(*next++); });
}

// The constants of a network; arrays are given call by call.
template <class T>
class BoundNetwork {
  public:
    explicit BoundNetwork(const py::dict& members) {
        const Members of_network(members);
        of_network.size(net_.lmax, "lmax");
        of_network.size(net_.channels, "channels");
        of_network.size(net_.heads, "heads");
        of_network.size(net_.key_channels, "key_channels");
        of_network.size(net_.radials, "radials");
        of_network.size(net_.species, "species");
        of_network.size(net_.readout, "readout");
        of_network.size(net_.exponent, "exponent");
        of_network.size(net_.cutoff, "cutoff");
        of_network.size(net_.epsilon, "epsilon");
        of_network.address(net_.scale, "scale");
        read(net_.first, of_network.of("first"));
        read(net_.other, of_network.of("other"));
        read(net_.square, of_network.of("square"));
        net_.weights.resize(members["layers"].cast<int>());
    }

    // Numbers of packed weights, state and scratch.
    std::vector<std::int64_t> numbers(std::int64_t nodes, std::int64_t edges, bool keep) const {
        sdas::Network<T> net = net_;
        net.nodes = nodes, net.edges = edges;
        sdas::Memory<T> packed(nullptr), state(nullptr), scratch(nullptr);
        sdas::network_maps(packed, net);
        sdas::NetworkState<T>(state, net, keep);
        if (keep) sdas::NetworkSecond<T>(scratch, net);
        return {packed.used(), state.used(), scratch.used(), sdas::NetworkGradients<T>(nullptr, net).numbers};
    }

    void pack(const std::vector<Address>& weights, Address packed) const {
        sdas::Network<T> net = net_;
        read_weights(net, weights);
        net.packed = at<T>(packed);
        const KernelScope scope;
        sdas::NetworkRun<T>(net, false, 1).pack();
    }

    void first_order(const py::dict& arrays, bool keep, int threads) const {
        sdas::Network<T> net = given(arrays);
        const KernelScope scope;
        sdas::NetworkRun<T>(net, keep, threads).first_order();
    }

    // How much scratch `evaluate` needs.
    std::int64_t evaluation_numbers(std::int64_t nodes, std::int64_t edges) const {
        sdas::Network<T> net = net_;
        net.nodes = nodes, net.edges = edges;
        sdas::NetworkSystems<T> of{};
        sdas::Memory<T> memory(nullptr);
        memory.take(3 * edges);
        sdas::take_scratch(memory, net, of);
        sdas::NetworkState<T>(memory, net, false);
        return memory.used();
    }

    // Energies of systems, forces and derivatives by strain; false, and nothing is done, if an element is unknown. Every
    // microsecond counts for a molecule, so arrays have no names here but an order, that of `take`.
    bool evaluate(const std::vector<Address>& weights, const std::vector<Address>& arrays, std::int64_t nodes,
                  std::int64_t edges, std::int64_t systems, Address scratch, int threads) {
        sdas::Network<T> net = net_;
        sdas::NetworkSystems<T> of{};
        read_weights(net, weights);
        net.nodes = nodes, net.edges = edges, of.systems = systems;
        const double* energy_scale = nullptr;
        auto next = arrays.begin();
        const auto take = [&](auto*&... array) {
            ((array = at<std::remove_reference_t<decltype(*array)>>(*next++)), ...);
        };
        take(of.positions, of.numbers, of.cells, of.shifts, of.system, net.receivers, net.senders, net.row_ptr,
             net.sender_order, net.sender_ptr, of.kind_of_number, of.energy_shift, energy_scale, of.energies, of.forces,
             of.by_strain);
        of.energy_scale = *energy_scale;
        check_graph(net);
        check_within(of.system, nodes, systems, "NeighborGraph: system");
        const KernelScope scope;
        sdas::Memory<T> memory(at<T>(scratch));
        T* vectors = memory.take(3 * edges);
        net.vectors = vectors;
        sdas::take_scratch(memory, net, of);
        if (!sdas::find_kinds(net, of)) return false;
        // The vectors and their gradient lie one after the other, before the state.
        sdas::advise_huge_pages(vectors, 6 * net.edges * sizeof(T));
        sdas::edge_vectors(vectors, net, of);
        const auto packed = kept_.find(net, threads);
        sdas::evaluate(net, of, *packed, threads);
        return true;
    }

    void second_order(const py::dict& arrays, int threads) const {
        sdas::Network<T> net = given(arrays);
        const KernelScope scope;
        sdas::NetworkRun<T>(net, true, threads).second_order();
    }

    // Its sizes and constants, with these weights.
    sdas::Network<T> with_weights(const std::vector<Address>& weights) const {
        sdas::Network<T> net = net_;
        read_weights(net, weights);
        return net;
    }

  private:
    sdas::Network<T> given(const py::dict& arrays) const {
        sdas::Network<T> net = net_;
        const Members of_call(arrays);
        of_call.graph(net);
        read_weights(net, arrays["weights"].cast<std::vector<Address>>());
        of_call.address(net.kinds, "kinds");
        of_call.address(net.vectors, "vectors");
        of_call.address(net.packed, "packed");
        of_call.address(net.state, "state");
        of_call.address(net.scratch, "scratch");
        of_call.address(net.energy, "energy");
        of_call.address(net.by_vectors, "by_vectors");
        of_call.address(net.energy_cotangent, "energy_cotangent");
        of_call.address(net.vectors_cotangent, "vectors_cotangent");
        of_call.address(net.by_weights, "by_weights");
        for (std::int64_t i = 0; i < net.nodes; ++i) {
            if (net.kinds[i] >= 0 && net.kinds[i] < net.species) continue;
            throw py::index_error("network: kinds must be 0.." + std::to_string(net.species - 1) +
                                  ", the rows of the embedding, got " + std::to_string(net.kinds[i]));
        }
        return net;
    }

    sdas::Network<T> net_{};
    sdas::KeptWeights<T> kept_;
};

// Pairs that hold for some steps. The arrays are the caller's, who keeps them and does not write to them.
class BoundPairs {
  public:
    explicit BoundPairs(const py::dict& members) {
        const Members of_pairs(members);
        of_pairs.graph(pairs);
        of_pairs.size(pairs.systems, "systems");
        of_pairs.size(pairs.cutoff, "cutoff");
        of_pairs.size(pairs.skin, "skin");
        of_pairs.address(pairs.numbers, "numbers");
        of_pairs.address(pairs.system, "system");
        of_pairs.address(pairs.shifts, "shifts");
        of_pairs.address(pairs.positions, "positions");
        of_pairs.address(pairs.cells, "cells");
        check_within(pairs.system, pairs.nodes, pairs.systems, "NeighborGraph: system");
    }

    sdas::ListedPairs pairs{};
};

// A network whose weights stay as they are, at the addresses that are given: they are packed here, and not looked at again.
template <class T>
class BoundPotential {
  public:
    // constants: kind_of_number [119], energy_shift [species] and energy_scale [].
    BoundPotential(const BoundNetwork<T>& network, const std::vector<Address>& weights,
                   const std::vector<Address>& constants)
        : net_(network.with_weights(weights)),
          packed_(net_),
          kind_of_number_(at<const std::int64_t>(constants.at(0))),
          energy_shift_(at<const double>(constants.at(1))),
          energy_scale_(*at<const double>(constants.at(2))) {}

    // How much scratch `evaluate` needs.
    std::int64_t numbers(const BoundPairs& listed) const {
        sdas::Network<T> net = net_;
        sdas::NetworkSystems<T> of{};
        sdas::Memory<T> memory(nullptr);
        sdas::EdgesWithin<T>(memory, listed.pairs);
        net.edges = listed.pairs.edges;
        take(memory, net, of, listed.pairs);
        sdas::NetworkState<T>(memory, net, false);
        return memory.used();
    }

    enum : std::int64_t { done = -1, pairs_may_lack = -2, unknown_element = -3 };

    // energies [B], forces [N, 3], by_strain [B, 3, 3] or null, and the closest distance of each system [B], all double.
    // Returns `done` or, without energies and forces, why there are none: one of the other two, or the row of a system
    // with two atoms closer than `least`. Unless pairs are to be trusted, it is looked whether they hold.

    std::int64_t evaluate(const BoundPairs& listed, Address numbers, Address positions, Address cells, bool trust,
                          double least, Address energies, Address forces, Address by_strain, Address closest,
                          Address scratch, int threads) const {
        const sdas::ListedPairs& pairs = listed.pairs;
        const double *r = at<const double>(positions), *boxes = at<const double>(cells);
        const KernelScope scope;
        if (!trust && !pairs.hold(at<const std::int64_t>(numbers), r, boxes)) return pairs_may_lack;
        sdas::Network<T> net = net_;
        sdas::NetworkSystems<T> of{};
        sdas::Memory<T> memory(at<T>(scratch));
        sdas::EdgesWithin<T> edges(memory, pairs);
        double* nearest = at<double>(closest);
        edges.find(r, boxes, nearest);
        const std::int64_t row = std::min_element(nearest, nearest + pairs.systems) - nearest;
        if (nearest[row] < least) return row;
        edges.give(net);
        T* where = take(memory, net, of, pairs);
        std::copy_n(r, 3 * pairs.nodes, where);
        std::copy_n(boxes, 9 * pairs.systems, where + 3 * pairs.nodes);
        of.energies = at<double>(energies);
        if (by_strain == 0) of.by_strain = nullptr;
        if (!sdas::find_kinds(net, of)) return unknown_element;
        sdas::evaluate(net, of, packed_, threads);
        std::copy_n(of.forces, 3 * pairs.nodes, at<double>(forces));
        if (by_strain != 0) std::copy_n(of.by_strain, 9 * pairs.systems, at<double>(by_strain));
        return done;
    }

  private:
    // Room for a step's systems and network; returns where positions and then cells belong, which only the order of a large
    // system's atoms depends on.
    T* take(sdas::Memory<T>& memory, sdas::Network<T>& net, sdas::NetworkSystems<T>& of,
            const sdas::ListedPairs& pairs) const {
        net.nodes = pairs.nodes, of.systems = pairs.systems;
        of.numbers = pairs.numbers, of.kind_of_number = kind_of_number_, of.system = pairs.system;
        of.energy_shift = energy_shift_, of.energy_scale = energy_scale_;
        T* where = memory.take(3 * pairs.nodes + 9 * pairs.systems);
        of.positions = where, of.cells = where + 3 * pairs.nodes;
        of.forces = memory.take(3 * pairs.nodes);
        of.by_strain = memory.take(9 * pairs.systems);
        sdas::take_scratch(memory, net, of);
        return where;
    }

    sdas::Network<T> net_;
    sdas::PackedWeights<T> packed_;
    const std::int64_t* kind_of_number_;
    const double* energy_shift_;
    double energy_scale_;
};

template <class T>
void bind(py::module_& module, const std::string& dtype) {
    py::class_<BoundNetwork<T>>(module, ("Network_" + dtype).c_str())
        .def(py::init<const py::dict&>())
        .def("numbers", &BoundNetwork<T>::numbers)
        .def("pack", &BoundNetwork<T>::pack)
        .def("first_order", &BoundNetwork<T>::first_order)
        .def("evaluation_numbers", &BoundNetwork<T>::evaluation_numbers)
        .def("evaluate", &BoundNetwork<T>::evaluate)
        .def("second_order", &BoundNetwork<T>::second_order);
    using Potential = BoundPotential<T>;
    py::class_<Potential>(module, ("Potential_" + dtype).c_str())
        .def(py::init<const BoundNetwork<T>&, const std::vector<Address>&, const std::vector<Address>&>())
        .def("numbers", &Potential::numbers)
        .def("evaluate", &Potential::evaluate);
}

}  // namespace

void bind_network(py::module_& module) {
    py::class_<BoundPairs>(module, "Pairs").def(py::init<const py::dict&>());
    bind<float>(module, "float32");
    bind<double>(module, "float64");
}
