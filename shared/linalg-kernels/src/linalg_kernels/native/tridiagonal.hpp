// Householder reduction of a block to tridiagonal form, A = Q T Q^T.
#pragma once

#include "block.hpp"

namespace lk {
namespace LK_ISA {

// p += (rows r .. r+R-1 of the symmetric M, lower triangle) times v.
template <class T, int R>
LK_INLINE void symmetric_rows_times(const Vec<T>* M, int ld, int r, const Vec<T>* v, Vec<T>* p) {
  using V = Vec<T>;
  V acc[R], vr[R];
  for (int a = 0; a < R; ++a) {
    acc[a] = V{};
    vr[a] = v[r + a];
  }
  for (int c = 0; c < r; ++c) {
    V vc = v[c], pc = p[c];
    for (int a = 0; a < R; ++a) {
      V s = M[(r + a) * ld + c];
      acc[a] = fma(s, vc, acc[a]);
      pc = fma(s, vr[a], pc);
    }
    p[c] = pc;
  }
  for (int a = 0; a < R; ++a) {
    for (int b = 0; b < a; ++b) {
      V s = M[(r + a) * ld + r + b];
      acc[a] = fma(s, vr[b], acc[a]);
      acc[b] = fma(s, vr[a], acc[b]);
    }
    acc[a] = fma(M[(r + a) * ld + r + a], vr[a], acc[a]);
  }
  for (int a = 0; a < R; ++a) p[r + a] = acc[a];
}

// Rows r .. r+R-1 of the lower triangle of M -= v q^T + q v^T.
template <class T, int R>
LK_INLINE void rank2_rows(Vec<T>* M, int ld, int r, const Vec<T>* v, const Vec<T>* q) {
  using V = Vec<T>;
  V vr[R], qr[R];
  for (int a = 0; a < R; ++a) {
    vr[a] = -v[r + a];
    qr[a] = -q[r + a];
  }
  for (int c = 0; c <= r; ++c) {
    V vc = v[c], qc = q[c];
    for (int a = 0; a < R; ++a)
      M[(r + a) * ld + c] = fma(vr[a], qc, fma(qr[a], vc, M[(r + a) * ld + c]));
  }
  for (int a = 1; a < R; ++a)
    for (int b = 1; b <= a; ++b)
      M[(r + a) * ld + r + b] = fma(vr[a], q[r + b], fma(qr[a], v[r + b], M[(r + a) * ld + r + b]));
}

// The lower triangle of S becomes T: diagonal d (n), off-diagonal e (n - 1).
// Reflector k is I - tau_k v v^T; v (first entry 1) is left in S, row k, from
// column k+1 on. `work` holds n vectors.
template <class T>
static void tridiagonalize(Vec<T>* S, int n, Vec<T>* d, Vec<T>* e, Vec<T>* tau, Vec<T>* work) {
  using V = Vec<T>;
  constexpr int R = 4;
  const int ld = leading(n);
  for (int k = 0; k + 2 < n; ++k) {
    const int m = n - 1 - k;
    V* M = S + (k + 1) * ld + k + 1;
    V* v = S + k * ld + k + 1;
    V tail{};
    for (int r = 1; r < m; ++r) {
      V x = M[r * ld - 1];
      v[r] = x;
      tail = fma(x, x, tail);
    }
    V a = M[-1];
    auto flat = tail < Simd<T>::negligible_square;
    V beta = -copysign(sqrt(fma(a, a, tail)), a);
    beta = select(flat, a, beta);
    V t = select(flat, V{}, (beta - a) / select(flat, set(T(1)), beta));
    V scale = T(1) / select(flat, set(T(1)), a - beta);
    scale = select(flat, V{}, scale);
    v[0] = set(T(1));
    for (int r = 1; r < m; ++r) v[r] *= scale;
    d[k] = S[k * ld + k];
    e[k] = beta;
    tau[k] = t;
    if (!any(~flat)) continue;

    V* p = work;
    int r = 0;
    for (; r + R <= m; r += R) symmetric_rows_times<T, R>(M, ld, r, v, p);
    for (; r < m; ++r) symmetric_rows_times<T, 1>(M, ld, r, v, p);
    V pv{};
    for (int c = 0; c < m; ++c) pv = fma(p[c], v[c], pv);
    // q = t p - (t^2 p.v / 2) v
    V half = t * t * pv * T(0.5);
    for (int c = 0; c < m; ++c) p[c] = fnma(half, v[c], t * p[c]);
    r = 0;
    for (; r + R <= m; r += R) rank2_rows<T, R>(M, ld, r, v, p);
    for (; r < m; ++r) rank2_rows<T, 1>(M, ld, r, v, p);
  }
  if (n >= 2) {
    d[n - 2] = S[(n - 2) * ld + n - 2];
    e[n - 2] = S[(n - 1) * ld + n - 2];
  }
  d[n - 1] = S[(n - 1) * ld + n - 1];
}

// R rows of Z, from column c on: z -= tau (z . v) v, where z was 0 in column c.
template <class T, int R>
LK_INLINE void reflect_rows(Vec<T>* Z, int ld, const Vec<T>* v, int m, Vec<T> tau) {
  using V = Vec<T>;
  V dot[R];
  for (int a = 0; a < R; ++a) dot[a] = V{};
  for (int c = 1; c < m; ++c) {
    V vc = v[c];
    for (int a = 0; a < R; ++a) dot[a] = fma(Z[a * ld + c], vc, dot[a]);
  }
  for (int a = 0; a < R; ++a) {
    dot[a] *= -tau;
    Z[a * ld] = dot[a];
  }
  for (int c = 1; c < m; ++c) {
    V vc = v[c];
    for (int a = 0; a < R; ++a) Z[a * ld + c] = fma(dot[a], vc, Z[a * ld + c]);
  }
}

// Z <- Q^T, from the reflectors that tridiagonalize() left.
template <class T>
static void form_q_transposed(const Vec<T>* S, int n, const Vec<T>* tau, Vec<T>* Z) {
  using V = Vec<T>;
  const V one = set(T(1));
  const int ld = leading(n);
  Z[(n - 1) * ld + n - 1] = one;
  if (n >= 2) {
    for (int i = 0; i < n - 1; ++i) Z[(n - 1) * ld + i] = V{};
    for (int i = 0; i < n - 1; ++i) Z[i] = V{};
    Z[n - 1] = V{};
    Z[0] = one;
  }
  for (int k = n - 3; k >= 0; --k) {
    const int m = n - 1 - k;
    const V* v = S + k * ld + k + 1;
    V t = tau[k];
    V* first = Z + (k + 1) * ld;
    for (int c = 0; c <= k; ++c) first[c] = V{};
    first[k + 1] = one - t;
    for (int c = 1; c < m; ++c) first[k + 1 + c] = -t * v[c];
    int r = k + 2;
    for (; r + 4 <= n; r += 4) reflect_rows<T, 4>(Z + r * ld + k + 1, ld, v, m, t);
    for (; r < n; ++r) reflect_rows<T, 1>(Z + r * ld + k + 1, ld, v, m, t);
  }
}

}  // namespace LK_ISA
}  // namespace lk
