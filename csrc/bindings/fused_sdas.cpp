// The network's part of the Python module: an object that holds its sizes, and runs it on arrays given by address.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <numeric>
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

    // Energies of systems, forces and derivatives by strain; false, and nothing is done, if an element is unknown or atoms
    // are within their inner cutoff. Every microsecond counts for a molecule, so arrays have no names here but an order,
    // that of `take`.
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
        if (next != arrays.end()) take(of.inner_cutoffs);
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
        if (sdas::any_within_inner_cutoff(net, of)) return false;
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
        starts_.assign(pairs.systems + 1, 0);
        for (std::int64_t i = 0; i < pairs.nodes; ++i) ++starts_[pairs.system[i] + 1];
        std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
    }

    sdas::SystemPairs of_system(std::int64_t system) const {
        return {pairs, system, starts_[system], starts_[system + 1] - starts_[system]};
    }

    sdas::ListedPairs pairs{};

  private:
    std::vector<std::int64_t> starts_;  // first atom of each system, and N
};

// A network whose weights stay as they are, at the addresses that are given: they are packed here, and not looked at again.
template <class T>
class BoundPotential {
  public:
    // constants: kind_of_number [119], energy_shift [species], energy_scale [], and maybe inner_cutoffs [species, species].
    BoundPotential(const BoundNetwork<T>& network, const std::vector<Address>& weights,
                   const std::vector<Address>& constants)
        : net_(network.with_weights(weights)),
          packed_(net_),
          kind_of_number_(at<const std::int64_t>(constants.at(0))),
          energy_shift_(at<const double>(constants.at(1))),
          energy_scale_(*at<const double>(constants.at(2))),
          inner_cutoffs_(constants.size() > 3 ? at<const std::int64_t>(constants[3]) : nullptr) {}

    // How much scratch a thread needs in `evaluate`.
    std::int64_t numbers(const BoundPairs& listed) const {
        std::int64_t most = 0;
        for (std::int64_t system = 0; system < listed.pairs.systems; ++system) {
            sdas::Memory<T> memory(nullptr);
            Step step(*this, memory, listed.of_system(system));
            step.net.edges = step.pairs.pairs();
            step.take(memory);
            sdas::NetworkState<T>(memory, step.net, false);
            most = std::max(most, memory.used());
        }
        return most;
    }

    enum : std::int64_t { done = -1, pairs_may_lack = -2, unknown_element = -3, within_inner_cutoff = -4 };

    // How many of the threads take systems of their own; the others, if there are any, share one.
    static int threads_across(const BoundPairs& listed, int threads) {
        return listed.pairs.systems < threads ? 1 : threads;
    }

    // energies [B], forces [N, 3], by_strain [B, 3, 3] or null, and the closest distance of each system [B], all double.
    // `scratch` has `room` numbers for each of the threads across systems. Unless pairs are to be trusted, it is looked
    // whether they hold. Returns `done` or, with results that mean nothing, why: one of the others, or the row of a
    // system with two atoms closer than `least`.
    //
    // Systems are evaluated one by one: what a small one makes stays in the caches, and no bit of it depends on others.
    std::int64_t evaluate(const BoundPairs& listed, Address numbers, Address positions, Address cells, bool trust,
                          double least, Address energies, Address forces, Address by_strain, Address closest,
                          Address scratch, std::int64_t room, int threads) const {
        const sdas::ListedPairs& pairs = listed.pairs;
        const auto* z = at<const std::int64_t>(numbers);
        const double *r = at<const double>(positions), *boxes = at<const double>(cells);
        double* nearest = at<double>(closest);
        const KernelScope scope;
        if (!trust && !pairs.hold(z, r, boxes)) return pairs_may_lack;
        if (pairs.systems == 0) return done;
        const int across = threads_across(listed, threads);
        std::atomic<std::int64_t> outcome{done};
        sdas::parallel_for(across, 1, across, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t system = pairs.systems * begin / across; system < pairs.systems * end / across;
                 ++system) {
                sdas::Memory<T> memory(at<T>(scratch) + begin * room);
                Step step(*this, memory, listed.of_system(system));
                nearest[system] = step.edges.find(r + 3 * step.pairs.first_atom, boxes + 9 * system);
                if (nearest[system] < least) continue;
                step.edges.give(step.net);
                step.take(memory);
                step.of.numbers = z + step.pairs.first_atom;
                const std::int64_t of_system =
                    step.run(*this, r, boxes, across == 1 ? threads : 1, at<double>(energies), at<double>(forces),
                             by_strain == 0 ? nullptr : at<double>(by_strain));
                if (of_system != done && outcome != unknown_element) outcome = of_system;
            }
        });
        const std::int64_t row = std::min_element(nearest, nearest + pairs.systems) - nearest;
        if (nearest[row] < least) return row;
        return outcome;
    }

  private:
    // One system at a step.
    struct Step {
        Step(const BoundPotential& potential, sdas::Memory<T>& memory, const sdas::SystemPairs& pairs)
            : pairs(pairs), edges(memory, pairs), net(potential.net_) {
            net.nodes = pairs.atoms, of.systems = 1;
            of.kind_of_number = potential.kind_of_number_, of.energy_shift = potential.energy_shift_;
            of.energy_scale = potential.energy_scale_, of.inner_cutoffs = potential.inner_cutoffs_;
        }

        // Memory for the rest, when the number of edges is known.
        void take(sdas::Memory<T>& memory) {
            of.system = system = sdas::take_indices(memory, pairs.atoms);
            of.positions = positions = memory.take(3 * pairs.atoms);
            of.cells = cell = memory.take(9);
            of.forces = memory.take(3 * pairs.atoms);
            of.by_strain = memory.take(9);
            sdas::take_scratch(memory, net, of);
        }

        // Returns `done` or why not. Only the order of a large system's atoms depends on its positions and cell.
        std::int64_t run(const BoundPotential& potential, const double* r, const double* boxes, int threads,
                         double* energies, double* forces, double* by_strain) {
            if (!sdas::find_kinds(net, of)) return unknown_element;
            if (sdas::any_within_inner_cutoff(net, of)) return within_inner_cutoff;
            std::fill_n(system, pairs.atoms, std::int64_t{0});
            std::copy_n(r + 3 * pairs.first_atom, 3 * pairs.atoms, positions);
            std::copy_n(boxes + 9 * pairs.system, 9, cell);
            of.energies = energies + pairs.system;
            if (by_strain == nullptr) of.by_strain = nullptr;
            sdas::evaluate(net, of, potential.packed_, threads);
            std::copy_n(of.forces, 3 * pairs.atoms, forces + 3 * pairs.first_atom);
            if (by_strain != nullptr) std::copy_n(of.by_strain, 9, by_strain + 9 * pairs.system);
            return done;
        }

        const sdas::SystemPairs pairs;
        sdas::EdgesWithin<T> edges;
        sdas::Network<T> net;
        sdas::NetworkSystems<T> of{};
        std::int64_t* system = nullptr;
        T *positions = nullptr, *cell = nullptr;
    };

    sdas::Network<T> net_;
    sdas::PackedWeights<T> packed_;
    const std::int64_t* kind_of_number_;
    const double* energy_shift_;
    double energy_scale_;
    const std::int64_t* inner_cutoffs_;
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
        .def_static("threads_across", &Potential::threads_across)
        .def("evaluate", &Potential::evaluate);
}

}  // namespace

void bind_network(py::module_& module) {
    py::class_<BoundPairs>(module, "Pairs").def(py::init<const py::dict&>());
    bind<float>(module, "float32");
    bind<double>(module, "float64");
}
