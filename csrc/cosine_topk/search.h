// Certified exact top-K: scan low, prove, rescore. Each level's file includes this behind its
// target and calls search<Isa>.
//
// 1. Queries and items have int8 codes (common/sketch.h). Sums of products of codes estimate every
//    score; a bound says how far from the score an estimate can be (batch.h).
// 2. Items are read in chunks that fit the cache, and every query passes over a chunk. What an
//    estimate plus its bound cannot lift to the query's cut is dropped by one comparison; the few
//    others become candidates, which raise the cut (candidates.h).
// 3. At the end the candidates are scored with the reference score, which alone decides ids,
//    scores and ties. The certificate: no cut was ever above the k-th best score. Cuts are bets
//    that hold for all but freak data; a query whose bet was lost is searched again with certain
//    cuts.
//
// Several workers share a batch of queries: each in a lane, with candidates of its own, and with
// the best cut of all. Where candidates for every thread would take too much memory the batch is
// split into teams. Neither changes a result.
//
// An Isa has
//   Code, kTile, kRows, kDepth   the layout of the queries' codes (batch.h)
//   kGroup                       tiles whose codes stay in the L1 cache beside a strip
//   kItemOffset                  what it adds to the items' codes
//   Session                      what a thread holds while it scans; its sums(...) are the
//                                [kTile][kStrip] products of a tile of queries with a strip
//   passing(...)                 one bit for each item of a strip that may be a candidate, and a
//                                copy of the sums
//   raise_to(...)                raises sixteen lows to what two blocks of items should score
//   keep(...)                    drops the candidates whose high is below a cut
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "common/score.h"
#include "common/sketch.h"
#include "common/workspace.h"
#include "cosine_topk/batch.h"
#include "cosine_topk/candidates.h"
#include "cosine_topk/chunk.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

constexpr int64_t kChunkBytes = 512 << 10;  // of codes: they and the queries share the L2 cache
constexpr int64_t kRoundQueries = 1024;     // whose codes stay in the L2 cache
constexpr int64_t kSmallBudget = 16 << 20;  // bytes of candidates that any search may use
constexpr int64_t kLeastCapacity = 64;
constexpr int kLogged = 512;         // (query, strip) pairs that wait for a closer look
constexpr int64_t kSampled = 16;     // one strip in so many is sampled for a first cut
constexpr int64_t kFewQueries = 17;  // for fewer, memory is the limit and a sample costs

// How one call is cut up.
struct Plan {
  int64_t kept;      // min(k, N)
  int64_t capacity;  // candidates of a query in a lane
  int64_t round;     // queries at a time
  int64_t lanes;     // workers on one query
  int64_t teams;     // parts of a round
  int64_t strips;    // of a chunk
  int64_t chunks;
  // Stretches of items that are sampled for a first cut, the strips of each, and from where to
  // where; none where a sample would not pay.
  int64_t stretches = 0, stretch = 0;

  int64_t stretch_start(int64_t number, int64_t items) const {
    const int64_t strips = (items + kStrip - 1) / kStrip;
    return strips * number / stretches * kStrip;
  }

  static size_t candidate_bytes(int64_t capacity) {
    return 2 * Workspace::bytes<float>(capacity + kStrip + kWide) +
           Workspace::bytes<uint32_t>(capacity + kStrip + kWide);
  }
};

