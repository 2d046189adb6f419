// Inner products of many matrices with many others, whose lower triangles are given as numbers.
//
// What is constant over a symmetric matrix and its transpose is summed first, which halves the
// product of matrices that is left.
#include "dense.hpp"

namespace lk {
namespace {

template <class T>
struct Products {
  const TypedKernels& kernels;
  int64_t batch, n, count;
  int32_t symmetric;
  int64_t numbers = n * (n + 1) / 2, row = rounded(numbers), wide = rounded(count);
  const T *X = nullptr, *less = nullptr, *G = nullptr;  // less: -minus
  const T* w = nullptr;   // padded rows of w; in forward their transpose
  T *x = nullptr, *scores = nullptr, *gX = nullptr, *gw = nullptr;
  std::atomic<bool> out_of_memory{false};

  int64_t strips(int64_t rows) const { return (rows + kStrip - 1) / kStrip; }

  void forward(int64_t first, int64_t last) {
    const PackArgs pack{(int32_t)batch, (int32_t)n, symmetric, X, x, row};
    MultiplyArgs multiply{};
    multiply.rows = (int32_t)batch;
    multiply.columns = (int32_t)count;
    multiply.inner = (int32_t)numbers;
    multiply.A = x;
    multiply.a_row = row;
    multiply.a_inner = 1;
    multiply.B = w;
    multiply.b_row = wide;
    multiply.C = scores;
    multiply.c_row = count;
    // One row for all of them.
    multiply.add = less;
    multiply.add_row = 0;
    for (int64_t s = first; s < last; ++s) {
      kernels.pack(pack, s, s + 1, nullptr);
      kernels.multiply(multiply, s, s + 1, nullptr);
    }
  }

  void to_matrices(int64_t first, int64_t last, T* strip) {
    MultiplyArgs multiply{};
    const int lanes = kernels.lanes;
    multiply.columns = (int32_t)((numbers + lanes - 1) / lanes * lanes);
    multiply.inner = (int32_t)count;
    multiply.a_row = count;
    multiply.a_inner = 1;
    multiply.B = w;
    multiply.b_row = row;
    multiply.C = strip;
    multiply.c_row = row;
    for (int64_t b = first * kStrip; b < last * kStrip && b < batch; b += kStrip) {
      multiply.rows = batch - b < kStrip ? (int32_t)(batch - b) : kStrip;
      multiply.A = G + b * count;
      kernels.multiply(multiply, 0, 1, nullptr);
      const UnpackArgs unpack{multiply.rows, (int32_t)n, symmetric, strip, row, gX + b * n * n};
      kernels.unpack(unpack, 0, 1, nullptr);
    }
  }

  void sum(T* gminus) const {
    for (int64_t k = 0; k < count; ++k) gminus[k] = 0;
    int64_t b = 0;
    for (; b + 4 <= batch; b += 4) {
      const T* g = G + b * count;
      for (int64_t k = 0; k < count; ++k)
        gminus[k] -= (g[k] + g[k + count]) + (g[k + 2 * count] + g[k + 3 * count]);
    }
    for (; b < batch; ++b)
      for (int64_t k = 0; k < count; ++k) gminus[k] -= G[b * count + k];
  }

