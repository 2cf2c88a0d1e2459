#include "candidate_scores/best.h"

#include <algorithm>
#include <limits>

namespace llmrec {
namespace {

constexpr int64_t kListsOfPiece = 128, kPiecesOfThread = 8;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

void Best::offer(const float* scores, const int64_t* ids, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (scores[i] >= least_) {  // and so no NaN
      kept_.push_back({scores[i], ids[i]});
      if (static_cast<int64_t>(kept_.size()) / 2 >= k_) cut();
    }
}

void Best::offer(const std::vector<Ranked>& others) {
  for (const Ranked& one : others) offer(&one.score, &one.id, 1);
}

void Best::cut() {
  if (static_cast<int64_t>(kept_.size()) <= k_) return;
  std::nth_element(kept_.begin(), kept_.begin() + (k_ - 1), kept_.end());
  kept_.resize(static_cast<size_t>(k_));
  least_ = kept_.back().score;
}

void Best::write(float* scores, int64_t* ids) {
  cut();
  std::sort(kept_.begin(), kept_.end());
  for (size_t place = 0; place < kept_.size(); ++place) {
    scores[place] = kept_[place].score;
    ids[place] = kept_[place].id;
  }
  std::fill(scores + kept_.size(), scores + k_, -kInfinity);
  std::fill(ids + kept_.size(), ids + k_, int64_t{-1});
  forget();
}

std::vector<Ranked> Best::take() {
  cut();
  std::vector<Ranked> taken = kept_;
  forget();
  return taken;
}

void Best::forget() {
  kept_.clear();
  least_ = -kInfinity;
}

BestOfLists::BestOfLists(const int64_t* offsets, int64_t lists, int64_t k, int64_t threads,
                         float* scores, int64_t* ids)
    : offsets_(offsets), k_(k), scores_(scores), ids_(ids) {
  const int64_t most =
      std::max({kEntriesOfBlock, k, offsets[lists] / (kPiecesOfThread * threads) + 1});
  int64_t start = 0;  // of the lists that are not in a piece yet
  const auto close = [&](int64_t list) {
    if (start < list) pieces_.push_back({start, list, offsets[start], offsets[list]});
    start = list;
  };
  for (int64_t list = 0; list < lists; ++list) {
    const int64_t first = offsets[list], end = offsets[list + 1];
    if (end - offsets[start] > kEntriesOfBlock || list - start == kListsOfPiece) close(list);
    if (end - first <= most) continue;
    const int64_t parts = (end - first - 1) / most + 1, length = (end - first - 1) / parts + 1;
    for (int64_t part = first; part < end; part += length)
      pieces_.push_back({list, list + 1, part, std::min(end, part + length)});
    start = list + 1;
  }
  close(lists);
  parts_.resize(pieces_.size());
}

bool BestOfLists::is_part(const Piece& piece) const {
  return piece.end - piece.first < offsets_[piece.last_list] - offsets_[piece.first_list];
}

void BestOfLists::take(int64_t number, int64_t first, int64_t end, const float* scores,
                       const int64_t* ids, Best& best) {
  const Piece& piece = this->piece(number);
  for (int64_t list = piece.first_list; list < piece.last_list; ++list) {
    const int64_t from = std::max(first, offsets_[list]), to = std::min(end, offsets_[list + 1]);
    best.offer(scores + (from - first), ids + (from - first), to - from);
    if (end < piece.end) continue;  // of one list, whose rest is to come
    if (is_part(piece))
      parts_[static_cast<size_t>(number)] = best.take();
    else
      best.write(scores_ + list * k_, ids_ + list * k_);
  }
}

void BestOfLists::finish(const Parallel& parallel) {
  std::vector<size_t> first_parts;
  for (size_t i = 0; i < pieces_.size(); ++i)
    if (is_part(pieces_[i]) && pieces_[i].first == offsets_[pieces_[i].first_list])
      first_parts.push_back(i);
  parallel.run(static_cast<int64_t>(first_parts.size()), [&](TaskQueue& queue) {
    Best best(k_);
    for (int64_t task; queue.take(task);) {
      const size_t start = first_parts[static_cast<size_t>(task)];
      const int64_t list = pieces_[start].first_list;
      for (size_t i = start; i < pieces_.size() && pieces_[i].first_list == list; ++i)
        best.offer(parts_[i]);
      best.write(scores_ + list * k_, ids_ + list * k_);
    }
  });
}

}  // namespace llmrec