template <class Isa>
Plan plan(const TopkArguments& args, int64_t threads) {
  const TopkTuning& tuning = args.tuning;
  const int64_t items = args.items.count;
  Plan plan;
  plan.kept = std::min(args.k, items);
  plan.capacity = tuning.capacity > 0
                      ? tuning.capacity
                      : std::max(kLeastCapacity, std::min(4 * plan.kept + 256, items));
  plan.capacity = padded_to(plan.capacity, kWide);
  const auto each = static_cast<int64_t>(Plan::candidate_bytes(plan.capacity));
  const int64_t budget = std::max<int64_t>(kSmallBudget, args.count * items / 100 * 4);
  const int64_t most = tuning.round_queries > 0 ? tuning.round_queries : kRoundQueries;
  plan.round = std::clamp<int64_t>(budget / each, std::min<int64_t>(Isa::kTile, most), most);
  plan.round = std::min(plan.round, args.count);
  plan.lanes = std::clamp<int64_t>(budget / (each * std::max<int64_t>(1, plan.round)), 1, threads);
  const int64_t tiles = (plan.round + Isa::kTile - 1) / Isa::kTile;
  plan.teams = std::min((threads + plan.lanes - 1) / plan.lanes, tiles);

  const int64_t strips = (items + kStrip - 1) / kStrip;
  const int64_t strip_bytes = 2 * block_bytes(args.items.dim) + kStrip * 16;
  const int64_t bytes = tuning.chunk_bytes > 0 ? tuning.chunk_bytes : kChunkBytes;
  const int64_t even = std::max<int64_t>(1, strips / (8 * threads));  // work for everyone
  plan.strips = std::clamp<int64_t>(bytes / strip_bytes, 1, even);
  plan.chunks = (strips + plan.strips - 1) / plan.strips;

  // Each of a stretch's 16 lanes gives one number: enough of them for the k-th largest to tell.
  const int64_t sampled = strips / kSampled;
  const int64_t stretches = std::min(plan.capacity / kWide, sampled);
  const bool listed = args.filters.mask != nullptr || args.filters.allow.ids != nullptr;
  if (plan.round >= kFewQueries && !listed && 2 * stretches * kWide >= 3 * plan.kept) {
    plan.stretches = stretches;
    plan.stretch = sampled / stretches;
  }
  return plan;
}

// Which items a query may have, of those that are not ruled out for all queries.
class Permission {
 public:
  explicit Permission(const TopkArguments& args) : args_(args) {}

  bool any() const {
    const TopkFilters& filters = args_.filters;
    return filters.mask != nullptr || filters.exclude.ids != nullptr ||
           filters.allow.ids != nullptr;
  }

  // Items come in the order of their ids, so that a list is walked once.
  bool grants(int64_t query, int64_t item, Candidates& candidates) const {
    const TopkFilters& filters = args_.filters;
    if (filters.mask != nullptr && !filters.mask[query * args_.items.count + item]) return false;
    if (filters.exclude.ids != nullptr && listed(filters.exclude, query, item, candidates.excluded))
      return false;
    return filters.allow.ids == nullptr || listed(filters.allow, query, item, candidates.allowed);
  }

 private:
  static bool listed(const IdLists& lists, int64_t query, int64_t item, int64_t& walked) {
    const int64_t* list = lists.ids + lists.offsets[query];
    const int64_t length = lists.offsets[query + 1] - lists.offsets[query];
    while (walked < length && list[walked] < item) ++walked;
    return walked < length && list[walked] == item;
  }

  const TopkArguments& args_;
};

// What a thread needs to score items.
struct Scratch {
  explicit Scratch(int64_t dim) : query(static_cast<size_t>(dim)), row(static_cast<size_t>(dim)) {}

  std::vector<double> query;  // in float64
  std::vector<float> row;
  std::vector<float> lows;
  std::vector<int32_t> which;
  std::vector<Scored> found;
};

// A batch of queries that is being searched: what all of its workers share.
template <class Isa>
class Search {
 public:
  // `caution` is the share of the error bound that lows allow for; with 1 they are certain.
  Search(const TopkArguments& args, const Plan& plan, const Batch<Isa>& batch, double caution,
         Workspace& space)
      : args_(args), plan_(plan), batch_(batch), caution_(caution), permission_(args) {
    cuts_ = space.take<std::atomic<float>>(batch.count);
    for (int64_t q = 0; q < batch.count; ++q) new (&cuts_[q]) std::atomic<float>(-kInfinity);
    candidates_.resize(static_cast<size_t>(plan.lanes * batch.count));
    const int64_t room = plan.capacity + kStrip + kWide;
    for (Candidates& each : candidates_) {
      each.low = space.take<float>(room);
      each.high = space.take<float>(room);
      each.id = space.take<uint32_t>(room);
    }
  }

