// What one instruction set offers: a table of functions over ranges of blocks.
// kernels.cpp fills one table per instruction set; dispatch.cpp picks one.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace lk {

struct CholeskyArgs {
  int64_t batch;
  int32_t n;
  const void* A;
  void* L;
  int32_t* info;
};

// Work on the groups [first, last), with `scratch` of at least
// scratch_bytes(n), aligned to 64.
template <class Args>
using Kernel = void (*)(const Args&, int64_t first, int64_t last, void* scratch);

struct TypedKernels {
  int lanes;
  Kernel<CholeskyArgs> cholesky;
};

struct Kernels {
  const char* name;
  size_t (*scratch_bytes)(int n);
  TypedKernels typed[2];  // LK_FLOAT32, LK_FLOAT64
};

}  // namespace lk
