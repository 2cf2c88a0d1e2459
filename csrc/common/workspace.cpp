#include "common/workspace.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "common/pages.h"

namespace llmrec {
namespace {

constexpr size_t kKept = size_t{64} << 20;

struct Stretch {
  char* memory;
  size_t size;
};

class Store {
 public:
  // The smallest stretch that is large enough, or a new one.
  Stretch get(size_t size) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      auto best = stretches_.end();
      for (auto it = stretches_.begin(); it != stretches_.end(); ++it)
        if (it->size >= size && (best == stretches_.end() || it->size < best->size)) best = it;
      if (best != stretches_.end() && best->size / 4 <= size) {
        const Stretch found = *best;
        stretches_.erase(best);
        kept_ -= found.size;
        return found;
      }
    }
    const size_t alignment = size >= kHugePage ? kHugePage : 64;
    size = (size + alignment - 1) / alignment * alignment;
    auto* memory = static_cast<char*>(std::aligned_alloc(alignment, size));
    if (memory == nullptr) throw std::bad_alloc();
    prefer_large_pages(memory, size);
    return {memory, size};
  }

  void put(const Stretch& stretch) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stretch.size > kKept || stretches_.size() == stretches_.capacity()) {
      std::free(stretch.memory);
      return;
    }
    while (kept_ + stretch.size > kKept) {  // the oldest goes first
      kept_ -= stretches_.front().size;
      std::free(stretches_.front().memory);
      stretches_.erase(stretches_.begin());
    }
    stretches_.push_back(stretch);
    kept_ += stretch.size;
  }

 private:
  std::mutex mutex_;
  std::vector<Stretch> stretches_ = [] {
    std::vector<Stretch> empty;
    empty.reserve(64);
    return empty;
  }();
  size_t kept_ = 0;
};

Store& store() {
  static auto* kept = new Store;  // never destroyed: a thread may search while the process ends
  return *kept;
}

}  // namespace

Workspace::Workspace(size_t bytes) {
  const Stretch found = store().get(std::max<size_t>(64, (bytes + 63) / 64 * 64));
  memory_ = found.memory;
  size_ = found.size;
}

Workspace::~Workspace() { store().put({memory_, size_}); }

void* Workspace::next(size_t bytes) {
  char* start = memory_ + used_;
  used_ += (bytes + 63) / 64 * 64;
  if (used_ > size_) throw std::bad_alloc();
  return start;
}

}  // namespace llmrec
