// Cholesky factors as charts: a function h of their diagonal, the inverse of the
// log-Cholesky chart, and distances in such coordinates; each with its adjoint.
#pragma once

#include "cholesky.hpp"
#include "functions.hpp"
#include "kernels.hpp"
#include "product.hpp"
#include "spectral.hpp"

namespace lk {
namespace LK_ISA {

// --- charts ---------------------------------------------------------------------------------

template <class T>
LK_INLINE Vec<T> power(Vec<T> x, Pair<T> p) {
  return power_from_log<T>(log_pair<T>(x), p);
}

// Diagonal of S <- h of it.
template <class T>
static void chart_diagonal(Vec<T>* S, int n, int chart, double exponent) {
  const int ld = leading(n);
  const Pair<T> p = {splat<T>(exponent), Vec<T>{}};
  for (int i = 0; i < n; ++i) {
    Vec<T>& x = S[i * ld + i];
    x = chart == kLogDiagonal ? log<T>(x) : power<T>(x, p);
  }
}

// Diagonal of G *= h'(l).
template <class T>
static void pull_diagonal(const Vec<T>* L, Vec<T>* G, int n, int chart, double exponent) {
  const int ld = leading(n);
  const Exponent<T> e = lk::LK_ISA::exponent<T>(splat<T>(exponent));
  for (int i = 0; i < n; ++i) {
    Vec<T> l = L[i * ld + i];
    Vec<T> slope = chart == kLogDiagonal ? T(1) / l : e.p * power<T>(l, e.p_minus_1);
    G[i * ld + i] *= slope;
  }
}

template <class T>
static void clear_upper(Vec<T>* S, int n) {
  const int ld = leading(n);
  for (int i = 0; i < n; ++i)
    for (int j = i + 1; j < n; ++j) S[i * ld + j] = Vec<T>{};
}

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
    clear_upper<T>(S, n);
    if (any((Mask<T>)(failed_at != 0))) {
      fill<T>(S, n * ld, (Mask<T>)(failed_at != 0), not_a_number<T>());
      tell(a.found, kNotPositive);
    }
    if (a.L != nullptr) store_square<T>(a.L, n, lanes, S);
    if (a.X != nullptr) {
      chart_diagonal<T>(S, n, a.chart, a.exponent);
      store_square<T>(a.X, n, lanes, S);
    }
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
    if (a.chart != kFactor) pull_diagonal<T>(L, G, n, a.chart, a.exponent);
    cholesky_adjoint<T>(L, G, n);
    store_square<T>(a.gA, n, lanes, G);
  }
}

// --- the inverse of the log-Cholesky chart --------------------------------------------------

// S <- the lower triangle of S with exp of its diagonal.
template <class T>
static void exp_diagonal(Vec<T>* S, int n) {
  const int ld = leading(n);
  clear_upper<T>(S, n);
  for (int i = 0; i < n; ++i) S[i * ld + i] = exp<T>(S[i * ld + i]);
}

template <class T>
static void from_log_blocks(const FromLogArgs& a, int64_t first, int64_t last, void* scratch) {
  const int n = a.n, ld = leading(n);
  const int64_t nn = (int64_t)n * n;
  Vec<T>* L = static_cast<Vec<T>*>(scratch);
  Vec<T>* A = L + matrix_vectors(n);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_square<T>(a.X, nn, n, lanes, L);
    exp_diagonal<T>(L, n);
    product<T, kBehind>(A, n, {L, 1, ld}, {L, 1, ld}, true);
    mirror<T>(A, n);
    store_square<T>(a.A, n, lanes, A);
  }
}

template <class T>
static void from_log_adjoint_blocks(const FromLogAdjointArgs& a, int64_t first, int64_t last,
                                    void* scratch) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  const int64_t nn = (int64_t)n * n;
  V* L = static_cast<V*>(scratch);
  V* G = L + matrix_vectors(n);
  V* X = G + matrix_vectors(n);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_square<T>(a.X, nn, n, lanes, L);
    load_square<T>(a.G, nn, n, lanes, G);
    exp_diagonal<T>(L, n);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j <= i; ++j) {
        V x = G[i * ld + j] + G[j * ld + i];
        G[i * ld + j] = x;
        G[j * ld + i] = x;
      }
    product<T, kBefore>(X, n, {G, ld, 1}, {L, ld, 1}, true);
    for (int i = 0; i < n; ++i) X[i * ld + i] *= L[i * ld + i];
    clear_upper<T>(X, n);
    store_square<T>(a.gX, n, lanes, X);
  }
}

// --- distances ------------------------------------------------------------------------------

