// What follows training: measuring, exporting and gating. Each stage adds its part to report.json's object.
#pragma once

#include <chrono>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/progress.h"
#include "export/imatrix.h"
#include "models/causal_lm.h"
#include "monitor/evaluate.h"
#include "recipes/prepare.h"
#include "recipes/recipe.h"
#include "recipes/run_folder.h"

namespace retort {

/// Seconds since it was made.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// The held-out rows that evaluators look at: as many as any of them asks for. Error(bad_input) naming a row that one
/// of them cannot take.
std::vector<EvaluationRow> evaluation_rows(const Recipe& recipe, const Prepared& prepared);

/// A path in an evaluator's options: a source's name, a URI or a file.
Resolve resolver_of(const Recipe& recipe);

/// Evaluates a GGUF file in llama.cpp, with a GGUF adapter when one is given; appends to report["evaluate"] and gives
/// greedy answers for the report's samples.
std::vector<Sample> evaluate_file(const Recipe& recipe, const Prepared& prepared,
                                  const std::vector<EvaluationRow>& rows, const std::filesystem::path& file,
                                  const std::filesystem::path& adapter, const std::string& on, Json& report,
                                  const ProgressSink& progress);
/// The same for a file that is served already, without samples.
void evaluate_served(const Recipe& recipe, const Prepared& prepared, const std::vector<EvaluationRow>& rows,
                     ServedModel& model, const std::string& on, Json& report, const ProgressSink& progress);
/// The same for the trainer's model: evaluators of rows alone, without free answers or samples.
void evaluate_model(const Recipe& recipe, const Prepared& prepared, const std::vector<EvaluationRow>& rows,
                    CausalLM& model, const std::string& on, Json& report, const ProgressSink& progress);

/// `imatrix: train`: the importance matrix of the first export.imatrix_windows windows of the training data.
Imatrix training_imatrix(const Recipe& recipe, const Prepared& prepared, CausalLM& model);

/// Writes export.files into <folder>/export, reads each GGUF again, gates it and measures its speed; fills
/// report["export"]. True when every file passed. A refused file is renamed to *.refused.gguf; of a base with an
/// adapter beside it that is the adapter.
bool export_and_gate(const Recipe& recipe, const Prepared& prepared, CausalLM& model, std::time_t now,
                     const RunFolder& folder, Json& report, const ProgressSink& progress);

/// What is trained, grouped by the module's last name: [{"name", "count", "shape", "parameters"}].
Json targets_of(CausalLM& model);

/// Error(usage) for ranks that no weight has and for every export that cannot work, before anything is trained.
void check_against_model(const Recipe& recipe, const Prepared& prepared, CausalLM& model);

}  // namespace retort
