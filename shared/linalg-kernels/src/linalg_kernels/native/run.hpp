// Runs a kernel over the blocks of a batch, on threads.
#pragma once

#include <atomic>
#include <new>

#include "abi.h"
#include "kernels.hpp"
#include "threads.hpp"

namespace lk {

// The instruction set in use; null if there is none.
const Kernels* in_use();

// Memory that a thread keeps from call to call, aligned to a cache line.
void* scratch(size_t bytes);

template <class Args>
struct Call {
  const Args* args;
  Kernel<Args> kernel;
  size_t scratch_bytes;
  int64_t blocks, chunk;  // ranges are counted in chunks of blocks
  std::atomic<bool> out_of_memory{false};

  static void range(void* self, int64_t first, int64_t last) {
    Call& c = *static_cast<Call*>(self);
    void* memory;
    try {
      memory = scratch(c.scratch_bytes);
    } catch (const std::bad_alloc&) {
      c.out_of_memory = true;
      return;
    }
    last *= c.chunk;
    c.kernel(*c.args, first * c.chunk, last < c.blocks ? last : c.blocks, memory);
  }
};

template <class Args>
int32_t run(const Kernels* table, int32_t dtype, const Args& args,
            Kernel<Args> TypedKernels::*member, int32_t threads, bool grouped = false) {
  if ((dtype != LK_FLOAT32 && dtype != LK_FLOAT64) || args.n < 1 || args.batch < 0)
    return LK_ERROR_ARGUMENT;
  if (table == nullptr) return LK_ERROR_ISA;
  if (args.batch == 0) return LK_OK;
  const TypedKernels& typed = table->typed[dtype];
  Call<Args> call;
  call.args = &args;
  call.kernel = typed.*member;
  call.scratch_bytes = table->scratch_bytes(args.n);
  call.blocks = (args.batch + typed.lanes - 1) / typed.lanes;
  call.chunk = grouped && call.blocks >= 4 ? table->group(args.n) : 1;
  parallel_for(threads, (call.blocks + call.chunk - 1) / call.chunk, Call<Args>::range, &call);
  return call.out_of_memory ? LK_ERROR_MEMORY : LK_OK;
}

template <class Args>
int32_t run(int32_t dtype, const Args& args, Kernel<Args> TypedKernels::*member, int32_t threads,
            bool grouped = false) {
  return run(in_use(), dtype, args, member, threads, grouped);
}

}  // namespace lk
