// retort quantize: a model in another type, and what that cost each tensor.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "cli/command.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/sources.h"
#include "export/bnb_folder.h"
#include "export/gguf.h"
#include "models/weight_error.h"
#include "recipes/version.h"

namespace retort {
namespace {

struct Options {
  std::string model, type, out, imatrix;
  int threads = 0;
  bool json = false;
};

bool is_bnb(const std::string& type) {
  return std::find(bnb_names().begin(), bnb_names().end(), type) != bnb_names().end();
}

/// Each tensor of `made` against the same of `base`.
Json compared(const Checkpoint& base, const Checkpoint& made) {
  Json tensors = Json::array();
  Squares all;
  double bits = 0, weights = 0;
  for (const WeightError& one : weight_errors(base, made)) {
    double elements = 1;
    for (const int64_t size : one.shape) elements *= static_cast<double>(size);
    all.difference += one.squares.difference;
    all.size += one.squares.size;
    bits += one.bits_per_weight * elements;
    weights += elements;
    tensors.push_back({{"name", one.name},
                       {"from", one.before},
                       {"type", one.now},
                       {"shape", one.shape},
                       {"bits_per_weight", one.bits_per_weight},
                       {"relative_error", one.squares.relative()},
                       {"largest_error", one.largest}});
  }
  return {{"tensors", std::move(tensors)},
          {"weights", weights},
          {"bits_per_weight", bits / weights},
          {"relative_error", all.relative()}};
}

int run(const Options& options) {
  std::optional<Imatrix> imatrix;
  if (is_bnb(options.type) && !options.imatrix.empty())
    fail(Exit::usage, "--imatrix belongs to GGUF's types; bitsandbytes' formats are made without one");
  if (!is_bnb(options.type)) check_imatrix_given(gguf_type(options.type), !options.imatrix.empty());
  if (!options.imatrix.empty()) imatrix = read_imatrix(options.imatrix);
  const auto base = Checkpoint::open(pull({.uri = options.model, .sha256 = "", .name = ""}));
  const auto start = std::chrono::steady_clock::now();
  if (is_bnb(options.type)) {
    export_bnb_folder(options.out, *base, bnb_options(options.type));
  } else {
    const auto model = CausalLM::load(*base, {});
    export_gguf(options.out, *base, *model, gguf_type(options.type),
                {.base = options.model, .version = "Retort " + version()},
                {.imatrix = imatrix ? &*imatrix : nullptr, .threads = options.threads});
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  Json report = compared(*base, *Checkpoint::open(options.out));
  report["path"] = options.out;
  report["type"] = options.type;
  report["seconds"] = seconds;
  // Of the weights as f32, whatever type they come in: figures of different sources stay comparable.
  report["gigabytes_per_second"] = 4e-9 * report["weights"].get<double>() / seconds;
  if (options.json) {
    fmt::print("{}\n", report.dump(2));
    return 0;
  }
  for (const Json& t : report["tensors"])
    fmt::print("  {:<48} {:>6} -> {:<8} {:>7.3f} bits  error {:.5f}, at most {:.2e}\n", t["name"].get<std::string>(),
               t["from"].get<std::string>(), t["type"].get<std::string>(), t["bits_per_weight"].get<double>(),
               t["relative_error"].get<double>(), t["largest_error"].get<double>());
  fmt::print("{}: {}, {:.3f} bits a weight, relative error {:.5f}, {:.2f} s ({:.2f} GB/s of f32, files included)\n",
             options.out, options.type, report["bits_per_weight"].get<double>(), report["relative_error"].get<double>(),
             seconds, report["gigabytes_per_second"].get<double>());
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model, "GGUF file or Hugging Face folder: a path or a source")->required();
  app.add_option("--type", options->type,
                 "nf4, fp4, int8, or with scales in 8 bits nf4_dq, fp4_dq: a folder for transformers and bitsandbytes; "
                 "any type of retort export --list-types: a GGUF file")
      ->required();
  app.add_option("--out", options->out, "folder or file to write")->required();
  app.add_option("--imatrix", options->imatrix, "importance matrix in llama-imatrix's GGUF format");
  app.add_option("--threads", options->threads, "for GGUF's types; 0: one a core")->check(CLI::Range(0, 4096));
  app.add_flag("--json", options->json, "print the report as JSON");
  return [options] { return run(*options); };
}

}  // namespace

extern const Command command_quantize{
    .name = "quantize",
    .summary = "Write a model in another type, and what that cost each tensor.",
    .examples =
        "  retort quantize smollm2-hf --type nf4_dq --out smollm2-nf4\n"
        "  retort quantize smollm2.gguf --type int8 --out smollm2-int8\n"
        "  retort quantize smollm2-hf --type Q4_K_M --out smollm2-Q4_K_M.gguf",
    .setup = setup,
};

}  // namespace retort
