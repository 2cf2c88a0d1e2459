#include "check.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/workspace.h"
#include "threads.h"

extern "C" void __sanitizer_set_death_callback(void (*)()) __attribute__((weak));

namespace llmrec::driver {
namespace {

constexpr float kScoreGuard = 12345.0f;
constexpr int64_t kIdGuard = -777;
constexpr int64_t kToldFailures = 20;

char running[512];

void tell() {
  const char intro[] = "\nwhile running: ";
  if (write(2, intro, sizeof intro - 1) < 0 || write(2, running, std::strlen(running)) < 0 ||
      write(2, "\n", 1) < 0)
    return;
}

void tell_and_die(int signal) {
  tell();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

// Kernels get memory that was used before: what they read without having written it should hurt.
void leave_garbage(int64_t turn) {
  constexpr int kFillings[] = {0xff, 0x7f, 0x80, 0x3f};  // NaN, large, denormal, one
  for (const size_t size : {size_t{1} << 12, size_t{1} << 16, size_t{1} << 20}) {
    Workspace space(size);
    std::memset(space.take<char>(static_cast<int64_t>(size)), kFillings[turn % 4], size);
  }
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

bool guarded(const Problem& problem, const Setting& setting, const Result& result) {
  const int64_t written = problem.count * setting.k;
  for (int64_t i = written; i < written + kGuard; ++i)
    if (result.scores[i] != kScoreGuard || result.ids[i] != kIdGuard) return false;
  return true;
}

template <class... Values>
std::string text(const char* format, Values... values) {
  char line[512];
  std::snprintf(line, sizeof line, format, values...);
  return line;
}

Parallel threads_of(const Setting& setting) {
  return setting.threads < 0 ? promised_threads(-setting.threads) : on_threads(setting.threads);
}

}  // namespace

void now_running(const std::string& what) {
  std::snprintf(running, sizeof running, "%s", what.c_str());
}

void tell_when_dying() {
  if (__sanitizer_set_death_callback != nullptr) return __sanitizer_set_death_callback(tell);
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP})
    std::signal(signal, tell_and_die);
}

Packed packed_by(PackKernel* kernel, const Items& items, int64_t threads) {
  Packed packed;
  const auto count = static_cast<size_t>(items.count);
  packed.data.resize(count * static_cast<size_t>(items.row_bytes()));
  packed.inverse_norms.resize(count);
  packed.codes.resize((count + 15) / 16 * static_cast<size_t>((items.dim + 3) / 4 * 64));
  packed.unit_scale.resize(count);
  packed.residual.resize(count);
  PackArguments args;
  args.rows = items.rows();
  args.row_bytes = items.row_bytes();
  args.data = packed.data.data();
  args.inverse_norms = packed.inverse_norms.data();
  args.sketch = {packed.codes.data(), packed.unit_scale.data(), packed.residual.data()};
  FirstBad bad;
  kernel(args, bad, on_threads(threads));
  check_finite_rows("items", bad);
  return packed;
}

TopkArguments arguments_of(const Problem& problem, const Packed& packed, Form form) {
  TopkArguments args;
  args.queries = problem.queries.data();
  args.count = problem.count;
  args.items = problem.items.rows();
  if (form != Form::plain) args.items.inverse_norms = packed.inverse_norms.data();
  if (form == Form::packed) {
    args.items.data = packed.data.data();
    args.items.stride = problem.items.row_bytes();
    args.sketch = {packed.codes.data(), packed.unit_scale.data(), packed.residual.data()};
  }
  args.cosine = problem.cosine;
  args.item_bias = problem.item_bias.empty() ? nullptr : problem.item_bias.data();
  args.item_scale = problem.item_scale.empty() ? nullptr : problem.item_scale.data();
  const Filters& filters = problem.filters;
  args.filters.allowed = filters.allowed.empty() ? nullptr : filters.allowed.data();
  args.filters.mask = filters.mask.empty() ? nullptr : filters.mask.data();
  for (const auto& [lists, to] : {std::pair{&filters.exclude, &args.filters.exclude},
                                  std::pair{&filters.allow, &args.filters.allow}})
    if (!lists->offsets.empty()) *to = {lists->ids.data(), lists->offsets.data()};
  return args;
}

Result search(TopkKernel* kernel, const TopkArguments& what, const Setting& setting) {
  const auto slots = static_cast<size_t>(what.count * setting.k + kGuard);
  Result result{std::vector<float>(slots, kScoreGuard), std::vector<int64_t>(slots, kIdGuard)};
  TopkArguments args = what;
  args.k = setting.k;
  args.scores = result.scores.data();
  args.ids = result.ids.data();
  args.tuning = setting.tuning;
  kernel(args, threads_of(setting));
  return result;
}

Result search(TopkKernel* kernel, const Problem& problem, const Packed& packed, Form form,
              const Setting& setting, bool exact) {
  TopkArguments args = arguments_of(problem, packed, form);
  args.exact = exact;
  return search(kernel, args, setting);
}

std::string describe(const char* level, Form form, const Setting& setting) {
  constexpr const char* forms[] = {"plain", "with norms", "packed"};
  const TopkTuning& tuning = setting.tuning;
  return text(
      "level %s, %s, k %lld, threads %lld, capacity %lld, chunk %lld, round %lld, "
      "caution %g",
      level, forms[static_cast<int>(form)], static_cast<long long>(setting.k),
      static_cast<long long>(setting.threads), static_cast<long long>(tuning.capacity),
      static_cast<long long>(tuning.chunk_bytes), static_cast<long long>(tuning.round_queries),
      tuning.caution);
}

std::string compare(const Problem& problem, const Ranking& ranking, const Setting& setting,
                    const Result& result) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  for (int64_t query = 0; query < problem.count; ++query)
    for (int64_t place = 0; place < setting.k; ++place) {
      const auto& row = ranking[query];
      const bool there = place < static_cast<int64_t>(row.size());
      const Ranked want = there ? row[place] : Ranked{kNone, -1};
      const int64_t slot = query * setting.k + place;
      if (result.ids[slot] == want.id && same_bits(result.scores[slot], want.score)) continue;
      return text("query %lld, place %lld: item %lld with %a; expected item %lld with %a",
                  static_cast<long long>(query), static_cast<long long>(place),
                  static_cast<long long>(result.ids[slot]),
                  static_cast<double>(result.scores[slot]), static_cast<long long>(want.id),
                  static_cast<double>(want.score));
    }
  return guarded(problem, setting, result) ? "" : "the kernel wrote past the end of the result";
}

