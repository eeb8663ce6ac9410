// retort logits: a model's logits for given token ids, for parity checks against other programs.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <memory>

#include "adapters/peft.h"
#include "cli/command.h"
#include "core/error.h"
#include "core/sources.h"
#include "models/causal_lm.h"
#include "models/quantized_checkpoint.h"
#include "models/safetensors.h"

namespace retort {
namespace {

struct Options {
  std::string model, adapter, out, base = "native";
  std::vector<int64_t> ids;
};

int run(const Options& options) {
  const std::string form = options.adapter.empty() ? "" : read_peft_config(options.adapter).origin.base_form;
  const auto checkpoint = open_checkpoint(pull({.uri = options.model, .sha256 = "", .name = ""}), form);
  for (const int64_t id : options.ids)
    if (id < 0 || id >= checkpoint->config().vocab)
      fail(Exit::usage, "--ids: {} is no token of {}; allowed: 0 to {}", id, options.model,
           checkpoint->config().vocab - 1);
  auto model = CausalLM::load(*checkpoint, {.base = options.base == "native" ? BaseForm::native : BaseForm::dense});
  if (!options.adapter.empty()) load_peft(options.adapter, *model, checkpoint->hash());
  const at::NoGradGuard no_grad;
  Batch batch;
  batch.ids = at::tensor(options.ids, at::kLong);
  batch.offsets = {0, batch.ids.size(0)};
  const at::Tensor logits = model->logits(model->hidden(batch));
  write_safetensors(options.out, {{"logits", logits}});
  fmt::print("{}: logits f32 [{}, {}]\n", options.out, logits.size(0), logits.size(1));
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("--model", options->model, "GGUF file or Hugging Face folder: a path or a source")->required();
  app.add_option("--adapter", options->adapter, "PEFT folder");
  app.add_option("--base", options->base, "native: the file's own blocks; f32: all weights dequantized at load")
      ->check(CLI::IsMember({"native", "f32"}))
      ->capture_default_str();
  app.add_option("--ids", options->ids, "token ids, separated by commas")->required()->delimiter(',');
  app.add_option("--out", options->out, "file to write: tensor `logits`, f32 [tokens, vocabulary]")->required();
  return [options] { return run(*options); };
}

}  // namespace

extern const Command command_logits{
    .name = "logits",
    .summary = "Write a model's logits for token ids.",
    .examples =
        "  retort logits --model smollm2.gguf --ids 1,2,3 --out logits.safetensors\n"
        "  retort logits --model smollm2-hf --adapter runs/foldoc-categories/latest/adapter --ids 1,2,3 --out "
        "logits.safetensors",
    .setup = setup,
};

}  // namespace retort
