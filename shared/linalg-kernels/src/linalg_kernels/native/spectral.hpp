// From matrices in memory to eigensystems and functions of them, all while a
// block is in cache.
#pragma once

#include "block.hpp"
#include "cholesky.hpp"
#include "functions.hpp"
#include "kernels.hpp"
#include "product.hpp"
#include "ql.hpp"
#include "triangular.hpp"
#include "tridiagonal.hpp"

namespace lk {
namespace LK_ISA {

// Blocks that go through the QL recurrence side by side. More of them hide its
// latency, fewer leave more of the cache to each.
constexpr int group_size(int n) { return n <= 32 ? 2 : 1; }

// Vectors of scratch for one block of the spectral kernel. Where rotations
// waited, an n x n product finds its place afterwards.
constexpr size_t rotation_vectors(int n) {
  const size_t needed = 2 * (size_t)rotation_capacity(n), product = matrix_vectors(n);
  return needed > product ? needed : product;
}
constexpr size_t block_vectors(int n) { return 2 * matrix_vectors(n) + 4 * n + rotation_vectors(n); }
constexpr size_t sweep_bytes(int n) {
  return (sizeof(Sweep) * (size_t)sweep_capacity(n) + 63) / 64 * 64;
}

// Everything about a block between loading and storing. Lanes that cannot be
// computed are `bad`: a zero matrix takes their place, and NaN is their result.
template <class T>
struct Block {
  Vec<T>*S, *Z, *d, *e, *tau, *work, *rotations;
  Vec<T>* factor;  // room for a Cholesky factor, if it was asked for
  Mask<T> bad, failed;
  Vec<T> scale_back;
};

// The matrix that the block stands for, on the lower triangle of S. `finite`
// becomes NaN in lanes that hold NaN or Inf; `size` is the largest entry.
template <class T>
static void fold(Vec<T>* S, int n, bool symmetrize, Vec<T>& size, Vec<T>& difference,
                 Vec<T>& finite) {
  using V = Vec<T>;
  const int ld = leading(n);
  // Names of their own: what is passed by reference might lie in S.
  V largest{}, apart{}, zero{}, other_zero{};
  for (int i = 0; i < n; ++i) {
    if (symmetrize) {
      for (int j = 0; j < i; ++j) {
        V a = S[i * ld + j], change = S[j * ld + i] - a;
        V mean = fma(change, set(T(0.5)), a);
        S[i * ld + j] = mean;
        apart = max(abs(change), apart);
        largest = max(abs(mean), largest);
        zero = fma(change, V{}, zero);
        other_zero = fma(mean, V{}, other_zero);
      }
    } else {
      for (int j = 0; j < i; ++j) {
        V a = S[i * ld + j];
        largest = max(abs(a), largest);
        zero = fma(a, V{}, zero);
      }
    }
    V a = S[i * ld + i];
    zero = fma(a, V{}, zero);
    largest = max(abs(a), largest);
  }
  size = largest;
  difference = apart;
  finite = zero + other_zero;
}

// Tells of a matrix that is further from symmetric than it may be.
template <class T>
LK_INLINE void tell_asymmetry(int32_t* found, double tolerance, Vec<T> size, Vec<T> difference) {
  if (any((Mask<T>)(difference > splat<T>(tolerance) * size))) tell(found, kAsymmetric);
}

// Largest entry of the lower triangle of S; NaN or Inf shows in `finite`.
template <class T>
static void measure(const Vec<T>* S, int n, Vec<T>& size, Vec<T>& finite) {
  const int ld = leading(n);
  Vec<T> largest = size, zero = finite;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j <= i; ++j) {
      zero = fma(S[i * ld + j], Vec<T>{}, zero);
      largest = max(abs(S[i * ld + j]), largest);
    }
  size = largest;
  finite = zero;
}

// 2^-k and 2^k with 2^k near `size`, both normal numbers.
template <class T>
LK_INLINE void scaling(Vec<T> size, Vec<T>& down, Vec<T>& back) {
  constexpr int bits = Simd<T>::mantissa_bits;
  Mask<T> field = Mask<T>{} + 2 * Simd<T>::bias - ((Mask<T>)size >> bits);
  field = select(field < 1, Mask<T>{} + 1, field);
  field = select(field > 2 * Simd<T>::bias - 1, Mask<T>{} + (2 * Simd<T>::bias - 1), field);
  down = (Vec<T>)(field << bits);
  back = (Vec<T>)((2 * Simd<T>::bias - field) << bits);
}

// Zero in the bad lanes and entries of a size about 1 in the others; S has
// entries up to `size`.
template <class T>
static void prepare_lanes(Block<T>& b, int n, Vec<T> size) {
  using V = Vec<T>;
  const int ld = leading(n);
  V down;
  scaling<T>(size, down, b.scale_back);
  if (any(b.bad)) {
    for (int i = 0; i < n; ++i)
      for (int j = 0; j <= i; ++j) b.S[i * ld + j] = select(b.bad, V{}, b.S[i * ld + j]);
    down = select(b.bad, set(T(1)), down);
    b.scale_back = select(b.bad, set(T(1)), b.scale_back);
  }
  for (int i = 0; i < n; ++i)
    for (int j = 0; j <= i; ++j) b.S[i * ld + j] *= down;
}

// S <- L^-1 S L^-T, on the lower triangle. `inverse` holds 1 / L_ii.
template <class T>
static void whiten(const Vec<T>* L, const Vec<T>* inverse, int n, Vec<T>* S) {
  const int ld = leading(n);
  mirror<T>(S, n);
  forward_substitute<T>(L, inverse, n, S, ld, 1, false);
  forward_substitute<T>(L, inverse, n, S, 1, ld, true);
}

// S <- C S C^T, on the lower triangle. `work` holds a matrix.
template <class T>
static void congruence(const Vec<T>* C, int n, Vec<T>* S, Vec<T>* work) {
  const int ld = leading(n);
  mirror<T>(S, n);
  product<T>(work, n, {S, ld, 1}, {C, 1, ld}, false);  // S C^T
  product<T>(S, n, {C, 1, ld}, {work, ld, 1}, true);
}

template <class T>
static void load_matrices(const SpectralArgs& a, Lanes<T> lanes, Block<T>& b) {
  using V = Vec<T>;
  const int n = a.n;
  V size, difference, finite;
  load_square<T>(a.A, (int64_t)n * n, n, lanes, b.S);
  fold<T>(b.S, n, a.symmetrize, size, difference, finite);
  tell_asymmetry<T>(a.found, a.tolerance, size, difference);
  if (a.L != nullptr) {
    load_square<T>(a.L, (int64_t)n * n, n, SharedLanes<T>(lanes, a.L_repeat, a.batch), b.Z);
    if (a.multiply) {
      congruence<T>(b.Z, n, b.S, b.rotations);
    } else {
      invert_diagonal<T>(b.Z, n, b.work);
      whiten<T>(b.Z, b.work, n, b.S);
    }
    size = V{};
    measure<T>(b.S, n, size, finite);
  }
  b.bad = (Mask<T>)~(finite == V{});
  prepare_lanes<T>(b, n, size);
}

// f(w) for the n eigenvalues of a block.
template <class T, int kind>
static void values_of(const FunctionArgs& f, Lanes<T> lanes, int n, const Vec<T>* w, Vec<T>* y) {
  Exponent<T> e{};
  if constexpr (kind == kPower) e = exponent<T>(load_lanes<T>(static_cast<const T*>(f.table), lanes));
  const Vec<T> floor = splat<T>(f.floor);
  for (int i = 0; i < n; ++i) {
    // Written so that NaN stays NaN.
    Vec<T> x = select(w[i] < floor, floor, w[i]);
    y[i] = value<T, kind>(x, e);
  }
}

template <class T>
static void values(const FunctionArgs& f, Lanes<T> lanes, int n, const Vec<T>* w, Vec<T>* y) {
  switch (f.kind) {
    case kLog: return values_of<T, kLog>(f, lanes, n, w, y);
    case kExp: return values_of<T, kExp>(f, lanes, n, w, y);
    case kSqrt: return values_of<T, kSqrt>(f, lanes, n, w, y);
    case kInvSqrt: return values_of<T, kInvSqrt>(f, lanes, n, w, y);
    case kInverse: return values_of<T, kInverse>(f, lanes, n, w, y);
    case kPower: return values_of<T, kPower>(f, lanes, n, w, y);
    case kTable: return load_row<T>(f.table, n, lanes, y);
    default: return values_of<T, kIdentity>(f, lanes, n, w, y);
  }
}

// M <- K o M on the lower triangle, K_ij = f[w_i, w_j].
template <class T, int kind>
static void scale_by_differences_of(const FunctionArgs& f, Lanes<T> lanes, bool shared, int n,
                                    const Vec<T>* w, Prepared<T>* prepared, Vec<T>* M) {
  const int ld = leading(n);
  Exponent<T> e{};
  if constexpr (kind == kPower)
    e = exponent<T>(shared ? set(*static_cast<const T*>(f.table))
                           : load_lanes<T>(static_cast<const T*>(f.table), lanes));
  const bool floored = f.floor > -__builtin_inf();
  const Vec<T> floor = splat<T>(f.floor);
  for (int i = 0; i < n; ++i) {
    prepared[i].raw = w[i];
    prepared[i].w = select(w[i] < floor, floor, w[i]);
    prepare<T, kind>(prepared[i], e);
  }
  for (int i = 0; i < n; ++i)
    for (int j = 0; j <= i; ++j) {
      Vec<T> K = divided_difference<T, kind>(prepared[i], prepared[j], e);
      if (floored) {
        Vec<T> share = floor_difference<T>(prepared[i].raw, prepared[j].raw, floor);
        // f may be singular at the floor, where the derivative is 0 all the same.
        K = select(share == Vec<T>{}, share, K * share);
      }
      M[i * ld + j] *= K;
    }
}

template <class T>
static void scale_by_differences(const FunctionArgs& f, Lanes<T> lanes, bool shared, int n,
                                 const Vec<T>* w, Prepared<T>* prepared, Vec<T>* M,
                                 Vec<T>* table) {
  const int ld = leading(n);
  switch (f.kind) {
    case kLog: return scale_by_differences_of<T, kLog>(f, lanes, shared, n, w, prepared, M);
    case kExp: return scale_by_differences_of<T, kExp>(f, lanes, shared, n, w, prepared, M);
    case kSqrt: return scale_by_differences_of<T, kSqrt>(f, lanes, shared, n, w, prepared, M);
    case kInvSqrt: return scale_by_differences_of<T, kInvSqrt>(f, lanes, shared, n, w, prepared, M);
    case kInverse: return scale_by_differences_of<T, kInverse>(f, lanes, shared, n, w, prepared, M);
    case kPower: return scale_by_differences_of<T, kPower>(f, lanes, shared, n, w, prepared, M);
    case kTable:
      load_square<T>(f.table, shared ? 0 : (int64_t)n * n, n, lanes, table);
      for (int i = 0; i < n; ++i)
        for (int j = 0; j <= i; ++j) M[i * ld + j] *= table[i * ld + j];
      return;
    default: return scale_by_differences_of<T, kIdentity>(f, lanes, shared, n, w, prepared, M);
  }
}

// F = sum_k f_k z_k z_k^T; element i of z_k is Z[k*row + i*column]. `work`
// holds a matrix.
template <class T>
static void outer_products(const Vec<T>* f, const Vec<T>* Z, int row, int column, int n,
                           Vec<T>* work, Vec<T>* F) {
  const int ld = leading(n);
  for (int k = 0; k < n; ++k)
    for (int i = 0; i < n; ++i) work[k * ld + i] = f[k] * Z[k * row + i * column];
  product<T>(F, n, {work, ld, 1}, {Z, row, column}, true);
  mirror<T>(F, n);
}

// X <- (X + X^T)/2, on both triangles.
template <class T>
static void symmetric_part(Vec<T>* X, int n) {
  const int ld = leading(n);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < i; ++j) {
      Vec<T> x = X[i * ld + j];
      x = fma(X[j * ld + i] - x, set(T(0.5)), x);
      X[i * ld + j] = x;
      X[j * ld + i] = x;
    }
}

