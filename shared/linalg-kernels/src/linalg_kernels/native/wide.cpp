// From eigensystems of large matrices back to matrices, one matrix at a time.
#include "dense.hpp"

namespace lk {
namespace {

template <class T>
class Wide : Dense<T> {
  using Dense<T>::kernels_;
  using Dense<T>::memory_;
  using Dense<T>::take;
  using Dense<T>::upper_triangle;
  using Dense<T>::over_strips;
  using Dense<T>::multiply;
  using Dense<T>::transpose;
  using Dense<T>::mirror;

 public:
  Wide(const TypedKernels& kernels, int64_t n, int threads)
      : Dense<T>(kernels, threads), n_(n), whole_(rounded(n)), ld_(staggered(n)) {}
  using Dense<T>::use;

  // What each strip tells comes first, as double whatever T.
  size_t size() const { return told_numbers() + 4 * n_ * ld_ + whole_ + 5 * kRound; }

  // H = (A + A^T)/2.
  int32_t symmetric_part(const T* A, T* H, int64_t h_row, double tolerance) {
    double* told = reinterpret_cast<double*>(memory_);
    over_strips(SymmetricPartArgs{(int32_t)n_, A, H, h_row, told}, kernels_.symmetric_part);
    double largest = 0, apart = 0, zero = 0;
    for (int64_t s = 0; s < strips(); ++s) {
      if (told[3 * s] > largest) largest = told[3 * s];
      if (told[3 * s + 1] > apart) apart = told[3 * s + 1];
      zero += told[3 * s + 2];
    }
    int32_t found = LK_OK;
    if (!(zero == 0)) found |= LK_NOT_FINITE;
    if (apart > tolerance * largest) found |= LK_ASYMMETRIC;
    return found;
  }

  // F = V diag(d) V^T
  void compose(const T* d, const T* V, bool as_rows, T* F) {
    T* next = memory_ + told_numbers();
    T* Z = take(next, n_ * ld_);
    T* U = take(next, n_ * ld_);
    eigenvectors(V, as_rows, Z, U);
    for (int64_t k = 0; k < n_; ++k)
      for (int64_t i = 0; i < n_; ++i) U[k * ld_ + i] = d[k] * Z[k * ld_ + i];
    multiply(n_, n_, n_, columns<T>(U, ld_), Z, ld_, F, n_, upper_triangle());
    mirror(n_, F, n_);
  }

  // D = V (K o (V^T sym(E) V)) V^T
  void frechet(const T* w, const T* V, bool as_rows, const T* E, FunctionArgs f, T* D) {
    T* next = memory_ + told_numbers();
    T* Z = take(next, n_ * ld_);
    T* U = take(next, n_ * ld_);
    T* X = take(next, n_ * ld_);
    T* M = take(next, n_ * ld_);
    T* values = take(next, whole_);
    for (int64_t i = 0; i < whole_; ++i) values[i] = w ? w[i < n_ ? i : n_ - 1] : T(0);
    eigenvectors(V, as_rows, Z, U);
    if (as_rows) transpose(n_, n_, Z, ld_, U, ld_);
    symmetric_part(E, M, ld_, 0);
    multiply(n_, whole_, n_, rows<T>(M, ld_), U, ld_, X, ld_, {});                // E V
    multiply(n_, whole_, n_, columns<T>(U, ld_), X, ld_, M, ld_, upper_triangle());  // V^T E V
    over_strips(DifferencesArgs{(int32_t)n_, values, f, M, ld_}, kernels_.differences);
    mirror(n_, M, ld_);
    multiply(n_, whole_, n_, rows<T>(M, ld_), Z, ld_, X, ld_, {});  // M V^T
    multiply(n_, n_, n_, columns<T>(Z, ld_), X, ld_, D, n_, upper_triangle());
    mirror(n_, D, n_);
  }

 private:
  const int64_t n_, whole_, ld_;

  int64_t strips() const { return (n_ + kStrip - 1) / kStrip; }
  int64_t told_numbers() const {
    return rounded(3 * strips() * (int64_t)(sizeof(double) / sizeof(T)));
  }

