// Room for the vectors that a kernel needs while it runs, from memory that each thread keeps: for a small system, asking the
// system's allocator for it takes as long as the arithmetic. Included only by kernel files, like vector.h.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "simd/vector.h"

namespace sdas::SDAS_SIMD {

// Pieces of one block, one after the other; when the last one is given back it starts anew. What does not fit comes from
// the system.
class KeptMemory {
  public:
    static KeptMemory& of_thread() {
        static thread_local KeptMemory memory;
        return memory;
    }

    void* take(std::size_t bytes) {
        bytes = (bytes + alignment - 1) / alignment * alignment;
        if (used_ + bytes > size) return ::operator new(bytes, std::align_val_t(alignment));
        void* piece = block_ + used_;
        used_ += bytes;
        ++pieces_;
        return piece;
    }

    void give_back(void* piece) {
        if (piece < block_ || piece >= block_ + size) {
            ::operator delete(piece, std::align_val_t(alignment));
        } else if (--pieces_ == 0) {
            used_ = 0;
        }
    }

    KeptMemory(const KeptMemory&) = delete;

  private:
    static constexpr std::size_t alignment = 64, size = 1 << 20;

    KeptMemory() : block_(static_cast<char*>(::operator new(size, std::align_val_t(alignment)))) {}
    ~KeptMemory() { ::operator delete(block_, std::align_val_t(alignment)); }

    char* const block_;
    std::size_t used_ = 0, pieces_ = 0;
};

template <class V>
struct KeptAllocator {
    using value_type = V;

    KeptAllocator() = default;
    template <class Other>
    KeptAllocator(const KeptAllocator<Other>&) {}

    V* allocate(std::size_t count) { return static_cast<V*>(KeptMemory::of_thread().take(count * sizeof(V))); }
    void deallocate(V* piece, std::size_t) { KeptMemory::of_thread().give_back(piece); }

    bool operator==(const KeptAllocator&) const { return true; }
    bool operator!=(const KeptAllocator&) const { return false; }
};

// A sanitizer sees what goes astray between pieces that the system gave.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
template <class T>
using Vectors = std::vector<Vector<T>>;
#else
template <class T>
using Vectors = std::vector<Vector<T>, KeptAllocator<Vector<T>>>;
#endif

}  // namespace sdas::SDAS_SIMD
