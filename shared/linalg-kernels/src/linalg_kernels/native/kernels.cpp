// Compiled once per instruction set, with LK_ISA naming the namespace and the
// compiler told which instructions it may use.
#include "kernels.hpp"

#include "block.hpp"
#include "cholesky.hpp"

namespace lk {
namespace LK_ISA {

template <class T>
static void write_info(int32_t* info, Lanes<T> lanes, Mask<T> values) {
  for (int l = 0; l < lanes.count; ++l) info[lanes.first + l] = (int32_t)values[l];
}

template <class T>
static void cholesky_blocks(const CholeskyArgs& a, int64_t first, int64_t last, void* scratch) {
  const int n = a.n;
  Vec<T>* S = static_cast<Vec<T>*>(scratch);
  for (int64_t block = first; block < last; ++block) {
    Lanes<T> lanes(block, a.batch);
    load_block<T>(static_cast<const T*>(a.A), (int64_t)n * n, n * n, lanes, S);
    Mask<T> failed_at = cholesky<T>(S, n);
    if (any(failed_at != 0)) {
      Vec<T> nan = set<T>(__builtin_nan(""));
      for (int i = 0; i < n; ++i)
        for (int j = 0; j <= i; ++j) S[i * n + j] = select(failed_at != 0, nan, S[i * n + j]);
    }
    for (int i = 0; i < n; ++i)
      for (int j = i + 1; j < n; ++j) S[i * n + j] = Vec<T>{};
    store_block<T>(static_cast<T*>(a.L), (int64_t)n * n, n * n, lanes, S);
    write_info<T>(a.info, lanes, failed_at);
  }
}

static size_t scratch_bytes(int n) { return (size_t)kBytes * n * n; }

#define LK_STRING_(x) #x
#define LK_STRING(x) LK_STRING_(x)

extern const Kernels table;
const Kernels table = {
    LK_STRING(LK_ISA),
    scratch_bytes,
    {
        {Simd<float>::lanes, cholesky_blocks<float>},
        {Simd<double>::lanes, cholesky_blocks<double>},
    },
};

}  // namespace LK_ISA
}  // namespace lk
