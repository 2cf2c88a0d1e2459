// What portable C++ gets out of a machine: on x86-64 the compiler vectorises it for SSE2.
#include "roofs/loops.h"
#include "roofs/roofs.h"

namespace llmrec {
namespace {

typedef float FourFloats __attribute__((vector_size(16)));
typedef int64_t TwoWords __attribute__((vector_size(16)));

// A multiplication and an addition. Ten sums and two factors fit into SSE2's 16 registers.
struct Float32 {
  using Sum = FourFloats;
  using Factor = FourFloats;
  static constexpr size_t kSums = 10, kProducts = 4;
  static Factor factor() { return Factor{1, 1, 1, 1}; }
  static void add(Sum& sum, Factor& a, const Factor& b) {
    hide(a);
    sum += a * b;
  }
};

// Codes of eight bits, widened once as a kernel would: compilers multiply such pairs and add them
// in one instruction (pmaddwd on x86). They come from the first-level cache, four rows at a time.
constexpr int64_t kCodes = 512, kRows = 4;

struct Codes {
  int16_t query[kCodes], items[kRows][kCodes];
  int32_t sums[kRows];
};

void add_int8(Codes& codes) {
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (int64_t j = 0; j < kCodes; ++j) {
    const int32_t code = codes.query[j];
    s0 += code * codes.items[0][j];
    s1 += code * codes.items[1][j];
    s2 += code * codes.items[2][j];
    s3 += code * codes.items[3][j];
  }
  const int32_t sums[kRows] = {s0, s1, s2, s3};
  std::memcpy(codes.sums, sums, sizeof sums);
}

void run_int8(int64_t rounds) {
  alignas(64) Codes codes = {};
  Codes* hidden = &codes;
  for (; rounds > 0; --rounds) {
    __asm__ volatile("" : "+r"(hidden) : : "memory");  // whatever is in them may have changed
    add_int8(*hidden);
  }
}

void copy(const char* data, char* target, int64_t bytes) {
  std::memcpy(target, data, static_cast<size_t>(bytes));
}

}  // namespace

RoofLoops roofs_scalar() {
  RoofLoops loops;
  loops.read = read_as<TwoWords>;
  loops.copy = copy;
  loops.int8 = {run_int8, kCodes * kRows};
  loops.float32 = peak_of<Float32>();
  return loops;
}

}  // namespace llmrec
