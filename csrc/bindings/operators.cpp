// The Python module sdas_kernels._native. Functions take addresses as integers, sizes and a thread count,
// and trust them: allocation and checks are the caller's. The global interpreter lock is not held meanwhile.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/members.h"
#include "ops/edge_softmax/edge_softmax.h"
#include "ops/neighbor_attention/neighbor_attention.h"
#include "ops/neighbor_tensor_product/neighbor_tensor_product.h"
#include "ops/radial_basis/radial_basis.h"
#include "ops/spherical_harmonics/spherical_harmonics.h"
#include "ops/tensor_product/dense.h"
#include "ops/tensor_product/tensor_product.h"
#include "ops/tensor_product_conv/tensor_product_conv.h"
#include "system/huge_pages.h"
#include "system/lent_pages.h"
#include "system/openmp.h"
#include "system/subnormal_numbers.h"

namespace {

namespace py = pybind11;
using namespace bindings;

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
    sdas::spherical_harmonics_double_backward<T>({count, lmax, normalize, at<T>(scale), at<T>(vectors), at<T>(grad),
                                                  at<T>(grad_grad), at<T>(grad_of_grad), at<T>(grad_of_vectors)},
                                                 threads);
}

template <class T>
sdas::RadialBasis<T> radial_basis_of(std::int64_t count, int functions, int exponent, double cutoff, Address lengths) {
    sdas::RadialBasis<T> job{};
    job.count = count;
    job.functions = functions;
    job.exponent = exponent;
    job.cutoff = cutoff;
    job.lengths = at<T>(lengths);
    return job;
}

template <class T>
void radial_basis_forward(std::int64_t count, int functions, int exponent, double cutoff, Address lengths,
                          Address radial, Address envelope, int threads) {
    sdas::RadialBasis<T> job = radial_basis_of<T>(count, functions, exponent, cutoff, lengths);
    job.radial = at<T>(radial);
    job.envelope = at<T>(envelope);
    sdas::radial_basis_forward<T>(job, threads);
}

template <class T>
void radial_basis_backward(std::int64_t count, int functions, int exponent, double cutoff, Address lengths,
                           Address grad, Address grad_envelope, Address by_lengths, int threads) {
    sdas::RadialBasis<T> job = radial_basis_of<T>(count, functions, exponent, cutoff, lengths);
    job.grad = at<T>(grad);
    job.grad_envelope = at<T>(grad_envelope);
    job.by_lengths = at<T>(by_lengths);
    sdas::radial_basis_backward<T>(job, threads);
}

template <class T>
void radial_basis_double_backward(std::int64_t count, int functions, int exponent, double cutoff, Address lengths,
                                  Address grad, Address grad_envelope, Address grad_grad, Address by_grad,
                                  Address by_grad_envelope, Address by_lengths, int threads) {
    sdas::RadialBasis<T> job = radial_basis_of<T>(count, functions, exponent, cutoff, lengths);
    job.grad = at<T>(grad);
    job.grad_envelope = at<T>(grad_envelope);
    job.grad_grad = at<T>(grad_grad);
    job.radial = at<T>(by_grad);
    job.envelope = at<T>(by_grad_envelope);
    job.by_lengths = at<T>(by_lengths);
    sdas::radial_basis_double_backward<T>(job, threads);
}

template <class T>
void read(sdas::NeighborTensorProduct<T>& job, const Members& members) {
    members.graph(job);
    members.size(job.lmax, "lmax");
    members.size(job.m1, "m1");
    members.size(job.rows, "rows");
    members.size(job.channels, "channels");
    members.size(job.heads, "heads");
    read(job.coupling, members);
    members.address(job.weight, "weight");
    members.address(job.weight_step, "weight_step");
    members.address(job.harmonics, "harmonics");
    members.address(job.harmonics_step, "harmonics_step");
    members.address(job.value, "value");
    members.address(job.value_step, "value_step");
    members.address(job.z, "z");
    members.address(job.out_z, "out_z");
    members.address(job.out_value, "out_value");
    members.address(job.out_weight, "out_weight");
    members.address(job.out_weight_step, "out_weight_step");
    members.address(job.out_harmonics, "out_harmonics");
}

