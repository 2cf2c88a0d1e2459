// Exact top-K in portable C++, written so that the compiler vectorises the one hot loop.
//
// Items are read in strips of 16, transposed so that a lane is an item. A float32 sum estimates
// the score of each (query, item), and a rounding bound says how far the estimate can be off.
// Where estimate plus bound reaches the query's k-th best score so far, the reference score
// (common/score.h) decides; everything else is proved to lose. Work is split into blocks of
// queries, and over stretches of items where there are few queries; a merge in (score down, id)
// order makes the result independent of the split.
//
// The bound: |computed dot - dot| <= gamma_d |q| |x| for any order of summation, with
// gamma_d = d u / (1 - d u), u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms,
// section 3.1), plus what underflow loses; a few more u cover the rounding of the unit query and
// of the float64 steps behind it. Rounding to float32 is monotone, so a bound above the exact
// value stays above the score when both are rounded.
//
// Cost of the hot loop for one strip and two queries, per dimension: 4 loads and 2 broadcasts for
// 32 multiply-adds; with SSE2 8 multiplies and 8 additions, which bind.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/score.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

constexpr int64_t kLanes = 16;              // items in a strip
constexpr int64_t kQueryBlock = 128;        // queries that share a transposed strip
constexpr int64_t kShortestStretch = 1024;  // items; a shorter one costs more than it balances

struct Scored {
  float score;
  int64_t id;
};

// (score down, id up): the order of the results, and with it a heap keeps its worst on top.
inline bool better(const Scored& a, const Scored& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

// The k best so far of one query.
class Best {
 public:
  explicit Best(int64_t k = 0) : k_(k) {}

  // Whether nothing up to this score can enter. Items come in the order of their ids, so that an
  // equal score loses; a NaN proves nothing.
  bool beyond(float upper) const { return full() && upper <= heap_.front().score; }

  void offer(const Scored& candidate) {
    if (full()) {
      if (!better(candidate, heap_.front())) return;
      std::pop_heap(heap_.begin(), heap_.end(), better);
      heap_.back() = candidate;
    } else {
      heap_.push_back(candidate);
    }
    std::push_heap(heap_.begin(), heap_.end(), better);
  }

  const std::vector<Scored>& entries() const { return heap_; }

 private:
  bool full() const { return static_cast<int64_t>(heap_.size()) == k_; }

  int64_t k_;
  std::vector<Scored> heap_;
};

// What all workers read: the queries as the scan wants them.
struct Queries {
  std::vector<float> unit;      // [B, dim]
  std::vector<double> norm;     // [B]
  std::vector<double> inverse;  // [B]
};

Queries prepare(const TopkArguments& args, const Parallel& parallel) {
  Queries queries;
  queries.unit.resize(static_cast<size_t>(args.count * args.items.dim));
  queries.norm.resize(static_cast<size_t>(args.count));
  queries.inverse.resize(static_cast<size_t>(args.count));
  const int64_t dim = args.items.dim;
  FirstBad bad;
  parallel.run((args.count + kQueryBlock - 1) / kQueryBlock, [&](TaskQueue& queue) {
    for (int64_t task; queue.take(task);) {
      const int64_t end = std::min(args.count, (task + 1) * kQueryBlock);
      for (int64_t q = task * kQueryBlock; q < end; ++q) {
        const float* row = args.queries + q * dim;
        const double norm = norm_of(row, dim), inverse = inverse_of(norm);
        if (!std::isfinite(norm)) bad.note(q);
        queries.norm[q] = norm;
        queries.inverse[q] = inverse;
        float* unit = queries.unit.data() + q * dim;
        for (int64_t j = 0; j < dim; ++j) unit[j] = static_cast<float>(row[j] * inverse);
      }
    }
  });
  check_finite_rows("queries", bad);
  return queries;
}

// Sixteen items: their rows, the transposed copy that the scan reads, and the estimate's terms.
struct Strip {
  explicit Strip(int64_t dim)
      : rows(static_cast<size_t>(kLanes * dim)), lanes(static_cast<size_t>(kLanes * dim)) {}

  int64_t first = 0;
  int64_t count = 0;
  std::vector<float> rows;   // [16, dim], where the items are not float32 already
  std::vector<float> lanes;  // [dim, 16]
  const float* row[kLanes];
  double inverse[kLanes];
  // upper(query, item) = |q| (S weight + error) + bias, with |q| = 1 for the cosine, or 0
  double weight[kLanes], error[kLanes], bias[kLanes], bias_error[kLanes];
};

// Loads items first .. first + 15 and notes one that is not finite.
void load(const TopkArguments& args, int64_t first, int64_t end, Strip& strip, FirstBad& bad) {
  constexpr double kUnitRoundoff = 0x1p-24, kSmallestNormal = 0x1p-126;
  const double largest = std::numeric_limits<float>::max();
  const int64_t dim = args.items.dim;
  const double gamma = static_cast<double>(dim + 16) * kUnitRoundoff * 1.01;
  const double underflow = static_cast<double>(dim + 16) * 4 * kSmallestNormal;
  strip.first = first;
  strip.count = std::min(kLanes, end - first);
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    if (lane >= strip.count) {
      for (int64_t j = 0; j < dim; ++j) strip.lanes[j * kLanes + lane] = 0.0f;
      continue;
    }
    const int64_t item = first + lane;
    const float* row = widen_row(args.items, item, strip.rows.data() + lane * dim);
    strip.row[lane] = row;
    for (int64_t j = 0; j < dim; ++j) strip.lanes[j * kLanes + lane] = row[j];
    double norm;
    if (args.items.inverse_norms != nullptr) {
      strip.inverse[lane] = args.items.inverse_norms[item];
      norm = inverse_of(strip.inverse[lane]);
    } else {
      norm = norm_of(row, dim);
      if (!std::isfinite(norm)) bad.note(item);
      strip.inverse[lane] = inverse_of(norm);
    }
    const double scale = args.item_scale ? args.item_scale[item] : 1.0;
    const double weight = args.cosine ? strip.inverse[lane] * scale : scale;
    strip.weight[lane] = weight;
    strip.error[lane] = std::abs(weight) * (gamma * norm + underflow);
    // Beyond this a float32 sum may overflow: nothing is known of the score.
    if (norm > largest / 4) strip.error[lane] = std::numeric_limits<double>::infinity();
    strip.bias[lane] = args.item_bias ? args.item_bias[item] : 0.0;
    strip.bias_error[lane] = std::abs(strip.bias[lane]) * 0x1p-50;
  }
}