  static size_t bytes(const Plan& plan, int64_t count) {
    return Workspace::bytes<std::atomic<float>>(count) +
           static_cast<size_t>(plan.lanes * count) * Plan::candidate_bytes(plan.capacity);
  }

  // The whole scan. Its candidates are for finish().
  void run(const Parallel& parallel, FirstBad& bad) {
    if (plan_.stretches > 0) {
      in_lanes(parallel, plan_.stretches, [&](auto& scan, TaskQueue& queue, Chunk<Isa>& chunk) {
        scan.sample(queue, chunk, bad);
      });
      parallel.run(batch_.tiles, [&](TaskQueue& queue) {
        std::vector<float> lows;
        for (int64_t tile; queue.take(tile);)
          for (int q = 0; q < batch_.queries_of(tile); ++q) begin(tile * Isa::kTile + q, lows);
      });
    }
    in_lanes(parallel, plan_.chunks,
             [&](auto& scan, TaskQueue& queue, Chunk<Isa>& chunk) { scan.run(queue, chunk, bad); });
  }

  // Writes the result of a query; whether it is certified.
  bool finish(int64_t query, Scratch& scratch) {
    std::vector<Scored>& found = scratch.found;
    found.clear();
    const float cut = cuts_[query].load(std::memory_order_relaxed);
    int64_t waiting = 0;
    for (int64_t lane = 0; lane < plan_.lanes; ++lane) {
      Candidates& part = candidates_[lane * batch_.count + query];
      raise(part, cut);
      waiting += part.count;
      found.insert(found.end(), part.settled.begin(), part.settled.end());
    }
    if (waiting > 0) decide(query, waiting, scratch);
    std::sort(found.begin(), found.end());
    const auto count = std::min<int64_t>(plan_.kept, static_cast<int64_t>(found.size()));
    const bool full = count == plan_.kept;
    write(batch_.rows[query], found, count);
    return !args_.exact || cut == -kInfinity || (full && found[count - 1].score >= cut);
  }

 private:
  template <bool kBias>
  class Scan;

  // Runs a part of the search in every team's lanes, over a queue of tasks for each team. A worker
  // that finds its own team done helps the others, while they have lanes left.
  template <class Part>
  void in_lanes(const Parallel& parallel, int64_t tasks, const Part& part) {
    std::vector<std::unique_ptr<TaskQueue>> queues;
    for (int64_t team = 0; team < plan_.teams; ++team)
      queues.push_back(std::make_unique<TaskQueue>(tasks));
    std::vector<std::atomic<int64_t>> joined(queues.size());
    std::atomic<int64_t> workers{0};
    parallel.run(std::min(parallel.threads, plan_.teams * plan_.lanes), [&](TaskQueue&) {
      Workspace space(Chunk<Isa>::bytes(args_, plan_.strips));
      Chunk<Isa> chunk(args_, plan_.strips, space);
      const int64_t first = workers.fetch_add(1);
      for (int64_t step = 0; step < plan_.teams; ++step) {
        const int64_t team = (first + step) % plan_.teams;
        const int64_t lane = joined[team].fetch_add(1);
        if (lane >= plan_.lanes) continue;
        if (args_.item_bias != nullptr) {
          Scan<true> scan(*this, team, lane);
          part(scan, *queues[team], chunk);
        } else {
          Scan<false> scan(*this, team, lane);
          part(scan, *queues[team], chunk);
        }
      }
    });
  }

  // A first cut from what the lanes sampled: each number is reached by an item of its own, of
  // which the query's exclude list may rule out as many as it has.
  void begin(int64_t query, std::vector<float>& lows) {
    int64_t count = 0;
    for (int64_t lane = 0; lane < plan_.lanes; ++lane) count += candidates(lane, query).count;
    lows.resize(static_cast<size_t>(count + kWide));
    count = 0;
    for (int64_t lane = 0; lane < plan_.lanes; ++lane) {
      Candidates& part = candidates(lane, query);
      std::copy_n(part.low, part.count, lows.begin() + count);
      count += part.count;
      part.reset();
    }
    const IdLists& excluded = args_.filters.exclude;
    const int64_t row = batch_.rows[query];
    const int64_t ruled_out =
        excluded.ids == nullptr ? 0 : excluded.offsets[row + 1] - excluded.offsets[row];
    const float floor = floor_of_best(lows.data(), count, plan_.kept + ruled_out);
    if (floor > -kInfinity) publish(query, floor);
  }

