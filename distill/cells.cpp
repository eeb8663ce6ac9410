#include "distill/cells.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/hash.h"
#include "core/rng.h"

namespace retort {
namespace {

constexpr int rounds = 12;
constexpr int64_t block = 2048;  // rows of one matrix product, which one thread computes: no sum depends on the threads

/// Rows [begin, end) in f32 and of length 1; those of length zero stay so.
at::Tensor directions(const at::Tensor& embedding, int64_t begin, int64_t end) {
  const at::Tensor rows = embedding.slice(0, begin, end).to(at::kCPU, at::kFloat);
  return rows / rows.norm(2, 1, true).clamp_min(1e-20);
}

/// Calls each(block's number, its first row, its directions) for all blocks, several at a time.
template <typename Each>
void for_blocks(const at::Tensor& embedding, int64_t rows, const Each& each) {
  at::parallel_for(0, (rows + block - 1) / block, 1, [&](int64_t first, int64_t last) {
    const at::NoGradGuard no_grad;
    for (int64_t b = first; b < last; ++b)
      each(b, b * block, directions(embedding, b * block, std::min(rows, (b + 1) * block)));
  });
}

/// `count` different rows, of length other than zero, as the first centres.
at::Tensor first_centres(const at::Tensor& embedding, int64_t known, int64_t count, uint64_t seed) {
  std::vector<int64_t> order(known);
  std::iota(order.begin(), order.end(), 0);
  Rng(seed).shuffle(std::span<int64_t>(order));
  std::vector<at::Tensor> centres;
  for (int64_t row : order) {
    if (static_cast<int64_t>(centres.size()) == count) break;
    const at::Tensor direction = directions(embedding, row, row + 1);
    if (direction.norm().item<double>() > 0.5) centres.push_back(direction);
  }
  if (static_cast<int64_t>(centres.size()) < count)
    fail(Exit::bad_input, "{} cells are asked for, the embedding has {} rows that are not zero", count, centres.size());
  return at::cat(centres);
}

}  // namespace

std::string Cells::hash() const {
  const at::Tensor table = of.contiguous();
  return sha256_hex({reinterpret_cast<const char*>(table.const_data_ptr<uint8_t>()), size_t(table.numel())});
}

Cells cluster_cells(const at::Tensor& embedding, int64_t known, int64_t count, uint64_t seed) {
  const at::NoGradGuard no_grad;
  const int64_t rows = embedding.size(0), dim = embedding.size(1);
  known = std::min(known, rows);
  if (count < 1 || count > 255) fail(Exit::usage, "tail_clusters is {}, allowed are 1 to 255", count);
  at::Tensor centres = first_centres(embedding, known, count, seed);
  for (int round = 0; round < rounds; ++round) {
    std::vector<at::Tensor> sums((known + block - 1) / block);
    for_blocks(embedding, known, [&](int64_t b, int64_t, const at::Tensor& x) {
      sums[b] = at::zeros({count, dim}, at::kDouble).index_add_(0, at::mm(x, centres.t()).argmax(1), x.to(at::kDouble));
    });
    for (size_t b = 1; b < sums.size(); ++b) sums[0].add_(sums[b]);
    const at::Tensor length = sums[0].norm(2, 1, true);
    // A cell that lost all its tokens keeps its centre.
    centres = at::where(length > 0, (sums[0] / length).to(at::kFloat), centres);
  }
  Cells cells{at::empty({rows}, at::kByte), count};
  for_blocks(embedding, rows, [&](int64_t, int64_t first, const at::Tensor& x) {
    cells.of.slice(0, first, first + x.size(0)).copy_(at::mm(x, centres.t()).argmax(1));
  });
  return cells;
}

}  // namespace retort
