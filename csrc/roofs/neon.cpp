// 16-byte registers. int8: sdot, four products and their sum in each of four lanes, latency 3 or 4;
// float32: fmla. Up to four a cycle on the widest processors: 16 sums.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <cstring>
#include <utility>

#include "common/target.h"
#include "roofs/roofs.h"

LLMREC_TARGET_BEGIN(LLMREC_TARGET_NEON)
#include "roofs/loops.h"

namespace llmrec {
namespace {

struct Int8 {
  using Sum = int32x4_t;
  using Factor = int8x16_t;
  static constexpr size_t kSums = 16, kProducts = 16;
  static Factor factor() { return vdupq_n_s8(1); }
  static void add(Sum& sum, const Factor& a, const Factor& b) { sum = vdotq_s32(sum, a, b); }
};

struct Float32 {
  using Sum = float32x4_t;
  using Factor = float32x4_t;
  static constexpr size_t kSums = 16, kProducts = 4;
  static Factor factor() { return vdupq_n_f32(1); }
  static void add(Sum& sum, const Factor& a, const Factor& b) { sum = vfmaq_f32(sum, a, b); }
};

struct Stream {  // a store of its own: whole lines are not read first where they follow each other
  static void store(char* target, uint8x16_t vector) {
    vst1q_u8(reinterpret_cast<uint8_t*>(target), vector);
  }
  static void fence() {}
};

}  // namespace

RoofLoops roofs_neon() {
  RoofLoops loops;
  loops.read = read_as<uint8x16_t>;
  loops.copy = copy_as<uint8x16_t, Stream>;
  loops.int8 = peak_of<Int8>();
  loops.float32 = peak_of<Float32>();
  return loops;
}

}  // namespace llmrec
LLMREC_TARGET_END
#endif
