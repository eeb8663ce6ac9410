#include "recipes/recipe.h"

#include "adapters/attach.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/yaml_tree.h"
#include "data/encode.h"

namespace retort {

void from_yaml(const Yaml& node, NamedSource& source) {
  if (node.is_scalar()) {
    source.uri = node.as_string();
    return;
  }
  for (const auto& [key, value] : node.entries()) {
    if (key == "uri")
      source.uri = value.as_string();
    else if (key == "sha256")
      source.sha256 = value.as_string();
    else
      value.refuse("unknown key; allowed: uri, sha256");
  }
  if (source.uri.empty()) node.refuse("a source needs a uri: pypi:, deb:, hf://, https:// or a path");
}

Json json_schema_of(NamedSource*) {
  return {{"oneOf",
           {{{"type", "string"}},
            {{"type", "object"},
             {"properties", {{"uri", {{"type", "string"}}}, {"sha256", {{"type", "string"}}}}},
             {"required", {"uri"}},
             {"additionalProperties", false}}}}};
}

Json json_of(const NamedSource& source) {
  Json value = {{"uri", source.uri}};
  if (!source.sha256.empty()) value["sha256"] = source.sha256;
  return value;
}

const Schema<ModelOptions>& schema_of(ModelOptions*) {
  using O = ModelOptions;
  static const auto schema =
      Schema<O>("model", "The base: what the adapter is trained on.")
          .field("path", &O::path, "a source's name, a URI, a GGUF file or a Hugging Face folder", {.required = true})
          .field("base", &O::base,
                 "native: keep the file's own blocks in memory and dequantize a weight when it is used; nf4, fp4, int8 "
                 "(LLM.int8's rows), int8_blocks: quantize the linear layers while reading, as bitsandbytes does",
                 {.one_of = {"native", "f32", "bf16", "nf4", "fp4", "int8", "int8_blocks"}})
          .field("double_quantization", &O::double_quantization,
                 "nf4 and fp4: the scales in 8 bits too, 4.127 bits a weight instead of 4.5")
          .field("dtype", &O::dtype, "type of the computation; auto: f32 on a processor, bf16 on a GPU",
                 {.one_of = {"auto", "f32", "bf16"}})
          .renamed("base_model", "path")
          .renamed("model_name_or_path", "path")
          .renamed("name", "path")
          .renamed("torch_dtype", "dtype")
          .renamed("bnb_4bit_use_double_quant", "double_quantization");
  return schema;
}

const Schema<DataOptions>& schema_of(DataOptions*) {
  using O = DataOptions;
  static const auto schema =
      Schema<O>("data", "What is trained on, and what is held out.")
          .field("max_length", &O::max_length, "tokens in a window, and the longest row",
                 {.minimum = 8, .maximum = 1 << 20})
          .field("packing", &O::packing, "several whole rows in a window; they never attend to each other")
          .field("train_on", &O::train_on, "which turns are trained",
                 {.one_of = {"assistant", "last_assistant", "all"}})
          .field("truncation", &O::truncation,
                 "what happens to a row above max_length: cut its end (an error when no trained token is left), its "
                 "beginning, "
                 "drop the row, or stop",
                 {.one_of = {"right", "left", "drop", "error"}})
          .field("chat_template", &O::chat_template, "a file with a Jinja chat template, instead of the model's own")
          .field("train", &O::train, "data sets to train on", {.required = true})
          .field("validation", &O::validation,
                 "held-out data sets: for the validation loss, the gate and the evaluators")
          .field("guards", &O::guards, "what the training rows are searched for (docs/guards.md)")
          .renamed("sequence_len", "max_length")
          .renamed("max_seq_length", "max_length")
          .renamed("cutoff_len", "max_length")
          .renamed("sample_packing", "packing")
          .renamed("datasets", "train")
          .renamed("dataset", "train")
          .renamed("test", "validation")
          .renamed("eval", "validation");
  return schema;
}

const Schema<ExportFile>& schema_of(ExportFile*) {
  using O = ExportFile;
  static const auto schema =
      Schema<O>("file", "One file to export.")
          .field("format", &O::format,
                 "peft: adapter folder; gguf_adapter: for llama.cpp's --lora; gguf: merged model; safetensors: merged "
                 "model as a Hugging Face folder",
                 {.one_of = {"peft", "gguf_adapter", "gguf", "safetensors"}, .required = true})
          .field("type", &O::type,
                 "of a gguf: F32, BF16, F16, or a llama.cpp quantization such as Q8_0, Q4_K_M, IQ4_XS; of safetensors: "
                 "F32, BF16 or F16, and without one a folder's own, F32 for a GGUF base")
          .field("imatrix", &O::imatrix, "importance matrix of a gguf: train (collected on training rows), or a file")
          .field(
              "merge", &O::merge,
              "of a gguf: requantize (add the adapter to the weights, quantize them to type), or adapter (the base's "
              "own GGUF file as it is, and the adapter for llama.cpp's --lora beside it)",
              {.one_of = {"requantize", "adapter"}})
          .rule([](const O& file, const Yaml& node) {
            if (file.format != "gguf" && file.merge == "adapter") node.refuse("merge belongs to format: gguf");
            if (file.merge == "adapter" && (!file.type.empty() || !file.imatrix.empty()))
              node.refuse("merge: adapter leaves the base's bytes alone: it takes neither type nor imatrix");
            if (file.format == "gguf" && file.merge == "requantize" && file.type.empty())
              node.refuse("format: gguf needs a type, for instance Q4_K_M");
            if (file.format == "safetensors" && !file.type.empty() && file.type != "F32" && file.type != "BF16" &&
                file.type != "F16")
              node["type"].refuse("of safetensors: F32, BF16 or F16; a quantized model is format: gguf");
            if (file.format != "gguf" && !file.imatrix.empty()) node.refuse("imatrix belongs to format: gguf");
            if (file.format != "gguf" && file.format != "safetensors" && !file.type.empty())
              node.refuse("type belongs to format: gguf, or safetensors");
          });
  return schema;
}

const Schema<GateOptions>& schema_of(GateOptions*) {
  using O = GateOptions;
  static const auto schema =
      Schema<O>("gate", "Limits that every exported file must keep, compared with the trainer on held-out rows.")
          .field("max_kl", &O::max_kl, "mean KL divergence in nats a token", {.minimum = 0})
          .field("min_top1", &O::min_top1, "share of tokens with the same most probable successor",
                 {.minimum = 0, .maximum = 1})
          .field("rows", &O::rows, "held-out rows to compare on", {.minimum = 1});
  return schema;
}

const Schema<ExportOptions>& schema_of(ExportOptions*) {
  using O = ExportOptions;
  static const auto schema =
      Schema<O>("export", "What is written after training, and what it must keep.")
          .field("files", &O::files, "the files, in order")
          .field("gate", &O::gate, "limits")
          .field("imatrix_windows", &O::imatrix_windows, "windows of training data for imatrix: train", {.minimum = 1});
  return schema;
}

const Schema<Recipe>& schema_of(Recipe*) {
  using O = Recipe;
  static const auto schema =
      Schema<O>("recipe", "Everything that a run does.")
          .field("name", &O::name, "names the run's folder and the exported files", {.required = true})
          .field("seed", &O::seed, "of the adapter's start, the order of rows and dropout", {.minimum = 0})
          .field("device", &O::device, "auto, cpu, cuda or cuda:N")
          .field("threads", &O::threads, "of the processor; 0: one a core", {.minimum = 0, .maximum = 4096})
          .field("output_dir", &O::output_dir, "runs/<name>/<time>-<hash>/ are made in it")
          .field("license", &O::license, "SPDX name written into exported files; empty: the base's")
          .field("sources", &O::sources, "names for things to fetch: {uri, sha256} or a URI")
          .field("model", &O::model, "the base", {.required = true})
          .field("adapter", &O::adapter, "what is trained")
          .field("data", &O::data, "rows", {.required = true})
          .field("train", &O::train, "how")
          .field("distill", &O::distill, "a teacher, and what is learned from it")
          .field("export", &O::export_, "files")
          .field("evaluate", &O::evaluate, "what is measured on the base, the trained model and each exported gguf")
          .field("drift", &O::drift, "what is watched when the model is in use: `retort drift`")
          .field("retrain", &O::retrain, "when a new model is due, and what it must not lose: `retort retrain`")
          .renamed("base_model", "model.path")
          .renamed("model_name_or_path", "model.path")
          .renamed("datasets", "data.train")
          .renamed("learning_rate", "train.learning_rate")
          .renamed("lora_r", "adapter.r")
          .renamed("lora_rank", "adapter.r")
          .renamed("lora_alpha", "adapter.lora_alpha")
          .renamed("lora_target", "adapter.target_modules")
          .renamed("sequence_len", "data.max_length")
          .renamed("cutoff_len", "data.max_length")
          .renamed("num_train_epochs", "train.num_train_epochs")
          .renamed("num_epochs", "train.num_train_epochs");
  return schema;
}

Recipe load_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  const Yaml yaml = Yaml::load(path, overrides);
  Recipe recipe = from_yaml<Recipe>(yaml);
  recipe.file = path;
  recipe.text = stored_yaml(read_text(path), path.string(), overrides);
  recipe.hash = sha256_hex(yaml.dump());
  if (recipe.name.empty() || recipe.name[0] == '.' || recipe.name.find_first_of("/\\\n") != std::string::npos)
    yaml["name"].refuse("a name must not be empty, start with a dot or hold a slash: it becomes a folder");
  adapter_kind(recipe.adapter.kind);
  check_options(recipe.adapter);
  check_validation(recipe.train, !recipe.data.validation.empty());
  if (recipe.data.train.empty()) yaml["data"]["train"].refuse("at least one data set is needed");
  if (!recipe.evaluate.empty() && recipe.data.validation.empty())
    yaml["evaluate"].refuse("evaluators need data.validation");
  const bool exports_gguf = std::any_of(recipe.export_.files.begin(), recipe.export_.files.end(),
                                        [](const ExportFile& file) { return file.format.starts_with("gguf"); });
  if (exports_gguf && recipe.data.validation.empty())
    yaml["export"].refuse("the gate compares exported files on held-out rows: give data.validation");
  return recipe;
}

Source source_of(const Recipe& recipe, const std::string& path) {
  const auto named = recipe.sources.find(path);
  if (named != recipe.sources.end())
    return {.uri = named->second.uri, .sha256 = named->second.sha256, .name = named->first};
  return {.uri = path, .sha256 = "", .name = ""};
}

std::string recipe_reference() {
  return "# The recipe\n\nGenerated from the schema by `retort schema --markdown`; do not edit.\n\n"
         "`key=value` after the recipe on the command line overrides a key: `train.learning_rate=1e-4`. `${a.b}` takes "
         "the value "
         "of another key, `${env:NAME}` an environment variable.\n\n" +
         schema_of(static_cast<Recipe*>(nullptr)).markdown();
}

}  // namespace retort
