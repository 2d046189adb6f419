// Products of Householder reflections: Q = I + V T V^T, T^-1 = -(striu(S) + diag(S)/2), S = V^T V.
//
// With W = V T the gradient in V of <G, Q> is
//
//   H + G^T W + V (N + N^T),   H = G V T^T,   N = striu(W^T H) + diag(W^T H)/2.
//
// Of Y = Q X, with W = T V^T X and R = T^T V^T G, it is G W^T + X R^T + V (N + N^T) with N of
// R W^T; for Q^T the factor T^T takes the place of T.
#include <string.h>

#include "run.hpp"

namespace lk {
namespace {

constexpr double kShortest = 1e-16, kLongest = 1e16;

int64_t rounded(int64_t n) { return (n + kRound - 1) / kRound * kRound; }

// Rows that are read from top to bottom: not by a multiple of a page apart, which would put
// them all into the same lines of the cache.
int64_t staggered(int64_t n) { return rounded(n) + kRound; }

// The first operand of a product: rows as they lie, or columns for rows; and its triangle.
template <class T>
struct Left {
  const T* p;
  int64_t row, inner;
  int32_t triangle;
};
template <class T>
Left<T> rows(const T* p, int64_t ld, int32_t triangle = kNoTriangle) {
  return {p, ld, 1, triangle};
}
template <class T>
Left<T> columns(const T* p, int64_t ld, int32_t triangle = kNoTriangle) {
  return {p, 1, ld, triangle};
}

// One matrix V with everything that is computed of it; `memory` of at least size() numbers.
template <class T>
class Reflections {
 public:
  Reflections(const TypedKernels& kernels, int n, int k, int m, int threads)
      : kernels_(kernels), n_(n), k_(k), m_(m), kp_(rounded(k)), mp_(rounded(m)),
        threads_(threads) {}

  // Numbers of scratch memory, with room for rounding up each part.
  size_t size() const {
    return 3 * n_ * kp_ + n_ * mp_ + 2 * k_ * kp_ + k_ * staggered(n_) + 2 * k_ * mp_ +
           2 * m_ * kp_ + 12 * kRound;
  }

  void use(T* memory) { memory_ = memory; }

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
  const TypedKernels& kernels_;
  const int64_t n_, k_, m_, kp_, mp_;
  const int threads_;
  T* memory_ = nullptr;
  // What V is where it has zeros above its diagonal, and what V^T is then.
  int32_t lower_ = kNoTriangle, upper_ = kNoTriangle;

  struct Options {
    const T* add = nullptr;
    int64_t add_row = 0;
    int32_t triangle = kNoTriangle;  // of the second operand
    int32_t upper = 0;
    int32_t identity = 0;
  };
  static Options plus(const T* add, int64_t add_row) {
    Options o;
    o.add = add;
    o.add_row = add_row;
    return o;
  }
  static Options with(int32_t triangle) {
    Options o;
    o.triangle = triangle;
    return o;
  }

  static T* take(T*& next, int64_t count) {
    T* p = next;
    next += rounded(count);
    return p;
  }

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
    for (int64_t i = 0; i < n_; ++i) {
      memcpy(copy + i * row, A + i * width, width * sizeof(T));
      memset(copy + i * row + width, 0, (row - width) * sizeof(T));
    }
    return copy;
  }

  template <class Args>
  struct Strips {
    const Args* args;
    Kernel<Args> kernel;
    static void range(void* self, int64_t first, int64_t last) {
      Strips& s = *static_cast<Strips*>(self);
      s.kernel(*s.args, first, last, nullptr);
    }
  };

  template <class Args>
  void over_strips(const Args& args, Kernel<Args> kernel) {
    Strips<Args> strips{&args, kernel};
    parallel_for(threads_, (args.rows + kStrip - 1) / kStrip, Strips<Args>::range, &strips);
  }

  void multiply(int64_t rows, int64_t columns, int64_t inner, Left<T> A, const T* B,
                int64_t b_row, T* C, int64_t c_row, const Options& o) {
    const MultiplyArgs args{(int32_t)rows, (int32_t)columns, (int32_t)inner, A.p, A.row, A.inner,
                            B, b_row, C, c_row, o.add, o.add_row, A.triangle, o.triangle,
                            o.upper, o.identity};
    over_strips(args, kernels_.multiply);
  }

