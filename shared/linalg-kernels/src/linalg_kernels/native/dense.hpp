// Products of matrices one by one, for drivers that compute with whole matrices.
#pragma once

#include <string.h>

#include "run.hpp"

namespace lk {

inline int64_t rounded(int64_t n) { return (n + kRound - 1) / kRound * kRound; }

// Rows that are read from top to bottom: not by a multiple of a page apart, which would put
// them all into the same lines of the cache.
inline int64_t staggered(int64_t n) { return rounded(n) + kRound; }

template <class T>
const T* at(const void* p, int64_t index) {
  return static_cast<const T*>(p) + index;
}
template <class T>
T* at(void* p, int64_t index) {
  return p ? static_cast<T*>(p) + index : nullptr;
}

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

// Rows of `width` numbers, `from_row` apart, with zeros up to `whole`.
template <class T>
void pad(const T* from, int64_t from_row, int64_t count, int64_t width, int64_t whole, T* to,
         int64_t to_row) {
  for (int64_t i = 0; i < count; ++i) {
    memcpy(to + i * to_row, from + i * from_row, width * sizeof(T));
    memset(to + i * to_row + width, 0, (whole - width) * sizeof(T));
  }
}

// Memory for one call: the thread's own where it is small, which is kept, else as long as needed.
class Memory {
 public:
  explicit Memory(size_t bytes) : large_(bytes > kKept) {
    p_ = large_ ? ::operator new(bytes, std::align_val_t(64)) : scratch(bytes);
  }
  ~Memory() {
    if (large_) ::operator delete(p_, std::align_val_t(64));
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(p_);
  }

 private:
  static constexpr size_t kKept = 16 << 20;
  bool large_;
  void* p_;
};

// What a job on one matrix is made of. Each step is cut into strips of rows for the threads.
template <class T>
class Dense {
 public:
  Dense(const TypedKernels& kernels, int threads) : kernels_(kernels), threads_(threads) {}
  void use(T* memory) { memory_ = memory; }

 protected:
  const TypedKernels& kernels_;
  const int threads_;
  T* memory_ = nullptr;

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
  static Options upper_triangle() {
    Options o;
    o.upper = 1;
    return o;
  }

  static T* take(T*& next, int64_t count) {
    T* p = next;
    next += rounded(count);
    return p;
  }

  template <class Args>
  void over_strips(const Args& args, Kernel<Args> kernel) {
    struct Strips {
      const Args* args;
      Kernel<Args> kernel;
    } strips{&args, kernel};
    parallel_for(threads_, (args.rows + kStrip - 1) / kStrip,
                 [](void* self, int64_t first, int64_t last) {
                   const Strips& s = *static_cast<Strips*>(self);
                   s.kernel(*s.args, first, last, nullptr);
                 }, &strips);
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

  // The lower triangle becomes the upper one's transpose.
  void mirror(int64_t n, T* C, int64_t c_row) {
    over_strips(MirrorArgs{(int32_t)n, C, c_row}, kernels_.mirror);
  }
};

// f(job, b), which says what it found, for every matrix of a batch: over threads where there are
// enough matrices, else each over threads. `make(kernels, threads)` makes the job.
template <class T, class Make, class F>
int32_t each(int32_t dtype, int64_t batch, int threads, Make make, F f) {
  const Kernels* table = in_use();
  if (table == nullptr) return LK_ERROR_ISA;
  const bool many = batch >= threads;
  const auto job = make(table->typed[dtype], many ? 1 : threads);
  struct Work {
    decltype(make(table->typed[dtype], 1)) job;
    F f;
    std::atomic<int32_t> found, out_of_memory;
  } work{job, f, {LK_OK}, {0}};
  const RangeFunction range = [](void* self, int64_t first, int64_t last) {
    Work& w = *static_cast<Work*>(self);
    auto one = w.job;
    try {
      const Memory memory(one.size() * sizeof(T));
      one.use(memory.as<T>());
      for (int64_t b = first; b < last; ++b) w.found |= w.f(one, b);
    } catch (const std::bad_alloc&) {
      w.out_of_memory = 1;
    }
  };
  if (many)
    parallel_for(threads, batch, range, &work);
  else
    range(&work, 0, batch);
  return work.out_of_memory ? LK_ERROR_MEMORY : work.found.load();
}

}  // namespace lk
