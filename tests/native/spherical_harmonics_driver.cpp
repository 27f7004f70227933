// Runs every kernel of the spherical harmonics on arrays of exactly the needed size, from several threads at once, for
// a sanitizer to watch. Exits with 1 if threads change a bit, a result is not a number, an exception of a task is lost,
// or the pool does not work in a forked child.
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>

#include "ops/spherical_harmonics/spherical_harmonics.h"

#include "driver.h"

namespace {

template <class T>
struct Arrays {
    driver::Operands<T> operands;
    std::int64_t count, harmonics;
    sdas::SphericalHarmonics<T> job{};

    Arrays(std::int64_t count, int lmax) : count(count), harmonics(count * (lmax + 1) * (lmax + 1)) {
        job.count = count, job.lmax = lmax;
        job.scale = operands.operand((lmax + 1) * (lmax + 2) / 2);
        job.vectors = operands.operand(3 * count);
        job.grad = operands.operand(harmonics);
        job.grad_grad = operands.operand(3 * count);
    }

    // All results of the three rungs.
    std::vector<T> run(bool normalize, int threads) const {
        driver::Results<T> results;
        sdas::SphericalHarmonics<T> one = job;
        one.normalize = normalize;
        one.harmonics = results.result(harmonics);
        sdas::spherical_harmonics_forward(one, threads);
        one.gradient = results.result(3 * count);
        sdas::spherical_harmonics_backward(one, threads);
        one.harmonics = results.result(harmonics), one.gradient = results.result(3 * count);
        sdas::spherical_harmonics_double_backward(one, threads);
        return results.all();
    }
};

template <class T>
bool good(std::int64_t count, int lmax) {
    const Arrays<T> arrays(count, lmax);
    const auto check = [&](bool normalize) {
        return driver::good([&](int threads) { return arrays.run(normalize, threads); });
    };
    return check(true) & check(false);
}

bool exception_arrives() {
    try {
        sdas::parallel_for(64 * 4, 64, 4, [](std::int64_t begin, std::int64_t) {
            if (begin == 128) throw std::runtime_error("expected");
        });
    } catch (const std::runtime_error&) {
        return true;
    }
    return driver::fail("exception lost");
}

bool works_in_child() {
    const pid_t child = fork();
    if (child == 0) _exit(good<double>(60001, 2) ? 0 : 1);
    int status = 1;
    waitpid(child, &status, 0);
    return (WIFEXITED(status) && WEXITSTATUS(status) == 0) || driver::fail("forked child");
}

}  // namespace

// Argument: with-fork or without-fork, the latter for sanitizers that do not follow a fork.
int main(int, char** arguments) {
    bool result = true;
    for (std::int64_t count : {0, 1, 7, 17, 60001}) {  // the last one is worth several threads
        for (int lmax = 0; lmax <= sdas::spherical_harmonics_max_degree; ++lmax) {
            result &= good<float>(count, lmax) & good<double>(count, lmax);
        }
    }
    result &= driver::concurrently([] { return good<float>(60001, 2); }) & exception_arrives();
    if (std::strcmp(arguments[1], "with-fork") == 0) result &= works_in_child();
    return driver::finish(result);
}
