// The Python module sdas_kernels._native. Functions take addresses as integers, sizes and a thread count,
// and trust them: allocation and checks are the caller's. The global interpreter lock is not held meanwhile.
#include <pybind11/pybind11.h>

#include <cstdint>

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
}
