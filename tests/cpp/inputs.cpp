#include "inputs.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace llmrec::driver {
namespace {

template <class Number>
void put(std::vector<char>& bytes, int64_t position, Number number) {
  std::memcpy(bytes.data() + position * static_cast<int64_t>(sizeof number), &number,
              sizeof number);
}

void multiply(float* row, int64_t dim, double factor) {
  for (int64_t j = 0; j < dim; ++j) row[j] = static_cast<float>(row[j] * factor);
}

// row becomes a * first + b * second + c * row.
void mix(float* row, int64_t dim, double a, const std::vector<float>& first, double b,
         const std::vector<float>& second, double c) {
  for (int64_t j = 0; j < dim; ++j)
    row[j] = static_cast<float>(a * first[j] + b * second[j] + c * row[j]);
}

void shape(Kind kind, float* row, int64_t number, int64_t count, int64_t dim, const Frame& frame,
           Random& random) {
  const double place = (static_cast<double>(number) + 0.5) / static_cast<double>(count);
  const auto& axis = frame.axes[0];
  switch (kind) {
    case Kind::normal:
      break;
    case Kind::clustered:
      return mix(row, dim, 1, frame.axes[random.below(20)], 0, axis, 0.05);
    case Kind::outlier:
      if (dim > 0) row[dim / 2] *= 1000;
      break;
    case Kind::magnitudes:
      return multiply(row, dim, random.power_of_ten());
    case Kind::denormal:
      return multiply(row, dim, 1e-40);
    case Kind::zeros:
      if (number % 3 != 1) std::fill_n(row, dim, 0.0f);
      break;
    case Kind::duplicates:
      std::copy_n(frame.axes[random.below(7)].data(), dim, row);
      break;
    case Kind::plateau:
      return mix(row, dim, 1, axis, 0, axis, 1e-4);
    case Kind::ascending:
      return mix(row, dim, place, axis, 1 - place, frame.axes[1], 1e-3);
    case Kind::descending:
      return mix(row, dim, 1 - place, axis, place, frame.axes[1], 1e-3);
    case Kind::huge:
      return multiply(row, dim, 1e25);
    case Kind::tiny:
      return multiply(row, dim, 1e-25);
    case Kind::signs:
      for (int64_t j = 0; j < dim; ++j) row[j] = row[j] < 0 ? -1.0f : 1.0f;
      break;
    case Kind::constant:
      std::fill_n(row, dim, number % 2 == 0 ? 1.0f : -1.0f);
      break;
  }
}

void put_float(Items& items, int64_t row, int64_t j, float value) {
  const int64_t position = row * (items.stride / (items.storage == Storage::float32 ? 4 : 2)) + j;
  if (items.storage == Storage::float32) {
    put(items.data, position, value);
  } else if (items.storage == Storage::float16) {
    put(items.data, position, static_cast<Half>(value));
    value = static_cast<float>(static_cast<Half>(value));
  } else {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    put(items.data, position, static_cast<uint16_t>(bits >> 16));  // towards zero is good enough
    bits &= 0xffff0000u;
    std::memcpy(&value, &bits, sizeof bits);
  }
  items.wide[row * items.dim + j] = value;
}

void put_codes(Items& items, int64_t row, const float* from) {
  const bool eight =
      items.storage == Storage::int8_affine || items.storage == Storage::int8_symmetric;
  const bool affine =
      items.storage == Storage::int8_affine || items.storage == Storage::int4_affine;
  const int bits = eight ? 8 : 4, least = affine ? 0 : -(1 << (bits - 1));
  const auto kept = [&](double value, std::vector<char>& to) {
    const auto half = static_cast<Half>(value);
    const auto full = static_cast<float>(value);
    if (eight)
      put(to, row, full);
    else
      put(to, row, half);
    return eight ? full : static_cast<float>(half);
  };
  const float low = items.dim > 0 ? *std::min_element(from, from + items.dim) : 0.0f;
  const float high = items.dim > 0 ? *std::max_element(from, from + items.dim) : 0.0f;
  const double span = affine ? static_cast<double>(high) - low : 2 * std::max(high, -low);
  const float bias = affine ? kept(low, items.bias) : 0.0f;
  const float scale = kept(span / ((1 << bits) - 1), items.scale);
  for (int64_t j = 0; j < items.dim; ++j) {
    const double nearest = scale == 0.0f ? 0 : std::nearbyint((from[j] - bias) / scale);
    const int code = static_cast<int>(std::clamp(nearest, static_cast<double>(least),
                                                 static_cast<double>(least + (1 << bits) - 1)));
    char& byte = items.data[row * items.stride + (eight ? j : j / 2)];
    const int shift = eight ? 0 : 4 * static_cast<int>(j % 2);
    byte = static_cast<char>(byte | ((code & ((1 << bits) - 1)) << shift));
    const float product = scale * static_cast<float>(code);
    items.wide[row * items.dim + j] = affine ? product + bias : product;
  }
}

// What a storage can hold of a number.
double largest_of(Storage storage) {
  if (storage == Storage::float16) return 60000;
  const bool four = storage == Storage::int4_affine || storage == Storage::int4_symmetric;
  return four ? 30000 : 1e38;
}

void append(Lists& lists, std::vector<int64_t> ids) {
  std::sort(ids.begin(), ids.end());
  lists.ids.insert(lists.ids.end(), ids.begin(), ids.end());
  lists.offsets.push_back(static_cast<int64_t>(lists.ids.size()));
}

Lists lists_of(int64_t queries, int64_t items, bool strangers, Random& random) {
  Lists lists;
  lists.ids.reserve(1);  // the kernel takes null for no lists at all
  lists.offsets.push_back(0);
  for (int64_t q = 0; q < queries; ++q) {
    std::vector<int64_t> ids;
    const int64_t length = random.chance(0.2) ? 0 : random.below(std::min<int64_t>(items, 200) + 1);
    ids.resize(static_cast<size_t>(length));
    for (int64_t& id : ids) id = random.below(items);
    if (strangers) ids.insert(ids.end(), {-5, items, items + 3});
    append(lists, ids);
  }
  return lists;
}

std::vector<uint8_t> flags(int64_t count, double share, Random& random) {
  std::vector<uint8_t> result(static_cast<size_t>(count));
  for (uint8_t& flag : result) flag = random.chance(share);
  return result;
}

}  // namespace

