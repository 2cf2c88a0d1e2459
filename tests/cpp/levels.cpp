#include "levels.h"

#include <cstdio>
#include <string>

#include "common/isa.h"

namespace llmrec {

// amx.cpp compiled once more, with its tile instructions emulated: any machine can run it.
TopkKernel cosine_topk_emulated_amx;

}  // namespace llmrec

namespace llmrec::driver {

std::vector<TestedLevel> levels_here() {
  std::vector<TestedLevel> levels = {{"scalar", cosine_topk_scalar, pack_scalar},
                                     {"emulated amx", cosine_topk_emulated_amx, pack_scalar}};
  const auto add = [&](const char* name, const std::string& refused, TopkKernel* topk,
                       PackKernel* pack) {
    if (refused.empty())
      levels.push_back({name, topk, pack});
    else
      std::printf("not here: %s: %s\n", name, refused.c_str());
  };
#if defined(__x86_64__)
  const std::string avx2 = refusal(Level::avx2);
  const std::string vnni = has_avx_vnni() ? "" : "the processor has no AVX-VNNI";
  add("avx2", avx2, cosine_topk_avx2, pack_avx2);
  add("avx2_vnni", avx2.empty() ? vnni : avx2, cosine_topk_avx2_vnni, pack_avx2);
  add("avx512", refusal(Level::avx512), cosine_topk_avx512, pack_avx512);
  add("amx", refusal(Level::amx), cosine_topk_amx, pack_avx512);
#elif defined(__aarch64__)
  add("neon", refusal(Level::neon), cosine_topk_neon, pack_scalar);
#endif
  return levels;
}

}  // namespace llmrec::driver
