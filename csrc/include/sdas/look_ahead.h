// Fetches the operands of the next sample while one is worked on, some lines of the caches at a time: rows that are read
// once, in pieces, come too late if the processor has to guess them. Included only by kernel files, like vector.h.
#pragma once

#include <cstdint>

#include "sdas/vector.h"

namespace sdas::SDAS_SIMD {

template <class T>
class LookAhead {
  public:
    // Each sample calls `fetch` so many times.
    explicit LookAhead(std::int64_t times) : times_(times > 0 ? times : 1) {}

    // An array of which a sample reads one row of `size` numbers; null: none.
    void add(const T* array, std::int64_t size) {
        if (array == nullptr || size == 0) return;
        const std::int64_t bytes = sizeof(T) * size, lines = (bytes + line - 1) / line;
        rows_[count_++] = {reinterpret_cast<std::uintptr_t>(array), bytes, (lines + times_ - 1) / times_};
    }

    // Sample b is the next one.
    SDAS_INLINE void begin(std::int64_t b) {
        next_ = b;
        done_ = 0;
    }

    SDAS_INLINE void fetch() {
        for (int n = 0; n < count_; ++n) {
            const Row& row = rows_[n];
            std::uintptr_t at = row.array + next_ * row.bytes + done_ * row.lines * line;
            for (std::int64_t k = 0; k < row.lines; ++k, at += line) {
                __builtin_prefetch(reinterpret_cast<const void*>(at), 0, 2);
            }
        }
        ++done_;
    }

  private:
    static constexpr std::int64_t line = 64;

    struct Row {
        std::uintptr_t array;
        std::int64_t bytes, lines;
    };

    const std::int64_t times_;
    Row rows_[5];
    int count_ = 0;
    std::int64_t next_ = 0, done_ = 0;
};

}  // namespace sdas::SDAS_SIMD
