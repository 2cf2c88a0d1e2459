// Row-wise quantization in portable C++. A row is read twice, the second time from cache: once
// for its range, once to write its codes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/widen.h"
#include "quantize/quantize.h"

namespace llmrec {
namespace {

constexpr int64_t kRowsPerTask = 256;

struct Fit {
  double scale, bias;
};

// As torch's prepack ops: span / steps in float32, then rounded to the type that is stored, so
// that the codes are fitted to what a reader will see. A constant row gets scale 1 and codes 0.
Fit fit(double low, double high, int steps, const QuantizeArguments& args) {
  const bool half = args.bits == 4;
  double bias = 0.0, span = std::max(high, -low);
  if (!args.symmetric) {
    bias = half ? float_of_half(half_of_float(static_cast<float>(low))) : low;
    span = high - bias;
  }
  float scale = static_cast<float>(span) / static_cast<float>(steps);
  if (half) scale = float_of_half(half_of_float(scale));
  return {span <= 0.0 || scale == 0.0f ? 1.0 : static_cast<double>(scale), bias};
}

bool representable(const Fit& found, int steps, int bits) {
  const double largest = std::numeric_limits<float>::max(), limit = bits == 4 ? 65504.0 : largest;
  return found.scale <= limit && std::abs(found.bias) <= limit && found.scale * steps <= largest;
}

void store(const QuantizeArguments& args, int64_t row, const Fit& found) {
  const auto scale = static_cast<float>(found.scale), bias = static_cast<float>(found.bias);
  if (args.bits == 8) {
    static_cast<float*>(args.scale)[row] = scale;
    if (!args.symmetric) static_cast<float*>(args.bias)[row] = bias;
  } else {
    static_cast<uint16_t*>(args.scale)[row] = half_of_float(scale);
    if (!args.symmetric) static_cast<uint16_t*>(args.bias)[row] = half_of_float(bias);
  }
}

void encode(const float* values, int64_t dim, const Fit& found, int least, int most, int bits,
            uint8_t* codes) {
  const int64_t width = bits == 4 ? (dim + 1) / 2 : dim;
  if (bits == 4) std::fill(codes, codes + width, uint8_t{0});
  for (int64_t j = 0; j < dim; ++j) {
    const double nearest = std::nearbyint((values[j] - found.bias) / found.scale);
    const int code = static_cast<int>(std::min<double>(most, std::max<double>(least, nearest)));
    if (bits == 8)
      codes[j] = static_cast<uint8_t>(code);
    else
      codes[j / 2] |= static_cast<uint8_t>((code & 15) << (4 * (j % 2)));
  }
}

}  // namespace

void quantize_scalar(const QuantizeArguments& args, FirstBad& not_finite, FirstBad& too_wide,
                     const Parallel& parallel) {
  const Rows& weight = args.weight;
  const int steps = args.symmetric ? (1 << (args.bits - 1)) - 1 : (1 << args.bits) - 1;
  const int64_t width = args.bits == 4 ? (weight.dim + 1) / 2 : weight.dim;
  parallel.run((weight.count + kRowsPerTask - 1) / kRowsPerTask, [&](TaskQueue& queue) {
    std::vector<float> scratch(static_cast<size_t>(weight.dim));
    for (int64_t task; queue.take(task);) {
      const int64_t end = std::min(weight.count, (task + 1) * kRowsPerTask);
      for (int64_t row = task * kRowsPerTask; row < end; ++row) {
        const float* values = widen_row(weight, row, scratch.data());
        double low = weight.dim ? values[0] : 0.0, high = low;
        bool finite = true;
        for (int64_t j = 0; j < weight.dim; ++j) {
          finite = finite && std::isfinite(values[j]);
          low = std::min<double>(low, values[j]);
          high = std::max<double>(high, values[j]);
        }
        const Fit found = finite ? fit(low, high, steps, args) : Fit{1.0, 0.0};
        if (!finite) not_finite.note(row);
        if (!representable(found, steps, args.bits)) too_wide.note(row);
        store(args, row, found);
        encode(values, weight.dim, found, args.symmetric ? -steps : 0, steps, args.bits,
               static_cast<uint8_t*>(args.codes) + row * width);
      }
    }
  });
}

}  // namespace llmrec
