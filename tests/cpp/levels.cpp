#include "levels.h"

#include <cstdio>
#include <string>

#include "common/isa.h"
#include "emulated_cuda.h"

namespace llmrec {

// amx.cpp compiled once more, with its tile instructions emulated: any machine can run it.
TopkKernel cosine_topk_emulated_amx;

}  // namespace llmrec

namespace llmrec::driver {

std::vector<TestedLevel> levels_here() {
  const TestedLevel scalar = {"scalar",
                              cosine_topk_scalar,
                              pack_scalar,
                              embedding_bag_scalar,
                              candidate_scores_scalar,
                              quantize_scalar};
  std::vector<TestedLevel> levels = {scalar, scalar};
  levels[1].name = "emulated amx";
  levels[1].topk = cosine_topk_emulated_amx;
  const auto add = [&](const std::string& refused, const TestedLevel& level) {
    if (refused.empty())
      levels.push_back(level);
    else
      std::printf("not here: %s: %s\n", level.name, refused.c_str());
  };
#if defined(__x86_64__)
  const std::string avx2 = refusal(Level::avx2);
  const std::string vnni = has_avx_vnni() ? "" : "the processor has no AVX-VNNI";
  const TestedLevel with_avx2 = {
      "avx2",       cosine_topk_avx2, pack_avx2, embedding_bag_avx2, candidate_scores_avx2,
      quantize_avx2};
  const TestedLevel with_avx512 = {"avx512",
                                   cosine_topk_avx512,
                                   pack_avx512,
                                   embedding_bag_avx512,
                                   candidate_scores_avx512,
                                   quantize_avx512};
  TestedLevel with_vnni = with_avx2, with_amx = with_avx512;
  with_vnni.name = "avx2_vnni";
  with_vnni.topk = cosine_topk_avx2_vnni;
  with_amx.name = "amx";
  with_amx.topk = cosine_topk_amx;
  add(avx2, with_avx2);
  add(avx2.empty() ? vnni : avx2, with_vnni);
  add(refusal(Level::avx512), with_avx512);
  add(refusal(Level::amx), with_amx);
#elif defined(__aarch64__)
  add(refusal(Level::neon), {"neon", cosine_topk_neon, pack_scalar, embedding_bag_neon,
                             candidate_scores_neon, quantize_neon});
#endif
  return levels;
}

std::vector<TestedLevel> emulated_levels() {
  std::vector<TestedLevel> levels = {levels_here().front()};
#if defined(__x86_64__)
  levels.push_back({"emulated cuda", cosine_topk_emulated_cuda, pack_emulated_cuda,
                    embedding_bag_emulated_cuda, candidate_scores_emulated_cuda,
                    quantize_emulated_cuda, true});
  if (refusal(Level::avx2).empty()) {  // the same fused sums
    levels.push_back(levels.front());
    levels.back().name = "avx2";
    levels.back().bag = embedding_bag_avx2;
  }
#endif
  return levels;
}

}  // namespace llmrec::driver
