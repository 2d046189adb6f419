// The functions of eigenvalues: f(w), and the first divided differences
// f[a, b] = (f(a) - f(b)) / (a - b) that make up the Daleckii-Krein kernel.
//
// Nowhere is it asked whether two eigenvalues are "equal": each function has a
// form that is accurate for any pair, and only a difference of exactly zero is
// special. What depends on one eigenvalue is prepared once, in `Prepared`.
#pragma once

#include "elementary.hpp"
#include "kernels.hpp"

namespace lk {
namespace LK_ISA {

// What is known of one eigenvalue; which fields are used depends on f.
template <class T>
struct Prepared {
  Vec<T> w;         // the eigenvalue, raised to the floor if there is one
  Vec<T> raw;       // the eigenvalue itself
  Vec<T> x, y, z, u;  // parts that f[., .] is put together from
};

template <class T>
struct Exponent {
  Vec<T> p;
  Pair<T> p_minus_1;
};

template <class T>
LK_INLINE Exponent<T> exponent(Vec<T> p) {
  return {p, two_sum<T>(p, splat<T>(-1))};
}

template <class T, int kind>
LK_INLINE Vec<T> value(Vec<T> w, const Exponent<T>& e) {
  if constexpr (kind == kLog) return log<T>(w);
  if constexpr (kind == kExp) return exp<T>(w);
  if constexpr (kind == kSqrt) return sqrt(w);
  if constexpr (kind == kInvSqrt) return splat<T>(1) / sqrt(w);
  if constexpr (kind == kInverse) return splat<T>(1) / w;
  if constexpr (kind == kPower) return power_from_log<T>(log_pair<T>(w), {e.p, Vec<T>{}});
  return w;
}

template <class T, int kind>
LK_INLINE void prepare(Prepared<T>& a, const Exponent<T>& e) {
  if constexpr (kind == kLog || kind == kPower) {
    Vec<T> k, f;
    split_exponent<T>(a.w, k, f);
    a.x = log_edges<T>(a.w, k);
    a.y = log_mantissa<T>(f);
    // An infinite or missing exponent alone says so: keep the rest finite.
    a.y = select(abs(a.x) < infinity<T>(), a.y, Vec<T>{});
  }
  if constexpr (kind == kPower) {
    Pair<T> log_w = log_pair<T>(a.w);
    a.z = power_from_log<T>(log_w, e.p_minus_1);
    a.u = power_from_log<T>(log_w, {e.p, Vec<T>{}});
  }
  if constexpr (kind == kExp) a.x = exp<T>(a.w);
  if constexpr (kind == kSqrt || kind == kInvSqrt) a.x = sqrt(a.w);
  if constexpr (kind == kInverse) a.x = splat<T>(1) / a.w;
}

// log(M / m) / d = r (1 + z/3 + z^2/5 + ...) with r = 2 / (M + m), z = (d r / 2)^2,
// while M < sqrt(2) m: then z < 0.0295. Given d and r, this is the series.
template <class T>
LK_INLINE Vec<T> near_log_series(Vec<T> d, Vec<T> r) {
  static constexpr double single[] = {1. / 9, 1. / 7, 1. / 5, 1. / 3};
  static constexpr double twice[] = {1. / 21, 1. / 19, 1. / 17, 1. / 15, 1. / 13,
                                     1. / 11, 1. / 9,  1. / 7,  1. / 5,  1. / 3};
  Vec<T> s = d * r * splat<T>(0.5), z = s * s;
  if constexpr (sizeof(T) == 4)
    return fma(z, polynomial<T>(z, single), splat<T>(1));
  else
    return fma(z, polynomial<T>(z, twice), splat<T>(1));
}

template <class T>
LK_INLINE Vec<T> far_log_ratio(const Prepared<T>& big, const Prepared<T>& small) {
  Vec<T> k = big.x - small.x;
  Vec<T> low = fma(k, splat<T>(Ln2<T>::low), big.y - small.y);
  return fma(k, splat<T>(Ln2<T>::high), low);
}

template <class T, int kind>
LK_INLINE Vec<T> divided_difference(const Prepared<T>& a, const Prepared<T>& b,
                                    const Exponent<T>& e) {
  using V = Vec<T>;
  const V one = splat<T>(1);
  if constexpr (kind == kIdentity) return one;
  if constexpr (kind == kSqrt) return one / (a.x + b.x);
  if constexpr (kind == kInvSqrt) return -one / (a.x * b.x * (a.x + b.x));
  if constexpr (kind == kInverse) return -(a.x * b.x);
  auto swap = b.w > a.w;
  V M = select(swap, b.w, a.w), m = select(swap, a.w, b.w);
  V d = M - m;
  auto tie = d == V{};
  if constexpr (kind == kExp) {
    V top = select(swap, b.x, a.x);
    return top * select(tie, one, -expm1_nonpositive<T>(-d) / select(tie, one, d));
  }
  if constexpr (kind == kLog || kind == kPower) {
    Prepared<T> big, small;
    big.x = select(swap, b.x, a.x);
    big.y = select(swap, b.y, a.y);
    small.x = select(swap, a.x, b.x);
    small.y = select(swap, a.y, b.y);
    auto near = (M < splat<T>(1.4142135623730951) * m) | tie;
    V middle = fma(M, splat<T>(0.5), m * splat<T>(0.5));  // (M + m) / 2 without overflow
    V r = one / select(near, middle, d);
    V series = near_log_series<T>(d, r);
    V far = far_log_ratio<T>(big, small);
    V nan = not_a_number<T>();
    if constexpr (kind == kLog) {
      V K = select(near, series, far) * r;
      return select(m >= V{}, K, nan);
    } else {
      V ratio = select(near, d * r * series, far);
      V y = select(e.p == V{}, V{}, -abs(e.p) * ratio);
      V change = expm1_nonpositive<T>(y);
      V big_z = select(swap, b.z, a.z), small_z = select(swap, a.z, b.z);
      V small_power = select(swap, a.u, b.u);
      auto rising = e.p >= V{};
      V t = d / m;
      auto close = t < one;
      V scale = select(rising, big_z, select(close, small_z, small_power));
      V width = select(rising, d / M, select(close, t, d));
      V K = scale * (select(rising, -change, change) / select(tie, one, width));
      K = select(tie, e.p * small_z, K);
      return select(m >= V{}, K, nan);
    }
  }
}

// max(., floor)[a, b]; an eigenvalue at the floor counts as raised to it.
template <class T>
LK_INLINE Vec<T> floor_difference(Vec<T> a, Vec<T> b, Vec<T> floor) {
  Vec<T> M = max(a, b), m = min(a, b);
  auto above = m > floor;
  Vec<T> slope = (M - floor) / select(above, splat<T>(1), M - m);
  return select(above, splat<T>(1), select(M <= floor, Vec<T>{}, slope));
}

}  // namespace LK_ISA
}  // namespace lk
