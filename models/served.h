// A GGUF file as llama.cpp serves it: what is evaluated and gated is what ships.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

struct llama_model;
struct llama_vocab;

namespace retort {

struct ServedOptions {
  int threads = 0;  ///< 0: the cores that this process may use
  int gpu_layers = 0;
  int64_t context = 0;                 ///< tokens; 0: what the longest request needs
  std::filesystem::path adapter = {};  ///< a GGUF adapter, scale 1; empty: none
  /// Attention and its cache in f32 where llama.cpp's default is f16: numbers do not depend on the batch (to 1e-4 for
  /// an f32 model, 1e-2 otherwise). For evaluation and the gate; serving keeps the default.
  bool exact = false;
};

struct Generated {
  std::vector<int32_t> ids;  ///< without the prompt, without the end-of-generation token
  bool stopped = false;      ///< an end-of-generation token came before the limit
  double first_token_seconds = 0, prompt_seconds = 0, generation_seconds = 0;
};

/// One document of a pass: logits where they are wanted, then a greedy continuation.
struct ServedRequest {
  std::vector<int32_t> ids;
  std::vector<int64_t> wanted;  ///< ascending positions whose logits are handed over
  int64_t generate = 0;         ///< at most so many tokens are generated after the last one
  /// Asked after each generated token: false ends the generation; empty: never asked.
  std::function<bool(std::span<const int32_t>)> go_on = {};
};

/// One loaded model with one context. Not for several threads at once.
class ServedModel {
 public:
  /// Throws Error(bad_input) with llama.cpp's own words when the file does not load.
  static std::unique_ptr<ServedModel> open(const std::filesystem::path& path, const ServedOptions& options = {});
  virtual ~ServedModel() = default;
  /// What open() was given.
  const std::filesystem::path& path() const { return path_; }
  const ServedOptions& options() const { return options_; }

  virtual int64_t vocab() const = 0;
  virtual const llama_model* model() const = 0;
  /// Logits f32 [n, V] after each of the positions in `wanted` (ascending, all positions when empty) of one document.
  virtual at::Tensor logits(std::span<const int32_t> ids, std::span<const int64_t> wanted = {}) = 0;
  /// Several documents in one pass; `each` gets the document's index and its logits f32 [n, V], in order.
  virtual void logits(const std::vector<std::vector<int32_t>>& documents,
                      const std::vector<std::vector<int64_t>>& wanted,
                      const std::function<void(size_t, const at::Tensor&)>& each) = 0;
  /// Several documents, a batch at a time; those that begin alike share their beginning: a prompt with twelve answers
  /// is computed once, and so is a preamble that all documents have. `logits` gets [n, V] of `wanted` (not called when
  /// that is empty), `generated` the continuation (not called when none is asked for), both in the order of the
  /// requests.
  virtual void run(std::span<const ServedRequest> requests,
                   const std::function<void(size_t, const at::Tensor&)>& logits,
                   const std::function<void(size_t, const Generated&)>& generated = {}) = 0;
  /// Logits f32 [n, V] and final hidden states f32 [n, d] (after the last norm) of every position of each document, in
  /// one pass over the model; `each` gets the document's index, in order.
  virtual void read(const std::vector<std::vector<int32_t>>& documents,
                    const std::function<void(size_t, const at::Tensor& logits, const at::Tensor& hidden)>& each) = 0;
  /// Greedy (temperature 0) or seeded sampling until end of generation or `limit` tokens; `stream` sees each token.
  virtual Generated generate(std::span<const int32_t> prompt, int64_t limit, double temperature = 0, uint64_t seed = 0,
                             const std::function<void(int32_t)>& stream = {}) = 0;
  /// Bytes of weights plus context buffers, as llama.cpp reports them.
  virtual int64_t memory_bytes() const = 0;

 protected:
  std::filesystem::path path_;
  ServedOptions options_;
};

/// Runs of the same prompt and generation, with llama.cpp's defaults.
struct SpeedRuns {
  int64_t prompt_tokens = 256, generated_tokens = 32;
  std::vector<double> prompt_seconds, generation_seconds;  ///< of each run
  int64_t memory_bytes = 0;                                ///< weights, KV cache and compute buffers
};
/// After one prompt that is not counted: pages come in, buffers are made.
SpeedRuns measure_speed_runs(const std::filesystem::path& path, int runs, int threads = 0,
                             const std::filesystem::path& adapter = {});

/// How fast a file is served, with llama.cpp's defaults, as llama-bench measures it.
struct Speed {
  double prompt_tokens_per_second = 0;      ///< a prompt of 256 tokens
  double generation_tokens_per_second = 0;  ///< 32 tokens, one at a time
  double first_token_seconds = 0;           ///< from that prompt to the first token of its answer
  int64_t memory_bytes = 0;                 ///< weights, KV cache and compute buffers
};
/// A few seconds on a small model, with a GGUF adapter when one is given. Each figure is the best of three runs: what
/// slows a run down is not the file.
Speed measure_speed(const std::filesystem::path& path, int threads = 0, const std::filesystem::path& adapter = {});

}  // namespace retort
