#include "recipes/stages.h"

#include <algorithm>
#include <set>

#include "adapters/attach.h"
#include "adapters/peft.h"
#include "core/hash.h"
#include "core/log.h"
#include "distill/model_hash.h"
#include "export/gate.h"
#include "export/gguf.h"
#include "export/hf_folder.h"
#include "export/imatrix.h"
#include "export/types.h"
#include "models/gguf.h"
#include "models/served.h"
#include "recipes/version.h"

namespace retort {
namespace fs = std::filesystem;

static constexpr size_t sample_count = 12;

std::vector<EvaluationRow> evaluation_rows(const Recipe& recipe, const Prepared& prepared) {
  std::vector<EvaluationRow> rows;
  // Without a limit an evaluator looks at every row.
  size_t wanted = 0;
  for (const Evaluator& evaluator : recipe.evaluate) {
    const std::optional<int64_t>& limit = evaluator.options->limit;
    wanted = std::max(wanted, limit ? static_cast<size_t>(*limit) : SIZE_MAX);
  }
  Ledger ledger;
  const EncodeOptions options = encode_options(recipe);
  const Stream<Chat> chats = chats_of(prepared.validation_files);
  for (Chat chat; rows.size() < wanted && chats(chat);)
    if (auto row = evaluation_row(*prepared.tokenizer, *prepared.chat_template, chat, options, ledger))
      rows.push_back(std::move(*row));
  check_evaluators(recipe.evaluate, rows, resolver_of(recipe));
  return rows;
}

static std::vector<GateRow> gate_rows(const Recipe& recipe, const Prepared& prepared) {
  std::vector<GateRow> rows;
  Ledger ledger;
  const EncodeOptions options = encode_options(recipe);
  const Stream<Chat> chats = chats_of(prepared.validation_files);
  for (Chat chat; rows.size() < static_cast<size_t>(recipe.export_.gate.rows) && chats(chat);)
    if (auto example = encode(*prepared.tokenizer, *prepared.chat_template, chat, options, ledger))
      rows.push_back({chat, std::move(*example)});
  return rows;
}

Resolve resolver_of(const Recipe& recipe) {
  return [&recipe](const std::string& path) { return pull(source_of(recipe, path)); };
}

/// `run` gets what hears of progress, and gives the results.
template <typename Run>
static void add_evaluations(const Recipe& recipe, size_t rows, const std::string& on, Json& report,
                            const ProgressSink& sink, const Run& run) {
  if (recipe.evaluate.empty()) return;
  Progress progress(sink);
  progress.start("evaluate " + on, rows);
  for (const Evaluation& evaluation : run([&](size_t done, size_t) { progress.update(done); }))
    report["evaluate"].push_back(evaluation.to_json());
  progress.finish();
}

void evaluate_served(const Recipe& recipe, const Prepared& prepared, const std::vector<EvaluationRow>& rows,
                     ServedModel& model, const std::string& on, Json& report, const ProgressSink& progress) {
  add_evaluations(recipe, rows.size(), on, report, progress, [&](const auto& heard) {
    return evaluate(recipe.evaluate, rows, model, *prepared.tokenizer, on, heard, resolver_of(recipe));
  });
}

std::vector<Sample> evaluate_file(const Recipe& recipe, const Prepared& prepared,
                                  const std::vector<EvaluationRow>& rows, const fs::path& file, const fs::path& adapter,
                                  const std::string& on, Json& report, const ProgressSink& progress) {
  const auto served =
      ServedModel::open(file, {.threads = static_cast<int>(recipe.threads), .adapter = adapter, .exact = true});
  evaluate_served(recipe, prepared, rows, *served, on, report, progress);
  return samples(*served, *prepared.tokenizer, rows, sample_count);
}

void evaluate_model(const Recipe& recipe, const Prepared& prepared, const std::vector<EvaluationRow>& rows,
                    CausalLM& model, const std::string& on, Json& report, const ProgressSink& progress) {
  add_evaluations(recipe, rows.size(), on, report, progress, [&](const auto& heard) {
    return evaluate(for_trained(recipe.evaluate), rows, predictor_of(model, *prepared.tokenizer), on, heard);
  });
}

Json targets_of(CausalLM& model) {
  Json targets = Json::array();
  std::map<std::string, size_t> index;
  for (const Linear* linear : model.linears()) {
    if (!linear->adapter) continue;
    const std::string name = linear->name.substr(linear->name.rfind('.') + 1);
    auto [at, fresh] = index.try_emplace(name, targets.size());
    if (fresh)
      targets.push_back({{"name", name}, {"count", 0}, {"shape", {linear->out, linear->in}}, {"parameters", 0}});
    int64_t parameters = 0;
    for (const Parameter& p : linear->adapter->parameters()) parameters += p.tensor.numel();
    Json& target = targets[at->second];
    target["count"] = target["count"].get<int64_t>() + 1;
    target["parameters"] = target["parameters"].get<int64_t>() + parameters;
  }
  return targets;
}

void check_against_model(const Recipe& recipe, const Prepared& prepared, CausalLM& model) {
  check_ranks(model, recipe.adapter);
  const std::vector<std::string> targets = plan_adapters(model, recipe.adapter).targets;
  for (const ExportFile& file : recipe.export_.files) {
    if (file.merge == "adapter" && !prepared.checkpoint->is_gguf())
      fail(Exit::usage,
           "export.files: merge: adapter ships the base's own GGUF file, and {} is none; use merge: requantize, or "
           "format: gguf_adapter for an adapter alone",
           recipe.model.path);
    if (file.format == "gguf" && !file.beside_base()) {
      check_imatrix_given(gguf_type(file.type), !file.imatrix.empty());
      check_merged_gguf(recipe.adapter, targets);
    }
    if (file.format == "safetensors") {
      hf_type(*prepared.checkpoint, file.type);
      check_merged_gguf(recipe.adapter, targets);
    }
    // Measured on SmolLM2-135M: on the file's own blocks the adapter of an NF4 base is 0.4 nats from what was trained.
    if (file.beside_base() && !base_form(recipe).empty())
      fail(Exit::usage,
           "export.files: gguf_adapter, or merge: adapter: the adapter is trained on the base in {}, which llama.cpp "
           "does not have; on the "
           "file's own weights it is another model. Export a merged gguf instead, or use model.base: native",
           recipe.model.base);
    if (file.beside_base()) check_gguf_adapter(prepared.checkpoint->config(), recipe.adapter, targets);
    if (!file.imatrix.empty() && file.imatrix != "train") {
      if (!fs::exists(file.imatrix))
        fail(Exit::usage,
             "export.files: imatrix: {} is no file; allowed: train, or a file that llama-imatrix or Retort wrote",
             file.imatrix);
      read_imatrix(file.imatrix);
    }
  }
}

Imatrix training_imatrix(const Recipe& recipe, const Prepared& prepared, CausalLM& model) {
  const int64_t windows = std::min(recipe.export_.imatrix_windows, prepared.train->windows());
  int64_t next = 0;
  return collect_imatrix(
      model,
      [&](Batch& batch) {
        if (next == windows) return false;
        const int64_t window = next++;
        batch = prepared.train->batch({&window, 1});
        batch.ids = batch.ids.to(model.device());
        return true;
      },
      recipe.name);
}

static Json speed_json(const Speed& speed) {
  return {{"prompt_tokens_per_second", speed.prompt_tokens_per_second},
          {"generation_tokens_per_second", speed.generation_tokens_per_second},
          {"first_token_seconds", speed.first_token_seconds},
          {"memory_bytes", speed.memory_bytes}};
}

/// How far the merge alone is from the trained model: what is left without the rounding of a quantized file.
static Json merge_json(const GateReference& reference, const fs::path& merged, std::span<const GateRow> rows,
                       int threads) {
  GateReport report;
  compare_predictions(reference, {.path = merged, .type = "F32", .threads = threads}, rows, {}, {}, kGateTokens,
                      report);
  return {{"type", "F32"}, {"kl_mean", report.kl_mean}, {"kl_p99", report.kl_p99}, {"top1", report.top1}};
}

/// The system message that all rows have; empty when they have none or several.
static std::string system_of(std::span<const GateRow> rows) {
  std::set<std::string> found;
  for (const GateRow& row : rows) {
    const auto& messages = row.chat.messages;
    found.insert(!messages.empty() && messages.front().role == "system" ? messages.front().content : "");
  }
  return found.size() == 1 ? *found.begin() : "";
}

/// The base's file under another name, its bytes as they are: a link where nobody may write to it, else a copy.
static void ship_base(const fs::path& base, const fs::path& to) {
  const fs::path file = fs::canonical(base);
  std::error_code failed;
  fs::remove(to, failed);
  const bool read_only = (fs::status(file).permissions() & fs::perms::owner_write) == fs::perms::none;
  if (read_only) fs::create_hard_link(file, to, failed);
  if (read_only && !failed) return;
  AtomicFile copy(to);
  fs::copy_file(file, copy.temporary(), fs::copy_options::overwrite_existing, failed);
  if (failed) fail(Exit::io, "{}: cannot be written: {}", to.string(), failed.message());
  copy.commit();
}

bool export_and_gate(const Recipe& recipe, const Prepared& prepared, CausalLM& model, std::time_t now,
                     const RunFolder& folder, Json& report, const ProgressSink& sink) {
  const fs::path out = folder.path / "export";
  fs::create_directories(out);
  const Provenance provenance{
      .name = recipe.name,
      .license = recipe.license,
      .base = source_of(recipe, recipe.model.path).uri,
      .base_hash = prepared.checkpoint->hash(),
      .data = recipe.name,
      .data_hash = prepared.train->key(),
      .chat_template = recipe.data.chat_template.empty() ? "" : prepared.chat_template->source(),
      .version = version()};
  std::map<std::string, Imatrix> matrices;  // one collection serves every file
  const std::vector<GateRow> rows = gate_rows(recipe, prepared);
  const GateReference reference{*prepared.checkpoint, model, *prepared.tokenizer, *prepared.chat_template, now};
  Progress progress(sink);
  progress.start("export", recipe.export_.files.size());
  report["chat"]["system"] = system_of(rows);
  Json f32_merge;  // the same for every type
  bool all_passed = true;
  uint64_t done = 0;
  for (const ExportFile& file : recipe.export_.files) {
    Json entry;
    const Imatrix* imatrix = nullptr;
    if (file.format == "peft") {
      // The run's own adapter folder is the PEFT export.
      const fs::path weights = folder.path / "adapter/adapter_model.safetensors";
      entry = {{"format", "peft"}, {"type", "F32"}, {"path", "adapter"}, {"bytes", fs::file_size(weights)}};
    } else if (file.format == "gguf_adapter") {
      const ExportedFile made = export_gguf_adapter(out / (recipe.name + "-adapter.gguf"), model, provenance);
      entry = {{"format", made.format},
               {"type", made.type},
               {"path", fs::relative(made.path, folder.path).string()},
               {"bytes", made.bytes},
               {"bits_per_weight", made.bits_per_weight}};
    } else if (file.format == "safetensors") {
      const ExportedFile made = export_hf_folder(out / (recipe.name + "-hf"), *prepared.checkpoint, model,
                                                 {.type = file.type, .chat_template = provenance.chat_template});
      entry = {{"format", made.format},
               {"type", made.type},
               {"path", fs::relative(made.path, folder.path).string()},
               {"bytes", made.bytes},
               {"bits_per_weight", made.bits_per_weight}};
    } else if (file.merge == "adapter") {
      const ExportedFile made = export_gguf_adapter(out / (recipe.name + "-adapter.gguf"), model, provenance);
      const std::string type = main_type(prepared.checkpoint->gguf()->tensors());
      const fs::path base = out / fmt::format("{}-base-{}.gguf", recipe.name, type);
      ship_base(prepared.model_path, base);
      const auto bytes = static_cast<int64_t>(fs::file_size(base)) + made.bytes;
      int64_t weights = 0;
      for (const QuantizedTensor& tensor : prepared.checkpoint->gguf()->tensors()) weights += tensor.elements();
      entry = {{"format", "gguf"},
               {"type", type},
               {"path", fs::relative(base, folder.path).string()},
               {"adapter", fs::relative(made.path, folder.path).string()},
               {"bytes", bytes},
               {"bits_per_weight", 8.0 * static_cast<double>(bytes) / static_cast<double>(weights)}};
    } else {
      const GgufType& type = gguf_type(file.type);
      GgufOptions options{.threads = static_cast<int>(recipe.threads)};
      options.on_merged = [&](const fs::path& path) {
        if (!f32_merge.is_null() || rows.empty()) return;
        progress.update(done, "compare the merge");
        f32_merge = merge_json(reference, path, rows, static_cast<int>(recipe.threads));
      };
      if (!file.imatrix.empty()) {
        auto [matrix, fresh] = matrices.try_emplace(file.imatrix);
        if (fresh)
          matrix->second =
              file.imatrix == "train" ? training_imatrix(recipe, prepared, model) : read_imatrix(file.imatrix);
        options.imatrix = imatrix = &matrix->second;
      }
      const ExportedFile made = export_gguf(out / fmt::format("{}-{}.gguf", recipe.name, type.name),
                                            *prepared.checkpoint, model, type, provenance, options);
      entry = {{"format", made.format},
               {"type", made.type},
               {"path", fs::relative(made.path, folder.path).string()},
               {"bytes", made.bytes},
               {"bits_per_weight", made.bits_per_weight},
               {"imatrix", file.imatrix.empty() ? "none" : file.imatrix}};
      if (type.name != std::string("F32") && !f32_merge.is_null()) entry["f32_merge"] = f32_merge;
    }
    // An adapter file is served with its base, so only a GGUF base can be gated with it.
    const bool adapter = file.beside_base() && prepared.checkpoint->is_gguf();
    if (file.format == "gguf" || adapter) {
      const char* made = file.merge == "adapter" ? "adapter" : "path";  // what the gate may refuse
      fs::path path = folder.path / entry[made].get<std::string>();
      progress.update(done, "gate " + entry["type"].get<std::string>());
      const GateFile shipped{
          .path = adapter ? prepared.model_path : path,
          .adapter = adapter ? path : fs::path(),
          .type = adapter ? main_type(prepared.checkpoint->gguf()->tensors()) : entry["type"].get<std::string>(),
          .threads = static_cast<int>(recipe.threads),
          .imatrix = imatrix};
      const GateReport gated = gate(reference, shipped, rows, recipe.export_.gate.max_kl, recipe.export_.gate.min_top1);
      entry["gate"] = gated.to_json();
      if (!gated.passed) {
        all_passed = false;
        const fs::path refused = fs::path(path).replace_extension(".refused.gguf");
        fs::rename(path, refused);
        entry[made] = fs::relative(refused, folder.path).string();
        path = refused;
        for (const std::string& reason : gated.reasons) log::error("the gate refused {}: {}", path.string(), reason);
      } else {
        entry["speed"] = speed_json(measure_speed(shipped.path, static_cast<int>(recipe.threads), shipped.adapter));
      }
      entry["sha256"] = sha256_file(folder.path / entry["path"].get<std::string>());
      if (file.merge == "adapter") entry["adapter_sha256"] = sha256_file(path);
    }
    report["export"].push_back(entry);
    progress.update(++done);
  }
  progress.finish();
  return all_passed;
}

}  // namespace retort
