#include <llama.h>

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "models/llama_runtime.h"
#include "models/served.h"

namespace retort {

Speed measure_speed(const std::filesystem::path& path, int threads, const std::filesystem::path& adapter) {
  constexpr int32_t kPrompt = 256, kGenerated = 32;
  LlamaCapture capture;
  const auto model = load_llama(path, llama_model_default_params());
  llama_context_params params = llama_context_default_params();
  params.n_ctx = kPrompt + kGenerated;
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
  std::vector<llama_token> prompt(kPrompt, token);
  auto decode = [&](llama_token* tokens, int32_t count) {
    const auto start = std::chrono::steady_clock::now();
    if (llama_decode(context.get(), llama_batch_get_one(tokens, count)) != 0) {
      fail(Exit::internal, "{}: llama.cpp could not decode {} tokens: {}", path.string(), count, capture.errors());
    }
    llama_synchronize(context.get());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  decode(prompt.data(), kPrompt);  // pages come in, buffers are made
  double prompt_seconds = 1e30, generation_seconds = 1e30;
  for (int run = 0; run < 3; ++run) {
    llama_memory_clear(llama_get_memory(context.get()), false);
    prompt_seconds = std::min(prompt_seconds, decode(prompt.data(), kPrompt));
    double seconds = 0;
    for (int32_t n = 0; n < kGenerated; ++n) seconds += decode(prompt.data(), 1);
    generation_seconds = std::min(generation_seconds, seconds);
  }
  return {kPrompt / prompt_seconds, kGenerated / generation_seconds, prompt_seconds, capture.buffer_bytes()};
}

}  // namespace retort
