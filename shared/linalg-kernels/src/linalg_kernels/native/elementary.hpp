// Logarithm, exponential and power of vectors, to about one unit in the last
// place. Plain Taylor polynomials after argument reduction: the ranges are
// short enough that a fitted polynomial would save one term.
#pragma once

#include "simd.hpp"

namespace lk {
namespace LK_ISA {

template <class T>
LK_INLINE Vec<T> splat(double x) {
  return set((T)x);
}

template <class T>
LK_INLINE Vec<T> not_a_number() {
  return set((T)__builtin_nan(""));
}
template <class T>
LK_INLINE Vec<T> infinity() {
  return set((T)__builtin_inf());
}

// Horner's rule, coefficients from the highest power down.
template <class T, int N>
LK_INLINE Vec<T> polynomial(Vec<T> x, const double (&c)[N]) {
  Vec<T> y = splat<T>(c[0]);
  for (int i = 1; i < N; ++i) y = fma(y, x, splat<T>(c[i]));
  return y;
}

// The number 1.5 * 2^mantissa_bits: adding it rounds to an integer, which then
// stands in the low bits.
template <class T>
LK_INLINE Vec<T> shifter() {
  return splat<T>(sizeof(T) == 4 ? 12582912.0 : 6755399441055744.0);
}

// 2^k for integers k within the range of normal numbers.
template <class T>
LK_INLINE Vec<T> power_of_two(Mask<T> k) {
  return (Vec<T>)((k + Simd<T>::bias) << Simd<T>::mantissa_bits);
}

// ln 2 in two parts; products of the first with any exponent are exact.
template <class T>
struct Ln2 {
  static constexpr double high = sizeof(T) == 4 ? 0x1.62e4p-1 : 0x1.62e42fefa3800p-1;
  static constexpr double low = sizeof(T) == 4 ? 0x1.7f7d1cf79abcap-20 : 0x1.ef35793c76730p-45;
};

// x = 2^k (1 + f) with 1 + f in [1/sqrt 2, sqrt 2), for x > 0; f is exact.
template <class T>
LK_INLINE void split_exponent(Vec<T> x, Vec<T>& k, Vec<T>& f) {
  using I = typename Simd<T>::integer;
  constexpr int bits = Simd<T>::mantissa_bits;
  auto small = x < Simd<T>::smallest_normal;
  x = select(small, x * splat<T>((double)(I(1) << (bits + 1))), x);
  Mask<T> raw = (Mask<T>)x;
  const I sqrt_half = (I)(sizeof(T) == 4 ? (int64_t)0x3f3504f3 : (int64_t)0x3fe6a09e667f3bcdLL);
  Mask<T> biased = raw - sqrt_half;
  Mask<T> whole = biased >> bits;
  f = (Vec<T>)((biased & ((I(1) << bits) - 1)) + sqrt_half) - splat<T>(1);
  // Small integers to floating point by way of the shifter.
  k = (Vec<T>)((Mask<T>)shifter<T>() + whole) - shifter<T>();
  k = select(small, k - splat<T>(bits + 1), k);
}

// log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)) with s = f / (2 + f).
template <class T>
LK_INLINE Vec<T> log_mantissa(Vec<T> f) {
  static constexpr double single[] = {2. / 9, 2. / 7, 2. / 5, 2. / 3};
  static constexpr double twice[] = {2. / 21, 2. / 19, 2. / 17, 2. / 15, 2. / 13,
                                     2. / 11, 2. / 9,  2. / 7,  2. / 5,  2. / 3};
  Vec<T> s = f / (f + splat<T>(2));
  Vec<T> z = s * s;
  Vec<T> R;
  if constexpr (sizeof(T) == 4)
    R = z * polynomial<T>(z, single);
  else
    R = z * polynomial<T>(z, twice);
  Vec<T> half = f * f * splat<T>(0.5);
  return f - fnma(s, half + R, half);
}

// What a logarithm does outside (0, inf): -inf at 0, NaN below, inf at inf.
template <class T>
LK_INLINE Vec<T> log_edges(Vec<T> x, Vec<T> y) {
  y = select(x == Vec<T>{}, -infinity<T>(), y);
  y = select(x == infinity<T>(), x, y);
  return select(x >= Vec<T>{}, y, not_a_number<T>());
}

template <class T>
LK_INLINE Vec<T> log(Vec<T> x) {
  Vec<T> k, f;
  split_exponent<T>(x, k, f);
  Vec<T> low = fma(k, splat<T>(Ln2<T>::low), log_mantissa<T>(f));
  return log_edges<T>(x, fma(k, splat<T>(Ln2<T>::high), low));
}

// x = k ln 2 + r, |r| <= ln(2)/2, with k also as an integer.
template <class T>
LK_INLINE Vec<T> reduce_exponent(Vec<T> x, Mask<T>& k) {
  Vec<T> shifted = fma(x, splat<T>(1.4426950408889634), shifter<T>());
  k = (Mask<T>)shifted - (Mask<T>)shifter<T>();
  Vec<T> whole = shifted - shifter<T>();
  Vec<T> r = fnma(whole, splat<T>(Ln2<T>::high), x);
  return fnma(whole, splat<T>(Ln2<T>::low), r);
}

// (e^r - 1 - r) / r^2 on |r| <= ln(2)/2.
template <class T>
LK_INLINE Vec<T> exp_remainder(Vec<T> r) {
  static constexpr double single[] = {1. / 5040, 1. / 720, 1. / 120, 1. / 24, 1. / 6, 1. / 2};
  static constexpr double twice[] = {1. / 6227020800., 1. / 479001600., 1. / 39916800.,
                                     1. / 3628800.,    1. / 362880.,    1. / 40320.,
                                     1. / 5040.,       1. / 720.,       1. / 120.,
                                     1. / 24.,         1. / 6.,         1. / 2.};
  if constexpr (sizeof(T) == 4)
    return polynomial<T>(r, single);
  else
    return polynomial<T>(r, twice);
}

// exp(x + tail) for a tail far smaller than x.
template <class T>
LK_INLINE Vec<T> exp(Vec<T> x, Vec<T> tail = Vec<T>{}) {
  const T bound = sizeof(T) == 4 ? T(128) : T(1024);
  Vec<T> clamped = max(min(x, splat<T>(bound)), splat<T>(-bound));
  Mask<T> k;
  Vec<T> r = reduce_exponent<T>(clamped, k) + tail;
  Vec<T> y = splat<T>(1) + fma(r * r, exp_remainder<T>(r), r);
  // In two steps, so that the halves stay normal where the result does not.
  Mask<T> half = k >> 1;
  y = y * power_of_two<T>(half) * power_of_two<T>(k - half);
  return select(x == x, y, x);
}

// e^x - 1 for x <= 0, with small relative error also near 0.
template <class T>
LK_INLINE Vec<T> expm1_nonpositive(Vec<T> x) {
  Vec<T> clamped = max(x, splat<T>(-60));
  Mask<T> k;
  Vec<T> r = reduce_exponent<T>(clamped, k);
  Vec<T> scale = power_of_two<T>(k);
  Vec<T> m = fma(r * r, exp_remainder<T>(r), r);
  return select(x == x, fma(scale, m, scale - splat<T>(1)), x);
}

// --- double words: an unevaluated sum high + low --------------------------------------------

template <class T>
struct Pair {
  Vec<T> high, low;
};

template <class T>
LK_INLINE Pair<T> two_sum(Vec<T> a, Vec<T> b) {
  Vec<T> s = a + b, t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}

// For |a| >= |b|.
template <class T>
LK_INLINE Pair<T> fast_two_sum(Vec<T> a, Vec<T> b) {
  Vec<T> s = a + b;
  return {s, b - (s - a)};
}

template <class T>
LK_INLINE Pair<T> two_product(Vec<T> a, Vec<T> b) {
  Vec<T> p = a * b;
#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
  return {p, fma(a, b, -p)};
#else
  // Without a fused product: cut each factor into halves (Veltkamp, Dekker).
  const Vec<T> splitter = splat<T>(sizeof(T) == 4 ? 4097.0 : 134217729.0);
  Vec<T> t = splitter * a, u = splitter * b;
  Vec<T> a1 = t - (t - a), b1 = u - (u - b);
  Vec<T> a2 = a - a1, b2 = b - b1;
  return {p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2};
#endif
}

template <class T>
LK_INLINE Pair<T> times(Pair<T> a, Pair<T> b) {
  Pair<T> p = two_product<T>(a.high, b.high);
  return fast_two_sum<T>(p.high, p.low + fma(a.high, b.low, a.low * b.high));
}

template <class T>
LK_INLINE Pair<T> plus(Pair<T> a, Pair<T> b) {
  Pair<T> s = two_sum<T>(a.high, b.high);
  return fast_two_sum<T>(s.high, s.low + (a.low + b.low));
}

template <class T>
LK_INLINE Pair<T> constant(double high, double low) {
  return {splat<T>(high), splat<T>(low)};
}

// log x as a double word, x > 0: 2 atanh(s), s = f / (2 + f), of which the
// terms s and s^3 are carried in double words and the rest is small.
template <class T>
LK_INLINE Pair<T> log_pair(Vec<T> x) {
  Vec<T> k, f;
  split_exponent<T>(x, k, f);
  Pair<T> bottom = fast_two_sum<T>(splat<T>(2), f);
  Vec<T> q = f / bottom.high;
  Pair<T> back = two_product<T>(q, bottom.high);
  Vec<T> rest = ((f - back.high) - back.low) - q * bottom.low;
  Pair<T> s = fast_two_sum<T>(q, rest / bottom.high);
  Pair<T> z = times<T>(s, s);
  static constexpr double single[] = {1. / 13, 1. / 11, 1. / 9, 1. / 7, 1. / 5};
  static constexpr double twice[] = {1. / 29, 1. / 27, 1. / 25, 1. / 23, 1. / 21, 1. / 19, 1. / 17,
                                     1. / 15, 1. / 13, 1. / 11, 1. / 9,  1. / 7,  1. / 5};
  Vec<T> tail;
  if constexpr (sizeof(T) == 4)
    tail = z.high * polynomial<T>(z.high, single);
  else
    tail = z.high * polynomial<T>(z.high, twice);
  // 1 + z/3 + ..., times 2 s
  const T third = T(1) / T(3);
  const T third_low =
      sizeof(T) == 4 ? T(1. / 3 - (double)(float)(1. / 3)) : T(0x1.5555555555555p-56);
  Pair<T> series = fast_two_sum<T>(set(third), set(third_low) + tail);
  series = times<T>(series, z);
  series = plus<T>(constant<T>(1, 0), series);
  Pair<T> twice_s = {s.high + s.high, s.low + s.low};
  Pair<T> mantissa = times<T>(series, twice_s);
  Pair<T> exponent = fast_two_sum<T>(k * splat<T>(Ln2<T>::high), k * splat<T>(Ln2<T>::low));
  Pair<T> y = plus<T>(exponent, mantissa);
  y.high = log_edges<T>(x, y.high);
  return y;
}

// x^(p.high + p.low) from the double word log x.
template <class T>
LK_INLINE Vec<T> power_from_log(Pair<T> log_x, Pair<T> p) {
  Pair<T> y = two_product<T>(log_x.high, p.high);
  Vec<T> tail = y.low + fma(log_x.high, p.low, log_x.low * p.high);
  // Infinite logarithms or overflowing products have no tail worth having.
  tail = select(abs(y.high) < splat<T>(sizeof(T) == 4 ? 256.0 : 2048.0), tail, Vec<T>{});
  // x^0 = 1 whatever x, as in IEEE pow.
  Vec<T> r = exp<T>(y.high, tail);
  return select((p.high == Vec<T>{}) & (p.low == Vec<T>{}), splat<T>(1), r);
}

}  // namespace LK_ISA
}  // namespace lk