  Candidates& candidates(int64_t lane, int64_t query) {
    return candidates_[lane * batch_.count + query];
  }

  // Tells the other lanes of a cut.
  void publish(int64_t query, float cut) {
    float known = cuts_[query].load(std::memory_order_relaxed);
    while (known < cut &&
           !cuts_[query].compare_exchange_weak(known, cut, std::memory_order_relaxed)) {
    }
  }

  // The reference score: the definition of the result.
  float score(int64_t query, int64_t item, Scratch& scratch) const {
    const Rows& rows = args_.items;
    const float* row = widen_row(rows, item, scratch.row.data());
    double value = lane_dot(scratch.query.data(), row, rows.dim);
    if (args_.cosine) {
      const double inverse =
          rows.inverse_norms ? rows.inverse_norms[item] : inverse_of(norm_of(row, rows.dim));
      value = value * batch_.inverse[query] * inverse;
    }
    if (args_.item_scale) value = value * static_cast<double>(args_.item_scale[item]);
    value = value + (args_.item_bias ? static_cast<double>(args_.item_bias[item]) : 0.0);
    return static_cast<float>(value);
  }

  void fetch(int64_t item) const {
    const char* row = static_cast<const char*>(args_.items.data) + item * args_.items.stride;
    const int64_t bytes = std::min<int64_t>(args_.items.stride, 4096);
    for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(row + byte, 0, 2);
    if (args_.items.inverse_norms != nullptr) __builtin_prefetch(args_.items.inverse_norms + item);
  }

  // Scores candidates, and adds them to `found`; in a fast search their estimate is their score.
  void rescore(int64_t query, const Candidates& from, Scratch& scratch,
               std::vector<Scored>& found) const {
    constexpr int64_t kAhead = 8;  // rows on their way from memory
    const std::vector<int32_t>& which = scratch.which;
    const auto count = static_cast<int64_t>(which.size());
    if (!args_.exact) {
      for (int64_t i = 0; i < count; ++i) found.emplace_back(from.low[which[i]], from.id[which[i]]);
      return;
    }
    for (int64_t i = 0; i < std::min(count, kAhead); ++i) fetch(from.id[which[i]]);
    for (int64_t i = 0; i < count; ++i) {
      if (i + kAhead < count) fetch(from.id[which[i + kAhead]]);
      const uint32_t item = from.id[which[i]];
      found.emplace_back(score(query, item, scratch), item);
    }
  }

  // Scores the candidates of all lanes: the likely best first, then whatever can still reach them.
  void decide(int64_t query, int64_t waiting, Scratch& scratch) {
    std::vector<float>& lows = scratch.lows;
    std::vector<int32_t>& which = scratch.which;
    std::vector<Scored>& found = scratch.found;
    std::copy_n(args_.queries + batch_.rows[query] * args_.items.dim, args_.items.dim,
                scratch.query.begin());
    lows.resize(static_cast<size_t>(waiting + kWide));
    int64_t count = 0;
    for (int64_t lane = 0; lane < plan_.lanes; ++lane) {
      const Candidates& part = candidates(lane, query);
      std::copy_n(part.low, part.count, lows.begin() + count);
      count += part.count;
    }
    const float likely = floor_of_best(lows.data(), count, plan_.kept);
    float reach = -kInfinity;
    for (const bool first : {true, false}) {
      for (int64_t lane = 0; lane < plan_.lanes; ++lane) {
        const Candidates& part = candidates(lane, query);
        which.clear();
        for (int32_t i = 0; i < part.count; ++i)
          if ((part.low[i] >= likely) == first && (first || !(part.high[i] < reach)))
            which.push_back(i);
        rescore(query, part, scratch, found);
      }
      if (static_cast<int64_t>(found.size()) >= plan_.kept) {
        std::nth_element(found.begin(), found.begin() + plan_.kept - 1, found.end());
        reach = found[plan_.kept - 1].score;
      }
    }
  }

