// tr(A f(K^T X K)) of every X with every K, and what its gradients need.
#pragma once

#include "spectral.hpp"

namespace lk {
namespace LK_ISA {

// S <- K^T X K, on the lower triangle.
template <class T>
static void load_pair(const CongruenceTraceArgs& a, Lanes<T> lanes, Block<T>& b) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  const int64_t nn = (int64_t)n * n;
  V size, difference, finite;
  load_square<T>(a.X, nn, n, SharedLanes<T>(lanes, 1, a.X_count), b.S);
  fold<T>(b.S, n, true, size, difference, finite);
  mirror<T>(b.S, n);
  load_square<T>(a.K, nn, n, SharedLanes<T>(lanes, a.repeat, a.batch), b.Z);
  product<T>(b.rotations, n, {b.S, ld, 1}, {b.Z, ld, 1}, false);
  product<T>(b.S, n, {b.Z, ld, 1}, {b.rotations, ld, 1}, true);
  size = V{};
  measure<T>(b.S, n, size, finite);
  b.bad = (Mask<T>)~(finite == V{});
  prepare_lanes<T>(b, n, size);
}

template <class T>
static void store_pair(const CongruenceTraceArgs& a, Lanes<T> lanes, Block<T>& b) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n);
  for (int i = 0; i < n; ++i) b.d[i] *= b.scale_back;
  Mask<T> bad = b.bad | (Mask<T>)(b.failed != 0);
  if (any(bad)) fill<T>(b.d, n, bad, not_a_number<T>());
  values<T>(a.f, lanes, n, b.d, b.e);
  if (a.F != nullptr) {
    outer_products<T>(b.e, b.Z, ld, 1, n, b.rotations, b.S);
    store_square<T>(a.F, n, lanes, b.S);
  }
  load_square<T>(a.A, (int64_t)n * n, n, SharedLanes<T>(lanes, a.repeat, a.batch), b.S);
  V* M = b.factor;
  product<T>(b.rotations, n, {b.S, ld, 1}, {b.Z, 1, ld}, false);  // A V
  product<T>(M, n, {b.Z, 1, ld}, {b.rotations, ld, 1}, true);     // V^T A V
  V trace{};
  for (int i = 0; i < n; ++i) trace = fma(b.e[i], M[i * ld + i], trace);
  store_lanes<T>(static_cast<T*>(a.trace), lanes, trace);
  if (a.D == nullptr) return;
  Prepared<T>* prepared = reinterpret_cast<Prepared<T>*>(b.rotations);
  scale_by_differences<T>(a.f, lanes, false, n, b.d, prepared, M, b.S);
  mirror<T>(M, n);
  product<T>(b.rotations, n, {M, ld, 1}, {b.Z, ld, 1}, false);
  product<T>(b.S, n, {b.Z, ld, 1}, {b.rotations, ld, 1}, true);
  mirror<T>(b.S, n);
  store_square<T>(a.D, n, lanes, b.S);
}

template <class T>
static void congruence_trace_blocks(const CongruenceTraceArgs& a, int64_t first, int64_t last,
                                    void* scratch) {
  pass_through<T>(
      a.batch, a.n, true, true, first, last, scratch,
      [&](Lanes<T> lanes, Block<T>& b) { load_pair<T>(a, lanes, b); },
      [&](Lanes<T> lanes, Block<T>& b) { store_pair<T>(a, lanes, b); });
}

}  // namespace LK_ISA
}  // namespace lk
