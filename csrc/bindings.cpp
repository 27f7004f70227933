// The Python module sdas_kernels._native. Functions take addresses as integers, sizes and a thread count,
// and trust them: allocation and checks are the caller's. The global interpreter lock is not held meanwhile.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <type_traits>

#include "sdas/neighbor_tensor_product.h"
#include "sdas/spherical_harmonics.h"

namespace {

namespace py = pybind11;
using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

template <class T>
void spherical_harmonics_forward(Address vectors, Address harmonics, std::int64_t count, int lmax, bool normalize,
                                 Address scale, int threads) {
    sdas::spherical_harmonics_forward<T>(
        {count, lmax, normalize, at<T>(scale), at<T>(vectors), nullptr, nullptr, at<T>(harmonics), nullptr}, threads);
}

template <class T>
void spherical_harmonics_backward(Address grad, Address vectors, Address grad_vectors, std::int64_t count, int lmax,
                                  bool normalize, Address scale, int threads) {
    sdas::spherical_harmonics_backward<T>(
        {count, lmax, normalize, at<T>(scale), at<T>(vectors), at<T>(grad), nullptr, nullptr, at<T>(grad_vectors)},
        threads);
}

template <class T>
void spherical_harmonics_double_backward(Address grad_grad, Address grad, Address vectors, Address grad_of_grad,
                                         Address grad_of_vectors, std::int64_t count, int lmax, bool normalize,
                                         Address scale, int threads) {
    sdas::spherical_harmonics_double_backward<T>(
        {count, lmax, normalize, at<T>(scale), at<T>(vectors), at<T>(grad), at<T>(grad_grad), at<T>(grad_of_grad),
         at<T>(grad_of_vectors)},
        threads);
}

// Sizes and addresses by the names of the struct's members; an address that is not given is null.
template <class T>
sdas::NeighborTensorProduct<T> neighbor_tensor_product(const py::dict& members) {
    const auto size = [&](const char* name) { return members[name].cast<std::int64_t>(); };
    const auto address = [&](auto*& pointer, const char* name) {
        using Pointer = std::remove_reference_t<decltype(pointer)>;
        pointer = members.contains(name) ? reinterpret_cast<Pointer>(members[name].cast<Address>()) : nullptr;
    };
    sdas::NeighborTensorProduct<T> job{};
    job.nodes = size("nodes");
    job.edges = size("edges");
    job.lmax = static_cast<int>(size("lmax"));
    job.m1 = static_cast<int>(size("m1"));
    job.rows = static_cast<int>(size("rows"));
    job.channels = static_cast<int>(size("channels"));
    job.heads = static_cast<int>(size("heads"));
    address(job.receivers, "receivers");
    address(job.senders, "senders");
    address(job.row_ptr, "row_ptr");
    address(job.sender_order, "sender_order");
    address(job.sender_ptr, "sender_ptr");
    address(job.row_start, "row_start");
    address(job.row_pair, "row_pair");
    address(job.row_coefficient, "row_coefficient");
    address(job.pair_start, "pair_start");
    address(job.pair_row, "pair_row");
    address(job.pair_coefficient, "pair_coefficient");
    address(job.weight, "weight");
    address(job.weight_step, "weight_step");
    address(job.harmonics, "harmonics");
    address(job.harmonics_step, "harmonics_step");
    address(job.value, "value");
    address(job.value_step, "value_step");
    address(job.z, "z");
    address(job.out_z, "out_z");
    address(job.out_value, "out_value");
    address(job.out_weight, "out_weight");
    address(job.out_weight_step, "out_weight_step");
    address(job.out_harmonics, "out_harmonics");
    return job;
}

template <class T>
void def_neighbor_tensor_product(py::module_& module, const std::string& dtype) {
    using Run = void (*)(const sdas::NeighborTensorProduct<T>&, int);
    const auto def = [&](const std::string& name, Run run) {
        module.def(("neighbor_tensor_product_" + name + "_" + dtype).c_str(), [run](const py::dict& members, int threads) {
            const auto job = neighbor_tensor_product<T>(members);
            const py::gil_scoped_release release;
            run(job, threads);
        });
    };
    def("tiles", &sdas::neighbor_tensor_product_tiles<T>);
    def("edge_dot", &sdas::neighbor_tensor_product_edge_dot<T>);
    def("to_senders", &sdas::neighbor_tensor_product_to_senders<T>);
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    const auto release = py::call_guard<py::gil_scoped_release>();
    module.attr("version") = SDAS_VERSION;
    module.def("simd", [] { return sdas::name(sdas::simd()); }, "SIMD level of the kernels: baseline, avx2 or avx512");
    module.attr("spherical_harmonics_max_degree") = sdas::spherical_harmonics_max_degree;
    module.def("spherical_harmonics_forward_float32", &spherical_harmonics_forward<float>, release);
    module.def("spherical_harmonics_forward_float64", &spherical_harmonics_forward<double>, release);
    module.def("spherical_harmonics_backward_float32", &spherical_harmonics_backward<float>, release);
    module.def("spherical_harmonics_backward_float64", &spherical_harmonics_backward<double>, release);
    module.def("spherical_harmonics_double_backward_float32", &spherical_harmonics_double_backward<float>, release);
    module.def("spherical_harmonics_double_backward_float64", &spherical_harmonics_double_backward<double>, release);
    module.attr("neighbor_tensor_product_max_degree") = sdas::neighbor_tensor_product_max_degree;
    def_neighbor_tensor_product<float>(module, "float32");
    def_neighbor_tensor_product<double>(module, "float64");
}