float Random::normal() {
  double sum = -2;
  for (int i = 0; i < 4; ++i) sum += uniform();
  return static_cast<float>(sum * 1.7320508);
}

float Random::power_of_ten() {
  return static_cast<float>((chance(0.5) ? 1 : -1) * std::pow(10.0, between(-44, 37)));
}

const char* name_of(Kind kind) {
  constexpr const char* names[] = {"normal", "clustered",  "outlier", "magnitudes", "denormal",
                                   "zeros",  "duplicates", "plateau", "ascending",  "descending",
                                   "huge",   "tiny",       "signs",   "constant"};
  return names[static_cast<int>(kind)];
}

const char* name_of(Storage storage) {
  constexpr const char* names[] = {"float32",        "float16", "bfloat16",       "int8",
                                   "int8 symmetric", "int4",    "int4 symmetric", "fp8"};
  return names[static_cast<int>(storage)];
}

const char* name_of(Numbers numbers) {
  constexpr const char* names[] = {"none",    "normal",     "equal", "large",   "small",
                                   "extreme", "magnitudes", "zeros", "negative"};
  return names[static_cast<int>(numbers)];
}

const char* name_of(Filtering filtering) {
  constexpr const char* names[] = {"none",    "half",  "few", "nothing",      "mask",
                                   "exclude", "allow", "all", "best excluded"};
  return names[static_cast<int>(filtering)];
}

int64_t Items::row_bytes() const {
  switch (storage) {
    case Storage::float32:
      return 4 * dim;
    case Storage::float16:
    case Storage::bfloat16:
      return 2 * dim;
    case Storage::int8_affine:
    case Storage::int8_symmetric:
    case Storage::fp8_e4m3:
      return dim;
    case Storage::int4_affine:
    case Storage::int4_symmetric:
      return (dim + 1) / 2;
  }
  return 0;
}

Rows Items::rows() const {
  Rows rows;
  rows.data = data.data();
  rows.count = count;
  rows.dim = dim;
  rows.stride = stride;
  rows.storage = storage;
  rows.scale = scale.data();
  rows.bias = bias.data();
  return rows;
}

Frame::Frame(int64_t dim, Random& random) : axes(20) {
  for (auto& axis : axes)
    for (int64_t j = 0; j < dim; ++j) axis.push_back(random.normal());
}

std::vector<float> vectors(Kind kind, int64_t count, int64_t dim, const Frame& frame,
                           Random& random) {
  std::vector<float> all(static_cast<size_t>(count * dim));
  for (float& each : all) each = random.normal();
  for (int64_t row = 0; row < count; ++row)
    shape(kind, all.data() + row * dim, row, count, dim, frame, random);
  return all;
}

