// A last look at indices before a kernel goes where they point.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

namespace bindings {

namespace py = pybind11;

// Refuses indices beyond 0..count-1, named after the object that owns them. Graphs are checked where they are made, but
// their memory may be written to by other ways, and kernels go where an index points. A pass over them takes less than a
// thousandth of a kernel's time.
inline void check_within(const std::int64_t* index, std::int64_t length, std::int64_t count, const char* name) {
    if (index == nullptr) return;
    std::uint64_t outside = 0;  // its highest bit is set by a negative number
    for (std::int64_t k = 0; k < length; ++k) {
        const auto number = static_cast<std::uint64_t>(index[k]);
        outside |= number | (static_cast<std::uint64_t>(count) - 1 - number);
    }
    if (outside >> 63 != 0) {
        throw py::value_error(std::string(name) + " must be 0.." + std::to_string(count - 1) +
                              ", but something else was written there");
    }
}

// Refuses first places that descend or are beyond 0..count.
inline void check_pointers(const std::int64_t* pointers, std::int64_t nodes, std::int64_t count, const char* name) {
    if (pointers == nullptr) return;
    check_within(pointers, nodes + 1, count + 1, name);
    bool descends = false;
    for (std::int64_t k = 0; k < nodes; ++k) descends |= pointers[k + 1] < pointers[k];
    if (!descends) return;
    throw py::value_error(std::string(name) + " must ascend, but something else was written there");
}

// The same for all that a job has of a graph.
template <class Job>
void check_graph(const Job& job) {
    check_within(job.receivers, job.edges, job.nodes, "EdgeIndex: receivers");
    check_within(job.senders, job.edges, job.nodes, "EdgeIndex: senders");
    check_pointers(job.row_ptr, job.nodes, job.edges, "EdgeIndex: row_ptr");
    check_within(job.sender_order, job.edges, job.edges, "EdgeIndex: sender_order");
    check_pointers(job.sender_ptr, job.nodes, job.edges, "EdgeIndex: sender_ptr");
}

}  // namespace bindings
