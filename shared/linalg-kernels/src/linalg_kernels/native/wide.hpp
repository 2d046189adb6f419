// Steps on one matrix that is too large for blocks, strip by strip of its rows.
#pragma once

#include "functions.hpp"
#include "kernels.hpp"

namespace lk {
namespace LK_ISA {

// The W x W tile of A at (i, j), transposed.
template <class T>
LK_INLINE void load_turned(const T* A, int64_t ld, int i, int j, Vec<T>* r) {
  for (int l = 0; l < Simd<T>::lanes; ++l) r[l] = load(A + (i + l) * ld + j);
  transpose<T>(r);
}

template <class T>
static void mirror_strips(const MirrorArgs& a, int64_t first, int64_t last, void*) {
  constexpr int W = Simd<T>::lanes;
  T* C = static_cast<T*>(a.C);
  const int64_t ld = a.c_row;
  const int end = last * kStrip < a.rows ? (int)(last * kStrip) : a.rows;
  for (int i = (int)(first * kStrip); i < end; i += W) {
    int j = 0;
    if (i + W <= a.rows)
      for (; j < i; j += W) {
        Vec<T> r[W];
        load_turned<T>(C, ld, j, i, r);
        for (int l = 0; l < W; ++l) store(C + (i + l) * ld + j, r[l]);
      }
    for (int r = i; r < i + W && r < end; ++r)
      for (int c = j; c < r; ++c) C[r * ld + c] = C[c * ld + r];
  }
}

template <class T>
static void symmetric_part_strips(const SymmetricPartArgs& a, int64_t first, int64_t last, void*) {
  using V = Vec<T>;
  constexpr int W = Simd<T>::lanes;
  const T half = T(0.5);
  const T* A = static_cast<const T*>(a.A);
  T* H = static_cast<T*>(a.H);
  const int n = a.rows;
  const int64_t ld = a.h_row;
  for (int64_t strip = first; strip < last; ++strip) {
    const int begin = (int)(strip * kStrip), end = begin + kStrip < n ? begin + kStrip : n;
    V size{}, apart{}, zero{};
    T edge_size = 0, edge_apart = 0, edge_zero = 0;
    for (int i = begin; i < end; i += W) {
      int j = 0;
      if (i + W <= n)
        for (; j <= i; j += W) {
          V turned[W], mean[W];
          load_turned<T>(A, n, j, i, turned);
          for (int l = 0; l < W; ++l) {
            const V x = load(A + (int64_t)(i + l) * n + j);
            size = max(abs(x), size);
            size = max(abs(turned[l]), size);
            apart = max(abs(x - turned[l]), apart);
            zero = fma(x, V{}, zero);
            zero = fma(turned[l], V{}, zero);
            mean[l] = fma(turned[l] - x, set(half), x);  // x itself where both are equal
            store(H + (i + l) * ld + j, mean[l]);
          }
          transpose<T>(mean);
          for (int l = 0; l < W; ++l) store(H + (j + l) * ld + i, mean[l]);
        }
      for (int r = i; r < i + W && r < end; ++r)
        for (int c = j; c <= r; ++c) {
          const T x = A[(int64_t)r * n + c], y = A[(int64_t)c * n + r];
          const T size_x = x < 0 ? -x : x, size_y = y < 0 ? -y : y, gap = x < y ? y - x : x - y;
          if (size_x > edge_size) edge_size = size_x;
          if (size_y > edge_size) edge_size = size_y;
          if (gap > edge_apart) edge_apart = gap;
          edge_zero += x * 0 + y * 0;
          H[r * ld + c] = H[c * ld + r] = x + (y - x) * half;
        }
    }
    for (int l = 0; l < W; ++l) {
      if (size[l] > edge_size) edge_size = size[l];
      if (apart[l] > edge_apart) edge_apart = apart[l];
      edge_zero += zero[l];
    }
    double* told = a.told + 3 * strip;
    told[0] = edge_size;
    told[1] = edge_apart;
    told[2] = edge_zero;
  }
}

template <class T, int kind>
static void differences_of(const DifferencesArgs& a, int begin, int end) {
  using V = Vec<T>;
  constexpr int W = Simd<T>::lanes;
  const T* w = static_cast<const T*>(a.w);
  Exponent<T> e{};
  if constexpr (kind == kPower) e = exponent<T>(set(*static_cast<const T*>(a.f.table)));
  const bool floored = a.f.floor > -__builtin_inf();
  const V floor = splat<T>(a.f.floor);
  const auto prepared = [&](V raw) {
    Prepared<T> p;
    p.raw = raw;
    p.w = select(raw < floor, floor, raw);
    prepare<T, kind>(p, e);
    return p;
  };
  Prepared<T> row[kStrip];
  for (int i = begin; i < end; ++i) row[i - begin] = prepared(set(w[i]));
  for (int j = begin / W * W; j < a.rows; j += W) {
    const Prepared<T> column = prepared(load(w + j));
    for (int i = begin; i < end && i < j + W; ++i) {
      V K = divided_difference<T, kind>(row[i - begin], column, e);
      if (floored) {
        const V share = floor_difference<T>(row[i - begin].raw, column.raw, floor);
        K = select(share == V{}, share, K * share);
      }
      T* M = static_cast<T*>(a.M) + i * a.m_row + j;
      store(M, load(M) * K);
    }
  }
}

template <class T>
static void differences_strips(const DifferencesArgs& a, int64_t first, int64_t last, void*) {
  for (int64_t strip = first; strip < last; ++strip) {
    const int begin = (int)(strip * kStrip);
    const int end = begin + kStrip < a.rows ? begin + kStrip : a.rows;
    switch (a.f.kind) {
      case kLog: differences_of<T, kLog>(a, begin, end); break;
      case kExp: differences_of<T, kExp>(a, begin, end); break;
      case kSqrt: differences_of<T, kSqrt>(a, begin, end); break;
      case kInvSqrt: differences_of<T, kInvSqrt>(a, begin, end); break;
      case kInverse: differences_of<T, kInverse>(a, begin, end); break;
      case kPower: differences_of<T, kPower>(a, begin, end); break;
      case kTable:
        for (int i = begin; i < end; ++i) {
          const T* K = static_cast<const T*>(a.f.table) + (int64_t)i * a.rows;
          T* M = static_cast<T*>(a.M) + i * a.m_row;
          for (int j = i; j < a.rows; ++j) M[j] *= K[j];
        }
        break;
      default: differences_of<T, kIdentity>(a, begin, end);
    }
  }
}

}  // namespace LK_ISA
}  // namespace lk
