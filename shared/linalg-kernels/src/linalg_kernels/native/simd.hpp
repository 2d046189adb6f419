// One register's worth of numbers: the vector types of GCC and Clang, and the
// few operations that those types do not spell. Every lane belongs to another
// matrix, so nothing here ever mixes lanes except any().
//
// Each instruction set compiles this header into a namespace of its own
// (LK_ISA), with internal linkage throughout: an inline function that the
// linker could merge between objects would run AVX-512 code on a machine
// without it.
//
// Products and sums are written fma(a, b, c) and the library is compiled with
// -ffp-contract=off, so that a matrix gives the same bits whatever block,
// group or template instance it lands in.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef LK_ISA
#error "LK_ISA names the namespace of one instruction set"
#endif

#define LK_INLINE static inline __attribute__((always_inline))

namespace lk {
namespace LK_ISA {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
// Vector registers that a micro-kernel may hold.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

template <class T>
struct Simd;

template <>
struct Simd<float> {
  typedef float v __attribute__((vector_size(kBytes)));
  typedef float unaligned __attribute__((vector_size(kBytes), aligned(4)));
  typedef int32_t m __attribute__((vector_size(kBytes)));
  typedef int32_t integer;
  static constexpr int lanes = kBytes / 4;
  static constexpr int mantissa_bits = 23;
  static constexpr int bias = 127;
  static constexpr float eps = 1.1920929e-07f;
  static constexpr float smallest_normal = 1.17549435e-38f;
  static constexpr float largest = 3.40282347e+38f;
  // In matrices of norm about 1, entries below `negligible` are far below
  // rounding errors; squares above negligible_square still have all digits,
  // also where denormal numbers are flushed to zero.
  static constexpr float negligible = 0x1p-50f;
  static constexpr float negligible_square = 0x1p-100f;
};

template <>
struct Simd<double> {
  typedef double v __attribute__((vector_size(kBytes)));
  typedef double unaligned __attribute__((vector_size(kBytes), aligned(8)));
  typedef int64_t m __attribute__((vector_size(kBytes)));
  typedef int64_t integer;
  static constexpr int lanes = kBytes / 8;
  static constexpr int mantissa_bits = 52;
  static constexpr int bias = 1023;
  static constexpr double eps = 2.220446049250313e-16;
  static constexpr double smallest_normal = 2.2250738585072014e-308;
  static constexpr double largest = 1.7976931348623157e+308;
  static constexpr double negligible = 0x1p-484;
  static constexpr double negligible_square = 0x1p-968;
};

template <class T>
using Vec = typename Simd<T>::v;
template <class T>
using Mask = typename Simd<T>::m;

using f32v = Vec<float>;
using f64v = Vec<double>;
using i32v = Mask<float>;
using i64v = Mask<double>;

template <class T>
LK_INLINE Vec<T> set(T x) {
  return x - Vec<T>{};
}

template <class T>
LK_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::unaligned*>(p);
}

template <class T>
LK_INLINE void store(T* p, Vec<T> x) {
  *reinterpret_cast<typename Simd<T>::unaligned*>(p) = x;
}

// a*b + c, with one rounding wherever the instruction set has it.
LK_INLINE f32v fma(f32v a, f32v b, f32v c) {
#if defined(__AVX512F__)
  return (f32v)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (f32v)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (f32v)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
LK_INLINE f64v fma(f64v a, f64v b, f64v c) {
#if defined(__AVX512F__)
  return (f64v)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (f64v)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  return (f64v)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

// c - a*b
#if defined(__AVX512F__)
LK_INLINE f32v fnma(f32v a, f32v b, f32v c) {
  return (f32v)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
LK_INLINE f64v fnma(f64v a, f64v b, f64v c) {
  return (f64v)_mm512_fnmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__FMA__)
LK_INLINE f32v fnma(f32v a, f32v b, f32v c) {
  return (f32v)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
LK_INLINE f64v fnma(f64v a, f64v b, f64v c) {
  return (f64v)_mm256_fnmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#else
LK_INLINE f32v fnma(f32v a, f32v b, f32v c) { return fma(-a, b, c); }
LK_INLINE f64v fnma(f64v a, f64v b, f64v c) { return fma(-a, b, c); }
#endif

LK_INLINE f32v sqrt(f32v x) {
#if defined(__AVX512F__)
  return (f32v)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
  return (f32v)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (f32v)_mm_sqrt_ps((__m128)x);
#elif defined(__aarch64__)
  return (f32v)vsqrtq_f32((float32x4_t)x);
#else
  for (int l = 0; l < Simd<float>::lanes; ++l) x[l] = __builtin_sqrtf(x[l]);
  return x;
#endif
}
LK_INLINE f64v sqrt(f64v x) {
#if defined(__AVX512F__)
  return (f64v)_mm512_sqrt_pd((__m512d)x);
#elif defined(__AVX2__)
  return (f64v)_mm256_sqrt_pd((__m256d)x);
#elif defined(__SSE2__)
  return (f64v)_mm_sqrt_pd((__m128d)x);
#elif defined(__aarch64__)
  return (f64v)vsqrtq_f64((float64x2_t)x);
#else
  for (int l = 0; l < Simd<double>::lanes; ++l) x[l] = __builtin_sqrt(x[l]);
  return x;
#endif
}

// Lanes of a where the mask is set (all ones), of b elsewhere.
template <class M, class V>
LK_INLINE V select(M mask, V a, V b) {
  return mask ? a : b;
}

// Whether any lane of a mask (all ones or all zeros a lane) is set.
template <class M>
LK_INLINE bool any(M m) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)m, (__m512i)m) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8((__m256i)m) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_epi8((__m128i)m) != 0;
#elif defined(__aarch64__)
  return vmaxvq_u32((uint32x4_t)m) != 0;
#else
  i64v bits = (i64v)m;
  return (bits[0] | bits[1]) != 0;
#endif
}

LK_INLINE f32v abs(f32v x) { return (f32v)((i32v)x & 0x7fffffff); }
LK_INLINE f64v abs(f64v x) { return (f64v)((i64v)x & 0x7fffffffffffffffLL); }

// |x| with the sign bit of y.
LK_INLINE f32v copysign(f32v x, f32v y) {
  return (f32v)(((i32v)x & 0x7fffffff) | ((i32v)y & (int32_t)0x80000000));
}
LK_INLINE f64v copysign(f64v x, f64v y) {
  return (f64v)(((i64v)x & 0x7fffffffffffffffLL) | ((i64v)y & (int64_t)0x8000000000000000ULL));
}

// 1/sqrt(x) for normal x, to about one unit in the last place.
LK_INLINE f32v rsqrt(f32v x) {
#if defined(__AVX512F__)
  f32v y = (f32v)_mm512_rsqrt14_ps((__m512)x);
  f32v e = fnma(x * y, y, set(1.0f));
  return fma(y * e, fma(e, set(0.375f), set(0.5f)), y);
#elif defined(__AVX2__)
  f32v y = (f32v)_mm256_rsqrt_ps((__m256)x);
  f32v e = fnma(x * y, y, set(1.0f));
  return fma(y * e, fma(e, set(0.375f), set(0.5f)), y);
#else
  return 1.0f / sqrt(x);
#endif
}
LK_INLINE f64v rsqrt(f64v x) {
#if defined(__AVX512F__)
  f64v y = (f64v)_mm512_rsqrt14_pd((__m512d)x);
  f64v e = fnma(x * y, y, set(1.0));
  // One term less would leave an error of a quarter of a rounding, always of
  // the same sign: rotations would shrink what they turn.
  f64v c = fma(e, set(0.2734375), set(0.3125));
  return fma(y * e, fma(fma(e, c, set(0.375)), e, set(0.5)), y);
#else
  return 1.0 / sqrt(x);
#endif
}

// a > b ? a : b and a < b ? a : b, which is b where one is NaN.
#if defined(__AVX512F__)
LK_INLINE f32v max(f32v a, f32v b) { return (f32v)_mm512_max_ps((__m512)a, (__m512)b); }
LK_INLINE f64v max(f64v a, f64v b) { return (f64v)_mm512_max_pd((__m512d)a, (__m512d)b); }
LK_INLINE f32v min(f32v a, f32v b) { return (f32v)_mm512_min_ps((__m512)a, (__m512)b); }
LK_INLINE f64v min(f64v a, f64v b) { return (f64v)_mm512_min_pd((__m512d)a, (__m512d)b); }
#elif defined(__AVX2__)
LK_INLINE f32v max(f32v a, f32v b) { return (f32v)_mm256_max_ps((__m256)a, (__m256)b); }
LK_INLINE f64v max(f64v a, f64v b) { return (f64v)_mm256_max_pd((__m256d)a, (__m256d)b); }
LK_INLINE f32v min(f32v a, f32v b) { return (f32v)_mm256_min_ps((__m256)a, (__m256)b); }
LK_INLINE f64v min(f64v a, f64v b) { return (f64v)_mm256_min_pd((__m256d)a, (__m256d)b); }
#elif defined(__SSE2__)
LK_INLINE f32v max(f32v a, f32v b) { return (f32v)_mm_max_ps((__m128)a, (__m128)b); }
LK_INLINE f64v max(f64v a, f64v b) { return (f64v)_mm_max_pd((__m128d)a, (__m128d)b); }
LK_INLINE f32v min(f32v a, f32v b) { return (f32v)_mm_min_ps((__m128)a, (__m128)b); }
LK_INLINE f64v min(f64v a, f64v b) { return (f64v)_mm_min_pd((__m128d)a, (__m128d)b); }
#else
template <class V>
LK_INLINE V max(V a, V b) {
  return a > b ? a : b;
}
template <class V>
LK_INLINE V min(V a, V b) {
  return a < b ? a : b;
}
#endif

}  // namespace LK_ISA
}  // namespace lk