// h(k) - h(l) for h(x) = (x^a - 1)/a, or log x for a = 0: through log(k/l), which
// is accurate for near arguments, and powers of the end where they are larger.
template <class T>
LK_INLINE Vec<T> box_cox_step(Vec<T> l, Vec<T> k, double a) {
  using V = Vec<T>;
  Prepared<T> from, to;
  from.w = l;
  to.w = k;
  const Exponent<T> none{};
  prepare<T, kLog>(from, none);
  prepare<T, kLog>(to, none);
  V ratio = (k - l) * divided_difference<T, kLog>(from, to, none);
  if (a == 0) return ratio;
  V y = splat<T>(a) * ratio;
  auto rising = y > V{};
  V base = power<T>(select(rising, k, l), {splat<T>(a), V{}});
  V step = base * expm1_nonpositive<T>(-abs(y)) * splat<T>(1 / a);
  return select(rising, -step, step);
}

// The Cholesky factor of a matrix in memory, and whether it is there.
template <class T>
static Mask<T> load_factor(const void* A, int n, Lanes<T> lanes, double tolerance, int32_t* found,
                           Vec<T>* S) {
  Vec<T> size, difference, finite;
  load_square<T>(A, (int64_t)n * n, n, lanes, S);
  fold<T>(S, n, true, size, difference, finite);
  tell_asymmetry<T>(found, tolerance, size, difference);
  Mask<T> bad = (Mask<T>)(cholesky<T>(S, n) != 0);
  if (any(bad)) {
    tell(found, kNotPositive);
    fill<T>(S, n * leading(n), bad, not_a_number<T>());
  }
  clear_upper<T>(S, n);
  return bad;
}

template <class T>
static void cholesky_distance_blocks(const CholeskyDistanceArgs& a, int64_t first, int64_t last,
                                     void* scratch) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  const T* weight = static_cast<const T*>(a.weight);
  V* L = static_cast<V*>(scratch);
  V* K = L + matrix_vectors(n);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_factor<T>(a.P, n, lanes, a.tolerance, a.found, L);
    load_factor<T>(a.Q, n, lanes, a.tolerance, a.found, K);
    V squares{};
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < i; ++j) {
        V r = K[i * ld + j] - L[i * ld + j];
        squares = fma(r, r, squares);
      }
      V r = set(weight[i]) * box_cox_step<T>(L[i * ld + i], K[i * ld + i], a.a);
      squares = fma(r, r, squares);
    }
    store_lanes<T>(static_cast<T*>(a.value), lanes, sqrt(squares));
    if (a.L != nullptr) store_square<T>(a.L, n, lanes, L);
    if (a.K != nullptr) store_square<T>(a.K, n, lanes, K);
  }
}

template <class T>
static void cholesky_distance_adjoint_blocks(const CholeskyDistanceAdjointArgs& a, int64_t first,
                                             int64_t last, void* scratch) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  const int64_t nn = (int64_t)n * n;
  const T* weight = static_cast<const T*>(a.weight);
  const Exponent<T> e = exponent<T>(splat<T>(a.a));
  V* L = static_cast<V*>(scratch);
  V* K = L + matrix_vectors(n);
  V* G = K + matrix_vectors(n);
  V* step = G + matrix_vectors(n);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_square<T>(a.L, nn, n, lanes, L);
    load_square<T>(a.K, nn, n, lanes, K);
    V value = load_lanes<T>(static_cast<const T*>(a.value), lanes);
    V g = load_lanes<T>(static_cast<const T*>(a.g), lanes);
    g = select(value == V{}, V{}, g / value);
    for (int i = 0; i < n; ++i) {
      V square = set(weight[i] * weight[i]);
      step[i] = g * square * box_cox_step<T>(L[i * ld + i], K[i * ld + i], a.a);
    }
    const auto pull = [&](const V* factor, V sign, void* out) {
      for (int i = 0; i < n; ++i) {
        for (int j = 0; j < i; ++j) G[i * ld + j] = sign * g * (K[i * ld + j] - L[i * ld + j]);
        V x = factor[i * ld + i];
        V slope = a.a == 0 ? T(1) / x : power<T>(x, e.p_minus_1);
        G[i * ld + i] = sign * step[i] * slope;
      }
      cholesky_adjoint<T>(factor, G, n);
      store_square<T>(out, n, lanes, G);
    };
    if (a.gP != nullptr) pull(L, set(T(-1)), a.gP);
    if (a.gQ != nullptr) pull(K, set(T(1)), a.gQ);
  }
}

}  // namespace LK_ISA
}  // namespace lk
