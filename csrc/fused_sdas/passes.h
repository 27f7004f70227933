// The passes of the network over edges and nodes in their order, on the threads of the pool. The kernels of other
// operators do the work on edges; results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "fused_sdas/kernels.h"
#include "fused_sdas/memory.h"
#include "ops/neighbor_attention/neighbor_attention.h"
#include "ops/radial_basis/radial_basis.h"
#include "ops/spherical_harmonics/spherical_harmonics.h"
#include "system/huge_pages.h"

namespace sdas {

template <class T>
class NetworkRun {
  public:
    NetworkRun(const Network<T>& net, bool keep, int threads)
        : net_(net),
          threads_(threads),
          packed_(net.packed),
          memory_(net.state),
          maps_(network_maps(packed_, net)),
          state_(memory_, net, keep) {
        advise_huge_pages(net.state, memory_.used() * sizeof(T));
        pass_.net = &net_;
        pass_.maps = maps_.data();
        pass_.at = state_.at.data();
        pass_.by = state_.by.data();
    }

    void pack() { SDAS_SELECT(network_pack, T)(pass_, 0, net_.layers()); }

    // energy and by_vectors.
    void first_order() {
        geometry();
        embed();
        for (int layer = 0; layer < net_.layers(); ++layer) {
            on_nodes(SDAS_SELECT(network_inputs, T), layer);
            NeighborAttention<T> job = attention(layer, state_.at[layer]);
            job.out = state_.at[layer].z;
            neighbor_attention_forward(job, threads_);
            on_nodes(SDAS_SELECT(network_update, T), layer);
        }
        const int last = net_.layers() - 1;
        std::fill_n(state_.by[last + 1].x, features(), T(0));
        for (int layer = last; layer >= 0; --layer) {
            on_nodes(SDAS_SELECT(network_update_backward, T), layer);
            NeighborAttention<T> job = attention(layer, state_.at[layer]);
            job.grad = state_.by[layer].z;
            // The first layer's queries, keys and values depend on no vector.
            if (layer > 0) give_operands(job, state_.by[layer]);
            give_edges(job, state_.by_edges, layer < last);
            neighbor_attention_backward(job, threads_);
            if (layer > 0) on_nodes(SDAS_SELECT(network_inputs_backward, T), layer);
        }
        geometry_backward(state_.by_edges, state_.by_lengths, net_.by_vectors);
    }

    // by_weights and by_vectors of the second order, after a first order that kept its state.
    void second_order() {
        Memory<T> memory(net_.scratch);
        NetworkSecond<T> more(memory, net_);
        advise_huge_pages(net_.scratch, memory.used() * sizeof(T));
        std::vector<NetworkGradients<T>> gradients;
        pass_.step = more.step.data();
        pass_.second = more.second.data();
        pass_.more = &more.more;
        pass_.part_size = more.part_size;
        if (net_.by_weights != nullptr) {
            const std::int64_t numbers = NetworkGradients<T>(nullptr, net_).numbers;
            std::fill_n(more.gradients, more.parts * numbers, T(0));
            for (std::int64_t part = 0; part < more.parts; ++part) {
                gradients.emplace_back(more.gradients + part * numbers, net_);
            }
            pass_.gradients = gradients.data();
        }
        steps(more);
        cotangents(more, gradients);
        if (net_.by_weights != nullptr) sum(gradients);
        if (net_.by_vectors != nullptr) vectors_second(more);
    }

  private:
    using Kernel = void (*)(const NetworkPass<T>&, std::int64_t, std::int64_t);

    std::int64_t features() const { return net_.nodes * net_.m() * net_.channels; }

    void on_nodes(Kernel kernel, int layer, std::int64_t grain = 1) {
        const std::int64_t work = net_.nodes * net_.channels * net_.channels * 64;
        pass_.layer = layer;
        parallel_for(net_.nodes, grain, useful_threads(threads_, work),
                     [&](std::int64_t begin, std::int64_t end) { kernel(pass_, begin, end); });
    }

    template <class Body>
    void on_edges(const Body& body) const {
        constexpr std::int64_t work = 32;  // of an edge
        parallel_for(net_.edges, 64, useful_threads(threads_, net_.edges * work), body);
    }

    SphericalHarmonics<T> harmonics() const {
        SphericalHarmonics<T> job{};
        job.count = net_.edges, job.lmax = net_.lmax, job.normalize = true, job.scale = net_.scale;
        job.vectors = net_.vectors;
        return job;
    }

    RadialBasis<T> radial() const {
        RadialBasis<T> job{};
        job.count = net_.edges, job.functions = net_.radials, job.exponent = net_.exponent, job.cutoff = net_.cutoff;
        job.lengths = state_.lengths;
        return job;
    }

