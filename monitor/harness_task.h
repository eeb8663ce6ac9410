// Tasks in the form of lm-evaluation-harness' YAML files: multiple choice and generation on local data. The subset that
// is read is in docs/evaluation.md; every other key is an error.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "monitor/evaluate.h"

namespace re2 {
class RE2;
}

namespace retort {

/// One step of a filter_list's entry.
struct HarnessFilter {
  std::string function;
  std::shared_ptr<const re2::RE2> pattern = nullptr;  ///< of regex
  int64_t group_select = 0;                           ///< of all matches; -1: the last
  std::string fallback = "[invalid]";                 ///< when nothing matches
};
struct HarnessPipeline {
  std::string name;
  std::vector<HarnessFilter> filters;
};
/// What a pipeline makes of an answer.
std::string filtered(const HarnessPipeline& pipeline, std::string answer);

/// A row of the task's test split.
struct HarnessDocument {
  std::string place, prompt, target;
  std::vector<std::string> choices;  ///< of multiple choice
  std::string question;              ///< the end of the prompt: without description and worked examples
};

struct HarnessTask {
  std::string name;
  bool multiple_choice = false;
  std::string target_delimiter;
  std::vector<std::string> until;  ///< of generation
  int64_t max_tokens = 256;
  std::vector<HarnessPipeline> pipelines;  ///< at least one of generation; the first may do nothing
  std::vector<Evaluator> metrics;          ///< called as in metric_list
  std::vector<HarnessDocument> documents;
};

/// Reads the task and the first `limit` rows of its data (0: all). Paths in dataset_kwargs.data_files are looked for
/// from the working directory, then beside the task's file. Error(usage) with file:line for the task, Error(bad_input)
/// with file:line for a row.
HarnessTask load_harness_task(const std::filesystem::path& path, int64_t limit = 0);

/// The rows as evaluators take them: the prompt as text without a chat template, each choice after target_delimiter,
/// the border between both tokenized as the harness does.
std::vector<EvaluationRow> harness_rows(const HarnessTask& task, const Tokenizer& tokenizer);

/// Every metric of every pipeline, in one pass over the model: kind, name ("acc", or "exact_match,words" where there
/// are several pipelines) and data (the task's name) are filled in.
std::vector<Evaluation> evaluate_harness_task(const HarnessTask& task, std::span<const EvaluationRow> rows,
                                              const Predictor& predictor);

}  // namespace retort
