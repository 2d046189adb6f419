/* The C interface of the native library: plain pointers, no torch, no Python.
 *
 * Matrices are row-major and lie one after another; `dtype` is LK_FLOAT32 or
 * LK_FLOAT64 and says what the void pointers hold. A batch may be empty, n is
 * at least 1. `threads` is an upper bound; results do not depend on it.
 *
 * Every function returns LK_OK or one of the LK_ERROR codes. What happened to
 * a single matrix is told in info[], one number a matrix.
 */
#ifndef LINALG_KERNELS_ABI_H
#define LINALG_KERNELS_ABI_H

#include <stdint.h>

#if defined(_WIN32)
#define LK_API __declspec(dllexport)
#else
#define LK_API __attribute__((visibility("default")))
#endif

/* Changes whenever a signature or the meaning of an argument does. */
#define LK_ABI_VERSION 3

enum { LK_FLOAT32 = 0, LK_FLOAT64 = 1 };
enum { LK_OK = 0, LK_ERROR_ARGUMENT = 1, LK_ERROR_MEMORY = 2, LK_ERROR_ISA = 3 };

#ifdef __cplusplus
extern "C" {
#endif

LK_API int32_t lk_abi_version(void);

/* Name of the instruction set in use: "avx512", "avx2", "sse4", "neon",
 * "generic", or "" if this processor has none that the library was built for. */
LK_API const char* lk_isa(void);

/* Names of those that this processor runs, best first, separated by spaces. */
LK_API const char* lk_available_isas(void);

/* Choose one by name; LK_ERROR_ISA if it is not available. */
LK_API int32_t lk_select_isa(const char* name);

/* Functions of eigenvalues. LK_POWER takes its exponents from `table`, one a
 * matrix. LK_TABLE takes the values themselves: (batch, n) numbers f(w) where
 * values are asked for, (batch, n, n) divided differences for derivatives.
 * Eigenvalues below `floor` are raised to it first (-inf for none), with
 * derivative 0; LK_IDENTITY with a floor is the clamp. */
enum {
  LK_IDENTITY = 0,
  LK_LOG = 1,
  LK_EXP = 2,
  LK_SQRT = 3,
  LK_INV_SQRT = 4,
  LK_INVERSE = 5,
  LK_POWER = 6,
  LK_TABLE = 7
};

/* Eigensystem A = V diag(w) V^T and F = V diag(f(w)) V^T; w, V and F may each
 * be null. With `symmetrize` (A + A^T)/2 stands for the matrix, else its lower
 * triangle. With L (else null) the matrix is L^-1 A L^-T; L_stride is n*n, or
 * 0 if one factor serves the whole batch. With `sorted` eigenvalues ascend,
 * else they come in no order.
 *
 * info: 0; -1 if the matrix holds NaN or Inf (w, V, F are then NaN); 1 + the
 * index of an eigenvalue that did not converge.
 * asymmetry (or null): max |A - A^T| / max |A| of each matrix.
 * report: the first matrix whose info is not 0, and the first whose asymmetry
 * is above `tolerance` (infinite: not looked at); -1 for none. */
LK_API int32_t lk_spectral(int32_t dtype, int64_t batch, int32_t n, int32_t symmetrize,
                           const void* A, const void* L, int64_t L_stride, int32_t kind,
                           const void* table, double floor, int32_t sorted, void* w, void* V,
                           void* F, int32_t* info, void* asymmetry, double tolerance,
                           int64_t* report, int32_t threads);

/* Daleckii-Krein: D = V (K o (V^T sym(E) V)) V^T, K_ij = f[w_i, w_j]. w may be
 * null for LK_TABLE. */
LK_API int32_t lk_frechet(int32_t dtype, int64_t batch, int32_t n, const void* w, const void* V,
                          const void* E, int32_t kind, const void* table, double floor, void* D,
                          int32_t threads);

/* F = V diag(f(w)) V^T for any V. w may be null for LK_TABLE. */
LK_API int32_t lk_compose(int32_t dtype, int64_t batch, int32_t n, const void* w, const void* V,
                          int32_t kind, const void* table, double floor, void* F,
                          int32_t threads);

/* L L^T = A. info: 0, or k if the leading minor of order k is not positive
 * definite or not finite; L is then NaN. symmetrize, asymmetry, tolerance and
 * report as above. */
LK_API int32_t lk_cholesky(int32_t dtype, int64_t batch, int32_t n, int32_t symmetrize,
                           const void* A, void* L, int32_t* info, void* asymmetry,
                           double tolerance, int64_t* report, int32_t threads);

/* gA = sym(L^-T Phi(L^T G) L^-1), the adjoint of A -> L. */
LK_API int32_t lk_cholesky_adjoint(int32_t dtype, int64_t batch, int32_t n, const void* L,
                                   const void* G, void* gA, int32_t threads);

/* Y = L^-1 sym(X) L^-T; L_stride as above. */
LK_API int32_t lk_congruence(int32_t dtype, int64_t batch, int32_t n, const void* L,
                             int64_t L_stride, const void* X, void* Y, int32_t threads);

#ifdef __cplusplus
}
#endif
#endif
