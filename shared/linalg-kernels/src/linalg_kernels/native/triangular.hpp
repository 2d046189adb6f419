// Triangular solves and congruences with the Cholesky factors of a block.
#pragma once

#include "block.hpp"

namespace lk {
namespace LK_ISA {

// Rows r .. r+R-1 of L^{-1} X, columns c .. c+C-1, once the rows above are
// solved: x_r <- (x_r - sum_k L_rk x_k) / L_rr.
template <class T, int R, int C>
LK_INLINE void forward_tile(const Vec<T>* L, const Vec<T>* inverse, int ld, Vec<T>* X, int row,
                            int column, int r, int c) {
  using V = Vec<T>;
  V acc[R][C];
  for (int a = 0; a < R; ++a)
    for (int b = 0; b < C; ++b) acc[a][b] = X[(r + a) * row + (c + b) * column];
  for (int k = 0; k < r; ++k) {
    V x[C];
    for (int b = 0; b < C; ++b) x[b] = X[k * row + (c + b) * column];
    for (int a = 0; a < R; ++a) {
      V f = -L[(r + a) * ld + k];
      for (int b = 0; b < C; ++b) acc[a][b] = fma(f, x[b], acc[a][b]);
    }
  }
  for (int a = 0; a < R; ++a)
    for (int b = 0; b < C; ++b) {
      for (int k = 0; k < a; ++k) acc[a][b] = fnma(L[(r + a) * ld + r + k], acc[k][b], acc[a][b]);
      acc[a][b] *= inverse[r + a];
      X[(r + a) * row + (c + b) * column] = acc[a][b];
    }
}

// X <- L^{-1} X for the n x n X with element (i, j) at X[i*row + j*column].
template <class T>
static void forward_substitute(const Vec<T>* L, const Vec<T>* inverse, int n, Vec<T>* X, int row,
                               int column) {
  constexpr int R = kRegisters == 32 ? 4 : 2;
  const int ld = leading(n);
  for (int c = 0; c < n; c += 4) {
    const int C = n - c < 4 ? n - c : 4;
    int r = 0;
#define LK_STRIP(ROWS)                                                              \
  switch (C) {                                                                      \
    case 4: forward_tile<T, ROWS, 4>(L, inverse, ld, X, row, column, r, c); break;   \
    case 3: forward_tile<T, ROWS, 3>(L, inverse, ld, X, row, column, r, c); break;   \
    case 2: forward_tile<T, ROWS, 2>(L, inverse, ld, X, row, column, r, c); break;   \
    default: forward_tile<T, ROWS, 1>(L, inverse, ld, X, row, column, r, c); break;  \
  }
    for (; r + R <= n; r += R) LK_STRIP(R)
    for (; r < n; ++r) LK_STRIP(1)
#undef LK_STRIP
  }
}

// X <- L^{-T} X, the same from the last row up.
template <class T>
static void backward_substitute(const Vec<T>* L, const Vec<T>* inverse, int n, Vec<T>* X, int row,
                                int column) {
  using V = Vec<T>;
  const int ld = leading(n);
  for (int c = 0; c < n; ++c) {
    V* x = X + c * column;
    int r = n - 1;
    for (; r >= 3; r -= 4) {
      V acc[4];
      for (int a = 0; a < 4; ++a) acc[a] = x[(r - a) * row];
      for (int k = r + 1; k < n; ++k) {
        V f = -x[k * row];
        for (int a = 0; a < 4; ++a) acc[a] = fma(L[k * ld + r - a], f, acc[a]);
      }
      for (int a = 0; a < 4; ++a) {
        for (int k = 0; k < a; ++k) acc[a] = fnma(L[(r - k) * ld + r - a], acc[k], acc[a]);
        acc[a] *= inverse[r - a];
        x[(r - a) * row] = acc[a];
      }
    }
    for (; r >= 0; --r) {
      V acc = x[r * row];
      for (int k = r + 1; k < n; ++k) acc = fnma(L[k * ld + r], x[k * row], acc);
      x[r * row] = acc * inverse[r];
    }
  }
}

template <class T>
static void invert_diagonal(const Vec<T>* L, int n, Vec<T>* inverse) {
  const int ld = leading(n);
  for (int i = 0; i < n; ++i) inverse[i] = T(1) / L[i * ld + i];
}

// Adjoint of A -> L at L, for the gradient G of L (lower triangle read):
// sym(L^{-T} Phi(L^T G) L^{-1}), Phi the lower triangle with its diagonal
// halved. G is overwritten by the result; `work` holds n vectors.
template <class T>
static void cholesky_adjoint(const Vec<T>* L, Vec<T>* G, Vec<T>* P, int n, Vec<T>* work) {
  using V = Vec<T>;
  const int ld = leading(n);
  invert_diagonal<T>(L, n, work);
  // P = L^T G, lower triangle: sum over k >= i of L_ki G_kj, j <= i.
  for (int i = 0; i < n; ++i) {
    int j = 0;
    for (; j + 4 <= i + 1; j += 4) {
      V acc[4] = {V{}, V{}, V{}, V{}};
      for (int k = i; k < n; ++k) {
        V f = L[k * ld + i];
        for (int b = 0; b < 4; ++b) acc[b] = fma(f, G[k * ld + j + b], acc[b]);
      }
      for (int b = 0; b < 4; ++b) P[i * ld + j + b] = acc[b];
    }
    for (; j <= i; ++j) {
      V acc{};
      for (int k = i; k < n; ++k) acc = fma(L[k * ld + i], G[k * ld + j], acc);
      P[i * ld + j] = acc;
    }
    P[i * ld + i] *= T(0.5);
    for (j = i + 1; j < n; ++j) P[i * ld + j] = V{};
  }
  backward_substitute<T>(L, work, n, P, ld, 1);  // L^{-T} Phi
  backward_substitute<T>(L, work, n, P, 1, ld);  // (L^{-T} (L^{-T} Phi)^T)^T = ... L^{-1}
  for (int i = 0; i < n; ++i) {
    G[i * ld + i] = P[i * ld + i];
    for (int j = 0; j < i; ++j) {
      V x = P[i * ld + j] * T(0.5);
      x = fma(P[j * ld + i], set(T(0.5)), x);
      G[i * ld + j] = x;
      G[j * ld + i] = x;
    }
  }
}

}  // namespace LK_ISA
}  // namespace lk
