// Products of two matrices of rows of numbers, where a block holds one element of many matrices.
//
// A tile of C lies in registers while one row of B after the other is added to it, and every
// element is summed over the inner index in ascending order: the same bits whatever tile it lies
// in. Nothing is packed: of B a tile reads whole registers of each row, of A one number at a time.
#pragma once

#include "block.hpp"
#include "kernels.hpp"

namespace lk {
namespace LK_ISA {

// Rows of a tile of NV registers a row. Tiles narrower than the widest one have more accumulators
// than one product takes cycles, too.
constexpr int widest_tile() { return kRegisters == 32 ? 4 : 2; }
constexpr int tile_rows(int NV) { return NV == 4 ? 6 : kRegisters == 32 || NV == 1 ? 8 : 6; }

template <class T, int MR, int NV, bool transposed>
static void sum_tile(const MultiplyArgs& a, int i, int j, int first, int last) {
  constexpr int W = Simd<T>::lanes;
  Vec<T> acc[MR][NV];
  for (int r = 0; r < MR; ++r)
    for (int c = 0; c < NV; ++c) acc[r][c] = Vec<T>{};
  const int64_t stride = transposed ? a.a_inner : a.a_row;
  const T* A = static_cast<const T*>(a.A) + (transposed ? i + first * stride : i * stride + first);
  const T* B = static_cast<const T*>(a.B) + first * a.b_row + j;
  // What is written is on its way meanwhile.
  if (NV > 1)
    for (int r = 0; r < MR; ++r)
      for (int c = 0; c < NV; ++c)
        __builtin_prefetch(static_cast<T*>(a.C) + (i + r) * a.c_row + j + c * W, 1);
  for (int k = first; k < last; ++k) {
    Vec<T> y[NV];
    for (int c = 0; c < NV; ++c) y[c] = load(B + c * W);
    for (int r = 0; r < MR; ++r) {
      const Vec<T> x = set<T>(transposed ? A[r] : A[r * stride]);
      for (int c = 0; c < NV; ++c) acc[r][c] = fma(x, y[c], acc[r][c]);
    }
    A += transposed ? stride : 1;
    B += a.b_row;
  }
  for (int r = 0; r < MR; ++r) {
    T* C = static_cast<T*>(a.C) + (i + r) * a.c_row + j;
    const T* add = a.add ? static_cast<const T*>(a.add) + (i + r) * a.add_row + j : nullptr;
    for (int c = 0; c < NV; ++c, C += W) {
      const int left = a.columns - (j + c * W);
      const int diagonal = i + r - (j + c * W);
      if (a.identity && diagonal >= 0 && diagonal < W) acc[r][c][diagonal] += 1;
      if (left >= W) {
        store(C, add ? acc[r][c] + load(add + c * W) : acc[r][c]);
      } else {
        for (int l = 0; l < left; ++l) C[l] = acc[r][c][l] + (add ? add[c * W + l] : T(0));
      }
    }
  }
}

template <class T, int MR, int NV, bool transposed>
static int tiles_of(const MultiplyArgs& a, int i, int end, int j) {
  const int width = NV * Simd<T>::lanes;
  for (; i + MR <= end; i += MR) {
    if (a.upper && j + width <= i) return end;
    int first = 0, last = a.inner;
    if (a.a_triangle == kUpperTriangle && i > first) first = i;
    if (a.b_triangle == kLowerTriangle && j > first) first = j;
    if (a.a_triangle == kLowerTriangle && i + MR < last) last = i + MR;
    if (a.b_triangle == kUpperTriangle && j + width < last) last = j + width;
    sum_tile<T, MR, NV, transposed>(a, i, j, first, last);
  }
  return i;
}

template <class T, int NV, bool transposed>
static void panel(const MultiplyArgs& a, int begin, int end, int j) {
  int i = tiles_of<T, tile_rows(NV), NV, transposed>(a, begin, end, j);
  i = tiles_of<T, 4, NV, transposed>(a, i, end, j);
  i = tiles_of<T, 2, NV, transposed>(a, i, end, j);
  tiles_of<T, 1, NV, transposed>(a, i, end, j);
}

template <class T, bool transposed>
static void multiply_rows(const MultiplyArgs& a, int begin, int end) {
  constexpr int W = Simd<T>::lanes, widest = widest_tile();
  int j = 0;
  // Narrow tiles leave out more of what is 0 or not wanted, and take no longer; but they read A
  // more often, which is large where B is no square.
  if (a.upper || (a.b_triangle && a.columns - a.inner < kRound && a.inner <= a.columns))
    for (; j < a.columns; j += W) panel<T, 1, transposed>(a, begin, end, j);
  for (; a.columns - j > (widest - 1) * W; j += widest * W)
    panel<T, widest, transposed>(a, begin, end, j);
  if constexpr (widest == 4) {
    if (a.columns - j > 2 * W) {
      panel<T, 3, transposed>(a, begin, end, j);
      j += 3 * W;
    } else if (a.columns - j > W) {
      panel<T, 2, transposed>(a, begin, end, j);
      j += 2 * W;
    }
  }
  if (a.columns - j > 0) panel<T, 1, transposed>(a, begin, end, j);
}

template <class T>
static void multiply_strips(const MultiplyArgs& a, int64_t first, int64_t last, void*) {
  const int begin = (int)(first * kStrip);
  const int end = last * kStrip < a.rows ? (int)(last * kStrip) : a.rows;
  if (a.a_row == 1)
    multiply_rows<T, true>(a, begin, end);
  else
    multiply_rows<T, false>(a, begin, end);
}

// Strip by strip of the rows of A, which become columns.
template <class T>
static void transpose_strips(const TransposeArgs& a, int64_t first, int64_t last, void*) {
  constexpr int W = Simd<T>::lanes;
  const T* A = static_cast<const T*>(a.A);
  T* C = static_cast<T*>(a.C);
  const int end = last * kStrip < a.rows ? (int)(last * kStrip) : a.rows;
  for (int i = (int)(first * kStrip); i < end; i += W)
    for (int j = 0; j < a.columns; j += W) {
      Vec<T> r[W];
      for (int l = 0; l < W; ++l) r[l] = i + l < end ? load(A + (i + l) * a.a_row + j) : Vec<T>{};
      transpose<T>(r);
      const int kept = a.columns - j < W ? a.columns - j : W;
      for (int l = 0; l < kept; ++l) store(C + (j + l) * a.c_row + i, r[l]);
    }
}

// T = -(S with half its diagonal)^-1 for n <= kRound, row by row from the last.
template <class T>
static void invert_small(const T* S, T* out, int64_t row, int n) {
  constexpr int W = Simd<T>::lanes, vectors = kRound / W;
  for (int i = n - 1; i >= 0; --i) {
    const T scale = -2 / S[i * row + i];
    Vec<T> acc[vectors];
    for (int c = 0; c < vectors; ++c) acc[c] = Vec<T>{};
    for (int k = i + 1; k < n; ++k) {
      const Vec<T> x = set<T>(S[i * row + k]);
      for (int c = 0; c < vectors; ++c) acc[c] = fma(x, load(out + k * row + c * W), acc[c]);
    }
    for (int c = 0; c < vectors; ++c) store(out + i * row + c * W, acc[c] * scale);
    out[i * row + i] += scale;
  }
}

// By halves: the upper right one is T_1 S_12 T_2. `work` holds a quarter of a square.
template <class T>
static void invert_halves(const T* S, T* out, int64_t row, int n, T* work) {
  if (n <= kRound) return invert_small(S, out, row, n);
  const int half = (n / 2 + kRound - 1) / kRound * kRound, rest = n - half;
  const int columns = (rest + kRound - 1) / kRound * kRound;
  const T* S2 = S + half * row + half;
  T* T2 = out + half * row + half;
  invert_halves(S, out, row, half, work);
  invert_halves(S2, T2, row, rest, work);
  MultiplyArgs a{};
  a.rows = half;
  a.columns = columns;
  a.inner = half;
  a.A = out;
  a.a_row = row;
  a.a_inner = 1;
  a.a_triangle = kUpperTriangle;
  a.B = S + half;
  a.b_row = row;
  a.C = work;
  a.c_row = columns;
  multiply_rows<T, false>(a, 0, half);
  a.inner = rest;
  a.A = work;
  a.a_row = columns;
  a.a_triangle = kNoTriangle;
  a.B = T2;
  a.b_triangle = kUpperTriangle;
  a.C = out + half;
  a.c_row = row;
  multiply_rows<T, false>(a, 0, half);
  for (int i = half; i < n; ++i)
    for (int j = 0; j < half; ++j) out[i * row + j] = 0;
}

template <class T>
static void invert_factor(const InvertFactorArgs& a, int64_t, int64_t, void* work) {
  invert_halves(static_cast<const T*>(a.S), static_cast<T*>(a.T), a.row, a.n,
                static_cast<T*>(work));
}

}  // namespace LK_ISA
}  // namespace lk
