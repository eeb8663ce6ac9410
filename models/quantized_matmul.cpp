#include "models/quantized_matmul.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"
#include "core/simd.h"
#include "models/matmul.h"

namespace retort {
namespace {

// oneDNN's kernel of one tile: C [panel, panel] (+)= A [panel, depth] B [depth, panel]. B is the frozen matrix, packed:
// 128 KiB, so that a core's second-level cache holds it while all tokens pass.
constexpr int64_t panel = 64, depth = 512;
/// Up to so many tokens are not worth a tile.
constexpr int64_t few = 16;
// Floats of the frozen matrix that exist at a moment: few enough for the third-level cache, enough for every thread.
constexpr int64_t least_scratch = int64_t{1} << 20, scratch_per_thread = int64_t{1} << 18;

int64_t scratch_floats() { return std::max(least_scratch, scratch_per_thread * at::get_num_threads()); }
int64_t parts(int64_t size, int64_t part) { return (size + part - 1) / part; }

/// The tile kernel needs AVX-512; elsewhere BLAS multiplies larger tiles.
bool has_tile_kernel(const at::Tensor& x) {
  static const bool avx512 = at::get_cpu_capability() == "AVX512" && at::globalContext().userEnabledMkldnn();
  return avx512 && x.is_cpu() && x.scalar_type() == at::kFloat;
}

/// A matrix with contiguous rows.
struct Rows {
  float* data;
  int64_t stride;
  explicit Rows(const at::Tensor& x) : data(x.data_ptr<float>()), stride(x.size(0) > 1 ? x.stride(0) : x.size(1)) {}
  float* at(int64_t row, int64_t column) const { return data + row * stride + column; }
};

/// C [m, n] = A B, or C += A B: A [m, k], B [k, n] packed. oneDNN compiles a kernel for every shape, so tokens, whose
/// number differs from batch to batch, are cut into powers of two.
void multiply(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_stride, const float* b, float* c,
              int64_t c_stride, bool add) {
  for (int64_t piece = panel; m > 0; piece /= 2)
    for (; m >= piece; m -= piece, a += piece * a_stride, c += piece * c_stride)
      at::native::cpublas::brgemm(piece, n, k, a_stride, panel, c_stride, add, a, b, c, false);
}

using Floats = float [[gnu::vector_size(64)]];
using Ints = int32_t [[gnu::vector_size(64)]];

/// Exchanges the off-diagonal squares of `step` x `step` of rows that are `step` apart.
template <int step>
RETORT_INLINE void exchange(Floats* rows) {
  Ints upper, lower;
  for (int j = 0; j < 16; ++j) {
    upper[j] = j & step ? j - step + 16 : j;
    lower[j] = j & step ? j + 16 : j + step;
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i)
    if (!(i & step)) {
      const Floats a = rows[i], b = rows[i + step];
      rows[i] = __builtin_shuffle(a, b, upper);
      rows[i + step] = __builtin_shuffle(a, b, lower);
    }
}

/// out[j][i] = in[i][j] for 16 rows of `n` columns that lie `depth` apart; rows of `out` lie `panel` apart.
RETORT_SIMD void transpose(const float* in, int64_t n, float* out) {
  int64_t j = 0;
  for (; j + 16 <= n; j += 16) {
    Floats rows[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) std::memcpy(&rows[i], in + i * depth + j, sizeof rows[i]);
    exchange<1>(rows);
    exchange<2>(rows);
    exchange<4>(rows);
    exchange<8>(rows);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) std::memcpy(out + (j + i) * panel, &rows[i], sizeof rows[i]);
  }
  for (; j < n; ++j)
    for (int i = 0; i < 16; ++i) out[j * panel + i] = in[i * depth + j];
}

/// Up to `panel` rows from `row`, columns [begin, end), with the columns as rows of `out`.
void pack_transposed(const QuantizedTensor& w, int64_t row, int64_t rows, int64_t begin, int64_t end, float* out) {
  alignas(64) std::array<float, 16 * depth> sixteen;
  for (int64_t i = 0; i < rows; i += 16) {
    if (rows - i < 16) sixteen.fill(0);
    for (int64_t r = 0; r < std::min<int64_t>(16, rows - i); ++r)
      w.to_floats(row + i + r, begin, end, sixteen.data() + r * depth);
    transpose(sixteen.data(), end - begin, out + i);
  }
}

void forward(const Rows& x, int64_t tokens, const QuantizedTensor& w, const Rows& y) {
  const int64_t rows = w.rows(), columns = w.columns(), chunks = parts(columns, depth), blocks = parts(tokens, panel);
  const int64_t panels_at_once =
      std::clamp<int64_t>(scratch_floats() / (chunks * depth * panel), 1, parts(rows, panel));
  const at::Tensor scratch = at::empty({panels_at_once * chunks * depth * panel}, at::kFloat);
  auto* tiles = scratch.data_ptr<float>();
  for (int64_t first = 0; first < rows; first += panels_at_once * panel) {
    const int64_t panels = std::min(panels_at_once, parts(rows - first, panel));
    at::parallel_for(0, panels * chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = first + i / chunks * panel, column = i % chunks * depth;
        pack_transposed(w, row, std::min(panel, rows - row), column, std::min(column + depth, columns),
                        tiles + i * depth * panel);
      }
    });
    at::parallel_for(0, panels * blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t p = i / blocks, row = first + p * panel, token = i % blocks * panel;
        for (int64_t c = 0; c < chunks; ++c)
          multiply(std::min(panel, tokens - token), std::min(panel, rows - row), std::min(depth, columns - c * depth),
                   x.at(token, c * depth), x.stride, tiles + (p * chunks + c) * depth * panel, y.at(token, row),
                   y.stride, c > 0);
      }
    });
  }
}