template <class T>
void read(sdas::EdgeSoftmax<T>& job, const Members& members) {
    members.graph(job);
    members.size(job.heads, "heads");
    members.size(job.key_channels, "key_channels");
    members.size(job.places, "places");
    members.address(job.query, "query");
    members.address(job.query_step, "query_step");
    members.address(job.key, "key");
    members.address(job.key_step, "key_step");
    members.address(job.sink, "sink");
    members.address(job.sink_step, "sink_step");
    members.address(job.place, "place");
    members.address(job.place_step, "place_step");
    members.address(job.envelope, "envelope");
    members.address(job.envelope_step, "envelope_step");
    members.address(job.grad, "grad");
    members.address(job.alpha, "alpha");
    members.address(job.by_logit, "by_logit");
    members.address(job.by_logit_step, "by_logit_step");
    members.address(job.by_query, "by_query");
    members.address(job.by_key, "by_key");
    members.address(job.by_sink, "by_sink");
    members.address(job.by_place, "by_place");
    members.address(job.by_envelope, "by_envelope");
}

template <class T>
void read(sdas::NeighborAttentionOperands<T>& operands, const Members& members, const std::string& suffix) {
    const auto address = [&](const T*& member, const char* name) { members.address(member, (name + suffix).c_str()); };
    address(operands.query, "query");
    address(operands.key, "key");
    address(operands.sink, "sink");
    address(operands.value, "value");
    address(operands.radial_gain, "radial_gain");
    address(operands.harmonics, "harmonics");
    address(operands.radial, "radial");
    address(operands.envelope, "envelope");
}

template <class T>
void read(sdas::NeighborAttention<T>& job, const Members& members) {
    members.size(job.nodes, "nodes");
    members.size(job.edges, "edges");
    members.size(job.lmax, "lmax");
    members.size(job.m1, "m1");
    members.size(job.rows, "rows");
    members.size(job.channels, "channels");
    members.size(job.heads, "heads");
    members.size(job.key_channels, "key_channels");
    members.size(job.radials, "radials");
    members.address(job.senders, "senders");
    members.address(job.row_ptr, "row_ptr");
    check_within(job.senders, job.edges, job.nodes, "EdgeIndex: senders");
    check_pointers(job.row_ptr, job.nodes, job.edges, "EdgeIndex: row_ptr");
    read(job.coupling, members);
    read(job.at, members, "");
    read(job.step, members, "_step");
    members.address(job.grad, "grad");
    members.address(job.out, "out");
    members.address(job.by_query, "by_query");
    members.address(job.by_key, "by_key");
    members.address(job.by_sink, "by_sink");
    members.address(job.by_value, "by_value");
    members.address(job.by_radial_gain, "by_radial_gain");
    members.address(job.by_harmonics, "by_harmonics");
    members.address(job.by_radial, "by_radial");
    members.address(job.by_envelope, "by_envelope");
}

template <class T>
void read(sdas::TensorProduct<T>& job, const Members& members) {
    members.size(job.batch, "batch");
    members.size(job.block, "block");
    members.size(job.dim1, "dim1");
    members.size(job.dim2, "dim2");
    members.size(job.dim_out, "dim_out");
    members.size(job.weight_numel, "weight_numel");
    members.size(job.shared, "shared");
    members.size(job.lane_views, "lane_views");
    members.size(job.lane_rows, "lane_rows");
    members.size(job.out_views, "out_views");
    members.size(job.uniforms, "uniforms");
    members.size(job.uniform_rows, "uniform_rows");
    members.size(job.paths, "paths");
    members.size(job.matrices, "matrices");
    members.size(job.gaps, "gaps");
    members.size(job.max_mul, "max_mul");
    members.size(job.work, "work");
    members.address(job.lane_view, "lane_view");
    members.address(job.out_view, "out_view");
    members.address(job.row_view, "row_view");
    members.address(job.uniform, "uniform");
    members.address(job.gap, "gap");
    members.address(job.path, "path");
    members.address(job.path_start, "path_start");
    members.address(job.coupling, "coupling");
    members.address(job.index, "index");
    members.address(job.values, "values");
    members.address(job.x, "x");
    members.address(job.y, "y");
    members.address(job.weight, "weight");
    members.address(job.grad, "grad");
    members.address(job.x_step, "x_step");
    members.address(job.y_step, "y_step");
    members.address(job.weight_step, "weight_step");
    members.address(job.out, "out");
    members.address(job.by_x, "by_x");
    members.address(job.by_y, "by_y");
    members.address(job.by_weight, "by_weight");
    members.address(job.partial, "partial");
}

