// Functions of congruent matrices, carried on by another congruence,
//
//     Y = K f(S) K^T,  S = W X W^T or W^-1 X W^-T = V diag(w) V^T,
//
// and the adjoint of X -> Y, from the eigensystem that a forward pass has packed.
#pragma once

#include "spectral.hpp"

namespace lk {
namespace LK_ISA {

// The matrix that belongs to the lanes of a block: one of its own, or where all of
// the batch has one, what is in S from the first block on.
template <class T>
static void load_factor(const void* base, int64_t repeat, int64_t batch, int n, Lanes<T> lanes,
                        bool first, Vec<T>* S) {
  if (first || repeat < batch)
    load_square<T>(base, (int64_t)n * n, n, SharedLanes<T>(lanes, repeat, batch), S);
}

// Rows V^T K^T of the matrix whose rows are eigenvectors.
template <class T>
static void carry_rows(const Vec<T>* Z, const Vec<T>* K, int n, Vec<T>* U) {
  const int ld = leading(n);
  product<T>(U, n, {Z, 1, ld}, {K, 1, ld}, false);
}

template <class T>
static void carry_blocks(const CarryArgs& a, int64_t first, int64_t last, void* scratch) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  V* K = static_cast<V*>(scratch);
  V* X = K + matrix_vectors(n);
  V* Y = X + matrix_vectors(n);
  V* U = Y + matrix_vectors(n);
  V* f = U + matrix_vectors(n);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    const Packed<T> from(a.packed, n, lanes);
    load_factor<T>(a.K, a.K_repeat, a.batch, n, lanes, block == first, K);
    carry_rows<T>(from.Z, K, n, U);
    values<T>(a.f, lanes, n, from.w, f);
    outer_products<T>(f, U, ld, 1, n, X, Y);
    store_square<T>(a.Y, n, lanes, Y);
  }
}

// sum_i M_ii w_i^p log w_i: the derivative with respect to the exponent.
template <class T>
static Vec<T> exponent_slope(const Vec<T>* M, const Vec<T>* w, const Vec<T>* power, int n) {
  const int ld = leading(n);
  Vec<T> sum{};
  for (int i = 0; i < n; ++i) sum = fma(M[i * ld + i], power[i] * log<T>(w[i]), sum);
  return sum;
}

template <class T>
static void carry_adjoint_blocks(const CarryAdjointArgs& a, int64_t first, int64_t last,
                                 void* scratch) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  V* K = static_cast<V*>(scratch);
  V* W = K + matrix_vectors(n);
  V* X = W + matrix_vectors(n);
  V* Y = X + matrix_vectors(n);
  V* U = Y + matrix_vectors(n);
  V* f = U + matrix_vectors(n);
  Prepared<T>* prepared = reinterpret_cast<Prepared<T>*>(f + n);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    const Packed<T> from(a.packed, n, lanes);
    load_factor<T>(a.K, a.K_repeat, a.batch, n, lanes, block == first, K);
    load_square<T>(a.G, (int64_t)n * n, n, lanes, X);
    symmetric_part<T>(X, n);
    carry_rows<T>(from.Z, K, n, U);
    product<T>(Y, n, {X, ld, 1}, {U, 1, ld}, false);  // G K V
    product<T>(X, n, {U, 1, ld}, {Y, ld, 1}, true);   // V^T K^T G K V
    if (a.slope != nullptr) {
      values<T>(a.f, lanes, n, from.w, f);
      store_lanes<T>(static_cast<T*>(a.slope), lanes, exponent_slope<T>(X, from.w, f, n));
    }
    if (a.gX == nullptr) continue;
    scale_by_differences<T>(a.f, lanes, false, n, from.w, prepared, X, Y);
    mirror<T>(X, n);
    load_factor<T>(a.W, a.W_repeat, a.batch, n, lanes, block == first, W);
    product<T>(U, n, {from.Z, 1, ld}, {W, ld, 1}, false);  // V^T W
    product<T>(Y, n, {X, ld, 1}, {U, ld, 1}, false);
    product<T>(X, n, {U, ld, 1}, {Y, ld, 1}, true);
    mirror<T>(X, n);
    store_square<T>(a.gX, n, lanes, X);
  }
}

}  // namespace LK_ISA
}  // namespace lk
