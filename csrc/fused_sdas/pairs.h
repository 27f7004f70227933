// Pairs of atoms that are listed once in many steps, up to somewhat more than the cutoff. At each step the network's edges
// are those of them that are within the cutoff, so that nothing has to be made of a step but its positions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "fused_sdas/memory.h"
#include "fused_sdas/network.h"

namespace sdas {

struct ListedPairs {
    std::int64_t nodes, edges, systems;
    const std::int64_t *receivers, *senders, *row_ptr, *sender_order, *sender_ptr;  // as of a network
    const std::int64_t *numbers, *system;                                           // [N]; [N], ascending
    const double* shifts;             // [E, 3], whole cells; null where nothing is periodic
    const double *positions, *cells;  // [N, 3], [B, 3, 3]: where the pairs were found
    double cutoff, skin;              // they are all those up to the sum of the two

    // Whether no pair that is not listed can have come within the cutoff: the numbers and the cells are what they were, and
    // no two atoms have moved by the skin together. False too where a position is not finite.
    bool hold(const std::int64_t* numbers_now, const double* positions_now, const double* cells_now) const {
        if (std::memcmp(numbers, numbers_now, sizeof(*numbers) * nodes) != 0) return false;
        if (std::memcmp(cells, cells_now, 9 * sizeof(*cells) * systems) != 0) return false;
        bool hold = true;
        for (std::int64_t i = 0; i < 3 * nodes; i += 3) {
            double square = 0;
            for (int k = 0; k < 3; ++k) {
                const double moved = positions_now[i + k] - positions[i + k];
                square += moved * moved;
            }
            hold &= cutoff + skin - 2 * std::sqrt(square) > cutoff;
        }
        return hold;
    }
};

// The atoms of one system and the pairs between them, which lie together.
struct SystemPairs {
    const ListedPairs& all;
    std::int64_t system, first_atom, atoms;

    std::int64_t first_pair() const { return all.row_ptr[first_atom]; }
    std::int64_t pairs() const { return all.row_ptr[first_atom + atoms] - first_pair(); }
};

// The edges of a system at a step, its atoms counted from its first.
template <class T>
class EdgesWithin {
  public:
    // Room for as many edges as pairs.
    EdgesWithin(Memory<T>& memory, const SystemPairs& of)
        : of_(of),
          receivers_(take_indices(memory, of.pairs())),
          senders_(take_indices(memory, of.pairs())),
          row_ptr_(take_indices(memory, of.atoms + 1)),
          sender_order_(take_indices(memory, of.pairs())),
          sender_ptr_(take_indices(memory, of.atoms + 1)),
          place_(take_indices(memory, of.pairs())),
          vectors_(memory.take(3 * of.pairs())) {}

    // From positions and the cell of the system; returns the distance of the closest two atoms. Vectors are
    // r_j - r_i + S · cell, as `NeighborGraph.edge_vectors` has it, in double precision until they are kept.
    double find(const double* positions, const double* cell) {
        const ListedPairs& all = of_.all;
        const double farthest = all.cutoff * all.cutoff;
        const std::int64_t first_pair = of_.first_pair();
        double least = std::numeric_limits<double>::infinity();
        std::int64_t edge = 0;
        for (std::int64_t i = 0; i < of_.atoms; ++i) {
            row_ptr_[i] = edge;
            const double* from = positions + 3 * i;
            const std::int64_t* row = all.row_ptr + of_.first_atom + i;
            for (std::int64_t p = row[0]; p < row[1]; ++p) {
                const std::int64_t j = all.senders[p] - of_.first_atom;
                const double* to = positions + 3 * j;
                double vector[3], square = 0;
                for (int k = 0; k < 3; ++k) {
                    vector[k] = to[k] - from[k];
                    if (all.shifts != nullptr) {
                        const double* shift = all.shifts + 3 * p;
                        vector[k] += (shift[0] * cell[k] + shift[1] * cell[3 + k]) + shift[2] * cell[6 + k];
                    }
                    square += vector[k] * vector[k];
                }
                least = std::min(least, square);
                const bool beyond = square > farthest;  // not so where a position is not a number
                place_[p - first_pair] = beyond ? -1 : edge;
                if (beyond) continue;
                receivers_[edge] = i, senders_[edge] = j;
                for (int k = 0; k < 3; ++k) vectors_[3 * edge + k] = static_cast<T>(vector[k]);
                ++edge;
            }
        }
        row_ptr_[of_.atoms] = edges_ = edge;
        order_by_sender();
        return std::sqrt(least);
    }

    void give(Network<T>& net) const {
        net.edges = edges_;
        net.receivers = receivers_, net.senders = senders_, net.row_ptr = row_ptr_;
        net.sender_order = sender_order_, net.sender_ptr = sender_ptr_;
        net.vectors = vectors_;
    }

  private:
    void order_by_sender() {
        const ListedPairs& all = of_.all;
        std::int64_t sent = 0;
        for (std::int64_t j = 0; j < of_.atoms; ++j) {
            sender_ptr_[j] = sent;
            const std::int64_t* row = all.sender_ptr + of_.first_atom + j;
            for (std::int64_t p = row[0]; p < row[1]; ++p) {
                const std::int64_t place = place_[all.sender_order[p] - of_.first_pair()];
                if (place >= 0) sender_order_[sent++] = place;
            }
        }
        sender_ptr_[of_.atoms] = sent;
    }

    const SystemPairs of_;
    std::int64_t *receivers_, *senders_, *row_ptr_, *sender_order_, *sender_ptr_;
    std::int64_t* place_;  // of each pair among the edges, -1 beyond the cutoff
    T* vectors_;
    std::int64_t edges_ = 0;
};

}  // namespace sdas