  // Scores all candidates of a lane and keeps the k best of them, to make room.
  void settle(int64_t query, Candidates& part) {
    Scratch scratch(args_.items.dim);
    std::copy_n(args_.queries + batch_.rows[query] * args_.items.dim, args_.items.dim,
                scratch.query.begin());
    scratch.which.resize(static_cast<size_t>(part.count));
    std::iota(scratch.which.begin(), scratch.which.end(), 0);
    rescore(query, part, scratch, part.settled);
    part.count = 0;
    std::sort(part.settled.begin(), part.settled.end());
    if (static_cast<int64_t>(part.settled.size()) < plan_.kept) return;
    part.settled.erase(part.settled.begin() + plan_.kept, part.settled.end());
    const float worst = part.settled.back().score;
    publish(query, worst);
    // Whatever comes later in this lane has a larger id: an equal score loses.
    part.cut = std::max(part.cut, std::nextafter(worst, kInfinity));
  }

  // Drops what lies below a new cut.
  static void raise(Candidates& part, float cut) {
    part.cut = std::max(part.cut, cut);
    part.count = Isa::keep(part.low, part.high, part.id, part.count, part.cut);
  }

  // Raises the cut of a query in a lane, and makes room for another strip.
  void make_room(int64_t query, Candidates& part) {
    const float floor = floor_of_best(part.low, part.count, plan_.kept);
    if (floor > -kInfinity) publish(query, floor);
    raise(part, std::max(floor, cuts_[query].load(std::memory_order_relaxed)));
    if (part.count > plan_.capacity - kStrip / 2) settle(query, part);
    const int64_t more = std::max<int64_t>(plan_.kept / 2, kStrip / 2);
    part.next =
        static_cast<int32_t>(std::min(plan_.capacity, std::max(part.count + more, 2 * plan_.kept)));
  }

  void write(int64_t row, const std::vector<Scored>& found, int64_t count) const {
    float* scores = args_.scores + row * args_.k;
    int64_t* ids = args_.ids + row * args_.k;
    for (int64_t place = 0; place < count; ++place) {
      scores[place] = found[place].score;
      ids[place] = found[place].id;
    }
    std::fill(scores + count, scores + args_.k, -kInfinity);
    std::fill(ids + count, ids + args_.k, int64_t{-1});
  }

  const TopkArguments& args_;
  const Plan& plan_;
  const Batch<Isa>& batch_;
  const double caution_;
  const Permission permission_;
  std::atomic<float>* cuts_;            // [count], which the k-th best score should reach
  std::vector<Candidates> candidates_;  // [lanes, count]
};

// One lane's passage over chunks, for the queries of one team.
template <class Isa>
template <bool kBias>
class Search<Isa>::Scan {
 public:
  Scan(Search& search, int64_t team, int64_t lane)
      : search_(search), batch_(search.batch_), lane_(lane) {
    const int64_t teams = search.plan_.teams;
    first_tile_ = batch_.tiles * team / teams;
    last_tile_ = batch_.tiles * (team + 1) / teams;
    bias_error_ = search.args_.exact ? kBiasError : 0.0f;
    limits_.resize(static_cast<size_t>((last_tile_ - first_tile_) * Isa::kTile));
    const int64_t end = std::min(batch_.count, last_tile_ * Isa::kTile);
    for (int64_t q = first_tile_ * Isa::kTile; q < end; ++q) {
      Candidates& part = search_.candidates(lane_, q);
      part.reset();
      part.cut = search_.cuts_[q].load(std::memory_order_relaxed);
      part.next = static_cast<int32_t>(std::min(search.plan_.capacity, 2 * search.plan_.kept));
    }
  }

