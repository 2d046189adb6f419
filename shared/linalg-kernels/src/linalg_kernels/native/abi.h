/* The C interface of the native library: plain pointers, no torch, no Python.
 *
 * Matrices are row-major and lie one after another; `dtype` is LK_FLOAT32 or
 * LK_FLOAT64 and says what the void pointers hold. A batch may be empty, n is
 * at least 1. `threads` is an upper bound; results do not depend on it.
 *
 * Every function returns an LK_ERROR code, which is negative, or the sum of
 * what it found in at least one matrix of the batch, LK_NOT_FINITE and so on:
 * LK_OK if there was nothing to tell. Which matrix it was stands in info[], one
 * number a matrix; info may be null.
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
#define LK_ABI_VERSION 11

enum { LK_FLOAT32 = 0, LK_FLOAT64 = 1 };
enum { LK_OK = 0, LK_ERROR_ARGUMENT = -1, LK_ERROR_MEMORY = -2, LK_ERROR_ISA = -3 };
enum {
  LK_NOT_FINITE = 1,    /* NaN or Inf in a matrix */
  LK_NOT_CONVERGED = 2, /* an eigenvalue was given up */
  LK_NOT_POSITIVE = 4,  /* a matrix that must be positive definite is not */
  LK_ASYMMETRIC = 8     /* max |A - A^T| > tolerance max |A| */
};

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

/* Matrices that one block of the instruction set in use holds. */
LK_API int32_t lk_lanes(int32_t dtype);

/* What a forward pass leaves for its backward pass may lie as the library computes
 * it, `packed`, which spares two transpositions: for each block of lk_lanes()
 * matrices, element by element and of each element its lanes, the eigenvectors in
 * n rows of n, or n + 1 where 4 divides n, and then n eigenvalues (of a pencil the
 * logarithms of them). The blocks cover the batch; the memory is aligned to 64. */

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

/* What is found in A: LK_NOT_FINITE, LK_ASYMMETRIC. */
LK_API int32_t lk_inspect(int32_t dtype, int64_t batch, int32_t n, const void* A,
                          double tolerance, int32_t threads);

/* Eigensystem A = V diag(w) V^T and F = V diag(f(w)) V^T; w, V and F may each
 * be null. With `symmetrize` (A + A^T)/2 stands for the matrix, else its lower
 * triangle. With L (else null) the matrix is L^-1 A L^-T, or with `multiply`
 * L A L^T for any L; matrix b belongs to factor b / L_repeat. With `sorted`
 * eigenvalues ascend, else they come in no order. With `accurate` the matrix
 * must be positive definite, and small eigenvalues are as accurate as large ones.
 * `packed`, V and w once more, may be null. With `positive` it is told if an
 * eigenvalue is not positive.
 *
 * info: 0; -1 if the matrix holds NaN or Inf (w, V, F are then NaN); 1 + the
 * index of an eigenvalue that did not converge. */
LK_API int32_t lk_spectral(int32_t dtype, int64_t batch, int32_t n, int32_t symmetrize,
                           const void* A, const void* L, int64_t L_repeat, int32_t multiply,
                           int32_t kind, const void* table, double floor, int32_t sorted,
                           int32_t accurate, int32_t positive, void* w, void* V, void* F, void* packed,
                           int32_t* info, double tolerance, int32_t threads);

/* Daleckii-Krein: D = V (K o (V^T sym(E) V)) V^T, K_ij = f[w_i, w_j]. w may be
 * null for LK_TABLE. With `shared` there is one w and one V (and one table row
 * where f has a table of K, or one exponent). `packed`, if not null, is in the
 * place of w and V. */
LK_API int32_t lk_frechet(int32_t dtype, int64_t batch, int32_t n, int32_t shared, const void* w,
                          const void* V, const void* packed, const void* E, int32_t kind,
                          const void* table, double floor, void* D, int32_t threads);

/* gA = V (diag(gw) + sym(V^T gV / (w_j - w_i))) V^T, the adjoint of A -> (w, V);
 * 0 for 1 / (w_j - w_i) where |w_j - w_i| <= 8 eps max |w|. gw or gV may be null. */
LK_API int32_t lk_eigh_adjoint(int32_t dtype, int64_t batch, int32_t n, const void* w,
                               const void* V, const void* gw, const void* gV, void* gA,
                               int32_t threads);

/* F = V diag(f(w)) V^T for any V. w may be null for LK_TABLE. */
LK_API int32_t lk_compose(int32_t dtype, int64_t batch, int32_t n, const void* w, const void* V,
                          int32_t kind, const void* table, double floor, void* F,
                          int32_t threads);

/* Y = K f(S) K^T from the packed eigensystem of S, for any K; matrix b belongs to
 * K[b / K_repeat]. */
LK_API int32_t lk_carry(int32_t dtype, int64_t batch, int32_t n, const void* packed,
                        const void* K, int64_t K_repeat, int32_t kind, const void* table,
                        double floor, void* Y, int32_t threads);

