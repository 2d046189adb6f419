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
      V f = L[(r + a) * ld + k];
      for (int b = 0; b < C; ++b) acc[a][b] = fnma(f, x[b], acc[a][b]);
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
// With `upper` only the entries with i <= j are formed.
template <class T>
static void forward_substitute(const Vec<T>* L, const Vec<T>* inverse, int n, Vec<T>* X, int row,
                               int column, bool upper) {
  constexpr int R = kRegisters == 32 ? 4 : 2;
  const int ld = leading(n);
  for (int c = 0; c < n; c += 4) {
    const int C = n - c < 4 ? n - c : 4;
    const int end = upper ? c + C : n;
    int r = 0;
#define LK_STRIP(ROWS)                                                              \
  switch (C) {                                                                      \
    case 4: forward_tile<T, ROWS, 4>(L, inverse, ld, X, row, column, r, c); break;   \
    case 3: forward_tile<T, ROWS, 3>(L, inverse, ld, X, row, column, r, c); break;   \
    case 2: forward_tile<T, ROWS, 2>(L, inverse, ld, X, row, column, r, c); break;   \
    default: forward_tile<T, ROWS, 1>(L, inverse, ld, X, row, column, r, c); break;  \
  }
    for (; r + R <= end; r += R) LK_STRIP(R)
    for (; r < end; ++r) LK_STRIP(1)
#undef LK_STRIP
  }
}

// Rows r-R+1 .. r of L^{-T} X, columns c .. c+C-1, once the rows below are
// solved: x_r <- (x_r - sum_k L_kr x_k) / L_rr.
template <class T, int R, int C>
LK_INLINE void backward_tile(const Vec<T>* L, const Vec<T>* inverse, int ld, int n, Vec<T>* X,
                             int row, int column, int r, int c) {
  using V = Vec<T>;
  V acc[R][C];
  for (int a = 0; a < R; ++a)
    for (int b = 0; b < C; ++b) acc[a][b] = X[(r - a) * row + (c + b) * column];
  for (int k = n - 1; k > r; --k) {
    V x[C];
    for (int b = 0; b < C; ++b) x[b] = X[k * row + (c + b) * column];
    for (int a = 0; a < R; ++a) {
      V f = L[k * ld + r - a];
      for (int b = 0; b < C; ++b) acc[a][b] = fnma(f, x[b], acc[a][b]);
    }
  }
  for (int a = 0; a < R; ++a)
    for (int b = 0; b < C; ++b) {
      for (int k = 0; k < a; ++k) acc[a][b] = fnma(L[(r - k) * ld + r - a], acc[k][b], acc[a][b]);
      acc[a][b] *= inverse[r - a];
      X[(r - a) * row + (c + b) * column] = acc[a][b];
    }
}

// X <- L^{-T} X, the same from the last row up.
template <class T>
static void backward_substitute(const Vec<T>* L, const Vec<T>* inverse, int n, Vec<T>* X, int row,
                                int column) {
  constexpr int R = kRegisters == 32 ? 4 : 2;
  const int ld = leading(n);
  for (int c = 0; c < n; c += 4) {
    const int C = n - c < 4 ? n - c : 4;
    int r = n - 1;
#define LK_STRIP(ROWS)                                                                  \
  switch (C) {                                                                          \
    case 4: backward_tile<T, ROWS, 4>(L, inverse, ld, n, X, row, column, r, c); break;  \
    case 3: backward_tile<T, ROWS, 3>(L, inverse, ld, n, X, row, column, r, c); break;  \
    case 2: backward_tile<T, ROWS, 2>(L, inverse, ld, n, X, row, column, r, c); break;  \
    default: backward_tile<T, ROWS, 1>(L, inverse, ld, n, X, row, column, r, c); break; \
  }
    for (; r + 1 >= R; r -= R) LK_STRIP(R)
    for (; r >= 0; --r) LK_STRIP(1)
#undef LK_STRIP
  }
}

template <class T>
static void invert_diagonal(const Vec<T>* L, int n, Vec<T>* inverse) {
  const int ld = leading(n);
  for (int i = 0; i < n; ++i) inverse[i] = T(1) / L[i * ld + i];
}

}  // namespace LK_ISA
}  // namespace lk
