// The only code that asks the processor what it can do.
//
// A feature needs two yeses: CPUID says that the processor has the instructions, XCR0 that the
// operating system saves their registers. AMX needs a third: Linux grants its tile data to a
// process that asks for it (Documentation/arch/x86/xstate.rst).
#include "common/isa.h"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#define LLMREC_X86 1
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif

namespace llmrec {
namespace {

#if LLMREC_X86

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

uint64_t saved_states() {
  if (!(cpuid(1, 0).ecx & (1u << 27))) return 0;  // OSXSAVE: without it XGETBV faults
  uint32_t low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

constexpr uint64_t kYmmStates = 0x6;       // SSE and AVX
constexpr uint64_t kZmmStates = 0xe6;      // and opmask, and both halves of ZMM
constexpr uint64_t kTileStates = 0x60000;  // tile configuration and tile data

std::string missing(bool present, const char* feature) {
  return present ? "" : std::string("the processor has no ") + feature;
}

std::string avx2_refusal() {
  const Registers basic = cpuid(1, 0), extended = cpuid(7, 0);
  std::string why = missing(extended.ebx & (1u << 5), "AVX2");
  if (why.empty()) why = missing(basic.ecx & (1u << 12), "FMA");
  if (why.empty()) why = missing(basic.ecx & (1u << 29), "F16C");
  if (why.empty() && (saved_states() & kYmmStates) != kYmmStates)
    why = "the operating system does not save the AVX registers";
  return why;
}

std::string avx512_refusal() {
  std::string why = avx2_refusal();
  const Registers extended = cpuid(7, 0);
  if (why.empty()) why = missing(extended.ebx & (1u << 16), "AVX512F");
  if (why.empty()) why = missing(extended.ebx & (1u << 17), "AVX512DQ");
  if (why.empty()) why = missing(extended.ebx & (1u << 30), "AVX512BW");
  if (why.empty()) why = missing(extended.ebx & (1u << 31), "AVX512VL");
  if (why.empty()) why = missing(extended.ecx & (1u << 11), "AVX512_VNNI");
  if (why.empty() && (saved_states() & kZmmStates) != kZmmStates)
    why = "the operating system does not save the AVX-512 registers";
  return why;
}

std::string tile_permission_refusal() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0) return "";
  return std::string("the operating system refuses the AMX tile data: ") + std::strerror(errno);
#else
  return "AMX is only supported on Linux";
#endif
}

std::string amx_refusal() {
  std::string why = avx512_refusal();
  const Registers extended = cpuid(7, 0);
  if (why.empty()) why = missing(extended.edx & (1u << 24), "AMX-TILE");
  if (why.empty()) why = missing(extended.edx & (1u << 25), "AMX-INT8");
  if (why.empty() && (saved_states() & kTileStates) != kTileStates)
    why = "the operating system does not save the AMX tiles";
  return why.empty() ? tile_permission_refusal() : why;
}

std::string neon_refusal() { return "this is an x86 processor"; }

#else

std::string avx2_refusal() { return "this is no x86 processor"; }
std::string avx512_refusal() { return avx2_refusal(); }
std::string amx_refusal() { return avx2_refusal(); }

std::string neon_refusal() {
#if defined(__aarch64__) && defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? "" : "the processor has no dot product (ASIMDDP)";
#elif defined(__aarch64__) && defined(__APPLE__)
  return "";  // every Apple processor has the dot product
#else
  return "this is no ARM processor";
#endif
}

#endif

std::string ask(Level level) {
  switch (level) {
    case Level::scalar:
      return "";
    case Level::avx2:
      return avx2_refusal();
    case Level::avx512:
      return avx512_refusal();
    case Level::amx:
      return amx_refusal();
    case Level::neon:
      return neon_refusal();
  }
  return "";
}

Level best_level() {
  for (Level level : {Level::amx, Level::avx512, Level::avx2, Level::neon})
    if (refusal(level).empty()) return level;
  return Level::scalar;
}

Level choose_level() {
  const char* wish = std::getenv("LLMREC_ISA");
  if (wish == nullptr || *wish == '\0') return best_level();
  for (Level level : kLevels) {
    if (std::string(wish) != name_of(level)) continue;
    const std::string why = refusal(level);
    if (why.empty()) return level;
    throw std::invalid_argument(std::string("LLMREC_ISA=") + wish + " cannot run here: " + why);
  }
  throw std::invalid_argument(std::string("LLMREC_ISA is '") + wish +
                              "'; expected scalar, avx2, avx512, amx or neon");
}

}  // namespace

const char* name_of(Level level) {
  constexpr const char* names[] = {"scalar", "avx2", "avx512", "amx", "neon"};
  return names[static_cast<int>(level)];
}

std::string refusal(Level level) {
  static const std::vector<std::string> answers = [] {
    std::vector<std::string> found;
    for (Level each : kLevels) found.push_back(ask(each));
    return found;
  }();
  return answers[static_cast<size_t>(level)];
}

Level allowed_level() {
  static const Level level = choose_level();  // an exception leaves it unset: asked again
  return level;
}

#if LLMREC_X86
bool has_avx_vnni() { return cpuid(7, 1).eax & (1u << 4); }
bool has_avx512_bf16() { return cpuid(7, 1).eax & (1u << 5); }
bool has_amx_bf16() { return cpuid(7, 0).edx & (1u << 22); }
#else
bool has_avx_vnni() { return false; }
bool has_avx512_bf16() { return false; }
bool has_amx_bf16() { return false; }
#endif

bool within(Level level, Level allowed) {
  if (level == Level::scalar || level == allowed) return true;
  return level != Level::neon && allowed != Level::neon && level < allowed;
}

}  // namespace llmrec
