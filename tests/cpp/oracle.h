// The result that the contract defines, from plain loops over the whole score matrix. It shares no
// code with the kernels.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "inputs.h"

namespace llmrec::driver {

// One search, but for how many are wanted.
struct Problem {
  std::string name;
  Items items;
  int64_t count = 0;           // B
  std::vector<float> queries;  // [B, dim]
  bool cosine = true;
  std::vector<float> item_bias, item_scale;  // [N], or empty
  Filters filters;

  bool permits(int64_t query, int64_t item) const;
};

struct Ranked {
  float score;
  int64_t id;
};

using Ranking = std::vector<std::vector<Ranked>>;  // for each query, every item that it may have

Ranking rank(const Problem& problem);

// Excludes for each query the best items that it has.
void exclude_best(Problem& problem, int64_t most);

// Eight sums in turn, then the tree 4, 2, 1.
double dot(const float* a, const float* b, int64_t dim);
double inverse_norm(const float* row, int64_t dim);

}  // namespace llmrec::driver
