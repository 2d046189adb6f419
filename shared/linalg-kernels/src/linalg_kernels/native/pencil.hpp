// Pencils (Q, P) of positive definite matrices, Q u = w P u: sums over the
// logarithms of their eigenvalues, and the derivatives of these.
//
// With P = L L^T the w are the eigenvalues of L^-1 Q L^-T = V diag(w) V^T, and
// u_i = L^-T v_i has u_i^T P u_i = 1. By first-order perturbation dlog w_i =
// u_i^T dQ u_i / w_i - u_i^T dP u_i; nothing goes back through the factorisation.
#pragma once

#include "spectral.hpp"

namespace lk {
namespace LK_ISA {

// Entry by entry, on the lower triangle.
template <class T>
static Mask<T> equal_matrices(const Vec<T>* A, const Vec<T>* B, int n) {
  const int ld = leading(n);
  Mask<T> same = Mask<T>{} - 1;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j <= i; ++j) same &= (Mask<T>)(A[i * ld + j] == B[i * ld + j]);
  return same;
}

// The identity in some lanes.
template <class T>
static void set_identity(Vec<T>* S, int n, Mask<T> where) {
  const int ld = leading(n);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      S[i * ld + j] = select(where, set(T(i == j ? 1 : 0)), S[i * ld + j]);
}

// S <- L^-1 Q L^-T and factor <- L; `same` tells where P and Q are equal.
template <class T>
static void load_pencil(const PencilArgs& a, Lanes<T> lanes, Block<T>& b, Mask<T>& same) {
  using V = Vec<T>;
  const int n = a.n;
  const int64_t nn = (int64_t)n * n;
  V size, difference, finite, all_finite;
  load_square<T>(a.P, nn, n, SharedLanes<T>(lanes, a.P_repeat, a.batch), b.factor);
  fold<T>(b.factor, n, true, size, difference, all_finite);
  tell_asymmetry<T>(a.found, a.tolerance, size, difference);
  load_square<T>(a.Q, nn, n, SharedLanes<T>(lanes, 1, a.Q_count), b.S);
  fold<T>(b.S, n, true, size, difference, finite);
  tell_asymmetry<T>(a.found, a.tolerance, size, difference);
  same = equal_matrices<T>(b.factor, b.S, n);
  b.bad = (Mask<T>)~((all_finite == V{}) & (finite == V{}));
  if (any(b.bad)) {
    tell(a.found, kNotFinite);
    set_identity<T>(b.factor, n, b.bad);
    set_identity<T>(b.S, n, b.bad);
  }
  Mask<T> failed_at = cholesky<T>(b.factor, n);
  if (any((Mask<T>)(failed_at != 0))) {
    tell(a.found, kNotPositive);
    b.bad |= (Mask<T>)(failed_at != 0);
    set_identity<T>(b.factor, n, b.bad);
  }
  invert_diagonal<T>(b.factor, n, b.work);
  whiten<T>(b.factor, b.work, n, b.S);
  // A quotient may overflow though P and Q did not.
  size = finite = V{};
  measure<T>(b.S, n, size, finite);
  b.bad |= (Mask<T>)~(finite == V{});
  prepare_lanes<T>(b, n, size);
}

// Sum of n numbers and of the squares of their differences from the mean, in
// which alpha sum x^2 + beta (sum x)^2 = alpha `squares` + (alpha + n beta) sum^2 / n.
template <class T>
static void moments(const Vec<T>* x, int n, Vec<T>& sum, Vec<T>& squares) {
  sum = squares = Vec<T>{};
  for (int i = 0; i < n; ++i) sum += x[i];
  Vec<T> mean = sum * splat<T>(1.0 / n);
  for (int i = 0; i < n; ++i) {
    Vec<T> d = x[i] - mean;
    squares = fma(d, d, squares);
  }
}

// alpha sum x^2 + beta (sum x)^2, or its root.
template <class T>
static Vec<T> sum_of_logs(const Vec<T>* x, int n, double alpha, double beta, bool root) {
  Vec<T> sum, squares;
  moments<T>(x, n, sum, squares);
  Vec<T> value = fma(sum * sum, splat<T>((alpha + n * beta) / n), squares * splat<T>(alpha));
  return root ? sqrt(value) : value;
}

template <class T>
static void store_pencil(const PencilArgs& a, Lanes<T> lanes, Block<T>& b, Mask<T> same) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  Mask<T> positive = Mask<T>{} - 1;
  for (int i = 0; i < n; ++i) {
    V w = b.d[i] * b.scale_back;
    positive &= (Mask<T>)(w > 0);
    b.d[i] = select(same, V{}, log<T>(w));
  }
  if (any(~(positive | same | b.bad))) tell(a.found, kNotPositive);
  if (any((Mask<T>)(b.failed != 0))) tell(a.found, kNotConverged);
  Mask<T> bad = b.bad | (Mask<T>)(b.failed != 0);
  if (any(bad)) fill<T>(b.d, n, bad, not_a_number<T>());
  if (a.value != nullptr)
    store_lanes<T>(static_cast<T*>(a.value), lanes,
                   sum_of_logs<T>(b.d, n, a.alpha, a.beta, a.root));
  if (a.packed != nullptr) {
    invert_diagonal<T>(b.factor, n, b.work);
    backward_substitute<T>(b.factor, b.work, n, b.Z, 1, ld);
    store_packed<T>(a.packed, n, lanes, b.Z, b.d);
  }
}

template <class T>
static void pencil_blocks(const PencilArgs& a, int64_t first, int64_t last, void* scratch) {
  Mask<T> same[2];
  pass_through<T>(
      a.batch, a.n, a.packed != nullptr, true, first, last, scratch,
      [&](Lanes<T> lanes, Block<T>& b) {
        load_pencil<T>(a, lanes, b, same[lanes.first / Lanes<T>::W % 2]);
      },
      [&](Lanes<T> lanes, Block<T>& b) {
        store_pencil<T>(a, lanes, b, same[lanes.first / Lanes<T>::W % 2]);
      });
}

template <class T>
static void pencil_adjoint_blocks(const PencilAdjointArgs& a, int64_t first, int64_t last,
                                  void* scratch) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  V* X = static_cast<V*>(scratch);
  V* Y = X + matrix_vectors(n);
  V* slope = Y + matrix_vectors(n);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    const Packed<T> from(a.packed, n, lanes);
    const V *U = from.Z, *logs = from.w;
    V g = load_lanes<T>(static_cast<const T*>(a.g), lanes);
    if (a.root) {
      V value = sum_of_logs<T>(logs, n, a.alpha, a.beta, true);
      g = select(value == V{}, V{}, g / value);
    } else {
      g = g * T(2);
    }
    V sum{};
    for (int i = 0; i < n; ++i) sum += logs[i];
    for (int i = 0; i < n; ++i)
      slope[i] = -g * fma(splat<T>(a.beta), sum, splat<T>(a.alpha) * logs[i]);
    if (a.gP != nullptr) {
      outer_products<T>(slope, U, ld, 1, n, Y, X);
      store_square<T>(a.gP, n, lanes, X);
    }
    if (a.gQ != nullptr) {
      for (int i = 0; i < n; ++i) slope[i] *= -exp<T>(-logs[i]);
      outer_products<T>(slope, U, ld, 1, n, Y, X);
      store_square<T>(a.gQ, n, lanes, X);
    }
  }
}

}  // namespace LK_ISA
}  // namespace lk
