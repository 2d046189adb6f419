// Products of the matrices of a block. An element is a whole register, so any
// order of access is as good as another and transposes cost nothing.
#pragma once

#include "block.hpp"

namespace lk {
namespace LK_ISA {

// One operand: element (k, i) is p[k * row + i * column].
template <class T>
struct Operand {
  const Vec<T>* p;
  int row, column;
  const Vec<T>* at(int i) const { return p + i * column; }
};

template <class T, int MR, int NR>
static void product_tile(Vec<T>* C, int ld, int K, const Vec<T>* A, int a_row, int a_column,
                         const Vec<T>* B, int b_row, int b_column) {
  Vec<T> acc[MR][NR];
  for (int a = 0; a < MR; ++a)
    for (int b = 0; b < NR; ++b) acc[a][b] = Vec<T>{};
  for (int k = 0; k < K; ++k) {
    Vec<T> y[NR];
    for (int b = 0; b < NR; ++b) y[b] = B[b * b_column];
    for (int a = 0; a < MR; ++a) {
      Vec<T> x = A[a * a_column];
      for (int b = 0; b < NR; ++b) acc[a][b] = fma(x, y[b], acc[a][b]);
    }
    A += a_row;
    B += b_row;
  }
  for (int a = 0; a < MR; ++a)
    for (int b = 0; b < NR; ++b) C[a * ld + b] = acc[a][b];
}

// Where the second operand is 0: nowhere, B(k, j) for k < j, or for k > j.
enum Zeros { kNone, kBefore, kBehind };

// C(i, j) = sum_k A(k, i) B(k, j), all n x n. With `lower` only tiles that
// touch the lower triangle are formed.
template <class T, Zeros zeros = kNone>
static void product(Vec<T>* C, int n, Operand<T> A, Operand<T> B, bool lower) {
  constexpr int R = kRegisters == 32 ? 4 : 2, Q = 4;
  const int ld = leading(n);
  int i = 0;
#define LK_TILE(MR, NR)                                                                      \
  {                                                                                          \
    const int first = zeros == kBefore ? j : 0, last = zeros == kBehind ? j + NR : n;        \
    product_tile<T, MR, NR>(C + i * ld + j, ld, last - first, A.at(i) + first * A.row, A.row, \
                            A.column, B.at(j) + first * B.row, B.row, B.column);              \
  }
#define LK_TILE_ROW(MR)                                \
  {                                                    \
    const int end = lower && i + MR < n ? i + MR : n;  \
    int j = 0;                                         \
    for (; j + Q <= end; j += Q) LK_TILE(MR, 4)        \
    switch (end - j) {                                 \
      case 3: LK_TILE(MR, 3) break;                    \
      case 2: LK_TILE(MR, 2) break;                    \
      case 1: LK_TILE(MR, 1) break;                    \
    }                                                  \
  }
  for (; i + R <= n; i += R) LK_TILE_ROW(R)
  if constexpr (R == 4) {
    if (n - i >= 2) {
      LK_TILE_ROW(2)
      i += 2;
    }
  }
  if (i < n) LK_TILE_ROW(1)
#undef LK_TILE_ROW
#undef LK_TILE
}

// Copy the strict lower triangle to the upper one.
template <class T>
static void mirror(Vec<T>* S, int n) {
  const int ld = leading(n);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < i; ++j) S[j * ld + i] = S[i * ld + j];
}

}  // namespace LK_ISA
}  // namespace lk
