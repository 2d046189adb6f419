// Compiled once per instruction set, with LK_ISA naming the namespace and the
// compiler told which instructions it may use.
#include "kernels.hpp"

#include "block.hpp"
#include "carried.hpp"
#include "cholesky_chart.hpp"
#include "congruence_trace.hpp"
#include "eigh_adjoint.hpp"
#include "factor_trace.hpp"
#include "frechet.hpp"
#include "jacobi.hpp"
#include "karcher.hpp"
#include "multiply.hpp"
#include "packing.hpp"
#include "pencil.hpp"
#include "spectral.hpp"
#include "triangular.hpp"
#include "wide.hpp"

namespace lk {
namespace LK_ISA {

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
    load_square<T>(a.L, nn, n, SharedLanes<T>(lanes, a.L_repeat, a.batch), L);
    load_square<T>(a.X, nn, n, lanes, X);
    Vec<T> size, difference, finite;
    fold<T>(X, n, true, size, difference, finite);
    invert_diagonal<T>(L, n, inverse);
    whiten<T>(L, inverse, n, X);
    mirror<T>(X, n);
    store_square<T>(a.Y, n, lanes, X);
  }
}

// Nothing is computed: only what is found is told.
template <class T>
static void inspect_blocks(const InspectArgs& a, int64_t first, int64_t last, void* scratch) {
  const int n = a.n;
  Vec<T>* A = static_cast<Vec<T>*>(scratch);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_square<T>(a.A, (int64_t)n * n, n, lanes, A);
    Vec<T> size, difference, finite;
    fold<T>(A, n, true, size, difference, finite);
    tell_asymmetry<T>(a.found, a.tolerance, size, difference);
    if (any((Mask<T>)~(finite == Vec<T>{}))) tell(a.found, kNotFinite);
  }
}

static size_t scratch_bytes(int n) {
  // The pencil keeps a Cholesky factor beside each block.
  size_t spectral = sweep_bytes(n) + group_size(n) * (block_vectors(n) + matrix_vectors(n)) * kBytes;
  size_t others = (5 * matrix_vectors(n) + 3 * n) * kBytes + n * sizeof(Prepared<double>);
  return spectral > others ? spectral : others;
}

template <class T>
constexpr TypedKernels typed_kernels() {
  return {Simd<T>::lanes,
          spectral_blocks<T>,
          accurate_blocks<T>,
          frechet_blocks<T>,
          compose_blocks<T>,
          carry_blocks<T>,
          carry_adjoint_blocks<T>,
          congruence_trace_blocks<T>,
          eigh_adjoint_blocks<T>,
          cholesky_blocks<T>,
          cholesky_adjoint_blocks<T>,
          from_log_blocks<T>,
          from_log_adjoint_blocks<T>,
          cholesky_distance_blocks<T>,
          cholesky_distance_adjoint_blocks<T>,
          inspect_blocks<T>,
          congruence_blocks<T>,
          pencil_blocks<T>,
          pencil_adjoint_blocks<T>,
          karcher_blocks<T>,
          multiply_strips<T>,
          transpose_strips<T>,
          mirror_strips<T>,
          symmetric_part_strips<T>,
          differences_strips<T>,
          invert_factor<T>,
          pack_strips<T>,
          unpack_strips<T>,
          factor_trace_blocks<T>};
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
