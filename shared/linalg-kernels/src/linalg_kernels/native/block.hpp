// A block: as many matrices as a register has lanes, one lane each.
//
// In memory the matrices lie one after another (row-major, n*n numbers each);
// in a block, element e of all of them is one vector S[e]. Going from one to
// the other is a transposition of small tiles, done in registers.
#pragma once

#include "simd.hpp"

namespace lk {
namespace LK_ISA {

#if defined(__clang__) || __GNUC__ >= 12
#define LK_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#error "needs GCC 12 or newer, or Clang"
#endif

// Interleave the lower and the upper halves of a and b.
template <int lanes, class V>
LK_INLINE void interleave(V a, V b, V& lower, V& upper) {
  if constexpr (lanes == 16) {
    lower = LK_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    upper = LK_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  } else if constexpr (lanes == 8) {
    lower = LK_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    upper = LK_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  } else if constexpr (lanes == 4) {
    lower = LK_SHUFFLE(a, b, 0, 4, 1, 5);
    upper = LK_SHUFFLE(a, b, 2, 6, 3, 7);
  } else {
    lower = LK_SHUFFLE(a, b, 0, 2);
    upper = LK_SHUFFLE(a, b, 1, 3);
  }
}

// Transpose a tile of `lanes` rows in place: log2(lanes) rounds of interleaving
// row i with row i + lanes/2.
template <class T>
LK_INLINE void transpose(Vec<T>* r) {
  constexpr int W = Simd<T>::lanes;
  Vec<T> t[W];
  for (int round = 1; round < W; round *= 2) {
    for (int i = 0; i < W / 2; ++i) interleave<W>(r[i], r[i + W / 2], t[2 * i], t[2 * i + 1]);
    for (int i = 0; i < W; ++i) r[i] = t[i];
  }
}

// Where the lanes of block `block` begin; lanes beyond the batch repeat its
// last matrix. `stride` is the number of elements from one matrix to the next.
template <class T>
struct Lanes {
  static constexpr int W = Simd<T>::lanes;
  int64_t first;
  int count;  // lanes that hold a matrix of their own

  Lanes(int64_t block, int64_t batch) : first(block * W) {
    count = batch - first < W ? (int)(batch - first) : W;
  }
  int64_t matrix(int lane) const { return first + (lane < count ? lane : count - 1); }
};

// S[e] <- element e of every lane's matrix, e = 0 .. size-1.
template <class T>
static void load_block(const T* base, int64_t stride, int size, Lanes<T> lanes, Vec<T>* S) {
  constexpr int W = Simd<T>::lanes;
  const T* p[W];
  for (int l = 0; l < W; ++l) p[l] = base + lanes.matrix(l) * stride;
  if (size < W) {
    for (int e = 0; e < size; ++e)
      for (int l = 0; l < W; ++l) S[e][l] = p[l][e];
    return;
  }
  for (int e = 0; e < size; e += W) {
    if (e > size - W) e = size - W;  // the last tile overlaps the one before
    Vec<T> r[W];
    for (int l = 0; l < W; ++l) r[l] = load<T>(p[l] + e);
    transpose<T>(r);
    for (int i = 0; i < W; ++i) S[e + i] = r[i];
  }
}

// The inverse; lanes beyond the batch are not written.
template <class T>
static void store_block(T* base, int64_t stride, int size, Lanes<T> lanes, const Vec<T>* S) {
  constexpr int W = Simd<T>::lanes;
  T* p[W];
  for (int l = 0; l < W; ++l) p[l] = base + lanes.matrix(l) * stride;
  if (size < W) {
    for (int e = 0; e < size; ++e)
      for (int l = 0; l < lanes.count; ++l) p[l][e] = S[e][l];
    return;
  }
  for (int e = 0; e < size; e += W) {
    if (e > size - W) e = size - W;
    Vec<T> r[W];
    for (int i = 0; i < W; ++i) r[i] = S[e + i];
    transpose<T>(r);
    for (int l = 0; l < W; ++l)
      if (l < lanes.count) store<T>(p[l] + e, r[l]);
  }
}

}  // namespace LK_ISA
}  // namespace lk
