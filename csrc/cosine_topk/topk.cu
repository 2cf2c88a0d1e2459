// Certified exact top-K on a GPU: an int8 scan bounds every score, the reference score decides.
//
// Queries come in batches that share a bounded workspace, items in chunks where they have no sketch
// yet. Of each batch:
//
//   sketch_queries   int8 codes and what they may be off by
//   scan, sampling   what the best score of each 32 items of a sample is at least
//   set_threshold    the k-th largest of those: no lower score is among the k best
//   scan             the items whose score can reach the threshold, a few thousand
//   narrow           a higher threshold from those, and fewer items
//   scan, narrow     once more for queries whose items did not fit, by that threshold
//   score_groups,    for queries of which even that leaves too many, or of which no bound is known:
//   choose_groups      the reference score of all items, of which the k best groups are kept
//   rescore          the reference score of what is left
//   write_results    the k best
//
// How many launches there are is known from the shapes: nothing waits for the device, and a graph
// can hold them. Thresholds are certain, so that what was found in which order changes nothing.
#include "cosine_topk/decide.cuh"
#include "cosine_topk/scan.cuh"
#if !defined(__CUDACC_RTC__)
#include <algorithm>

#include "cosine_topk/topk.h"
#include "pack/pack.h"
#endif

#if !defined(__CUDACC_RTC__)

namespace llmrec {
namespace {

using namespace cuda;

constexpr int64_t kWorkspaceBytes = 1 << 30;  // of a batch of queries
constexpr int64_t kChunkBytes = 32 << 20;     // of codes that are made on the way: they stay in L2
constexpr int64_t kMostQueries = 4096, kFewestQueries = 8;
constexpr int64_t kFewQueries = 8;  // that scan_few takes
constexpr int64_t kPadded = 128;    // queries, in their codes
constexpr int64_t kLeastCapacity = 8192, kCapacityOfK = 128;
constexpr int64_t kSampledShare = 16;  // a sample has one tile in so many
constexpr int64_t kScanTiles = kScanners / kWarp;
constexpr int64_t kQueriesForMost = 64;  // to which each gets kMostDeciders threads
constexpr int64_t kResultShared = kSorting * 8 + static_cast<int64_t>(sizeof(Selection));

int64_t parts(int64_t count, int64_t size) { return (count + size - 1) / size; }
int64_t padded(int64_t count, int64_t size) { return parts(count, size) * size; }
unsigned blocks_of(int64_t count, int64_t size) {
  return static_cast<unsigned>(parts(count, size));
}

// How one call is cut up.
struct Plan {
  int64_t groups;              // of 32 items
  int64_t capacity;            // entries of a query
  int64_t chunk;               // items
  int64_t batch;               // queries
  int64_t tile_step, sampled;  // of the sample: 0 groups for none
  bool filtered, per_query, sketched, overflows;
  int64_t words() const { return filtered ? groups : 0; }
};

Plan plan_of(const TopkArguments& args, const CudaFilters& filters) {
  const int64_t items = args.items.count, kept = std::min(args.k, items);
  const TopkTuning& tuning = args.tuning;
  Plan plan = {};
  plan.groups = parts(items, kGroup);
  plan.sketched = args.sketch.codes != nullptr;
  plan.filtered = filters.masks[0] != nullptr || filters.masks[1] != nullptr ||
                  filters.exclude.ids != nullptr || filters.allow.ids != nullptr;
  plan.per_query = filters.mask_rows[0] > 1 || filters.mask_rows[1] > 1 ||
                   filters.exclude.offsets != nullptr || filters.allow.offsets != nullptr;

  const int64_t item_bytes = std::max<int64_t>(1, parts(args.items.dim, 4) * 4);
  const int64_t chunk_bytes = tuning.chunk_bytes > 0 ? tuning.chunk_bytes
                              : plan.sketched        ? items * item_bytes
                                                     : kChunkBytes;
  plan.chunk = std::min(padded(items, kTileItems), padded(chunk_bytes / item_bytes, kTileItems));
  plan.chunk = std::max<int64_t>(plan.chunk, kTileItems);

  // All items of the k best groups fit in any case.
  const int64_t wanted =
      tuning.capacity > 0 ? tuning.capacity : std::max(kLeastCapacity, kCapacityOfK * kept);
  plan.capacity = std::min(plan.groups * kGroup, std::max(kGroup * kept, wanted));
  plan.overflows = plan.capacity < items;

  const int64_t tiles = parts(std::min(plan.chunk, items), kTileItems);
  const int64_t in_tile = kTileItems / kGroup;
  const int64_t sample = parts(std::max(2 * kept + 1, tiles * in_tile / kSampledShare), in_tile);
  if (2 * sample <= tiles)
    plan.tile_step = tiles / sample;
  else if (plan.overflows && tiles * in_tile >= kept)
    plan.tile_step = 1;
  if (plan.tile_step > 0) plan.sampled = padded(parts(tiles, plan.tile_step), kScanTiles) * in_tile;

  const int64_t bytes = plan.capacity * 20 + plan.sampled * 4 + plan.groups * 8 +
                        (plan.per_query ? plan.groups * 4 : 0) + padded(args.items.dim, kStep) + 64;
  const int64_t most = tuning.round_queries > 0 ? tuning.round_queries : kMostQueries;
  plan.batch = std::clamp(kWorkspaceBytes / bytes, std::min(kFewestQueries, most), most);
  if (plan.batch > kPadded) plan.batch = plan.batch / kPadded * kPadded;
  plan.batch = std::min(plan.batch, args.count);
  return plan;
}

// Parts of a workspace, one after the other.
class Parts {
 public:
  explicit Parts(void* start) : start_(static_cast<char*>(start)) {}
  template <class T>
  T* take(int64_t count) {
    T* part = reinterpret_cast<T*>(start_ + used_);
    used_ += padded(count * static_cast<int64_t>(sizeof(T)), 256);
    return part;
  }
  int64_t used() const { return used_; }

