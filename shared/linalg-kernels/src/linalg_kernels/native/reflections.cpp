// Products of Householder reflections: Q = I + V T V^T, T^-1 = -(striu(S) + diag(S)/2), S = V^T V.
//
// With W = V T the gradient in V of <G, Q> is
//
//   H + G^T W + V (N + N^T),   H = G V T^T,   N = striu(W^T H) + diag(W^T H)/2.
//
// Of Y = Q X, with W = T V^T X and R = T^T V^T G, it is G W^T + X R^T + V (N + N^T) with N of
// R W^T; for Q^T the factor T^T takes the place of T.
#include "dense.hpp"

namespace lk {
namespace {

constexpr double kShortest = 1e-16, kLongest = 1e16;

// One matrix V with everything that is computed of it; `memory` of at least size() numbers.
template <class T>
class Reflections : Dense<T> {
  using typename Dense<T>::Options;
  using Dense<T>::kernels_;
  using Dense<T>::memory_;
  using Dense<T>::take;
  using Dense<T>::plus;
  using Dense<T>::with;
  using Dense<T>::upper_triangle;
  using Dense<T>::multiply;
  using Dense<T>::transpose;
  using Dense<T>::mirror;

 public:
  Reflections(const TypedKernels& kernels, int64_t n, int64_t k, int64_t m, int threads)
      : Dense<T>(kernels, threads), n_(n), k_(k), m_(m), kp_(rounded(k)), mp_(rounded(m)) {}
  using Dense<T>::use;

  // Numbers of scratch memory, with room for rounding up each part.
  size_t size() const {
    return 3 * n_ * kp_ + n_ * mp_ + 2 * k_ * kp_ + k_ * staggered(n_) + 2 * k_ * mp_ +
           2 * m_ * kp_ + 12 * kRound;
  }

  // Q, with T and W in `saved`.
  bool product(const T* V, T* Q, T* saved) {
    T* next = memory_;
    const T* Vp = reflectors(V, next);
    T* W = saved + k_ * kp_;
    if (!factor(Vp, saved, next)) return false;
    T* VT = take(next, k_ * staggered(n_));
    multiply(n_, kp_, k_, rows(Vp, kp_, lower_), saved, kp_, W, kp_, with(kUpperTriangle));
    transpose(n_, k_, Vp, kp_, VT, staggered(n_));
    Options to_identity = with(upper_);
    to_identity.identity = 1;
    multiply(n_, n_, k_, rows<T>(W, kp_), VT, staggered(n_), Q, n_, to_identity);
    return true;
  }

  void product_adjoint(const T* V, const T* saved, const T* G, T* gV) {
    T* next = memory_;
    const T* Vp = reflectors(V, next);
    T* X = take(next, n_ * kp_);
    T* H = take(next, n_ * kp_);
    T* square = take(next, k_ * kp_);
    const T* W = saved + k_ * kp_;
    multiply(n_, kp_, n_, rows(G, n_), Vp, kp_, X, kp_, with(lower_));
    transpose(k_, k_, saved, kp_, square, kp_);
    multiply(n_, kp_, k_, rows<T>(X, kp_), square, kp_, H, kp_, with(kLowerTriangle));
    symmetric(columns(W, kp_), n_, H, square);
    multiply(n_, kp_, n_, columns(G, n_), W, kp_, H, kp_, plus(H, kp_));
    multiply(n_, k_, k_, rows(Vp, kp_, lower_), square, kp_, gV, k_, plus(H, kp_));
  }

  // Y, with T and W in `saved`.
  bool apply(const T* V, const T* X, bool adjoint, T* Y, T* saved) {
    T* next = memory_;
    const T* Vp = reflectors(V, next);
    const T* Xp = padded(X, m_, next);
    T* W = saved + k_ * kp_;
    if (!factor(Vp, saved, next)) return false;
    T* right = take(next, k_ * mp_);
    multiply(k_, mp_, n_, columns(Vp, kp_, upper_), Xp, mp_, right, mp_, {});
    through(saved, adjoint, right, W);
    multiply(n_, m_, k_, rows(Vp, kp_, lower_), W, mp_, Y, m_, plus(Xp, mp_));
    return true;
  }