  void run(TaskQueue& queue, Chunk<Isa>& chunk, FirstBad& bad) {
    typename Isa::Session session;
    const int64_t items = search_.plan_.strips * kStrip;
    for (int64_t task; queue.take(task);) {
      const int64_t first = task * items;
      chunk.read(first, std::min(first + items, search_.args_.items.count), bad);
      for (int64_t tile = first_tile_; tile < last_tile_; tile += Isa::kGroup)
        pass(tile, std::min(tile + Isa::kGroup, last_tile_), chunk, session);
    }
  }

  // Leaves in each query's lows what the best item of each lane of a stretch should score.
  void sample(TaskQueue& queue, Chunk<Isa>& chunk, FirstBad& bad) {
    typename Isa::Session session;
    const int64_t items = search_.args_.items.count;
    const int64_t step = search_.plan_.strips * kStrip;
    for (int64_t number; queue.take(number);) {
      const int64_t first = search_.plan_.stretch_start(number, items);
      const int64_t last = std::min(items, first + search_.plan_.stretch * kStrip);
      for (int64_t tile = first_tile_; tile < last_tile_; ++tile)
        for (int q = 0; q < batch_.queries_of(tile); ++q) {
          Candidates& part = search_.candidates(lane_, tile * Isa::kTile + q);
          std::fill_n(part.low + part.count, kWide, -kInfinity);
          part.count += kWide;
        }
      for (int64_t item = first; item < last; item += step) {
        chunk.read(item, std::min(item + step, last), bad);
        for (int64_t tile = first_tile_; tile < last_tile_; ++tile) sample(tile, chunk, session);
      }
    }
  }

 private:
  // The sums of a tile of queries with a strip, on their way from the products to the candidates.
  struct Sums {
    alignas(64) int32_t values[Isa::kTile * kStrip];
    alignas(64) float least[Isa::kTile];  // what an item must reach, in units of a
    int64_t tile, slot;
    int count = 0;  // queries of the tile
  };

  // A strip with items that may be candidates of a query.
  struct Passed {
    alignas(64) int32_t values[kStrip];
    int32_t query, slot;
    uint32_t items;
  };

  // A few tiles of queries over all strips. While the products of one pair of them are on their
  // way, the sums of the pair before it are compared.
  void pass(int64_t first, int64_t last, const Chunk<Isa>& chunk, typename Isa::Session& session) {
    for (int64_t tile = first; tile < last; ++tile)
      for (int q = 0; q < batch_.queries_of(tile); ++q) refresh(tile, q);
    const int64_t dim = search_.args_.items.dim;
    Sums* now = &sums_[0];
    Sums* before = &sums_[1];
    before->count = 0;
    for (int64_t slot = 0; slot < chunk.size(); ++slot) {
      for (int64_t tile = first; tile < last; ++tile) {
        now->tile = tile;
        now->slot = slot;
        now->count = batch_.queries_of(tile);
        session.sums(batch_.codes + tile * batch_.tile_codes, batch_.start + tile * Isa::kTile,
                     now->count, chunk.strip(slot).codes, dim, now->values,
                     [&](int part, int parts) { compare(chunk, *before, part, parts); });
        if (logged_ > kLogged - 2 * Isa::kTile) drain(chunk);
        demand(chunk.strip(slot), *now);
        std::swap(now, before);
      }
    }
    compare(chunk, *before, 0, 1);
    drain(chunk);
  }

  void sample(int64_t tile, const Chunk<Isa>& chunk, typename Isa::Session& session) {
    Sums& sums = sums_[0];
    sums.tile = tile;
    const int count = batch_.queries_of(tile);
    const int64_t first = tile * Isa::kTile;
    for (int q = 0; q < Isa::kTile; ++q) limits(tile)[q] = 0.0f;
    for (int64_t slot = 0; slot < chunk.size(); ++slot) {
      const Strip& strip = chunk.strip(slot);
      if (!strip.ordinary) continue;
      session.sums(batch_.codes + tile * batch_.tile_codes, batch_.start + first, count,
                   strip.codes, search_.args_.items.dim, sums.values, [](int, int) {});
      demand(strip, sums);  // minus the error
      const Lanes lanes = chunk.lanes(slot);
      for (int q = 0; q < count; ++q) {
        const Candidates& part = search_.candidates(lane_, first + q);
        const float error = static_cast<float>(search_.caution_) * -sums.least[q];
        Isa::template raise_to<kBias>(part.low + part.count - kWide, sums.values + q * kStrip,
                                      lanes.weight, lanes.test, batch_.scale[first + q],
                                      batch_.inverse_scale[first + q], error);
      }
    }
  }

