// What every use of libllama in this process shares: start-up, its log, its failures, the number of threads.
#pragma once

#include <llama.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

namespace retort {

/// What llama.cpp logged while a LlamaCapture lived on this thread. All of its log also goes to spdlog at debug level.
class LlamaCapture {
 public:
  /// `assertions_throw`: a failed assertion inside llama.cpp throws Error(bad_input) out of it instead of ending the
  /// process. Only around calls that read files on this thread: a throw cannot leave a worker thread.
  explicit LlamaCapture(bool assertions_throw = false);
  ~LlamaCapture();
  LlamaCapture(const LlamaCapture&) = delete;
  LlamaCapture& operator=(const LlamaCapture&) = delete;

  /// Error lines, joined by "; ", without llama.cpp's function names.
  std::string errors() const;
  /// Sum of the buffers that were announced ("... buffer size = 12.00 MiB"): weights, KV cache, compute, output.
  int64_t buffer_bytes() const { return buffer_bytes_; }

 private:
  friend struct LlamaLog;
  std::string errors_;
  int64_t buffer_bytes_ = 0;
  bool assertions_throw_;
  LlamaCapture* outer_;
};

/// Starts libllama once a process and sends its log to spdlog. LlamaCapture does it too.
void start_llama();

/// Loads a model (or only its vocabulary, by params.vocab_only). Throws Error(io) when the file cannot be read and
/// Error(bad_input) with llama.cpp's own words when it does not load. check_tensors is always on: a block that cannot
/// be dequantized is found here.
std::shared_ptr<llama_model> load_llama(const std::filesystem::path& path, llama_model_params params);

/// Physical cores that this process may use: by affinity mask, by sibling threads, by the control group's CPU quota,
/// and by OMP_NUM_THREADS, which LibTorch obeys too.
int usable_cores();

}  // namespace retort
