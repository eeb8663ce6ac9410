// From a recipe to everything that training and checking need: files fetched, model and tokenizer opened, rows packed.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/progress.h"
#include "data/chat_template.h"
#include "data/dataset.h"
#include "data/dataset_cache.h"
#include "data/guard_run.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "models/causal_lm.h"
#include "models/checkpoint.h"
#include "recipes/recipe.h"
#include "trainer/fit.h"

namespace retort {

struct Prepared {
  std::time_t now = 0;  ///< the date that chat templates print
  std::filesystem::path model_path;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  std::vector<DatasetOptions> train_files, validation_files;  ///< of the recipe, with local paths
  std::string train_hash, validation_hash;                    ///< train_hash: of the rows that the guards let pass
  std::function<Stream<Chat>()> train_rows;                   ///< those rows, from the beginning at each call
  GuardTotals guards;
  std::filesystem::path audit;                       ///< every finding of theirs, JSON Lines
  std::unique_ptr<PackedDataset> train, validation;  ///< validation: null when the recipe has none
};

/// Fetches and opens everything. `now` is the date that a chat template may print; a resumed run gives the first
/// start's. Errors as the parts throw them; each names file, key or row.
Prepared prepare(const Recipe& recipe, std::time_t now, const ProgressSink& progress);

/// The recipe's train block with what train.fit chooses for the model with its adapters; the block itself without it.
/// With `folder` the choice is written there as fit.json, and one that is there is taken, so that a run that goes on
/// trains as it began.
Fit fitted(const Recipe& recipe, const Prepared& prepared, CausalLM& model, const std::filesystem::path& folder = {});

/// Data sets of the recipe with their sources fetched.
std::vector<DatasetOptions> with_local_paths(const Recipe& recipe, std::vector<DatasetOptions> files,
                                             const ProgressSink& progress);

/// All rows of several data sets, one after the other.
Stream<Chat> chats_of(const std::vector<DatasetOptions>& files);

/// The recipe's device and types resolved on this machine. Error(usage) when the device is not there.
/// The format that the base is quantized to while it is read, as bnb_options names it; empty: it is not.
std::string base_form(const Recipe& recipe);
LoadOptions load_options(const Recipe& recipe);

/// The Jinja text of data.chat_template; empty: the model's own is used.
std::string chat_template_of(const Recipe& recipe);

EncodeOptions encode_options(const Recipe& recipe);

}  // namespace retort
