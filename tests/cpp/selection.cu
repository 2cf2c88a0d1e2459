// The selection that kernels share (common/select.cuh), alone in a block.
#include <algorithm>
#include <utility>
#include <vector>

#include "check.h"
#include "common/select.cuh"
#include "emulated_cuda.h"

namespace llmrec::driver {
namespace {

using namespace llmrec::cuda;

constexpr int64_t kShared = kSorting * 8 + static_cast<int64_t>(sizeof(Selection));

struct Scored {
  float score;
  int64_t id;
};

// Few different scores, zeros of both signs, NaN, and some ids more than once.
std::vector<Scored> draw(int64_t count, Random& random) {
  const float scores[] = {-1.5f, -0.0f, 0.0f, 0.25f, 1e-40f, 3.0f, __builtin_nanf("")};
  std::vector<Scored> all(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    all[i] = {random.pick(scores), i};
    if (i > 0 && random.chance(0.2)) all[i] = all[random.below(i)];
  }
  return all;
}

std::vector<uint64_t> keys_of(const std::vector<Scored>& all) {
  std::vector<uint64_t> keys;
  for (const auto& [score, id] : all) keys.push_back(key_of(score, id));
  return keys;
}

// The best first, and no NaN among them.
std::vector<Scored> ranked(std::vector<Scored> all) {
  std::erase_if(all, [](const Scored& each) { return each.score != each.score; });
  std::sort(all.begin(), all.end(), [](const Scored& a, const Scored& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
  });
  return all;
}

__global__ void find_kth(const uint64_t* keys, int64_t count, int64_t k, uint64_t* found) {
  DYNAMIC_SHARED(Selection, shared);
  const uint64_t key = kth_largest<uint64_t>(count, k, *shared, [&](int64_t i) { return keys[i]; });
  const uint32_t wanted = shared->wanted;
  __syncthreads();
  // Once more at once, of the upper halves.
  const uint32_t half = kth_largest<uint32_t>(
      count, k, *shared, [&](int64_t i) { return static_cast<uint32_t>(keys[i] >> 32); });
  found[3 * threadIdx.x] = key;
  found[3 * threadIdx.x + 1] = wanted;
  found[3 * threadIdx.x + 2] = half;
}

// In place, and then once more, of what is left.
__global__ void keep_small(int64_t* values, int64_t count, int64_t below, int64_t* left) {
  DYNAMIC_SHARED(Selection, shared);
  for (int turn = 0; turn < 2; ++turn) {
    count = compact<int64_t>(
        count, *shared,
        [&](int64_t i, int64_t& value) {
          value = values[i];
          return value < below >> turn;
        },
        [&](int64_t place, int64_t value) { values[place] = value; });
    left[2 * threadIdx.x + turn] = count;
  }
}

__global__ void best_of(uint64_t* keys, int64_t count, int64_t k, float* scores, int64_t* ids) {
  DYNAMIC_SHARED(uint64_t, sorting);
  Selection& shared = *reinterpret_cast<Selection*>(sorting + kSorting);
  write_best(keys, count, k, shared, sorting, scores, ids);
}

void check_kth(Checker& checker, int64_t count, int64_t k, unsigned threads, Random& random) {
  const std::vector<uint64_t> keys = keys_of(draw(count, random));
  std::vector<uint64_t> found(3 * threads), sorted = keys;
  LAUNCH(find_kth, 1, threads, sizeof(Selection), nullptr, keys.data(), count, k, found.data());
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const uint64_t want = sorted[k - 1];
  const auto equal = std::count(sorted.begin(), sorted.begin() + k, want);
  bool right = true;
  for (unsigned thread = 0; thread < threads; ++thread)
    right &= found[3 * thread] == want && found[3 * thread + 2] == want >> 32 &&
             found[3 * thread + 1] == static_cast<uint64_t>(equal);
  checker.expect(right, sentence("selection: number ", k, " of ", count, " keys"));
}

void check_compact(Checker& checker, int64_t count, unsigned threads, Random& random) {
  std::vector<int64_t> values(static_cast<size_t>(count));
  for (int64_t& value : values) value = random.below(100);
  std::vector<int64_t> want, left(2 * threads);
  for (const int64_t value : values)
    if (value < 30) want.push_back(value);
  const auto first = static_cast<int64_t>(want.size());
  std::erase_if(want, [](int64_t value) { return value >= 15; });
  const auto second = static_cast<int64_t>(want.size());
  LAUNCH(keep_small, 1, threads, sizeof(Selection), nullptr, values.data(), count, 30, left.data());
  bool right = true;
  for (unsigned thread = 0; thread < threads; ++thread)
    right &= left[2 * thread] == first && left[2 * thread + 1] == second;
  values.resize(right ? want.size() : 0);
  std::sort(values.begin(), values.end());
  std::sort(want.begin(), want.end());
  checker.expect(right && values == want, sentence("selection: what is kept of ", count));
}

void check_best(Checker& checker, int64_t count, int64_t k, unsigned threads, Random& random) {
  constexpr float kScoreGuard = 7;
  constexpr int64_t kIdGuard = -7;
  const std::vector<Scored> all = draw(count, random), want = ranked(all);
  std::vector<uint64_t> keys = keys_of(all);
  std::vector<float> scores(static_cast<size_t>(k) + 1, kScoreGuard);
  std::vector<int64_t> ids(static_cast<size_t>(k) + 1, kIdGuard);
  LAUNCH(best_of, 1, threads, kShared, nullptr, keys.data(), count, k, scores.data(), ids.data());
  bool right = scores[k] == kScoreGuard && ids[k] == kIdGuard;
  for (int64_t place = 0; place < k; ++place) {
    const bool there = place < static_cast<int64_t>(want.size());
    const Scored expected = there ? want[place] : Scored{-kInfinity, -1};
    right &=
        ids[place] == expected.id && bits_of_float(scores[place]) == bits_of_float(expected.score);
  }
  checker.expect(right, sentence("selection: the best ", k, " of ", count));
}

}  // namespace

void check_selection(Checker& checker) {
  if (!checker.options().emulated || !checker.wants("selection")) return;
  now_running("selection");
  Random random = checker.random(9);
  const std::pair<int64_t, int64_t> cases[] = {
      {1, 1},     {33, 1},    {63, 63},    {64, 10},     {65, 64},     {300, 7},     {300, 1},
      {300, 299}, {128, 128}, {1000, 500}, {2049, 2048}, {2300, 2200}, {2400, 1000}, {2400, 1500}};
  for (const unsigned threads :
       {2 * kWarp, 1024}) {  // as many as an emulated search has, and a GPU
    if (threads == 1024 && checker.threads_are_dear()) break;
    for (const auto& [count, k] : cases) {
      check_kth(checker, count, k, threads, random);
      check_compact(checker, count, threads, random);
      check_best(checker, count, k, threads, random);
    }
    // More places than keys, none at all, and more than shared memory has room for.
    for (const auto& [count, k] : {std::pair<int64_t, int64_t>{0, 3},
                                   {5, 9},
                                   {65, 70},
                                   {2048, 5},
                                   {2048, 3000},
                                   {2048, 2048},
                                   {2049, 2049},
                                   {2500, 3},
                                   {2600, 2600},
                                   {2600, 5000}})
      check_best(checker, count, k, threads, random);
  }
}

}  // namespace llmrec::driver
