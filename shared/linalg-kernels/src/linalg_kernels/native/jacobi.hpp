// Eigensystems of positive definite matrices to high relative accuracy: the
// Cholesky factor A = L L^T, whose columns one-sided Jacobi rotations make
// orthogonal. With L J = V S the eigenvalues are S^2 and none is lost in the
// rounding errors of larger ones: their relative errors are governed by the
// condition number of A after its diagonal is scaled to 1 (Demmel and Veselic
// 1992).
#pragma once

#include "pencil.hpp"
#include "spectral.hpp"

namespace lk {
namespace LK_ISA {

constexpr int kJacobiSweeps = 40;

// Rows p and q of Z become orthogonal; tells where they were not.
template <class T>
static Mask<T> orthogonalize(Vec<T>* p, Vec<T>* q, int n, Vec<T> tolerance) {
  using V = Vec<T>;
  V alpha{}, beta{}, gamma{};
  for (int i = 0; i < n; ++i) {
    alpha = fma(p[i], p[i], alpha);
    beta = fma(q[i], q[i], beta);
    gamma = fma(p[i], q[i], gamma);
  }
  Mask<T> turn = (Mask<T>)(abs(gamma) > tolerance * (sqrt(alpha) * sqrt(beta)));
  if (!any(turn)) return turn;
  const V one = set(T(1));
  V zeta = (beta - alpha) / select(turn, gamma + gamma, one);
  V t = one / (abs(zeta) + sqrt(fma(zeta, zeta, one)));
  t = select(turn, copysign(t, zeta), V{});
  V c = one / sqrt(fma(t, t, one)), s = c * t;
  for (int i = 0; i < n; ++i) {
    V x = p[i], y = q[i];
    p[i] = fnma(s, y, c * x);
    q[i] = fma(s, x, c * y);
  }
  return turn;
}

// Rows of Z, which are columns of a Cholesky factor, become eigenvectors, d the
// eigenvalues, in no order. Returns 1 where it did not converge.
template <class T>
static Mask<T> one_sided_jacobi(Vec<T>* Z, int n, Vec<T>* d) {
  using V = Vec<T>;
  const int ld = leading(n);
  const V tolerance = set(Simd<T>::eps * T(n < 8 ? 2 : 0.25 * n));
  Mask<T> turned{};
  for (int sweep = 0; sweep < kJacobiSweeps; ++sweep) {
    turned = Mask<T>{};
    for (int p = 0; p < n; ++p)
      for (int q = p + 1; q < n; ++q)
        turned |= orthogonalize<T>(Z + p * ld, Z + q * ld, n, tolerance);
    if (!any(turned)) break;
  }
  for (int i = 0; i < n; ++i) {
    V square{};
    for (int j = 0; j < n; ++j) square = fma(Z[i * ld + j], Z[i * ld + j], square);
    d[i] = square;
    V inverse = T(1) / sqrt(square);
    for (int j = 0; j < n; ++j) Z[i * ld + j] *= inverse;
  }
  return select(turned, Mask<T>{} + 1, Mask<T>{});
}

template <class T>
static void accurate_blocks(const SpectralArgs& a, int64_t first, int64_t last, void* scratch) {
  const int n = a.n, ld = leading(n);
  Block<T> b;
  b.S = static_cast<Vec<T>*>(scratch);
  b.Z = b.S + matrix_vectors(n);
  b.rotations = b.Z + matrix_vectors(n);
  b.d = b.rotations + matrix_vectors(n);
  b.e = b.d + n;
  b.work = b.e + n;
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_matrices<T>(a, lanes, b);
    if (any(b.bad)) set_identity<T>(b.S, n, b.bad);
    Mask<T> indefinite = (Mask<T>)(cholesky<T>(b.S, n) != 0);
    if (any(indefinite)) {
      tell(a.found, kNotPositive);
      b.bad |= indefinite;
      set_identity<T>(b.S, n, indefinite);
    }
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) b.Z[i * ld + j] = j < i ? Vec<T>{} : b.S[j * ld + i];
    b.failed = one_sided_jacobi<T>(b.Z, n, b.d);
    store_eigensystem<T>(a, lanes, b);
  }
}

}  // namespace LK_ISA
}  // namespace lk
