// A network whose nodes follow one another as they lie in space, made of one whose atoms come in any order: what neighbors
// send is then in the caches more often, and the time of an atom does not depend on how a large system is sorted.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "fused_sdas/network.h"
#include "fused_sdas/potential.h"
#include "system/huge_pages.h"

namespace sdas {

// Places along the cells of a system's space in Morton order.
template <class T>
class SpaceCells {
  public:
    // Of the atoms begin .. end, all those of a system.
    SpaceCells(const NetworkSystems<T>& of, std::int64_t begin, std::int64_t end, double width)
        : of_(of), width_(width) {
        const T* cell = of.cells + 9 * of.system[begin];
        for (int k = 0; k < 3; ++k) {
            const T *b = cell + 3 * ((k + 1) % 3), *c = cell + 3 * ((k + 2) % 3);
            for (int x = 0; x < 3; ++x) {
                const int y = (x + 1) % 3, z = (x + 2) % 3;
                normal_[k][x] = double(b[y]) * double(c[z]) - double(b[z]) * double(c[y]);
                volume_ += k == 0 ? normal_[0][x] * double(cell[x]) : 0.0;
            }
            lowest_[k] = of.positions[3 * begin + k];
            for (std::int64_t i = begin; i < end; ++i)
                lowest_[k] = std::min<double>(lowest_[k], of.positions[3 * i + k]);
        }
    }

    // Where a cell has a volume, atoms beyond it count as their images within.
    std::uint64_t place(std::int64_t atom) const {
        const T* r = of_.positions + 3 * atom;
        std::uint64_t place = 0;
        for (int k = 0; k < 3; ++k) {
            double along = r[k] - lowest_[k];
            if (volume_ != 0) {
                const double* n = normal_[k];
                const double part = (r[0] * n[0] + r[1] * n[1] + r[2] * n[2]) / volume_;
                const double height = std::abs(volume_) / std::sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
                along = (part - std::floor(part)) * height;
            }
            const double cells = along / width_;
            const auto number = cells < most ? static_cast<std::uint64_t>(cells) : std::uint64_t{most};
            for (int bit = 0; bit < bits; ++bit) place |= (number >> bit & 1) << (3 * bit + k);
        }
        return place;
    }

  private:
    static constexpr int bits = 12, most = (1 << bits) - 1;

    const NetworkSystems<T>& of_;
    const double width_;
    double normal_[3][3], lowest_[3], volume_ = 0;
};

// The network with its nodes in that order, system by system. A receiver's edges keep their order, so that what it sums
// keeps every bit.
template <class T>
class OrderedNetwork {
  public:
    // Whether to sort: not where a few thousand atoms are at hand in any order, and not where most neighbors have near
    // numbers already. In a system of n atoms in random order they are n / 3 apart in the mean.
    static bool pays(const Network<T>& given, const NetworkSystems<T>& of) {
        constexpr std::int64_t fewest = 4096, near = 5;
        if (given.nodes < fewest) return false;
        std::vector<std::int64_t> atoms(of.systems, 0);
        for (std::int64_t i = 0; i < given.nodes; ++i) ++atoms[of.system[i]];
        std::int64_t apart = 0, least = 0;
        for (std::int64_t i = 0; i < given.nodes; ++i) {
            for (std::int64_t e = given.row_ptr[i]; e < given.row_ptr[i + 1]; ++e)
                apart += std::abs(given.senders[e] - i);
            least += (given.row_ptr[i + 1] - given.row_ptr[i]) * atoms[of.system[i]] / near;
        }
        return apart > least;
    }

    OrderedNetwork(const Network<T>& given, const NetworkSystems<T>& of)
        : given_(given),
          net_(given),
          indices_(4 * given.nodes + 1 + given.edges),
          numbers_(given.nodes + 3 * given.edges) {
        find_order(of);
        std::int64_t *place = indices_.take(given.nodes), *kinds = indices_.take(given.nodes);
        std::int64_t *row_ptr = indices_.take(given.nodes + 1), *senders = indices_.take(given.edges);
        row_ptr[0] = 0;
        for (std::int64_t i = 0; i < given.nodes; ++i) {
            const std::int64_t atom = order_[i];
            place[atom] = i, kinds[i] = given.kinds[atom];
            row_ptr[i + 1] = row_ptr[i] + given.row_ptr[atom + 1] - given.row_ptr[atom];
        }
        net_.row_ptr = row_ptr, net_.senders = senders, net_.kinds = kinds;
        net_.energy = numbers_.take(given.nodes);
        net_.vectors = vectors_ = numbers_.take(3 * given.edges);
        for_edges([&](std::int64_t from, std::int64_t to) {
            senders[to] = place[given.senders[from]];
            std::copy_n(given.vectors + 3 * from, 3, vectors_ + 3 * to);
        });
    }

    const Network<T>& network() const { return net_; }

    // The energies as the atoms were given, and by_vectors, which stays here.
    T* restore() {
        for (std::int64_t i = 0; i < given_.nodes; ++i) given_.energy[order_[i]] = net_.energy[i];
        for_edges(
            [&](std::int64_t from, std::int64_t to) { std::copy_n(net_.by_vectors + 3 * to, 3, vectors_ + 3 * from); });
        return vectors_;
    }

  private:
    template <class Number>
    class Room {
      public:
        explicit Room(std::int64_t size) : room_(new Number[size]), next_(room_.get()) {
            advise_huge_pages(next_, size * sizeof(Number));
        }

        Number* take(std::int64_t size) { return std::exchange(next_, next_ + size); }

      private:
        std::unique_ptr<Number[]> room_;
        Number* next_;
    };

    void find_order(const NetworkSystems<T>& of) {
        order_ = indices_.take(given_.nodes);
        std::vector<std::pair<std::uint64_t, std::int64_t>> places;
        for (std::int64_t begin = 0, end; begin < given_.nodes; begin = end) {
            end = std::upper_bound(of.system + begin, of.system + given_.nodes, of.system[begin]) - of.system;
            const SpaceCells<T> cells(of, begin, end, given_.cutoff / 2);
            places.clear();
            for (std::int64_t i = begin; i < end; ++i) places.emplace_back(cells.place(i), i);
            std::sort(places.begin(), places.end());
            for (std::int64_t i = begin; i < end; ++i) order_[i] = places[i - begin].second;
        }
    }

    // Calls body(edge as given, edge of the ordered network).
    template <class Body>
    void for_edges(const Body& body) const {
        std::int64_t to = 0;
        for (std::int64_t i = 0; i < given_.nodes; ++i) {
            const std::int64_t end = given_.row_ptr[order_[i] + 1];
            for (std::int64_t from = given_.row_ptr[order_[i]]; from < end; ++from) body(from, to++);
        }
    }

    const Network<T> given_;
    Network<T> net_;
    Room<std::int64_t> indices_;
    Room<T> numbers_;
    std::int64_t* order_ = nullptr;  // atom of each node
    T* vectors_ = nullptr;
};

}  // namespace sdas
