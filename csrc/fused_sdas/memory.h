// Where the network's passes keep their arrays and matrices: offsets into memory that the caller gives, or their total.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "fused_sdas/network.h"

namespace sdas {

// Gives out consecutive pieces, each starting at a cache line; from nullptr only their total counts.
template <class T>
class Memory {
  public:
    explicit Memory(T* base) : base_(base) {}

    T* take(std::int64_t count) {
        T* piece = base_ == nullptr ? nullptr : base_ + used_;
        used_ += (count + line - 1) / line * line;
        return piece;
    }

    std::int64_t used() const { return used_; }

  private:
    static constexpr std::int64_t line = 16;

    T* base_;
    std::int64_t used_ = 0;
};

// Room for indices among the numbers.
template <class T>
std::int64_t* take_indices(Memory<T>& memory, std::int64_t count) {
    return reinterpret_cast<std::int64_t*>(
        memory.take(count * static_cast<std::int64_t>(sizeof(std::int64_t) / sizeof(T))));
}

// [depth, columns], its rows `row` apart, which is a multiple of every vector; what lies beyond the columns is zero. It is
// `packed`, or a weight as it is.
template <class T>
struct Matrix {
    const T* first;
    int depth, columns;
    std::int64_t row;
    T* packed;

    Matrix() = default;

    // Of a weight [depth, columns], or null if it is arranged otherwise.
    Matrix(Memory<T>& memory, int depth, int columns, const T* weight, bool as_it_is)
        : depth(depth), columns(columns), row((columns + 15) / 16 * 16), packed(nullptr) {
        if (as_it_is && row == columns) {
            first = weight;
        } else {
            first = packed = memory.take(depth * row);
        }
    }
};

enum class Kept { in_out, out_in, otherwise };  // how a weight is kept

// A linear map and its transpose.
template <class T>
struct LinearMap {
    Matrix<T> forward, transpose;

    LinearMap() = default;
    LinearMap(Memory<T>& memory, int in, int out, Kept kept, const T* weight = nullptr)
        : forward(memory, in, out, weight, kept == Kept::in_out),
          transpose(memory, out, in, weight, kept == Kept::out_in) {}
};

// The weights of a layer as its kernels take them, heads innermost.
template <class T>
struct LayerMaps {
    LinearMap<T> query, radial, key, sink, hidden, factors, readout;
    T* logits_bias;  // of query, radial query, key, sink
    LinearMap<T> direction[network_max_degree + 1], value[network_max_degree + 1], mixing[network_max_degree + 1],
        product[network_max_degree + 1], gate[network_max_degree + 1];

    LayerMaps(Memory<T>& memory, const Network<T>& net, int layer) {
        const int c = net.channels, k = net.heads, d = net.key_channels, n = net.radials;
        const NetworkKind<T>& kind = net.kind(layer);
        const NetworkWeights<const T>& w = net.weights[layer];
        const auto of_degree = [&](const T* weight, int l, int out) {
            return weight == nullptr ? nullptr : weight + std::int64_t{l} * c * out;
        };
        query = {memory, c, d * k, Kept::otherwise};
        radial = {memory, c, n * k, Kept::otherwise};
        key = {memory, c, d * k, Kept::otherwise};
        sink = {memory, c, k, Kept::otherwise};
        logits_bias = memory.take((2 * d + n + 1) * k);
        hidden = {memory, net.width(), 2 * c, Kept::out_in, w.hidden};
        factors = {memory, 2 * c, net.width(), Kept::out_in, w.factors};
        readout = {memory, c, net.readout, Kept::out_in, w.readout};
        for (int l = 0; l <= net.lmax; ++l) {
            direction[l] = {memory, c, k, Kept::in_out, of_degree(w.direction, l, k)};
            if (l * l < kind.m1) value[l] = {memory, c, c, Kept::in_out, of_degree(w.value, l, c)};
            mixing[l] = {memory, kind.paths[l] * c, c, Kept::in_out, w.mixing[l]};
            if (net.square.paths[l] > 0) product[l] = {memory, net.square.paths[l] * c, c, Kept::in_out, w.product[l]};
            if (l > 0) gate[l] = {memory, c, c, Kept::in_out, of_degree(w.gate, l, c)};
        }
    }
};

template <class T>
std::vector<LayerMaps<T>> network_maps(Memory<T>& memory, const Network<T>& net) {
    std::vector<LayerMaps<T>> maps;
    for (int layer = 0; layer < net.layers(); ++layer) maps.emplace_back(memory, net, layer);
    return maps;
}

// Sizes of the arrays of a layer.
template <class T>
class ArraySizes {
  public:
    ArraySizes(const Network<T>& net, int layer) : net_(net), kind_(net.kind(layer)) {}

    std::int64_t features() const { return nodes(net_.m() * net_.channels); }
    std::int64_t z() const { return nodes(kind_.rows * net_.channels); }

    void take_operands(NetworkArrays<T>& a, Memory<T>& memory) const {
        a.query = memory.take(nodes(net_.places() * net_.heads));
        a.key = memory.take(nodes(net_.key_channels * net_.heads));
        a.sink = memory.take(nodes(net_.heads));
        a.value = memory.take(nodes(kind_.m1 * net_.channels));
    }

