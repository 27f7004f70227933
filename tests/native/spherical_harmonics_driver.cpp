// Runs every kernel of the spherical harmonics on arrays of exactly the needed size, from several threads at
// once, for a sanitizer to watch. Exits with 1 if threads change a bit, if an exception of a task is lost, or if
// the pool does not work in a forked child.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "sdas/spherical_harmonics.h"

namespace {

template <class T>
struct Arrays {
    std::int64_t count;
    int lmax;
    std::vector<T> scale, vectors, grad, grad_grad;

    Arrays(std::int64_t n, int l) : count(n), lmax(l) {
        const std::size_t M = (l + 1) * (l + 1);
        unsigned state = 1;
        const auto random = [&] {
            state = state * 1664525u + 1013904223u;
            return T(state >> 8) / T(1 << 23) - 1;
        };
        for (auto [array, size] : {std::pair{&scale, std::size_t((l + 1) * (l + 2) / 2)}, {&vectors, std::size_t(3 * n)},
                                   {&grad, M * n}, {&grad_grad, std::size_t(3 * n)}}) {
            array->resize(size);
            for (T& x : *array) x = random();
        }
    }

    // Results of the three kernels, one after another.
    std::vector<T> run(bool normalize, int threads) const {
        const std::size_t M = (lmax + 1) * (lmax + 1);
        std::vector<T> values(M * count), gradient(3 * count), slopes(M * count), second(3 * count);
        sdas::SphericalHarmonics<T> job{count,       lmax,         normalize,         scale.data(),  vectors.data(),
                                        grad.data(), grad_grad.data(), values.data(), gradient.data()};
        sdas::spherical_harmonics_forward(job, threads);
        sdas::spherical_harmonics_backward(job, threads);
        job.harmonics = slopes.data();
        job.gradient = second.data();
        sdas::spherical_harmonics_double_backward(job, threads);
        for (const auto& more : {gradient, slopes, second}) values.insert(values.end(), more.begin(), more.end());
        return values;
    }
};

template <class T>
bool same_for_every_thread_count(std::int64_t count, int lmax) {
    const Arrays<T> arrays(count, lmax);
    for (bool normalize : {true, false}) {
        const std::vector<T> expected = arrays.run(normalize, 1);
        for (int threads : {2, 5}) {
            const std::vector<T> found = arrays.run(normalize, threads);
            if (std::memcmp(found.data(), expected.data(), found.size() * sizeof(T)) != 0) return false;
        }
    }
    return true;
}

bool exception_arrives() {
    try {
        sdas::parallel_for(64 * 4, 64, 4, [](std::int64_t begin, std::int64_t) {
            if (begin == 128) throw std::runtime_error("expected");
        });
    } catch (const std::runtime_error&) {
        return true;
    }
    return false;
}

bool works_in_child() {
    const pid_t child = fork();
    if (child == 0) _exit(same_for_every_thread_count<double>(60001, 2) ? 0 : 1);
    int status = 1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool fail(const char* what) {
    std::fprintf(stderr, "failed: %s\n", what);
    return false;
}

}  // namespace

// Argument: with-fork or without-fork, the latter for sanitizers that do not follow a fork.
int main(int, char** arguments) {
    bool good = true;
    for (std::int64_t count : {0, 1, 7, 17, 60001}) {  // the last one is worth several threads
        for (int lmax = 0; lmax <= sdas::spherical_harmonics_max_degree; ++lmax) {
            good &= same_for_every_thread_count<float>(count, lmax) || fail("threads change float32 results");
            good &= same_for_every_thread_count<double>(count, lmax) || fail("threads change float64 results");
        }
    }
    bool concurrent[2] = {};
    std::thread other([&] { concurrent[1] = same_for_every_thread_count<float>(60001, 2); });
    concurrent[0] = same_for_every_thread_count<float>(60001, 2);
    other.join();
    good &= (concurrent[0] && concurrent[1]) || fail("two callers at once");
    good &= exception_arrives() || fail("exception lost");
    if (std::strcmp(arguments[1], "with-fork") == 0) good &= works_in_child() || fail("forked child");
    sdas::ThreadPool::instance().shutdown();
    return good ? 0 : 1;
}
