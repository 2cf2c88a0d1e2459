// What tests/nvrtc_stand_in.py compiles the kernels with: each source is a unit of one library,
// which runs kernels by their C++ names, tells what a C++ launcher launches instead of running it,
// and tells how structs are laid out.
#pragma once

#include <cstddef>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "common/cuda.cuh"

#undef LAUNCH
#define LAUNCH(kernel, grid, threads, shared, stream, ...) \
  (static_cast<void>(stream), stand_in::tell(kernel, grid, threads, shared, __VA_ARGS__))

namespace stand_in {

using Run = void(dim3 grid, unsigned threads, size_t shared, const void* call);

struct Told {
  const char* kernel;
  unsigned grid[3], threads;
  int64_t shared, bytes;
  unsigned char call[512];
};

inline std::map<std::string, Run*> kernels;
inline std::map<void*, std::string> names;
inline std::map<std::string, int64_t> layouts;
inline std::vector<Told> told;

template <class Call>
void tell(void (*kernel)(Call), dim3 grid, unsigned threads, size_t shared, const Call& call) {
  static_assert(sizeof(Call) <= sizeof(Told::call));
  Told one = {names.at(reinterpret_cast<void*>(kernel)).c_str(),
              {grid.x, grid.y, grid.z},
              threads,
              static_cast<int64_t>(shared),
              sizeof(Call),
              {}};
  std::memcpy(one.call, &call, sizeof(Call));
  told.push_back(one);
}

template <class Call, void (*kKernel)(Call)>
void run(dim3 grid, unsigned threads, size_t shared, const void* bytes) {
  Call call;
  std::memcpy(&call, bytes, sizeof(Call));
  emulator::launch(grid, threads, shared, [&] { kKernel(call); });
}

template <class Call, void (*kKernel)(Call)>
bool enter(const char* name) {
  kernels[name] = run<Call, kKernel>;
  names[reinterpret_cast<void*>(kKernel)] = name;
  return true;
}

inline bool enter_layout(const char* name, size_t value) {
  layouts[name] = static_cast<int64_t>(value);
  return true;
}

// What a launcher is called with: pointers and numbers, in turn.
class Words {
 public:
  explicit Words(const int64_t* at) : at_(at) {}
  int64_t number() { return *at_++; }
  double real() { return std::bit_cast<double>(number()); }
  template <class T>
  T* pointer() {
    return reinterpret_cast<T*>(number());
  }

 private:
  const int64_t* at_;
};

}  // namespace stand_in
