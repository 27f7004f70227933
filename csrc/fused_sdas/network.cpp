// Kernels of the network's work on nodes. What is done to a block of nodes is in network_nodes.h and network_second.h; the
// order in which the passes follow one another, those over edges included, in network_passes.h.
#include "fused_sdas/kernels.h"

#include <algorithm>
#include <cmath>

#include "fused_sdas/second.h"
#include "simd/transpose.h"

namespace sdas::SDAS_SIMD {
namespace {

template <class Half, class T, class Body>
void for_blocks(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end, const Body& body) {
    Half half(pass);
    for (std::int64_t i = begin; i < end; i += node_block) {
        half.move(i, std::min<std::int64_t>(node_block, end - i));
        body(half);
    }
}

// The same, for every part of the nodes in turn, whose gradients by weights are sums of their own.
template <class Half, class T, class Body>
void for_parts(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end, const Body& body) {
    Half half(pass);
    for (std::int64_t part = begin; part < end; part += pass.part_size) {
        half.add_to(part / pass.part_size);
        const std::int64_t last = std::min(part + pass.part_size, end);
        for (std::int64_t i = part; i < last; i += node_block) {
            half.move(i, std::min<std::int64_t>(node_block, last - i));
            body(half);
        }
    }
}

// Rows of a weight as it is kept.
template <class T>
void fill_rows(const Matrix<T>& m, const T* weight) {
    if (m.packed == nullptr) return;
    for (int d = 0; d < m.depth; ++d) {
        std::copy_n(weight + std::int64_t{d} * m.columns, m.columns, m.packed + d * m.row);
        std::fill(m.packed + d * m.row + m.columns, m.packed + (d + 1) * m.row, T(0));
    }
}

template <class T>
void transpose_into(const Matrix<T>& m, const Matrix<T>& from) {
    if (m.columns != m.row) std::fill_n(m.packed, m.depth * m.row, T(0));
    transpose_matrix<T>(m.packed, m.row, from.first, from.row, from.depth, from.columns);
}

// A weight [out, in], as nn.Linear keeps it.
template <class T>
void pack_linear(const LinearMap<T>& map, const T* weight) {
    fill_rows(map.transpose, weight);
    transpose_into(map.forward, map.transpose);
}

// A weight [in, out].
template <class T>
void pack_degree(const LinearMap<T>& map, const T* weight) {
    fill_rows(map.forward, weight);
    transpose_into(map.transpose, map.forward);
}

// Rows k · size + d of the logits' weight, for the places d of every head k, times a factor.
template <class T>
void pack_logits(const LinearMap<T>& map, T* bias, const Network<T>& net, int layer, int first, int size, T factor) {
    const int K = net.heads, C = net.channels;
    const NetworkWeights<const T>& weights = net.weights[layer];
    for (int d = 0; d < size; ++d) {
        for (int k = 0; k < K; ++k) {
            const int from = first + k * size + d, to = d * K + k;
            T* row = map.transpose.packed + to * map.transpose.row;
            for (int c = 0; c < C; ++c) row[c] = factor * weights.logits[std::int64_t{from} * C + c];
            std::fill(row + C, row + map.transpose.row, T(0));
            bias[to] = factor * weights.logits_bias[from];
        }
    }
    transpose_into(map.forward, map.transpose);
}

template <class T>
void pack(const Network<T>& net, const LayerMaps<T>& maps, int layer) {
    const NetworkWeights<const T>& w = net.weights[layer];
    const int C = net.channels, K = net.heads, D = net.key_channels, n = net.radials, degrees = net.lmax + 1;
    T* bias = maps.logits_bias;
    pack_logits(maps.query, bias, net, layer, 0, D, T(1) / std::sqrt(T(D)));
    pack_logits(maps.radial, bias + D * K, net, layer, 2 * D * K, n, T(1));
    pack_logits(maps.key, bias + (D + n) * K, net, layer, D * K, D, T(1));
    pack_logits(maps.sink, bias + (2 * D + n) * K, net, layer, (2 * D + n) * K, 1, T(1));
    pack_linear(maps.hidden, w.hidden);
    pack_linear(maps.factors, w.factors);
    pack_linear(maps.readout, w.readout);
    for (int l = 0; l < degrees; ++l) {
        pack_degree(maps.direction[l], w.direction + l * C * K);
        if (l * l < net.kind(layer).m1) pack_degree(maps.value[l], w.value + l * C * C);
        pack_degree(maps.mixing[l], w.mixing[l]);
        if (net.square.paths[l] > 0) pack_degree(maps.product[l], w.product[l]);
        if (l > 0) pack_degree(maps.gate[l], w.gate + l * C * C);
    }
}

}  // namespace

template <class T>
void network_pack(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end) {
    for (std::int64_t layer = begin; layer < end; ++layer) {
        pack(*pass.net, pass.maps[layer], static_cast<int>(layer));
    }
}

template <class T>
void network_inputs(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end) {
    for_blocks<Inputs<T>>(pass, begin, end, [](auto& inputs) { inputs.forward(); });
}

template <class T>
void network_inputs_backward(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end) {
    for_blocks<Inputs<T>>(pass, begin, end, [](auto& inputs) { inputs.backward(); });
}

template <class T>
void network_inputs_step(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end) {
    for_blocks<InputsSecond<T>>(pass, begin, end, [](auto& inputs) { inputs.step(); });
}

template <class T>
void network_inputs_second(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end) {
    for_parts<InputsSecond<T>>(pass, begin, end, [](auto& inputs) { inputs.second(); });
}

template <class T>
void network_update(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end) {
    for_blocks<Update<T>>(pass, begin, end, [](auto& update) { update.forward(); });
}

template <class T>
void network_update_backward(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end) {
    for_blocks<Update<T>>(pass, begin, end, [](auto& update) { update.backward(); });
}

template <class T>
void network_update_step(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end) {
    for_blocks<UpdateSecond<T>>(pass, begin, end, [](auto& update) { update.step(); });
}

template <class T>
void network_update_second(const NetworkPass<T>& pass, std::int64_t begin, std::int64_t end) {
    for_parts<UpdateSecond<T>>(pass, begin, end, [](auto& update) { update.second(); });
}

#define SDAS_INSTANTIATE(T)                                                                   \
    template void network_pack(const NetworkPass<T>&, std::int64_t, std::int64_t);            \
    template void network_inputs(const NetworkPass<T>&, std::int64_t, std::int64_t);          \
    template void network_inputs_backward(const NetworkPass<T>&, std::int64_t, std::int64_t); \
    template void network_inputs_step(const NetworkPass<T>&, std::int64_t, std::int64_t);     \
    template void network_inputs_second(const NetworkPass<T>&, std::int64_t, std::int64_t);   \
    template void network_update(const NetworkPass<T>&, std::int64_t, std::int64_t);          \
    template void network_update_backward(const NetworkPass<T>&, std::int64_t, std::int64_t); \
    template void network_update_step(const NetworkPass<T>&, std::int64_t, std::int64_t);     \
    template void network_update_second(const NetworkPass<T>&, std::int64_t, std::int64_t);
SDAS_INSTANTIATE(float)
SDAS_INSTANTIATE(double)
#undef SDAS_INSTANTIATE

}  // namespace sdas::SDAS_SIMD
