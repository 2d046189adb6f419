// What one instruction set offers: a table of functions over ranges of work.
// kernels.cpp fills one table per instruction set; dispatch.cpp picks one.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace lk {

// Functions of eigenvalues, numbered as in abi.h.
enum Function {
  kIdentity = 0,
  kLog = 1,
  kExp = 2,
  kSqrt = 3,
  kInvSqrt = 4,
  kInverse = 5,
  kPower = 6,
  kTable = 7,
};

// What may be found in a matrix, numbered as in abi.h.
enum Found { kNotFinite = 1, kNotConverged = 2, kNotPositive = 4, kAsymmetric = 8 };

// f, with the exponent of every matrix (kPower) or a table (kTable), and a
// floor below which eigenvalues are raised (-inf for none).
struct FunctionArgs {
  int32_t kind;
  const void* table;  // p: (batch); or f: (batch, n); or K: (batch, n, n)
  double floor;
};

struct SpectralArgs {
  int64_t batch;
  int32_t n;
  int32_t symmetrize;  // else the lower triangle stands for the matrix
  const void* A;
  const void* L;     // null, or factors: the matrix is then L^-1 A L^-T
  int64_t L_repeat;  // matrices that share a factor
  int32_t multiply;  // then L is any matrix C, and the matrix C A C^T
  FunctionArgs f;
  // Results; null where not wanted. With F and without `sorted` the
  // eigenvalues come in no order.
  int32_t sorted;
  int32_t positive;  // tell of eigenvalues that are not
  void* w;
  void* V;
  void* F;
  void* packed;   // see abi.h
  int32_t* info;  // 0; -1 for NaN or Inf in A; 1 + index of an eigenvalue that did not converge
  double tolerance;
  int32_t* found;  // what was found in some matrix
};

struct FrechetArgs {
  int64_t batch;
  int32_t n;
  int32_t shared;  // one w and one V serve the whole batch
  const void* w;
  const void* V;
  const void* packed;  // in the place of w and V, if not null
  const void* E;
  FunctionArgs f;
  void* D;
};

struct ComposeArgs {
  int64_t batch;
  int32_t n;
  const void* w;
  const void* V;
  FunctionArgs f;
  void* F;
};

struct CarryArgs {
  int64_t batch;
  int32_t n;
  const void* packed;
  const void* K;
  int64_t K_repeat;
  FunctionArgs f;
  void* Y;
};

struct CarryAdjointArgs {
  int64_t batch;
  int32_t n;
  const void* packed;
  const void* K;
  int64_t K_repeat;
  const void* W;
  int64_t W_repeat;
  FunctionArgs f;
  const void* G;
  void* gX;
  void* slope;
};

// Of the batch, element i belongs to matrix i % X_count of X and i / repeat of K and A.
struct CongruenceTraceArgs {
  int64_t batch;
  int32_t n;
  const void* X;
  int64_t X_count;
  const void* K;
  const void* A;
  int64_t repeat;
  FunctionArgs f;
  void* trace;
  void* F;
  void* D;
};

struct EighAdjointArgs {
  int64_t batch;
  int32_t n;
  const void* w;
  const void* V;
  const void* gw;
  const void* gV;
  void* gA;
};

// A function h of the diagonal of Cholesky factors, numbered as in abi.h.
enum Chart { kFactor = 0, kLogDiagonal = 1, kPowerDiagonal = 2 };

struct CholeskyArgs {
  int64_t batch;
  int32_t n;
  int32_t symmetrize;
  const void* A;
  int32_t chart;
  double exponent;
  void* L;
  void* X;
  int32_t* info;
  double tolerance;
  int32_t* found;
};

struct CholeskyAdjointArgs {
  int64_t batch;
  int32_t n;
  int32_t chart;
  double exponent;
  const void* L;
  const void* G;
  void* gA;
};

struct FromLogArgs {
  int64_t batch;
  int32_t n;
  const void* X;
  void* A;
};

struct FromLogAdjointArgs {
  int64_t batch;
  int32_t n;
  const void* X;
  const void* G;
  void* gX;
};

struct CholeskyDistanceArgs {
  int64_t batch;
  int32_t n;
  const void* P;
  const void* Q;
  double a;
  const void* weight;  // (n), square roots
  void* value;
  void* L;
  void* K;
  double tolerance;
  int32_t* found;
};

struct CholeskyDistanceAdjointArgs {
  int64_t batch;
  int32_t n;
  double a;
  const void* weight;
  const void* value;
  const void* L;
  const void* K;
  const void* g;
  void* gP;
  void* gQ;
};

struct InspectArgs {
  int64_t batch;
  int32_t n;
  const void* A;
  double tolerance;
  int32_t* found;
};

struct CongruenceArgs {
  int64_t batch;
  int32_t n;
  const void* L;
  int64_t L_repeat;
  const void* X;
  void* Y;
};

struct PencilArgs {
  int64_t batch;
  int32_t n;
  const void* P;
  int64_t P_repeat;
  const void* Q;
  int64_t Q_count;
  double alpha, beta;
  int32_t root;
  void* value;
  void* packed;
  double tolerance;
  int32_t* found;
};

struct PencilAdjointArgs {
  int64_t batch;
  int32_t n;
  double alpha, beta;
  int32_t root;
  const void* packed;
  const void* g;
  void* gP;
  void* gQ;
};

