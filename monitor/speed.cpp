#include "monitor/speed.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "models/served.h"

namespace retort {

Speed measure_speed(const std::filesystem::path& path, int threads) {
  constexpr int64_t prompt_length = 512, short_length = 32, generated = 64;
  const auto model = ServedModel::open(path, {.threads = threads, .context = prompt_length + generated});
  // Any tokens do: the work does not depend on which they are.
  std::vector<int32_t> prompt(prompt_length);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>((i * 7919 + 11) % model->vocab());
  Speed speed{.memory_bytes = model->memory_bytes()};
  speed.first_token_seconds = 1e9;
  for (int round = 0; round < 3; ++round) {
    const Generated brief = model->generate(std::span(prompt).first(short_length), 1);
    speed.first_token_seconds = std::min(speed.first_token_seconds, brief.first_token_seconds);
    const Generated full = model->generate(prompt, generated, /*temperature=*/1.0, /*seed=*/static_cast<uint64_t>(round));
    speed.prompt_tokens_per_second = std::max(speed.prompt_tokens_per_second, prompt_length / full.prompt_seconds);
    if (full.ids.size() > 8)
      speed.generation_tokens_per_second = std::max(
          speed.generation_tokens_per_second, static_cast<double>(full.ids.size()) / full.generation_seconds);
  }
  return speed;
}

}  // namespace retort
