// A student out of a teacher: fewer layers, a narrower MLP, a smaller vocabulary, chosen by what the domain's rows
// need.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/progress.h"
#include "core/schema.h"
#include "recipes/recipe.h"

namespace retort {

/// Which layers stay: those of a list, or `count` of them.
struct PruneLayers {
  std::vector<int64_t> keep;     ///< ascending, from 0
  std::optional<int64_t> count;  ///< instead of a list
  std::string by = "even";       ///< even (first and last stay) | kl (greedily, those whose removal costs least)
};

/// Which channels of each MLP stay: those that contribute most to its output on the calibration rows.
struct PruneMlp {
  int64_t size = 0;       ///< channels kept, rounded down to a multiple
  int64_t multiple = 32;  ///< 256: rows of down_proj stay whole blocks of K-quants
};

/// Which tokens stay: those that occur in data.train, and what closed_under_merges adds.
struct PruneVocabulary {
  int64_t min_count = 1;
};

struct PruneOptions {
  std::optional<PruneLayers> layers;
  std::optional<PruneMlp> mlp;
  std::optional<PruneVocabulary> vocabulary;
  int64_t calibration_tokens = 2048;  ///< of data.train: what importance is measured on
};

struct PruneModel {
  std::string path;  ///< as ModelOptions::path
};

struct PruneRecipe {
  std::string name;
  std::string device = "auto";
  int64_t threads = 0;
  std::map<std::string, NamedSource> sources;
  PruneModel model;
  DataOptions data;
  PruneOptions prune;
  std::string type;  ///< F32, BF16 or F16; empty: a folder's own, F32 for a GGUF file
  std::filesystem::path output;

  std::filesystem::path file;
};
const Schema<PruneRecipe>& schema_of(PruneRecipe*);

/// Error(usage) with file:line.
PruneRecipe load_prune_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

/// Makes the student and writes it to recipe.output as a Hugging Face folder; gives what prune.json in it holds:
/// {"layers": {"kept", "steps"}, "mlp", "vocabulary", "parameters": {"before", "after"},
///  "validation": {"before", "after"}, …}. What the model cannot give is refused (Error(usage)) before anything is
/// measured; nothing is written until all of it is there.
Json prune_model(const PruneRecipe& recipe, const ProgressSink& progress);

}  // namespace retort
