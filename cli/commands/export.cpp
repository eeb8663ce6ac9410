// retort export: files out of a finished run, or out of any adapter and its base.
#include "cli/commands/export.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "adapters/peft.h"
#include "cli/command.h"
#include "core/error.h"
#include "core/sources.h"
#include "export/gguf.h"
#include "export/hf_folder.h"
#include "models/quantized_checkpoint.h"
#include "recipes/version.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

/// What the flags leave open, from a run's folder and from the adapter's own configuration.
void resolve(ExportArguments& options) {
  if (!options.run.empty() && options.adapter.empty()) options.adapter = (fs::path(options.run) / "adapter").string();
  if (options.model.empty() && !options.adapter.empty()) {
    options.model = read_peft_config(options.adapter).origin.base;
    if (options.model.empty())
      fail(Exit::usage, "{}: does not say which base it belongs to; give --model", options.adapter);
  }
  if (options.model.empty()) fail(Exit::usage, "nothing to export: give a run's folder, --adapter or --model");
  const bool merged = options.format == "gguf" || options.format == "safetensors";
  if (!merged && options.adapter.empty())
    fail(Exit::usage, "--format {} exports an adapter: give a run's folder or --adapter", options.format);
  if (options.format == "gguf" && options.type.empty())
    fail(Exit::usage, "--format gguf needs --type, for instance Q4_K_M; --list-types shows all");
  if (!merged && !options.type.empty()) fail(Exit::usage, "--type belongs to --format gguf, or safetensors");
  if (options.format != "gguf" && !options.imatrix.empty()) fail(Exit::usage, "--imatrix belongs to --format gguf");
}

}  // namespace

int run_export(ExportArguments options) {
  if (options.list_types) {
    fmt::print("{}", list_gguf_types());
    return 0;
  }
  resolve(options);
  if (options.format == "gguf") check_imatrix_given(gguf_type(options.type), !options.imatrix.empty());
  const fs::path path = pull({.uri = options.model, .sha256 = "", .name = ""});
  // A merge adds to the weights that the adapter was trained on.
  const auto base =
      open_checkpoint(path, options.adapter.empty() ? "" : read_peft_config(options.adapter).origin.base_form);
  const auto model = CausalLM::load(*base, {});
  Provenance provenance{
      .name = options.name, .license = options.license, .base = options.model, .version = "Retort " + version()};
  std::optional<LoadedAdapter> adapter;
  if (!options.adapter.empty()) {
    provenance.base_hash = base->hash();
    adapter = load_peft(options.adapter, *model, provenance.base_hash);
    provenance.data_hash = adapter->origin.data_hash;
  }
  if (options.format == "peft") {
    save_peft(options.out, *model, adapter->options, adapter->origin);
    fmt::print("{}: PEFT adapter, {} modules, {} parameters\n", options.out, adapter->report.targets.size(),
               adapter->report.trainable);
    return 0;
  }
  std::optional<Imatrix> imatrix;
  if (!options.imatrix.empty()) imatrix = read_imatrix(options.imatrix);
  ExportedFile file;
  if (options.format == "safetensors")
    file = export_hf_folder(options.out, *base, *model, {.type = options.type});
  else if (options.format == "gguf_adapter")
    file = export_gguf_adapter(options.out, *model, provenance);
  else
    file = export_gguf(options.out, *base, *model, gguf_type(options.type), provenance,
                       {.imatrix = imatrix ? &*imatrix : nullptr, .threads = options.threads});
  fmt::print("{}: {} {}, {:.1f} MB, {:.2f} bits a weight\n", file.path.string(), file.format, file.type,
             static_cast<double>(file.bytes) / 1e6, file.bits_per_weight);
  return 0;
}

namespace {

std::function<int()> setup(CLI::App& app) {
  auto options = std::make_shared<ExportArguments>();
  app.add_option("run", options->run, "folder of a finished run: its adapter, and the base that it names");
  app.add_option("--model", options->model,
                 "base: GGUF file, Hugging Face folder or URI; by default what the adapter names");
  app.add_option("--adapter", options->adapter, "PEFT folder; without one the base itself is exported");
  app.add_option("--format", options->format,
                 "gguf: merged model; safetensors: the same as a Hugging Face folder; gguf_adapter: for llama.cpp's "
                 "--lora; peft: adapter folder")
      ->check(CLI::IsMember({"gguf", "safetensors", "gguf_adapter", "peft"}))
      ->capture_default_str();
  app.add_option("--type", options->type, "of a gguf: F32, Q8_0, Q4_K_M …; of safetensors: F32, BF16, F16");
  app.add_option("--imatrix", options->imatrix, "importance matrix in llama-imatrix's GGUF format");
  auto* out = app.add_option("--out", options->out, "file (peft, safetensors: folder) to write");
  app.add_option("--name", options->name, "general.name of the file");
  app.add_option("--license", options->license, "SPDX name for the file; by default the base's");
  app.add_option("--threads", options->threads, "for quantizing; 0: one a core")->check(CLI::Range(0, 4096));
  auto* list = app.add_flag("--list-types", options->list_types, "list the types of a gguf and stop");
  return [options, out, list] {
    if (list->count() == 0 && out->count() == 0) fail(Exit::usage, "--out is required: the file to write");
    return run_export(*options);
  };
}

}  // namespace

extern const Command command_export{
    .name = "export",
    .summary = "Write a merged GGUF or Hugging Face folder, a GGUF adapter or a PEFT folder from a run or an adapter.",
    .examples =
        "  retort export runs/foldoc-categories/latest --type Q5_K_M --out foldoc-Q5_K_M.gguf\n"
        "  retort export --model smollm2.gguf --adapter adapter --format gguf_adapter --out adapter.gguf\n"
        "  retort export --model smollm2-hf --type F16 --out smollm2-F16.gguf\n"
        "  retort export runs/foldoc-categories/latest --format safetensors --type BF16 --out foldoc-hf\n"
        "  retort export --list-types",
    .setup = setup,
};

}  // namespace retort