    // Both ends of the product, which are one where there is none.
    void take_middle(NetworkArrays<T>& a, Memory<T>& memory) const {
        a.middle = memory.take(features());
        a.joined = net_.square.rows > 0 ? memory.take(features()) : a.middle;
    }

    void take_update(NetworkArrays<T>& a, Memory<T>& memory) const {
        take_middle(a, memory);
        a.hidden = memory.take(nodes(2 * net_.channels));
        a.factors = memory.take(nodes(net_.width()));
        a.gated = memory.take(features());
    }

  private:
    std::int64_t nodes(std::int64_t numbers) const { return net_.nodes * numbers; }

    const Network<T>& net_;
    const NetworkKind<T>& kind_;
};

template <class T>
NetworkEdges<T> take_edges(Memory<T>& memory, const Network<T>& net) {
    return {memory.take(net.edges * net.m()), memory.take(net.edges * net.radials), memory.take(net.edges)};
}

// What an evaluation makes. If the second order is to follow it keeps every array of every layer; else layers share z
// and the cotangents.
template <class T>
struct NetworkState {
    std::vector<NetworkArrays<T>> at, by;  // of each layer, and the last layer's output as the `x` of one more
    NetworkEdges<T> edges, by_edges;
    T *lengths, *by_lengths;  // [E]

    NetworkState(Memory<T>& memory, const Network<T>& net, bool keep) : at(net.layers() + 1), by(net.layers() + 1) {
        const int layers = net.layers();
        edges = take_edges(memory, net);
        by_edges = take_edges(memory, net);
        lengths = memory.take(net.edges);
        by_lengths = memory.take(net.edges);
        // The last layer is as large as any.
        const ArraySizes<T> largest(net, layers - 1);
        NetworkArrays<T> shared{};
        if (!keep) {
            shared.z = memory.take(largest.z());
            shared.x = memory.take(largest.features());
            largest.take_middle(shared, memory);
            largest.take_operands(shared, memory);
        }
        for (int layer = 0; layer <= layers; ++layer) {
            at[layer].x = memory.take(largest.features());
            by[layer].x = keep ? memory.take(largest.features()) : shared.x;
            if (layer == layers) break;
            const ArraySizes<T> sizes(net, layer);
            sizes.take_operands(at[layer], memory);
            sizes.take_update(at[layer], memory);
            if (keep) {
                at[layer].z = memory.take(sizes.z());
                by[layer].z = memory.take(sizes.z());
                sizes.take_middle(by[layer], memory);
                sizes.take_operands(by[layer], memory);
            } else {
                at[layer].z = shared.z;
                by[layer] = shared;
            }
        }
    }
};

// The gradient by all weights, one after the other from `base` on.
template <class T>
struct NetworkGradients {
    std::int64_t numbers = 0;
    T* embedding;
    std::vector<NetworkWeights<T>> layers;

    NetworkGradients(T* base, const Network<T>& net) : layers(net.layers()) {
        for_weights(net, embedding, layers, [&](T*& piece, std::int64_t count) {
            piece = base == nullptr ? nullptr : base + numbers;
            numbers += count;
        });
    }
};

// What the second order makes besides.
template <class T>
struct NetworkSecond {
    std::vector<NetworkArrays<T>> step, second;
    NetworkEdges<T> edge_steps, second_edges;
    NetworkArrays<T> more;               // cotangents of a layer's operands that are to be added to `second`
    T *along, *by_lengths, *by_vectors;  // [E], [E], [E, 3]
    T *gains, *gains_of_layers;          // [K, L+1, n], [layers, K, L+1, n]
    std::int64_t parts, part_size;       // of the nodes, whose gradients are sums of their own
    T* gradients;                        // [parts, weights]

    NetworkSecond(Memory<T>& memory, const Network<T>& net) : step(net.layers() + 1), second(net.layers() + 1), more{} {
        const int layers = net.layers();
        edge_steps = take_edges(memory, net);
        second_edges = take_edges(memory, net);
        along = memory.take(net.edges);
        by_lengths = memory.take(net.edges);
        by_vectors = memory.take(3 * net.edges);
        gains = memory.take(net.gain_numbers());
        gains_of_layers = memory.take(layers * net.gain_numbers());
        constexpr std::int64_t most = 16, least = 128;
        part_size = std::max(least, (net.nodes + most - 1) / most);
        parts = (net.nodes + part_size - 1) / part_size;
        gradients = memory.take(parts * NetworkGradients<T>(nullptr, net).numbers);
        const ArraySizes<T> largest(net, layers - 1);
        largest.take_operands(more, memory);
        NetworkArrays<T> shared{};
        shared.x = memory.take(largest.features());
        largest.take_middle(shared, memory);
        shared.z = memory.take(largest.z());
        for (int layer = 0; layer <= layers; ++layer) {
            step[layer].x = memory.take(largest.features());
            second[layer] = shared;
            if (layer == layers) break;
            const ArraySizes<T> sizes(net, layer);
            sizes.take_operands(step[layer], memory);
            step[layer].z = memory.take(sizes.z());
            sizes.take_middle(step[layer], memory);
            sizes.take_operands(second[layer], memory);
        }
    }

    T* layer_gains(int layer, const Network<T>& net) const { return gains_of_layers + layer * net.gain_numbers(); }
};

}  // namespace sdas
