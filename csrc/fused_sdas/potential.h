// What surrounds the network where nothing is to be differentiated: the edges' vectors from positions and cells, and from
// what the network gives the energies of systems, forces, and the derivatives by strain.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fused_sdas/memory.h"

namespace sdas {

template <class T>
struct NetworkSystems {
    std::int64_t systems;
    const std::int64_t *numbers, *kind_of_number;  // [N]; [119], negative for unknown elements
    std::int64_t* kinds;                           // [N] scratch
    const T *positions, *cells;                    // [N, 3], [B, 3, 3]
    const T* shifts;                               // [E, 3], whole cells; null where nothing is periodic
    const std::int64_t* system;                    // [N], ascending
    const double* energy_shift;                    // [species]
    double energy_scale;
    const std::int64_t* inner_cutoffs;  // [species, species] fm, or null
    double* energies;                   // [B]
    T *forces, *by_strain;              // [N, 3]; [B, 3, 3] or null: Σ vector ⊗ gradient over a system's edges
};

// Room for what comes before the network's state and behind it, but for its vectors.
template <class T>
void take_scratch(Memory<T>& memory, Network<T>& net, NetworkSystems<T>& of) {
    net.by_vectors = memory.take(3 * net.edges);
    net.energy = memory.take(net.nodes);
    net.kinds = of.kinds = take_indices(memory, net.nodes);
    net.state = memory.take(0);
}

// The network's kinds; whether all are known.
template <class T>
bool find_kinds(const Network<T>& net, const NetworkSystems<T>& of) {
    bool known = true;
    for (std::int64_t i = 0; i < net.nodes; ++i) {
        const std::int64_t z = of.numbers[i], kind = z >= 0 && z <= 118 ? of.kind_of_number[z] : -1;
        of.kinds[i] = kind;
        known &= kind >= 0 && kind < net.species;
    }
    return known;
}

// r_j - r_i + S · cell.
template <class T>
void edge_vectors(T* vectors, const Network<T>& net, const NetworkSystems<T>& of) {
    for (std::int64_t e = 0; e < net.edges; ++e) {
        const T *from = of.positions + 3 * net.receivers[e], *to = of.positions + 3 * net.senders[e];
        for (int k = 0; k < 3; ++k) vectors[3 * e + k] = to[k] - from[k];
        if (of.shifts == nullptr) continue;
        const T *cell = of.cells + 9 * of.system[net.receivers[e]], *shift = of.shifts + 3 * e;
        for (int k = 0; k < 3; ++k) {
            vectors[3 * e + k] += (shift[0] * cell[k] + shift[1] * cell[3 + k]) + shift[2] * cell[6 + k];
        }
    }
}

// Whether the atoms of any edge are closer than the inner cutoff of their kinds.
template <class T>
bool any_within_inner_cutoff(const Network<T>& net, const NetworkSystems<T>& of) {
    if (of.inner_cutoffs == nullptr) return false;
    constexpr double per_fm = 1e-5;
    bool within = false;
    for (std::int64_t e = 0; e < net.edges; ++e) {
        const T *v = net.vectors + 3 * e, square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
        const std::int64_t pair = of.kinds[net.receivers[e]] * net.species + of.kinds[net.senders[e]];
        const T cutoff = static_cast<T>(per_fm * static_cast<double>(of.inner_cutoffs[pair]));
        within |= square < cutoff * cutoff;
    }
    return within;
}

// energies, forces and by_strain from the network's energies and its gradient by the vectors, which is scaled.
template <class T>
void sum_systems(T* gradient, const Network<T>& net, const NetworkSystems<T>& of) {
    std::fill_n(of.energies, of.systems, 0.0);
    for (std::int64_t i = 0; i < net.nodes; ++i) {
        of.energies[of.system[i]] +=
            of.energy_scale * static_cast<double>(net.energy[i]) + of.energy_shift[net.kinds[i]];
    }
    const T scale = static_cast<T>(of.energy_scale);
    for (std::int64_t k = 0; k < 3 * net.edges; ++k) gradient[k] *= scale;
    for (std::int64_t i = 0; i < net.nodes; ++i) {
        T received[3] = {}, sent[3] = {};
        for (std::int64_t e = net.row_ptr[i]; e < net.row_ptr[i + 1]; ++e) {
            for (int k = 0; k < 3; ++k) received[k] += gradient[3 * e + k];
        }
        for (std::int64_t p = net.sender_ptr[i]; p < net.sender_ptr[i + 1]; ++p) {
            for (int k = 0; k < 3; ++k) sent[k] += gradient[3 * net.sender_order[p] + k];
        }
        for (int k = 0; k < 3; ++k) of.forces[3 * i + k] = received[k] - sent[k];
    }
    if (of.by_strain == nullptr) return;
    std::fill_n(of.by_strain, 9 * of.systems, T(0));
    for (std::int64_t e = 0; e < net.edges; ++e) {
        T* sum = of.by_strain + 9 * of.system[net.receivers[e]];
        for (int k = 0; k < 9; ++k) sum[k] += net.vectors[3 * e + k / 3] * gradient[3 * e + k % 3];
    }
}

}  // namespace sdas
