// The roofs for torch. They take no tensor, so that no device decides: every device has them.
#include <torch/csrc/stable/library.h>

#include "common/binding.h"
#include "roofs/roofs.h"

namespace llmrec {
namespace {

RoofLevel level_of(int64_t level) {
  check_value(level >= 0 && level <= static_cast<int64_t>(RoofLevel::neon), "level is ", level,
              "; expected 0 to ", static_cast<int64_t>(RoofLevel::neon));
  return static_cast<RoofLevel>(level);
}

// One thread, or all of torch's.
Parallel threads_of(bool all) {
  if (all) return torch_threads();
  Parallel alone;
  alone.run = [](int64_t tasks, const Worker& worker) {
    TaskQueue queue(tasks);
    worker(queue);
  };
  return alone;
}

double read_cpu(int64_t level, int64_t bytes, int64_t repetitions, bool all) {
  return read_roof(level_of(level), bytes, repetitions, threads_of(all));
}

double copy_cpu(int64_t level, int64_t bytes, int64_t repetitions, bool all) {
  return copy_roof(level_of(level), bytes, repetitions, threads_of(all));
}

double peak_cpu(int64_t level, int64_t kind, int64_t repetitions, bool all) {
  check_value(kind >= 0 && kind <= static_cast<int64_t>(RoofKind::float32), "kind is ", kind,
              "; expected 0 to ", static_cast<int64_t>(RoofKind::float32));
  return peak_roof(level_of(level), static_cast<RoofKind>(kind), repetitions, threads_of(all));
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CompositeExplicitAutograd, m) {
  m.impl("read_roof", TORCH_BOX(&llmrec::read_cpu));
  m.impl("copy_roof", TORCH_BOX(&llmrec::copy_cpu));
  m.impl("peak_roof", TORCH_BOX(&llmrec::peak_cpu));
}
