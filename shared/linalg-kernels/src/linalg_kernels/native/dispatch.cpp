// The C interface: choose the instruction set, cut the batch into blocks, run.
#include "run.hpp"

#include <string>
#include <vector>

#include "abi.h"

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

}  // namespace

const Kernels* in_use() { return current().load(); }

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

}  // namespace lk

using namespace lk;

int32_t lk_abi_version(void) { return LK_ABI_VERSION; }

const char* lk_isa(void) {
  const Kernels* table = in_use();
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

int32_t lk_lanes(int32_t dtype) {
  const Kernels* table = in_use();
  if (table == nullptr) return LK_ERROR_ISA;
  return dtype == LK_FLOAT32 || dtype == LK_FLOAT64 ? table->typed[dtype].lanes
                                                    : LK_ERROR_ARGUMENT;
}

int32_t lk_spectral(int32_t dtype, int64_t batch, int32_t n, int32_t symmetrize, const void* A,
                    const void* L, int64_t L_repeat, int32_t multiply, int32_t kind,
                    const void* table, double floor, int32_t sorted, int32_t accurate,
                    int32_t positive, void* w, void* V, void* F, void* packed, int32_t* info,
                    double tolerance, int32_t threads) {
  int32_t found = LK_OK;
  if (L_repeat < 1) return LK_ERROR_ARGUMENT;
  SpectralArgs args{batch, n, symmetrize, A, L, L_repeat, multiply, {kind, table, floor},
                    sorted, positive, w, V, F, packed, info, tolerance, &found};
  int32_t status = accurate ? run(dtype, args, &TypedKernels::accurate, threads)
                            : run(dtype, args, &TypedKernels::spectral, threads, true);
  return status < 0 ? status : found;
}

int32_t lk_frechet(int32_t dtype, int64_t batch, int32_t n, int32_t shared, const void* w,
                   const void* V, const void* packed, const void* E, int32_t kind,
                   const void* table, double floor, void* D, int32_t threads) {
  FrechetArgs args{batch, n, shared, w, V, packed, E, {kind, table, floor}, D};
  return run(dtype, args, &TypedKernels::frechet, threads);
}

int32_t lk_eigh_adjoint(int32_t dtype, int64_t batch, int32_t n, const void* w, const void* V,
                        const void* gw, const void* gV, void* gA, int32_t threads) {
  EighAdjointArgs args{batch, n, w, V, gw, gV, gA};
  return run(dtype, args, &TypedKernels::eigh_adjoint, threads);
}

int32_t lk_compose(int32_t dtype, int64_t batch, int32_t n, const void* w, const void* V,
                   int32_t kind, const void* table, double floor, void* F, int32_t threads) {
  ComposeArgs args{batch, n, w, V, {kind, table, floor}, F};
  return run(dtype, args, &TypedKernels::compose, threads);
}

int32_t lk_carry(int32_t dtype, int64_t batch, int32_t n, const void* packed, const void* K,
                 int64_t K_repeat, int32_t kind, const void* table, double floor, void* Y,
                 int32_t threads) {
  if (K_repeat < 1) return LK_ERROR_ARGUMENT;
  CarryArgs args{batch, n, packed, K, K_repeat, {kind, table, floor}, Y};
  return run(dtype, args, &TypedKernels::carry, threads);
}

int32_t lk_carry_adjoint(int32_t dtype, int64_t batch, int32_t n, const void* packed,
                         const void* K, int64_t K_repeat, const void* W, int64_t W_repeat,
                         int32_t kind, const void* table, double floor, const void* G, void* gX,
                         void* slope, int32_t threads) {
  if (K_repeat < 1 || W_repeat < 1) return LK_ERROR_ARGUMENT;
  CarryAdjointArgs args{batch, n, packed, K, K_repeat, W, W_repeat, {kind, table, floor},
                        G,     gX, slope};
  return run(dtype, args, &TypedKernels::carry_adjoint, threads);
}

int32_t lk_congruence_trace(int32_t dtype, int64_t batch, int32_t n, const void* X,
                            int64_t X_count, const void* K, const void* A, int64_t repeat,
                            int32_t kind, const void* table, double floor, void* trace, void* F,
                            void* D, int32_t threads) {
  if (X_count < 1 || repeat < 1) return LK_ERROR_ARGUMENT;
  CongruenceTraceArgs args{batch,  n,     X, X_count, K, A, repeat, {kind, table, floor},
                           trace, F, D};
  return run(dtype, args, &TypedKernels::congruence_trace, threads, true);
}

int32_t lk_cholesky(int32_t dtype, int64_t batch, int32_t n, int32_t symmetrize, const void* A,
                    int32_t chart, double exponent, void* L, void* X, int32_t* info,
                    double tolerance, int32_t threads) {
  int32_t found = LK_OK;
  CholeskyArgs args{batch, n, symmetrize, A, chart, exponent, L, X, info, tolerance, &found};
  int32_t status = run(dtype, args, &TypedKernels::cholesky, threads);
  return status < 0 ? status : found;
}

int32_t lk_cholesky_adjoint(int32_t dtype, int64_t batch, int32_t n, int32_t chart,
                            double exponent, const void* L, const void* G, void* gA,
                            int32_t threads) {
  CholeskyAdjointArgs args{batch, n, chart, exponent, L, G, gA};
  return run(dtype, args, &TypedKernels::cholesky_adjoint, threads);
}

int32_t lk_from_log(int32_t dtype, int64_t batch, int32_t n, const void* X, void* A,
                    int32_t threads) {
  FromLogArgs args{batch, n, X, A};
  return run(dtype, args, &TypedKernels::from_log, threads);
}

int32_t lk_from_log_adjoint(int32_t dtype, int64_t batch, int32_t n, const void* X, const void* G,
                            void* gX, int32_t threads) {
  FromLogAdjointArgs args{batch, n, X, G, gX};
  return run(dtype, args, &TypedKernels::from_log_adjoint, threads);
}

int32_t lk_cholesky_distance(int32_t dtype, int64_t batch, int32_t n, const void* P,
                             const void* Q, double a, const void* weight, void* value, void* L,
                             void* K, double tolerance, int32_t threads) {
  int32_t found = LK_OK;
  CholeskyDistanceArgs args{batch, n, P, Q, a, weight, value, L, K, tolerance, &found};
  int32_t status = run(dtype, args, &TypedKernels::cholesky_distance, threads);
  return status < 0 ? status : found;
}

int32_t lk_cholesky_distance_adjoint(int32_t dtype, int64_t batch, int32_t n, double a,
                                     const void* weight, const void* value, const void* L,
                                     const void* K, const void* g, void* gP, void* gQ,
                                     int32_t threads) {
  CholeskyDistanceAdjointArgs args{batch, n, a, weight, value, L, K, g, gP, gQ};
  return run(dtype, args, &TypedKernels::cholesky_distance_adjoint, threads);
}

int32_t lk_inspect(int32_t dtype, int64_t batch, int32_t n, const void* A, double tolerance,
                   int32_t threads) {
  int32_t found = LK_OK;
  InspectArgs args{batch, n, A, tolerance, &found};
  int32_t status = run(dtype, args, &TypedKernels::inspect, threads);
  return status < 0 ? status : found;
}

int32_t lk_congruence(int32_t dtype, int64_t batch, int32_t n, const void* L, int64_t L_repeat,
                      const void* X, void* Y, int32_t threads) {
  if (L_repeat < 1) return LK_ERROR_ARGUMENT;
  CongruenceArgs args{batch, n, L, L_repeat, X, Y};
  return run(dtype, args, &TypedKernels::congruence, threads);
}

int32_t lk_pencil(int32_t dtype, int64_t batch, int32_t n, const void* P, int64_t P_repeat,
                  const void* Q, int64_t Q_count, double alpha, double beta, int32_t root,
                  void* value, void* packed, double tolerance, int32_t threads) {
  int32_t found = LK_OK;
  if (P_repeat < 1 || Q_count < 1) return LK_ERROR_ARGUMENT;
  PencilArgs args{batch, n,    P,     P_repeat, Q,         Q_count, alpha,
                  beta,  root, value, packed,   tolerance, &found};
  int32_t status = run(dtype, args, &TypedKernels::pencil, threads, true);
  return status < 0 ? status : found;
}

int32_t lk_pencil_adjoint(int32_t dtype, int64_t batch, int32_t n, double alpha, double beta,
                          int32_t root, const void* packed, const void* g, void* gP, void* gQ,
                          int32_t threads) {
  PencilAdjointArgs args{batch, n, alpha, beta, root, packed, g, gP, gQ};
  return run(dtype, args, &TypedKernels::pencil_adjoint, threads);
}