  void apply_adjoint(const T* V, const T* X, bool adjoint, const T* saved, const T* G, T* gV,
                     T* gX) {
    T* next = memory_;
    const T* Vp = reflectors(V, next);
    const T* Gp = padded(G, m_, next);
    T* right = take(next, k_ * mp_);
    T* R = take(next, k_ * mp_);
    const T* W = saved + k_ * kp_;
    multiply(k_, mp_, n_, columns(Vp, kp_, upper_), Gp, mp_, right, mp_, {});
    through(saved, !adjoint, right, R);
    if (gX) multiply(n_, m_, k_, rows(Vp, kp_, lower_), R, mp_, gX, m_, plus(Gp, mp_));
    if (!gV) return;
    T* WT = take(next, m_ * kp_);
    T* RT = take(next, m_ * kp_);
    T* square = take(next, k_ * kp_);
    T* sum = take(next, n_ * kp_);
    transpose(k_, m_, W, mp_, WT, kp_);
    transpose(k_, m_, R, mp_, RT, kp_);
    symmetric(adjoint ? rows(W, mp_) : rows<T>(R, mp_), m_, adjoint ? RT : WT, square);
    multiply(n_, kp_, m_, rows(G, m_), WT, kp_, sum, kp_, {});
    multiply(n_, kp_, m_, rows(X, m_), RT, kp_, sum, kp_, plus(sum, kp_));
    multiply(n_, k_, k_, rows(Vp, kp_, lower_), square, kp_, gV, k_, plus(sum, kp_));
  }

 private:
  const int64_t n_, k_, m_, kp_, mp_;
  // What V is where it has zeros above its diagonal, and what V^T is then.
  int32_t lower_ = kNoTriangle, upper_ = kNoTriangle;

  // V padded, its shape looked at: unit trapezoidal reflectors, those of frames, spare an eighth
  // of the work where k = n / 4.
  const T* reflectors(const T* V, T*& next) {
    bool below = true;
    for (int64_t i = 0; below && i < k_ && i < n_; ++i)
      for (int64_t j = i + 1; j < k_; ++j) below &= V[i * k_ + j] == 0;
    lower_ = below ? kLowerTriangle : kNoTriangle;
    upper_ = below ? kUpperTriangle : kNoTriangle;
    return padded(V, k_, next);
  }

  const T* padded(const T* A, int64_t width, T*& next) {
    const int64_t row = rounded(width);
    if (row == width) return A;
    T* copy = take(next, n_ * row);
    pad(A, width, n_, width, row, copy, row);
    return copy;
  }

  // S of padded V and T; false where a column is too short or too long, or not finite.
  bool factor(const T* V, T* factor, T* next) {
    T* S = take(next, k_ * kp_);
    Options upper = with(lower_);
    upper.upper = 1;
    multiply(k_, kp_, n_, columns(V, kp_), V, kp_, S, kp_, upper);
    for (int64_t i = 0; i < k_; ++i) {
      const T square = S[i * kp_ + i];
      if (!(square > kShortest && square < kLongest)) return false;
    }
    kernels_.invert_factor({(int32_t)k_, S, factor, kp_}, 0, 1,
                           take(next, k_ * kp_));
    return true;
  }

  // out = T right, or T^T right.
  void through(const T* factor, bool transposed, const T* right, T* out) {
    const Left<T> left = transposed ? columns(factor, kp_, kLowerTriangle)
                                    : rows(factor, kp_, kUpperTriangle);
    multiply(k_, mp_, k_, left, right, mp_, out, mp_, {});
  }

