// tr(W L L^T) of Cholesky factors given by unconstrained numbers, with its derivatives.
#pragma once

#include "block.hpp"
#include "elementary.hpp"
#include "kernels.hpp"
#include "product.hpp"

namespace lk {
namespace LK_ISA {

// With M = W L the value is <M, L>, the derivative for L is 2 M below and on the diagonal, and
// that for W is L L^T.
template <class T>
static void factor_trace_blocks(const FactorTraceArgs& a, int64_t first, int64_t last,
                                void* scratch) {
  using V = Vec<T>;
  const int n = a.n, ld = leading(n), count = n * (n + 1) / 2;
  V* L = static_cast<V*>(scratch);
  V* W = L + matrix_vectors(n);
  V* M = W + matrix_vectors(n);
  V* numbers = M + matrix_vectors(n);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_row<T>(a.z, count, lanes, numbers);
    int e = 0;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < i; ++j) L[i * ld + j] = numbers[e++];
      L[i * ld + i] = exp<T>(numbers[e++]);
      for (int j = i + 1; j < n; ++j) L[i * ld + j] = V{};
    }
    load_row<T>(a.w, count, lanes, numbers);
    e = 0;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j <= i; ++j) W[i * ld + j] = W[j * ld + i] = numbers[e++];
    product<T, kBefore>(M, n, {W, ld, 1}, {L, ld, 1}, true);
    V sum = V{};
    e = 0;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j <= i; ++j) {
        const V m = M[i * ld + j], l = L[i * ld + j];
        sum = fma(m, l, sum);
        numbers[e++] = (m + m) * (i == j ? l : set<T>(1));
      }
    }
    store_lanes<T>(static_cast<T*>(a.value), lanes, sum);
    if (a.of_z) store_row<T>(a.of_z, count, lanes, numbers);
    if (!a.of_w) continue;
    product<T, kBehind>(M, n, {L, 1, ld}, {L, 1, ld}, true);
    e = 0;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < i; ++j) numbers[e++] = M[i * ld + j] + M[i * ld + j];
      numbers[e++] = M[i * ld + i];
    }
    store_row<T>(a.of_w, count, lanes, numbers);
  }
}

}  // namespace LK_ISA
}  // namespace lk
