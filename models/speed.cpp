#include <llama.h>

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "models/llama_runtime.h"
#include "models/served.h"

namespace retort {

SpeedRuns measure_speed_runs(const std::filesystem::path& path, int runs, int threads,
                             const std::filesystem::path& adapter) {
  SpeedRuns result;
  const auto prompt_tokens = static_cast<int32_t>(result.prompt_tokens);
  const auto generated_tokens = static_cast<int32_t>(result.generated_tokens);
  LlamaCapture capture;
  const auto model = load_llama(path, llama_model_default_params());
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(prompt_tokens + generated_tokens);
  params.n_threads = params.n_threads_batch = threads > 0 ? threads : usable_cores();
  params.no_perf = true;
  const std::unique_ptr<llama_context, void (*)(llama_context*)> context(llama_init_from_model(model.get(), params),
                                                                         llama_free);
  if (!context) fail(Exit::bad_input, "{}: llama.cpp cannot make a context: {}", path.string(), capture.errors());
  if (!adapter.empty()) {
    llama_adapter_lora* lora = llama_adapter_lora_init(model.get(), adapter.c_str());  // freed with the model
    float scale = 1;
    if (!lora || llama_set_adapters_lora(context.get(), &lora, 1, &scale) != 0)
      fail(Exit::bad_input, "{}: llama.cpp cannot load this adapter for {}: {}", adapter.string(), path.string(),
           capture.errors());
  }

  // Any tokens do, their time is the same; a fixed one also cannot end the generation.
  const llama_token token = llama_vocab_n_tokens(llama_model_get_vocab(model.get())) / 2;
  std::vector<llama_token> prompt(result.prompt_tokens, token);
  auto decode = [&](llama_token* tokens, int32_t count) {
    const auto start = std::chrono::steady_clock::now();
    if (llama_decode(context.get(), llama_batch_get_one(tokens, count)) != 0) {
      fail(Exit::internal, "{}: llama.cpp could not decode {} tokens: {}", path.string(), count, capture.errors());
    }
    llama_synchronize(context.get());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  decode(prompt.data(), prompt_tokens);
  for (int run = 0; run < runs; ++run) {
    llama_memory_clear(llama_get_memory(context.get()), false);
    result.prompt_seconds.push_back(decode(prompt.data(), prompt_tokens));
    double seconds = 0;
    for (int32_t n = 0; n < generated_tokens; ++n) seconds += decode(prompt.data(), 1);
    result.generation_seconds.push_back(seconds);
  }
  result.memory_bytes = capture.buffer_bytes();
  return result;
}

Speed measure_speed(const std::filesystem::path& path, int threads, const std::filesystem::path& adapter) {
  const SpeedRuns runs = measure_speed_runs(path, 3, threads, adapter);
  const double prompt = std::ranges::min(runs.prompt_seconds), generation = std::ranges::min(runs.generation_seconds);
  return {static_cast<double>(runs.prompt_tokens) / prompt, static_cast<double>(runs.generated_tokens) / generation,
          prompt, runs.memory_bytes};
}

}  // namespace retort
