// The k best of each query's own list, while its scores are made: they are never all there at once.
//
// Short lists are taken many at a time. A long one is cut into parts, whose best wait until all
// are there and are merged.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "common/parallel.h"

namespace llmrec {

struct Ranked {
  float score;
  int64_t id;
};

inline bool operator<(const Ranked& a, const Ranked& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

// The k best of what was offered.
class Best {
 public:
  explicit Best(int64_t k) : k_(k) {}

  void offer(const float* scores, const int64_t* ids, int64_t count);
  void offer(const std::vector<Ranked>& others);

  // Writes k of them in order, padded with -inf and -1, and forgets them.
  void write(float* scores, int64_t* ids);

  // Hands over up to k of them, in no order, and forgets them.
  std::vector<Ranked> take();

 private:
  void cut();
  void forget();

  int64_t k_;
  std::vector<Ranked> kept_;                               // up to 2 k
  float least_ = -std::numeric_limits<float>::infinity();  // k that reach it are known
};

// Some lists, of one block of entries together; or one list, or a part of one, of any length.
struct Piece {
  int64_t first_list, last_list;  // first .. last - 1
  int64_t first, end;             // entries
};

constexpr int64_t kEntriesOfBlock = 512;

class BestOfLists {
 public:
  // Offsets [lists + 1] of the entries; results go to scores and ids, [lists, k].
  BestOfLists(const int64_t* offsets, int64_t lists, int64_t k, int64_t threads, float* scores,
              int64_t* ids);

  int64_t pieces() const { return static_cast<int64_t>(pieces_.size()); }
  const Piece& piece(int64_t number) const { return pieces_[static_cast<size_t>(number)]; }

  // Takes in entries first .. end - 1 of a piece, block by block in order, also where there are
  // none; `best` is the worker's own.
  void take(int64_t number, int64_t first, int64_t end, const float* scores, const int64_t* ids,
            Best& best);

  // After all pieces: merges the parts of long lists.
  void finish(const Parallel& parallel);

 private:
  bool is_part(const Piece& piece) const;

  const int64_t* offsets_;
  int64_t k_;
  float* scores_;
  int64_t* ids_;
  std::vector<Piece> pieces_;
  std::vector<std::vector<Ranked>> parts_;  // of pieces that are parts
};

}  // namespace llmrec
