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
      Vec<T> x = S[(i + a) * ld + k];
      for (int b = 0; b < NR; ++b) acc[a][b] = fnma(x, y[b], acc[a][b]);
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

// --- the adjoint ----------------------------------------------------------------------------
//
// The factorisation run backwards (Murray 2016): for columns J of width W, with
//
//     L = | .        |   the last rows being those below J,
//         | R  D     |
//         | B  C  .  |
//
// D comes from A_JJ - R R^T = D D^T and C from (A_J - B R^T) D^-T. It costs
// twice the factorisation, where triangular solves would cost seven times it.

// X <- X D^-1 for the rows of X below J; then acc -= X^T C on the lower triangle.
template <class T, int W>
static void solve_below(const Vec<T>* D, const Vec<T>* inverse, const Vec<T>* C, Vec<T>* X, int ld,
                        int rows, Vec<T> (&acc)[W][W]) {
  using V = Vec<T>;
  for (int r = 0; r < rows; ++r) {
    V x[W];
    for (int k = W - 1; k >= 0; --k) {
      x[k] = X[r * ld + k];
      for (int m = k + 1; m < W; ++m) x[k] = fnma(x[m], D[m * ld + k], x[k]);
      x[k] *= inverse[k];
      X[r * ld + k] = x[k];
    }
    for (int a = 0; a < W; ++a)
      for (int b = 0; b <= a; ++b) acc[a][b] = fnma(x[a], C[r * ld + b], acc[a][b]);
  }
}

// sym(D^-T Phi(D^T G) D^-1) of a W x W factor, for G on its lower triangle.
template <class T, int W>
static void small_adjoint(const Vec<T>* D, const Vec<T>* inverse, int ld, Vec<T> (&G)[W][W]) {
  using V = Vec<T>;
  V P[W][W];
  for (int i = 0; i < W; ++i)
    for (int j = 0; j < W; ++j) {
      V x{};
      if (j <= i)
        for (int k = i; k < W; ++k) x = fma(D[k * ld + i], G[k][j], x);
      P[i][j] = i == j ? x * T(0.5) : x;
    }
  for (int j = 0; j < W; ++j)
    for (int i = W - 1; i >= 0; --i) {
      V x = P[i][j];
      for (int k = i + 1; k < W; ++k) x = fnma(D[k * ld + i], P[k][j], x);
      P[i][j] = x * inverse[i];
    }
  for (int i = 0; i < W; ++i)
    for (int j = W - 1; j >= 0; --j) {
      V x = P[i][j];
      for (int k = j + 1; k < W; ++k) x = fnma(D[k * ld + j], P[i][k], x);
      P[i][j] = x * inverse[j];
    }
  for (int i = 0; i < W; ++i)
    for (int j = 0; j < W; ++j) G[i][j] = fma(P[i][j], set(T(0.5)), P[j][i] * T(0.5));
}

// Columns c .. c+C-1 before J, in the rows below it: G -= X R with the gradient
// X (rows x W) of what D^-T was applied to; and in the rows of J:
// G -= X^T B + 2 S R.
template <class T, int W, int C>
LK_INLINE void pull_columns(const Vec<T>* R, const Vec<T>* B, const Vec<T>* X, const Vec<T> (&S)[W][W],
                            Vec<T>* G_R, Vec<T>* G_B, int ld, int rows) {
  using V = Vec<T>;
  V r[W][C], acc[W][C];
  for (int a = 0; a < W; ++a)
    for (int b = 0; b < C; ++b) {
      r[a][b] = R[a * ld + b];
      acc[a][b] = G_R[a * ld + b];
    }
  for (int i = 0; i < rows; ++i) {
    V g[C], low[C];
    for (int b = 0; b < C; ++b) {
      g[b] = G_B[i * ld + b];
      low[b] = B[i * ld + b];
    }
    for (int a = 0; a < W; ++a) {
      V x = X[i * ld + a];
      for (int b = 0; b < C; ++b) {
        g[b] = fnma(x, r[a][b], g[b]);
        acc[a][b] = fnma(x, low[b], acc[a][b]);
      }
    }
    for (int b = 0; b < C; ++b) G_B[i * ld + b] = g[b];
  }
  for (int a = 0; a < W; ++a)
    for (int b = 0; b < C; ++b) {
      for (int k = 0; k < W; ++k) acc[a][b] = fma(S[a][k] * T(-2), r[k][b], acc[a][b]);
      G_R[a * ld + b] = acc[a][b];
    }
}

// Columns j .. j+W-1 of the gradient, those to the right being done.
template <class T, int W>
static void adjoint_columns(const Vec<T>* L, Vec<T>* G, int n, int j) {
  using V = Vec<T>;
  constexpr int wide = kRegisters == 32 ? 2 : 1;
  const int ld = leading(n), below = j + W, rows = n - below;
  const V* D = L + j * ld + j;
  V inverse[W], S[W][W];
  for (int k = 0; k < W; ++k) inverse[k] = T(1) / D[k * ld + k];
  for (int a = 0; a < W; ++a)
    for (int b = 0; b < W; ++b) S[a][b] = b <= a ? G[(j + a) * ld + j + b] : V{};
  V* X = G + below * ld + j;
  solve_below<T, W>(D, inverse, L + below * ld + j, X, ld, rows, S);
  small_adjoint<T, W>(D, inverse, ld, S);
  int c = 0;
  for (; c + wide <= j; c += wide)
    pull_columns<T, W, wide>(L + j * ld + c, L + below * ld + c, X, S, G + j * ld + c,
                             G + below * ld + c, ld, rows);
  for (; c < j; ++c)
    pull_columns<T, W, 1>(L + j * ld + c, L + below * ld + c, X, S, G + j * ld + c,
                          G + below * ld + c, ld, rows);
  for (int a = 0; a < W; ++a)
    for (int b = 0; b < W; ++b) G[(j + a) * ld + j + b] = S[a][b];
  // A_ij and A_ji share the derivative with respect to the entry below the diagonal.
  for (int i = below; i < n; ++i)
    for (int b = 0; b < W; ++b) {
      V x = G[i * ld + j + b] * T(0.5);
      G[i * ld + j + b] = x;
      G[(j + b) * ld + i] = x;
    }
}

// Adjoint of A -> L at L: sym(L^-T Phi(L^T G) L^-1), Phi the lower triangle with
// its diagonal halved. G (lower triangle read) is overwritten by the result.
template <class T>
static void cholesky_adjoint(const Vec<T>* L, Vec<T>* G, int n) {
  int j = n / 4 * 4;
  if (n - j == 3) adjoint_columns<T, 3>(L, G, n, j);
  if (n - j == 2) adjoint_columns<T, 2>(L, G, n, j);
  if (n - j == 1) adjoint_columns<T, 1>(L, G, n, j);
  for (j -= 4; j >= 0; j -= 4) adjoint_columns<T, 4>(L, G, n, j);
}

}  // namespace LK_ISA
}  // namespace lk
