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
  const size_t skip = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
  if (bytes < skip + kHugePage) return;
  madvise(static_cast<char*>(start) + skip, (bytes - skip) / kHugePage * kHugePage, MADV_HUGEPAGE);
#else
  (void)start;
  (void)bytes;
#endif
}

}  // namespace llmrec