/// sums[t] += w · x[t] over `n` columns, rows of x `stride` apart.
template <int tokens>
RETORT_INLINE void add_dots(const float* w, int64_t n, const float* x, int64_t stride, float* sums) {
  // Several sums at a time, so that no addition waits for the one before.
  constexpr int lanes = 16, parts = tokens == 1 ? 4 : 1;
  Floats total[tokens * parts] = {};
  int64_t j = 0;
  for (; j + lanes * parts <= n; j += lanes * parts) {
    for (int p = 0; p < parts; ++p) {
      Floats weights, values;
      std::memcpy(&weights, w + j + p * lanes, sizeof weights);
      for (int t = 0; t < tokens; ++t) {
        std::memcpy(&values, x + t * stride + j + p * lanes, sizeof values);
        total[t * parts + p] += weights * values;
      }
    }
  }
  for (int t = 0; t < tokens; ++t) {
    for (int p = 1; p < parts; ++p) total[t * parts] += total[t * parts + p];
    for (int lane = 0; lane < lanes; ++lane) sums[t] += total[t * parts][lane];
    for (int64_t i = j; i < n; ++i) sums[t] += w[i] * x[t * stride + i];
  }
}

RETORT_SIMD void add_dots(const float* w, int64_t n, const float* x, int64_t stride, int64_t tokens, float* sums) {
  int64_t t = 0;
  for (; t + 4 <= tokens; t += 4) add_dots<4>(w, n, x + t * stride, stride, sums + t);
  for (; t + 2 <= tokens; t += 2) add_dots<2>(w, n, x + t * stride, stride, sums + t);
  for (; t < tokens; ++t) add_dots<1>(w, n, x + t * stride, stride, sums + t);
}

/// Few tokens, as in generation: what costs is decoding, so rows go from the decoder straight into dot products.
void forward_few(const Rows& x, int64_t tokens, const QuantizedTensor& w, const Rows& y) {
  const int64_t columns = w.columns();
  at::parallel_for(0, w.rows(), 16, [&](int64_t first, int64_t last) {
    alignas(64) std::array<float, depth> floats;
    for (int64_t row = first; row < last; ++row) {
      std::array<float, few> sums = {};
      for (int64_t begin = 0; begin < columns; begin += depth) {
        const int64_t end = std::min(begin + depth, columns);
        w.to_floats(row, begin, end, floats.data());
        add_dots(floats.data(), end - begin, x.at(0, begin), x.stride, tokens, sums.data());
      }
      for (int64_t t = 0; t < tokens; ++t) *y.at(t, row) = sums[static_cast<size_t>(t)];
    }
  });
}

/// Rows that are summed at a time: a function of the shape alone, so that the number of threads changes no bit.
int64_t rows_a_chunk(int64_t columns) {
  return std::clamp<int64_t>(least_scratch / (parts(columns, panel) * panel) / 16 * 16, 16, depth);
}

/// One row's columns [begin, end), begin a multiple of `panel`, to its place in each panel; panels lie `apart`.
void pack(const QuantizedTensor& w, int64_t row, int64_t begin, int64_t end, float* out, int64_t apart) {
  alignas(64) std::array<float, depth> floats;
  w.to_floats(row, begin, end, floats.data());
  for (int64_t i = 0; i < end - begin; i += panel, out += apart)
    std::memcpy(out, floats.data() + i, static_cast<size_t>(std::min(panel, end - begin - i)) * sizeof(float));
}

void backward(const Rows& dy, int64_t tokens, const QuantizedTensor& w, const Rows& dx, bool add) {
  const int64_t rows = w.rows(), columns = w.columns(), panels = parts(columns, panel), pieces = parts(columns, depth);
  const int64_t chunk = rows_a_chunk(columns), blocks = parts(tokens, panel), tile = chunk * panel;
  const int64_t chunks_at_once = std::clamp<int64_t>(scratch_floats() / (panels * tile), 1, parts(rows, chunk));
  const at::Tensor scratch = at::empty({chunks_at_once * panels * tile}, at::kFloat);
  auto* tiles = scratch.data_ptr<float>();
  for (int64_t first = 0; first < rows; first += chunks_at_once * chunk) {
    const int64_t last = std::min(first + chunks_at_once * chunk, rows);
    at::parallel_for(0, (last - first) * pieces, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / pieces, column = i % pieces * depth;
        pack(w, first + row, column, std::min(column + depth, columns),
             tiles + (row / chunk * panels + column / panel) * tile + row % chunk * panel, tile);
      }
    });
    at::parallel_for(0, panels * blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t p = i / blocks, column = p * panel, token = i % blocks * panel;
        for (int64_t row = first, g = 0; row < last; row += chunk, ++g)
          multiply(std::min(panel, tokens - token), std::min(panel, columns - column), std::min(chunk, last - row),
                   dy.at(token, row), dy.stride, tiles + (g * panels + p) * tile, dx.at(token, column), dx.stride,
                   add || row > 0);
      }
    });
  }
}

