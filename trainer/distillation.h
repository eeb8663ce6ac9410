// Objectives that hold a student against teachers: parts that are weighted and summed over hidden states that they
// share.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/loader.h"
#include "distill/targets.h"
#include "trainer/divergence.h"
#include "trainer/objective.h"

namespace retort {

/// A batch after the student's forward pass.
struct Forwarded {
  CausalLM& model;
  const Batch& batch;
  std::span<const int64_t> windows;
  at::Tensor hidden;                     ///< [T, dim] after the last norm
  std::map<int64_t, at::Tensor> states;  ///< [T, dim] after the blocks that were asked for
};

/// One part of an objective: the sum over the batch's trained tokens of a loss, weight included, a differentiable
/// scalar.
using ObjectivePart = std::function<at::Tensor(const Forwarded& student)>;

/// The sum of the parts; the student runs once for all. `blocks`: whose states the parts read.
Objective sum_of(std::vector<ObjectivePart> parts, std::vector<int64_t> blocks = {});

/// weight * -log p(label).
ObjectivePart cross_entropy_part(double weight);

/// How t of an interpolating loss moves from t_start to 1: at least linearly with the run's progress, and faster while
/// the loss falls, by alpha sigmoid(m) (1 - t) an update, m being the running mean of the loss's relative decrease
/// (algorithm 1 of https://arxiv.org/abs/2501.16937). It lives in ObjectiveState::numbers.
struct TaidSchedule {
  std::string t;  ///< the number's key
  double t_start = 0.4, alpha = 5e-4, momentum = 0.99;

  void update(std::map<std::string, double>& numbers, double progress, double loss) const;
};

/// linear_divergence from what `source` says of the batch. `state` gets the sums "divergence", "cross_entropy" and
/// "agreement" for the metrics, and with an interpolating loss its t, which follows TaidSchedule from
/// options.parameter on. Of several teachers each has a name, which goes before these keys and a dot; parts of one name
/// share its t.
ObjectivePart divergence_part(TargetSource source, const DivergenceOptions& options,
                              std::shared_ptr<ObjectiveState> state, const std::string& name = "");

/// Sums over trained tokens, for the report.
struct DivergenceSums {
  /// Of tokens whose position in their document is below 16, 64, 256, 1024, and the others.
  static constexpr std::array<int64_t, 4> position_ends{16, 64, 256, 1024};

  int64_t rows = 0;
  double divergence = 0, cross_entropy = 0;  ///< nats
  double agreements = 0;                     ///< tokens whose most likely successor is the teacher's
  double tail_mass = 0, tail_divergence = 0;
  std::array<int64_t, 5> rows_at = {};
  std::array<double, 5> divergence_at = {};

  void add(const DivergenceRows& measured, const Batch& batch);
  /// Means a token, and lists over the buckets of positions.
  Json to_json() const;
};

/// How far a student is from its teacher over a whole data set, without gradients.
DivergenceSums measure_divergence(CausalLM& student, const PackedDataset& data, const TargetSource& source,
                                  const DivergenceOptions& options, int64_t windows_per_batch);

}  // namespace retort
