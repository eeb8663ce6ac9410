// What a run measures while it trains: metrics.jsonl and a TensorBoard event file, both cut back exactly at a resume.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "core/json.h"

namespace retort {

/// One logged step. Everything but the last three follows from recipe and data alone.
struct StepMetrics {
  int64_t step = 0;  ///< updates made
  double epoch = 0;
  double loss = 0;                             ///< nats a trained token, over the steps since the last line
  double learning_rate = 0;                    ///< of this step's update
  double grad_norm = 0;                        ///< of this step, before clipping
  int64_t tokens = 0, trained_tokens = 0;      ///< since the run's start
  std::optional<double> validation_loss = {};  ///< nats a trained token
  std::map<std::string, double> measured =
      {};                        ///< by the objective, a trained token, over the steps since the last line
  double tokens_per_second = 0;  ///< over the steps since the last line
  int64_t memory_bytes = 0;      ///< resident, now
  double wall_time = 0;          ///< seconds since 1970

  /// Keys as the members; validation_perplexity beside validation_loss.
  Json to_json() const;
};

/// Appends to <folder>/metrics.jsonl and <folder>/tensorboard/events.out.tfevents.0.retort.
class MetricsLog {
 public:
  struct Lengths {
    uint64_t metrics = 0, tensorboard = 0;
  };
  /// Cuts both files back to `lengths` (zero: starts anew). Error(io) when a file is shorter than that or cannot be
  /// written.
  MetricsLog(const std::filesystem::path& folder, const Lengths& lengths);
  void write(const StepMetrics& metrics);
  /// Brings both files to the disk; a checkpoint that names their lengths is written after it.
  Lengths sync();

 private:
  struct Output {
    Output(const std::filesystem::path& file, uint64_t length_at_start);
    ~Output();
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;
    void append(const std::string& bytes);
    void sync() const;

    std::filesystem::path path;
    int fd;
    uint64_t length;
  };
  Output metrics_, tensorboard_;
};

}  // namespace retort
