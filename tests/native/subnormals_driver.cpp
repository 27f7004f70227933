// Whichever thread of the pool runs a range, subnormal numbers are zeros to it, and the caller's setting is as it was.
#include <atomic>
#include <cstdio>
#include <limits>
#include <stdexcept>

#include "system/subnormal_numbers.h"
#include "system/thread_pool.h"

namespace {

template <class T>
bool are_zeros() {
    volatile T smallest = std::numeric_limits<T>::min(), subnormal = std::numeric_limits<T>::denorm_min();
    volatile T half = smallest / 2, twice = subnormal * 2;
    return half == 0 && twice == 0;
}

template <class T>
bool are_numbers() {
    volatile T smallest = std::numeric_limits<T>::min(), subnormal = std::numeric_limits<T>::denorm_min();
    volatile T half = smallest / 2, twice = subnormal * 2;
    return half != 0 && twice != 0;
}

bool nobody_computes_with_them(int threads) {
    std::atomic<int> ranges{0}, zeros{0};
    sdas::parallel_for(1000, 1, threads, [&](std::int64_t, std::int64_t) {
        ++ranges;
        if (are_zeros<float>() && are_zeros<double>()) ++zeros;
    });
    return ranges == threads && zeros == ranges;
}

bool caller_computes_with_them() { return are_numbers<float>() && are_numbers<double>(); }

}  // namespace

int main() {
    const auto before = sdas::SubnormalControl::get();
    if (!caller_computes_with_them()) return std::puts("the driver starts with them as zeros"), 1;
    for (int threads : {1, 2, 7}) {
        if (!nobody_computes_with_them(threads))
            return std::printf("%d threads: a range computes with them\n", threads), 1;
        if (!caller_computes_with_them()) return std::printf("%d threads: the caller lost them\n", threads), 1;
        try {
            sdas::parallel_for(1000, 1, threads, [](std::int64_t, std::int64_t) { throw std::runtime_error("fails"); });
            return std::puts("an exception was lost"), 1;
        } catch (const std::runtime_error&) {
        }
        if (!caller_computes_with_them()) return std::puts("the caller lost them by an exception"), 1;
    }
    sdas::SubnormalControl::set(before | sdas::SubnormalControl::flush);
    if (!nobody_computes_with_them(2) || !are_zeros<float>()) return std::puts("the caller's own choice was lost"), 1;
    return 0;
}
