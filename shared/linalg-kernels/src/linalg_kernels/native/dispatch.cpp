// The C interface: choose the instruction set, cut the batch into blocks, run.
#include <atomic>
#include <cmath>
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
int32_t run(int32_t dtype, const Args& args, Kernel<Args> TypedKernels::*member, int32_t threads,
            bool grouped = false) {
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
  call.blocks = (args.batch + typed.lanes - 1) / typed.lanes;
  call.chunk = grouped && call.blocks >= 4 ? table->group(args.n) : 1;
  parallel_for(threads, (call.blocks + call.chunk - 1) / call.chunk, Call<Args>::range, &call);
  return call.out_of_memory ? LK_ERROR_MEMORY : LK_OK;
}

// Index of the first number for which `bad` holds, or -1.
template <class T, class Bad>
int64_t first_of(const T* x, int64_t count, Bad bad) {
  for (int64_t i = 0; i < count; ++i)
    if (bad(x[i])) return i;
  return -1;
}

// Where asymmetries go: to the caller, to a buffer of this thread if only the
// report is wanted, or nowhere.
void* asymmetry_room(void* asymmetry, double tolerance, int64_t batch) {
  thread_local std::vector<double> buffer;
  if (asymmetry != nullptr || std::isinf(tolerance)) return asymmetry;
  if ((int64_t)buffer.size() < batch) buffer.resize((size_t)batch);
  return buffer.data();
}

void write_report(int32_t dtype, int64_t batch, const int32_t* info, const void* asymmetry,
                  double tolerance, int64_t* report) {
  report[0] = first_of(info, batch, [](int32_t i) { return i != 0; });
  report[1] = -1;
  if (asymmetry == nullptr) return;
  auto bad = [tolerance](auto x) { return x > tolerance; };
  report[1] = dtype == LK_FLOAT32 ? first_of(static_cast<const float*>(asymmetry), batch, bad)
                                  : first_of(static_cast<const double*>(asymmetry), batch, bad);
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

int32_t lk_spectral(int32_t dtype, int64_t batch, int32_t n, int32_t symmetrize, const void* A,
                    const void* L, int64_t L_stride, int32_t kind, const void* table, double floor,
                    int32_t sorted, void* w, void* V, void* F, int32_t* info, void* asymmetry,
                    double tolerance, int64_t* report, int32_t threads) {
  try {
    asymmetry = asymmetry_room(asymmetry, tolerance, batch);
  } catch (const std::bad_alloc&) {
    return LK_ERROR_MEMORY;
  }
  SpectralArgs args{batch, n, symmetrize, A, L, L_stride, {kind, table, floor},
                    sorted, w, V, F, info, asymmetry};
  int32_t status = run(dtype, args, &TypedKernels::spectral, threads, true);
  if (status != LK_OK) return status;
  write_report(dtype, batch, info, asymmetry, tolerance, report);
  return LK_OK;
}

int32_t lk_frechet(int32_t dtype, int64_t batch, int32_t n, const void* w, const void* V,
                   const void* E, int32_t kind, const void* table, double floor, void* D,
                   int32_t threads) {
  FrechetArgs args{batch, n, w, V, E, {kind, table, floor}, D};
  return run(dtype, args, &TypedKernels::frechet, threads);
}

int32_t lk_compose(int32_t dtype, int64_t batch, int32_t n, const void* w, const void* V,
                   int32_t kind, const void* table, double floor, void* F, int32_t threads) {
  ComposeArgs args{batch, n, w, V, {kind, table, floor}, F};
  return run(dtype, args, &TypedKernels::compose, threads);
}

int32_t lk_cholesky(int32_t dtype, int64_t batch, int32_t n, int32_t symmetrize, const void* A,
                    void* L, int32_t* info, void* asymmetry, double tolerance, int64_t* report,
                    int32_t threads) {
  try {
    asymmetry = asymmetry_room(asymmetry, tolerance, batch);
  } catch (const std::bad_alloc&) {
    return LK_ERROR_MEMORY;
  }
  CholeskyArgs args{batch, n, symmetrize, A, L, info, asymmetry};
  int32_t status = run(dtype, args, &TypedKernels::cholesky, threads);
  if (status == LK_OK) write_report(dtype, batch, info, asymmetry, tolerance, report);
  return status;
}

int32_t lk_cholesky_adjoint(int32_t dtype, int64_t batch, int32_t n, const void* L, const void* G,
                            void* gA, int32_t threads) {
  CholeskyAdjointArgs args{batch, n, L, G, gA};
  return run(dtype, args, &TypedKernels::cholesky_adjoint, threads);
}

int32_t lk_congruence(int32_t dtype, int64_t batch, int32_t n, const void* L, int64_t L_stride,
                      const void* X, void* Y, int32_t threads) {
  CongruenceArgs args{batch, n, L, L_stride, X, Y};
  return run(dtype, args, &TypedKernels::congruence, threads);
}