void Checker::begin(const char* group) const {
  if (options_.first) std::fprintf(stderr, "group %s\n", group);
}

void Checker::expect(bool good, const std::string& what) {
  if (good) return;
  if (++failures_ <= kToldFailures) std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  if (options_.first) std::_Exit(1);
}

void Checker::check(const Problem& problem, const std::vector<Setting>& settings) {
  if (!wants(problem.name)) return;
  now_running(problem.name + ", packing");
  const Ranking ranking = rank(problem);
  const Packed packed = packed_by(pack_scalar, problem.items, 1);
  check_packs(problem, packed);
  // One search in so many, in turn: it shares no factor with the number of levels and forms.
#if defined(__SANITIZE_ADDRESS__)
  constexpr int64_t kEmulated = 20;
#elif defined(__SANITIZE_THREAD__)
  constexpr int64_t kEmulated = 7;
#else
  constexpr int64_t kEmulated = 4;
#endif
  const int64_t share = options_.emulated ? kEmulated : options_.quick ? 13 : 5;
  for (const Setting& setting : settings) {
    for (const TestedLevel& level : levels_)
      for (const Form form : {Form::plain, Form::norms, Form::packed}) {
        if (level.emulated_gpu != options_.emulated || turn_++ % share != 0) continue;
        const std::string what = sentence(problem.name, ": ", describe(level.name, form, setting));
        now_running(what);
        if (options_.verbose) std::printf("%s\n", what.c_str());
        leave_garbage(turn_);
        const Result result = search(level.topk, problem, packed, form, setting);
        const std::string wrong = compare(problem, ranking, setting, result);
        expect(wrong.empty(), sentence(what, ": ", wrong));
        ++searches_;
      }
  }
  if (turn_ % share >= 2) return;
  if (options_.emulated)
    check_estimates(problem, ranking, packed, settings.front());
  else
    check_fast(problem, packed, settings.front());
}

void Checker::check_packs(const Problem& problem, const Packed& first) {
  const Items& items = problem.items;
  bool right = true;
  for (int64_t row = 0; row < items.count; ++row) {
    right &=
        first.inverse_norms[row] == inverse_norm(items.wide.data() + row * items.dim, items.dim);
    right &= items.row_bytes() == 0 || std::memcmp(first.data.data() + row * items.row_bytes(),
                                                   items.data.data() + row * items.stride,
                                                   static_cast<size_t>(items.row_bytes())) == 0;
  }
  expect(right, problem.name + ": packed by level scalar: a wrong norm or copy");
  for (const TestedLevel& level : levels_) {
    if (level.pack == pack_scalar || !affords(level, 8 * (items.count + 15) / 16 * 16)) continue;
    const Packed other = packed_by(level.pack, items, 2);
    expect(
        same_bits(first.data, other.data) && same_bits(first.inverse_norms, other.inverse_norms) &&
            same_bits(first.codes, other.codes) && same_bits(first.unit_scale, other.unit_scale) &&
            same_bits(first.residual, other.residual),
        problem.name + ": packed by level " + level.name + ": not the bits of level scalar");
  }
}

