// Runs every kernel of the radial basis on arrays of exactly the needed size, by several numbers of threads, with and
// without the envelope, for a sanitizer to watch. Exits with 1 if threads change a bit or a result is not a number.
#include "ops/radial_basis/radial_basis.h"

#include "driver.h"

namespace {

template <class T>
struct Arrays {
    driver::Operands<T> operands;
    sdas::RadialBasis<T> job{};

    Arrays(std::int64_t count, int functions, int exponent) {
        constexpr T cutoff = 5;
        T* lengths = operands.positive(count, T(1.2) * cutoff);  // beyond the cutoff too
        const T limits[] = {0, cutoff, cutoff / 2};
        for (int i = 0; i < 3 && i < count; ++i) lengths[i] = limits[i];
        job.count = count, job.functions = functions, job.exponent = exponent, job.cutoff = cutoff;
        job.lengths = lengths;
        job.grad = operands.operand(count * functions);
        job.grad_envelope = operands.operand(count);
        job.grad_grad = operands.operand(count);
    }

    // All results of the three rungs.
    std::vector<T> run(bool with_envelope, int threads) const {
        driver::Results<T> results;
        sdas::RadialBasis<T> one = job;
        const auto values = [&] {
            one.radial = results.result(job.count * job.functions);
            if (with_envelope) one.envelope = results.result(job.count);
        };
        if (!with_envelope) one.grad_envelope = nullptr;
        values();
        sdas::radial_basis_forward(one, threads);
        one.by_lengths = results.result(job.count);
        sdas::radial_basis_backward(one, threads);
        values();
        one.by_lengths = results.result(job.count);
        sdas::radial_basis_double_backward(one, threads);
        return results.all();
    }
};

template <class T>
bool good(std::int64_t count, int functions, int exponent) {
    const Arrays<T> arrays(count, functions, exponent);
    const auto check = [&](bool with_envelope) {
        return driver::good([&](int threads) { return arrays.run(with_envelope, threads); });
    };
    return check(false) & check(true);
}

template <class T>
bool all_sizes() {
    bool result = true;
    for (std::int64_t count : {0, 1, 7, 17, 1001}) {
        for (int functions : {1, 3, 8}) result &= good<T>(count, functions, 6);
    }
    return result & good<T>(60001, 11, 3);  // work for several threads
}

}  // namespace

int main() {
    const bool result = all_sizes<float>() & all_sizes<double>();
    return driver::finish(result & driver::concurrently([] { return good<float>(60001, 5, 6); }));
}
