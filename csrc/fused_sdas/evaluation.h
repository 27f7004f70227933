// Energies of systems, forces and derivatives by strain from the vectors of the edges.
#pragma once

#include "fused_sdas/order.h"
#include "fused_sdas/passes.h"
#include "fused_sdas/potential.h"
#include "fused_sdas/weights.h"

namespace sdas {

// Of a network with kinds, vectors and all memory, and what `of` has room for.
template <class T>
void evaluate(Network<T>& net, const NetworkSystems<T>& of, const PackedWeights<T>& weights, int threads) {
    net.packed = weights.numbers();
    if (OrderedNetwork<T>::pays(net, of)) {
        OrderedNetwork<T> ordered(net, of);
        NetworkRun<T>(ordered.network(), false, threads).first_order();
        sum_systems(ordered.restore(), net, of);
    } else {
        NetworkRun<T>(net, false, threads).first_order();
        sum_systems(net.by_vectors, net, of);
    }
}

}  // namespace sdas