 private:
  char* start_;
  int64_t used_ = 0;
};

// What is made of items on the way.
struct Made {
  int8_t* codes;
  float* unit_scale;
  float* residual;
  double* lengths;
};

int64_t lay_out(const TopkArguments& args, const Plan& plan, void* workspace, TopkCall& call,
                Made& made) {
  Parts parts_of(workspace);
  const int64_t batch = plan.batch;
  call.query_codes =
      parts_of.take<uint32_t>(padded(batch, kPadded) * padded(args.items.dim, kStep) / 4);
  call.query_terms = parts_of.take<QueryTerms>(batch);
  call.query_inverse = parts_of.take<double>(batch);
  call.state = parts_of.take<uint32_t>(batch);
  call.threshold = parts_of.take<float>(batch);
  call.found = parts_of.take<uint32_t>(batch);
  call.kept = parts_of.take<uint32_t>(batch);
  call.lows = parts_of.take<float>(batch * plan.sampled);
  call.estimates = parts_of.take<float>(batch * plan.capacity);
  call.slacks = parts_of.take<float>(batch * plan.capacity);
  call.entries = parts_of.take<uint32_t>(batch * plan.capacity);
  call.keys = parts_of.take<uint64_t>(batch * plan.capacity);
  call.group_keys = parts_of.take<uint64_t>(batch * plan.groups);
  call.marked = parts_of.take<uint32_t>((plan.per_query ? batch : 1) * plan.words());
  const int64_t made_items = plan.sketched ? 0 : plan.chunk;
  made.codes = parts_of.take<int8_t>(made_items * parts(args.items.dim, 4) * 4);
  made.unit_scale = parts_of.take<float>(made_items);
  made.residual = parts_of.take<float>(made_items);
  made.lengths = parts_of.take<double>(made_items);
  return parts_of.used();
}

class Search {
 public:
  Search(const TopkArguments& args, const CudaFilters& filters, void* workspace, void* stream)
      : args_(args), filters_(filters), plan_(plan_of(args, filters)), stream_(stream) {
    lay_out(args, plan_, workspace, call_, made_);
    call_.items = on_device(args.items);
    call_.item_bias = args.item_bias;
    call_.item_scale = args.item_scale;
    call_.most_code = std::min<int64_t>(127, 0x7fffffff / (255 * std::max<int64_t>(1, dim())));
    call_.cosine = args.cosine;
    call_.exact = args.exact;
    call_.k = args.k;
    call_.sampled = plan_.sampled;
    call_.capacity = plan_.capacity;
  }

