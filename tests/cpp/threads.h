// Threads of the standard library for kernels, in place of the pool that bind.cpp hands them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

#include "common/parallel.h"

namespace llmrec::driver {

inline Parallel on_threads(int64_t threads) {
  Parallel parallel;
  parallel.threads = threads;
  parallel.run = [threads](int64_t tasks, const Worker& worker) {
    TaskQueue queue(tasks);
    std::vector<std::jthread> others;
    for (int64_t thread = 1; thread < std::min(tasks, threads); ++thread)
      others.emplace_back([&] { worker(queue); });
    if (tasks > 0) worker(queue);
  };
  return parallel;
}

// Promises threads and has one, as torch's pool inside a parallel region.
inline Parallel promised_threads(int64_t threads) {
  Parallel parallel;
  parallel.threads = threads;
  parallel.run = [](int64_t tasks, const Worker& worker) {
    TaskQueue queue(tasks);
    if (tasks > 0) worker(queue);
  };
  return parallel;
}

}  // namespace llmrec::driver