template <class T>
static void fill(Vec<T>* S, int size, Mask<T> where, Vec<T> x) {
  for (int e = 0; e < size; ++e) S[e] = select(where, x, S[e]);
}

template <class T>
static void store_packed(void* memory, int n, Lanes<T> lanes, const Vec<T>* Z, const Vec<T>* w) {
  const int ld = leading(n);
  Packed<T> to(memory, n, lanes);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) to.Z[i * ld + j] = Z[i * ld + j];
    to.w[i] = w[i];
  }
}

LK_INLINE bool wants_vectors(const SpectralArgs& a) {
  return a.V != nullptr || a.F != nullptr || a.packed != nullptr;
}

template <class T>
static void store_eigensystem(const SpectralArgs& a, Lanes<T> lanes, Block<T>& b) {
  const int n = a.n, ld = leading(n);
  for (int i = 0; i < n; ++i) b.d[i] *= b.scale_back;
  if (a.sorted) sort_eigenvalues<T>(b.d, wants_vectors(a) ? b.Z : nullptr, n);
  const bool bad = any(b.bad);
  if (a.positive) {
    Mask<T> positive = Mask<T>{} - 1;
    for (int i = 0; i < n; ++i) positive &= (Mask<T>)(b.d[i] > 0);
    if (any(~(positive | b.bad))) tell(a.found, kNotPositive);
  }
  if (a.F != nullptr) {
    values<T>(a.f, lanes, n, b.d, b.e);
    outer_products<T>(b.e, b.Z, ld, 1, n, b.rotations, b.S);
    if (bad) fill<T>(b.S, n * ld, b.bad, not_a_number<T>());
    store_square<T>(a.F, n, lanes, b.S);
  }
  if (bad) fill<T>(b.d, n, b.bad, not_a_number<T>());
  if (a.w != nullptr) store_row<T>(a.w, n, lanes, b.d);
  if (a.packed != nullptr) store_packed<T>(a.packed, n, lanes, b.Z, b.d);
  if (a.V != nullptr) {
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) b.S[i * ld + j] = b.Z[j * ld + i];
    if (bad) fill<T>(b.S, n * ld, b.bad, not_a_number<T>());
    store_square<T>(a.V, n, lanes, b.S);
  }
  if (bad) tell(a.found, kNotFinite);
  if (any((Mask<T>)(b.failed != 0))) tell(a.found, kNotConverged);
  if (a.info == nullptr) return;
  Mask<T> info = select(b.bad, Mask<T>{} - 1, b.failed);
  for (int l = 0; l < lanes.count; ++l) a.info[lanes.first + l] = (int32_t)info[l];
}

