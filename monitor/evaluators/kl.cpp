// How far the file's predictions are from another file's: the champion's, or a reference that was not quantized.
#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "models/served.h"
#include "monitor/binning.h"
#include "monitor/evaluate.h"
#include "monitor/targets.h"

namespace retort {
namespace {

struct Options : EvaluatorOptions {
  std::string reference;
};
const Schema<Options>& schema_of(Options*) {
  static const auto schema =
      evaluator_schema<Options>("")
          .field("reference", &Options::reference, "the GGUF file to compare with: a source's name, a URI or a path",
                 {.required = true})
          .renamed("champion", "reference: the champion's file; give it `name: kl_to_champion`");
  return schema;
}

/// KL(reference || model) in nats at each position, and whether both have the same most likely token.
struct Compared {
  std::vector<double> kl;
  int64_t agreed = 0;
};
void compare(const at::Tensor& reference, const at::Tensor& model, Compared& row) {
  const at::Tensor p = at::log_softmax(reference.to(at::kDouble), 1), q = at::log_softmax(model.to(at::kDouble), 1);
  const at::Tensor kl = (p.exp() * (p - q)).sum(1).contiguous();
  row.kl.insert(row.kl.end(), kl.const_data_ptr<double>(), kl.const_data_ptr<double>() + kl.numel());
  row.agreed += (p.argmax(1) == q.argmax(1)).sum().item<int64_t>();
}

std::vector<Compared> compare(ServedModel& reference, ServedModel& model, std::span<const EvaluationRow> rows) {
  constexpr size_t kGroupPositions = 512;  // whose logits of one model are in memory at once
  std::vector<Compared> result(rows.size());
  for (size_t first = 0, last = 0; first < rows.size(); first = last) {
    std::vector<ServedRequest> requests;
    for (size_t positions = 0; last < rows.size(); ++last) {
      const Targets targets = trained_targets(rows[last].example);
      if (targets.ids.empty()) fail(Exit::bad_input, "{}: kl needs a trained token", rows[last].place);
      positions += targets.ids.size();
      if (last > first && positions > kGroupPositions) break;
      requests.push_back({rows[last].example.ids, targets.positions});
    }
    std::vector<at::Tensor> expected(requests.size());
    reference.run(requests, [&](size_t i, const at::Tensor& logits) { expected[i] = logits.clone(); });
    model.run(requests, [&](size_t i, const at::Tensor& logits) { compare(expected[i], logits, result[first + i]); });
  }
  return result;
}

std::vector<Evaluation> measure(const EvaluatorOptions& options, const Measured& measured) {
  if (measured.rows.empty()) fail(Exit::bad_input, "evaluate: kl: the {} data has no rows", options.data);
  const std::filesystem::path path = measured.resolve(static_cast<const Options&>(options).reference);
  const auto tokenizer = Tokenizer::open(path);
  const auto reference = ServedModel::open(path, {.threads = measured.model.options().threads, .exact = true});
  if (reference->vocab() != measured.model.vocab() || tokenizer->hash() != measured.tokenizer.hash()) {
    fail(Exit::bad_input,
         "{}: kl compares the probabilities of the same tokens, and this reference has another vocabulary ({} tokens) "
         "than {} ({}); bits_per_byte compares such models",
         path.string(), reference->vocab(), measured.model.path().string(), measured.model.vocab());
  }
  std::vector<RowScore> scores;
  std::vector<double> all;
  const std::vector<Compared> compared = compare(*reference, measured.model, measured.rows);
  for (size_t i = 0; i < compared.size(); ++i) {
    RowScore score{0, static_cast<double>(compared[i].kl.size()), {}};
    score.figures = {static_cast<double>(compared[i].agreed), score.denominator};
    for (double kl : compared[i].kl) score.numerator += kl;
    if (!std::isfinite(score.numerator))
      fail(Exit::bad_input, "{}: kl: the logits of {} or of {} for this row are not finite numbers",
           measured.rows[i].place, measured.model.path().string(), path.string());
    scores.push_back(score);
    all.insert(all.end(), compared[i].kl.begin(), compared[i].kl.end());
  }
  Evaluation result;
  estimate_ratio(scores, result);
  result.details = {
      {"reference", path.filename().string()}, {"p99", quantile(values_of(all), 0.99)}, {"tokens", all.size()}};
  add_ratio("same_most_likely", scores, 0, 1, result.details);
  return {result};
}

}  // namespace

extern const EvaluatorKind evaluator_kl;
const EvaluatorKind evaluator_kl{
    .summary =
        "KL divergence from another GGUF file's predictions of the trained tokens, the champion's or a reference's",
    .unit = "nats",
    .better = -1,
    .schema = evaluator_schema_of<Options>,
    .read = read_evaluator_options<Options>,
    .measure = measure,
    .check = [](const EvaluatorOptions& options,
                const std::function<std::filesystem::path(const std::string&)>& resolve) {
      Tokenizer::open(resolve(static_cast<const Options&>(options).reference));
    }};

}  // namespace retort
