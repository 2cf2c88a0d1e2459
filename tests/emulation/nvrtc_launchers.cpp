// The C++ launchers, called with numbers: what they would launch is told.
#include <algorithm>

#include "candidate_scores/candidates.h"
#include "cosine_topk/topk.h"
#include "embedding_bag/bag.h"
#include "nvrtc_stand_in.h"
#include "pack/pack.h"
#include "quantize/quantize.h"

namespace {

using namespace llmrec;
using stand_in::Words;

Rows rows_of(Words& words) {
  Rows rows;
  rows.storage = static_cast<Storage>(words.number());
  rows.data = words.pointer<void>();
  rows.scale = words.pointer<void>();
  rows.bias = words.pointer<void>();
  rows.inverse_norms = words.pointer<double>();
  rows.count = words.number();
  rows.dim = words.number();
  rows.stride = words.number();
  rows.number_stride = words.number();
  return rows;
}

IdLists lists_of(Words& words) {
  const auto* ids = words.pointer<int64_t>();
  return {ids, words.pointer<int64_t>()};
}

int64_t topk(Words words) {
  TopkArguments args;
  CudaFilters filters;
  args.items = rows_of(words);
  args.queries = words.pointer<float>();
  args.count = words.number();
  args.k = words.number();
  args.cosine = words.number() != 0;
  args.exact = words.number() != 0;
  args.item_bias = words.pointer<float>();
  args.item_scale = words.pointer<float>();
  args.sketch.codes = words.pointer<int8_t>();
  args.sketch.unit_scale = words.pointer<float>();
  args.sketch.residual = words.pointer<float>();
  args.scores = words.pointer<float>();
  args.ids = words.pointer<int64_t>();
  filters.masks[0] = words.pointer<uint8_t>();
  filters.mask_rows[0] = words.number();
  filters.exclude = lists_of(words);
  filters.exclude_count = words.number();
  filters.allow = lists_of(words);
  filters.allow_count = words.number();
  args.tuning.capacity = words.number();
  args.tuning.chunk_bytes = words.number();
  args.tuning.round_queries = words.number();
  cosine_topk_cuda(args, filters, words.pointer<void>(), nullptr);
  return cosine_topk_cuda_workspace(args, filters);
}

int64_t candidates(Words words) {
  CandidateArguments args;
  args.items = rows_of(words);
  args.queries = words.pointer<float>();
  args.count = words.number();
  args.candidates = words.pointer<int64_t>();
  args.offsets = words.pointer<int64_t>();
  const int64_t entries = words.number();
  args.cosine = words.number() != 0;
  args.query_bias = words.pointer<float>();
  args.item_bias = words.pointer<float>();
  args.query_scale = words.pointer<float>();
  args.item_scale = words.pointer<float>();
  args.offset = words.real();
  args.scores = words.pointer<float>();
  args.k = words.number();
  args.ids = words.pointer<int64_t>();
  candidate_scores_cuda(args, entries, words.pointer<void>(), nullptr);
  return candidate_scores_cuda_workspace(args, entries);
}

int64_t bag(Words words) {
  BagArguments args;
  args.table = rows_of(words);
  args.indices = words.pointer<int64_t>();
  args.offsets = words.pointer<int64_t>();
  args.weights = words.pointer<float>();
  const int64_t entries = words.number();
  args.count = words.number();
  args.padding_idx = words.number();
  args.mode = static_cast<Pooling>(words.number());
  args.normalize = words.number() != 0;
  args.out_storage = static_cast<Storage>(words.number());
  args.out = words.pointer<void>();
  embedding_bag_cuda(args, entries, words.pointer<void>(), nullptr);
  return embedding_bag_cuda_workspace(args);
}

int64_t quantized(Words words) {
  QuantizeArguments args;
  args.weight = rows_of(words);
  args.storage = static_cast<Storage>(words.number());
  args.codes = words.pointer<void>();
  args.numbers = words.pointer<void>();
  quantize_cuda(args, nullptr);
  return 0;
}

int64_t packed(Words words) {
  PackArguments args;
  args.rows = rows_of(words);
  args.data = words.pointer<char>();
  args.inverse_norms = words.pointer<double>();
  args.sketch.codes = words.pointer<int8_t>();
  args.sketch.unit_scale = words.pointer<float>();
  args.sketch.residual = words.pointer<float>();
  pack_cuda(args, nullptr);
  return 0;
}

}  // namespace

extern "C" {

int64_t layout_of(const char* name) {
  const auto found = stand_in::layouts.find(name);
  return found == stand_in::layouts.end() ? -1 : found->second;
}

int run_kernel(const char* name, unsigned x, unsigned y, unsigned z, unsigned threads,
               size_t shared, const void* call) {
  const auto found = stand_in::kernels.find(name);
  if (found == stand_in::kernels.end()) return 1;
  found->second(dim3(x, y, z), threads, shared, call);
  return 0;
}

// How many launches there are, of which the first `most` are written; the workspace's bytes.
int64_t tell_launches(const char* op, const int64_t* words, int64_t* workspace,
                      stand_in::Told* told, int64_t most) {
  static const std::map<std::string, int64_t (*)(Words)> launchers = {
      {"cosine_topk", topk},  {"candidate_scores", candidates},
      {"embedding_bag", bag}, {"quantize", quantized},
      {"pack", packed},
  };
  stand_in::told.clear();
  *workspace = launchers.at(op)(Words(words));
  const auto count = static_cast<int64_t>(stand_in::told.size());
  std::copy_n(stand_in::told.begin(), std::min(count, most), told);
  return count;
}
}
