// Cholesky factorisation of a block, A = L L^T, on the lower triangle.
#pragma once

#include "block.hpp"

namespace lk {
namespace LK_ISA {

// acc(MR x NR) -= A(MR x K) B(NR x K)^T for rows i, j of S, columns 0 .. K-1.
template <class T, int MR, int NR>
LK_INLINE void subtract_rows_product(Vec<T>* S, int ld, int i, int j, int K) {
  Vec<T> acc[MR][NR];
  for (int a = 0; a < MR; ++a)
    for (int b = 0; b < NR; ++b) acc[a][b] = S[(i + a) * ld + j + b];
  for (int k = 0; k < K; ++k) {
    Vec<T> y[NR];
    for (int b = 0; b < NR; ++b) y[b] = S[(j + b) * ld + k];
    for (int a = 0; a < MR; ++a) {
      Vec<T> x = -S[(i + a) * ld + k];
      for (int b = 0; b < NR; ++b) acc[a][b] = fma(x, y[b], acc[a][b]);
    }
  }
  for (int a = 0; a < MR; ++a)
    for (int b = 0; b < NR; ++b) S[(i + a) * ld + j + b] = acc[a][b];
}

// Columns j .. j+NR-1: subtract what earlier columns hold, factor the diagonal
// block, divide the rows below by it.
template <class T, int NR>
static void cholesky_columns(Vec<T>* S, int n, int j, Mask<T>& failed_at) {
  using V = Vec<T>;
  constexpr int MR = kRegisters == 32 ? 4 : 2;
  const int ld = leading(n);
  int i = j;
  for (; i + MR <= n; i += MR) subtract_rows_product<T, MR, NR>(S, ld, i, j, j);
  for (; i < n; ++i) subtract_rows_product<T, 1, NR>(S, ld, i, j, j);

  V inverse[NR];
  for (int c = 0; c < NR; ++c) {
    V pivot = S[(j + c) * ld + j + c];
    // The comparison fails for NaN as well.
    Mask<T> good = (pivot > 0) & (pivot <= Simd<T>::largest);
    failed_at = select(~good & (failed_at == 0), Mask<T>{} + (j + c + 1), failed_at);
    V root = sqrt(pivot);
    inverse[c] = T(1) / root;
    S[(j + c) * ld + j + c] = root;
    for (int r = c + 1; r < NR; ++r) {
      V x = S[(j + r) * ld + j + c] * inverse[c];
      S[(j + r) * ld + j + c] = x;
      for (int k = c + 1; k <= r; ++k)
        S[(j + r) * ld + j + k] = fnma(x, S[(j + k) * ld + j + c], S[(j + r) * ld + j + k]);
    }
  }
  for (int r = j + NR; r < n; ++r) {
    V x[NR];
    for (int c = 0; c < NR; ++c) x[c] = S[r * ld + j + c];
    for (int c = 0; c < NR; ++c) {
      x[c] *= inverse[c];
      for (int k = c + 1; k < NR; ++k) x[k] = fnma(x[c], S[(j + k) * ld + j + c], x[k]);
    }
    for (int c = 0; c < NR; ++c) S[r * ld + j + c] = x[c];
  }
}

// The lower triangle of S (n x n) becomes L. Returns, per lane, 0 or the order
// of the first leading minor that is not positive definite (or not finite).
template <class T>
static Mask<T> cholesky(Vec<T>* S, int n) {
  Mask<T> failed_at{};
  int j = 0;
  for (; j + 4 <= n; j += 4) cholesky_columns<T, 4>(S, n, j, failed_at);
  if (n - j == 3) cholesky_columns<T, 3>(S, n, j, failed_at);
  if (n - j == 2) cholesky_columns<T, 2>(S, n, j, failed_at);
  if (n - j == 1) cholesky_columns<T, 1>(S, n, j, failed_at);
  return failed_at;
}

}  // namespace LK_ISA
}  // namespace lk
