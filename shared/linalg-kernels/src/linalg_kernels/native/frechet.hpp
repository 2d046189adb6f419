// From eigensystems back to matrices: V f(w) V^T and its Daleckii-Krein derivative.
#pragma once

#include "spectral.hpp"

namespace lk {
namespace LK_ISA {

// D = V (K o (V^T sym(E) V)) V^T
template <class T>
static void frechet_blocks(const FrechetArgs& a, int64_t first, int64_t last, void* scratch) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  const int64_t nn = (int64_t)n * n;
  V* X = static_cast<V*>(scratch);
  V* Y = X + matrix_vectors(n);
  V* U = Y + matrix_vectors(n);
  V* w = U + matrix_vectors(n);
  Prepared<T>* prepared = reinterpret_cast<Prepared<T>*>(w + n);
  const bool shared = a.shared;
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_square<T>(a.E, nn, n, lanes, X);
    const V *values = w, *vectors = U;
    if (a.packed != nullptr) {
      Packed<T> from(a.packed, n, lanes);
      values = from.w;
      vectors = from.Z;
    } else if (!shared || block == first) {
      load_square<T>(a.V, shared ? 0 : nn, n, lanes, U);
      if (a.w != nullptr)
        load_block<T>(static_cast<const T*>(a.w), shared ? 0 : n, 1, n, n, lanes, w);
    }
    // V and V^T; the packed eigenvectors are rows.
    Operand<T> plain{vectors, ld, 1}, turned{vectors, 1, ld};
    if (a.packed != nullptr) {
      plain = {vectors, 1, ld};
      turned = {vectors, ld, 1};
    }
    symmetric_part<T>(X, n);
    product<T>(Y, n, {X, ld, 1}, plain, false);  // E V
    product<T>(X, n, plain, {Y, ld, 1}, true);   // V^T E V
    scale_by_differences<T>(a.f, lanes, shared, n, values, prepared, X, Y);
    mirror<T>(X, n);
    product<T>(Y, n, {X, ld, 1}, turned, false);  // M V^T
    product<T>(X, n, turned, {Y, ld, 1}, true);   // V M V^T
    mirror<T>(X, n);
    store_square<T>(a.D, n, lanes, X);
  }
}

// F = V diag(f(w)) V^T
template <class T>
static void compose_blocks(const ComposeArgs& a, int64_t first, int64_t last, void* scratch) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  const int64_t nn = (int64_t)n * n;
  V* X = static_cast<V*>(scratch);
  V* Y = X + matrix_vectors(n);
  V* U = Y + matrix_vectors(n);
  V* w = U + matrix_vectors(n);
  V* f = w + n;
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_square<T>(a.V, nn, n, lanes, U);
    if (a.w != nullptr) load_row<T>(a.w, n, lanes, w);
    values<T>(a.f, lanes, n, w, f);
    outer_products<T>(f, U, 1, ld, n, Y, X);
    store_square<T>(a.F, n, lanes, X);
  }
}

}  // namespace LK_ISA
}  // namespace lk