  // Of `count` queries from `start` on.
  int search(int64_t start, int64_t count) {
    call_.queries = args_.queries + start * dim();
    call_.count = count;
    call_.scores = args_.scores + start * args_.k;
    call_.ids = args_.ids + start * args_.k;
    if (plan_.filtered && args_.items.count > 0) filter(start);
    LAUNCH(sketch_queries, blocks_of(padded(count, query_tile()), kDeciders / kWarp), kDeciders, 0,
           stream(), call_);
    for (int64_t first = 0; first < args_.items.count; first += plan_.chunk) {
      const int failed = search_chunk(first, std::min(plan_.chunk, args_.items.count - first));
      if (failed != 0) return failed;
    }
    decide();
    return launched();
  }

 private:
  cudaStream_t stream() const { return static_cast<cudaStream_t>(stream_); }
  int64_t dim() const { return args_.items.dim; }

  // Queries that a block scans, and threads that decide a query.
  int64_t query_tile() const {
    return call_.count <= kFewQueries         ? kFewQueries
           : call_.count <= FewTile::kQueries ? FewTile::kQueries
                                              : ManyTile::kQueries;
  }
  unsigned deciders() const {
    return call_.count <= kQueriesForMost ? kMostDeciders : std::min(kDeciders, kMostDeciders);
  }

  void filter(int64_t start) {
    call_.marked_rows = plan_.per_query ? call_.count : 1;
    call_.words = call_.marked;
    call_.words_stride = plan_.per_query ? plan_.groups : 0;
    call_.allowing = filters_.allow.ids != nullptr;
    LAUNCH(begin_filter, blocks_of(plan_.groups * call_.marked_rows, kDeciders), kDeciders, 0,
           stream(), call_);
    if (filters_.allow.ids != nullptr) mark(filters_.allow, filters_.allow_count, start);
    for (int i = 0; i < 2; ++i) {
      if (filters_.masks[i] == nullptr) continue;
      const bool shared = filters_.mask_rows[i] == 1;
      call_.mask = filters_.masks[i] + (shared ? 0 : start * args_.items.count);
      call_.mask_rows = filters_.mask_rows[i];
      const dim3 grid(blocks_of(plan_.groups, kDeciders / kWarp),
                      static_cast<unsigned>(call_.marked_rows));
      LAUNCH(apply_mask, grid, kDeciders, 0, stream(), call_);
    }
    call_.allowing = 0;
    if (filters_.exclude.ids != nullptr) mark(filters_.exclude, filters_.exclude_count, start);
  }

  void mark(const IdLists& lists, int64_t count, int64_t start) {
    call_.marks = lists.ids;
    call_.mark_offsets = lists.offsets == nullptr ? nullptr : lists.offsets + start;
    call_.mark_count = call_.mark_total = count;
    const int64_t each = lists.offsets == nullptr ? count : parts(count, args_.count);
    const dim3 grid(static_cast<unsigned>(std::clamp<int64_t>(parts(each, kDeciders), 1, 64)),
                    static_cast<unsigned>(call_.marked_rows));
    LAUNCH(mark_ids, grid, kDeciders, 0, stream(), call_);
  }

  int search_chunk(int64_t first, int64_t count) {
    call_.first = first;
    call_.end = first + count;
    if (plan_.sketched) {
      call_.codes = args_.sketch.codes + first / kBlockItems * parts(dim(), 4) * 64;
      call_.unit_scale = args_.sketch.unit_scale + first;
      call_.residual = args_.sketch.residual + first;
      call_.lengths = args_.items.inverse_norms + first;
    } else if (const int failed = sketch_items(first, count); failed != 0) {
      return failed;
    }
    if (first == 0 && plan_.sampled > 0) {
      scan_items(plan_.sampled / (kTileItems / kGroup), plan_.tile_step, true, false);
      LAUNCH(set_threshold, static_cast<unsigned>(call_.count), deciders(), sizeof(Selection),
             stream(), call_);
    }
    for (int again = 0; again < (plan_.overflows ? 2 : 1); ++again) {
      scan_items(parts(count, kTileItems), 1, false, again != 0);
      LAUNCH(narrow, static_cast<unsigned>(call_.count), deciders(), sizeof(Selection), stream(),
             call_);
    }
    return 0;
  }

