// Selection in each query's own list: at most a few thousand entries, so a partial sort.
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "candidate_scores/candidates.h"

namespace llmrec {

void best_of_lists(const CandidateArguments& args, int64_t k, float* scores, int64_t* ids,
                   const Parallel& parallel) {
  parallel.run(args.count, [&](TaskQueue& queue) {
    std::vector<int64_t> order;
    for (int64_t query; queue.take(query);) {
      const int64_t first = args.offsets[query], length = args.offsets[query + 1] - first;
      const int64_t kept = std::min(k, length);
      order.resize(static_cast<size_t>(length));
      std::iota(order.begin(), order.end(), first);
      std::partial_sort(order.begin(), order.begin() + kept, order.end(),
                        [&](int64_t a, int64_t b) {
                          if (args.scores[a] != args.scores[b])
                            return args.scores[a] > args.scores[b];
                          return args.candidates[a] < args.candidates[b];
                        });
      for (int64_t place = 0; place < k; ++place) {
        const bool there = place < kept;
        scores[query * k + place] =
            there ? args.scores[order[place]] : -std::numeric_limits<float>::infinity();
        ids[query * k + place] = there ? args.candidates[order[place]] : -1;
      }
    }
  });
}

}  // namespace llmrec
