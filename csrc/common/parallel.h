// Threads without a thread library: kernels are handed a way to run on several threads.
// The torch binding passes torch's pool, the test drivers pass std::thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace llmrec {

// Tasks 0 .. count - 1, each taken once. Uneven tasks balance themselves.
class TaskQueue {
 public:
  explicit TaskQueue(int64_t count) : count_(count) {}

  bool take(int64_t& task) {
    task = next_.fetch_add(1, std::memory_order_relaxed);
    return task < count_;
  }

 private:
  std::atomic<int64_t> next_{0};
  const int64_t count_;
};

using Worker = std::function<void(TaskQueue&)>;

struct Parallel {
  // Calls the worker on up to `threads` threads at once, and returns when all have.
  // Each worker prepares its workspace once, then takes tasks until there are none.
  std::function<void(int64_t tasks, const Worker&)> run;
  int64_t threads = 1;
};

}  // namespace llmrec
