// The C interface: choose the instruction set, cut the batch into blocks, run.
#include <atomic>
#include <new>
#include <string>
#include <vector>

#include "abi.h"
#include "kernels.hpp"
#include "threads.hpp"

namespace lk {

#if defined(LK_X86)
namespace avx512 { extern const Kernels table; }
namespace avx2 { extern const Kernels table; }
namespace sse4 { extern const Kernels table; }
#elif defined(LK_ARM64)
namespace neon { extern const Kernels table; }
#else
namespace generic { extern const Kernels table; }
#endif

namespace {

// The tables that this processor runs, best first.
std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> r;
#if defined(LK_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
    r.push_back(&avx512::table);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) r.push_back(&avx2::table);
  if (__builtin_cpu_supports("sse4.2")) r.push_back(&sse4::table);
#elif defined(LK_ARM64)
  r.push_back(&neon::table);
#else
  r.push_back(&generic::table);
#endif
  return r;
}

const std::vector<const Kernels*>& tables() {
  static const std::vector<const Kernels*> t = runnable();
  return t;
}

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> c{tables().empty() ? nullptr : tables().front()};
  return c;
}

// Memory that a thread keeps from call to call, aligned to a cache line.
void* scratch(size_t bytes) {
  struct Buffer {
    void* memory = nullptr;
    size_t size = 0;
    ~Buffer() { release(); }
    void release() {
      if (memory) ::operator delete(memory, std::align_val_t(64));
      memory = nullptr;
      size = 0;
    }
  };
  thread_local Buffer buffer;
  if (buffer.size < bytes) {
    buffer.release();
    buffer.memory = ::operator new(bytes, std::align_val_t(64));
    buffer.size = bytes;
  }
  return buffer.memory;
}

template <class Args>
struct Call {
  const Args* args;
  Kernel<Args> kernel;
  size_t scratch_bytes;
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
    c.kernel(*c.args, first, last, memory);
  }
};

template <class Args>
int32_t run(int32_t dtype, const Args& args, Kernel<Args> TypedKernels::* member, int32_t threads) {
  if ((dtype != LK_FLOAT32 && dtype != LK_FLOAT64) || args.n < 1 || args.batch < 0)
    return LK_ERROR_ARGUMENT;
  const Kernels* table = current().load();
  if (table == nullptr) return LK_ERROR_ISA;
  if (args.batch == 0) return LK_OK;
  const TypedKernels& typed = table->typed[dtype];
  Call<Args> call;
  call.args = &args;
  call.kernel = typed.*member;
  call.scratch_bytes = table->scratch_bytes(args.n);
  parallel_for(threads, (args.batch + typed.lanes - 1) / typed.lanes, Call<Args>::range, &call);
  return call.out_of_memory ? LK_ERROR_MEMORY : LK_OK;
}

}  // namespace
}  // namespace lk

using namespace lk;

int32_t lk_abi_version(void) { return LK_ABI_VERSION; }

const char* lk_isa(void) {
  const Kernels* table = current().load();
  return table ? table->name : "";
}

const char* lk_available_isas(void) {
  static const std::string names = [] {
    std::string s;
    for (const Kernels* t : tables()) s += (s.empty() ? "" : " ") + std::string(t->name);
    return s;
  }();
  return names.c_str();
}

int32_t lk_select_isa(const char* name) {
  for (const Kernels* t : tables())
    if (std::string(t->name) == name) {
      current().store(t);
      return LK_OK;
    }
  return LK_ERROR_ISA;
}

int32_t lk_cholesky(int32_t dtype, int64_t batch, int32_t n, const void* A, void* L, int32_t* info,
                    int32_t threads) {
  return run(dtype, CholeskyArgs{batch, n, A, L, info}, &TypedKernels::cholesky, threads);
}
