// What csrc/common/cuda.cuh offers to kernels, against plain loops; prints what differs.
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "common/cuda.cuh"

using namespace llmrec::cuda;

namespace {

int failures = 0;

void expect(bool good, const char* what) {
  if (!good) std::printf("wrong: %s\n", what);
  failures += !good;
}

// One warp multiplies 16 rows of a with 8 rows of b, 32 elements each.
__global__ void multiply(const int8_t* a, const int8_t* b, int* c) {
  const int lane = static_cast<int>(threadIdx.x), row = lane / 4, quarter = lane % 4 * 4;
  const auto word = [](const int8_t* from) {
    unsigned bits = 0;
    for (int i = 0; i < 4; ++i)
      bits |= static_cast<unsigned>(static_cast<uint8_t>(from[i])) << (8 * i);
    return bits;
  };
  const unsigned of_a[4] = {word(a + row * 32 + quarter), word(a + (row + 8) * 32 + quarter),
                            word(a + row * 32 + 16 + quarter),
                            word(a + (row + 8) * 32 + 16 + quarter)};
  const unsigned of_b[2] = {word(b + row * 32 + quarter), word(b + row * 32 + 16 + quarter)};
  int sums[4] = {1, 1, 1, 1};
  multiply_int8(sums, of_a, of_b);
  for (int i = 0; i < 4; ++i) c[(row + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}

void check_product() {
  std::vector<int8_t> a(16 * 32), b(8 * 32);
  unsigned state = 1;
  const auto next = [&] {
    return static_cast<int8_t>((state = state * 1664525 + 1013904223) >> 24);
  };
  for (int8_t& each : a) each = next();
  for (int8_t& each : b) each = next();
  std::vector<int> c(16 * 8);
  LAUNCH(multiply, 1, kWarp, 0, nullptr, a.data(), b.data(), c.data());
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) {
      int sum = 1;
      for (int k = 0; k < 32; ++k) sum += a[i * 32 + k] * b[j * 32 + k];
      expect(c[i * 8 + j] == sum, "an element of an int8 product");
    }
}

// The first half of four parts is copied, the rest becomes zero; all groups but one are waited for.
__global__ void copy_parts(const int* in, int* out) {
  DYNAMIC_SHARED(int, shared);
  for (int group = 0; group < 2; ++group) {
    const int at = 4 * (group * kWarp + static_cast<int>(threadIdx.x));
    copy_async_16(shared + at, in + at, group == 0 ? 16 : 8);
    commit_copies();
  }
  const int mine = 4 * static_cast<int>(threadIdx.x);
  wait_for_copies<1>();
  for (int i = 0; i < 4; ++i) out[mine + i] = shared[mine + i];
  wait_for_copies<0>();
  for (int i = 0; i < 4; ++i) out[4 * kWarp + mine + i] = shared[4 * kWarp + mine + i];
}

void check_copies() {
  const int count = 8 * kWarp;
  const auto in = static_cast<int*>(std::aligned_alloc(16, count * sizeof(int)));
  std::vector<int> out(count);
  for (int i = 0; i < count; ++i) in[i] = i + 1;
  LAUNCH(copy_parts, 1, kWarp, count * sizeof(int), nullptr, in, out.data());
  for (int i = 0; i < count; ++i)
    expect(out[i] == (i < count / 2 || i % 4 < 2 ? i + 1 : 0), "a part of an async copy");
  std::free(in);
}

// The number that a sign, an exponent and a mantissa stand for, as IEEE 754 defines it.
double value_of(uint32_t bits, int exponents, int mantissas, bool has_infinity) {
  const uint32_t mantissa = bits & ((1u << mantissas) - 1);
  const uint32_t exponent = bits >> mantissas & ((1u << exponents) - 1);
  const int bias = (1 << (exponents - 1)) - 1;
  const double sign = bits >> (mantissas + exponents) & 1 ? -1 : 1;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (exponent == (1u << exponents) - 1 && has_infinity)
    return mantissa ? nan : sign * std::numeric_limits<double>::infinity();
  if (!has_infinity && (bits & 0x7f) == 0x7f) return nan;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissas);
  return sign *
         std::ldexp(mantissa + (1u << mantissas), static_cast<int>(exponent) - bias - mantissas);
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

__global__ void widen(float* half, float* bfloat16, float* fp8) {
  const unsigned bits = blockIdx.x * blockDim.x + threadIdx.x;
  half[bits] = float_of_half(static_cast<uint16_t>(bits));
  bfloat16[bits] = float_of_bfloat16(static_cast<uint16_t>(bits));
  fp8[bits] = float_of_fp8(bits % 256);
}

__global__ void narrow(const float* in, int count, uint16_t* half, uint16_t* bfloat16) {
  const int at = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (at >= count) return;
  half[at] = half_of_float(in[at]);
  bfloat16[at] = bfloat16_of_float(in[at]);
}

void check_widening() {
  const unsigned count = 1u << 16;
  std::vector<float> half(count), bfloat16(count), fp8(count);
  LAUNCH(widen, count / 256, 256, 0, nullptr, half.data(), bfloat16.data(), fp8.data());
  for (unsigned bits = 0; bits < count; ++bits) {
    expect(same(half[bits], value_of(bits, 5, 10, true)), "a float16 number");
    expect(same(bfloat16[bits], value_of(bits, 8, 7, true)), "a bfloat16 number");
    expect(same(fp8[bits], value_of(bits % 256, 4, 3, false)), "a float8 number");
  }
}

// Numbers on, half-way between and beside those of a narrow type go to the nearest, or to the even.
void check_narrowing(int exponents, int mantissas) {
  const uint32_t infinite = ((1u << exponents) - 1) << mantissas;
  std::vector<float> in;
  std::vector<uint32_t> want;
  for (uint32_t bits = 0; bits < infinite; ++bits) {
    const double low = value_of(bits, exponents, mantissas, true);
    const double high = bits + 1 < infinite
                            ? value_of(bits + 1, exponents, mantissas, true)
                            : 2 * low - value_of(bits - 1, exponents, mantissas, true);
    const auto middle = static_cast<float>((low + high) / 2);
    if (middle == static_cast<float>(low)) continue;  // float32 has no number between
    for (const float each : {static_cast<float>(low), std::nextafter(middle, 0.0f), middle,
                             std::nextafter(middle, std::numeric_limits<float>::infinity())})
      in.push_back(each);
    want.insert(want.end(), {bits, bits, bits + bits % 2, bits + 1});
  }
  const int count = static_cast<int>(in.size());
  std::vector<uint16_t> half(in.size()), bfloat16(in.size());
  LAUNCH(narrow, (count + 255) / 256, 256, 0, nullptr, in.data(), count, half.data(),
         bfloat16.data());
  for (size_t i = 0; i < in.size(); ++i)
    expect((exponents == 5 ? half : bfloat16)[i] == want[i], "a number made narrow");
  expect(count > 100000, "the numbers that are made narrow");
}

}  // namespace

int main() {
  check_product();
  check_copies();
  check_widening();
  check_narrowing(5, 10);
  check_narrowing(8, 7);
  return failures != 0;
}
