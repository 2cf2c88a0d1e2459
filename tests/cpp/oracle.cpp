#include "oracle.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace llmrec::driver {
namespace {

bool in(const Lists& lists, int64_t query, int64_t id) {
  const auto first = lists.ids.begin() + lists.offsets[query];
  return std::binary_search(first, lists.ids.begin() + lists.offsets[query + 1], id);
}

}  // namespace

double dot(const float* a, const float* b, int64_t dim) {
  double sums[8] = {};
  int64_t j = 0;
  for (; j + 8 <= dim; j += 8)
    for (int lane = 0; lane < 8; ++lane)
      sums[lane] += static_cast<double>(a[j + lane]) * static_cast<double>(b[j + lane]);
  for (; j < dim; ++j) sums[j % 8] += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  const double four[] = {sums[0] + sums[4], sums[1] + sums[5], sums[2] + sums[6],
                         sums[3] + sums[7]};
  return (four[0] + four[2]) + (four[1] + four[3]);
}

double inverse_norm(const float* row, int64_t dim) {
  const double norm = std::sqrt(dot(row, row, dim));
  return norm == 0 ? 0 : 1 / norm;
}

bool Problem::permits(int64_t query, int64_t item) const {
  if (!filters.allowed.empty() && filters.allowed[item] == 0) return false;
  if (!filters.mask.empty() && filters.mask[query * items.count + item] == 0) return false;
  if (!filters.exclude.offsets.empty() && in(filters.exclude, query, item)) return false;
  return filters.allow.offsets.empty() || in(filters.allow, query, item);
}

Ranking rank(const Problem& problem) {
  const int64_t dim = problem.items.dim, width = problem.items.count;
  std::vector<double> inverse(static_cast<size_t>(width));
  for (int64_t item = 0; item < width; ++item)
    inverse[item] = inverse_norm(problem.items.wide.data() + item * dim, dim);
  Ranking ranking(static_cast<size_t>(problem.count));
  for (int64_t query = 0; query < problem.count; ++query) {
    const float* vector = problem.queries.data() + query * dim;
    const double query_inverse = inverse_norm(vector, dim);
    std::vector<Ranked>& row = ranking[query];
    for (int64_t item = 0; item < width; ++item) {
      if (!problem.permits(query, item)) continue;
      double score = dot(vector, problem.items.wide.data() + item * dim, dim);
      if (problem.cosine) score = score * query_inverse * inverse[item];
      if (!problem.item_scale.empty()) score = score * problem.item_scale[item];
      score = score + (problem.item_bias.empty() ? 0.0 : problem.item_bias[item]);
      row.push_back({static_cast<float>(score), item});
    }
    std::sort(row.begin(), row.end(), [](const Ranked& a, const Ranked& b) {
      return a.score != b.score ? a.score > b.score : a.id < b.id;
    });
  }
  return ranking;
}

void exclude_best(Problem& problem, int64_t most) {
  Lists lists;
  lists.ids.reserve(1);
  lists.offsets.push_back(0);
  for (const auto& row : rank(problem)) {
    const auto length = std::min<size_t>(row.size(), static_cast<size_t>(most));
    for (size_t place = 0; place < length; ++place) lists.ids.push_back(row[place].id);
    std::sort(lists.ids.begin() + lists.offsets.back(), lists.ids.end());
    lists.offsets.push_back(static_cast<int64_t>(lists.ids.size()));
  }
  problem.filters.exclude = std::move(lists);
}

}  // namespace llmrec::driver
