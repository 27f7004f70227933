// Weights as the network's kernels take them, kept from call to call. To pack them takes as long as a tenth of a molecule's
// evaluation, and a thread finds them in its own cache only if nobody has written them since. They hold as long as every
// number that they were made of is the same: PyTorch may change one without a word.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "fused_sdas/passes.h"

namespace sdas {

// What was made of the weights at certain addresses.
template <class T>
class PackedWeights {
  public:
    explicit PackedWeights(const Network<T>& given) : source_(copy(given)) {
        Network<T> net = given;
        Memory<T> memory(nullptr);
        network_maps(memory, net);
        room_.reset(static_cast<T*>(::operator new(sizeof(T) * std::max<std::int64_t>(memory.used(), 1), alignment)));
        net.packed = room_.get();
        NetworkRun<T>(net, false, 1).pack();
        bytes_ = sizeof(T) * (memory.used() + source_.size());
    }

    T* numbers() const { return room_.get(); }
    std::size_t bytes() const { return bytes_; }

    // Whether it was made of weights at these addresses.
    bool is_of(const Network<T>& net) const {
        auto at = places_.begin();
        bool same = true;
        for_weights(net, net.embedding, net.weights,
                    [&](const T* weight, std::int64_t) { same = same && at != places_.end() && *at++ == weight; });
        return same;
    }

    // Whether they still are what they were.
    bool holds(const Network<T>& net, int threads) const {
        const std::int64_t count = static_cast<std::int64_t>(source_.size());
        std::atomic<bool> same{true};
        parallel_for(count, 1 << 10, useful_threads(threads, count), [&](std::int64_t begin, std::int64_t end) {
            std::int64_t first = 0;
            for_weights(net, net.embedding, net.weights, [&](const T* weight, std::int64_t numbers) {
                const std::int64_t from = std::max(begin, first), to = std::min(end, first + numbers);
                if (from < to && std::memcmp(weight + from - first, &source_[from], sizeof(T) * (to - from)) != 0) {
                    same = false;
                }
                first += numbers;
            });
        });
        return same;
    }

  private:
    static constexpr std::align_val_t alignment{64};
    struct GiveBack {
        void operator()(T* room) const { ::operator delete(room, alignment); }
    };

    std::vector<T> copy(const Network<T>& net) {
        std::vector<T> source;
        for_weights(net, net.embedding, net.weights, [&](const T* weight, std::int64_t numbers) {
            places_.push_back(weight);
            source.insert(source.end(), weight, weight + numbers);
        });
        return source;
    }

    std::vector<const T*> places_;
    const std::vector<T> source_;
    std::unique_ptr<T, GiveBack> room_;
    std::size_t bytes_;
};

// Those that were used last, of one model or of several of the same sizes. Callers may come from several threads.
template <class T>
class KeptWeights {
  public:
    using Found = std::shared_ptr<const PackedWeights<T>>;

    Found find(const Network<T>& net, int threads) {
        Found found = look_up(net);
        if (found != nullptr && found->holds(net, threads)) return found;
        found = std::make_shared<PackedWeights<T>>(net);
        keep(found, net);
        return found;
    }

  private:
    static constexpr std::size_t most = 8, most_bytes = std::size_t{1} << 26;

    Found look_up(const Network<T>& net) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto at = kept_.begin(); at != kept_.end(); ++at) {
            if (!(*at)->is_of(net)) continue;
            kept_.splice(kept_.begin(), kept_, at);
            return *at;
        }
        return nullptr;
    }

    void keep(const Found& found, const Network<T>& net) {
        std::lock_guard<std::mutex> lock(mutex_);
        kept_.remove_if([&](const Found& other) { return other->is_of(net); });
        kept_.push_front(found);
        std::size_t bytes = 0, count = 0;
        for (auto at = kept_.begin(); at != kept_.end();) {
            bytes += (*at)->bytes();
            at = ++count > most || bytes > most_bytes ? kept_.erase(at) : std::next(at);
        }
    }

    std::mutex mutex_;
    std::list<Found> kept_;
};

}  // namespace sdas
