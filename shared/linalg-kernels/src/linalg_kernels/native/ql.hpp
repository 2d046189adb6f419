// Eigenvalues and eigenvectors of symmetric tridiagonal matrices: implicit QL
// with Wilkinson's shift, every lane in its own window.
//
// A sweep chases a bulge from row m up to row l: l is the first row that has
// not split off yet, m the next one that has. Both differ from lane to lane. A
// lane that started below its own m would meet a zero off-diagonal entry, lose
// its shift and stall; lanes that waited for each other at the same l would
// need the sweeps of the slowest for every eigenvalue. Outside its window a
// lane rotates by the identity.
//
// The recurrence of a sweep is one long chain of dependent operations, so G
// blocks run through it side by side. The rotations are written down and
// applied to the eigenvectors later, many sweeps to one panel of columns, each
// as three shears,
//
//     [c s; -s c] = [1 0; -t 1] [1 s; 0 1] [1 0; -t 1],  t = tan(angle / 2),
//
// of one fused product each, where the plain form takes four operations.
#pragma once

#include "block.hpp"

namespace lk {
namespace LK_ISA {

// Sweeps before a block is given up, for each eigenvalue.
constexpr int kSweepLimit = 30;
constexpr int kMaxGroup = 4;

struct Sweep {
  int l, m, first;           // rotations of rows i, i+1 for i = m-1 .. l, from `first` on
  bool active[kMaxGroup];    // blocks that have a lane taking part
};

// Rotations that wait to be applied: tangent of the half angle and sine in turn.
constexpr int rotation_capacity(int n) { return 12 * n; }
// Sweeps never outnumber rotations.
constexpr int sweep_capacity(int n) { return rotation_capacity(n); }

template <class T>
struct Tridiagonal {
  Vec<T>* d;
  Vec<T>* e;
  Vec<T>* Z;          // rows become eigenvectors
  Vec<T>* rotations;  // 2 * rotation_capacity(n)
};

// Rotation r of the rows x, partly done, and y above it: `done` leaves, x goes on.
template <class T, int C>
LK_INLINE void rotate_rows(const Vec<T>* r, Vec<T> (&x)[C], const Vec<T>* y, Vec<T>* done) {
  const Vec<T> t = r[0], s = r[1];
  for (int j = 0; j < C; ++j) {
    Vec<T> z = fnma(t, x[j], y[j]);
    Vec<T> w = fma(s, z, x[j]);
    done[j] = w;
    x[j] = fnma(t, w, z);
  }
}

template <class T, int C>
LK_INLINE void load_columns(const Vec<T>* row, Vec<T> (&x)[C]) {
  for (int j = 0; j < C; ++j) x[j] = row[j];
}
template <class T, int C>
LK_INLINE void store_columns(Vec<T>* row, const Vec<T> (&x)[C]) {
  for (int j = 0; j < C; ++j) row[j] = x[j];
}

// One sweep, from row m down to row l.
template <class T, int C>
LK_INLINE void one_sweep(Vec<T>* Z, int ld, const Sweep& a, const Vec<T>* rotations) {
  const Vec<T>* r = rotations + 2 * a.first;
  Vec<T> x[C];
  load_columns<T, C>(Z + a.m * ld, x);
  for (int i = a.m - 1; i >= a.l; --i, r += 2)
    rotate_rows<T, C>(r, x, Z + i * ld, Z + (i + 1) * ld);
  store_columns<T, C>(Z + a.l * ld, x);
}

// Two sweeps that begin at the same row, of which the second ends no lower: it
// follows one row behind the first, so that a row is read and written once.
template <class T, int C>
LK_INLINE void two_sweeps(Vec<T>* Z, int ld, const Sweep& a, const Sweep& b,
                          const Vec<T>* rotations) {
  const Vec<T>*r = rotations + 2 * a.first, *q = rotations + 2 * b.first;
  Vec<T> x[C], y[C], between[C];
  load_columns<T, C>(Z + a.m * ld, x);
  rotate_rows<T, C>(r, x, Z + (a.m - 1) * ld, y);
  r += 2;
  int i = a.m - 2;
  const int end = a.l > b.l - 1 ? a.l : b.l - 1;
  for (; i >= end; --i, r += 2, q += 2) {
    rotate_rows<T, C>(r, x, Z + i * ld, between);
    rotate_rows<T, C>(q, y, between, Z + (i + 2) * ld);
  }
  // x is row i + 1 in the first sweep, y row i + 2 in the second.
  if (a.l == b.l) {
    rotate_rows<T, C>(q, y, x, Z + (i + 2) * ld);
    store_columns<T, C>(Z + b.l * ld, y);
  } else {
    store_columns<T, C>(Z + (i + 2) * ld, y);
    for (; i >= a.l; --i, r += 2) rotate_rows<T, C>(r, x, Z + i * ld, Z + (i + 1) * ld);
    store_columns<T, C>(Z + a.l * ld, x);
  }
}

template <class T, int C>
LK_INLINE void rotate_columns(Vec<T>* Z, int ld, const Vec<T>* rotations, const Sweep* sweeps,
                              int count, int block) {
  const Sweep* waiting = nullptr;
  for (int s = 0; s < count; ++s) {
    const Sweep& next = sweeps[s];
    if (!next.active[block]) continue;
    if (waiting == nullptr) {
      waiting = &next;
    } else if (waiting->m == next.m) {
      two_sweeps<T, C>(Z, ld, *waiting, next, rotations);
      waiting = nullptr;
    } else {
      one_sweep<T, C>(Z, ld, *waiting, rotations);
      waiting = &next;
    }
  }
  if (waiting != nullptr) one_sweep<T, C>(Z, ld, *waiting, rotations);
}

template <class T>
static void apply_rotations(Vec<T>* Z, int n, const Vec<T>* rotations, const Sweep* sweeps,
                            int count, int block) {
  constexpr int C = kRegisters == 32 ? 8 : 4;
  const int ld = leading(n);
  int j = 0;
  for (; j + C <= n; j += C) rotate_columns<T, C>(Z + j, ld, rotations, sweeps, count, block);
  if (C == 8 && j + 4 <= n) {
    rotate_columns<T, 4>(Z + j, ld, rotations, sweeps, count, block);
    j += 4;
  }
  if (j + 2 <= n) {
    rotate_columns<T, 2>(Z + j, ld, rotations, sweeps, count, block);
    j += 2;
  }
  if (j < n) rotate_columns<T, 1>(Z + j, ld, rotations, sweeps, count, block);
}

// Where a block stands.
template <class T>
struct Window {
  Mask<T> l, m, active;
};

// What a lane carries from one rotation of a sweep to the next.
template <class T>
struct Bulge {
  Vec<T> s, c, p, g;
  Mask<T> before;  // lanes that ran in the rotation before
};

// Part of a sweep over G blocks: i = first .. last, downwards. `recorded` is
// the place of rotation i = first. With `whole` every active lane is inside
// its window all the way.
template <class T, int G, bool vectors, bool whole>
static void chase(Tridiagonal<T>* t, Window<T>* window, Bulge<T>* bulge, int first, int last,
                  int recorded) {
  using V = Vec<T>;
  using M = Mask<T>;
  const V tiny = set(Simd<T>::negligible_square);
  const V one = set(T(1));
  Bulge<T> k[G];
  for (int b = 0; b < G; ++b) k[b] = bulge[b];
  for (int i = first; i >= last; --i) {
    V f[G], h[G], x[G];
    M run[G], lost[G];
    M any_lost{};
    for (int b = 0; b < G; ++b) {
      const Window<T>& at = window[b];
      V e = t[b].e[i];
      run[b] = whole ? at.active : (M)(at.active & (at.m > i) & (at.l <= i));
      f[b] = k[b].s * e;
      h[b] = k[b].c * e;
      x[b] = fma(k[b].g, k[b].g, f[b] * f[b]);
      lost[b] = (M)(x[b] < tiny) & run[b];
      any_lost |= lost[b];
    }
    if (__builtin_expect(any(any_lost), 0)) {
      // Both components vanished: the matrix splits here, the lane's sweep
      // ends and the next one starts from the split.
      for (int b = 0; b < G; ++b) {
        V *d = t[b].d + i + 1, *e = t[b].e + i + 1;
        *d = select(lost[b], *d - k[b].p, *d);
        *e = select(lost[b] & k[b].before, V{}, *e);
        window[b].active &= ~lost[b];
        run[b] &= ~lost[b];
        k[b].before &= ~lost[b];
      }
    }
    for (int b = 0; b < G; ++b) {
      // With the sign of g, so that the cosine is not negative.
      V inverse = copysign(rsqrt(max(x[b], tiny)), k[b].g);
      V r = x[b] * inverse;
      V s = f[b] * inverse;
      V c = k[b].g * inverse;
      V e1 = t[b].e[i + 1], d1 = t[b].d[i + 1];
      V g = d1 - k[b].p;
      V r2 = fma(t[b].d[i] - g, s, T(2) * (c * h[b]));
      V p = s * r2;
      e1 = select(k[b].before, r, e1);
      d1 = select(run[b], g + p, d1);
      if (!whole) {
        M done = k[b].before & ~run[b];
        e1 = select(done, k[b].g, e1);
        d1 = select(done, g, d1);
      }
      t[b].e[i + 1] = e1;
      t[b].d[i + 1] = d1;
      g = fma(c, r2, -h[b]);
      if (vectors) {
        V* rotation = t[b].rotations + 2 * (recorded + first - i);
        rotation[0] = select(run[b], s / (one + c), V{});
        rotation[1] = select(run[b], s, V{});
      }
      if (whole) {
        k[b].s = s;
        k[b].c = c;
        k[b].p = p;
        k[b].g = g;
      } else {
        k[b].s = select(run[b], s, k[b].s);
        k[b].c = select(run[b], c, k[b].c);
        k[b].p = select(run[b], p, k[b].p);
        k[b].g = select(run[b], g, k[b].g);
      }
      k[b].before = run[b];
    }
  }
  for (int b = 0; b < G; ++b) bulge[b] = k[b];
}

// d becomes the eigenvalues (in no order), rows of Z times Z the eigenvectors.
// e has n entries, of which the last is scratch. failed[b] is, per lane, 0 or
// 1 + the index of an eigenvalue that did not converge.
template <class T, int G, bool vectors>
static void implicit_ql(Tridiagonal<T>* t, int n, Sweep* sweeps, Mask<T>* failed) {
  using V = Vec<T>;
  using M = Mask<T>;
  const V unit = set(Simd<T>::eps / 2), floor = set(Simd<T>::negligible), one = set(T(1));
  Window<T> window[G];
  for (int b = 0; b < G; ++b) {
    failed[b] = M{};
    t[b].e[n - 1] = V{};
  }
  int used = 0, recorded = 0;
  auto flush = [&] {
    for (int b = 0; b < G; ++b)
      apply_rotations<T>(t[b].Z, n, t[b].rotations, sweeps, recorded, b);
    used = recorded = 0;
  };

  int low = 0;  // every lane's l is at least this
  for (int sweep = 0; low + 1 < n; ++sweep) {
    // Flush what is negligible; find each lane's window and shift.
    Bulge<T> bulge[G];
    M working{};
    for (int b = 0; b < G; ++b) {
      const V *d = t[b].d;
      V* e = t[b].e;
      M m = M{} + (n - 1), from = M{} + (n - 1), to = from;
      V below = d[n - 1], size_below = abs(below), split = below;
      V el = one, dl = below, dl1 = below, end = below;
      for (int i = n - 2; i >= low; --i) {
        V di = d[i], size = abs(di), ei = e[i];
        M small = (M)(abs(ei) <= fma(unit, size + size_below, floor));
        e[i] = select(small, V{}, ei);
        split = select(small, di, split);
        m = select(small, M{} + i, m);
        from = select(small, from, M{} + i);
        to = select(small, to, m);
        end = select(small, end, split);
        el = select(small, el, ei);
        dl = select(small, dl, di);
        dl1 = select(small, dl1, below);
        below = di;
        size_below = size;
      }
      window[b].l = from;
      window[b].m = to;
      window[b].active = (M)(from < n - 1);
      working |= window[b].active;
      V g = (dl1 - dl) / (T(2) * el);
      V r = sqrt(fma(g, g, one));
      bulge[b].g = (end - dl) + el / (g + copysign(r, g));
      bulge[b].s = bulge[b].c = one;
      bulge[b].p = V{};
      bulge[b].before = M{};
    }
    if (!any(working)) break;
    if (sweep == kSweepLimit * n) {
      for (int b = 0; b < G; ++b) failed[b] = select(window[b].active, window[b].l + 1, M{});
      break;
    }

    // Rows that some lane, and that all active lanes, have in their windows.
    int top = n - 1, high = low;
    for (; low < n - 2; ++low) {
      M here{};
      for (int b = 0; b < G; ++b) here |= window[b].active & (M)(window[b].l <= low);
      if (any(here)) break;
    }
    for (; top > low + 1; --top) {
      M here{};
      for (int b = 0; b < G; ++b) here |= window[b].active & (M)(window[b].m >= top);
      if (any(here)) break;
    }
    M ragged{};
    for (int b = 0; b < G; ++b) ragged |= window[b].active & (M)(window[b].m != top);
    if (any(ragged)) {
      high = top;
    } else {
      for (high = low; high < top; ++high) {
        M beyond{};
        for (int b = 0; b < G; ++b) beyond |= window[b].active & (M)(window[b].l > high);
        if (!any(beyond)) break;
      }
    }

    if (vectors && used + top - low > rotation_capacity(n)) flush();
    M started[G];
    for (int b = 0; b < G; ++b) started[b] = window[b].active;
    if (high < top) chase<T, G, vectors, true>(t, window, bulge, top - 1, high, used);
    if (high > low)
      chase<T, G, vectors, false>(t, window, bulge, high - 1, low, used + top - high);
    for (int b = 0; b < G; ++b) {
      V *d = t[b].d + low, *e = t[b].e + low;
      *d = select(bulge[b].before, *d - bulge[b].p, *d);
      *e = select(bulge[b].before, bulge[b].g, *e);
    }
    if (vectors) {
      Sweep& record = sweeps[recorded++];
      record = {low, top, used, {}};
      for (int b = 0; b < G; ++b) record.active[b] = any(started[b]);
      used += top - low;
    }
  }
  if (vectors) flush();
}

// Ascending order, lane by lane: Batcher's merge exchange, which has the same
// comparisons for every lane. Rows of Z (if any) move along.
template <class T>
static void sort_eigenvalues(Vec<T>* d, Vec<T>* Z, int n) {
  using V = Vec<T>;
  const int ld = leading(n);
  int width = 1;
  while (width < n) width *= 2;
  for (int p = width / 2; p > 0; p /= 2) {
    int q = width / 2, r = 0, step = p;
    for (;;) {
      for (int i = 0; i + step < n; ++i) {
        if ((i & p) != r) continue;
        V a = d[i], b = d[i + step];
        auto swap = a > b;
        if (!any(swap)) continue;
        d[i] = select(swap, b, a);
        d[i + step] = select(swap, a, b);
        if (Z == nullptr) continue;
        V *x = Z + i * ld, *y = Z + (i + step) * ld;
        for (int j = 0; j < n; ++j) {
          V u = x[j], v = y[j];
          x[j] = select(swap, v, u);
          y[j] = select(swap, u, v);
        }
      }
      if (q == p) break;
      step = q - p;
      q /= 2;
      r = p;
    }
  }
}

}  // namespace LK_ISA
}  // namespace lk
