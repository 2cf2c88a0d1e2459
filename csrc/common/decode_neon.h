// Registers of NEON: see decode.h.
#pragma once

#include "common/decode.h"

namespace llmrec {
namespace {

struct NeonDecode : PortableDecode {
  static constexpr int kPanel = 16;

  static void unsigned_bytes(const void* from, Ints& to) {
    to = same_bits<Ints>(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(four_bytes(from))))));
  }

  static void signed_bytes(const void* from, Ints& to) {
    to = same_bits<Ints>(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(four_bytes(from))))));
  }

  static void shorts(const void* from, Ints& to) {
    to = same_bits<Ints>(vmovl_u16(vld1_u16(static_cast<const uint16_t*>(from))));
  }

  static void halves(const void* from, Floats& to) {
    const uint16x4_t halves = vld1_u16(static_cast<const uint16_t*>(from));
    to = same_bits<Floats>(vcvt_f32_f16(vreinterpret_f16_u16(halves)));
  }

  static void to_halves(const Floats& from, void* to) {
    store(vcvt_f16_f32(same_bits<float32x4_t>(from)), to);
  }

  static void multiply_add(const Floats& x, const Floats& y, Floats& sums) {
    sums = same_bits<Floats>(vfmaq_f32(same_bits<float32x4_t>(sums), same_bits<float32x4_t>(x),
                                       same_bits<float32x4_t>(y)));
  }

  static float multiply_add(float x, float y, float sum) { return std::fma(x, y, sum); }

 private:
  static uint32x2_t four_bytes(const void* from) {
    uint32_t word;
    std::memcpy(&word, from, sizeof word);
    return vdup_n_u32(word);
  }
};

}  // namespace
}  // namespace llmrec
