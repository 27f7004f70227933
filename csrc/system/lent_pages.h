// Memory that stays at hand as long as nobody else needs it.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sdas {

// Lets the system take the pages of an array once it is short of memory. A page that was taken comes back cleared when it
// is written; the others are written without the system having to give and clear them. Only whole huge pages are lent, so
// that they stay whole. Returns whether the system knows such loans.
inline bool lend_pages(void* array, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_FREE)
    constexpr std::uintptr_t page = 1 << 21;
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(array);
    const std::uintptr_t first = (address + page - 1) / page * page, last = (address + bytes) / page * page;
    return first >= last || madvise(reinterpret_cast<void*>(first), last - first, MADV_FREE) == 0;
#else
    (void)array;
    (void)bytes;
    return false;
#endif
}

}  // namespace sdas
