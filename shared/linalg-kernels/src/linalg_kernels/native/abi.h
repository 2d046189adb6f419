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
#define LK_ABI_VERSION 1

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

/* L L^T = A, from the lower triangle of A. info: 0, or k if the leading minor
 * of order k is not positive definite or not finite; L is then NaN. */
LK_API int32_t lk_cholesky(int32_t dtype, int64_t batch, int32_t n, const void* A, void* L,
                           int32_t* info, int32_t threads);

#ifdef __cplusplus
}
#endif
#endif