/* Its adjoint at S = W X W^T, for a loss with gradient G in Y: gX the gradient in X,
 * and for LK_POWER slope (batch) that in the exponents. Either may be null. */
LK_API int32_t lk_carry_adjoint(int32_t dtype, int64_t batch, int32_t n, const void* packed,
                                const void* K, int64_t K_repeat, const void* W,
                                int64_t W_repeat, int32_t kind, const void* table, double floor,
                                const void* G, void* gX, void* slope, int32_t threads);

/* trace = tr(A f(M)) with M = K^T sym(X) K and symmetric A; element i belongs to
 * X[i % X_count], K[i / repeat] and A[i / repeat]. F = f(M); D, its derivative for
 * M, is V (f[w_i, w_j] o V^T A V) V^T. Either may be null. What is not finite, or has no
 * f(M), gives NaN or an infinity. */
LK_API int32_t lk_congruence_trace(int32_t dtype, int64_t batch, int32_t n, const void* X,
                                   int64_t X_count, const void* K, const void* A, int64_t repeat,
                                   int32_t kind, const void* table, double floor, void* trace,
                                   void* F, void* D, int32_t threads);

/* Functions h of the diagonal of a Cholesky factor: h(l) = l, log l, l^exponent. */
enum { LK_FACTOR = 0, LK_LOG_DIAGONAL = 1, LK_POWER_DIAGONAL = 2 };

/* L L^T = A and X = L but for h on its diagonal; either may be null. info: 0,
 * or k if the leading minor of order k is not positive definite or not finite;
 * L and X are then NaN. symmetrize and tolerance as above. */
LK_API int32_t lk_cholesky(int32_t dtype, int64_t batch, int32_t n, int32_t symmetrize,
                           const void* A, int32_t chart, double exponent, void* L, void* X,
                           int32_t* info, double tolerance, int32_t threads);

/* gA = sym(L^-T Phi(L^T G') L^-1), the adjoint of A -> X: G' is the gradient G
 * in X but for h'(l) times its diagonal. */
LK_API int32_t lk_cholesky_adjoint(int32_t dtype, int64_t batch, int32_t n, int32_t chart,
                                   double exponent, const void* L, const void* G, void* gA,
                                   int32_t threads);

/* A = L L^T with L the lower triangle of X but for exp on its diagonal. */
LK_API int32_t lk_from_log(int32_t dtype, int64_t batch, int32_t n, const void* X, void* A,
                           int32_t threads);

/* Its adjoint: the lower triangle of 2 sym(G) L, times diag L on the diagonal. */
LK_API int32_t lk_from_log_adjoint(int32_t dtype, int64_t batch, int32_t n, const void* X,
                                   const void* G, void* gX, int32_t threads);

/* value = |R|_F, R = K - L below the diagonal and weight (h(k) - h(l)) on it, of
 * P = L L^T and Q = K K^T with h(x) = (x^a - 1)/a, log x for a = 0. weight: (n).
 * L and K may be null. What is not finite or not positive definite gives NaN. */
LK_API int32_t lk_cholesky_distance(int32_t dtype, int64_t batch, int32_t n, const void* P,
                                    const void* Q, double a, const void* weight, void* value,
                                    void* L, void* K, double tolerance, int32_t threads);

/* Gradients of a loss with gradient g (batch) in `value`, 0 where it is 0. gP
 * or gQ may be null. */
LK_API int32_t lk_cholesky_distance_adjoint(int32_t dtype, int64_t batch, int32_t n, double a,
                                            const void* weight, const void* value, const void* L,
                                            const void* K, const void* g, void* gP, void* gQ,
                                            int32_t threads);

/* Y = L^-1 sym(X) L^-T; L_repeat as above. */
LK_API int32_t lk_congruence(int32_t dtype, int64_t batch, int32_t n, const void* L,
                             int64_t L_repeat, const void* X, void* Y, int32_t threads);

/* The eigenvalues of the pencil (Q, P), Q u = w P u with u^T P u = 1, for
 * positive definite P and Q. Of the batch, matrix b belongs to the matrix
 * b / P_repeat of P and b % Q_count of Q.
 *
 * packed: the u, one a row, and log w, in no order, exactly 0 where P and Q are
 * equal. value: alpha sum(log w)^2 + beta (sum log w)^2, or with `root` its square
 * root. Both may be null.
 *
 * What is not finite, not positive definite or did not converge gives NaN;
 * `tolerance` as above, for P and Q. */
LK_API int32_t lk_pencil(int32_t dtype, int64_t batch, int32_t n, const void* P,
                         int64_t P_repeat, const void* Q, int64_t Q_count, double alpha,
                         double beta, int32_t root, void* value, void* packed, double tolerance,
                         int32_t threads);

