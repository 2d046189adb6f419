// One step of the Karcher mean, as far as it goes over the matrices.
#pragma once

#include "spectral.hpp"

namespace lk {
namespace LK_ISA {

template <class T>
static void store_karcher(const KarcherArgs& a, Lanes<T> lanes, Block<T>& b) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  V weight{};
  for (int l = 0; l < lanes.count; ++l)
    weight[l] = static_cast<const T*>(a.weights)[lanes.first + l];
  Mask<T> positive = Mask<T>{} - 1;
  V low{}, high{};
  for (int i = 0; i < n; ++i) {
    V w = b.d[i] * b.scale_back;
    positive &= (Mask<T>)(w > 0);
    V x = log<T>(w);
    low = i == 0 ? x : min(low, x);
    high = i == 0 ? x : max(high, x);
    b.d[i] = weight * x;
  }
  if (any(b.bad)) tell(a.found, kNotFinite);
  if (any(~(positive | b.bad))) tell(a.found, kNotPositive);
  if (any((Mask<T>)(b.failed != 0))) tell(a.found, kNotConverged);
  outer_products<T>(b.d, b.Z, ld, 1, n, b.rotations, b.S);
  T* sums = static_cast<T*>(a.sums) + lanes.first * karcher_sums(n);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j <= i; ++j, sums += Lanes<T>::W) store<T>(sums, b.S[i * ld + j]);
  V x = (high - low) * T(0.5);
  store<T>(sums, weight * sqrt(fma(x, x, set(T(1)))));
}

template <class T>
static void karcher_blocks(const KarcherArgs& a, int64_t first, int64_t last, void* scratch) {
  SpectralArgs of{};
  of.batch = a.batch;
  of.n = a.n;
  of.symmetrize = true;
  of.A = a.X;
  of.L = a.C;
  of.L_repeat = a.batch;
  of.multiply = true;
  of.tolerance = __builtin_inf();
  of.found = a.found;
  pass_through<T>(
      a.batch, a.n, true, false, first, last, scratch,
      [&of](Lanes<T> lanes, Block<T>& b) { load_matrices<T>(of, lanes, b); },
      [&a](Lanes<T> lanes, Block<T>& b) { store_karcher<T>(a, lanes, b); });
}

}  // namespace LK_ISA
}  // namespace lk