  // The upper triangle of A B, of inner dimension `inner`, mirrored: N + N^T.
  void symmetric(Left<T> A, int64_t inner, const T* B, T* out) {
    multiply(k_, kp_, inner, A, B, kp_, out, kp_, upper_triangle());
    mirror(k_, out, kp_);
  }
};

int64_t saved_numbers(int64_t n, int64_t k, int64_t m) {
  return k * rounded(k) + (m ? k * rounded(m) : n * rounded(k));
}

bool fits(int32_t dtype, int64_t batch, int32_t n, int32_t k, int32_t m) {
  return (dtype == LK_FLOAT32 || dtype == LK_FLOAT64) && batch >= 0 && n >= 1 && k >= 1 && m >= 0;
}

template <class T>
int32_t forward(int32_t dtype, int64_t batch, int64_t n, int64_t k, int64_t m, bool adjoint,
                const void* V, const void* X, void* Y, void* saved, int32_t threads) {
  const int64_t kept = saved_numbers(n, k, m);
  const auto make = [=](const TypedKernels& kernels, int most) {
    return Reflections<T>(kernels, n, k, m, most);
  };
  return each<T>(dtype, batch, threads, make, [=](Reflections<T>& one, int64_t b) -> int32_t {
    const T* v = at<T>(V, b * n * k);
    T* s = at<T>(saved, b * kept);
    const bool done = m ? one.apply(v, at<T>(X, b * n * m), adjoint, at<T>(Y, b * n * m), s)
                        : one.product(v, at<T>(Y, b * n * n), s);
    return done ? 0 : LK_NOT_POSITIVE;
  });
}

template <class T>
int32_t backward(int32_t dtype, int64_t batch, int64_t n, int64_t k, int64_t m, bool adjoint,
                 const void* V, const void* X, const void* saved, const void* G, void* gV,
                 void* gX, int32_t threads) {
  const int64_t kept = saved_numbers(n, k, m);
  const auto make = [=](const TypedKernels& kernels, int most) {
    return Reflections<T>(kernels, n, k, m, most);
  };
  return each<T>(dtype, batch, threads, make, [=](Reflections<T>& one, int64_t b) -> int32_t {
    const T* v = at<T>(V, b * n * k);
    const T* s = at<T>(saved, b * kept);
    T* g = at<T>(gV, b * n * k);
    if (m)
      one.apply_adjoint(v, at<T>(X, b * n * m), adjoint, s, at<T>(G, b * n * m), g,
                        at<T>(gX, b * n * m));
    else
      one.product_adjoint(v, s, at<T>(G, b * n * n), g);
    return LK_OK;
  });
}

}  // namespace
}  // namespace lk

using namespace lk;

int64_t lk_reflect_saved(int32_t n, int32_t k, int32_t m) { return saved_numbers(n, k, m); }

int32_t lk_reflect(int32_t dtype, int64_t batch, int32_t n, int32_t k, int32_t m, int32_t adjoint,
                   const void* V, const void* X, void* Y, void* saved, int32_t threads) {
  if (!fits(dtype, batch, n, k, m)) return LK_ERROR_ARGUMENT;
  const auto of = dtype == LK_FLOAT32 ? forward<float> : forward<double>;
  return of(dtype, batch, n, k, m, adjoint != 0, V, X, Y, saved, threads);
}

int32_t lk_reflect_adjoint(int32_t dtype, int64_t batch, int32_t n, int32_t k, int32_t m,
                           int32_t adjoint, const void* V, const void* X, const void* saved,
                           const void* G, void* gV, void* gX, int32_t threads) {
  if (!fits(dtype, batch, n, k, m)) return LK_ERROR_ARGUMENT;
  const auto of = dtype == LK_FLOAT32 ? backward<float> : backward<double>;
  return of(dtype, batch, n, k, m, adjoint != 0, V, X, saved, G, gV, gX, threads);
}
