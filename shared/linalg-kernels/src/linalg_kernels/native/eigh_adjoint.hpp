// The adjoint of A -> (w, V), gap-safe.
#pragma once

#include "block.hpp"
#include "kernels.hpp"
#include "product.hpp"

namespace lk {
namespace LK_ISA {

// Gaps below this many rounding errors of the largest eigenvalue carry no information.
constexpr int kGapUlps = 8;

// M <- sym(M_ij / (w_j - w_i)) on the strict lower triangle.
template <class T>
static void divide_by_gaps(const Vec<T>* w, int n, Vec<T>* M) {
  using V = Vec<T>;
  const int ld = leading(n);
  V size{};
  for (int i = 0; i < n; ++i) size = max(abs(w[i]), size);
  const V least = size * set(T(kGapUlps) * Simd<T>::eps);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < i; ++j) {
      V gap = w[j] - w[i];
      auto apart = abs(gap) > least;
      V half = T(0.5) / select(apart, gap, set(T(1)));
      M[i * ld + j] = select(apart, (M[i * ld + j] - M[j * ld + i]) * half, V{});
    }
}

// gA = V (diag(gw) + sym(V^T gV / (w_j - w_i))) V^T
template <class T>
static void eigh_adjoint_blocks(const EighAdjointArgs& a, int64_t first, int64_t last,
                                void* scratch) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  const int64_t nn = (int64_t)n * n;
  V* X = static_cast<V*>(scratch);
  V* Y = X + matrix_vectors(n);
  V* U = Y + matrix_vectors(n);
  V* w = U + matrix_vectors(n);
  V* gw = w + n;
  for (int i = 0; i < n; ++i) gw[i] = V{};
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_square<T>(a.V, nn, n, lanes, U);
    load_row<T>(a.w, n, lanes, w);
    if (a.gw != nullptr) load_row<T>(a.gw, n, lanes, gw);
    if (a.gV != nullptr) {
      load_square<T>(a.gV, nn, n, lanes, Y);
      product<T>(X, n, {U, ld, 1}, {Y, ld, 1}, false);  // V^T gV
      divide_by_gaps<T>(w, n, X);
      for (int i = 0; i < n; ++i) X[i * ld + i] = gw[i];
      mirror<T>(X, n);
      product<T>(Y, n, {X, ld, 1}, {U, 1, ld}, false);  // M V^T
    } else {
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) Y[i * ld + j] = gw[i] * U[j * ld + i];
    }
    product<T>(X, n, {U, 1, ld}, {Y, ld, 1}, true);
    mirror<T>(X, n);
    store_square<T>(a.gA, n, lanes, X);
  }
}

}  // namespace LK_ISA
}  // namespace lk
