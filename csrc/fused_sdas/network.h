// The default network of atoms, whole: energies of atoms, their gradient by the vectors of the edges, and the gradient of
// both by the weights. What the kernels take; network_passes.h runs them.
//
// A layer, with y = x / rms(x) and y' = x' / rms(x'):
//
//   query, key, sink, value = linear maps of y        z  = neighbor attention        x' = x + Σ mixing · z
//   h = W [y'_0, |y'_l|²] + b     f = V silu(h) + c    x'' = x' + [f_0, f_l (y'_l · gate_l)]
//   energy += readout of x''_0
//
// With a product at nodes x' is, from the second line on, x' + Σ product · (y' ⊗ y'): the array `joined`.
//
// The order of the passes is that of forward-over-reverse differentiation. `at` holds what the energy's evaluation
// makes; `by` the cotangents of ΣE, of which the gradient by the vectors is made; `step` the tangents along given steps of
// the vectors; `second` the cotangents of <energy's, E> + <steps, ΣE's gradient by the vectors>, which lead to the weights.
// Everything that belongs to nodes is [N, ..] with channels or heads innermost.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/neighbor_tensor_product/coupling.h"

namespace sdas {

constexpr int network_max_degree = neighbor_max_degree;

// Weights of a layer, as PyTorch keeps them, or gradients by them. L = lmax, a = the number of degrees of the values - 1.
template <class T>
struct NetworkWeights {
    T *logits, *logits_bias;            // [(2 D + n + 1) K, C], of query, key, radial query and sink, each head by head
    T* direction;                       // [L+1, C, K]
    T* value;                           // [a+1, C, C]
    T* radial_gain;                     // [K, L+1, n]
    T* mixing[network_max_degree + 1];  // [paths · C, C] of each degree
    T* product[network_max_degree + 1];  // the same, of the square paths; null where there are none
    T *hidden, *hidden_bias;             // [2 C, (L+1) C]
    T *factors, *factors_bias;           // [(L+1) C, 2 C]
    T* gate;                             // [L+1, C, C]
    T *readout, *readout_bias;           // [R, C]
    T *energy, *energy_bias;             // [1, R]
};

// What belongs to the nodes of a layer; `x` is its input.
template <class T>
struct NetworkArrays {
    T* x;        // [N, M, C]
    T* query;    // [N, D + M + n, K]
    T* key;      // [N, D, K]
    T* sink;     // [N, K]
    T* value;    // [N, m1, C]
    T* z;        // [N, rows, C]
    T* middle;   // x': [N, M, C]
    T* joined;   // x' with the product: [N, M, C]; `middle` itself where there is none
    T* hidden;   // h: [N, 2 C]; only `at`
    T* factors;  // f: [N, L+1, C]; only `at`
    T* gated;    // y' · gate: [N, M, C], degree 0 unused; only `at`
};

// What belongs to edges.
template <class T>
struct NetworkEdges {
    T* harmonics;  // [E, M]
    T* radial;     // [E, n]
    T* envelope;   // [E]
};

// Sizes of a layer and its coupling, which differ between the first layer, whose values are scalars, and the others.
template <class T>
struct NetworkKind {
    int m1, rows;                       // of the values; of z
    int paths[network_max_degree + 1];  // that lead to each degree
    Coupling<T> coupling;
};

// The product of a node's features with themselves: sizes and coupling to its rows, of which there are none without it.
template <class T>
struct NetworkSquare {
    int rows;
    int paths[network_max_degree + 1];
    Coupling<T> coupling;
};

template <class T>
struct Network {
    std::int64_t nodes, edges;
    int lmax, channels, heads, key_channels, radials, species, readout, exponent;
    double cutoff, epsilon;
    const std::int64_t *receivers, *senders, *row_ptr, *sender_order, *sender_ptr;
    const std::int64_t* kinds;  // [N] species of each atom
    NetworkKind<T> first, other;
    NetworkSquare<T> square;
    const T* embedding;                            // [species, C]
    std::vector<NetworkWeights<const T>> weights;  // of each layer
    const T* scale;                                // of the harmonics, see SphericalHarmonics
    const T* vectors;                              // [E, 3]
    T *packed, *state,
        *scratch;   // memory: the weights as the kernels take them; what is made of them; what is not kept
    T* energy;      // [N]
    T* by_vectors;  // [E, 3]: of ΣE; in the second order of the function above, or null
    // Second order: cotangents of the energies and of by_vectors, and the gradient by all weights or null: embedding, then
    // those of every layer in the order of NetworkWeights.
    const T *energy_cotangent, *vectors_cotangent;
    T* by_weights;

    int layers() const { return static_cast<int>(weights.size()); }
    int m() const { return (lmax + 1) * (lmax + 1); }
    int width() const { return (lmax + 1) * channels; }  // invariants of an atom
    int places() const { return key_channels + m() + radials; }
    std::int64_t gain_numbers() const { return std::int64_t{heads} * (lmax + 1) * radials; }
    const NetworkKind<T>& kind(int layer) const { return layer == 0 ? first : other; }
};

// Calls body(array, numbers) for the embedding and the weights of each layer, or gradients by them, in the order in which
// the operator takes them.
template <class T, class Array, class Layers, class Body>
void for_weights(const Network<T>& net, Array& embedding, Layers& layers, const Body& body) {
    const std::int64_t C = net.channels, K = net.heads, degrees = net.lmax + 1, R = net.readout;
    const std::int64_t logits = (2 * net.key_channels + net.radials + 1) * K, width = net.width();
    body(embedding, net.species * C);
    for (int layer = 0; layer < net.layers(); ++layer) {
        const NetworkKind<T>& kind = net.kind(layer);
        auto& w = layers[layer];
        body(w.logits, logits * C);
        body(w.logits_bias, logits);
        body(w.direction, degrees * C * K);
        body(w.value, (kind.m1 == 1 ? 1 : degrees) * C * C);
        body(w.radial_gain, net.gain_numbers());
        for (int l = 0; l < degrees; ++l) body(w.mixing[l], kind.paths[l] * C * C);
        for (int l = 0; l < degrees; ++l) {
            if (net.square.paths[l] > 0) body(w.product[l], net.square.paths[l] * C * C);
        }
        body(w.hidden, 2 * C * width);
        body(w.hidden_bias, 2 * C);
        body(w.factors, width * 2 * C);
        body(w.factors_bias, width);
        body(w.gate, degrees * C * C);
        body(w.readout, R * C);
        body(w.readout_bias, R);
        body(w.energy, R);
        body(w.energy_bias, std::int64_t{1});
    }
}

}  // namespace sdas
