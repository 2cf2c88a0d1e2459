#include "other_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "candidate_scores/candidates.h"
#include "common/widen.h"
#include "embedding_bag/bag.h"
#include "levels.h"
#include "quantize/quantize.h"
#include "roofs/roofs.h"
#include "threads.h"

namespace llmrec::driver {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

Items some_items(int64_t count, int64_t dim, Storage storage, int64_t padding, Random& random) {
  const Frame frame(dim, random);
  return stored(vectors(Kind::normal, count, dim, frame, random), count, dim, storage, padding);
}

// A few entries for each list, some lists empty.
Lists some_lists(int64_t lists, int64_t items, Random& random) {
  Lists result{{}, {0}};
  for (int64_t list = 0; list < lists; ++list) {
    for (int64_t left = random.chance(0.2) ? 0 : random.below(30); left > 0; --left)
      result.ids.push_back(random.below(items));
    result.offsets.push_back(static_cast<int64_t>(result.ids.size()));
  }
  return result;
}

// Empty ones alone, or one of two thousand entries and empty ones behind it.
Lists uneven_lists(int64_t lists, int64_t items, bool long_one, Random& random) {
  Lists result{{}, {0}};
  for (int64_t left = long_one ? 2000 : 0; left > 0; --left)
    result.ids.push_back(random.below(items));
  result.offsets.resize(static_cast<size_t>(lists) + 1, static_cast<int64_t>(result.ids.size()));
  return result;
}

// A number that a narrow float came to, in float32.
float widened(const std::vector<char>& bytes, Storage storage, int64_t i) {
  if (storage == Storage::float32) {
    float value;
    std::memcpy(&value, bytes.data() + 4 * i, 4);
    return value;
  }
  if (storage == Storage::float16) {
    Half value;
    std::memcpy(&value, bytes.data() + 2 * i, 2);
    return static_cast<float>(value);
  }
  uint16_t half;
  std::memcpy(&half, bytes.data() + 2 * i, 2);
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// One bag, in float32 and in the order of its entries; products are rounded with their sums where
// they are fused, and else before.
std::vector<float> pooled(const Items& table, const Lists& bags, int64_t bag,
                          const BagArguments& args, bool fused) {
  const int64_t dim = table.dim;
  const bool max = args.mode == Pooling::max;
  std::vector<float> sums(static_cast<size_t>(dim), max ? kNone : 0.0f);
  float weights = 0;
  int64_t entries = 0;
  for (int64_t entry = bags.offsets[bag]; entry < bags.offsets[bag + 1]; ++entry) {
    if (bags.ids[entry] == args.padding_idx) continue;
    const float* row = table.wide.data() + bags.ids[entry] * dim;
    const float weight = args.weights == nullptr ? 1.0f : args.weights[entry];
    for (int64_t j = 0; j < dim; ++j) {
      const float product = weight * row[j];
      if (max)
        sums[j] = std::max(sums[j], row[j]);
      else
        sums[j] = fused ? std::fma(weight, row[j], sums[j]) : sums[j] + product;
    }
    weights += weight;
    ++entries;
  }
  const float divisor = args.weights == nullptr ? static_cast<float>(entries) : weights;
  for (float& sum : sums) {
    if (max && entries == 0) sum = 0;
    if (args.mode == Pooling::mean) sum = divisor == 0 ? 0.0f : sum / divisor;
  }
  const double inverse = inverse_norm(sums.data(), dim);
  for (float& sum : sums)
    if (args.normalize) sum = static_cast<float>(sum * inverse);
  return sums;
}

void check_pooled(Checker& checker, const Items& table, const Lists& bags, const BagArguments& args,
                  const std::vector<char>& out, bool fused, const std::string& what) {
  std::vector<float> got, want;
  for (int64_t bag = 0; bag < args.count; ++bag)
    for (const float sum : pooled(table, bags, bag, args, fused)) {
      // The oracle's own rounding: exact for float16, and to the nearest even for bfloat16.
      got.push_back(widened(out, args.out_storage, static_cast<int64_t>(got.size())));
      want.push_back(sum);
      if (args.out_storage == Storage::float16)
        want.back() = static_cast<float>(static_cast<Half>(sum));
      if (args.out_storage == Storage::bfloat16) {
        // One of the two neighbours, and no further than half their distance.
        const float step = std::ldexp(1.0f, std::ilogb(sum == 0 ? 1.0f : sum) - 7);
        want.back() = std::abs(got.back() - sum) <= step / 2 ? got.back() : sum;
      }
      // Scales and biases of codes are added apart: the same sums up to their roundings.
      const bool coded = bits_of(table.storage) <= 8;
      if (coded && std::abs(got.back() - want.back()) <= 1e-2f * (1 + std::abs(want.back())))
        want.back() = got.back();
    }
  checker.expect(same_bits(got, want), what);
}

void check_bags(Checker& checker, const Items& table, const Lists& bags, BagArguments args,
                const std::string& what) {
  const auto size = static_cast<size_t>(args.count * table.dim);
  std::vector<char> out(size * (args.out_storage == Storage::float32 ? 4 : 2));
  args.table = table.rows();
  args.indices = bags.ids.data();
  args.offsets = bags.offsets.data();
  args.out = out.data();
  // The levels with fused multiply-adds have the same bits; the scalar one has others.
  std::vector<char> known[2];
  for (const TestedLevel& level : checker.levels()) {
    const int64_t parts = (bytes_of(table.storage, table.dim) + 15) / 16;
    if (!checker.affords(level, args.count * parts)) continue;
    now_running(sentence(what, " at ", level.name));
    std::fill(out.begin(), out.end(), char{1});
    FirstBad bad;
    level.bag(args, bad, on_threads(2));
    const bool fused = level.bag != embedding_bag_scalar;
    if (known[fused].empty()) {
      known[fused] = out;
      check_pooled(checker, table, bags, args, out, fused, sentence(what, " at ", level.name));
    }
    checker.expect(!bad.any() && out == known[fused], sentence(what, " at ", level.name));
  }
}

}  // namespace

void check_embedding_bag(Checker& checker) {
  if (!checker.wants("embedding_bag")) return;
  Random random(31);
  for (const Storage storage : kStorages)
    for (const Pooling mode : {Pooling::sum, Pooling::mean, Pooling::max})
      for (const bool weighted : {false, true}) {
        if (weighted && mode == Pooling::max) continue;
        const int64_t dim = random.pick(std::vector<int64_t>{0, 1, 5, 64, 131});
        const Items table = some_items(90, dim, storage, random.below(2) * 3, random);
        const Lists bags = some_lists(70, 90, random);
        const std::vector<float> weights =
            numbers_of(Numbers::normal, static_cast<int64_t>(bags.ids.size()), random);
        for (const Storage out : {Storage::float32, Storage::float16, Storage::bfloat16}) {
          BagArguments args;
          args.count = 70;
          args.mode = mode;
          args.weights = weighted ? weights.data() : nullptr;
          args.padding_idx = random.chance(0.5) ? 3 : -1;
          args.normalize = random.chance(0.5);
          args.out_storage = out;
          check_bags(
              checker, table, bags, args,
              sentence("embedding_bag of ", name_of(storage), " to ", name_of(out), ", d ", dim,
                       ", mode ", static_cast<int>(mode), weighted ? ", weighted" : ""));
        }
      }
}

void check_candidate_scores(Checker& checker) {
  if (!checker.wants("candidate_scores")) return;
  Random random(32);
  const bool slow = checker.threads_are_dear();
  const int64_t count = slow ? 4 : 200, k = 7;
  for (const Storage storage : kStorages)
    for (const bool cosine : {true, false}) {
      if (slow && storage != Storage::int8_affine) continue;
      const int64_t dim = random.pick(std::vector<int64_t>{1, 9, 64, 130, 0});
      const Items items = some_items(90, dim, storage, 0, random);
      const Items queries = some_items(count, dim, Storage::float32, 0, random);
      const int64_t kind = static_cast<int64_t>(storage) % 3;
      const Lists lists =
          kind == 0 ? some_lists(count, 90, random) : uneven_lists(count, 90, kind == 1, random);
      const auto numbers = [&](int64_t size) { return numbers_of(Numbers::normal, size, random); };
      const std::vector<float> query_bias = numbers(count), query_scale = numbers(count);
      const std::vector<float> item_bias = numbers(90), item_scale = numbers(90);
      std::vector<float> scores(lists.ids.size()), want;
      CandidateArguments args;
      args.queries = queries.wide.data();
      args.count = count;
      args.items = items.rows();
      args.candidates = lists.ids.data();
      args.offsets = lists.offsets.data();
      args.cosine = cosine;
      args.query_bias = query_bias.data();
      args.item_bias = item_bias.data();
      args.offset = 0.25;
      args.query_scale = query_scale.data();
      args.item_scale = item_scale.data();
      args.scores = scores.data();
      FirstBad bad_query, bad_item;
      const std::string what = sentence("candidate_scores of ", name_of(storage), ", d ", dim,
                                        cosine ? ", cosine" : ", dot");
      std::vector<float> scalar;
      for (const TestedLevel& level : checker.levels()) {
        now_running(sentence(what, " at ", level.name));
        std::fill(scores.begin(), scores.end(), 1.0f);
        level.candidates(args, bad_query, bad_item, on_threads(2));
        if (scalar.empty()) scalar = scores;
        checker.expect(same_bits(scores, scalar), sentence(what, " at ", level.name));
      }
      std::vector<float> best(static_cast<size_t>(count * k)), want_best;
      std::vector<int64_t> ids(best.size()), want_ids, first_ids;
      std::vector<float> first_best;
      args.k = k;
      args.scores = best.data();
      args.ids = ids.data();
      for (const TestedLevel& level : checker.levels()) {
        now_running(sentence(what, ", the best at ", level.name));
        std::fill(best.begin(), best.end(), 1.0f);
        std::fill(ids.begin(), ids.end(), 1);
        level.candidates(args, bad_query, bad_item, on_threads(2));
        if (first_best.empty()) first_best = best, first_ids = ids;
        checker.expect(same_bits(best, first_best) && ids == first_ids,
                       sentence(what, ", the best at ", level.name));
      }

      for (int64_t query = 0; query < count; ++query) {
        std::vector<Ranked> row;
        for (int64_t entry = lists.offsets[query]; entry < lists.offsets[query + 1]; ++entry) {
          const int64_t item = lists.ids[entry];
          const float* a = queries.wide.data() + query * dim;
          const float* b = items.wide.data() + item * dim;
          double score = dot(a, b, dim);
          if (cosine) score = score * inverse_norm(a, dim) * inverse_norm(b, dim);
          score = score * query_scale[query] * item_scale[item];
          score = score + query_bias[query] + item_bias[item] + 0.25;
          want.push_back(static_cast<float>(score));
          row.push_back({want.back(), item});
        }
        std::sort(row.begin(), row.end(), [](const Ranked& a, const Ranked& b) {
          return a.score != b.score ? a.score > b.score : a.id < b.id;
        });
        row.resize(k, {kNone, -1});
        for (const Ranked& each : row) {
          want_best.push_back(each.score);
          want_ids.push_back(each.id);
        }
      }
      checker.expect(!bad_query.any() && !bad_item.any() && same_bits(scores, want), what);
      checker.expect(same_bits(best, want_best) && ids == want_ids, what + ": the best of lists");
    }
}

void check_quantize(Checker& checker) {
  if (!checker.wants("quantize")) return;
  Random random(33);
  constexpr Storage kNarrow[] = {
      Storage::float16,     Storage::bfloat16,       Storage::int8_affine, Storage::int8_symmetric,
      Storage::int4_affine, Storage::int4_symmetric, Storage::fp8_e4m3};
  for (const Storage storage : kNarrow)
    for (const int64_t dim : {0, 1, 5, 16, 64, 257}) {
      const std::string what = sentence("quantize to ", name_of(storage), ", d ", dim);
      const int64_t count = 300, numbers = numbers_of(storage);
      const int64_t number_bytes = is_nibbles(storage) ? 2 : 4;
      const Items weight = some_items(count, dim, Storage::float32, 2, random);
      QuantizeArguments args;
      args.weight = weight.rows();
      args.storage = storage;
      std::vector<char> codes(static_cast<size_t>(count * bytes_of(storage, dim)));
      std::vector<char> scales(static_cast<size_t>(count * numbers * number_bytes));
      args.codes = codes.data();
      args.numbers = scales.data();
      std::vector<char> scalar_codes, scalar_scales;
      bool close = true;
      for (const TestedLevel& level : checker.levels()) {
        if (!checker.affords(level, count * std::min<int64_t>(32, dim / 8 + 1))) continue;
        now_running(sentence(what, " at ", level.name));
        std::fill(codes.begin(), codes.end(), char{1});
        FirstBad not_finite, too_wide;
        level.quantize(args, not_finite, too_wide, on_threads(2));
        close &= !not_finite.any() && !too_wide.any();
        if (level.name == checker.levels().front().name)
          scalar_codes = codes, scalar_scales = scales;
        checker.expect(codes == scalar_codes && scales == scalar_scales,
                       sentence(what, " at ", level.name));
      }
      Rows table{codes.data(), count, dim, bytes_of(storage, dim), storage};
      table.scale = numbers > 0 ? scales.data() : nullptr;
      table.bias = numbers > 1 ? scales.data() + number_bytes : nullptr;
      table.number_stride = std::max<int64_t>(1, numbers);
      std::vector<float> scratch(static_cast<size_t>(dim) + 1);
      for (int64_t row = 0; row < count; ++row) {
        const float* wide = widen_row(table, row, scratch.data());
        const float scale = number_at(table, table.scale, row);
        for (int64_t j = 0; j < dim; ++j) {
          const float exact = weight.wide[row * dim + j];
          double allowed = std::abs(exact) * 0x1p-8;
          if (storage == Storage::fp8_e4m3) allowed = std::abs(exact) * 0x1p-4 + scale * 0x1p-9;
          // Half a scale, and for 4 bits what the rounding of scale and bias to float16 costs.
          if (bits_of(storage) == 8 && storage != Storage::fp8_e4m3) allowed = scale * 0.5001;
          if (is_nibbles(storage)) allowed = scale * 0.51 + 0.003;
          close &= std::abs(wide[j] - exact) <= allowed;
        }
      }
      checker.expect(close, what);
    }
}

void check_roofs(Checker& checker) {
  if (!checker.wants("roofs") || checker.options().emulated) return;
  for (int level = 0; level <= static_cast<int>(RoofLevel::neon); ++level) {
    for (int kind = -2; kind <= static_cast<int>(RoofKind::float32); ++kind) {
      const std::string what = sentence("roofs: level ", level, ", kind ", kind);
      now_running(what);
      try {
        const auto which = static_cast<RoofLevel>(level);
        const double speed = kind == -2 ? copy_roof(which, 3 << 20, 1, on_threads(2))
                             : kind == -1
                                 ? read_roof(which, 3 << 20, 1, on_threads(2))
                                 : peak_roof(which, static_cast<RoofKind>(kind), 1, on_threads(2));
        checker.expect(speed > 0 && std::isfinite(speed), what);
      } catch (const std::invalid_argument&) {
        checker.expect(level != 0 || kind >= 0, what + " is refused");  // the others may be
      }
    }
  }
}

}  // namespace llmrec::driver