// For each block the sums over its lanes' matrices that a step of the Karcher mean
// needs: of weight log(C X C^T), lower triangle row by row, and of weight sqrt(1 + x^2)
// with 2x the logarithm of the condition number.
struct KarcherArgs {
  int64_t batch;
  int32_t n;
  const void* X;
  const void* C;  // (n, n)
  const void* weights;
  void* sums;     // karcher_sums(n) vectors a block
  int32_t* found;
};

constexpr size_t karcher_sums(int n) { return (size_t)n * (n + 1) / 2 + 1; }

// Rows that a thread takes at a time of products and transposes of matrices by themselves, and
// what rows of scratch memory are rounded up to, so that they hold whole registers.
constexpr int kStrip = 48;
constexpr int kRound = 16;

enum Triangle { kNoTriangle = 0, kUpperTriangle = 1, kLowerTriangle = 2 };

// C = A B + add, rows x columns, over strips of rows. Element (i, k) of A is
// A[i * a_row + k * a_inner], one of the two being 1; rows of B hold whole registers.
struct MultiplyArgs {
  int32_t rows, columns, inner;
  const void* A;
  int64_t a_row, a_inner;
  const void* B;
  int64_t b_row;
  void* C;
  int64_t c_row;
  const void* add;  // or null
  int64_t add_row;
  int32_t a_triangle, b_triangle;  // where the other elements are 0
  int32_t upper;                   // only the upper triangle of C is wanted
  int32_t identity;                // add the identity, too
};

// C = A^T, with zeros up to whole registers. Rows of A hold whole registers.
struct TransposeArgs {
  int32_t rows, columns;  // of A
  const void* A;
  int64_t a_row;
  void* C;
  int64_t c_row;
};

// The lower triangle of C, n x n, becomes the upper one's transpose.
struct MirrorArgs {
  int32_t rows;
  void* C;
  int64_t c_row;
};

// H = (A + A^T)/2, n x n. For each strip of rows the largest |entry| and the largest difference
// of one from its transpose, and a number that is 0 unless an entry is not finite.
struct SymmetricPartArgs {
  int32_t rows;
  const void* A;
  void* H;
  int64_t h_row;
  double* told;  // three a strip
};

// M <- K o M, K_ij = f[w_i, w_j], on the upper triangle. Rows of M hold whole registers, and so
// does w. `table` of f is one exponent, or K.
struct DifferencesArgs {
  int32_t rows;
  const void* w;
  FunctionArgs f;
  void* M;
  int64_t m_row;
};

// T = -(S with half its diagonal)^-1 of the upper triangle of S, n x n in rows of `row`, whole
// registers, with zeros below the diagonal. `scratch`: n * row numbers.
struct InvertFactorArgs {
  int32_t n;
  const void* S;
  void* T;
  int64_t row;
};

// x = the n (n + 1)/2 numbers of the lower triangles of matrices X, row by row, or with
// `symmetric` of X + X^T with the diagonal of X; in rows of x_row, with zeros up to it. And back:
// X with x below its diagonal and, with `symmetric`, above.
struct PackArgs {
  int32_t rows, n, symmetric;
  const void* X;
  void* x;
  int64_t x_row;
};
struct UnpackArgs {
  int32_t rows, n, symmetric;
  const void* x;
  int64_t x_row;
  void* X;
};

// value = tr(W L L^T) with the lower triangles of W and of L, but for exp on its diagonal, as
// n (n + 1)/2 numbers w and z; its derivatives for w and z.
struct FactorTraceArgs {
  int64_t batch;
  int32_t n;
  const void* z;
  const void* w;
  void* value;
  void* of_z;
  void* of_w;
};

// Work on the blocks [first, last), with `scratch` of at least
// scratch_bytes(n), aligned to 64.
template <class Args>
using Kernel = void (*)(const Args&, int64_t first, int64_t last, void* scratch);

struct TypedKernels {
  int lanes;
  Kernel<SpectralArgs> spectral;
  Kernel<SpectralArgs> accurate;
  Kernel<FrechetArgs> frechet;
  Kernel<ComposeArgs> compose;
  Kernel<CarryArgs> carry;
  Kernel<CarryAdjointArgs> carry_adjoint;
  Kernel<CongruenceTraceArgs> congruence_trace;
  Kernel<EighAdjointArgs> eigh_adjoint;
  Kernel<CholeskyArgs> cholesky;
  Kernel<CholeskyAdjointArgs> cholesky_adjoint;
  Kernel<FromLogArgs> from_log;
  Kernel<FromLogAdjointArgs> from_log_adjoint;
  Kernel<CholeskyDistanceArgs> cholesky_distance;
  Kernel<CholeskyDistanceAdjointArgs> cholesky_distance_adjoint;
  Kernel<InspectArgs> inspect;
  Kernel<CongruenceArgs> congruence;
  Kernel<PencilArgs> pencil;
  Kernel<PencilAdjointArgs> pencil_adjoint;
  Kernel<KarcherArgs> karcher;
  Kernel<MultiplyArgs> multiply;
  Kernel<TransposeArgs> transpose;
  Kernel<MirrorArgs> mirror;
  Kernel<SymmetricPartArgs> symmetric_part;
  Kernel<DifferencesArgs> differences;
  Kernel<InvertFactorArgs> invert_factor;
  Kernel<PackArgs> pack;
  Kernel<UnpackArgs> unpack;
  Kernel<FactorTraceArgs> factor_trace;
};

struct Kernels {
  const char* name;
  size_t (*scratch_bytes)(int n);
  // Blocks that the spectral kernel takes at a time; ranges begin at multiples of it.
  int (*group)(int n);
  TypedKernels typed[2];  // LK_FLOAT32, LK_FLOAT64
};

}  // namespace lk