// What happens to the matrices of a batch on their way through eigensystems:
// load(lanes, block) leaves S, `bad` and `scale_back`, store(lanes, block) takes
// the eigenvalues d (to be scaled back) and the eigenvectors, rows of Z.
template <class T, class Load, class Store>
struct Passage {
  int64_t batch;
  int n;
  bool vectors, factor;
  Load load;
  Store store;

  template <int G>
  void group(int64_t first, char* scratch) const {
    using V = Vec<T>;
    Sweep* sweeps = reinterpret_cast<Sweep*>(scratch);
    V* p = reinterpret_cast<V*>(scratch + sweep_bytes(n));
    Block<T> block[G];
    Tridiagonal<T> tridiagonal[G];
    for (int g = 0; g < G; ++g) {
      Block<T>& b = block[g];
      b.S = p;
      b.Z = b.S + matrix_vectors(n);
      b.d = b.Z + matrix_vectors(n);
      b.e = b.d + n;
      b.tau = b.e + n;
      b.work = b.tau + n;
      b.rotations = b.work + n;
      p = b.rotations + rotation_vectors(n);
      b.factor = p;
      if (factor) p += matrix_vectors(n);
      load(Lanes<T>(first + g, batch), b);
      tridiagonalize<T>(b.S, n, b.d, b.e, b.tau, b.work);
      if (vectors) form_q_transposed<T>(b.S, n, b.tau, b.Z);
      tridiagonal[g] = {b.d, b.e, b.Z, b.rotations};
    }
    Mask<T> failed[G];
    if (vectors)
      implicit_ql<T, G, true>(tridiagonal, n, sweeps, failed);
    else
      implicit_ql<T, G, false>(tridiagonal, n, sweeps, failed);
    for (int g = 0; g < G; ++g) {
      block[g].failed = failed[g];
      store(Lanes<T>(first + g, batch), block[g]);
    }
  }

