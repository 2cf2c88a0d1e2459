// Argument checks that name the argument and print what was got. The plain torch reference
// raises the same sentences (llmrec_kernels/ops/contents.py).
//
// An exception inside a parallel region loses its type: workers note the first bad position
// and the caller throws after the loop.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>

namespace llmrec {

template <class... Parts>
std::string sentence(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

template <class... Parts>
void check_value(bool good, const Parts&... parts) {
  if (!good) throw std::invalid_argument(sentence(parts...));  // ValueError
}

class FirstBad {
 public:
  void note(int64_t position) {
    int64_t known = position_.load(std::memory_order_relaxed);
    while (position < known && !position_.compare_exchange_weak(known, position)) {
    }
  }
  bool any() const { return position() != kNone; }
  int64_t position() const { return position_.load(); }

 private:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> position_{kNone};
};

inline void check_finite_rows(const char* name, const FirstBad& bad) {
  check_value(!bad.any(), name, " holds NaN or Inf in row ", bad.position(),
              "; expected finite numbers");
}

inline void check_finite(const char* name, const float* values, int64_t count) {
  if (values == nullptr) return;
  for (int64_t i = 0; i < count; ++i)
    check_value(std::isfinite(values[i]), name, " holds NaN or Inf at entry ", i,
                "; expected finite numbers");
}

inline void check_in_range(const char* name, const int64_t* ids, int64_t count, int64_t size) {
  for (int64_t i = 0; i < count; ++i) {
    if (ids[i] >= 0 && ids[i] < size) continue;
    const std::string where = sentence(name, " holds ", ids[i], " at entry ", i);
    throw std::out_of_range(size > 0 ? sentence(where, "; expected 0 to ", size - 1)  // IndexError
                                     : sentence(where, ", but there are no rows"));
  }
}

// Offsets [lists + 1] begin with 0, never go down, and end with the number of entries.
inline void check_offsets(const char* name, const int64_t* offsets, int64_t lists, int64_t count) {
  check_value(offsets[0] == 0, name, " begins with ", offsets[0], "; expected 0");
  for (int64_t i = 1; i <= lists; ++i) {
    check_value(offsets[i] >= offsets[i - 1] || offsets[i - 1] <= count, name, " holds ",
                offsets[i - 1], " at entry ", i - 1, "; expected at most ", count,
                ", the number of entries");
    check_value(offsets[i] >= offsets[i - 1], name, " goes down from ", offsets[i - 1], " to ",
                offsets[i], " at entry ", i, "; expected offsets that never go down");
  }
  check_value(offsets[lists] == count, name, " ends with ", offsets[lists], "; expected ", count,
              ", the entries");
}

}  // namespace llmrec
