// A batch of queries that is being searched: the candidates of every lane, the cuts that lanes tell
// each other, and the decision at the end.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "common/score.h"
#include "common/workspace.h"
#include "cosine_topk/batch.h"
#include "cosine_topk/candidates.h"
#include "cosine_topk/chunk.h"
#include "cosine_topk/permission.h"
#include "cosine_topk/plan.h"
#include "cosine_topk/scorer.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

constexpr int kLogged = 512;  // (query, strip) pairs that wait for a closer look

// A strip with items that may be candidates of a query.
struct Passed {
  alignas(64) int32_t values[kStrip];
  int32_t query, slot;
  uint32_t items;
};

// What a thread needs to decide.
struct Scratch {
  explicit Scratch(const TopkArguments& args) : scorer(args) {}

  Scorer scorer;
  std::vector<float> lows;
  std::vector<int32_t> which;
  std::vector<Scored> found;
};

template <class Isa>
class Search {
 public:
  // `caution` is the share of the error bound that lows allow for; with 1 they are certain.
  Search(const TopkArguments& args, const Plan& plan, const Batch<Isa>& batch, double caution,
         Workspace& space)
      : args_(args), plan_(plan), batch_(batch), caution_(caution) {
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
    write_best(args_, batch_.rows[query], found);
    const bool full = static_cast<int64_t>(found.size()) >= plan_.kept;
    return !args_.exact || cut == -kInfinity || (full && found[plan_.kept - 1].score >= cut);
  }

 private:
  template <bool kBias>
  class Scan;

  // Runs a part of the search in every team's lanes, over a queue of tasks for each team. A worker
  // that finds its own team done helps the others, while they have lanes left.
  template <class Part>
  void in_lanes(const Parallel& parallel, int64_t tasks, const Part& part) {
    std::vector<std::unique_ptr<TaskQueue>> queues;
    queues.reserve(static_cast<size_t>(plan_.teams));
    for (int64_t team = 0; team < plan_.teams; ++team)
      queues.push_back(std::make_unique<TaskQueue>(tasks));
    std::vector<std::atomic<int64_t>> joined(queues.size());
    std::atomic<int64_t> workers{0};
    parallel.run(std::min(parallel.threads, plan_.teams * plan_.lanes), [&](TaskQueue&) {
      Workspace space(Chunk<Isa>::bytes(args_, plan_.strips) + Workspace::bytes<Passed>(kLogged));
      Chunk<Isa> chunk(args_, plan_.strips, space);
      auto* log = space.take<Passed>(kLogged);
      const int64_t first = workers.fetch_add(1);
      for (int64_t step = 0; step < plan_.teams; ++step) {
        const int64_t team = (first + step) % plan_.teams;
        const int64_t lane = joined[team].fetch_add(1);
        if (lane >= plan_.lanes) continue;
        if (args_.item_bias != nullptr) {
          Scan<true> scan(*this, team, lane, log);
          part(scan, *queues[team], chunk);
        } else {
          Scan<false> scan(*this, team, lane, log);
          part(scan, *queues[team], chunk);
        }
      }
    });
  }

  // A first cut from what the lanes sampled: each number is reached by an item of its own, of
  // which the query's exclude list rules out some.
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
    int64_t ruled_out = 0;
    if (excluded.ids != nullptr)
      for (int64_t i = excluded.offsets[row]; i < excluded.offsets[row + 1]; ++i)
        ruled_out += excluded.ids[i] >= 0 && excluded.ids[i] < args_.items.count &&
                     plan_.samples(excluded.ids[i], args_.items.count);
    const float floor = floor_of_best(lows.data(), count, sample_rank() + ruled_out);
    if (floor > -kInfinity) publish(query, floor - std::abs(floor) * 0x1p-20f);
  }

  // The place, among the sampled numbers, of the first cut. Place k is safe: so many items reach
  // it. The bet is on an earlier one: that the sample has its share of the k best items, give or
  // take five standard deviations, and two stretches in which all lanes are among them.
  int64_t sample_rank() const {
    if (!args_.exact || caution_ >= 1.0) return plan_.kept;
    const double share = static_cast<double>(plan_.stretches * plan_.stretch * kStrip) /
                         static_cast<double>(args_.items.count);
    const double expected = share * static_cast<double>(plan_.kept);
    return std::min(plan_.kept,
                    static_cast<int64_t>(expected + 5 * std::sqrt(expected)) + 2 * kWide);
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

  // Scores candidates, and adds them to `found`; in a fast search their estimate is their score.
  void rescore(int64_t query, const Candidates& from, Scratch& scratch,
               std::vector<Scored>& found) const {
    const std::vector<int32_t>& which = scratch.which;
    const auto count = static_cast<int64_t>(which.size());
    if (!args_.exact) {
      for (int64_t i = 0; i < count; ++i) found.emplace_back(from.low[which[i]], from.id[which[i]]);
      return;
    }
    Scorer& scorer = scratch.scorer;
    scorer.take(batch_.rows[query], batch_.inverse[query]);
    scorer.scores(count, [&](int64_t i) { return from.id[which[i]]; }, found);
  }

  // Scores the candidates of all lanes: the likely best first, then whatever can still reach them.
  void decide(int64_t query, int64_t waiting, Scratch& scratch) {
    std::vector<float>& lows = scratch.lows;
    std::vector<int32_t>& which = scratch.which;
    std::vector<Scored>& found = scratch.found;
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
    Scratch scratch(args_);
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
    const int64_t more = std::max<int64_t>(plan_.kept, kStrip / 2);
    part.next =
        static_cast<int32_t>(std::min(plan_.capacity, std::max(part.count + more, 2 * plan_.kept)));
  }

  const TopkArguments& args_;
  const Plan& plan_;
  const Batch<Isa>& batch_;
  const double caution_;
  std::atomic<float>* cuts_;            // [count], which the k-th best score should reach
  std::vector<Candidates> candidates_;  // [lanes, count]
};

}  // namespace
}  // namespace llmrec