  void blocks(int64_t first, int64_t last, void* scratch) const {
    char* memory = static_cast<char*>(scratch);
    // Small batches are worth more as separate blocks on separate threads.
    const bool many = batch >= 4 * Simd<T>::lanes;
    const int G = many ? group_size(n) : 1;
    while (first < last) {
      if (G == 2 && last - first >= 2) {
        group<2>(first, memory);
        first += 2;
      } else {
        group<1>(first, memory);
        first += 1;
      }
    }
  }
};

template <class T, class Load, class Store>
static void pass_through(int64_t batch, int n, bool vectors, bool factor, int64_t first,
                         int64_t last, void* scratch, Load load, Store store) {
  Passage<T, Load, Store>{batch, n, vectors, factor, load, store}.blocks(first, last, scratch);
}

template <class T>
static void spectral_blocks(const SpectralArgs& a, int64_t first, int64_t last, void* scratch) {
  pass_through<T>(
      a.batch, a.n, wants_vectors(a), false, first, last, scratch,
      [&a](Lanes<T> lanes, Block<T>& b) { load_matrices<T>(a, lanes, b); },
      [&a](Lanes<T> lanes, Block<T>& b) { store_eigensystem<T>(a, lanes, b); });
}

}  // namespace LK_ISA
}  // namespace lk
