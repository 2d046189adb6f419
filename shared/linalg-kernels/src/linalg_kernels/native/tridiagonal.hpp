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

// Rows first .. first+R-1 of Q^T; see below.
template <class T, int R>
static void form_rows(const Vec<T>* S, int n, const Vec<T>* tau, Vec<T>* Z, int first) {
  using V = Vec<T>;
  const int ld = leading(n);
  const auto reflector = [&](int k) { return S + k * ld + k + 1; };
  // Reflectors from this one down act on all of the rows alike.
  const int together = first < 2 ? -1 : first - 2 < n - 3 ? first - 2 : n - 3;
  for (int r = first; r < first + R; ++r) {
    V* z = Z + r * ld;
    for (int c = 0; c < n; ++c) z[c] = V{};
    z[r] = set(T(1));
    int k = n - 3;
    if (r <= n - 2) k = r - 1;
    if (r >= 1 && r <= n - 2) {
      const V* v = reflector(k);
      z[r] = set(T(1)) - tau[k];
      for (int c = 1; c < n - 1 - k; ++c) z[r + c] = -tau[k] * v[c];
      --k;
    }
    for (; k > together; --k)
      reflect_rows<T, 1>(z + k + 1, ld, reflector(k), n - 1 - k, tau[k]);
  }
  for (int k = together; k >= 0; --k)
    reflect_rows<T, R>(Z + first * ld + k + 1, ld, reflector(k), n - 1 - k, tau[k]);
}

// Z <- Q^T, from the reflectors that tridiagonalize() left. The last reflector
// acts first. Row r + 1 is untouched until reflector r, and no row depends on
// another: a few rows at a time take all of theirs while they are in cache.
template <class T>
static void form_q_transposed(const Vec<T>* S, int n, const Vec<T>* tau, Vec<T>* Z) {
  int r = 0;
  for (; r + 4 <= n; r += 4) form_rows<T, 4>(S, n, tau, Z, r);
  if (n - r >= 2) {
    form_rows<T, 2>(S, n, tau, Z, r);
    r += 2;
  }
  if (r < n) form_rows<T, 1>(S, n, tau, Z, r);
}

}  // namespace LK_ISA
}  // namespace lk