  float* limits(int64_t tile) { return limits_.data() + (tile - first_tile_) * Isa::kTile; }

  // Takes over what other lanes know of a query's cut.
  void refresh(int64_t tile, int q) {
    const int64_t query = tile * Isa::kTile + q;
    Candidates& part = search_.candidates(lane_, query);
    part.cut = std::max(part.cut, search_.cuts_[query].load(std::memory_order_relaxed));
    limit(tile, q, part);
  }

  // The cut in units of 1 / a, a little lower for its rounding.
  void limit(int64_t tile, int q, const Candidates& part) {
    const int64_t query = tile * Isa::kTile + q;
    const float cut = (part.cut - batch_.tiny[query]) * batch_.inverse_scale[query];
    limits(tile)[q] = cut - std::abs(cut) * 0x1p-20f;
  }

  // What the items of a strip must reach at least: the cut, less the largest error among them.
  void demand(const Strip& strip, Sums& sums) {
    const float* limit = limits(sums.tile);
    const int64_t first = sums.tile * Isa::kTile;
    const float* offset = batch_.offset + first;
    const float* spread = batch_.spread + first;
    const float* inverse = batch_.inverse_scale + first;
    const float bias = kBias ? strip.bias * bias_error_ : 0.0f;
    for (int q = 0; q < Isa::kTile; ++q) {
      const float error = strip.size * offset[q] + strip.residual * spread[q] + bias;
      const float least = limit[q] - error * inverse[q] * (1 + 0x1p-20f);
      sums.least[q] = least == least ? least : -kInfinity;
    }
  }

  void compare(const Chunk<Isa>& chunk, Sums& sums, int part, int parts) {
    if (sums.count == 0) return;
    const Lanes lanes = chunk.lanes(sums.slot);
    const float* inverse = batch_.inverse_scale + sums.tile * Isa::kTile;
    for (int q = sums.count * part / parts; q < sums.count * (part + 1) / parts; ++q) {
      // Written for each query and kept where an item passed: a branch would often be guessed
      // wrong, and stop the products that are on their way.
      Passed& entry = log_[logged_];
      entry.query = static_cast<int32_t>(sums.tile * Isa::kTile + q);
      entry.slot = static_cast<int32_t>(sums.slot);
      entry.items = Isa::template passing<kBias>(sums.values + q * kStrip, lanes.weight, lanes.test,
                                                 inverse[q], sums.least[q], entry.values);
      logged_ += entry.items != 0;
    }
  }

  // Looks at what passed, now that there is time: a query's candidates are far apart in memory.
  void drain(const Chunk<Isa>& chunk) {
    constexpr int kAhead = 8;
    for (int i = 0; i < logged_; ++i) {
      if (i + kAhead < logged_) {
        const Candidates& later = search_.candidates(lane_, log_[i + kAhead].query);
        __builtin_prefetch(later.low + later.count, 1);
        __builtin_prefetch(later.high + later.count, 1);
        __builtin_prefetch(later.id + later.count, 1);
      }
      const Passed& entry = log_[i];
      Candidates& part = search_.candidates(lane_, entry.query);
      admit(entry, chunk, part);
      if (part.count >= part.next) search_.make_room(entry.query, part);
    }
    logged_ = 0;
  }