  // Z with the eigenvectors as rows; where they are columns of V, U holds V.
  void eigenvectors(const T* V, bool as_rows, T* Z, T* U) {
    pad(V, n_, n_, n_, ld_, as_rows ? Z : U, ld_);
    if (!as_rows) transpose(n_, n_, U, ld_, Z, ld_);
  }
};

template <class T, class F>
int32_t over_batch(int32_t dtype, int64_t batch, int64_t n, int32_t threads, F f) {
  const auto make = [=](const TypedKernels& kernels, int most) {
    return Wide<T>(kernels, n, most);
  };
  return each<T>(dtype, batch, threads, make, f);
}

bool fits(int32_t dtype, int64_t batch, int32_t n) {
  return (dtype == LK_FLOAT32 || dtype == LK_FLOAT64) && batch >= 0 && n >= 1;
}

template <class T>
int32_t symmetric_parts(int32_t dtype, int64_t batch, int64_t n, const void* A, void* H,
                        double tolerance, int32_t threads) {
  return over_batch<T>(dtype, batch, n, threads, [=](Wide<T>& one, int64_t b) -> int32_t {
    return one.symmetric_part(at<T>(A, b * n * n), at<T>(H, b * n * n), n, tolerance);
  });
}

template <class T>
int32_t compositions(int32_t dtype, int64_t batch, int64_t n, bool as_rows, const void* d,
                     const void* V, void* F, int32_t threads) {
  return over_batch<T>(dtype, batch, n, threads, [=](Wide<T>& one, int64_t b) -> int32_t {
    one.compose(at<T>(d, b * n), at<T>(V, b * n * n), as_rows, at<T>(F, b * n * n));
    return LK_OK;
  });
}

template <class T>
int32_t derivatives(int32_t dtype, int64_t batch, int64_t n, bool shared, bool as_rows,
                    const void* w, const void* V, const void* E, FunctionArgs f, void* D,
                    int32_t threads) {
  return over_batch<T>(dtype, batch, n, threads, [=](Wide<T>& one, int64_t b) -> int32_t {
    const int64_t of = shared ? 0 : b;
    FunctionArgs g = f;
    if (f.table) g.table = at<T>(f.table, of * (f.kind == kTable ? n * n : 1));
    one.frechet(w ? at<T>(w, of * n) : nullptr, at<T>(V, of * n * n), as_rows,
                at<T>(E, b * n * n), g, at<T>(D, b * n * n));
    return LK_OK;
  });
}

}  // namespace
}  // namespace lk

using namespace lk;

int32_t lk_wide_symmetric_part(int32_t dtype, int64_t batch, int32_t n, const void* A, void* H,
                               double tolerance, int32_t threads) {
  if (!fits(dtype, batch, n)) return LK_ERROR_ARGUMENT;
  const auto of = dtype == LK_FLOAT32 ? symmetric_parts<float> : symmetric_parts<double>;
  return of(dtype, batch, n, A, H, tolerance, threads);
}

int32_t lk_wide_compose(int32_t dtype, int64_t batch, int32_t n, int32_t rows, const void* d,
                        const void* V, void* F, int32_t threads) {
  if (!fits(dtype, batch, n)) return LK_ERROR_ARGUMENT;
  const auto of = dtype == LK_FLOAT32 ? compositions<float> : compositions<double>;
  return of(dtype, batch, n, rows != 0, d, V, F, threads);
}

int32_t lk_wide_frechet(int32_t dtype, int64_t batch, int32_t n, int32_t shared, int32_t rows,
                        const void* w, const void* V, const void* E, int32_t kind,
                        const void* table, double floor, void* D, int32_t threads) {
  if (!fits(dtype, batch, n)) return LK_ERROR_ARGUMENT;
  const auto of = dtype == LK_FLOAT32 ? derivatives<float> : derivatives<double>;
  return of(dtype, batch, n, shared != 0, rows != 0, w, V, E, {kind, table, floor}, D, threads);
}
