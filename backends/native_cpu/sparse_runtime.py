"""The C++ text of sparse matrices: how a kernel packs one from its mask, walks it, and how kept gradients are summed.

In: nothing. Out: `SPARSE`, which stands in the runtime where kernels walk lists, and `OUTER`, which stands behind kernels.
Order of sums: it depends on a matrix and its mask alone, not on the rows of a batch or on threads.
"""

from __future__ import annotations

from seqc.backends.native_cpu.parts import Part

SPARSE = Part("Sparse", "some turn Team", r"""
INLINE i64 total(mask x) {  // how many lanes hold
  i64 n = 0;
  for (int i = 0; i < W; ++i) n -= x[i];
  return n;
}

// A matrix as a product walks it. Panels of W or 2 W rows, each with the columns in which any of its rows keeps an element; or,
// where the panels would hold mostly zeros, every row by itself, with a lane for each row of the batch; or, where the panels
// would hold zeros and what is multiplied are spikes, every column by itself, of which the silent ones are skipped.
template <i64 rows, i64 columns, bool spikes = false>
struct Sparse {
  static constexpr i64 panels = padded(rows) / W, pairs = (panels + 1) / 2, most = 2 * pairs * columns;
  static constexpr i64 longest = std::max(padded(rows), spikes ? padded(columns) : columns);
  using place = std::conditional_t<((spikes ? longest : columns) <= 65536), std::uint16_t, std::uint32_t>;
  bool single, tall, by_columns;
  i64 from[longest + 1], next[longest + 1];
  place at[2 * most];
  alignas(64) real value[most * W];
  alignas(64) real lanes[4 * longest];

  // a vector of what is kept; turned: element (i, j) lies at j * stride + i, else at i * stride + j
  template <bool turned>
  static INLINE mask kept(const real* p, i64 stride, i64 first, i64 second) {
    const i64 left = turned ? rows - second : columns - second;
    return load<(turned ? rows : columns) % W == 0>(p + first * stride + second, left) != vec{};
  }

  // the columns, from the j-th on, in which the rows of panel c keep an element; counts the elements
  static INLINE mask any_of(const real* m, i64 stride, i64 c, i64 j, mask& elements) {
    mask any{};
    for (i64 i = c * W; i < std::min(rows, (c + 1) * W); ++i) {
      const mask here = kept<false>(m, stride, i, j);
      any |= here;
      elements += here;
    }
    return any;
  }

  template <bool turned>
  void pack(const real* p, const real* m, i64 stride) {
    mask elements{};
    i64 low = 0, high = 0;  // columns that panels of W and of 2 W rows would list
    for (i64 c = 0; c < panels; c += 2)
      for (i64 j = 0; j < columns; j += turned ? 1 : W) {
        mask a, b{};
        if (turned) {
          a = kept<true>(m, stride, j, c * W);
          if (c + 1 < panels) b = kept<true>(m, stride, j, (c + 1) * W);
          elements += a + b;
          low += some(a) + some(b), high += some(a | b);
        } else {
          a = any_of(m, stride, c, j, elements);
          if (c + 1 < panels) b = any_of(m, stride, c + 1, j, elements);
          low += total(a) + total(b), high += total(a | b);
        }
      }
    i64 count = 0;
    for (int i = 0; i < W; ++i) count -= elements[i];
    // what is loaded for each of them: positions, values, and the batch's rows
    tall = 7 * high < 6 * low;
    by_columns = spikes && 3 * count < W * low;
    single = !by_columns && 3 * count < std::min(6 * low, 7 * high);
    if (by_columns) return turned ? pack_along<true>(p, m, stride) : pack_across<false>(p, m, stride);
    if (single) return turned ? pack_across<true>(p, m, stride) : pack_along<false>(p, m, stride);
    return tall ? pack_panels<turned, 2>(p, m, stride) : pack_panels<turned, 1>(p, m, stride);
  }

  template <bool turned, int height>
  void pack_panels(const real* p, const real* m, i64 stride) {
    i64 n = 0;
    for (i64 c = 0; c * height < panels; ++c) {
      from[c] = n;
      const int here = int(std::min<i64>(height, panels - c * height));
      for (i64 j = 0; j < columns; j += turned ? 1 : W) {
        mask any{}, counted{};
        for (int k = 0; k < here; ++k)
          any |= turned ? kept<true>(m, stride, j, (c * height + k) * W) : any_of(m, stride, c * height + k, j, counted);
        if (!some(any)) continue;
        for (int k = 0; k < height; ++k) {
          const i64 i = (c * height + k) * W;
          real* to = value + (n * height + k) * W;
          if (turned) {
            store(to, k < here ? load<rows % W == 0>(p + j * stride + i, rows - i) : vec{});
            continue;
          }
          vec r[W];
          UNROLL for (int l = 0; l < W; ++l)
            r[l] = i + l < rows ? load<columns % W == 0>(p + (i + l) * stride + j, columns - j) : vec{};
          turn<W / 2>(r);
          UNROLL for (int l = 0; l < W; ++l)
            if (any[l]) {
              store(to, r[l]);
              to += height * W;
            }
        }
        for (int l = 0; l < (turned ? 1 : W); ++l)
          if (turned || any[l]) at[n++] = place(j + l);
      }
    }
    from[quotient(panels, height)] = n;
  }

  // a list for each position along which memory strides: of its neighbours that are kept
  template <bool turned>
  void pack_along(const real* p, const real* m, i64 stride) {
    constexpr i64 lists = turned ? columns : rows, others = turned ? rows : columns;
    i64 n = 0;
    for (i64 i = 0; i < lists; ++i) {
      from[i] = n;
      for (i64 j = 0; j < others; j += W) {
        const mask here = kept<turned>(m, stride, i, j);
        if (!some(here)) continue;
        for (int k = 0; k < W; ++k)
          if (here[k]) {
            value[n] = p[i * stride + j + k];
            at[n++] = place(j + k);
          }
      }
    }
    std::fill(from + lists, from + longest + 1, n);
  }

  // a list for each of the positions that are neighbours in memory
  template <bool turned>
  void pack_across(const real* p, const real* m, i64 stride) {
    constexpr i64 lists = turned ? rows : columns, others = turned ? columns : rows;
    std::fill_n(from, longest + 1, i64(0));
    const auto each = [&](const auto& visit) {
      for (i64 j = 0; j < others; ++j)
        for (i64 i = 0; i < lists; i += W) {
          const mask here = kept<turned>(m, stride, j, i);
          if (!some(here)) continue;
          for (int k = 0; k < W; ++k)
            if (here[k]) visit(i + k, j);
        }
    };
    each([&](i64 i, i64) { ++from[i + 1]; });
    for (i64 i = 0; i < longest; ++i) from[i + 1] += from[i];
    std::copy(from, from + longest + 1, next);
    each([&](i64 i, i64 j) {
      value[next[i]] = p[j * stride + i];
      at[next[i]++] = place(j);
    });
  }

  // what comes before a product of single rows: the batch's rows become lanes
  template <int w_B>
  INLINE void lay(const Team& team, const real* x, i64 x_row) {
    for (i64 j = team.from(columns); j < team.upto(columns); ++j)
      UNROLL for (int b = 0; b < w_B; ++b) lanes[4 * j + b] = x[b * x_row + j];
  }

  // y = matrix * x for w_B rows of the batch
  template <int w_B>
  void multiply(const Team& team, const real* __restrict x, i64 x_row, real* __restrict y, i64 y_row) {
    if (by_columns) return multiply_columns<w_B>(team, x, x_row, y, y_row);
    if (single) return multiply_rows<w_B>(team, y, y_row);
    return tall ? multiply_panels<w_B, 2, 1>(team, x, x_row, y, y_row) : multiply_panels<w_B, 1, 2>(team, x, x_row, y, y_row);
  }

  // chains: sums of every second column by themselves, where one would wait for the last addition
  template <int w_B, int height, int chains>
  void multiply_panels(const Team& team, const real* __restrict x, i64 x_row, real* __restrict y, i64 y_row) const {
    constexpr i64 count = quotient(panels, height);
    for (i64 c = team.from(count); c < team.upto(count); ++c) {
      vec r[chains][height][w_B]{};
      const auto add = [&](int chain, i64 n) __attribute__((always_inline)) {
        const real* const h = x + at[n];
        vec v[height];
        UNROLL for (int k = 0; k < height; ++k) v[k] = load(value + (n * height + k) * W);
        UNROLL for (int b = 0; b < w_B; ++b)
          UNROLL for (int k = 0; k < height; ++k) r[chain][k][b] += v[k] * h[b * x_row];
      };
      i64 n = from[c];
      const i64 end = from[c + 1];
      for (; n + 2 <= end; n += 2) add(0, n), add(chains - 1, n + 1);
      if (n < end) add(0, n);
      UNROLL for (int b = 0; b < w_B; ++b)
        for (int k = 0; k < height && c * height + k < panels; ++k)
          store(y + b * y_row + (c * height + k) * W, chains == 2 ? r[0][k][b] + r[chains - 1][k][b] : r[0][k][b]);
    }
  }

  template <int w_B>
  void multiply_rows(const Team& team, real* __restrict y, i64 y_row) const {
    typedef real four __attribute__((vector_size(4 * sizeof(real))));
    for (i64 i = team.from(panels) * W; i < team.upto(panels) * W; ++i) {
      four r[4]{};
      const auto add = [&](int k, i64 n) __attribute__((always_inline)) {
        four h;
        std::memcpy(&h, lanes + 4 * i64(at[n]), sizeof h);
        r[k] += value[n] * h;
      };
      i64 n = from[i];
      const i64 end = from[i + 1];
      for (; n + 4 <= end; n += 4) add(0, n), add(1, n + 1), add(2, n + 2), add(3, n + 3);
      for (; n < end; ++n) add(0, n);
      const four sum = (r[0] + r[1]) + (r[2] + r[3]);
      UNROLL for (int b = 0; b < w_B; ++b) y[b * y_row + i] = sum[b];
    }
  }

  // columns in rising order, so that leaving some of them out changes no number; a thread has rows of its own
  template <int w_B>
  void multiply_columns(const Team& team, const real* __restrict x, i64 x_row, real* __restrict y, i64 y_row) {
    typedef real four __attribute__((vector_size(4 * sizeof(real))));
    const i64 first = team.from(panels) * W, last = team.upto(panels) * W;
    std::fill(lanes + 4 * first, lanes + 4 * last, real(0));
    for (i64 c = 0; c < columns; c += W) {
      mask any{};
      UNROLL for (int b = 0; b < w_B; ++b) any |= load<columns % W == 0>(x + b * x_row + c, columns - c) != vec{};
      if (!some(any)) continue;
      for (i64 j = c; j < std::min(c + W, columns); ++j) {
        if (!any[j - c]) continue;
        four h{};
        UNROLL for (int b = 0; b < w_B; ++b) h[b] = x[b * x_row + j];
        const place *n = at + from[j], *end = at + from[j + 1];
        if (first > 0) n = std::lower_bound(n, end, first);
        for (; n < end && i64(*n) < last; ++n) {
          real* const r = lanes + 4 * i64(*n);
          four sum;
          std::memcpy(&sum, r, sizeof sum);
          sum += value[n - at] * h;
          std::memcpy(r, &sum, sizeof sum);
        }
      }
    }
    for (i64 i = first; i < last; ++i)
      UNROLL for (int b = 0; b < w_B; ++b) y[b * y_row + i] = lanes[4 * i + b];
  }
};
""")

