// Eigenvalues and eigenvectors of symmetric tridiagonal matrices: implicit QL
// with Wilkinson's shift, every lane in its own window.
//
// A sweep chases a bulge through rows l .. m. All lanes work on the same l, but
// each starts at its own m (the first row from l on that has split off): a
// lane started lower would meet a zero off-diagonal entry, lose its shift and
// stall. Lanes that are not taking part rotate by the identity.
//
// The recurrence of a sweep is one long chain of dependent operations, so G
// blocks run through it side by side. The rotations are written down and
// applied to the eigenvectors later, many sweeps to one panel of columns.
#pragma once

#include "block.hpp"

namespace lk {
namespace LK_ISA {

// Sweeps spent on one eigenvalue before a lane is given up.
constexpr int kSweepLimit = 60;
constexpr int kMaxGroup = 4;

struct Sweep {
  int l, m, first;           // rotations of rows i, i+1 for i = m-1 .. l
  bool active[kMaxGroup];    // blocks that have a lane taking part
};

// Rotations that wait to be applied: cosine and sine in turn.
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

template <class T, int C>
LK_INLINE void rotate_columns(Vec<T>* Z, int ld, const Vec<T>* rotations, const Sweep* sweeps,
                              int count, int block) {
  using V = Vec<T>;
  for (int s = 0; s < count; ++s) {
    if (!sweeps[s].active[block]) continue;
    const V* r = rotations + 2 * sweeps[s].first;
    V* row = Z + sweeps[s].m * ld;
    V x[C];
    for (int j = 0; j < C; ++j) x[j] = row[j];
    for (int i = sweeps[s].m - 1; i >= sweeps[s].l; --i) {
      V c = r[0], sn = r[1];
      r += 2;
      V* above = row - ld;
      for (int j = 0; j < C; ++j) {
        V y = above[j];
        row[j] = fma(c, x[j], sn * y);
        x[j] = fnma(sn, x[j], c * y);
      }
      row = above;
    }
    for (int j = 0; j < C; ++j) row[j] = x[j];
  }
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

// What a lane carries from one rotation of a sweep to the next.
template <class T>
struct Bulge {
  Vec<T> s, c, p, g;
};

// One sweep over G blocks, i = top-1 .. l. With `uniform` every active lane
// has m = top, so that nobody joins on the way.
template <class T, int G, bool vectors, bool uniform>
LK_INLINE void chase(Tridiagonal<T>* t, int l, int top, const Mask<T>* m, Mask<T>* active,
                     Bulge<T>* bulge, int first) {
  using V = Vec<T>;
  using M = Mask<T>;
  const V tiny = set(Simd<T>::negligible_square);
  const V one = set(T(1));
  Bulge<T> k[G];
  M before[G];
  for (int b = 0; b < G; ++b) {
    k[b] = bulge[b];
    before[b] = M{};
  }
  for (int i = top - 1; i >= l; --i) {
    V f[G], h[G], x[G];
    M run[G], lost[G];
    M any_lost{};
    for (int b = 0; b < G; ++b) {
      V e = t[b].e[i];
      run[b] = uniform ? active[b] : (M)(active[b] & (m[b] > i));
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
        V* d = t[b].d + i + 1;
        *d = select(lost[b], *d - k[b].p, *d);
        if (i + 1 < top) t[b].e[i + 1] = select(lost[b] & before[b], V{}, t[b].e[i + 1]);
        active[b] &= ~lost[b];
        run[b] &= ~lost[b];
      }
    }
    for (int b = 0; b < G; ++b) {
      V inverse = rsqrt(max(x[b], tiny));
      V r = x[b] * inverse;
      V s = f[b] * inverse;
      V c = k[b].g * inverse;
      V d1 = t[b].d[i + 1];
      V g = d1 - k[b].p;
      V r2 = fma(t[b].d[i] - g, s, T(2) * (c * h[b]));
      V p = s * r2;
      if (i + 1 < top) t[b].e[i + 1] = select(before[b], r, t[b].e[i + 1]);
      t[b].d[i + 1] = select(run[b], g + p, d1);
      g = fma(c, r2, -h[b]);
      if (vectors) {
        V* rotation = t[b].rotations + 2 * (first + top - 1 - i);
        rotation[0] = select(run[b], c, one);
        rotation[1] = select(run[b], s, V{});
      }
      if (uniform) {
        k[b] = {s, c, p, g};
      } else {
        k[b].s = select(run[b], s, k[b].s);
        k[b].c = select(run[b], c, k[b].c);
        k[b].p = select(run[b], p, k[b].p);
        k[b].g = select(run[b], g, k[b].g);
      }
      before[b] = run[b];
    }
  }
  for (int b = 0; b < G; ++b) bulge[b] = k[b];
}

// d becomes the eigenvalues (in no order), rows of Z times Z the eigenvectors.
// failed[b] is, per lane, 0 or 1 + the index of an eigenvalue that did not
// converge.
template <class T, int G, bool vectors>
static void implicit_ql(Tridiagonal<T>* t, int n, Sweep* sweeps, Mask<T>* failed) {
  using V = Vec<T>;
  using M = Mask<T>;
  const V unit = set(Simd<T>::eps / 2);
  const V floor = set(Simd<T>::negligible);
  for (int b = 0; b < G; ++b) failed[b] = M{};
  int used = 0, recorded = 0;
  auto flush = [&] {
    for (int b = 0; b < G; ++b)
      apply_rotations<T>(t[b].Z, n, t[b].rotations, sweeps, recorded, b);
    used = recorded = 0;
  };

  for (int l = 0; l + 1 < n; ++l) {
    M m[G], active[G];
    V end[G];  // d at row m
    int top = n - 1;
    bool uniform = false;
    for (int sweep = 0;; ++sweep) {
      M working{};
      if (uniform && sweep % 4 != 0) {
        // Splits further down may wait; has row l split off?
        for (int b = 0; b < G; ++b) {
          V size = fma(unit, abs(t[b].d[l]) + abs(t[b].d[l + 1]), floor);
          M small = (M)(abs(t[b].e[l]) <= size);
          t[b].e[l] = select(small, V{}, t[b].e[l]);
          active[b] &= ~small;
          end[b] = t[b].d[top];
          working |= active[b];
        }
        if (!any(working)) break;
      } else {
        for (int b = 0; b < G; ++b) {
          M at = M{} + (n - 1);
          V below = t[b].d[n - 1], size_below = abs(below);
          V last = below;
          for (int i = n - 2; i >= l; --i) {
            V di = t[b].d[i], size = abs(di);
            M small = (M)(abs(t[b].e[i]) <= fma(unit, size + size_below, floor));
            t[b].e[i] = select(small, V{}, t[b].e[i]);
            at = select(small, M{} + i, at);
            last = select(small, di, last);
            size_below = size;
          }
          m[b] = at;
          end[b] = last;
          active[b] = (M)(at != l);
          working |= active[b];
        }
        if (!any(working)) break;
        for (top = n - 1; top > l + 1; --top) {
          M reach{};
          for (int b = 0; b < G; ++b) reach |= active[b] & (M)(m[b] >= top);
          if (any(reach)) break;
        }
        M differ{};
        for (int b = 0; b < G; ++b) differ |= active[b] & (M)(m[b] != top);
        uniform = !any(differ);
      }
      if (sweep == kSweepLimit) {
        for (int b = 0; b < G; ++b) failed[b] = select(active[b], M{} + (l + 1), failed[b]);
        break;
      }

      if (vectors && used + top - l > rotation_capacity(n)) flush();
      Bulge<T> bulge[G];
      M started[G];
      for (int b = 0; b < G; ++b) {
        started[b] = active[b];
        V dl = t[b].d[l];
        V el = select(active[b], t[b].e[l], set(T(1)));
        V g = (t[b].d[l + 1] - dl) / (T(2) * el);
        V r = sqrt(fma(g, g, set(T(1))));
        bulge[b].g = (end[b] - dl) + el / (g + copysign(r, g));
        bulge[b].s = bulge[b].c = set(T(1));
        bulge[b].p = V{};
      }
      if (uniform)
        chase<T, G, vectors, true>(t, l, top, m, active, bulge, used);
      else
        chase<T, G, vectors, false>(t, l, top, m, active, bulge, used);
      for (int b = 0; b < G; ++b) {
        t[b].d[l] = select(active[b], t[b].d[l] - bulge[b].p, t[b].d[l]);
        t[b].e[l] = select(active[b], bulge[b].g, t[b].e[l]);
      }
      if (vectors) {
        Sweep& record = sweeps[recorded++];
        record = {l, top, used, {}};
        for (int b = 0; b < G; ++b) record.active[b] = any(started[b]);
        used += top - l;
      }
      // A lane that lost its sweep has a new split, which a full scan finds.
      M lost{};
      for (int b = 0; b < G; ++b) lost |= started[b] & ~active[b];
      if (any(lost)) uniform = false;
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
