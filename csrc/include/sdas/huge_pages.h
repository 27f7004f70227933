// Advice to the system about the pages of large results.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
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

}  // namespace sdas