/* Gradients of a loss with gradient g (batch) in `value`, 0 where a root is 0:
 * sum_i s_i / w_i u_i u_i^T with respect to Q and -sum_i s_i u_i u_i^T with
 * respect to P, s_i the derivative with respect to log w_i. gP or gQ may be
 * null. */
LK_API int32_t lk_pencil_adjoint(int32_t dtype, int64_t batch, int32_t n, double alpha,
                                 double beta, int32_t root, const void* packed,
                                 const void* g, void* gP, void* gQ, int32_t threads);

/* Karcher means of `batch` sets of `count` positive definite matrices, X (batch,
 * count, n, n), with weights (batch, count), or (count) for all sets, that sum to
 * 1. M (batch, n, n) holds where to start and becomes the mean: where J, the
 * weighted sum of log(B^-1 X B^-T), B B^T = M, has |J|_F <= tol sqrt(n), where that
 * no longer falls, or after `most` steps. step: their length; 0 for one that fits.
 * steps and residual (batch): how many, and the last |J|_F / sqrt(n). Gives up,
 * and says what it found, at the first set in which there is something to tell. */
LK_API int32_t lk_karcher(int32_t dtype, int64_t batch, int32_t n, int64_t count, const void* X,
                          const void* weights, int32_t one_weighting, double tol, int32_t most,
                          double step, void* M, int32_t* steps, double* residual,
                          int32_t threads);

/* Matrices too large for blocks, one by one. H = (A + A^T)/2; says what is found in A:
 * LK_NOT_FINITE, LK_ASYMMETRIC. */
LK_API int32_t lk_wide_symmetric_part(int32_t dtype, int64_t batch, int32_t n, const void* A,
                                      void* H, double tolerance, int32_t threads);

/* F = V diag(d) V^T of d (batch, n); with `rows` the eigenvectors are the rows of V. */
LK_API int32_t lk_wide_compose(int32_t dtype, int64_t batch, int32_t n, int32_t rows,
                               const void* d, const void* V, void* F, int32_t threads);

/* lk_frechet without packed eigensystems. */
LK_API int32_t lk_wide_frechet(int32_t dtype, int64_t batch, int32_t n, int32_t shared,
                               int32_t rows, const void* w, const void* V, const void* E,
                               int32_t kind, const void* table, double floor, void* D,
                               int32_t threads);

/* The inner products scores = <X_i, W_k> - minus_k, (batch, count), of matrices X (batch, n, n)
 * with those W whose n (n + 1)/2 numbers of the lower triangle, row by row, are w: symmetric, or
 * else with zeros above. minus (count) may be null. x: numbers of X that the adjoint needs, in
 * `batch` rows of n (n + 1)/2 rounded up to 16.
 *
 * With z, symmetric W and no minus, minus_k = tr(W L L^T), L being lower triangular, of the numbers
 * z_k but for exp on its diagonal; of_z and of_w: its derivatives (count, n (n + 1)/2), or null. */
LK_API int32_t lk_inner_products(int32_t dtype, int64_t batch, int32_t n, int32_t count,
                                 int32_t symmetric, const void* X, const void* w,
                                 const void* minus, const void* z, void* scores, void* x,
                                 void* of_z, void* of_w, int32_t threads);

/* Its adjoint, for a loss with gradient G in the scores; each gradient may be null. of_z and of_w
 * as above, of_w null where there was no z. */
LK_API int32_t lk_inner_products_adjoint(int32_t dtype, int64_t batch, int32_t n, int32_t count,
                                         int32_t symmetric, const void* x, const void* w,
                                         const void* of_z, const void* of_w, const void* G,
                                         void* gX, void* gw, void* gminus, void* gz,
                                         int32_t threads);

/* Products of k reflections H_i = I - 2 v_i v_i^T / |v_i|^2, the v_i being the columns of V
 * (batch, n, k): Y = Q X of X (batch, n, m) with Q = H_1 ... H_k, or Q^T X with `adjoint`; with
 * m = 0, where X is null, Y = Q (batch, n, n).
 *
 * saved: what the adjoint needs, lk_reflect_saved() numbers a matrix. Says LK_NOT_POSITIVE, and
 * leaves the results unfinished, where a |v_i|^2 is not within 1e-16..1e16. */
LK_API int64_t lk_reflect_saved(int32_t n, int32_t k, int32_t m);
LK_API int32_t lk_reflect(int32_t dtype, int64_t batch, int32_t n, int32_t k, int32_t m,
                          int32_t adjoint, const void* V, const void* X, void* Y, void* saved,
                          int32_t threads);

/* Its adjoint, for a loss with gradient G in Y. gV or gX may be null. */
LK_API int32_t lk_reflect_adjoint(int32_t dtype, int64_t batch, int32_t n, int32_t k, int32_t m,
                                  int32_t adjoint, const void* V, const void* X,
                                  const void* saved, const void* G, void* gV, void* gX,
                                  int32_t threads);

#ifdef __cplusplus
}
#endif
#endif
