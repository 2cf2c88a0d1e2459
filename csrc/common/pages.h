// Large pages for large stretches of memory: a random row then costs no walk through page tables,
// and fresh memory one fault for 2 MB in place of 512.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace llmrec {

constexpr size_t kHugePage = size_t{2} << 20;

// Asks for large pages where the system leaves that to programs (Linux's "madvise", its default);
// to be called before the memory is first written. It is a wish: nothing depends on it.
inline void prefer_large_pages(void* start, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t first = (reinterpret_cast<uintptr_t>(start) + kHugePage - 1) & ~(kHugePage - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(start) + bytes) & ~(kHugePage - 1);
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)start;
  (void)bytes;
#endif
}

}  // namespace llmrec
