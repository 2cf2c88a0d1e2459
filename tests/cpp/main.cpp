// Runs every kernel outside of Python, where sanitizers and emulators can watch, against plain
// loops over the definition of the result.
//
//   driver [--quick] [--verbose] [--emulated] [--first] [--seed NUMBER] [--only TEXT]
//          [--without LEVEL] [--groups NAME,NAME]
//
// --emulated runs the kernels of a GPU, in the emulator of tests/emulation, in place of the others.
//
// Everything is drawn from fixed seeds, or from others with --seed. A failed case says what it was,
// and --only with a part of its name (its seed, say) runs it again alone.
//
// The groups that take least time come first, for --first.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "emulated_cuda.h"
#include "other_kernels.h"
#include "topk.h"

namespace {

using llmrec::driver::Checker;

struct Group {
  const char* name;
  void (*check)(Checker&);
  bool few_threads = false;  // of a GPU
};

constexpr Group kGroups[] = {
    {"selection", llmrec::driver::check_selection, true},
    {"races", llmrec::driver::check_races, true},
    {"embedding_bag", llmrec::driver::check_embedding_bag, true},
    {"candidate_scores", llmrec::driver::check_candidate_scores, true},
    {"quantize", llmrec::driver::check_quantize, true},
    {"emulated cuda", llmrec::driver::check_emulated_cuda, true},
    {"extremes", llmrec::driver::check_extremes},
    {"filters", llmrec::driver::check_filters},
    {"draws", llmrec::driver::check_draws},
    {"shapes", llmrec::driver::check_shapes},
    {"numbers", llmrec::driver::check_numbers},
    {"kinds", llmrec::driver::check_kinds},
    {"widest", llmrec::driver::check_widest},
    {"bad input", llmrec::driver::check_bad_input},
    {"concurrency", llmrec::driver::check_concurrency},
    {"appends", llmrec::driver::check_appends},
    {"roofs", llmrec::driver::check_roofs},
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

int main(int count, char** words) {
  llmrec::driver::Options options;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(words[i], "--quick") == 0) {
      options.quick = true;
    } else if (std::strcmp(words[i], "--verbose") == 0) {
      options.verbose = true;
    } else if (std::strcmp(words[i], "--emulated") == 0) {
      options.emulated = true;
    } else if (std::strcmp(words[i], "--first") == 0) {
      options.first = true;
    } else if (std::strcmp(words[i], "--only") == 0 && i + 1 < count) {
      options.only = words[++i];
    } else if (std::strcmp(words[i], "--seed") == 0 && i + 1 < count) {
      options.seed = std::strtoull(words[++i], nullptr, 10);
    } else if (std::strcmp(words[i], "--groups") == 0 && i + 1 < count) {
      options.groups = words[++i];
    } else if (std::strcmp(words[i], "--without") == 0 && i + 1 < count) {
      options.without = words[++i];
    } else {
      std::fprintf(stderr,
                   "expected [--quick] [--verbose] [--emulated] [--first] [--seed NUMBER] [--only "
                   "TEXT] [--without LEVEL] [--groups NAME,NAME]; got %s\n",
                   words[i]);
      return 2;
    }
  }
  llmrec::driver::tell_when_dying();
  Checker checker(options);
  for (const auto& level : checker.levels()) std::printf("level %s\n", level.name);
  for (const auto& [name, check, few_threads] : kGroups) {
    if (checker.threads_are_dear() && !few_threads) continue;
    if (!options.has_group(name)) continue;
    const double start = now();
    const long long before = checker.searches();
    checker.begin(name);
    check(checker);
    std::printf("%-16s %6lld searches %6.1f s\n", name, checker.searches() - before, now() - start);
    std::fflush(stdout);
  }
  if (checker.failures() > 0) {
    std::fprintf(stderr, "%lld checks FAILED\n", static_cast<long long>(checker.failures()));
    return 1;
  }
  return 0;
}
