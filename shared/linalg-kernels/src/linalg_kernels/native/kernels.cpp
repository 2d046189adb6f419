// Compiled once per instruction set, with LK_ISA naming the namespace and the
// compiler told which instructions it may use.
#include "kernels.hpp"

#include "block.hpp"
#include "cholesky.hpp"
#include "spectral.hpp"
#include "triangular.hpp"

namespace lk {
namespace LK_ISA {

template <class T>
static void cholesky_blocks(const CholeskyArgs& a, int64_t first, int64_t last, void* scratch) {
  const int n = a.n;
  const int64_t nn = (int64_t)n * n;
  Vec<T>* S = static_cast<Vec<T>*>(scratch);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_block<T>(static_cast<const T*>(a.A), nn, n * n, lanes, S);
    Mask<T> failed_at = cholesky<T>(S, n);
    if (any(failed_at != 0)) fill<T>(S, n * n, (Mask<T>)(failed_at != 0), not_a_number<T>());
    for (int i = 0; i < n; ++i)
      for (int j = i + 1; j < n; ++j) S[i * n + j] = Vec<T>{};
    store_block<T>(static_cast<T*>(a.L), nn, n * n, lanes, S);
    for (int l = 0; l < lanes.count; ++l) a.info[lanes.first + l] = (int32_t)failed_at[l];
  }
}

template <class T>
static void cholesky_adjoint_blocks(const CholeskyAdjointArgs& a, int64_t first, int64_t last,
                                    void* scratch) {
  const int n = a.n;
  const int64_t nn = (int64_t)n * n;
  Vec<T>* L = static_cast<Vec<T>*>(scratch);
  Vec<T>* G = L + n * n;
  Vec<T>* P = G + n * n;
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_block<T>(static_cast<const T*>(a.L), nn, n * n, lanes, L);
    load_block<T>(static_cast<const T*>(a.G), nn, n * n, lanes, G);
    cholesky_adjoint<T>(L, G, P, n, P + n * n);
    store_block<T>(static_cast<T*>(a.gA), nn, n * n, lanes, G);
  }
}

// Y = L^-1 sym(X) L^-T
template <class T>
static void congruence_blocks(const CongruenceArgs& a, int64_t first, int64_t last,
                              void* scratch) {
  const int n = a.n;
  const int64_t nn = (int64_t)n * n;
  Vec<T>* L = static_cast<Vec<T>*>(scratch);
  Vec<T>* X = L + n * n;
  Vec<T>* inverse = X + n * n;
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_block<T>(static_cast<const T*>(a.L), a.L_stride, n * n, lanes, L);
    load_block<T>(static_cast<const T*>(a.X), nn, n * n, lanes, X);
    Vec<T> size, difference, finite;
    fold<T>(X, n, true, size, difference, finite);
    mirror<T>(X, n);
    invert_diagonal<T>(L, n, inverse);
    forward_substitute<T>(L, inverse, n, X, n, 1);
    forward_substitute<T>(L, inverse, n, X, 1, n);
    mirror<T>(X, n);
    store_block<T>(static_cast<T*>(a.Y), nn, n * n, lanes, X);
  }
}

static size_t scratch_bytes(int n) {
  size_t spectral = sweep_bytes(n) + group_size(n) * block_vectors(n) * kBytes;
  size_t others = (3 * (size_t)n * n + 3 * n) * kBytes + n * sizeof(Prepared<double>);
  return spectral > others ? spectral : others;
}

template <class T>
constexpr TypedKernels typed_kernels() {
  return {Simd<T>::lanes,     spectral_blocks<T>,         frechet_blocks<T>,   compose_blocks<T>,
          cholesky_blocks<T>, cholesky_adjoint_blocks<T>, congruence_blocks<T>};
}

#define LK_STRING_(x) #x
#define LK_STRING(x) LK_STRING_(x)

extern const Kernels table;
const Kernels table = {LK_STRING(LK_ISA),
                       scratch_bytes,
                       group_size,
                       {typed_kernels<float>(), typed_kernels<double>()}};

}  // namespace LK_ISA
}  // namespace lk
