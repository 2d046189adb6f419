// Matrices as the numbers of their lower triangles, and back.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace lk {
namespace LK_ISA {

template <class T>
static void pack_strips(const PackArgs& a, int64_t first, int64_t last, void*) {
  const int n = a.n;
  const int64_t end = last * kStrip < a.rows ? last * kStrip : a.rows;
  for (int64_t b = first * kStrip; b < end; ++b) {
    const T* X = static_cast<const T*>(a.X) + b * n * n;
    T* x = static_cast<T*>(a.x) + b * a.x_row;
    T* const stop = x + a.x_row;
    for (int i = 0; i < n; ++i, x += i) {
      const T* row = X + (int64_t)i * n;
      if (a.symmetric)
        for (int j = 0; j < i; ++j) x[j] = row[j] + X[(int64_t)j * n + i];
      else
        for (int j = 0; j < i; ++j) x[j] = row[j];
      x[i] = row[i];
    }
    while (x < stop) *x++ = 0;
  }
}

template <class T>
static void unpack_strips(const UnpackArgs& a, int64_t first, int64_t last, void*) {
  const int n = a.n;
  const int64_t end = last * kStrip < a.rows ? last * kStrip : a.rows;
  for (int64_t b = first * kStrip; b < end; ++b) {
    const T* x = static_cast<const T*>(a.x) + b * a.x_row;
    T* X = static_cast<T*>(a.X) + b * n * n;
    for (int i = 0; i < n; ++i, x += i) {
      T* row = X + (int64_t)i * n;
      for (int j = 0; j <= i; ++j) row[j] = x[j];
      if (a.symmetric)
        for (int j = 0; j < i; ++j) X[(int64_t)j * n + i] = x[j];
      else
        for (int j = i + 1; j < n; ++j) row[j] = 0;
    }
  }
}

}  // namespace LK_ISA
}  // namespace lk
