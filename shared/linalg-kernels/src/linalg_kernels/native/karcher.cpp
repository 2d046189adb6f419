// The Karcher mean: where the weighted sum J of log(C X_i C^T) is zero, C^-1 C^-T
// being the mean. One step goes from the frame B = C^-1 to B exp(length J / 2),
// which is parallel transport, so that steps of different iterates may be
// compared entry by entry; its length is that of Barzilai and Borwein, kept where
// the Hessian, which lies between 1 and `bound`, allows it.
#include <algorithm>
#include <cmath>
#include <vector>

#include "run.hpp"

namespace lk {
namespace {

// Row-major n x n matrices; n is small, and there is one of each for a whole set.
template <class T>
using Matrix = std::vector<T>;

// C = A B
template <class T>
void multiply(int n, const T* A, const T* B, T* C) {
  std::fill(C, C + (size_t)n * n, T(0));
  for (int i = 0; i < n; ++i)
    for (int k = 0; k < n; ++k)
      for (int j = 0; j < n; ++j) C[i * n + j] += A[i * n + k] * B[k * n + j];
}

// M = B B^T, exactly symmetric.
template <class T>
void gram(int n, const T* B, T* M) {
  for (int i = 0; i < n; ++i)
    for (int j = 0; j <= i; ++j) {
      T sum = 0;
      for (int k = 0; k < n; ++k) sum += B[i * n + k] * B[j * n + k];
      M[i * n + j] = M[j * n + i] = sum;
    }
}

// B lower triangular with B B^T = M, read from the lower triangle, and C = B^-1.
template <class T>
bool factor(int n, const T* M, T* B, T* C) {
  std::fill(B, B + (size_t)n * n, T(0));
  std::fill(C, C + (size_t)n * n, T(0));
  for (int i = 0; i < n; ++i)
    for (int j = 0; j <= i; ++j) {
      T x = M[i * n + j];
      for (int k = 0; k < j; ++k) x -= B[i * n + k] * B[j * n + k];
      if (i == j && !(x > 0 && std::isfinite(x))) return false;
      B[i * n + j] = i == j ? std::sqrt(x) : x / B[j * n + j];
    }
  for (int j = 0; j < n; ++j)
    for (int i = j; i < n; ++i) {
      T x = i == j ? T(1) : T(0);
      for (int k = j; k < i; ++k) x -= B[i * n + k] * C[k * n + j];
      C[i * n + j] = x / B[i * n + i];
    }
  return true;
}

template <class T>
double dot(const Matrix<T>& A, const Matrix<T>& B) {
  double sum = 0;
  for (size_t e = 0; e < A.size(); ++e) sum += (double)A[e] * B[e];
  return sum;
}

// Whether an iteration is at its end: the residual met the tolerance or no longer falls.
struct Stopping {
  double tol, best = HUGE_VAL;
  int stalled = 0;

  bool operator()(double residual) {
    stalled = residual < 0.99 * best ? 0 : stalled + 1;
    best = std::min(best, residual);
    return residual <= tol || stalled >= 4 || std::isnan(residual);
  }
};

template <class T>
struct Mean {
  const Kernels* table;
  int32_t dtype, n, threads;
  int64_t count;
  const T *X, *weights;
  std::vector<T> sums;
  Matrix<T> B, C, J, D, last, change, halves, roots, work;
  bool started = false;

  Mean(const Kernels* table_, int32_t dtype_, int64_t count_, int32_t n_, int32_t threads_)
      : table(table_), dtype(dtype_), n(n_), threads(threads_), count(count_) {
    const int64_t lanes = table->typed[dtype].lanes;
    const size_t nn = (size_t)n * n;
    sums.resize((count + lanes - 1) / lanes * lanes * karcher_sums(n));
    for (Matrix<T>* M : {&B, &C, &J, &D, &last, &change, &work}) M->resize(nn);
    halves.resize(2 * nn);
    roots.resize(2 * nn);
  }

  // J and the bound of the Hessian, as seen from the frame.
  int32_t look(double& bound) {
    int32_t found = LK_OK;
    KarcherArgs args{count, n, X, C.data(), weights, sums.data(), &found};
    int32_t status = run(table, dtype, args, &TypedKernels::karcher, threads, true);
    if (status < 0 || found != LK_OK) return status < 0 ? status : found;
    const int lanes = table->typed[dtype].lanes;
    const int64_t blocks = (count + lanes - 1) / lanes;
    const size_t vectors = karcher_sums(n);
    auto total = [&](size_t e) {
      double sum = 0;
      for (int64_t b = 0; b < blocks; ++b) {
        const T* p = sums.data() + (b * vectors + e) * lanes;
        T part = 0;
        for (int l = 0; l < lanes; ++l) part += p[l];
        sum += part;
      }
      return sum;
    };
    size_t e = 0;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j <= i; ++j) J[i * n + j] = J[j * n + i] = (T)total(e++);
    bound = total(e);
    return LK_OK;
  }