template <class T>
void read(sdas::TensorProductDense<T>& job, const Members& members) {
    read(job.inner, members.of("inner")), read(job.outer, members.of("outer"));
    members.size(job.matrices, "matrices");
    members.size(job.parts, "parts");
    members.size(job.block, "block");
    members.size(job.span, "span");
    members.size(job.by_matrices, "by_matrices");
    members.size(job.numbers, "numbers");
    members.address(job.matrix, "matrix"), members.address(job.part, "part");
    members.address(job.weight, "weight");
    members.address(job.weight_step, "weight_step");
    members.address(job.out, "out");
    members.address(job.by_x, "by_x");
    members.address(job.by_y, "by_y");
    members.address(job.by_weight, "by_weight");
    members.address(job.partial, "partial");
}

template <class T>
void read(sdas::TensorProductConv<T>& job, const Members& members) {
    members.size(job.nodes, "nodes");
    members.size(job.edges, "edges");
    members.size(job.block, "block");
    members.size(job.second_order, "second_order");
    members.size(job.shared, "shared");
    members.size(job.dim2, "dim2");
    members.size(job.weight_numel, "weight_numel");
    members.size(job.work, "work");
    members.size(job.in_dim, "in_dim");
    members.size(job.in_entries, "in_entries");
    members.size(job.in_width, "in_width");
    members.size(job.out_dim, "out_dim");
    members.size(job.out_entries, "out_entries");
    members.size(job.out_width, "out_width");
    members.size(job.paths, "paths");
    members.size(job.pairs, "pairs");
    members.address(job.in_entry, "in_entry");
    members.address(job.out_entry, "out_entry");
    members.address(job.path, "path");
    members.address(job.term_start, "term_start");
    members.address(job.term_j, "term_j");
    members.address(job.term_value, "term_value");
    members.address(job.pointers, "pointers");
    members.address(job.order, "order");
    members.address(job.neighbors, "neighbors");
    check_pointers(job.pointers, job.nodes, job.edges, "EdgeIndex: row_ptr or sender_ptr");
    check_within(job.order, job.edges, job.edges, "EdgeIndex: sender_order");
    std::int64_t sources = 0;  // a block of nodes has neighbors outside
    members.size(sources, "sources");
    check_within(job.neighbors, job.edges, sources, "EdgeIndex: senders or receivers");
    members.address(job.in, "in");
    members.address(job.in_step, "in_step");
    members.address(job.grad, "grad");
    members.address(job.y, "y");
    members.address(job.y_step, "y_step");
    members.address(job.weight, "weight");
    members.address(job.weight_step, "weight_step");
    members.address(job.out, "out");
    members.address(job.by_y, "by_y");
    members.address(job.by_weight, "by_weight");
    members.address(job.partial, "partial");
}

// Calls body(i) on each of as many threads of the process's OpenMP runtime, or once where there is no such runtime.
template <class Body>
void on_threads(std::size_t threads, const Body& body) {
    const py::gil_scoped_release release;
    if (threads > 1 && sdas::OpenMp::available()) {
        sdas::OpenMp::run(static_cast<int>(threads), body);
    } else {
        body(0);
    }
}

// Arithmetic control of those threads, as `set_controls` takes it back.
std::vector<std::uint64_t> controls(std::size_t threads) {
    std::vector<std::uint64_t> found(threads, sdas::SubnormalControl::get());
    on_threads(threads, [&](int i) { found[i] = sdas::SubnormalControl::get(); });
    return found;
}

void set_controls(const std::vector<std::uint64_t>& wanted) {
    on_threads(wanted.size(),
               [&](int i) { sdas::SubnormalControl::set(static_cast<sdas::SubnormalControl::Value>(wanted[i])); });
}

// name(members, threads)
template <class Job>
void def_job(py::module_& module, const std::string& name, void (*run)(const Job&, int)) {
    module.def(name.c_str(), [run](const py::dict& given, int threads) {
        Job job{};
        read(job, Members(given));
        const KernelScope scope;
        run(job, threads);
    });
}

template <class T>
void def_neighbor_attention(py::module_& module, const std::string& dtype) {
    def_job(module, "neighbor_attention_forward_" + dtype, &sdas::neighbor_attention_forward<T>);
    def_job(module, "neighbor_attention_backward_" + dtype, &sdas::neighbor_attention_backward<T>);
    def_job(module, "neighbor_attention_double_backward_" + dtype, &sdas::neighbor_attention_double_backward<T>);
    def_job(module, "neighbor_tensor_product_tiles_" + dtype, &sdas::neighbor_tensor_product_tiles<T>);
    def_job(module, "neighbor_tensor_product_edge_dot_" + dtype, &sdas::neighbor_tensor_product_edge_dot<T>);
    def_job(module, "neighbor_tensor_product_to_senders_" + dtype, &sdas::neighbor_tensor_product_to_senders<T>);
    def_job(module, "edge_softmax_forward_" + dtype, &sdas::edge_softmax_forward<T>);
    def_job(module, "edge_softmax_backward_" + dtype, &sdas::edge_softmax_backward<T>);
    def_job(module, "edge_softmax_double_backward_" + dtype, &sdas::edge_softmax_double_backward<T>);
}

