// Memory that outlives a call: fresh pages cost a fault each, which is more than many a search.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llmrec {

// A stretch of memory from the process's store, where it goes back to; 64-byte aligned, with
// whatever was left in it. The store keeps 64 MB at most.
class Workspace {
 public:
  explicit Workspace(size_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // The next `count` elements. Asking for more than there is throws std::bad_alloc.
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(next(static_cast<size_t>(count) * sizeof(T)));
  }

  // What take() uses of a workspace for so many elements.
  template <class T>
  static size_t bytes(int64_t count) {
    return (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
  }

 private:
  void* next(size_t bytes);

  char* memory_;
  size_t size_, used_ = 0;
};

}  // namespace llmrec