bool Checker::threads_are_dear() const {
#if defined(__SANITIZE_THREAD__)
  return options_.emulated;
#else
  return false;
#endif
}

bool Checker::affords(const TestedLevel& level, int64_t gpu_threads) {
  if (!level.emulated_gpu) return true;
#if defined(__SANITIZE_THREAD__)
  constexpr int64_t kMost = 1024, kInAll = 8'000;
#elif defined(__SANITIZE_ADDRESS__)
  constexpr int64_t kMost = 20'000, kInAll = 3'000'000;
#else
  constexpr int64_t kMost = 200'000, kInAll = 30'000'000;
#endif
  if (gpu_threads > kMost || gpu_threads_ + gpu_threads > kInAll) return false;
  gpu_threads_ += gpu_threads;
  return true;
}

// An inexact search on a GPU: scores are near those of their items, in order, and no item whose
// score is clearly better was passed over.
void Checker::check_estimates(const Problem& problem, const Ranking& ranking, const Packed& packed,
                              const Setting& setting) {
  const int64_t dim = problem.items.dim;
  const Items queries = stored(problem.queries, problem.count, dim, Storage::float32, 0);
  const Packed own = packed_by(pack_scalar, queries, 1);
  const auto fits = [](double size) { return size == 0 || (size > 0x1p-60 && size < 0x1p60); };
  const auto length = [](double inverse) { return inverse == 0 ? 0 : 1 / inverse; };
  const std::string what =
      problem.name + ": estimates: " + describe("emulated cuda", Form::packed, setting);
  now_running(what);
  const Result result = search(levels_[1].topk, problem, packed, Form::packed, setting, false);
  ++searches_;
  bool right = guarded(problem, setting, result);
  for (int64_t query = 0; query < problem.count && right; ++query) {
    const double factor = problem.cosine ? 1 : length(own.inverse_norms[query]);
    // How far an item's estimate may be from its score; negative where nothing is promised.
    const auto slack = [&](int64_t item) {
      const double size = problem.cosine ? 1 : length(packed.inverse_norms[item]);
      const double weight =
          std::abs(size * (problem.item_scale.empty() ? 1.0 : problem.item_scale[item]));
      const double bias = problem.item_bias.empty() ? 0 : std::abs(problem.item_bias[item]);
      if (!fits(factor) || !fits(size) || !fits(weight) || bias > 0x1p100) return -1.0;
      const double of_query = own.residual[query], of_item = packed.residual[item];
      return factor * weight * (of_query + (1 + of_query) * of_item + 1e-5) + bias * 1e-6 + 1e-40;
    };
    const float* scores = result.scores.data() + query * setting.k;
    const int64_t* ids = result.ids.data() + query * setting.k;
    const int64_t there = std::min<int64_t>(setting.k, ranking[query].size());
    std::vector<bool> chosen(static_cast<size_t>(problem.items.count));
    for (int64_t place = 0; place < setting.k; ++place) {
      right &= (ids[place] >= 0) == (place < there);
      if (ids[place] < 0 || !right) continue;
      right &= place == 0 || scores[place - 1] > scores[place] ||
               (scores[place - 1] == scores[place] && ids[place - 1] < ids[place]);
      chosen[ids[place]] = true;
    }
    if (there == 0 || !right) continue;
    int64_t found = 0;
    for (const Ranked& each : ranking[query]) {
      const double allowed = slack(each.id);
      if (chosen[each.id]) {
        const int64_t place = std::find(ids, ids + there, each.id) - ids;
        right &= allowed < 0 || std::abs(scores[place] - each.score) <= allowed;
        ++found;
      } else {
        right &= allowed < 0 || each.score - allowed <= scores[there - 1];
      }
    }
    right &= found == there;  // and none that the query may not have
  }
  expect(right, what);
}

// An inexact search has the same result everywhere, of items that the query may have.
void Checker::check_fast(const Problem& problem, const Packed& packed, const Setting& setting) {
  const Setting one{setting.k, 1, {}};
  const Result first = search(levels_.front().topk, problem, packed, Form::packed, one, false);
  bool permitted = guarded(problem, setting, first);
  for (int64_t slot = 0; slot < problem.count * setting.k; ++slot) {
    const int64_t id = first.ids[slot];
    permitted &=
        id == -1 || (id >= 0 && id < problem.items.count && problem.permits(slot / setting.k, id));
  }
  expect(permitted, problem.name + ": a fast search returns what the filters rule out");
  for (const TestedLevel& level : levels_) {
    const std::string what =
        problem.name + ": fast search: " + describe(level.name, Form::packed, setting);
    now_running(what);
    const Result result = search(level.topk, problem, packed, Form::packed, setting, false);
    expect(same_bits(first.scores, result.scores) && same_bits(first.ids, result.ids),
           what + ": not the result of one thread at level scalar");
    ++searches_;
  }
}

}  // namespace llmrec::driver
