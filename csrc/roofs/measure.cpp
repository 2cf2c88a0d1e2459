// Runs the levels' loops on all threads and times them. The best of several repetitions counts: a
// peak is what the machine can do when nothing disturbs it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "common/check.h"
#include "common/isa.h"
#include "roofs/roofs.h"

namespace llmrec {
namespace {

constexpr int64_t kStretch = int64_t{1} << 20;  // bytes that one thread reads at a time
constexpr int64_t kLeast = int64_t{1} << 26;    // bytes between two looks at the clock
constexpr int64_t kRounds = 1000;               // between two looks at the clock: microseconds
constexpr double kSlice = 0.02;                 // seconds of one repetition of a peak

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

const char* name_of(RoofLevel level) {
  constexpr const char* names[] = {"scalar", "avx2", "avx2_vnni", "avx512", "amx", "neon"};
  return names[static_cast<int>(level)];
}

const char* name_of(RoofKind kind) {
  constexpr const char* names[] = {"int8", "bfloat16", "float32"};
  return names[static_cast<int>(kind)];
}

// Why the machine cannot run a level. LLMREC_ISA has no say: it lowers kernels, not the machine.
std::string refusal(RoofLevel level) {
  switch (level) {
    case RoofLevel::scalar:
      return "";
    case RoofLevel::avx2:
      return llmrec::refusal(Level::avx2);
    case RoofLevel::avx2_vnni: {
      const std::string why = llmrec::refusal(Level::avx2);
      return !why.empty() || has_avx_vnni() ? why : "the processor has no AVX_VNNI";
    }
    case RoofLevel::avx512:
      return llmrec::refusal(Level::avx512);
    case RoofLevel::amx:
      return llmrec::refusal(Level::amx);
    case RoofLevel::neon:
      return llmrec::refusal(Level::neon);
  }
  return "there is no such level";
}

RoofLoops loops_of(RoofLevel level) {
  const std::string why = refusal(level);
  check_value(why.empty(), "level ", name_of(level), " cannot run here: ", why);
  switch (level) {  // only now: a level's file is compiled for its own instructions throughout
#if defined(__x86_64__)
    case RoofLevel::avx2:
      return roofs_avx2();
    case RoofLevel::avx2_vnni:
      return roofs_avx2_vnni();
    case RoofLevel::avx512:
      return roofs_avx512();
    case RoofLevel::amx:
      return roofs_amx();
#elif defined(__aarch64__)
    case RoofLevel::neon:
      return roofs_neon();
#endif
    default:
      return roofs_scalar();
  }
}

const PeakLoop& peak_of(const RoofLoops& loops, RoofKind kind) {
  switch (kind) {
    case RoofKind::int8:
      return loops.int8;
    case RoofKind::bfloat16:
      return loops.bfloat16;
    case RoofKind::float32:
      return loops.float32;
  }
  return loops.float32;
}

// The levels' instruction sets leave bfloat16 to processors that have it besides.
bool has_kind(RoofLevel level, RoofKind kind) {
  if (kind != RoofKind::bfloat16) return true;
  if (level == RoofLevel::avx512) return has_avx512_bf16();
  return level != RoofLevel::amx || has_amx_bf16();
}

struct Free {
  void operator()(char* data) const { std::free(data); }
};
using Buffer = std::unique_ptr<char, Free>;

// Filled by the threads that will read it. Large pages gained nothing where this was tried.
Buffer filled(int64_t stretches, const Parallel& parallel) {
  const auto bytes = static_cast<size_t>(stretches * kStretch);
  Buffer buffer(static_cast<char*>(std::aligned_alloc(kStretch, bytes)));
  if (buffer == nullptr) throw std::bad_alloc();
  parallel.run(stretches, [&](TaskQueue& queue) {
    for (int64_t task; queue.take(task);)
      std::memset(buffer.get() + task * kStretch, 1, static_cast<size_t>(kStretch));
  });
  return buffer;
}

void check_sizes(int64_t bytes, int64_t repetitions) {
  check_value(bytes >= 1, "bytes is ", bytes, "; expected at least 1");
  check_value(repetitions >= 1, "repetitions is ", repetitions, "; expected at least 1");
}

int64_t stretches_of(int64_t bytes) { return (bytes + kStretch - 1) / kStretch; }

// Bytes per second of what `each` does with every stretch, `passes` times in one repetition.
template <class Each>
double fastest(int64_t stretches, int64_t passes, int64_t repetitions, const Parallel& parallel,
               const Each& each) {
  double best = 0;
  for (int64_t repetition = 0; repetition < repetitions; ++repetition) {
    const double start = now();
    parallel.run(stretches * passes, [&](TaskQueue& queue) {
      for (int64_t task; queue.take(task);) each(task % stretches);
    });
    best = std::max(best, static_cast<double>(stretches * passes * kStretch) / (now() - start));
  }
  return best;
}

}  // namespace

double read_roof(RoofLevel level, int64_t bytes, int64_t repetitions, const Parallel& parallel) {
  check_sizes(bytes, repetitions);
  const auto read = loops_of(level).read;
  check_value(read != nullptr, "level ", name_of(level), " has no loads of its own");
  const int64_t stretches = stretches_of(bytes);
  const Buffer buffer = filled(stretches, parallel);
  // Waking the threads takes microseconds, so a short buffer is read several times in between.
  const int64_t passes = std::max<int64_t>(1, kLeast / (stretches * kStretch));
  return fastest(stretches, passes, repetitions, parallel,
                 [&](int64_t stretch) { read(buffer.get() + stretch * kStretch, kStretch); });
}

double copy_roof(RoofLevel level, int64_t bytes, int64_t repetitions, const Parallel& parallel) {
  check_sizes(bytes, repetitions);
  const auto copy = loops_of(level).copy;
  check_value(copy != nullptr, "level ", name_of(level), " has no stores of its own");
  const int64_t stretches = stretches_of(bytes);
  const Buffer source = filled(stretches, parallel), target = filled(stretches, parallel);
  // Once: in two passes two threads could write to one place.
  return 2 * fastest(stretches, 1, repetitions, parallel, [&](int64_t stretch) {
           copy(source.get() + stretch * kStretch, target.get() + stretch * kStretch, kStretch);
         });
}

double peak_roof(RoofLevel level, RoofKind kind, int64_t repetitions, const Parallel& parallel) {
  check_value(repetitions >= 1, "repetitions is ", repetitions, "; expected at least 1");
  const RoofLoops loops = loops_of(level);
  const PeakLoop& peak = peak_of(loops, kind);
  check_value(peak.run != nullptr, "level ", name_of(level), " has no ", name_of(kind),
              " multiply-add of its own");
  check_value(has_kind(level, kind), "the processor has no ", name_of(kind), " at level ",
              name_of(level));
  double best = 0;
  for (int64_t repetition = 0; repetition < repetitions; ++repetition) {
    std::atomic<int64_t> rounds{0};
    const double start = now();
    parallel.run(parallel.threads, [&](TaskQueue& queue) {
      int64_t task, done = 0;
      if (!queue.take(task)) return;  // each thread its own slice of time
      do {  // at least once, however late a busy machine lets this thread begin
        peak.run(kRounds);
        done += kRounds;
      } while (now() < start + kSlice);
      rounds += done;
    });
    const double work = static_cast<double>(rounds.load() * peak.multiply_adds);
    best = std::max(best, work / (now() - start));
  }
  return best;
}

}  // namespace llmrec
