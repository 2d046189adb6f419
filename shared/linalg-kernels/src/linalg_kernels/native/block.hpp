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

// The same where matrices serve several elements of the batch: element b takes
// matrix b / repeat % matrices.
template <class T>
struct SharedLanes : Lanes<T> {
  int64_t index[Lanes<T>::W];

  SharedLanes(Lanes<T> lanes, int64_t repeat, int64_t matrices) : Lanes<T>(lanes) {
    int64_t place = lanes.first, turn = 0;
    if (repeat > 1) {
      place = lanes.first / repeat;
      turn = lanes.first % repeat;
    }
    if (place >= matrices) place %= matrices;
    for (int l = 0; l < Lanes<T>::W; ++l) {
      index[l] = l < lanes.count ? place : index[l - 1];
      if (++turn == repeat) {
        turn = 0;
        if (++place == matrices) place = 0;
      }
    }
  }
  int64_t matrix(int lane) const { return index[lane]; }
};

// Distance between the rows of an n x n matrix in a block, in vectors. A row of
// cache lines that is a multiple of a power of two would put whole columns into
// the same few sets of the cache.
constexpr int leading(int n) { return n % 4 == 0 ? n + 1 : n; }
constexpr size_t matrix_vectors(int n) { return (size_t)n * leading(n); }

// Where the eigenvectors (n rows, leading(n) apart) and eigenvalues of a block
// lie that a forward pass left for its backward pass.
template <class T>
struct Packed {
  Vec<T>*Z, *w;

  Packed(const void* memory, int n, Lanes<T> lanes) {
    const size_t vectors = matrix_vectors(n) + n;
    Z = static_cast<Vec<T>*>(const_cast<void*>(memory)) + lanes.first / Lanes<T>::W * vectors;
    w = Z + matrix_vectors(n);
  }
};

// Walks over the elements of a rows x columns matrix in memory order and says
// where each lies in a block.
struct Walk {
  int columns, gap, column, position;

  Walk(int columns_, int ld, int element)
      : columns(columns_), gap(ld - columns_), column(element % columns_),
        position(element / columns_ * ld + column) {}
  int next() {
    int here = position++;
    if (++column == columns) {
      column = 0;
      position += gap;
    }
    return here;
  }
};

// S <- the rows x columns matrices of the block's lanes, `stride` numbers apart
// in memory.
template <class T, class L>
static void load_block(const T* base, int64_t stride, int rows, int columns, int ld, L lanes,
                       Vec<T>* S) {
  constexpr int W = Simd<T>::lanes;
  const int size = rows * columns;
  const T* p[W];
  for (int l = 0; l < W; ++l) p[l] = base + lanes.matrix(l) * stride;
  if (size < W) {
    Walk walk(columns, ld, 0);
    for (int e = 0; e < size; ++e) {
      Vec<T>& s = S[walk.next()];
      for (int l = 0; l < W; ++l) s[l] = p[l][e];
    }
    return;
  }
  for (int e = 0; e < size; e += W) {
    if (e > size - W) e = size - W;  // the last tile overlaps the one before
    Vec<T> r[W];
    for (int l = 0; l < W; ++l) r[l] = load<T>(p[l] + e);
    transpose<T>(r);
    Walk walk(columns, ld, e);
    for (int i = 0; i < W; ++i) S[walk.next()] = r[i];
  }
}

// The inverse; lanes beyond the batch are not written.
template <class T>
static void store_block(T* base, int64_t stride, int rows, int columns, int ld, Lanes<T> lanes,
                        const Vec<T>* S) {
  constexpr int W = Simd<T>::lanes;
  const int size = rows * columns;
  T* p[W];
  for (int l = 0; l < W; ++l) p[l] = base + lanes.matrix(l) * stride;
  if (size < W) {
    Walk walk(columns, ld, 0);
    for (int e = 0; e < size; ++e) {
      const Vec<T>& s = S[walk.next()];
      for (int l = 0; l < lanes.count; ++l) p[l][e] = s[l];
    }
    return;
  }
  for (int e = 0; e < size; e += W) {
    if (e > size - W) e = size - W;
    Vec<T> r[W];
    Walk walk(columns, ld, e);
    for (int i = 0; i < W; ++i) r[i] = S[walk.next()];
    transpose<T>(r);
    for (int l = 0; l < W; ++l)
      if (l < lanes.count) store<T>(p[l] + e, r[l]);
  }
}

// Whole matrices (n x n) and vectors (n) of a contiguous batch.
template <class T, class L>
static void load_square(const void* base, int64_t stride, int n, L lanes, Vec<T>* S) {
  load_block<T>(static_cast<const T*>(base), stride, n, n, leading(n), lanes, S);
}
template <class T>
static void store_square(void* base, int n, Lanes<T> lanes, const Vec<T>* S) {
  store_block<T>(static_cast<T*>(base), (int64_t)n * n, n, n, leading(n), lanes, S);
}
template <class T>
static void load_row(const void* base, int n, Lanes<T> lanes, Vec<T>* x) {
  load_block<T>(static_cast<const T*>(base), n, 1, n, n, lanes, x);
}
template <class T>
static void store_row(void* base, int n, Lanes<T> lanes, const Vec<T>* x) {
  store_block<T>(static_cast<T*>(base), n, 1, n, n, lanes, x);
}

// One number a matrix.
template <class T>
LK_INLINE Vec<T> load_lanes(const T* p, Lanes<T> lanes) {
  Vec<T> v;
  for (int l = 0; l < Simd<T>::lanes; ++l) v[l] = p[lanes.matrix(l)];
  return v;
}
template <class T>
LK_INLINE void store_lanes(T* p, Lanes<T> lanes, Vec<T> v) {
  for (int l = 0; l < lanes.count; ++l) p[lanes.first + l] = v[l];
}

// Threads share the word in which it is told what was found.
LK_INLINE void tell(int32_t* found, int32_t what) { __atomic_fetch_or(found, what, __ATOMIC_RELAXED); }

}  // namespace LK_ISA
}  // namespace lk
