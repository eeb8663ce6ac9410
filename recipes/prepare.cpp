#include "recipes/prepare.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "core/cpu.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/sources.h"
#include "models/quantized_checkpoint.h"
#include "recipes/guards.h"

namespace retort {

static std::filesystem::path fetch(const Recipe& recipe, const std::string& path, const ProgressSink& progress) {
  Progress shown(progress);
  return pull(source_of(recipe, path), {.progress = &shown});
}

std::vector<DatasetOptions> with_local_paths(const Recipe& recipe, std::vector<DatasetOptions> files,
                                             const ProgressSink& progress) {
  for (DatasetOptions& file : files)
    resolve_paths(file, [&](const std::string& path) { return fetch(recipe, path, progress); });
  return files;
}

static std::string hash_of(const std::vector<DatasetOptions>& files) {
  Sha256 hash;
  for (const DatasetOptions& file : files) hash.update(dataset_hash(file));
  return hash.hex();
}

Stream<Chat> chats_of(const std::vector<DatasetOptions>& files) {
  auto open = std::make_shared<Stream<Chat>>();
  return [files, open, next = size_t{0}](Chat& chat) mutable {
    for (;;) {
      if (*open && (*open)(chat)) return true;
      if (next == files.size()) return false;
      *open = open_chats(files[next++]);
    }
  };
}

std::string chat_template_of(const Recipe& recipe) {
  return recipe.data.chat_template.empty() ? "" : read_text(recipe.data.chat_template, 1 << 20);
}

EncodeOptions encode_options(const Recipe& recipe) {
  return {.max_length = recipe.data.max_length,
          .train_on = train_on_from(recipe.data.train_on),
          .truncation = truncation_from(recipe.data.truncation)};
}

std::string base_form(const Recipe& recipe) {
  const std::string& base = recipe.model.base;
  if (base == "native" || base == "f32" || base == "bf16") return "";
  const bool four_bits = base == "nf4" || base == "fp4";
  return four_bits && recipe.model.double_quantization ? base + "_dq" : base;
}

LoadOptions load_options(const Recipe& recipe) {
  LoadOptions options;
  const std::string& device = recipe.device;
  const bool cuda = at::hasCUDA();
  if (device == "auto")
    options.device = cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  else if (device == "cpu")
    options.device = at::kCPU;
  else if (device == "cuda" || device.starts_with("cuda:"))
    options.device = at::Device(device == "cuda" ? "cuda:0" : device);
  else
    fail(Exit::usage, "device: \"{}\"; allowed: auto, cpu, cuda, cuda:N", device);
  if (options.device.is_cuda() && !cuda)
    fail(Exit::usage, "device: {}, but this build sees no CUDA device. Use device: auto or cpu", device);
  const bool bf16 = recipe.model.dtype == "bf16" || (recipe.model.dtype == "auto" && options.device.is_cuda());
  if (bf16 && options.device.is_cpu() && !cpu().avx512_bf16 && !cpu().amx_bf16)
    fail(Exit::usage,
         "model.dtype: bf16 on a processor without bf16 instructions ({}) is several times slower than f32. Use dtype: "
         "f32",
         cpu().model);
  options.dtype = bf16 ? at::kBFloat16 : at::kFloat;
  options.base = recipe.model.base == "f32" || recipe.model.base == "bf16" ? BaseForm::dense : BaseForm::native;
  if (recipe.model.base == "bf16" && !bf16)
    fail(Exit::usage, "model.base: bf16 needs dtype: bf16. Use base: f32 or native for dtype: {}", recipe.model.dtype);
  return options;
}

Fit fitted(const Recipe& recipe, const Prepared& prepared, CausalLM& model, const std::filesystem::path& folder) {
  if (!recipe.train.fit) return {.options = recipe.train};
  const std::filesystem::path file = folder / "fit.json";
  if (!folder.empty() && std::filesystem::exists(file))
    return Fit::from_json(read_json(file), recipe.train, file.string());
  const Fit fit =
      fit_training(model, *prepared.train, prepared.validation.get(), recipe.train, static_cast<uint64_t>(recipe.seed));
  if (!folder.empty()) write_json(file, fit.to_json());
  return fit;
}

Prepared prepare(const Recipe& recipe, std::time_t now, const ProgressSink& progress) {
  Prepared prepared;
  prepared.now = now;
  if (recipe.threads > 0) at::set_num_threads(static_cast<int>(recipe.threads));
  prepared.model_path = fetch(recipe, recipe.model.path, progress);
  prepared.train_files = with_local_paths(recipe, recipe.data.train, progress);
  prepared.validation_files = with_local_paths(recipe, recipe.data.validation, progress);
  prepared.checkpoint = open_checkpoint(prepared.model_path, base_form(recipe));
  prepared.tokenizer = Tokenizer::open(prepared.model_path);
  prepared.chat_template = std::make_unique<ChatTemplate>(*prepared.tokenizer, chat_template_of(recipe), now);

  const PackedOptions options{.encode = encode_options(recipe), .packing = recipe.data.packing};
  const auto build = [&](const Stream<Chat>& rows, const std::string& hash) {
    return build_dataset(rows, *prepared.tokenizer, *prepared.chat_template, options, hash);
  };
  prepared.validation_hash = hash_of(prepared.validation_files);
  const GuardPass pass = guard_pass(recipe, prepared.train_files, prepared.validation_files, progress);
  prepared.train_hash = guarded_hash(pass, hash_of(prepared.train_files), prepared.validation_hash);
  prepared.train_rows = [pass] { return guarded(pass, std::make_shared<GuardTotals>()); };
  RecordedPass recorded(pass, prepared.train_hash);
  prepared.train = build(recorded.rows(), prepared.train_hash);
  prepared.guards = recorded.totals();
  prepared.audit = recorded.audit();
  if (!prepared.validation_files.empty())
    prepared.validation = build(chats_of(prepared.validation_files), prepared.validation_hash);
  return prepared;
}

}  // namespace retort