// Four floats, which every processor since SSE2 and NEON adds and multiplies at once. Spelt out
// because GCC leaves an array of sums in memory, which is several times slower.
typedef float Quad __attribute__((vector_size(16)));

// Estimates of two queries against the sixteen items of a strip: sums [2, 16].
void dots(const float* lanes, const float* a, const float* b, int64_t dim, float* sums) {
  Quad first[4] = {}, second[4] = {};
  for (int64_t j = 0; j < dim; ++j) {
    Quad items[4];
    std::memcpy(items, lanes + j * kLanes, sizeof items);
    const Quad qa = {a[j], a[j], a[j], a[j]}, qb = {b[j], b[j], b[j], b[j]};
    for (int part = 0; part < 4; ++part) {
      first[part] += items[part] * qa;
      second[part] += items[part] * qb;
    }
  }
  std::memcpy(sums, first, sizeof first);
  std::memcpy(sums + kLanes, second, sizeof second);
}

bool contains(const IdLists& lists, int64_t query, int64_t id) {
  return std::binary_search(lists.ids + lists.offsets[query], lists.ids + lists.offsets[query + 1],
                            id);
}

// A strip with nothing to find is not read, where its items were checked when they were packed.
bool worth_reading(const TopkArguments& args, int64_t first, int64_t last) {
  const TopkFilters& filters = args.filters;
  return !filters.allowed || !args.items.inverse_norms ||
         std::any_of(filters.allowed + first, filters.allowed + last,
                     [](uint8_t flag) { return flag != 0; });
}

bool permitted(const TopkArguments& args, int64_t query, int64_t item) {
  const TopkFilters& filters = args.filters;
  if (filters.allowed && !filters.allowed[item]) return false;
  if (filters.mask && !filters.mask[query * args.items.count + item]) return false;
  if (filters.allow.ids && !contains(filters.allow, query, item)) return false;
  return !filters.exclude.ids || !contains(filters.exclude, query, item);
}

// The reference score: the definition of the result.
float score_of(const TopkArguments& args, const Queries& queries, int64_t query, const Strip& strip,
               int64_t lane) {
  const int64_t dim = args.items.dim;
  double value = lane_dot(args.queries + query * dim, strip.row[lane], dim);
  if (args.cosine) value = value * queries.inverse[query] * strip.inverse[lane];
  if (args.item_scale) value = value * static_cast<double>(args.item_scale[strip.first + lane]);
  value = value + (args.item_bias ? static_cast<double>(args.item_bias[strip.first + lane]) : 0.0);
  return static_cast<float>(value);
}