/// Rows of a dense tile; on a device of 32 MiB, which cuBLAS multiplies as fast as the whole.
int64_t rows_at_once(int64_t columns, at::ScalarType dtype, at::Device device) {
  const int64_t floats =
      device.is_cpu() ? least_scratch : (int64_t{32} << 20) / static_cast<int64_t>(c10::elementSize(dtype));
  return std::max(panel, floats / columns / panel * panel);
}

/// each(begin, end, rows [begin, end) of W in the type and on the device of `like`); they are dequantized on `where`.
template <typename Weight, typename Each>
void for_tiles(const Weight& w, const at::Tensor& like, at::Device where, const Each& each) {
  const int64_t rows = w.rows(), step = std::min(rows, rows_at_once(w.columns(), like.scalar_type(), like.device()));
  const at::Tensor scratch = at::empty({step, w.columns()}, like.options().device(where));
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t end = std::min(begin + step, rows);
    const at::Tensor tile = scratch.slice(0, 0, end - begin);
    w.dequantize_rows(begin, end, tile);
    each(begin, end, tile.to(like.device()));
  }
}

template <typename Weight>
void forward_by_tiles(const at::Tensor& x, const Weight& w, at::Device where, const at::Tensor& y) {
  for_tiles(w, x, where,
            [&](int64_t begin, int64_t end, const at::Tensor& tile) { matmul(x, tile.t(), y.slice(1, begin, end)); });
}

template <typename Weight>
void backward_by_tiles(const at::Tensor& dy, const Weight& w, at::Device where, const at::Tensor& dx, bool add) {
  for_tiles(w, dy, where, [&](int64_t begin, int64_t end, const at::Tensor& tile) {
    matmul(dy.slice(1, begin, end), tile, dx, add || begin > 0);
  });
}

template <typename Weight>
void check(const at::Tensor& tokens_by_columns, const Weight& w, const at::Tensor& tokens_by_rows) {
  const at::Tensor &a = tokens_by_columns, &b = tokens_by_rows;
  if (a.dim() != 2 || b.dim() != 2 || a.size(1) != w.columns() || b.size(1) != w.rows() || a.size(0) != b.size(0) ||
      a.scalar_type() != b.scalar_type() || a.device() != b.device() || (a.size(1) > 1 && a.stride(1) != 1) ||
      (b.size(1) > 1 && b.stride(1) != 1))
    fail(Exit::internal, "a product of a weight [{}, {}] with {} and {}", w.rows(), w.columns(), c10::str(a.sizes()),
         c10::str(b.sizes()));
}

}  // namespace

void matmul_transposed(const at::Tensor& x, const QuantizedTensor& w, const at::Tensor& y) {
  check(x, w, y);
  w.check_holds_weights();
  if (x.size(0) <= few && x.is_cpu() && x.scalar_type() == at::kFloat)
    return forward_few(Rows(x), x.size(0), w, Rows(y));
  if (has_tile_kernel(x)) return forward(Rows(x), x.size(0), w, Rows(y));
  forward_by_tiles(x, w, at::kCPU, y);
}

void matmul(const at::Tensor& dy, const QuantizedTensor& w, const at::Tensor& dx, bool add) {
  check(dx, w, dy);
  w.check_holds_weights();
  if (has_tile_kernel(dy)) return backward(Rows(dy), dy.size(0), w, Rows(dx), add);
  backward_by_tiles(dy, w, at::kCPU, dx, add);
}

void matmul_transposed(const at::Tensor& x, const DeviceWeight& w, const at::Tensor& y) {
  check(x, w, y);
  if (w.multiplies(x)) return w.multiply(x, y);
  forward_by_tiles(x, w, w.device(), y);
}

void matmul(const at::Tensor& dy, const DeviceWeight& w, const at::Tensor& dx, bool add) {
  check(dx, w, dy);
  backward_by_tiles(dy, w, w.device(), dx, add);
}

int64_t tile_bytes(int64_t columns, at::ScalarType dtype, at::Device device) {
  const auto bytes = static_cast<int64_t>(c10::elementSize(dtype));
  if (!device.is_cpu()) return rows_at_once(columns, dtype, device) * columns * bytes;
  return std::max(scratch_floats(), parts(columns, depth) * depth * panel) * bytes;
}

}  // namespace retort
