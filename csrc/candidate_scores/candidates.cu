// Scores of given pairs: eight lanes for each candidate, as many candidates at once as there are.
//
// The reference score in float64, with its bits (common/score.cuh). Rows are gathered; the limit is
// memory, for the rows' 32-byte sectors. Candidates and offsets are not trusted: an entry that is
// out of range, or whose score is NaN, has none. The best of lists are selected by a block each.
#include "common/cuda.cuh"
#include "common/decode.cuh"
#include "common/score.cuh"
#include "common/select.cuh"
#if !defined(__CUDACC_RTC__)
#include "candidate_scores/candidates.h"
#endif

namespace llmrec::cuda {

constexpr int kPairThreads = 128;
constexpr int kPairs = kPairThreads / kTeam;  // of a block
constexpr int kBestThreads = 256;

struct CandidateCall {
  const float* queries;  // [count, items.dim]
  int64_t count;
  DeviceRows items;
  const int64_t* candidates;  // [entries]
  const int64_t* offsets;     // [count + 1]
  int64_t entries;
  int64_t cosine;
  const float* query_bias;  // each may be null
  const float* item_bias;
  const float* query_scale;
  const float* item_scale;
  double offset;
  double* inverse;  // [count]: of the lengths of the queries
  float* scores;    // [entries], or with a k, [count, k]
  int64_t k;        // 0 for all scores
  int64_t* ids;     // [count, k]
  uint64_t* keys;   // [entries], with a k
};

// inverse[query] = 1 / |query|.
__global__ void __launch_bounds__(kPairThreads) measure_queries(CandidateCall call) {
  const int64_t query = static_cast<int64_t>(blockIdx.x) * kPairs + threadIdx.x / kTeam;
  const bool there = query < call.count;
  const double inverse =
      inverse_length(call.queries + (there ? query * call.items.dim : 0), call.items.dim, there);
  if (there && threadIdx.x % kTeam == 0) call.inverse[query] = inverse;
}

// The list that an entry is in, or -1.
__device__ __forceinline__ int64_t list_of(const int64_t* offsets, int64_t lists, int64_t entry) {
  int64_t low = 0, high = lists;  // the last list that begins at or before the entry
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (offsets[middle + 1] <= entry)
      low = middle + 1;
    else
      high = middle;
  }
  return low < lists && offsets[low] <= entry ? low : -1;
}

// scores[entry], or keys[entry] with a k.
template <Storage kStorage>
__global__ void __launch_bounds__(kPairThreads) score_pairs(CandidateCall call) {
  const int64_t entry = static_cast<int64_t>(blockIdx.x) * kPairs + threadIdx.x / kTeam;
  int64_t query = -1, item = -1;
  if (entry < call.entries) {
    query = list_of(call.offsets, call.count, entry);
    item = call.candidates[entry];
  }
  const bool there = query >= 0 && item >= 0 && item < call.items.count;
  double score = similarity_of<kStorage>(call.queries + (there ? query * call.items.dim : 0),
                                         there ? call.inverse[query] : 0.0, call.items, item,
                                         call.cosine != 0, there);
  if (entry >= call.entries || threadIdx.x % kTeam != 0) return;
  if (there) {
    if (call.query_scale != nullptr)
      score = rounded_product(score, static_cast<double>(call.query_scale[query]));
    if (call.item_scale != nullptr)
      score = rounded_product(score, static_cast<double>(call.item_scale[item]));
    if (call.query_bias != nullptr)
      score = rounded_sum(score, static_cast<double>(call.query_bias[query]));
    if (call.item_bias != nullptr)
      score = rounded_sum(score, static_cast<double>(call.item_bias[item]));
    score = rounded_sum(score, call.offset);
  }
  const auto rounded = static_cast<float>(score);
  if (call.k > 0)
    call.keys[entry] = key_of(rounded, item);
  else
    call.scores[entry] = rounded == rounded ? rounded : -kInfinity;
}

// scores[list] and ids[list]: the k best of a list, by a block.
__global__ void __launch_bounds__(kBestThreads) best_of_lists(CandidateCall call) {
  DYNAMIC_SHARED(uint64_t, sorting);
  Selection& shared = *reinterpret_cast<Selection*>(sorting + kSorting);
  const int64_t list = blockIdx.x;
  const auto inside = [&](int64_t at) {
    return at < 0 ? 0 : at > call.entries ? call.entries : at;
  };
  const int64_t first = inside(call.offsets[list]), last = inside(call.offsets[list + 1]);
  write_best(call.keys + first, last > first ? last - first : 0, call.k, shared, sorting,
             call.scores + list * call.k, call.ids + list * call.k);
}

#if !defined(__CUDACC_RTC__)

constexpr int64_t kBestShared = kSorting * 8 + static_cast<int64_t>(sizeof(Selection));

#endif

}  // namespace llmrec::cuda

#if !defined(__CUDACC_RTC__)

namespace llmrec {
namespace {

using cuda::CandidateCall;

template <Storage kStorage>
void launch_pairs(const CandidateCall& call, cudaStream_t stream) {
  const int64_t blocks = (call.entries + cuda::kPairs - 1) / cuda::kPairs;
  LAUNCH(cuda::score_pairs<kStorage>, static_cast<unsigned>(blocks), cuda::kPairThreads, 0, stream,
         call);
}

}  // namespace

int64_t candidate_scores_cuda_workspace(const CandidateArguments& args, int64_t entries) {
  return 8 * (args.count + (args.k > 0 ? entries : 0));
}

int candidate_scores_cuda(const CandidateArguments& args, int64_t entries, void* workspace,
                          void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (args.count == 0) return 0;
  CandidateCall call = {args.queries,
                        args.count,
                        cuda::on_device(args.items),
                        args.candidates,
                        args.offsets,
                        entries,
                        args.cosine,
                        args.query_bias,
                        args.item_bias,
                        args.query_scale,
                        args.item_scale,
                        args.offset,
                        static_cast<double*>(workspace),
                        args.scores,
                        args.k,
                        args.ids,
                        static_cast<uint64_t*>(workspace) + args.count};
  if (entries > 0) {
    const int64_t blocks = (args.count + cuda::kPairs - 1) / cuda::kPairs;
    LAUNCH(cuda::measure_queries, static_cast<unsigned>(blocks), cuda::kPairThreads, 0, on, call);
    cuda::with_storage(args.items.storage,
                       [&](auto storage) { launch_pairs<decltype(storage)::value>(call, on); });
  }
  if (args.k > 0)
    LAUNCH(cuda::best_of_lists, static_cast<unsigned>(args.count), cuda::kBestThreads,
           cuda::kBestShared, on, call);
  return cuda::launched();
}

}  // namespace llmrec

#endif
