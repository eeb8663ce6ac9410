// What the gate's limits rest on (docs/gate.md), measured on the adapter of a finished run.
//
//   gate RUN --types Q4_K_M,Q5_0 [--imatrix] [--tokens 1280]    exports and gates each type
//   gate RUN --blocks                                           every ggml type on sampled rows, sound and damaged
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ggml.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <random>

#include "adapters/merge.h"
#include "adapters/peft.h"
#include "core/error.h"
#include "export/gate.h"
#include "export/gguf.h"
#include "models/family.h"
#include "recipes/prepare.h"
#include "recipes/stages.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct BenchOptions {
  std::string run;
  std::vector<std::string> types;
  bool imatrix = false, blocks = false;
  int64_t tokens = 1280;
};

void gate_types(const BenchOptions& options, const Recipe& recipe, const Prepared& prepared, CausalLM& model,
                const Imatrix* imatrix) {
  std::vector<GateRow> rows;
  Ledger ledger;
  const Stream<Chat> chats = chats_of(prepared.validation_files);
  for (Chat chat; rows.size() < 64 && chats(chat);)
    if (auto example = encode(*prepared.tokenizer, *prepared.chat_template, chat, encode_options(recipe), ledger))
      rows.push_back({chat, std::move(*example)});
  const GateReference reference{*prepared.checkpoint, model, *prepared.tokenizer, *prepared.chat_template, 0};
  for (const std::string& type : options.types) {
    const fs::path path = fs::temp_directory_path() / fmt::format("retort-gate-{}-{}.gguf", type, ::getpid());
    export_gguf(path, *prepared.checkpoint, model, retort::gguf_type(type), {}, {.imatrix = imatrix});
    const GateReport report =
        gate(reference, {.path = path, .adapter = {}, .type = type, .imatrix = imatrix}, rows, {}, {}, options.tokens);
    fs::remove(path);
    fmt::print("| {}{} | {:.3f} | {:.2f} | {:.1f} % | {:+.2f} | {} |\n", type, imatrix ? ", matrix" : "",
               report.kl_mean, report.kl_p99, 100 * report.top1,
               std::log(report.perplexity_shipped / report.perplexity_trained), report.passed ? "passed" : "refused");
    for (const auto& [name, w] : report.weights)
      if (w.relative_error > 0)
        fmt::print("    {} {}: relative error {:.4f} (limit {}), worst weight {:.3f}, unexplained {:.3f} (limit {})\n",
                   type, name, w.relative_error, w.bounds.relative_error, w.worst_block, w.unexplained,
                   w.bounds.worst_block);
    for (const std::string& reason : report.reasons) fmt::print("    {}\n", reason);
  }
}

/// Rows of one weight, and the matrix's weights of its columns.
struct Sample {
  at::Tensor rows;
  std::vector<float> columns;
};

/// Sixteen rows of every third weight.
std::vector<Sample> sample_rows(const Prepared& prepared, CausalLM& model, const Imatrix& imatrix) {
  std::vector<Sample> samples;
  const auto adapters = merged_tensors(*prepared.checkpoint, model);
  int nth = 0;
  for (const TensorSpec& spec : family_of(model.config()).tensors(model.config())) {
    const auto adapter = adapters.find(spec.name);
    const auto entry = imatrix.entries.find(spec.gguf);
    if (adapter == adapters.end() || entry == imatrix.entries.end()) continue;
    if (nth++ % 3 != 0) continue;
    const at::Tensor merged = adapter->second();
    samples.push_back({merged.narrow(0, 0, 16).clone(), column_weights(entry->second)});
  }
  return samples;
}

/// The rows moved off the base's own grid: up to a sixteenth of the range of each 32 weights added to each.
at::Tensor off_grid(const at::Tensor& rows) {
  const at::Tensor blocks = rows.view({-1, 32});
  const at::Tensor step = ((blocks.amax(1) - blocks.amin(1)) / 15).unsqueeze(1);
  return (blocks + (at::rand_like(blocks) * 2 - 1) * step).view(rows.sizes());
}

using Damage = void (*)(std::span<uint8_t> block, std::span<const uint8_t> other, std::mt19937& random);
const std::pair<const char*, Damage> kDamages[] = {
    {"block copied from another row", [](auto block, auto other, auto&) { std::ranges::copy(other, block.begin()); }},
    {"block zeroed", [](auto block, auto, auto&) { std::ranges::fill(block, uint8_t{0}); }},
    {"eight bytes overwritten",
     [](auto block, auto, auto& random) {
       const size_t at = random() % (block.size() - 7);
       for (uint8_t& byte : block.subspan(at, 8)) byte = static_cast<uint8_t>(random());
     }},
    {"one byte overwritten",
     [](auto block, auto, auto& random) { block[random() % block.size()] = static_cast<uint8_t>(random()); }},
    {"one bit flipped",
     [](auto block, auto, auto& random) {
       block[random() % block.size()] ^= static_cast<uint8_t>(1U << (random() % 8));
     }},
};

