// The coupling between a tile and the rows of z.
#pragma once

#include <cstdint>

// Tests under sanitizers compile fewer degrees.
#ifndef SDAS_MAX_NEIGHBOR_DEGREE
#define SDAS_MAX_NEIGHBOR_DEGREE 4
#endif

namespace sdas {

// Highest degree of the harmonics for which kernels over neighbors are compiled; the degree of the values is free.
constexpr int neighbor_max_degree = SDAS_MAX_NEIGHBOR_DEGREE;

// The degree l of the component m = 0 .. (l+1)² - 1 of a feature.
constexpr int degree_of(int m) { return m < 1 ? 0 : m < 4 ? 1 : m < 9 ? 2 : m < 16 ? 3 : 4; }

// Coefficients of the rows of z and the pairs m1·M2 + m2 of a tile: z[row] = Σ coefficient · tile[pair]. Pairs and rows
// without an entry are zero. In whatever order the entries lie, sums are taken in it.
template <class T>
struct Coupling {
    int entries;
    const std::int32_t *row, *pair;
    const T* coefficient;
};

}  // namespace sdas
