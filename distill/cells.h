// The cells of a clustered tail: tokens that the head maps to nearby directions lie in one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace retort {

/// A partition of a vocabulary into at most 255 cells.
struct Cells {
  at::Tensor of;  ///< u8 [V]: the cell of each token
  int64_t count = 0;
  /// SHA-256 over the table.
  std::string hash() const;
};

/// k-means by cosine, a dozen rounds, of the rows of an output embedding [rows, dim] (any float type) into
/// 1 <= count <= 255 cells: the same table for the same (embedding, count, seed), whatever the number of threads.
/// Tokens [known, rows), which no text holds (padding of the head), and rows of length zero go to the nearest centre
/// and move none. Works on a block of rows at a time. Error(bad_input) when fewer rows than cells can be centres.
Cells cluster_cells(const at::Tensor& embedding, int64_t known, int64_t count, uint64_t seed);

}  // namespace retort