Items stored(const std::vector<float>& vectors, int64_t count, int64_t dim, Storage storage,
             int64_t padding) {
  Items items;
  items.storage = storage;
  items.count = count;
  items.dim = dim;
  const bool floats = storage <= Storage::bfloat16;
  const int64_t width = items.row_bytes();
  items.stride = width + padding * (storage == Storage::float32 ? 4 : floats ? 2 : 1);
  items.data.resize(static_cast<size_t>(count > 0 ? (count - 1) * items.stride + width : 0));
  items.wide.resize(static_cast<size_t>(count * dim));
  if (!floats) {
    const bool eight = storage <= Storage::int8_symmetric;
    items.scale.resize(static_cast<size_t>((eight ? 4 : 2) * count));
    items.bias.resize(items.scale.size());
  }
  const double most = largest_of(storage);
  for (int64_t row = 0; row < count; ++row) {
    std::vector<float> clamped(vectors.begin() + row * dim, vectors.begin() + (row + 1) * dim);
    for (float& each : clamped) each = static_cast<float>(std::clamp<double>(each, -most, most));
    if (!floats) put_codes(items, row, clamped.data());
    for (int64_t j = 0; floats && j < dim; ++j) put_float(items, row, j, clamped[j]);
  }
  return items;
}

std::vector<float> queries_for(const Items& items, Kind kind, int64_t count, const Frame& frame,
                               Random& random) {
  const int64_t dim = items.dim;
  std::vector<float> queries = vectors(kind, count, dim, frame, random);
  for (int64_t q = 0; q < count; ++q) {
    float* row = queries.data() + q * dim;
    const int64_t sort = random.below(8);
    if (sort < 3)
      mix(row, dim, 1, frame.axes[0], 0, frame.axes[0], kind > Kind::clustered ? 0 : 0.3);
    if (sort == 3 && items.count > 0)
      std::copy_n(items.wide.data() + random.below(items.count) * dim, dim, row);
    if (sort == 4)
      for (int64_t j = 0; j < dim; ++j) row[j] = random.normal();
    if (sort == 5 && random.chance(0.4)) std::fill_n(row, dim, 0.0f);
    if (sort == 6 && random.chance(0.4)) multiply(row, dim, random.power_of_ten());
    for (int64_t j = 0; j < dim; ++j) row[j] = std::clamp(row[j], -3e38f, 3e38f);
  }
  return queries;
}

std::vector<float> numbers_of(Numbers numbers, int64_t count, Random& random) {
  std::vector<float> result(numbers == Numbers::none ? 0 : static_cast<size_t>(count));
  for (float& each : result) {
    const float normal = random.normal();
    switch (numbers) {
      case Numbers::none:
      case Numbers::normal:
        each = normal;
        break;
      case Numbers::equal:
        each = 0.5f;
        break;
      case Numbers::large:
        each = random.chance(0.1) ? normal * 1e30f : normal;
        break;
      case Numbers::small:
        each = normal * 1e-30f;
        break;
      case Numbers::extreme:
        each = random.chance(0.5) ? -3e38f : 3e38f;
        break;
      case Numbers::magnitudes:
        each = random.power_of_ten();
        break;
      case Numbers::zeros:
        each = random.chance(0.7) ? 0.0f : normal;
        break;
      case Numbers::negative:
        each = -std::abs(normal);
        break;
    }
  }
  return result;
}

Filters filters_of(Filtering filtering, int64_t queries, int64_t items, Random& random) {
  Filters filters;
  const bool all = filtering == Filtering::all;
  if (filtering == Filtering::half || all) filters.allowed = flags(items, all ? 0.9 : 0.5, random);
  if (filtering == Filtering::few) filters.allowed = flags(items, 0.01, random);
  if (filtering == Filtering::nothing) filters.allowed = flags(items, 0, random);
  // Of a mask and allow lists a caller gives one.
  const bool masked = filtering == Filtering::mask || (all && random.chance(0.5));
  if (masked) filters.mask = flags(queries * items, all ? 0.9 : 0.3, random);
  if (filtering == Filtering::exclude || all)
    filters.exclude = lists_of(queries, items, true, random);
  if (filtering == Filtering::allow || (all && !masked))
    filters.allow = lists_of(queries, items, false, random);
  return filters;
}

}  // namespace llmrec::driver
