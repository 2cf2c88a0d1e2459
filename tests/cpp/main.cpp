// Runs every kernel outside of Python, where sanitizers and emulators can watch, against plain
// loops over the definition of the result.
//
//   driver [--quick] [--verbose] [--seed NUMBER] [--only TEXT] [--without LEVEL]
//
// Everything is drawn from fixed seeds, or from others with --seed. A failed case says what it was,
// and --only with a part of its name (its seed, say) runs it again alone.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "other_kernels.h"
#include "topk.h"

namespace {

using llmrec::driver::Checker;

constexpr std::pair<const char*, void (*)(Checker&)> kGroups[] = {
    {"shapes", llmrec::driver::check_shapes},
    {"kinds", llmrec::driver::check_kinds},
    {"numbers", llmrec::driver::check_numbers},
    {"extremes", llmrec::driver::check_extremes},
    {"filters", llmrec::driver::check_filters},
    {"draws", llmrec::driver::check_draws},
    {"widest", llmrec::driver::check_widest},
    {"bad input", llmrec::driver::check_bad_input},
    {"concurrency", llmrec::driver::check_concurrency},
    {"quantize", llmrec::driver::check_quantize},
    {"embedding_bag", llmrec::driver::check_embedding_bag},
    {"candidate_scores", llmrec::driver::check_candidate_scores},
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
    } else if (std::strcmp(words[i], "--only") == 0 && i + 1 < count) {
      options.only = words[++i];
    } else if (std::strcmp(words[i], "--seed") == 0 && i + 1 < count) {
      options.seed = std::strtoull(words[++i], nullptr, 10);
    } else if (std::strcmp(words[i], "--without") == 0 && i + 1 < count) {
      options.without = words[++i];
    } else {
      std::fprintf(stderr,
                   "expected [--quick] [--verbose] [--seed NUMBER] [--only TEXT] [--without "
                   "LEVEL]; got %s\n",
                   words[i]);
      return 2;
    }
  }
  llmrec::driver::tell_when_dying();
  Checker checker(options);
  for (const auto& level : checker.levels()) std::printf("level %s\n", level.name);
  for (const auto& [name, check] : kGroups) {
    const double start = now();
    const long long before = checker.searches();
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
