// Runs a problem through the kernels and compares every id and every bit of every score.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "levels.h"
#include "oracle.h"

namespace llmrec::driver {

struct Options {
  bool quick = false;     // for slow builds: small problems, and fewer searches
  bool emulated = false;  // the kernels of a GPU, and no others
  bool first = false;     // ends with the first failure
  bool verbose = false;   // name each search before it begins
  std::string only;       // the problems whose name holds this
  uint64_t seed = 0;      // other problems
  std::string without;    // a level that is left out
  std::string groups;     // the groups that run, with commas between them; empty: all

  bool has_group(const std::string& name) const {
    return groups.empty() || ("," + groups + ",").find("," + name + ",") != std::string::npos;
  }
};

// How a problem is searched.
struct Setting {
  int64_t k = 10;
  int64_t threads = 1;  // negative: promised, but there is one
  TopkTuning tuning;
};

// What a search may know of the items beforehand.
enum class Form { plain, norms, packed };

// The items packed by one level.
struct Packed {
  std::vector<char> data;
  std::vector<double> inverse_norms;
  std::vector<int8_t> codes;
  std::vector<float> unit_scale, residual;
};

Packed packed_by(PackKernel* kernel, const Items& items, int64_t threads);

struct Result {
  std::vector<float> scores;  // [B, k], with kGuard sentinels after them
  std::vector<int64_t> ids;
};
constexpr int64_t kGuard = 16;

// What is searched, but for how.
TopkArguments arguments_of(const Problem& problem, const Packed& packed, Form form);

Result search(TopkKernel* kernel, const TopkArguments& what, const Setting& setting);
Result search(TopkKernel* kernel, const Problem& problem, const Packed& packed, Form form,
              const Setting& setting, bool exact = true);

std::string describe(const char* level, Form form, const Setting& setting);

// What is wrong with a result; empty if nothing is.
std::string compare(const Problem& problem, const Ranking& ranking, const Setting& setting,
                    const Result& result);

class Checker {
 public:
  explicit Checker(const Options& options)
      : options_(options), levels_(options.emulated ? emulated_levels() : levels_here()) {
    std::erase_if(levels_, [&](const TestedLevel& level) { return options.without == level.name; });
  }

  // Some of all levels and forms with all settings: others for the next problem.
  void check(const Problem& problem, const std::vector<Setting>& settings);

  bool wants(const std::string& name) const {
    return options_.only.empty() || name.find(options_.only) != std::string::npos;
  }
  void begin(const char* group) const;
  void expect(bool good, const std::string& what);

  // Whether a call with so many threads of a GPU is worth its time: ThreadSanitizer makes each of
  // them in a millisecond or two.
  bool affords(const TestedLevel& level, int64_t gpu_threads);
  bool threads_are_dear() const;

  Random random(uint64_t group) const { return Random(options_.seed << 8 | group); }
  const Options& options() const { return options_; }
  const std::vector<TestedLevel>& levels() const { return levels_; }
  int64_t searches() const { return searches_; }
  int64_t failures() const { return failures_; }

 private:
  void check_packs(const Problem& problem, const Packed& first);
  void check_fast(const Problem& problem, const Packed& packed, const Setting& setting);
  void check_estimates(const Problem& problem, const Ranking& ranking, const Packed& packed,
                       const Setting& setting);

  Options options_;
  std::vector<TestedLevel> levels_;
  int64_t searches_ = 0, turn_ = 0, failures_ = 0;
  int64_t gpu_threads_ = 0;
};

// What runs now: told when the process dies of it.
void now_running(const std::string& what);
void tell_when_dying();

}  // namespace llmrec::driver
