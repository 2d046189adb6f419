// Inner products of many matrices with many others, whose lower triangles are given as numbers.
//
// What is constant over a symmetric matrix and its transpose is summed first, which halves the
// product of matrices that is left. Points in the place of numbers to subtract are done in the
// same call: they are few, and calls from outside cost more than they do.
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

// What is given and wanted beside X, w and their products.
struct Points {
  const void *minus, *z;
  void *of_z, *of_w;
};

template <class T>
int32_t forward(int32_t dtype, int64_t batch, int32_t n, int32_t count, int32_t symmetric,
                const void* X, const void* w, const Points& points, void* scores, void* x,
                int32_t threads) {
  const Kernels* table = in_use();
  if (table == nullptr) return LK_ERROR_ISA;
  if (batch == 0) return LK_OK;
  const T* minus = static_cast<const T*>(points.minus);
  if (points.z) {
    // Before memory is taken, for which the kernel asks, too. The first row of scores holds the
    // traces until they are copied.
    const FactorTraceArgs args{count, n, points.z, w, scores, points.of_z, points.of_w};
    const int32_t status = run(table, dtype, args, &TypedKernels::factor_trace, threads);
    if (status < 0) return status;
    minus = static_cast<const T*>(scores);
  }
  Products<T> p{table->typed[dtype], batch, n, count, symmetric};
  const Memory memory((count * p.row + p.numbers * p.wide + count) * sizeof(T));
  T* padded = memory.as<T>();
  T *turned = padded + count * p.row, *less = turned + p.numbers * p.wide;
  if (minus)
    for (int64_t k = 0; k < count; ++k) less[k] = -minus[k];
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

// Where gradients go; null where not wanted.
struct Gradients {
  void *X, *w, *minus, *z;
};

template <class T>
int32_t backward(int32_t dtype, int64_t batch, int32_t n, int32_t count, int32_t symmetric,
                 const void* x, const void* w, const Points& points, const void* G,
                 const Gradients& to, int32_t threads) {
  const Kernels* table = in_use();
  if (table == nullptr) return LK_ERROR_ISA;
  Products<T> p{table->typed[dtype], batch, n, count, symmetric};
  p.x = static_cast<T*>(const_cast<void*>(x));
  p.G = static_cast<const T*>(G);
  p.gX = static_cast<T*>(to.X);
  p.gw = static_cast<T*>(to.w);
  if (p.gw)
    parallel_for(threads, p.strips(count), [](void* self, int64_t first, int64_t last) {
      static_cast<Products<T>*>(self)->to_numbers(first, last);
    }, &p);
  // Behind the strip that the calling thread takes of its own memory, too.
  const int64_t strip = kStrip * p.row;
  const Memory memory((strip + count * (p.row + 1)) * sizeof(T));
  T *padded = memory.as<T>() + strip, *sums = padded + count * p.row;
  if (to.minus || to.z || (p.gw && points.of_w)) {
    T* minus = to.minus ? static_cast<T*>(to.minus) : sums;
    p.sum(minus);
    const auto through = [&](const void* derivatives, T* g, bool on_top) {
      const T* d = static_cast<const T*>(derivatives);
      for (int64_t k = 0; k < count; ++k, d += p.numbers, g += p.numbers)
        for (int64_t e = 0; e < p.numbers; ++e) g[e] = d[e] * minus[k] + (on_top ? g[e] : T(0));
    };
    if (to.z) through(points.of_z, static_cast<T*>(to.z), false);
    if (p.gw && points.of_w) through(points.of_w, p.gw, true);
  }
  if (!p.gX) return LK_OK;
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
                          const void* z, void* scores, void* x, void* of_z, void* of_w,
                          int32_t threads) {
  if (!fits(dtype, batch, n, count) || (z && (minus || !symmetric))) return LK_ERROR_ARGUMENT;
  const auto of = dtype == LK_FLOAT32 ? forward<float> : forward<double>;
  try {
    return of(dtype, batch, n, count, symmetric, X, w, {minus, z, of_z, of_w}, scores, x,
              threads);
  } catch (const std::bad_alloc&) {
    return LK_ERROR_MEMORY;
  }
}

int32_t lk_inner_products_adjoint(int32_t dtype, int64_t batch, int32_t n, int32_t count,
                                  int32_t symmetric, const void* x, const void* w,
                                  const void* of_z, const void* of_w, const void* G, void* gX,
                                  void* gw, void* gminus, void* gz, int32_t threads) {
  if (!fits(dtype, batch, n, count) || (gz && !of_z)) return LK_ERROR_ARGUMENT;
  const auto of = dtype == LK_FLOAT32 ? backward<float> : backward<double>;
  const Points points{nullptr, nullptr, const_cast<void*>(of_z), const_cast<void*>(of_w)};
  try {
    return of(dtype, batch, n, count, symmetric, x, w, points, G, {gX, gw, gminus, gz}, threads);
  } catch (const std::bad_alloc&) {
    return LK_ERROR_MEMORY;
  }
}
