// parallel_for over fixed, contiguous ranges, on the threads of the process's OpenMP runtime or on a persistent pool.
//
// The ranges depend only on the sizes and the thread count, never on timing. One caller at a time owns
// the workers; another caller that arrives meanwhile, or a nested call, runs its ranges by itself, which
// gives the same result. After a fork the child starts with an empty pool.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "system/openmp.h"
#include "system/subnormal_numbers.h"

namespace sdas {

class ThreadPool {
  public:
    static ThreadPool& instance() {
        static std::once_flag once;
        std::call_once(once, [] {
            slot() = new ThreadPool;
            // The threads of the parent do not exist in the child, so its copy of the pool is abandoned.
            pthread_atfork(nullptr, nullptr, [] { slot() = new ThreadPool; });
        });
        return *slot();
    }

    // Calls body(i) once for every i in [0, tasks), on up to `tasks` threads, the calling one included.
    // Rethrows the first exception of a body after all have ended.
    template <class Body>
    void run(int tasks, const Body& body) {
        if (tasks <= 1 || busy_.exchange(true, std::memory_order_acquire)) {
            for (int i = 0; i < tasks; ++i) {
                body(i);
            }
            return;
        }
        Job job{[](const void* context, int i) { (*static_cast<const Body*>(context))(i); }, &body, tasks};
        start(job);
        work(job);
        {
            std::unique_lock<std::mutex> lock(mutex_);
            finished_.wait(lock, [&] { return job.done == job.tasks && job.readers == 0; });
            job_ = nullptr;
        }
        busy_.store(false, std::memory_order_release);
        if (job.error) {
            std::rethrow_exception(job.error);
        }
    }

    // Joins all workers; the next run starts new ones.
    void shutdown() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (std::thread& worker : workers_) {
            worker.join();
        }
        workers_.clear();
        stopping_ = false;
    }

  private:
    struct Job {
        void (*call)(const void*, int);
        const void* context;
        int tasks;
        int next = 0;
        int done = 0;
        int readers = 0;
        std::exception_ptr error = nullptr;
    };

    static ThreadPool*& slot() {
        static ThreadPool* pool = nullptr;
        return pool;
    }

    void start(Job& job) {
        try {
            while (static_cast<int>(workers_.size()) < job.tasks - 1) {
                workers_.emplace_back([this] { serve(); });
            }
        } catch (const std::system_error&) {
            // No more threads to be had: those that exist, at least the calling one, do the work.
        }
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = &job;
        }
        wake_.notify_all();
    }

    void work(Job& job) {
        for (;;) {
            int i;
            {
                std::lock_guard<std::mutex> lock(mutex_);
                if (job.next == job.tasks) {
                    return;
                }
                i = job.next++;
            }
            std::exception_ptr error = nullptr;
            try {
                job.call(job.context, i);
            } catch (...) {
                error = std::current_exception();
            }
            std::lock_guard<std::mutex> lock(mutex_);
            if (error && !job.error) {
                job.error = error;
            }
            if (++job.done == job.tasks) {
                finished_.notify_all();
            }
        }
    }

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return stopping_ || (job_ != nullptr && job_->next < job_->tasks); });
            if (stopping_) {
                return;
            }
            Job& job = *job_;
            ++job.readers;
            lock.unlock();
            work(job);
            lock.lock();
            if (--job.readers == 0) {
                finished_.notify_all();
            }
        }
    }

    std::atomic<bool> busy_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable finished_;
    Job* job_ = nullptr;
    bool stopping_ = false;
    std::vector<std::thread> workers_;
};

// Of `threads`, those that so much work is worth, in multiply-adds; a number that is read or written counts as one, one
// that takes a division or an exponential as several. Workers of an OpenMP runtime start at once, as a rule: they spin for
// some milliseconds after their last work. Others sleep, and waking one takes as long as much more work.
inline int useful_threads(int threads, std::int64_t work) {
    const std::int64_t per_thread = std::int64_t{1} << (OpenMp::available() ? 17 : 20);
    return static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, work / per_thread)));
}

// Calls body(begin, end) over [0, count) cut into at most `threads` ranges whose borders are multiples
// of `grain`. Whichever thread runs a range, subnormal numbers are zeros to it.
template <class Body>
void parallel_for(std::int64_t count, std::int64_t grain, int threads, const Body& body) {
    const std::int64_t grains = (count + grain - 1) / grain;
    const int tasks = static_cast<int>(std::min<std::int64_t>(grains, std::max(threads, 1)));
    const auto range = [&](int i) {
        const SubnormalsAreZeros flush;
        const std::int64_t begin = grains * i / tasks * grain;
        const std::int64_t end = std::min(count, grains * (i + 1) / tasks * grain);
        body(begin, end);
    };
    const CallersControl of_threads_that_start;
    if (tasks > 1 && OpenMp::available()) {
        OpenMp::run(tasks, range);
    } else {
        ThreadPool::instance().run(tasks, range);
    }
}

}  // namespace sdas