OUTER_NEEDS = frozenset(("fold_rows", "transpose"))
OUTER = r"""
// out[h, i, j] = sum over n of left[n, h, i] * right[n, h, j], for the elements that are kept; the others stay as they are.
// Steps are taken some at a time, so that the columns of these lie in the second-level cache.
extern "C" int seqc_outer_kept(i64 threads, i64 count, i64 heads, i64 rows, i64 columns, const real* left, const real* right,
                               const real* kept, real* out) {
  constexpr i64 some_steps = 8 * W;
  const i64 height = padded(rows), width = padded(columns);
  std::unique_ptr<real[]> a(new (std::nothrow) real[height * some_steps + BYTES]);
  std::unique_ptr<real[]> b(new (std::nothrow) real[width * some_steps + BYTES]);
  std::unique_ptr<i64[]> from(new (std::nothrow) i64[rows + 1]);
  if (!a || !b || !from) return 1;
  for (i64 h = 0; h < heads; ++h) {
    const real* const m = kept + h * rows * columns;
    i64 n = 0;
    for (i64 i = 0; i < rows; ++i) {
      from[i] = n;
      for (i64 j = 0; j < columns; ++j) n += m[i * columns + j] != real(0);
    }
    from[rows] = n;
    std::unique_ptr<std::int32_t[]> at(new (std::nothrow) std::int32_t[n + 1]);
    std::unique_ptr<real[]> sum(new (std::nothrow) real[n + W]());
    if (!at || !sum) return 1;
    n = 0;
    for (i64 k = 0; k < rows * columns; ++k)
      if (m[k] != real(0)) at[n++] = std::int32_t(k % columns);
#pragma omp parallel num_threads(int(threads)) if (threads > 1)
    for (i64 first = 0; first < count; first += some_steps) {
      const i64 steps = std::min(some_steps, count - first);
      const auto columns_of = [&](const real* from, i64 size, real* to, i64 i) {
        const i64 here = std::min<i64>(W, size - i);
        transpose(from + (first * heads + h) * size + i, heads * size, to + i * some_steps, some_steps, steps, here);
        for (i64 k = i; k < i + here; ++k)
          for (i64 s = steps; s < some_steps; ++s) to[k * some_steps + s] = real(0);
      };
#pragma omp for schedule(static)
      for (i64 i = 0; i < height; i += W) columns_of(left, rows, a.get(), i);
#pragma omp for schedule(static)
      for (i64 j = 0; j < width; j += W) columns_of(right, columns, b.get(), j);
#pragma omp for schedule(dynamic, 8)
      for (i64 i = 0; i < rows; ++i)
        for (i64 k = from[i]; k < from[i + 1]; k += W) {
          const i64 here = std::min<i64>(W, from[i + 1] - k);
          const real* q[W];
          for (int l = 0; l < W; ++l) q[l] = b.get() + at[k + std::min<i64>(l, here - 1)] * some_steps;
          vec r[W]{};
          for (i64 s = 0; s < some_steps; s += W) {
            const vec v = load(a.get() + i * some_steps + s);
            UNROLL for (int l = 0; l < W; ++l) r[l] += v * load(q[l] + s);
          }
          fold_rows<false, W / 2>(r);
          for (int l = 0; l < here; ++l) sum[k + l] += r[0][l];
        }
    }
    for (i64 i = 0; i < rows; ++i)
      for (i64 k = from[i]; k < from[i + 1]; ++k) out[(h * rows + i) * columns + at[k]] = sum[k];
  }
  return 0;
}
"""