// Offers the items of a strip that can reach the query's k best.
void offer(const TopkArguments& args, const Queries& queries, int64_t query, const Strip& strip,
           const float* sums, Best& best) {
  const double unit = queries.inverse[query] == 0.0 ? 0.0 : 1.0;
  const double norm = args.cosine ? unit : queries.norm[query];
  float upper[kLanes];
  for (int64_t lane = 0; lane < strip.count; ++lane) {
    const double reach = sums[lane] * strip.weight[lane] + strip.error[lane];
    upper[lane] = static_cast<float>(norm * reach + strip.bias[lane] + strip.bias_error[lane]);
  }
  for (int64_t lane = 0; lane < strip.count; ++lane) {
    if (best.beyond(upper[lane])) continue;
    const int64_t item = strip.first + lane;
    if (!permitted(args, query, item)) continue;
    best.offer({score_of(args, queries, query, strip, lane), item});
  }
}

// A block of queries against a stretch of items.
void scan(const TopkArguments& args, const Queries& queries, int64_t first_query,
          int64_t last_query, int64_t first_item, int64_t last_item, Strip& strip, Best* best,
          FirstBad& bad) {
  const int64_t dim = args.items.dim;
  float sums[2 * kLanes];
  for (int64_t item = first_item; item < last_item; item += kLanes) {
    if (!worth_reading(args, item, std::min(last_item, item + kLanes))) continue;
    load(args, item, last_item, strip, bad);
    for (int64_t q = first_query; q < last_query; q += 2) {
      const int64_t pair = std::min(q + 1, last_query - 1);
      const float* unit = queries.unit.data();
      dots(strip.lanes.data(), unit + q * dim, unit + pair * dim, dim, sums);
      offer(args, queries, q, strip, sums, best[q - first_query]);
      if (pair != q) offer(args, queries, pair, strip, sums + kLanes, best[pair - first_query]);
    }
  }
}

// The best of all stretches, in order, and padding where there are fewer than k.
void write(const TopkArguments& args, int64_t query, std::vector<Scored>& found) {
  std::sort(found.begin(), found.end(), better);
  float* scores = args.scores + query * args.k;
  int64_t* ids = args.ids + query * args.k;
  const int64_t kept = std::min<int64_t>(args.k, static_cast<int64_t>(found.size()));
  for (int64_t place = 0; place < kept; ++place) {
    scores[place] = found[place].score;
    ids[place] = found[place].id;
  }
  std::fill(scores + kept, scores + args.k, -std::numeric_limits<float>::infinity());
  std::fill(ids + kept, ids + args.k, int64_t{-1});
}

}  // namespace

void cosine_topk_scalar(const TopkArguments& args, const Parallel& parallel) {
  const Queries queries = prepare(args, parallel);
  const int64_t blocks = (args.count + kQueryBlock - 1) / kQueryBlock;
  // Stretches of items give every thread work where there are fewer blocks of queries.
  const int64_t wanted = blocks == 0 ? 1 : (2 * parallel.threads + blocks - 1) / blocks;
  const int64_t longest = std::max<int64_t>(1, args.items.count / kShortestStretch);
  const int64_t stretches = blocks >= 2 * parallel.threads ? 1 : std::min(wanted, longest);
  const int64_t strips = (args.items.count + kLanes - 1) / kLanes;
  const int64_t length = (strips + stretches - 1) / stretches * kLanes;

  const int64_t kept = std::min(args.k, args.items.count);
  std::vector<std::vector<Best>> best(static_cast<size_t>(blocks * stretches));
  FirstBad bad;
  parallel.run(blocks * stretches, [&](TaskQueue& queue) {
    Strip strip(args.items.dim);
    for (int64_t task; queue.take(task);) {
      const int64_t first_query = task / stretches * kQueryBlock;
      const int64_t last_query = std::min(args.count, first_query + kQueryBlock);
      const int64_t first_item = task % stretches * length;
      const int64_t last_item = std::min(args.items.count, first_item + length);
      best[task].assign(static_cast<size_t>(last_query - first_query), Best(kept));
      if (kept == 0) continue;
      scan(args, queries, first_query, last_query, first_item, last_item, strip, best[task].data(),
           bad);
    }
  });
  check_finite_rows("items", bad);

  parallel.run(blocks, [&](TaskQueue& queue) {
    std::vector<Scored> found;
    for (int64_t block; queue.take(block);) {
      const int64_t end = std::min(args.count, (block + 1) * kQueryBlock);
      for (int64_t q = block * kQueryBlock; q < end; ++q) {
        found.clear();
        for (int64_t stretch = 0; stretch < stretches; ++stretch) {
          const auto& part = best[block * stretches + stretch][q - block * kQueryBlock].entries();
          found.insert(found.end(), part.begin(), part.end());
        }
        write(args, q, found);
      }
    }
  });
}

}  // namespace llmrec
