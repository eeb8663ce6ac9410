// A recipe: everything that a run does, read strictly from one YAML file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "adapters/options.h"
#include "core/schema.h"
#include "core/sources.h"
#include "data/dataset.h"
#include "data/guard.h"
#include "monitor/drift_options.h"
#include "monitor/evaluator.h"
#include "recipes/distill_options.h"
#include "recipes/retrain_options.h"
#include "trainer/options.h"

namespace retort {

/// A name for something to fetch. In a recipe: a mapping, or the URI alone.
struct NamedSource {
  std::string uri;
  std::string sha256;  ///< 64 hexadecimal digits; empty: not checked
};
void from_yaml(const Yaml& node, NamedSource& source);
Json json_schema_of(NamedSource*);
Json json_of(const NamedSource& source);

struct ModelOptions {
  std::string path;                 ///< a source's name, a URI or a path: GGUF file or Hugging Face folder
  std::string base = "native";      ///< native (the file's own blocks) | f32 | bf16 | nf4 | fp4 | int8 | int8_blocks
  bool double_quantization = true;  ///< of nf4 and fp4
  std::string dtype = "auto";       ///< compute type: auto | f32 | bf16
};

struct DataOptions {
  int64_t max_length = 512;
  bool packing = true;
  std::string train_on = "assistant";
  std::string truncation = "right";
  std::string chat_template;  ///< a Jinja file instead of the model's own
  std::vector<DatasetOptions> train, validation;
  GuardsOptions guards;  ///< what the training rows are searched for
};
const Schema<DataOptions>& schema_of(DataOptions*);

struct ExportFile {
  std::string format;                ///< peft | gguf_adapter | gguf | safetensors
  std::string type;                  ///< of gguf: F32, Q8_0, Q4_K_M …; of safetensors: F32, BF16, F16
  std::string imatrix;               ///< of gguf: "" (none), "train", or a file
  std::string merge = "requantize";  ///< of gguf: requantize, or adapter: the base's own file and the adapter beside it
  /// Whether the adapter stays apart from the base's weights.
  bool beside_base() const { return format == "gguf_adapter" || merge == "adapter"; }
};

struct GateOptions {
  std::optional<double> max_kl;    ///< nats; nothing: by the file's type
  std::optional<double> min_top1;  ///< 0 to 1; nothing: by the file's type
  int64_t rows = 64;
};

struct ExportOptions {
  std::vector<ExportFile> files;
  GateOptions gate;
  int64_t imatrix_windows = 64;
};

struct Recipe {
  std::string name;
  int64_t seed = 42;
  std::string device = "auto";  ///< auto | cpu | cuda[:N]
  int64_t threads = 0;          ///< 0: one a core
  std::filesystem::path output_dir = "runs";
  std::map<std::string, NamedSource> sources;
  ModelOptions model;
  AdapterOptions adapter;
  DataOptions data;
  TrainOptions train;
  std::optional<DistillOptions> distill;  ///< nothing: cross entropy alone
  ExportOptions export_;
  std::vector<Evaluator> evaluate;
  std::optional<DriftOptions> drift;      ///< what `retort drift` watches
  std::optional<RetrainOptions> retrain;  ///< what `retort retrain` does
  std::string license;                    ///< of the result, for the files' metadata; empty: the base's

  std::filesystem::path file;  ///< the recipe's own path
  std::string text;            ///< overrides and interpolation applied, but for ${env:NAME}: it is stored and shown
  std::string hash;            ///< SHA-256 of the text with these too
};

const Schema<Recipe>& schema_of(Recipe*);

/// Reads, applies key=value overrides and checks everything that needs no file: Error(usage) with file:line.
Recipe load_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

/// What a path in a recipe means: a source's name, a URI, or a path relative to the working directory.
Source source_of(const Recipe& recipe, const std::string& path);

/// docs/recipe.md, from the schema.
std::string recipe_reference();

}  // namespace retort
