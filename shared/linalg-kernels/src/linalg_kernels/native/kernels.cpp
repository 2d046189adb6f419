// Compiled once per instruction set, with LK_ISA naming the namespace and the
// compiler told which instructions it may use.
#include "kernels.hpp"

#include "block.hpp"
#include "cholesky.hpp"
#include "pencil.hpp"
#include "spectral.hpp"
#include "triangular.hpp"

namespace lk {
namespace LK_ISA {

template <class T>
static void cholesky_blocks(const CholeskyArgs& a, int64_t first, int64_t last, void* scratch) {
  const int n = a.n, ld = leading(n);
  const int64_t nn = (int64_t)n * n;
  Vec<T>* S = static_cast<Vec<T>*>(scratch);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_square<T>(a.A, nn, n, lanes, S);
    if (a.symmetrize) {
      Vec<T> size, difference, finite;
      fold<T>(S, n, true, size, difference, finite);
      tell_asymmetry<T>(a.found, a.tolerance, size, difference);
    }
    Mask<T> failed_at = cholesky<T>(S, n);
    for (int i = 0; i < n; ++i)
      for (int j = i + 1; j < n; ++j) S[i * ld + j] = Vec<T>{};
    if (any((Mask<T>)(failed_at != 0))) {
      fill<T>(S, n * ld, (Mask<T>)(failed_at != 0), not_a_number<T>());
      tell(a.found, kNotPositive);
    }
    store_square<T>(a.L, n, lanes, S);
    if (a.info == nullptr) continue;
    for (int l = 0; l < lanes.count; ++l) a.info[lanes.first + l] = (int32_t)failed_at[l];
  }
}

template <class T>
static void cholesky_adjoint_blocks(const CholeskyAdjointArgs& a, int64_t first, int64_t last,
                                    void* scratch) {
  const int n = a.n;
  const int64_t nn = (int64_t)n * n;
  Vec<T>* L = static_cast<Vec<T>*>(scratch);
  Vec<T>* G = L + matrix_vectors(n);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_square<T>(a.L, nn, n, lanes, L);
    load_square<T>(a.G, nn, n, lanes, G);
    cholesky_adjoint<T>(L, G, n);
    store_square<T>(a.gA, n, lanes, G);
  }
}

// Y = L^-1 sym(X) L^-T
template <class T>
static void congruence_blocks(const CongruenceArgs& a, int64_t first, int64_t last,
                              void* scratch) {
  const int n = a.n;
  const int64_t nn = (int64_t)n * n;
  Vec<T>* L = static_cast<Vec<T>*>(scratch);
  Vec<T>* X = L + matrix_vectors(n);
  Vec<T>* inverse = X + matrix_vectors(n);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_square<T>(a.L, a.L_stride, n, lanes, L);
    load_square<T>(a.X, nn, n, lanes, X);
    Vec<T> size, difference, finite;
    fold<T>(X, n, true, size, difference, finite);
    invert_diagonal<T>(L, n, inverse);
    whiten<T>(L, inverse, n, X);
    mirror<T>(X, n);
    store_square<T>(a.Y, n, lanes, X);
  }
}

static size_t scratch_bytes(int n) {
  // The pencil keeps a Cholesky factor beside each block.
  size_t spectral = sweep_bytes(n) + group_size(n) * (block_vectors(n) + matrix_vectors(n)) * kBytes;
  size_t others = (3 * matrix_vectors(n) + 3 * n) * kBytes + n * sizeof(Prepared<double>);
  return spectral > others ? spectral : others;
}

template <class T>
constexpr TypedKernels typed_kernels() {
  return {Simd<T>::lanes,       spectral_blocks<T>, frechet_blocks<T>,
          compose_blocks<T>,    cholesky_blocks<T>, cholesky_adjoint_blocks<T>,
          congruence_blocks<T>, pencil_blocks<T>,   pencil_adjoint_blocks<T>};
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