  // Looks closer at the items of a strip that passed, and takes those that can win.
  void admit(const Passed& entry, const Chunk<Isa>& chunk, Candidates& part) {
    const int64_t query = entry.query;
    const Lanes lanes = chunk.lanes(entry.slot);
    const int64_t first = chunk.strip(entry.slot).first;
    const double scale = batch_.scale[query], offset = batch_.offset[query];
    const double spread = batch_.spread[query], tiny = batch_.tiny[query];
    const float* bias = search_.args_.item_bias;
    for (uint32_t items = entry.items; items != 0; items &= items - 1) {
      const int lane = std::countr_zero(items);
      double estimate = entry.values[lane] * static_cast<double>(lanes.weight[lane]) * scale;
      double error = lanes.size[lane] * (offset + lanes.residual[lane] * spread) + tiny;
      if (kBias) {
        estimate += bias[first + lane];
        error += std::abs(static_cast<double>(bias[first + lane])) * bias_error_;
      }
      auto high = static_cast<float>(estimate + error);
      if (high < part.cut) continue;
      if (search_.permission_.any() &&
          !search_.permission_.grants(batch_.rows[query], first + lane, part))
        continue;
      auto low = static_cast<float>(estimate - search_.caution_ * error);
      if (!(low == low)) low = -kInfinity;
      if (!(high == high)) high = kInfinity;
      part.append(low, high, static_cast<uint32_t>(first + lane));
    }
  }

  Search& search_;
  const Batch<Isa>& batch_;
  int64_t lane_, first_tile_, last_tile_;
  float bias_error_;
  std::vector<float> limits_;  // [tiles, kTile]
  Sums sums_[2];
  std::vector<Passed> log_ = std::vector<Passed>(kLogged);
  int logged_ = 0;
};

// Searches some of the queries; returns those that could not be certified.
template <class Isa>
std::vector<int64_t> search_round(const TopkArguments& args, const Plan& plan,
                                  const std::vector<int64_t>& rows, double caution,
                                  const Parallel& parallel) {
  const auto count = static_cast<int64_t>(rows.size());
  Workspace space(Batch<Isa>::bytes(count, args.items.dim) + Search<Isa>::bytes(plan, count));
  const Batch<Isa> batch(rows.data(), count, args.items.dim, space);
  FirstBad bad_query, bad_item;
  parallel.run(batch.tiles, [&](TaskQueue& queue) {
    Preparer<Isa> preparer(args, batch);
    for (int64_t tile; queue.take(tile);) preparer.tile(tile, bad_query);
  });
  check_finite_rows("queries", bad_query);

  Search<Isa> search(args, plan, batch, caution, space);
  search.run(parallel, bad_item);
  check_finite_rows("items", bad_item);

  constexpr int64_t kQueriesPerTask = 4;
  std::vector<uint8_t> certified(static_cast<size_t>(count));
  parallel.run((count + kQueriesPerTask - 1) / kQueriesPerTask, [&](TaskQueue& queue) {
    Scratch scratch(args.items.dim);
    for (int64_t task; queue.take(task);)
      for (int64_t q = task * kQueriesPerTask; q < std::min(count, (task + 1) * kQueriesPerTask);
           ++q)
        certified[q] = search.finish(q, scratch);
  });
  std::vector<int64_t> lost;
  for (int64_t q = 0; q < count; ++q)
    if (!certified[q]) lost.push_back(rows[q]);
  return lost;
}

template <class Isa>
void search(const TopkArguments& args, const Parallel& parallel) {
  check_value(args.items.count < int64_t{1} << 32, "items has ", args.items.count,
              " rows; expected fewer than 4,294,967,296");
  const Plan cut = plan<Isa>(args, parallel.threads);
  for (int64_t first = 0; first < args.count; first += cut.round) {
    std::vector<int64_t> rows(static_cast<size_t>(std::min(cut.round, args.count - first)));
    std::iota(rows.begin(), rows.end(), first);
    rows = search_round<Isa>(args, cut, rows, args.exact ? args.tuning.caution : 0.0, parallel);
    if (!rows.empty()) search_round<Isa>(args, cut, rows, 1.0, parallel);
  }
}

}  // namespace
}  // namespace llmrec
