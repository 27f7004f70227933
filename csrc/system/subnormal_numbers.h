// Subnormal numbers, those below 1e-38 in float32 and 1e-308 in float64, as zeros.
//
// An operation on one takes a hundred times as long as on others, and saturated softmax weights give many of them.
#pragma once

#include <cstdint>

namespace sdas {

// This thread's control of floating-point arithmetic, and the flags by which subnormal operands are taken for zeros and
// subnormal results become zeros. By assembly, so that no instruction of a SIMD level that the processor may lack is
// used, and nothing is computed before or after the moment that it was written for.
class SubnormalControl {
  public:
#if defined(__x86_64__)
    using Value = std::uint32_t;
    static constexpr Value flush = 0x8040;  // of MXCSR: FTZ for results, DAZ for operands
    static Value get() {
        Value value;
        __asm__ volatile("stmxcsr %0" : "=m"(value) : : "memory");
        return value;
    }
    static void set(Value value) { __asm__ volatile("ldmxcsr %0" : : "m"(value) : "memory"); }
#elif defined(__aarch64__)
    using Value = std::uint64_t;
    static constexpr Value flush = Value{1} << 24;  // of FPCR: FZ for both
    static Value get() {
        Value value;
        __asm__ volatile("mrs %0, fpcr" : "=r"(value) : : "memory");
        return value;
    }
    static void set(Value value) { __asm__ volatile("msr fpcr, %0" : : "r"(value) : "memory"); }
#else
    using Value = int;  // no such control: they are computed with
    static constexpr Value flush = 0;
    static Value get() { return 0; }
    static void set(Value) {}
#endif
};

// In the scope of one, subnormal numbers are zeros to this thread. At its end the control is what it was: the caller's
// choice stays, and its flags of exceptions.
class SubnormalsAreZeros {
  public:
    SubnormalsAreZeros() : before_(SubnormalControl::get()), is_outermost_(outermost() == nullptr) {
        if (is_outermost_) outermost() = &before_;
        SubnormalControl::set(before_ | SubnormalControl::flush);
    }
    ~SubnormalsAreZeros() {
        SubnormalControl::set(before_);
        if (is_outermost_) outermost() = nullptr;
    }
    SubnormalsAreZeros(const SubnormalsAreZeros&) = delete;
    SubnormalsAreZeros& operator=(const SubnormalsAreZeros&) = delete;

    // What this thread's control was before the outermost scope; null outside of all.
    static const SubnormalControl::Value*& outermost() {
        static thread_local const SubnormalControl::Value* value = nullptr;
        return value;
    }

  private:
    const SubnormalControl::Value before_;
    const bool is_outermost_;
};

// In the scope of one, within scopes of the above, this thread's control is the caller's. Threads inherit the control of
// the one that starts them, and keep it: those that start in a kernel outlive it, and serve the caller too.
class CallersControl {
  public:
    CallersControl() : before_(SubnormalControl::get()) {
        if (const auto* value = SubnormalsAreZeros::outermost()) SubnormalControl::set(*value);
    }
    ~CallersControl() { SubnormalControl::set(before_); }
    CallersControl(const CallersControl&) = delete;
    CallersControl& operator=(const CallersControl&) = delete;

  private:
    const SubnormalControl::Value before_;
};

}  // namespace sdas
