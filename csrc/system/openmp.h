// The threads of the OpenMP runtime that the process has already, PyTorch's as a rule.
//
// Its workers keep spinning for some milliseconds after a parallel region. Threads of our own would share the cores
// with them; so where such a runtime is found, work is given to its workers, which also start at once. The runtime is
// looked up by name, so that the extension neither needs one nor brings a second one with it.
#pragma once

#include <pthread.h>

#include <atomic>
#include <exception>
#include <mutex>

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace sdas {

class OpenMp {
  public:
    // Whether there is a runtime that can be used here. After a fork the child's has lost its workers, and does not know.
    static bool available() { return parallel() && number() && count() && !forked(); }

    // Whether this process was forked after the first call. The extension calls it when it is loaded: others may set
    // the runtime's workers going before the first kernel runs.
    static bool forked() { return fork_flag(); }

    // Calls body(i) once for every i in [0, tasks), on up to `tasks` threads, the calling one included. A thread does the
    // same ones from call to call, so what it made is in its cache when it goes on with it.
    // Rethrows the first exception of a body after all have ended.
    template <class Body>
    static void run(int tasks, const Body& body) {
        Region<Body> region{&body, tasks};
        parallel()([](void* data) { static_cast<Region<Body>*>(data)->work(); }, &region, static_cast<unsigned>(tasks),
                   0);
        if (region.error) std::rethrow_exception(region.error);
    }

  private:
    using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
    using Number = int (*)();

    template <class Body>
    struct Region {
        const Body* body;
        int tasks;
        std::mutex mutex{};
        std::exception_ptr error = nullptr;

        void work() {
            const int threads = count()();
            for (int i = number()(); i < tasks; i += threads) {
                try {
                    (*body)(i);
                } catch (...) {
                    std::lock_guard<std::mutex> lock(mutex);
                    if (!error) error = std::current_exception();
                }
            }
        }
    };

    static Parallel parallel() {
        static const auto found = reinterpret_cast<Parallel>(look_up("GOMP_parallel"));
        return found;
    }

    static Number number() {
        static const auto found = reinterpret_cast<Number>(look_up("omp_get_thread_num"));
        return found;
    }

    static Number count() {
        static const auto found = reinterpret_cast<Number>(look_up("omp_get_num_threads"));
        return found;
    }

    static void* look_up(const char* name) {
#if defined(__linux__)
        return dlsym(RTLD_DEFAULT, name);
#else
        static_cast<void>(name);
        return nullptr;
#endif
    }

    static std::atomic<bool>& fork_flag() {
        static std::atomic<bool> flag{false};
        static const int watching = pthread_atfork(nullptr, nullptr, [] { flag = true; });
        static_cast<void>(watching);
        return flag;
    }
};

}  // namespace sdas