  void to_numbers(int64_t first, int64_t last) {
    MultiplyArgs multiply{};
    multiply.rows = (int32_t)count;
    multiply.columns = (int32_t)numbers;
    multiply.inner = (int32_t)batch;
    multiply.A = G;
    multiply.a_row = 1;
    multiply.a_inner = count;
    multiply.B = x;
    multiply.b_row = row;
    multiply.C = gw;
    multiply.c_row = numbers;
    kernels.multiply(multiply, first, last, nullptr);
  }
};

template <class T>
int32_t forward(int32_t dtype, int64_t batch, int32_t n, int32_t count, int32_t symmetric,
                const void* X, const void* w, const void* minus, void* scores, void* x,
                int32_t threads) {
  const Kernels* table = in_use();
  if (table == nullptr) return LK_ERROR_ISA;
  Products<T> p{table->typed[dtype], batch, n, count, symmetric};
  const Memory memory((count * p.row + p.numbers * p.wide + count) * sizeof(T));
  T* padded = memory.as<T>();
  T *turned = padded + count * p.row, *less = turned + p.numbers * p.wide;
  if (minus)
    for (int64_t k = 0; k < count; ++k) less[k] = -static_cast<const T*>(minus)[k];
  pad(static_cast<const T*>(w), p.numbers, count, p.numbers, p.row, padded, p.row);
  const TransposeArgs transpose{count, (int32_t)p.numbers, padded, p.row, turned, p.wide};
  p.kernels.transpose(transpose, 0, p.strips(count), nullptr);
  p.w = turned;
  p.X = static_cast<const T*>(X);
  p.less = minus ? less : nullptr;
  p.x = static_cast<T*>(x);
  p.scores = static_cast<T*>(scores);
  parallel_for(threads, p.strips(batch), [](void* self, int64_t first, int64_t last) {
    static_cast<Products<T>*>(self)->forward(first, last);
  }, &p);
  return LK_OK;
}

template <class T>
int32_t backward(int32_t dtype, int64_t batch, int32_t n, int32_t count, int32_t symmetric,
                 const void* x, const void* w, const void* G, void* gX, void* gw,
                 void* gminus, int32_t threads) {
  const Kernels* table = in_use();
  if (table == nullptr) return LK_ERROR_ISA;
  Products<T> p{table->typed[dtype], batch, n, count, symmetric};
  p.x = static_cast<T*>(const_cast<void*>(x));
  p.G = static_cast<const T*>(G);
  p.gX = static_cast<T*>(gX);
  p.gw = static_cast<T*>(gw);
  if (gminus) p.sum(static_cast<T*>(gminus));
  if (gw)
    parallel_for(threads, p.strips(count), [](void* self, int64_t first, int64_t last) {
      static_cast<Products<T>*>(self)->to_numbers(first, last);
    }, &p);
  if (!gX) return LK_OK;
  // Behind the strip that the calling thread takes of its own memory, too.
  const int64_t strip = kStrip * p.row;
  const Memory memory((strip + count * p.row) * sizeof(T));
  T* padded = memory.as<T>() + strip;
  pad(static_cast<const T*>(w), p.numbers, count, p.numbers, p.row, padded, p.row);
  p.w = padded;
  parallel_for(threads, p.strips(batch), [](void* self, int64_t first, int64_t last) {
    Products<T>& p = *static_cast<Products<T>*>(self);
    try {
      p.to_matrices(first, last, static_cast<T*>(scratch(kStrip * p.row * sizeof(T))));
    } catch (const std::bad_alloc&) {
      p.out_of_memory = true;
    }
  }, &p);
  return p.out_of_memory ? LK_ERROR_MEMORY : LK_OK;
}

bool fits(int32_t dtype, int64_t batch, int32_t n, int32_t count) {
  return (dtype == LK_FLOAT32 || dtype == LK_FLOAT64) && batch >= 0 && batch <= INT32_MAX &&
         n >= 1 && count >= 1;
}

}  // namespace
}  // namespace lk

using namespace lk;

int32_t lk_inner_products(int32_t dtype, int64_t batch, int32_t n, int32_t count,
                          int32_t symmetric, const void* X, const void* w, const void* minus,
                          void* scores, void* x, int32_t threads) {
  if (!fits(dtype, batch, n, count)) return LK_ERROR_ARGUMENT;
  const auto of = dtype == LK_FLOAT32 ? forward<float> : forward<double>;
  try {
    return of(dtype, batch, n, count, symmetric, X, w, minus, scores, x, threads);
  } catch (const std::bad_alloc&) {
    return LK_ERROR_MEMORY;
  }
}

int32_t lk_inner_products_adjoint(int32_t dtype, int64_t batch, int32_t n, int32_t count,
                                  int32_t symmetric, const void* x, const void* w, const void* G,
                                  void* gX, void* gw, void* gminus, int32_t threads) {
  if (!fits(dtype, batch, n, count)) return LK_ERROR_ARGUMENT;
  const auto of = dtype == LK_FLOAT32 ? backward<float> : backward<double>;
  try {
    return of(dtype, batch, n, count, symmetric, x, w, G, gX, gw, gminus, threads);
  } catch (const std::bad_alloc&) {
    return LK_ERROR_MEMORY;
  }
}