template <class T>
void def_radial_basis(py::module_& module, const std::string& dtype) {
    const auto scope = py::call_guard<KernelScope>();
    module.def(("radial_basis_forward_" + dtype).c_str(), &radial_basis_forward<T>, scope);
    module.def(("radial_basis_backward_" + dtype).c_str(), &radial_basis_backward<T>, scope);
    module.def(("radial_basis_double_backward_" + dtype).c_str(), &radial_basis_double_backward<T>, scope);
}

template <class T>
void def_tensor_product(py::module_& module, const std::string& dtype) {
    def_job(module, "tensor_product_forward_" + dtype, &sdas::tensor_product_forward<T>);
    def_job(module, "tensor_product_backward_" + dtype, &sdas::tensor_product_backward<T>);
    def_job(module, "tensor_product_double_backward_" + dtype, &sdas::tensor_product_double_backward<T>);
    def_job(module, "tensor_product_dense_forward_" + dtype, &sdas::tensor_product_dense_forward<T>);
    def_job(module, "tensor_product_dense_backward_" + dtype, &sdas::tensor_product_dense_backward<T>);
    def_job(module, "tensor_product_dense_double_backward_" + dtype, &sdas::tensor_product_dense_double_backward<T>);
    def_job(module, "tensor_product_conv_pack_" + dtype, &sdas::tensor_product_conv_pack<T>);
    def_job(module, "tensor_product_conv_reduce_" + dtype, &sdas::tensor_product_conv_reduce<T>);
    def_job(module, "tensor_product_conv_edge_" + dtype, &sdas::tensor_product_conv_edge<T>);
}

}  // namespace

void bind_network(py::module_& module);
extern const char* const sdas_sources;  // made by sdas_kernels/native_sources.py

PYBIND11_MODULE(_native, module) {
    const auto scope = py::call_guard<KernelScope>();
    sdas::OpenMp::forked();  // to notice every fork from here on
    module.attr("version") = SDAS_VERSION;
    module.attr("sources") = sdas_sources;
    module.def("simd", [] { return sdas::name(sdas::simd()); }, "SIMD level of the kernels: baseline, avx2 or avx512");
    module.def(
        "lend_pages", [](Address array, std::size_t bytes) { return sdas::lend_pages(at<char>(array), bytes); },
        "Lets the system take an array's pages when it needs memory; whether it knows that");
    module.def(
        "has_pages", [](Address array, std::size_t bytes) { return sdas::has_pages(at<char>(array), bytes); },
        "Whether the system has given an array's pages already");
    module.attr("subnormals_are_zeros") = sdas::SubnormalControl::flush;
    module.def("controls", &controls, "Arithmetic control of as many threads of the OpenMP runtime");
    module.def("set_controls", &set_controls, "Gives each of these threads its control");
    module.attr("spherical_harmonics_max_degree") = sdas::spherical_harmonics_max_degree;
    module.def("spherical_harmonics_forward_float32", &spherical_harmonics_forward<float>, scope);
    module.def("spherical_harmonics_forward_float64", &spherical_harmonics_forward<double>, scope);
    module.def("spherical_harmonics_backward_float32", &spherical_harmonics_backward<float>, scope);
    module.def("spherical_harmonics_backward_float64", &spherical_harmonics_backward<double>, scope);
    module.def("spherical_harmonics_double_backward_float32", &spherical_harmonics_double_backward<float>, scope);
    module.def("spherical_harmonics_double_backward_float64", &spherical_harmonics_double_backward<double>, scope);
    module.attr("neighbor_tensor_product_max_degree") = sdas::neighbor_max_degree;
    def_neighbor_attention<float>(module, "float32");
    def_neighbor_attention<double>(module, "float64");
    def_radial_basis<float>(module, "float32");
    def_radial_basis<double>(module, "float64");
    def_tensor_product<float>(module, "float32");
    def_tensor_product<double>(module, "float64");
    bind_network(module);
}
