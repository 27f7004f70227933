// How the bindings read what Python gives: addresses as integers, and jobs as dictionaries of sizes and addresses.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

#include "bindings/index_checks.h"
#include "ops/neighbor_tensor_product/coupling.h"
#include "system/subnormal_numbers.h"

namespace bindings {

namespace py = pybind11;
using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

// What holds while kernels run, in every function that calls one: the global interpreter lock is not held, and subnormal
// numbers are zeros.
struct KernelScope {
    const py::gil_scoped_release release{};
    const sdas::SubnormalsAreZeros flush{};
};

// Members of a job by their names: sizes, and addresses, null where none is given.
class Members {
  public:
    explicit Members(py::dict members) : members_(std::move(members)) {}

    // Those of a member that is a job itself.
    Members of(const char* name) const { return Members(members_[name].cast<py::dict>()); }

    template <class Value>
    void size(Value& member, const char* name) const {
        member = members_[name].cast<Value>();
    }

    template <class T>
    void address(T*& member, const char* name) const {
        member = members_.contains(name) ? reinterpret_cast<T*>(members_[name].cast<Address>()) : nullptr;
    }

    template <class Job>
    void graph(Job& job) const {
        size(job.nodes, "nodes");
        size(job.edges, "edges");
        address(job.receivers, "receivers");
        address(job.senders, "senders");
        address(job.row_ptr, "row_ptr");
        address(job.sender_order, "sender_order");
        address(job.sender_ptr, "sender_ptr");
        check_graph(job);
    }

  private:
    const py::dict members_;
};

template <class T>
void read(sdas::Coupling<T>& coupling, const Members& members) {
    members.size(coupling.entries, "entries");
    members.address(coupling.row, "entry_row");
    members.address(coupling.pair, "entry_pair");
    members.address(coupling.coefficient, "entry_coefficient");
}

}  // namespace bindings