  // `last` holds the step before, `change` the J before.
  double length(double bound) {
    const double fixed = 2 / (1 + bound);
    if (!started) return fixed;
    for (size_t e = 0; e < J.size(); ++e) change[e] -= J[e];
    const double size = dot(change, change);
    if (!(size > 0)) return fixed;
    return std::min(std::max(dot(last, change) / size, 1 / bound), 1.0);
  }

  // B <- B exp(D/2), C <- exp(-D/2) C.
  int32_t move() {
    const size_t nn = D.size();
    for (size_t e = 0; e < nn; ++e) {
      halves[e] = D[e] / 2;
      halves[nn + e] = -halves[e];
    }
    int32_t found = LK_OK;
    SpectralArgs args{};
    args.batch = 2;
    args.n = n;
    args.A = halves.data();
    args.L_repeat = 1;
    args.f = {kExp, nullptr, -HUGE_VAL};
    args.F = roots.data();
    args.tolerance = HUGE_VAL;
    args.found = &found;
    int32_t status = run(table, dtype, args, &TypedKernels::spectral, 1, true);
    if (status < 0 || found != LK_OK) return status < 0 ? status : found;
    multiply(n, B.data(), roots.data(), work.data());
    B.swap(work);
    multiply(n, roots.data() + nn, C.data(), work.data());
    C.swap(work);
    return LK_OK;
  }

  // M is where it starts, and the mean.
  int32_t operator()(T* M, double tol, int32_t most, double step, int32_t& steps,
                     double& residual) {
    started = false;
    residual = HUGE_VAL;
    if (!factor(n, M, B.data(), C.data())) return LK_NOT_POSITIVE;
    Stopping stop{tol};
    for (steps = 0; steps < most; ++steps) {
      double bound;
      int32_t status = look(bound);
      if (status != LK_OK) return status;
      residual = std::sqrt(dot(J, J) / n);
      if (stop(residual)) break;
      const double nu = step > 0 ? step : length(bound);
      for (size_t e = 0; e < J.size(); ++e) D[e] = (T)(nu * J[e]);
      last = D;
      change = J;
      started = true;
      status = move();
      if (status != LK_OK) return status;
    }
    gram(n, B.data(), M);
    return LK_OK;
  }
};

template <class T>
int32_t means(int32_t dtype, int64_t batch, int64_t count, int32_t n, const void* X,
              const void* weights, int32_t one_weighting, double tol, int32_t most, double step,
              void* M, int32_t* steps, double* residual, int32_t threads) {
  const Kernels* table = in_use();
  if (table == nullptr) return LK_ERROR_ISA;
  const size_t nn = (size_t)n * n;
  Mean<T> mean(table, dtype, count, n, threads);
  for (int64_t set = 0; set < batch; ++set) {
    mean.X = static_cast<const T*>(X) + set * count * nn;
    mean.weights = static_cast<const T*>(weights) + (one_weighting ? 0 : set * count);
    int32_t status = mean(static_cast<T*>(M) + set * nn, tol, most, step, steps[set],
                          residual[set]);
    if (status != LK_OK) return status;
  }
  return LK_OK;
}

}  // namespace
}  // namespace lk

using namespace lk;

int32_t lk_karcher(int32_t dtype, int64_t batch, int32_t n, int64_t count, const void* X,
                   const void* weights, int32_t one_weighting, double tol, int32_t most,
                   double step, void* M, int32_t* steps, double* residual, int32_t threads) {
  if (batch < 0 || count < 1 || n < 1) return LK_ERROR_ARGUMENT;
  try {
    if (dtype == LK_FLOAT32)
      return means<float>(dtype, batch, count, n, X, weights, one_weighting, tol, most, step, M,
                          steps, residual, threads);
    if (dtype == LK_FLOAT64)
      return means<double>(dtype, batch, count, n, X, weights, one_weighting, tol, most, step, M,
                           steps, residual, threads);
  } catch (const std::bad_alloc&) {
    return LK_ERROR_MEMORY;
  }
  return LK_ERROR_ARGUMENT;
}
