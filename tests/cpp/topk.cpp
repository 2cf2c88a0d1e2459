#include "topk.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <thread>

#include "threads.h"

namespace llmrec::driver {
namespace {

constexpr int64_t kDims[] = {0, 1, 3, 4, 5, 63, 64, 65, 384, 1030};
constexpr int64_t kItems[] = {0, 1, 15, 16, 17, 33, 1000, 5037};
constexpr int64_t kQueries[] = {0, 1, 2, 12, 13, 16, 17, 33, 70};
constexpr int64_t kThreads[] = {1, 2, 5, -5};

// capacity, chunk_bytes, round_queries, caution. A caution of -50 bets on scores far above what any
// item has: nearly every query loses the first pass, and the second one must mend it.
constexpr TopkTuning kTunings[] = {
    {},           {16, 0, 0, 0.35}, {0, 1, 0, 0.35}, {0, 0, 1, 0.35}, {0, 0, 7, 0.35},
    {0, 0, 0, 1}, {0, 0, 0, 0},     {0, 0, 0, -50},  {16, 1, 7, -50},
};

struct Spec {
  uint64_t seed = 0;
  Kind kind = Kind::normal;
  Storage storage = Storage::float32;
  int64_t items = 1000, dim = 64, queries = 17;
  bool cosine = true;
  Numbers bias = Numbers::none, scale = Numbers::none;
  Filtering filtering = Filtering::none;
  int64_t padding = 0;
  float loudness = 1;  // what all queries are multiplied with
};

std::string describe(const Spec& spec) {
  return sentence("seed ", spec.seed, ", ", name_of(spec.kind), " rows, N ", spec.items, ", d ",
                  spec.dim, ", B ", spec.queries, ", ", name_of(spec.storage), ", padding ",
                  spec.padding, ", ", spec.cosine ? "cosine" : "dot", ", bias ", name_of(spec.bias),
                  ", scale ", name_of(spec.scale), ", filter ", name_of(spec.filtering),
                  ", loudness ", spec.loudness);
}

Problem problem_of(const Spec& spec) {
  Random random(spec.seed);
  const Frame frame(spec.dim, random);
  Problem problem;
  problem.name = describe(spec);
  problem.items = stored(vectors(spec.kind, spec.items, spec.dim, frame, random), spec.items,
                         spec.dim, spec.storage, spec.padding);
  problem.count = spec.queries;
  problem.queries = queries_for(problem.items, spec.kind, spec.queries, frame, random);
  for (float& each : problem.queries) each = std::clamp(each * spec.loudness, -3e38f, 3e38f);
  problem.cosine = spec.cosine;
  problem.item_bias = numbers_of(spec.bias, spec.items, random);
  problem.item_scale = numbers_of(spec.scale, spec.items, random);
  problem.filters = filters_of(spec.filtering, spec.queries, spec.items, random);
  if (spec.filtering == Filtering::best) exclude_best(problem, 40);
  return problem;
}

int64_t some_k(int64_t items, Random& random) {
  const int64_t choices[] = {1, 2, 5, 10, 33, 100, items / 2, items - 1, items, items + 7};
  return std::clamp<int64_t>(random.pick(choices), 1, 6000);
}

Setting some_setting(int64_t items, Random& random) {
  return {some_k(items, random), random.pick(kThreads), random.pick(kTunings)};
}

std::vector<Setting> some_settings(size_t count, int64_t items, Random& random) {
  std::vector<Setting> settings(count);
  for (Setting& setting : settings) setting = some_setting(items, random);
  return settings;
}

// What a slow build leaves out.
bool too_large(const Checker& checker, const Spec& spec) {
  if (checker.options().emulated && spec.queries * spec.items > 20'000) return true;
  const int64_t work = spec.items * spec.queries * std::max<int64_t>(16, spec.dim);
  return work > (checker.options().quick ? 1'500'000 : 300'000'000);
}

// A packed problem whose rows one thread appends, and removes, while others search those that were
// there before. Whatever was not appended yet is NaN.
class Growing {
 public:
  explicit Growing(const Problem& problem)
      : problem_(problem), whole_(problem), there_(whole_), removed_(problem.items.count) {
    there_.each_array(there_, [](const auto&, auto& to) {
      if (!to.empty()) std::memset(to.data(), 0xff, to.size() * sizeof to[0]);
    });
    std::fill(there_.packed.codes.begin(), there_.packed.codes.end(), int8_t{-1});
  }

  // The writer's.
  void append(int64_t rows) {
    const int64_t first = count_.load(std::memory_order_relaxed);
    for (int64_t row = first; row < first + rows; ++row) copy(row);
    count_.store(first + rows, std::memory_order_release);
  }

  void remove(int64_t row) {
    const int64_t already = removals_.load(std::memory_order_relaxed);
    removed_[already] = row;
    removals_.store(already + 1, std::memory_order_release);
  }

  // Everyone's.
  const Problem& problem() const { return problem_; }
  int64_t most() const { return problem_.items.count; }
  int64_t count() const { return count_.load(std::memory_order_acquire); }

  // In order.
  std::vector<int64_t> removed() const {
    const int64_t count = removals_.load(std::memory_order_acquire);
    std::vector<int64_t> ids(removed_.begin(), removed_.begin() + count);
    std::sort(ids.begin(), ids.end());
    return ids;
  }

  // Of a search of the first `count` rows.
  TopkArguments arguments(int64_t count) const {
    TopkArguments args = arguments_of(problem_, there_.packed, Form::packed);
    args.items.count = count;
    args.items.scale = there_.scale.data();
    args.items.bias = there_.bias.data();
    if (args.item_bias != nullptr) args.item_bias = there_.item_bias.data();
    if (args.item_scale != nullptr) args.item_scale = there_.item_scale.data();
    return args;
  }

 private:
  struct Table {
    Packed packed;
    std::vector<char> scale, bias;
    std::vector<float> item_bias, item_scale;

    explicit Table(const Problem& problem)
        : packed(packed_by(pack_scalar, problem.items, 1)),
          scale(problem.items.scale),
          bias(problem.items.bias),
          item_bias(problem.item_bias),
          item_scale(problem.item_scale) {}

    // Each array that has its rows one after the other, with the same of another table.
    template <class Use>
    void each_array(Table& other, const Use& use) const {
      use(packed.data, other.packed.data);
      use(packed.inverse_norms, other.packed.inverse_norms);
      use(packed.unit_scale, other.packed.unit_scale);
      use(packed.residual, other.packed.residual);
      use(scale, other.scale);
      use(bias, other.bias);
      use(item_bias, other.item_bias);
      use(item_scale, other.item_scale);
    }
  };

  void copy(int64_t row) {
    whole_.each_array(there_, [&](const auto& from, auto& to) {
      const int64_t width = static_cast<int64_t>(from.size()) / most();
      std::copy_n(from.begin() + row * width, width, to.begin() + row * width);
    });
    constexpr int64_t kLanes = 16, kBytes = 4;  // of a lane, for four dimensions
    const int64_t groups = (problem_.items.dim + 3) / 4;
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t place = ((row / kLanes * groups + group) * kLanes + row % kLanes) * kBytes;
      std::copy_n(whole_.packed.codes.begin() + place, kBytes, there_.packed.codes.begin() + place);
    }
  }

  const Problem& problem_;
  const Table whole_;
  Table there_;
  std::vector<int64_t> removed_;
  std::atomic<int64_t> count_{0}, removals_{0};
};

// The first `count` items of a ranking, without those that were removed.
Ranking rest_of(Ranking ranking, int64_t count, const std::vector<int64_t>& removed) {
  for (auto& row : ranking)
    std::erase_if(row, [&](const Ranked& each) {
      return each.id >= count || std::binary_search(removed.begin(), removed.end(), each.id);
    });
  return ranking;
}

// Rules out what was removed: with a flag for each item, or with a list for each query.
Filters without(const std::vector<int64_t>& removed, int64_t count, int64_t queries, bool flags) {
  Filters filters;
  if (flags) {
    filters.allowed.assign(static_cast<size_t>(count), 1);
    for (const int64_t id : removed)
      if (id < count) filters.allowed[id] = 0;
    return filters;
  }
  filters.exclude.offsets.push_back(0);
  for (int64_t query = 0; query < queries; ++query) {
    filters.exclude.ids.insert(filters.exclude.ids.end(), removed.begin(), removed.end());
    filters.exclude.offsets.push_back(static_cast<int64_t>(filters.exclude.ids.size()));
  }
  return filters;
}

// Appends all rows, mostly one at a time. Waits now and then until searches have begun, in a way
// that says nothing to ThreadSanitizer of what is ordered with them.
void append_all(Growing& table, const std::atomic<int64_t>& begun, Random random) {
  for (int64_t count = 0; count < table.most();) {
    const int64_t rows = random.chance(0.7) ? 1 : 1 + random.below(40);
    table.append(std::min(rows, table.most() - count));
    count = table.count();
    if (random.chance(0.4)) table.remove(random.below(count));
    const int64_t awaited = begun.load(std::memory_order_relaxed) + random.below(4);
    while (count < table.most() && begun.load(std::memory_order_relaxed) < awaited)
      std::this_thread::yield();
  }
}

// Searches what rows there are until all were; says what was wrong first, if anything was.
std::string search_all(const Growing& table, const std::vector<TestedLevel>& levels,
                       const Ranking& ranking, std::atomic<int64_t>& begun, Random random) {
  const Problem& problem = table.problem();
  std::string first;
  for (int64_t count = -1; count < table.most();) {
    count = table.count();
    const std::vector<int64_t> removed = table.removed();
    begun.fetch_add(1, std::memory_order_relaxed);
    const Filters filters = without(removed, count, problem.count, random.chance(0.5));
    TopkArguments args = table.arguments(count);
    if (!filters.allowed.empty()) args.filters.allowed = filters.allowed.data();
    if (!filters.exclude.ids.empty())
      args.filters.exclude = {filters.exclude.ids.data(), filters.exclude.offsets.data()};
    const Setting setting = some_setting(count, random);
    const TestedLevel& level = random.pick(levels);
    const Result result = search(level.topk, args, setting);
    const std::string wrong = compare(problem, rest_of(ranking, count, removed), setting, result);
    if (first.empty() && !wrong.empty())
      first = sentence(problem.name, ": the first ", count, " rows, ", removed.size(),
                       " removed: ", describe(level.name, Form::packed, setting), ": ", wrong);
  }
  return first;
}

}  // namespace

void check_races(Checker& checker) {
  if (!checker.options().emulated) return;
  // Each kind of scan, with a sample, overflowing, and with every filter.
  struct Case {
    int64_t queries, items, k;
    Kind kind;
    Filtering filtering;
    TopkTuning tuning;
    int64_t dim = 40;
  };
  const Case cases[] = {{1, 1100, 1, Kind::plateau, Filtering::none, {16, 0, 0, 0}},
                        {3, 300, 5, Kind::normal, Filtering::all, {}},
                        {2, 150, 40, Kind::huge, Filtering::none, {}},
                        {9, 260, 3, Kind::duplicates, Filtering::none, {16, 1, 0, 0}},
                        {33, 200, 2, Kind::plateau, Filtering::exclude, {16, 0, 0, 0}},
                        {3, 300, 5, Kind::huge, Filtering::nothing, {16, 0, 0, 0}},
                        {2, 40, 3, Kind::normal, Filtering::none, {}, 1030}};
  for (const Case& each : cases) {
    Spec spec{7, each.kind, Storage::float32, each.items, each.dim, each.queries};
    spec.cosine = each.kind != Kind::huge;
    spec.filtering = each.filtering;
    const Problem problem = problem_of(spec);
    checker.check(problem, std::vector<Setting>(3, {each.k, 1, each.tuning}));
  }
}

void check_shapes(Checker& checker) {
  Random random = checker.random(1);
  for (const int64_t dim : kDims)
    for (const int64_t items : kItems)
      for (const int64_t queries : kQueries) {
        Spec spec{
            random.next(), static_cast<Kind>(random.below(kKinds)), Storage::float32, items, dim,
            queries};
        spec.cosine = random.chance(0.5);
        if (random.chance(0.3)) spec.storage = random.pick(kStorages);
        if (random.chance(0.3)) spec.bias = Numbers::normal;
        if (!too_large(checker, spec))
          checker.check(problem_of(spec), {some_setting(items, random)});
      }
}

void check_kinds(Checker& checker) {
  Random random = checker.random(2);
  const bool quick = checker.options().quick;
  for (int kind = 0; kind < kKinds; ++kind)
    for (const bool cosine : {true, false})
      for (const int64_t k : {1, 10, 100}) {
        if (quick && k != 10) continue;
        Spec spec{random.next(), static_cast<Kind>(kind)};
        spec.items = quick ? 1000 : k == 10 && cosine ? 20011 : 1501;
        spec.dim = quick ? 24 : 65;
        spec.queries = 1 + random.below(70);
        spec.cosine = cosine;
        if (random.chance(0.5)) spec.bias = Numbers::normal;
        std::vector<Setting> settings;
        for (const TopkTuning& tuning : kTunings)
          settings.push_back({k, random.pick(kThreads), tuning});
        checker.check(problem_of(spec), settings);
      }
}

void check_numbers(Checker& checker) {
  Random random = checker.random(3);
  for (int bias = 0; bias < kNumbers; ++bias)
    for (int scale = 0; scale < kNumbers; ++scale)
      for (const bool cosine : {true, false}) {
        Spec spec{random.next(), random.chance(0.5) ? Kind::normal : Kind::magnitudes};
        spec.dim = 24;
        spec.items = checker.options().quick ? 600 : 1200;
        spec.queries = 1 + random.below(40);
        spec.cosine = cosine;
        spec.bias = static_cast<Numbers>(bias);
        spec.scale = static_cast<Numbers>(scale);
        checker.check(problem_of(spec),
                      {some_setting(spec.items, random), some_setting(spec.items, random)});
      }
}

void check_extremes(Checker& checker) {
  Random random = checker.random(6);
  // Queries that have no codes, with scores and biases of one size.
  for (const float loudness : {1e-42f, 1e-37f, 1e20f, 1e37f})
    for (const Numbers scale : {Numbers::none, Numbers::normal}) {
      Spec spec{random.next(),   Kind::normal, Storage::float32, 300, 24, 6, true,
                Numbers::normal, scale};
      spec.loudness = loudness;
      checker.check(problem_of(spec), {{5, 2, {}}, {40, 1, {16, 0, 0, 0}}});
    }
  for (const Kind kind : {Kind::tiny, Kind::denormal, Kind::huge, Kind::signs})
    for (const Numbers scale : {Numbers::small, Numbers::magnitudes, Numbers::extreme})
      for (const Numbers bias : {Numbers::none, Numbers::small, Numbers::extreme})
        for (const float loudness : {1e-37f, 1e-20f, 1e20f, 1e37f})
          for (const bool cosine : {true, false}) {
            Spec spec{random.next(), kind, Storage::float32, 300, 24, 6, cosine, bias, scale};
            spec.loudness = loudness;
            checker.check(problem_of(spec),
                          {{5, 2, {}}, {some_k(300, random), 1, random.pick(kTunings)}});
          }
}

void check_filters(Checker& checker) {
  Random random = checker.random(4);
  for (int filtering = 0; filtering < kFilterings; ++filtering)
    for (const Kind kind : {Kind::normal, Kind::plateau, Kind::duplicates})
      for (const int64_t items : {17, 1000, 5037}) {
        Spec spec{random.next(), kind, Storage::float32, items, 40};
        spec.queries = 1 + random.below(40);
        spec.filtering = static_cast<Filtering>(filtering);
        if (random.chance(0.5)) spec.bias = Numbers::normal;
        const auto settings = some_settings(4, items, random);
        if (!too_large(checker, spec)) checker.check(problem_of(spec), settings);
      }
}

void check_draws(Checker& checker) {
  Random random = checker.random(5);
  for (int draw = 0; draw < (checker.options().quick ? 120 : 200); ++draw) {
    Spec spec{random.next()};
    spec.kind = static_cast<Kind>(random.below(kKinds));
    spec.storage = random.pick(kStorages);
    spec.items = random.chance(0.2) ? random.pick(kItems) : random.below(4000);
    spec.dim = random.chance(0.5) ? random.pick(kDims) : random.below(200);
    spec.queries = random.chance(0.5) ? random.pick(kQueries) : random.below(80);
    spec.cosine = random.chance(0.5);
    if (random.chance(0.6)) spec.bias = static_cast<Numbers>(random.below(kNumbers));
    if (random.chance(0.6)) spec.scale = static_cast<Numbers>(random.below(kNumbers));
    if (random.chance(0.6)) spec.filtering = static_cast<Filtering>(random.below(kFilterings));
    spec.padding = random.chance(0.5) ? 3 : 0;
    const auto settings = some_settings(3, spec.items, random);
    if (!too_large(checker, spec)) checker.check(problem_of(spec), settings);
  }
}

void check_widest(Checker& checker) {
  // The most dimensions that codes of 127 may have, one more, and too many for any code.
  for (const int64_t dim : {66311, 66312, 8421505}) {
    if (checker.options().quick && dim > 100'000) continue;
    const int64_t items = dim > 100'000 ? 2 : 35;
    const Spec spec{7, Kind::constant, Storage::float32, items, dim, dim > 100'000 ? 1 : 3};
    checker.check(problem_of(spec), {{3, 2, {}}});
  }
}

void check_bad_input(Checker& checker) {
  const Spec spec{11, Kind::normal, Storage::float32, 700, 37, 40};
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const bool in_queries : {true, false}) {
      Problem problem = problem_of(spec);
      if (!checker.wants(problem.name)) continue;
      char* rows =
          in_queries ? reinterpret_cast<char*>(problem.queries.data()) : problem.items.data.data();
      const int64_t row = in_queries ? 30 : 601;
      for (const int64_t place : {row * spec.dim + 5, (row + 8) * spec.dim})
        std::memcpy(rows + 4 * place, &bad, sizeof bad);
      const std::string want =
          sentence(in_queries ? "queries" : "items", " holds NaN or Inf in row ", row,
                   "; expected finite numbers");
      const auto refused = [&](const char* level, const auto& call) {
        now_running(want + ": level " + level);
        std::string got;
        try {
          call();
        } catch (const std::invalid_argument& error) {
          got = error.what();
        }
        checker.expect(got == want,
                       sentence("level ", level, " said '", got, "'; expected '", want, "'"));
      };
      for (const TestedLevel& level : checker.levels()) {
        if (level.emulated_gpu) continue;
        refused(level.name, [&] { search(level.topk, problem, {}, Form::plain, {10, 5, {}}); });
        if (!in_queries) refused(level.name, [&] { packed_by(level.pack, problem.items, 5); });
      }
    }
}

void check_concurrency(Checker& checker) {
  now_running("searches at the same time");
  if (!checker.wants("concurrency") || checker.options().emulated) return;
  constexpr int kCallers = 4;
  std::vector<Problem> problems;
  std::vector<Ranking> rankings;
  std::vector<Packed> packs;
  for (int caller = 0; caller < kCallers; ++caller) {
    const Spec spec{static_cast<uint64_t>(20 + caller),
                    Kind::clustered,
                    Storage::float32,
                    700 * (caller + 1),
                    33 * (caller + 1),
                    10 * caller + 3};
    problems.push_back(problem_of(spec));
    rankings.push_back(rank(problems.back()));
    packs.push_back(packed_by(pack_scalar, problems.back().items, 1));
  }
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> callers;
    callers.reserve(kCallers);
    for (int caller = 0; caller < kCallers; ++caller)
      callers.emplace_back([&, caller] {
        Random random(static_cast<uint64_t>(caller));
        for (int call = 0; call < (checker.options().quick ? 15 : 100); ++call) {
          const int64_t which = random.below(kCallers);
          const Setting setting{some_k(700, random), 2, random.pick(kTunings)};
          const Form form = random.chance(0.3) ? Form::plain : Form::packed;
          const TestedLevel& level = random.pick(checker.levels());
          const Result result = search(level.topk, problems[which], packs[which], form, setting);
          wrong += !compare(problems[which], rankings[which], setting, result).empty();
        }
      });
  }
  checker.expect(wrong == 0, sentence("concurrency: ", wrong.load(), " searches were wrong"));
}

void check_appends(Checker& checker) {
  if (checker.options().emulated) return;
  Random random = checker.random(6);
  // No number of rows fills its last block. The last problem has enough to be sampled.
  Spec specs[] = {{random.next(), Kind::clustered, Storage::float32, 333, 40, 17, true},
                  {random.next(), Kind::normal, Storage::int8_affine, 205, 5, 3, false},
                  {random.next(), Kind::plateau, Storage::float16, 187, 65, 1, true},
                  {random.next(), Kind::normal, Storage::int4_symmetric, 699, 12, 20, true}};
  specs[1].bias = specs[3].bias = Numbers::normal;
  specs[2].scale = specs[3].scale = Numbers::normal;
  for (Spec& spec : specs) {
    const Problem problem = problem_of(spec);
    if (!checker.wants(problem.name)) continue;
    now_running(problem.name + ", appended while others search");
    const Ranking ranking = rank(problem);
    Growing table(problem);
    std::vector<std::string> wrong(3);
    std::atomic<int64_t> begun{0};  // searches
    {
      std::vector<std::jthread> searchers;
      searchers.reserve(wrong.size());
      for (std::string& each : wrong)
        searchers.emplace_back([&, own = Random(random.next())] {
          each = search_all(table, checker.levels(), ranking, begun, own);
        });
      append_all(table, begun, Random(random.next()));
    }
    for (const std::string& each : wrong) checker.expect(each.empty(), each);
  }
}

}  // namespace llmrec::driver
