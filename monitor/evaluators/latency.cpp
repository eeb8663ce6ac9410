// How fast the file is served here: with llama.cpp's defaults, one request at a time.
#include "monitor/speed_estimate.h"

#include "monitor/evaluator.h"

namespace retort {
namespace {

struct Options : EvaluatorOptions {
  int64_t runs = 5;
};
const Schema<Options>& schema_of(Options*) {
  static const auto schema = evaluator_schema<Options>("").field(
      "runs", &Options::runs, "prompts of 256 tokens with 32 generated ones; the standard error is over them",
      {.minimum = 1, .maximum = 1000});
  return schema;
}

std::vector<Evaluation> measure(const EvaluatorOptions& options, const Measured& measured) {
  const ServedOptions& served = measured.model.options();
  const auto runs = static_cast<const Options&>(options).runs;
  const SpeedRuns speed =
      measure_speed_runs(measured.model.path(), static_cast<int>(runs), served.threads, served.adapter);
  const Rate generation = rate_of(speed.generation_seconds, static_cast<double>(speed.generated_tokens)),
             prompt = rate_of(speed.prompt_seconds, static_cast<double>(speed.prompt_tokens)),
             first = mean_of(speed.prompt_seconds);
  Evaluation result;
  result.value = generation.value;
  result.standard_error = generation.standard_error;
  result.n = runs;
  result.details = {{"prompt_tokens_per_second", prompt.value},
                    {"prompt_tokens_per_second_stderr", prompt.standard_error},
                    {"first_token_seconds", first.value},
                    {"first_token_seconds_stderr", first.standard_error},
                    {"memory_bytes", speed.memory_bytes}};
  return {result};
}

}  // namespace

extern const EvaluatorKind evaluator_latency;
const EvaluatorKind evaluator_latency{
    .summary = "tokens generated a second; also of a prompt of 256 tokens, the time to the first token, and memory",
    .unit = "tokens/s",
    .better = 1,
    .schema = evaluator_schema_of<Options>,
    .read = read_evaluator_options<Options>,
    .measure = measure};

}  // namespace retort
