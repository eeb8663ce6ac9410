// What a cache keeps of the distributions after the trained positions of one document.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "distill/cells.h"
#include "distill/logit_cache.h"

namespace retort {

/// How log-probabilities and masses become bytes, all in nats. A stored token's log-probability at temperature 1 is
/// known to half a `log_p_step` as long as it is above -15.9. The mass of a cell without the stored tokens,
/// log sum exp(l / T) over log-probabilities l, is known to half a `mass_step(T)` as long as it is above -16 / max(T,
/// 1).
inline constexpr float log_p_step = 1.0f / 16;
float mass_step(double temperature);
/// No mass of a vocabulary of that size can be greater; byte b of a mass means mass_top - b mass_step.
float mass_top(double temperature, int64_t vocab);
inline constexpr uint8_t no_mass = 255;

/// The bytes of n positions of one document.
struct CacheRows {
  std::vector<int32_t> positions;    ///< [n], ascending
  std::vector<uint8_t> counts;       ///< [n]: how many tokens each position stores
  std::vector<int32_t> ids;          ///< of all positions, the most probable first
  std::vector<uint8_t> log_p;        ///< theirs, in steps below 0
  std::vector<uint8_t> label_log_p;  ///< [n]
  std::vector<uint8_t> masses;       ///< [n, temperatures, cells]
  std::vector<int32_t> samples;      ///< [n, tail_samples]; a stored token where the tail is empty
  at::Tensor full;                   ///< f16 [n, V]: log-probabilities; undefined when not kept
  /// Sums over the positions, of rows that were made, not read; ShardStatistics says what they are.
  double coding_nats = 0, hidden_nats = 0;

  int64_t size() const { return static_cast<int64_t>(positions.size()); }
};

/// Makes rows of logits; built once for a capture.
class RowMaker {
 public:
  RowMaker(const Cells& cells, const CacheOptions& options);
  /// `logits` f32 [n, W] after `positions` of the document `ids`: of tokens beyond the cells' vocabulary they are
  /// dropped, missing ones count as -inf. Error(bad_input) naming the position of a row that has a NaN or nothing
  /// finite. `draws` seeds the samples.
  CacheRows rows(const at::Tensor& logits, std::span<const int32_t> ids, std::span<const int64_t> positions,
                 uint64_t draws) const;

 private:
  struct Row;
  void make(const float* logits, int64_t width, int32_t label, uint64_t draws, float* x, Row& row) const;

  CacheOptions options_;
  int64_t vocab_;
  std::vector<int32_t> order_;        // the vocabulary, cell by cell
  std::vector<int64_t> cell_begins_;  // [C + 1]
};

}  // namespace retort
