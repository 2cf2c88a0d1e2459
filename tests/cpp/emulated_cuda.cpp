#include "emulated_cuda.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <tuple>
#include <utility>

#include "candidate_scores/candidates.h"
#include "cosine_topk/topk.h"
#include "embedding_bag/bag.h"
#include "pack/pack.h"
#include "quantize/quantize.h"
#include "threads.h"

#if defined(__x86_64__)
namespace llmrec {
namespace {

template <class Launch>
void expect_launched(const Launch& launch) {
  const int error = launch();
  check_value(error == 0, "a launch failed with error ", error);
}

}  // namespace

void pack_emulated_cuda(const PackArguments& args, FirstBad&, const Parallel&) {
  expect_launched([&] { return pack_cuda(args, nullptr); });
}

void embedding_bag_emulated_cuda(const BagArguments& args, FirstBad&, const Parallel&) {
  const auto workspace = std::make_unique<char[]>(embedding_bag_cuda_workspace(args));
  expect_launched(
      [&] { return embedding_bag_cuda(args, args.offsets[args.count], workspace.get(), nullptr); });
}

void quantize_emulated_cuda(const QuantizeArguments& args, FirstBad&, FirstBad&, const Parallel&) {
  expect_launched([&] { return quantize_cuda(args, nullptr); });
}

void candidate_scores_emulated_cuda(const CandidateArguments& args, FirstBad&, FirstBad&,
                                    const Parallel&) {
  const int64_t entries = args.offsets[args.count];
  const auto workspace = std::make_unique<char[]>(candidate_scores_cuda_workspace(args, entries));
  expect_launched([&] { return candidate_scores_cuda(args, entries, workspace.get(), nullptr); });
}

void cosine_topk_emulated_cuda(const TopkArguments& args, const Parallel&) {
  CudaFilters filters;
  filters.masks[0] = args.filters.allowed;
  filters.mask_rows[0] = 1;
  filters.masks[1] = args.filters.mask;
  filters.mask_rows[1] = args.filters.mask == nullptr ? 1 : args.count;
  filters.exclude = args.filters.exclude;
  filters.allow = args.filters.allow;
  if (filters.exclude.offsets != nullptr)
    filters.exclude_count = filters.exclude.offsets[args.count];
  if (filters.allow.offsets != nullptr) filters.allow_count = filters.allow.offsets[args.count];
  const auto workspace = std::make_unique<char[]>(cosine_topk_cuda_workspace(args, filters));
  expect_launched([&] { return cosine_topk_cuda(args, filters, workspace.get(), nullptr); });
}

namespace driver {
namespace {

constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinite = std::numeric_limits<float>::infinity();

// Bags with entries and bounds that are out of range pool what is left of them.
void check_untrusted_bags(Checker& checker) {
  // Rows begin at multiples of 32 bytes, and memory ends where the last one does.
  constexpr int64_t dim = 6, apart = 8, count = 6;
  std::vector<float> rows(4 * apart + dim), out(count * dim, 7.0f), want(count * dim, 0.0f);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i + 1);
  const std::vector<int64_t> indices = {1, -1, 4, 5, kMost, kLeast, 3, 2};
  const auto entries = static_cast<int64_t>(indices.size());
  // One with strangers, one that begins too early, one that ends too late, two that are backwards.
  const std::vector<int64_t> offsets = {0, 6, kLeast, 3, kMost, 7, kLeast};
  const std::vector<int64_t> members[count] = {{1, 4}, {}, {1, 4}, {3, 2}, {}, {}};
  for (int64_t bag = 0; bag < count; ++bag)
    for (const int64_t row : members[bag])
      for (int64_t j = 0; j < dim; ++j) want[bag * dim + j] += rows[row * apart + j];
  BagArguments args;
  args.table = {rows.data(), 5, dim, 4 * apart};
  args.indices = indices.data();
  args.offsets = offsets.data();
  args.count = count;
  args.out = out.data();
  expect_launched([&] { return embedding_bag_cuda(args, entries, nullptr, nullptr); });
  checker.expect(out == want, "emulated cuda: bags with entries and bounds out of range");
  args.table.count = 0;
  expect_launched([&] { return embedding_bag_cuda(args, entries, nullptr, nullptr); });
  checker.expect(out == std::vector<float>(count * dim, 0.0f), "emulated cuda: an empty table");
}

// Results that begin where vectors of 16 or 8 bytes cannot be stored are the same.
void check_unaligned_bags(Checker& checker) {
  constexpr int64_t dim = 8, count = 2;
  std::vector<float> rows(3 * dim);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i) / 8;
  const std::vector<int64_t> indices = {2, 0, 1}, offsets = {0, 2, 3};
  BagArguments args;
  args.table = {rows.data(), 3, dim, 4 * dim};
  args.indices = indices.data();
  args.offsets = offsets.data();
  args.count = count;
  for (const Storage storage : {Storage::float32, Storage::float16}) {
    args.out_storage = storage;
    const int64_t size = storage == Storage::float32 ? 4 : 2, bytes = count * dim * size;
    std::vector<char> want;
    for (int64_t shift = 0; shift < 16; shift += size) {
      std::vector<char> out(bytes + 16);
      args.out = out.data() + shift;
      expect_launched([&] { return embedding_bag_cuda(args, 3, nullptr, nullptr); });
      const std::vector<char> got(out.begin() + shift, out.begin() + shift + bytes);
      if (shift == 0) want = got;
      checker.expect(got == want,
                     sentence("emulated cuda: bags of ", name_of(storage), " that begin ", shift,
                              " bytes behind a multiple of 16"));
    }
  }
}

// The largest of a bag: of zeros the first, and a NaN wherever it is.
void check_largest_of_bags(Checker& checker) {
  const std::vector<float> rows = {0.0f, -0.0f, kNan, 1.0f};
  const std::vector<int64_t> indices = {0, 1, 1, 0, 2, 3, 3, 2}, offsets = {0, 2, 4, 6, 8};
  std::vector<float> out(4, 7.0f);
  BagArguments args;
  args.table = {rows.data(), 4, 1, 4};
  args.indices = indices.data();
  args.offsets = offsets.data();
  args.count = 4;
  args.mode = Pooling::max;
  args.out = out.data();
  expect_launched([&] { return embedding_bag_cuda(args, 8, nullptr, nullptr); });
  const bool right = out[0] == 0 && !std::signbit(out[0]) && out[1] == 0 && std::signbit(out[1]) &&
                     std::isnan(out[2]) && std::isnan(out[3]);
  checker.expect(right, "emulated cuda: the largest of zeros and of NaN");
}

// A row that is not finite, or too wide for the type, has a scale of NaN and codes 0.
void check_untrusted_weights(Checker& checker) {
  constexpr int64_t dim = 9, count = 6;
  std::vector<float> weight(count * dim, 1.5f);
  weight[0] = kNan;
  weight[dim + 8] = kInfinite;
  weight[2 * dim] = -3e38f;
  weight[2 * dim + 8] = 3e38f;
  std::fill_n(weight.begin() + 4 * dim, dim, 70000.0f);  // no float16 bias
  std::fill_n(weight.begin() + 5 * dim, dim, -70000.0f);
  for (const Storage storage : {Storage::int8_affine, Storage::int8_symmetric, Storage::int4_affine,
                                Storage::int4_symmetric, Storage::fp8_e4m3}) {
    const int64_t numbers = numbers_of(storage), width = bytes_of(storage, dim);
    std::vector<uint8_t> codes(count * width, 1);
    std::vector<char> scales(count * numbers * (is_nibbles(storage) ? 2 : 4));
    QuantizeArguments args;
    args.weight = {weight.data(), count, dim, 4 * dim};
    args.storage = storage;
    args.codes = codes.data();
    args.numbers = scales.data();
    expect_launched([&] { return quantize_cuda(args, nullptr); });
    for (int64_t row = 0; row < count; ++row) {
      const bool fits = row == 3 || (row > 3 && storage != Storage::int4_affine) ||
                        (row == 2 && !is_affine(storage) && !is_nibbles(storage));
      bool zero = true;
      for (int64_t i = 0; i < width; ++i) zero &= codes[row * width + i] == 0;
      float scale;
      if (is_nibbles(storage)) {
        Half half;
        std::memcpy(&half, scales.data() + 2 * row * numbers, 2);
        scale = static_cast<float>(half);
      } else {
        std::memcpy(&scale, scales.data() + 4 * row * numbers, 4);
      }
      const bool right = fits ? std::isfinite(scale) : std::isnan(scale) && zero;
      checker.expect(right, sentence("emulated cuda: quantize row ", row, " of what does not fit ",
                                     name_of(storage)));
    }
  }
}

// Weights of 16 bits have the codes of the float32 that they are.
void check_narrow_weights(Checker& checker) {
  constexpr int64_t dim = 21, count = 7;
  Random random = checker.random(13);
  const Frame frame(dim, random);
  const std::vector<float> rows = vectors(Kind::normal, count, dim, frame, random);
  const auto quantized = [&](const Rows& weight, Storage storage) {
    std::vector<char> codes(count * bytes_of(storage, dim)), numbers(count * 8);
    QuantizeArguments args;
    args.weight = weight;
    args.storage = storage;
    args.codes = reinterpret_cast<uint8_t*>(codes.data());
    args.numbers = numbers.data();
    expect_launched([&] { return quantize_cuda(args, nullptr); });
    codes.insert(codes.end(), numbers.begin(), numbers.end());
    return codes;
  };
  for (const Storage from : {Storage::float16, Storage::bfloat16})
    for (const Storage to : {Storage::int8_affine, Storage::int4_symmetric, Storage::fp8_e4m3}) {
      const Items narrow = stored(rows, count, dim, from, 0);
      const Items wide = stored(narrow.wide, count, dim, Storage::float32, 0);
      checker.expect(quantized(narrow.rows(), to) == quantized(wide.rows(), to),
                     sentence("emulated cuda: ", name_of(to), " of ", name_of(from)));
    }
}

// A row that is not finite has NaN for its inverse norm, no codes, and all of it left out.
void check_untrusted_items(Checker& checker) {
  constexpr int64_t dim = 5, count = 18;
  std::vector<float> items(count * dim, 1.0f);
  items[3 * dim + 4] = kNan;
  items[17 * dim] = -kInfinite;
  std::vector<double> norms(count);
  std::vector<int8_t> codes(2 * 2 * 64, 1);
  std::vector<float> unit_scale(count), residual(count);
  PackArguments args;
  args.rows = {items.data(), count, dim, 4 * dim};
  args.row_bytes = 4 * dim;
  args.inverse_norms = norms.data();
  args.sketch = {codes.data(), unit_scale.data(), residual.data()};
  expect_launched([&] { return pack_cuda(args, nullptr); });
  bool right = true;
  for (int64_t item = 0; item < 32; ++item) {
    const bool bad = item == 3 || item == 17, there = item < count;
    if (there) right &= std::isnan(norms[item]) == bad && (residual[item] == 1) == bad;
    if (there) right &= (unit_scale[item] == 0) == bad;
    for (int64_t j = 0; j < 8; ++j) {
      const int8_t code = codes[item / 16 * 128 + j / 4 * 64 + item % 16 * 4 + j % 4];
      right &= code == (there && !bad && j < dim ? 127 : 0);
    }
  }
  checker.expect(right, "emulated cuda: items that are not finite");
}

// Items whose vector, bias or scale is not a number are nobody's, and a query that is not finite
// has nothing; the others' results are as if those were not there.
void check_untrusted_search(Checker& checker) {
  constexpr int64_t dim = 9, items = 300, nobody = 1;
  Random random = checker.random(8);
  const Frame frame(dim, random);
  for (const bool cosine : {true, false})
    for (const int64_t count : {2, 35}) {
      Problem problem;
      problem.name = sentence("emulated cuda: what is NaN, B ", count);
      problem.items =
          stored(vectors(Kind::normal, items, dim, frame, random), items, dim, Storage::float32, 0);
      problem.count = count;
      problem.queries = queries_for(problem.items, Kind::normal, count, frame, random);
      problem.cosine = cosine;
      problem.item_bias = numbers_of(Numbers::normal, items, random);
      problem.item_scale = numbers_of(Numbers::normal, items, random);
      problem.item_bias[33] = kInfinite;
      problem.filters.allowed.assign(items, 1);
      for (const int64_t bad : {0, 20, 77, 299}) problem.filters.allowed[bad] = 0;
      Ranking ranking = rank(problem);
      ranking[nobody].clear();
      problem.filters.allowed.clear();
      for (const int64_t place : {int64_t{0}, 20 * dim + 8})
        std::memcpy(problem.items.data.data() + 4 * place, &kNan, sizeof kNan);
      problem.item_bias[77] = problem.item_scale[299] = problem.queries[nobody * dim + 8] = kNan;
      const Packed packed = packed_by(pack_emulated_cuda, problem.items, 1);
      // All of them, and one, for which a threshold comes from a sample.
      for (const Setting& setting : {Setting{items, 1, {}}, Setting{1, 1, {16, 0, 0, 0}}}) {
        for (const Form form : {Form::plain, Form::packed}) {
          const Result result = search(cosine_topk_emulated_cuda, problem, packed, form, setting);
          const std::string wrong = compare(problem, ranking, setting, result);
          checker.expect(wrong.empty(), problem.name + ": " + wrong);
        }
        const Result near =
            search(cosine_topk_emulated_cuda, problem, packed, Form::packed, setting, false);
        for (int64_t query = 0; query < count; ++query)
          for (int64_t place = 0; place < setting.k; ++place) {
            const int64_t id = near.ids[query * setting.k + place];
            const bool there = place < static_cast<int64_t>(ranking[query].size());
            checker.expect(
                there ? id >= 0 && id != 0 && id != 20 && id != 77 && id != 299 : id == -1,
                problem.name + ": an estimate of what is not there");
          }
      }
    }
}

// Listed ids that are out of range are passed over, and so are lists' ends.
void check_untrusted_filters(Checker& checker) {
  constexpr int64_t dim = 5, items = 64,
                    count = 3;  // the item after the last has a word of its own
  Random random = checker.random(11);
  const Frame frame(dim, random);
  Problem problem;
  problem.items =
      stored(vectors(Kind::normal, items, dim, frame, random), items, dim, Storage::float32, 0);
  problem.count = count;
  problem.queries = queries_for(problem.items, Kind::normal, count, frame, random);
  const std::vector<int64_t> listed = {-1, 5, items, kMost, kLeast, 7, 63, 30};
  const std::vector<int64_t> offsets = {kLeast, 3, 6, kMost};
  const std::vector<int64_t> members[count] = {{5}, {7}, {30, 63}};
  const Setting setting{items, 1, {}};
  for (const bool allowed : {true, false})
    for (const bool shared : {true, false}) {  // one list for all, or one for each
      problem.filters = {};
      Lists& right = allowed ? problem.filters.allow : problem.filters.exclude;
      right.offsets = {0};
      for (const auto& ids : members) {
        const auto& own = shared ? std::vector<int64_t>{5, 7, 30, 63} : ids;
        right.ids.insert(right.ids.end(), own.begin(), own.end());
        right.offsets.push_back(static_cast<int64_t>(right.ids.size()));
      }
      const Ranking ranking = rank(problem);
      TopkArguments args;
      args.queries = problem.queries.data();
      args.count = count;
      args.items = problem.items.rows();
      args.k = items;
      Result result{std::vector<float>(count * items + kGuard, 12345.0f),
                    std::vector<int64_t>(count * items + kGuard, -777)};
      args.scores = result.scores.data();
      args.ids = result.ids.data();
      CudaFilters filters;
      (allowed ? filters.allow : filters.exclude) = {listed.data(),
                                                     shared ? nullptr : offsets.data()};
      (allowed ? filters.allow_count : filters.exclude_count) = static_cast<int64_t>(listed.size());
      const auto workspace = std::make_unique<char[]>(cosine_topk_cuda_workspace(args, filters));
      expect_launched([&] { return cosine_topk_cuda(args, filters, workspace.get(), nullptr); });
      const std::string wrong = compare(problem, ranking, setting, result);
      checker.expect(wrong.empty(), sentence("emulated cuda: ", allowed ? "allowed" : "excluded",
                                             " ids out of range: ", wrong));
    }
}

// Candidates that are out of range, or in no list, have no score.
void check_untrusted_candidates(Checker& checker) {
  constexpr int64_t dim = 5, items = 9, count = 3;
  Random random = checker.random(12);
  const Frame frame(dim, random);
  const Items rows =
      stored(vectors(Kind::normal, items, dim, frame, random), items, dim, Storage::float32, 0);
  const std::vector<float> queries = vectors(Kind::normal, count, dim, frame, random);
  const std::vector<int64_t> candidates = {3, -1, 0, 8, items, kMost, kLeast, 4, 8, 2, 1};
  const auto entries = static_cast<int64_t>(candidates.size());
  // Nobody has the first entry, and the middle list is empty; or lists' ends are out of range.
  const std::vector<int64_t> within = {1, 4, 4, 10}, beyond = {kLeast, 4, 4, kMost};
  for (const int64_t number : {0, 1, 2, 3}) {
    const std::vector<int64_t>& offsets = number < 2 ? within : beyond;
    const int64_t k = number % 2 * 4;
    const int64_t slots = k == 0 ? entries : count * k;
    std::vector<float> scores(slots, 7.0f);
    std::vector<int64_t> ids(slots, -7);
    const std::vector<float> of_queries(count),
        of_items(items);  // zeros, where nobody looks beyond
    CandidateArguments args;
    if (number >= 2) {
      args.query_bias = of_queries.data();
      args.item_bias = of_items.data();
    }
    args.queries = queries.data();
    args.count = count;
    args.items = rows.rows();
    args.candidates = candidates.data();
    args.offsets = offsets.data();
    args.cosine = false;
    args.scores = scores.data();
    args.k = k;
    args.ids = ids.data();
    const auto workspace = std::make_unique<char[]>(candidate_scores_cuda_workspace(args, entries));
    expect_launched([&] { return candidate_scores_cuda(args, entries, workspace.get(), nullptr); });
    bool right = true;
    for (int64_t list = 0; list < count; ++list) {
      std::vector<Ranked> want;
      const int64_t first = std::max<int64_t>(offsets[list], 0);
      for (int64_t at = first; at < std::min(offsets[list + 1], entries); ++at) {
        const int64_t item = candidates[at];
        const bool there = item >= 0 && item < items;
        const float score = there ? static_cast<float>(dot(queries.data() + list * dim,
                                                           rows.wide.data() + item * dim, dim))
                                  : -kInfinite;
        if (k == 0) right &= scores[at] == score;
        if (there) want.push_back({score, item});
      }
      std::sort(want.begin(), want.end(),
                [](const Ranked& a, const Ranked& b) { return a.score > b.score; });
      want.resize(k, {-kInfinite, -1});
      for (int64_t place = 0; place < k; ++place)
        right &= scores[list * k + place] == want[place].score &&
                 ids[list * k + place] == want[place].id;
    }
    if (number == 0) right &= scores[0] == -kInfinite && scores[10] == -kInfinite;
    checker.expect(right, sentence("emulated cuda: candidates out of range, k ", k));
  }
}

// A mapping of which few pages are ever touched.
class Mapping {
 public:
  explicit Mapping(int64_t bytes)
      : bytes_(static_cast<size_t>(bytes)),
        start_(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    check_value(start_ != MAP_FAILED, "no ", bytes, " bytes of address space");
  }
  ~Mapping() { munmap(start_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  char* at(int64_t byte) const { return static_cast<char*>(start_) + byte; }

 private:
  size_t bytes_;
  void* start_;
};

// Rows, and their scales, that lie 2^31 elements apart give the bits of rows side by side.
void check_far_rows(Checker& checker) {
  constexpr int64_t dim = 20, count = 18, apart = (int64_t{1} << 31) + 48;
  Random random = checker.random(10);
  const Frame frame(dim, random);
  const Items near = stored(vectors(Kind::normal, count, dim, frame, random), count, dim,
                            Storage::int8_symmetric, 0);
  const Mapping data(count * apart), scales(count * apart * 4);
  Rows far = near.rows();
  far.stride = far.number_stride = apart;
  far.data = data.at(0);
  far.scale = scales.at(0);
  for (int64_t row = 0; row < count; ++row) {
    std::memcpy(data.at(row * apart), near.data.data() + row * near.stride, dim);
    std::memcpy(scales.at(row * apart * 4), near.scale.data() + row * 4, 4);
  }
  const std::vector<float> queries = vectors(Kind::normal, 1, dim, frame, random);
  const std::vector<int64_t> ids = {17, 0, 5, 17}, offsets = {0, 4};
  const auto results = [&](const Rows& rows) {
    const auto entries = static_cast<int64_t>(ids.size());
    std::vector<float> pooled(dim), scores(entries), best(5);
    std::vector<int64_t> best_ids(5);
    BagArguments bags;
    bags.table = rows;
    bags.indices = ids.data();
    bags.offsets = offsets.data();
    bags.count = 1;
    bags.out = pooled.data();
    expect_launched([&] { return embedding_bag_cuda(bags, entries, nullptr, nullptr); });
    CandidateArguments pairs;
    pairs.queries = queries.data();
    pairs.count = 1;
    pairs.items = rows;
    pairs.candidates = ids.data();
    pairs.offsets = offsets.data();
    pairs.scores = scores.data();
    FirstBad unused;
    candidate_scores_emulated_cuda(pairs, unused, unused, on_threads(1));
    TopkArguments search;
    search.queries = queries.data();
    search.count = 1;
    search.items = rows;
    search.k = 5;
    search.scores = best.data();
    search.ids = best_ids.data();
    cosine_topk_emulated_cuda(search, on_threads(1));
    for (const auto* each : {&scores, &best})
      pooled.insert(pooled.end(), each->begin(), each->end());
    return std::pair(pooled, best_ids);
  };
  checker.expect(results(far) == results(near.rows()), "emulated cuda: rows 2^31 elements apart");
  // float32 rows, packed and quantized.
  const std::vector<float> weight = vectors(Kind::normal, count, dim, frame, random);
  for (int64_t row = 0; row < count; ++row)
    std::memcpy(data.at(row * apart), weight.data() + row * dim, 4 * dim);
  const auto made = [&](const Rows& rows) {
    std::vector<double> norms(count);
    std::vector<char> copies(count * dim * 4), codes(count * dim);
    std::vector<int8_t> sketch((count + 15) / 16 * (dim + 3) / 4 * 64);
    std::vector<float> scale(count), unit_scale(count), residual(count);
    PackArguments args;
    args.rows = rows;
    args.row_bytes = 4 * dim;
    args.data = copies.data();
    args.inverse_norms = norms.data();
    args.sketch = {sketch.data(), unit_scale.data(), residual.data()};
    expect_launched([&] { return pack_cuda(args, nullptr); });
    QuantizeArguments into;
    into.weight = rows;
    into.storage = Storage::int8_symmetric;
    into.codes = reinterpret_cast<uint8_t*>(codes.data());
    into.numbers = scale.data();
    expect_launched([&] { return quantize_cuda(into, nullptr); });
    copies.insert(copies.end(), codes.begin(), codes.end());
    return std::tuple(copies, norms, scale, sketch, unit_scale, residual);
  };
  checker.expect(
      made({data.at(0), count, dim, apart}) == made({weight.data(), count, dim, 4 * dim}),
      "emulated cuda: float32 rows 2^31 bytes apart");
}

}  // namespace

void check_emulated_cuda(Checker& checker) {
  if (!checker.options().emulated || !checker.wants("emulated cuda")) return;
  now_running("emulated cuda: contents that are not right");
  check_untrusted_bags(checker);
  check_unaligned_bags(checker);
  check_largest_of_bags(checker);
  check_untrusted_weights(checker);
  check_narrow_weights(checker);
  check_untrusted_items(checker);
  check_untrusted_candidates(checker);
  if (checker.threads_are_dear()) return;
  now_running("emulated cuda: NaN");
  check_untrusted_search(checker);
  check_untrusted_filters(checker);
  now_running("emulated cuda: rows that are far apart");
  check_far_rows(checker);
}

}  // namespace driver
}  // namespace llmrec
#else
namespace llmrec::driver {

void check_emulated_cuda(Checker&) {}
void check_selection(Checker&) {}

}  // namespace llmrec::driver
#endif