void measure_type(ggml_type type, const std::vector<Sample>& samples, bool moved, bool weighted) {
  at::manual_seed(1);
  std::mt19937 random(1);
  double relative = 0, worst = 0, unexplained = 0;
  WeightBounds bounds{};
  std::array<int64_t, std::size(kDamages)> refused{};
  int64_t damaged = 0;
  for (const Sample& sample : samples) {
    if (sample.rows.size(1) % ggml_blck_size(type) != 0) continue;
    const at::Tensor rows = moved ? off_grid(sample.rows) : sample.rows;
    const int64_t count = rows.size(0), width = rows.size(1);
    const size_t row_bytes = ggml_row_size(type, width), block = ggml_type_size(type);
    std::vector<uint8_t> bytes(row_bytes * static_cast<size_t>(count));
    const std::span<const float> columns = weighted ? std::span<const float>(sample.columns) : std::span<const float>();
    ggml_quantize_chunk(type, rows.const_data_ptr<float>(), bytes.data(), 0, count, width,
                        columns.empty() ? nullptr : columns.data());
    const auto compare = [&](const std::vector<uint8_t>& stored) {
      return compare_weight(QuantizedTensor("sample", type, {count, width}, stored, nullptr), rows, columns);
    };
    const WeightDifference sound = compare(bytes);
    relative = std::max(relative, sound.relative_error), worst = std::max(worst, sound.worst_block);
    unexplained = std::max(unexplained, sound.unexplained), bounds = sound.bounds;
    for (int i = 0; i < 4; ++i, ++damaged) {
      const size_t at = random() % (bytes.size() / block) * block;
      for (size_t kind = 0; kind < std::size(kDamages); ++kind) {
        std::vector<uint8_t> copy = bytes;
        const std::span<uint8_t> other(&bytes[(at + row_bytes) % bytes.size()], block);
        kDamages[kind].second(std::span(copy).subspan(at, block), other, random);
        // The error of a whole tensor hides one block; here only the bound on one weight is asked.
        const WeightDifference found = compare(copy);
        refused[kind] += !(found.unexplained <= found.bounds.worst_block);
      }
    }
  }
  if (damaged == 0) return;
  fmt::print("{}{}{}: relative error {:.4f} (limit {}), worst weight {:.3f}, unexplained {:.3f} (limit {})\n",
             ggml_type_name(type), moved ? ", off the grid" : "", weighted ? ", matrix" : "", relative,
             bounds.relative_error, worst, unexplained, bounds.worst_block);
  for (size_t kind = 0; kind < std::size(kDamages); ++kind)
    fmt::print("    {}: {:.1f} % of {} refused\n", kDamages[kind].first,
               100.0 * static_cast<double>(refused[kind]) / static_cast<double>(damaged), damaged);
  std::fflush(stdout);
}

void run(const BenchOptions& options) {
  const at::NoGradGuard no_grad;
  const Recipe recipe = load_recipe(fs::path(options.run) / "recipe.yaml");
  const Prepared prepared = prepare(recipe, 0, {});
  const auto model = CausalLM::load(*prepared.checkpoint, load_options(recipe));
  load_peft(fs::path(options.run) / "adapter", *model, prepared.checkpoint->hash());
  const Imatrix imatrix = training_imatrix(recipe, prepared, *model);
  gate_types(options, recipe, prepared, *model, options.imatrix ? &imatrix : nullptr);
  if (!options.blocks) return;
  const std::vector<Sample> samples = sample_rows(prepared, *model, imatrix);
  for (int id = 0; id < GGML_TYPE_COUNT; ++id) {
    const auto type = static_cast<ggml_type>(id);
    if (!ggml_is_quantized(type) || type == GGML_TYPE_Q8_1 || type == GGML_TYPE_Q8_K) continue;
    for (bool moved : {false, true})
      for (bool weighted : {false, true})
        if (weighted || !ggml_quantize_requires_imatrix(type)) measure_type(type, samples, moved, weighted);
  }
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  CLI::App app("What the export gate's limits rest on");
  retort::BenchOptions options;
  app.add_option("run", options.run, "folder of a finished run")->required();
  app.add_option("--types", options.types, "file types to export and gate")->delimiter(',');
  app.add_flag("--imatrix", options.imatrix, "with an importance matrix from the training data");
  app.add_flag("--blocks", options.blocks, "every ggml type on sampled rows, sound and damaged");
  app.add_option("--tokens", options.tokens, "held-out tokens to predict")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    retort::run(options);
  } catch (const retort::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.exit());
  }
}
