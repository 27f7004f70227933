// The kernels of the network's work on nodes, compiled once per SIMD level: each does it for nodes begin .. end of a layer.
#pragma once

#include <cstdint>

#include "fused_sdas/memory.h"
#include "fused_sdas/network.h"

namespace sdas {

// What a kernel is given. Arrays and maps are those of all layers; `gradients` are those of each
// part of the nodes, summed by themselves, or null.
template <class T>
struct NetworkPass {
    const Network<T>* net;
    int layer;
    const LayerMaps<T>* maps;
    const NetworkArrays<T>*at, *by, *step, *second;
    const NetworkArrays<T>* more;
    const NetworkGradients<T>* gradients;
    std::int64_t part_size;  // nodes of a part
};

#define SDAS_DECLARE_NETWORK(level)                                                            \
    namespace level {                                                                          \
    template <class T>                                                                         \
    void network_pack(const NetworkPass<T>&, std::int64_t begin, std::int64_t end);            \
    template <class T>                                                                         \
    void network_inputs(const NetworkPass<T>&, std::int64_t begin, std::int64_t end);          \
    template <class T>                                                                         \
    void network_inputs_backward(const NetworkPass<T>&, std::int64_t begin, std::int64_t end); \
    template <class T>                                                                         \
    void network_inputs_step(const NetworkPass<T>&, std::int64_t begin, std::int64_t end);     \
    template <class T>                                                                         \
    void network_inputs_second(const NetworkPass<T>&, std::int64_t begin, std::int64_t end);   \
    template <class T>                                                                         \
    void network_update(const NetworkPass<T>&, std::int64_t begin, std::int64_t end);          \
    template <class T>                                                                         \
    void network_update_backward(const NetworkPass<T>&, std::int64_t begin, std::int64_t end); \
    template <class T>                                                                         \
    void network_update_step(const NetworkPass<T>&, std::int64_t begin, std::int64_t end);     \
    template <class T>                                                                         \
    void network_update_second(const NetworkPass<T>&, std::int64_t begin, std::int64_t end);   \
    }

SDAS_DECLARE_NETWORK(baseline)
#if defined(__x86_64__)
SDAS_DECLARE_NETWORK(avx2)
SDAS_DECLARE_NETWORK(avx512)
#endif
#undef SDAS_DECLARE_NETWORK

}  // namespace sdas