  int sketch_items(int64_t first, int64_t count) {
    PackArguments pack;
    pack.rows = args_.items;
    pack.rows.data = static_cast<const char*>(args_.items.data) + first * args_.items.stride;
    const int64_t numbers =
        first * args_.items.number_stride * (is_nibbles(args_.items.storage) ? 2 : 4);
    if (args_.items.scale != nullptr)
      pack.rows.scale = static_cast<const char*>(args_.items.scale) + numbers;
    if (args_.items.bias != nullptr)
      pack.rows.bias = static_cast<const char*>(args_.items.bias) + numbers;
    pack.rows.count = count;
    pack.inverse_norms = made_.lengths;
    pack.sketch = {made_.codes, made_.unit_scale, made_.residual};
    call_.codes = made_.codes;
    call_.unit_scale = made_.unit_scale;
    call_.residual = made_.residual;
    call_.lengths = made_.lengths;
    return pack_cuda(pack, stream_);
  }

  void scan_items(int64_t tiles, int64_t tile_step, bool sampling, bool again) {
    call_.tile_step = tile_step;
    call_.sampling = sampling;
    call_.again = again;
    if (call_.count <= 1) return scan_few_of<1>(tiles);
    if (call_.count <= 2) return scan_few_of<2>(tiles);
    if (call_.count <= 4) return scan_few_of<4>(tiles);
    if (call_.count <= kFewQueries) return scan_few_of<kFewQueries>(tiles);
    if (call_.count <= FewTile::kQueries) return scan_of<2, 4, 1>(tiles);
    scan_of<4, 8, 2>(tiles);
  }

  template <int kQueries>
  void scan_few_of(int64_t tiles) {
    LAUNCH(scan_few<kQueries>, blocks_of(tiles, kScanTiles), kScanners, kChunkGroups * kQueries * 4,
           stream(), call_);
  }

  template <int kBlocks, int kColumns, int kSides>
  void scan_of(int64_t tiles) {
    using Made = Shape<kBlocks, kColumns, kSides>;
    const int64_t query_tiles = parts(call_.count, Made::kQueries);
    LAUNCH((scan<kBlocks, kColumns, kSides>), static_cast<unsigned>(tiles * query_tiles),
           Made::kThreads, Made::kShared, stream(), call_);
  }

  void decide() {
    const int64_t count = call_.count;
    with_storage(args_.items.storage, [&](auto storage) {
      constexpr Storage kStorage = decltype(storage)::value;
      if (args_.items.count > 0) {
        const int64_t most = parts(plan_.groups, kDeciders / kWarp);
        const dim3 grid(
            static_cast<unsigned>(std::min(most, std::clamp<int64_t>(8192 / count, 4, 1024))),
            static_cast<unsigned>(count));
        LAUNCH(score_groups<kStorage>, grid, kDeciders, 0, stream(), call_);
        LAUNCH(choose_groups, static_cast<unsigned>(count), deciders(), sizeof(Selection), stream(),
               call_);
      }
      // Entries are not counted here: so many are to be expected, and blocks go on with others.
      const int64_t expected =
          std::min(plan_.capacity, 16 * std::min(args_.k, plan_.capacity) + 64);
      const int64_t most = parts(expected, kDeciders / kTeam);
      const dim3 grid(
          static_cast<unsigned>(std::clamp<int64_t>(std::min(most, 4096 / count), 1, 64)),
          static_cast<unsigned>(count));
      LAUNCH(rescore<kStorage>, grid, kDeciders, 0, stream(), call_);
    });
    LAUNCH(write_results, static_cast<unsigned>(count), deciders(), kResultShared, stream(), call_);
  }

  const TopkArguments& args_;
  const CudaFilters& filters_;
  const Plan plan_;
  void* stream_;
  TopkCall call_ = {};
  Made made_ = {};
};

}  // namespace

int64_t cosine_topk_cuda_workspace(const TopkArguments& args, const CudaFilters& filters) {
  TopkCall call;
  Made made;
  return args.count == 0 ? 0 : lay_out(args, plan_of(args, filters), nullptr, call, made);
}

int cosine_topk_cuda(const TopkArguments& args, const CudaFilters& filters, void* workspace,
                     void* stream) {
  if (args.count == 0) return 0;
  const int64_t batch = plan_of(args, filters).batch;
  Search search(args, filters, workspace, stream);
  for (int64_t start = 0; start < args.count; start += batch) {
    const int failed = search.search(start, std::min(batch, args.count - start));
    if (failed != 0) return failed;
  }
  return 0;
}

}  // namespace llmrec

#endif