  void transpose(int64_t rows, int64_t columns, const T* A, int64_t a_row, T* C, int64_t c_row) {
    const TransposeArgs args{(int32_t)rows, (int32_t)columns, A, a_row, C, c_row};
    over_strips(args, kernels_.transpose);
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
    multiply(k_, mp_, k_, transposed ? columns(factor, kp_, kLowerTriangle) : rows(factor, kp_, kUpperTriangle),
             right, mp_, out, mp_, {});
  }

  // The upper triangle of A B, of inner dimension `inner`, mirrored: N + N^T.
  void symmetric(Left<T> A, int64_t inner, const T* B, T* out) {
    Options upper;
    upper.upper = 1;
    multiply(k_, kp_, inner, A, B, kp_, out, kp_, upper);
    for (int64_t i = 1; i < k_; ++i)
      for (int64_t j = 0; j < i; ++j) out[i * kp_ + j] = out[j * kp_ + i];
  }
};

// f(reflections, b) of every matrix of a batch: over threads where there are enough matrices,
// else each over threads.
template <class T, class F>
int32_t each(int64_t batch, int n, int k, int m, int32_t dtype, int threads, F f) {
  const Kernels* table = in_use();
  if (table == nullptr) return LK_ERROR_ISA;
  const bool many = batch >= threads;
  struct Work {
    F f;
    Reflections<T> of;
    std::atomic<int32_t> found{LK_OK};
    static void range(void* self, int64_t first, int64_t last) {
      Work& w = *static_cast<Work*>(self);
      Reflections<T> one = w.of;
      try {
        one.use(static_cast<T*>(scratch(one.size() * sizeof(T))));
      } catch (const std::bad_alloc&) {
        w.found = LK_ERROR_MEMORY;
        return;
      }
      for (int64_t b = first; b < last; ++b)
        if (!w.f(one, b)) {
          w.found = LK_NOT_POSITIVE;
          return;
        }
    }
  };
  Work work{f, Reflections<T>(table->typed[dtype], n, k, m, many ? 1 : threads)};
  if (many)
    parallel_for(threads, batch, Work::range, &work);
  else
    Work::range(&work, 0, batch);
  return work.found;
}

int64_t saved_numbers(int64_t n, int64_t k, int64_t m) {
  return k * rounded(k) + (m ? k * rounded(m) : n * rounded(k));
}

bool fits(int32_t dtype, int64_t batch, int32_t n, int32_t k, int32_t m) {
  return (dtype == LK_FLOAT32 || dtype == LK_FLOAT64) && batch >= 0 && n >= 1 && k >= 1 && m >= 0;
}

template <class T>
const T* at(const void* p, int64_t index) {
  return static_cast<const T*>(p) + index;
}
template <class T>
T* at(void* p, int64_t index) {
  return p ? static_cast<T*>(p) + index : nullptr;
}

template <class T>
int32_t forward(int32_t dtype, int64_t batch, int64_t n, int64_t k, int64_t m, bool adjoint,
                const void* V, const void* X, void* Y, void* saved, int32_t threads) {
  const int64_t kept = saved_numbers(n, k, m);
  return each<T>(batch, n, k, m, dtype, threads, [=](Reflections<T>& one, int64_t b) {
    const T* v = at<T>(V, b * n * k);
    T* s = at<T>(saved, b * kept);
    return m ? one.apply(v, at<T>(X, b * n * m), adjoint, at<T>(Y, b * n * m), s)
             : one.product(v, at<T>(Y, b * n * n), s);
  });
}

template <class T>
int32_t backward(int32_t dtype, int64_t batch, int64_t n, int64_t k, int64_t m, bool adjoint,
                 const void* V, const void* X, const void* saved, const void* G, void* gV,
                 void* gX, int32_t threads) {
  const int64_t kept = saved_numbers(n, k, m);
  return each<T>(batch, n, k, m, dtype, threads, [=](Reflections<T>& one, int64_t b) {
    const T* v = at<T>(V, b * n * k);
    const T* s = at<T>(saved, b * kept);
    T* g = at<T>(gV, b * n * k);
    if (m)
      one.apply_adjoint(v, at<T>(X, b * n * m), adjoint, s, at<T>(G, b * n * m), g,
                        at<T>(gX, b * n * m));
    else
      one.product_adjoint(v, s, at<T>(G, b * n * n), g);
    return true;
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