    void geometry() {
        on_edges([&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t e = begin; e < end; ++e) {
                const T* r = net_.vectors + 3 * e;
                state_.lengths[e] = std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
            }
        });
        SphericalHarmonics<T> y = harmonics();
        y.harmonics = state_.edges.harmonics;
        spherical_harmonics_forward(y, threads_);
        RadialBasis<T> r = radial();
        r.radial = state_.edges.radial, r.envelope = state_.edges.envelope;
        radial_basis_forward(r, threads_);
    }

    // out = by vectors, from the cotangents of harmonics, radial and envelope; 1/d counts as zero where d is.
    void geometry_backward(const NetworkEdges<T>& by, T* by_lengths, T* out) const {
        SphericalHarmonics<T> y = harmonics();
        y.grad = by.harmonics, y.gradient = out;
        spherical_harmonics_backward(y, threads_);
        RadialBasis<T> r = radial();
        r.grad = by.radial, r.grad_envelope = by.envelope, r.by_lengths = by_lengths;
        radial_basis_backward(r, threads_);
        on_edges([&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t e = begin; e < end; ++e) {
                if (!(state_.lengths[e] > 0)) continue;
                const T slope = by_lengths[e] / state_.lengths[e];
                for (int k = 0; k < 3; ++k) out[3 * e + k] += slope * net_.vectors[3 * e + k];
            }
        });
    }

    void embed() {
        const std::int64_t C = net_.channels, row = net_.m() * C;
        T* x = state_.at[0].x;
        std::fill_n(x, features(), T(0));
        for (std::int64_t i = 0; i < net_.nodes; ++i) {
            std::copy_n(net_.embedding + net_.kinds[i] * C, C, x + i * row);
        }
    }

    static void give(NeighborAttentionOperands<T>& to, const NetworkArrays<T>& from, const NetworkEdges<T>& edges) {
        to.query = from.query, to.key = from.key, to.sink = from.sink, to.value = from.value;
        to.harmonics = edges.harmonics, to.radial = edges.radial, to.envelope = edges.envelope;
    }

    NeighborAttention<T> attention(int layer, const NetworkArrays<T>& at) const {
        const NetworkKind<T>& kind = net_.kind(layer);
        NeighborAttention<T> job{};
        job.nodes = net_.nodes, job.edges = net_.edges, job.lmax = net_.lmax, job.m1 = kind.m1, job.rows = kind.rows;
        job.channels = net_.channels, job.heads = net_.heads, job.key_channels = net_.key_channels;
        job.radials = net_.radials, job.heads_inner = true, job.coupling = kind.coupling;
        job.senders = net_.senders, job.row_ptr = net_.row_ptr;
        give(job.at, at, state_.edges);
        job.at.radial_gain = net_.weights[layer].radial_gain;
        return job;
    }

    static void give_operands(NeighborAttention<T>& job, const NetworkArrays<T>& by) {
        job.by_query = by.query, job.by_key = by.key, job.by_sink = by.sink, job.by_value = by.value;
    }

    static void give_edges(NeighborAttention<T>& job, const NetworkEdges<T>& by, bool add) {
        job.by_harmonics = by.harmonics, job.by_radial = by.radial, job.by_envelope = by.envelope;
        job.edges_add = add;
    }

    // Tangents of everything along the steps of the vectors, and each attention's share of the second cotangents.
    void steps(NetworkSecond<T>& more) {
        edge_steps(more);
        std::fill_n(more.step[0].x, features(), T(0));
        zero_operands(more.step[0]);
        for (int layer = 0; layer < net_.layers(); ++layer) {
            if (layer > 0) on_nodes(SDAS_SELECT(network_inputs_step, T), layer);
            NeighborAttention<T> job = attention(layer, state_.at[layer]);
            give(job.step, more.step[layer], more.edge_steps);
            std::fill_n(more.gains, net_.gain_numbers(), T(0));
            job.step.radial_gain = more.gains;  // weights make no step
            job.grad = state_.by[layer].z;
            job.out = more.step[layer].z;
            give_operands(job, more.second[layer]);
            job.by_radial_gain = more.layer_gains(layer, net_);
            if (net_.by_vectors != nullptr) give_edges(job, more.second_edges, layer > 0);
            neighbor_attention_double_backward(job, threads_);
            on_nodes(SDAS_SELECT(network_update_step, T), layer);
        }
    }

    void zero_operands(const NetworkArrays<T>& a) const {
        const NetworkKind<T>& kind = net_.kind(0);
        std::fill_n(a.query, net_.nodes * net_.places() * net_.heads, T(0));
        std::fill_n(a.key, net_.nodes * net_.key_channels * net_.heads, T(0));
        std::fill_n(a.sink, net_.nodes * net_.heads, T(0));
        std::fill_n(a.value, net_.nodes * kind.m1 * net_.channels, T(0));
    }

    void edge_steps(NetworkSecond<T>& more) const {
        on_edges([&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t e = begin; e < end; ++e) {
                const T *r = net_.vectors + 3 * e, *step = net_.vectors_cotangent + 3 * e, d = state_.lengths[e];
                more.along[e] = d > 0 ? (r[0] * step[0] + r[1] * step[1] + r[2] * step[2]) / d : T(0);
            }
        });
        SphericalHarmonics<T> y = harmonics();
        y.grad = state_.by_edges.harmonics, y.grad_grad = net_.vectors_cotangent;
        y.harmonics = more.edge_steps.harmonics, y.gradient = more.by_vectors;
        spherical_harmonics_double_backward(y, threads_);
        RadialBasis<T> r = radial();
        r.grad = state_.by_edges.radial, r.grad_envelope = state_.by_edges.envelope, r.grad_grad = more.along;
        r.radial = more.edge_steps.radial, r.envelope = more.edge_steps.envelope, r.by_lengths = more.by_lengths;
        radial_basis_double_backward(r, threads_);
    }

    // The second cotangents, from the last layer to the first.
    void cotangents(NetworkSecond<T>& more, std::vector<NetworkGradients<T>>& gradients) {
        const int layers = net_.layers();
        std::fill_n(more.second[layers].x, features(), T(0));
        for (int layer = layers - 1; layer >= 0; --layer) {
            on_nodes(SDAS_SELECT(network_update_second, T), layer, more.part_size);
            NeighborAttention<T> job = attention(layer, state_.at[layer]);
            job.grad = more.second[layer].z;
            give_operands(job, more.more);
            T* gains = more.gains;
            job.by_radial_gain = gains;
            if (net_.by_vectors != nullptr) give_edges(job, more.second_edges, true);
            neighbor_attention_backward(job, threads_);
            on_nodes(SDAS_SELECT(network_inputs_second, T), layer, more.part_size);
            if (gradients.empty()) continue;
            T *out = gradients[0].layers[layer].radial_gain, *before = more.layer_gains(layer, net_);
            for (std::int64_t k = 0; k < net_.gain_numbers(); ++k) out[k] = before[k] + gains[k];
        }
    }

    // Of all parts, in their order; queries were divided by √D when they were packed.
    void sum(const std::vector<NetworkGradients<T>>& gradients) {
        const std::int64_t numbers = gradients[0].numbers, rows = std::int64_t{net_.heads} * net_.key_channels;
        parallel_for(numbers, 1 << 12, threads_, [&](std::int64_t begin, std::int64_t end) {
            std::copy(gradients[0].embedding + begin, gradients[0].embedding + end, net_.by_weights + begin);
            for (std::size_t part = 1; part < gradients.size(); ++part) {
                for (std::int64_t k = begin; k < end; ++k) net_.by_weights[k] += gradients[part].embedding[k];
            }
        });
        const NetworkGradients<T> all(net_.by_weights, net_);
        const T scale = T(1) / std::sqrt(T(net_.key_channels));
        for (const NetworkWeights<T>& w : all.layers) {
            for (std::int64_t k = 0; k < rows * net_.channels; ++k) w.logits[k] *= scale;
            for (std::int64_t k = 0; k < rows; ++k) w.logits_bias[k] *= scale;
        }
    }

    // by vectors of the second order: through the geometry, and through the gradient of ΣE by it.
    void vectors_second(NetworkSecond<T>& more) {
        T* by_lengths = more.edge_steps.envelope;  // its step is used up
        RadialBasis<T> r = radial();
        r.grad = state_.by_edges.radial, r.grad_envelope = state_.by_edges.envelope, r.by_lengths = by_lengths;
        radial_basis_backward(r, threads_);
        on_edges([&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t e = begin; e < end; ++e) {
                const T d = state_.lengths[e], inverse = d > 0 ? T(1) / d : T(0), slope = by_lengths[e] * inverse;
                const T radially = (more.by_lengths[e] - slope * more.along[e]) * inverse;
                for (std::int64_t k = 3 * e; k < 3 * e + 3; ++k) {
                    more.by_vectors[k] += radially * net_.vectors[k] + slope * net_.vectors_cotangent[k];
                }
            }
        });
        geometry_backward(more.second_edges, by_lengths, net_.by_vectors);
        on_edges([&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t k = 3 * begin; k < 3 * end; ++k) net_.by_vectors[k] += more.by_vectors[k];
        });
    }

    const Network<T> net_;
    const int threads_;
    Memory<T> packed_, memory_;
    std::vector<LayerMaps<T>> maps_;
    NetworkState<T> state_;
    NetworkPass<T> pass_{};
};

}  // namespace sdas
