// Advice to the system about the pages of large results.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace sdas {

// Asks for huge pages under a freshly allocated array. Touching new memory by pages of 4 KiB takes longer than
// any of these kernels takes to fill it; NumPy asks for its large arrays in the same way, and PyTorch does not.
inline void advise_huge_pages(void* array, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr std::uintptr_t page = 1 << 12, smallest = 1 << 22;
    if (bytes < smallest) return;
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(array);
    const std::uintptr_t first = (address + page - 1) / page * page, last = (address + bytes) / page * page;
    // A refusal costs nothing but time.
    (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)array;
    (void)bytes;
#endif
}

// Whether the system has given all pages of an array already; where nobody knows, it has.
inline bool has_pages(const void* array, std::size_t bytes) {
#if defined(__linux__)
    const std::uintptr_t page = sysconf(_SC_PAGESIZE), address = reinterpret_cast<std::uintptr_t>(array);
    const std::uintptr_t first = address / page * page, last = (address + bytes + page - 1) / page * page;
    std::vector<unsigned char> given((last - first) / page, 1);
    (void)mincore(reinterpret_cast<void*>(first), last - first, given.data());
    return std::all_of(given.begin(), given.end(), [](unsigned char one) { return one & 1; });
#else
    (void)array;
    (void)bytes;
    return true;
#endif
}

// Has the system clear the pages of a part of a freshly allocated array now, where it would do so between the stores of
// a kernel: those past the caches are then several times slower, since what has just been cleared is in the caches.
// Each thread does this for the part that it will write. Pages that are there already stay as they are; where all are,
// asking for that takes a twentieth of the time.
inline void populate_pages(void* array, std::size_t bytes) {
#if defined(__linux__)
    constexpr int populate_write = 23;  // MADV_POPULATE_WRITE, of Linux 5.14; others refuse
    constexpr std::uintptr_t page = 1 << 12, smallest = 1 << 20;
    if (bytes < smallest || has_pages(array, bytes)) return;
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(array);
    const std::uintptr_t first = (address + page - 1) / page * page, last = (address + bytes) / page * page;
    (void)madvise(reinterpret_cast<void*>(first), last - first, populate_write);
#else
    (void)array;
    (void)bytes;
#endif
}

}  // namespace sdas
