#include "export/gate.h"

#include <cmath>

#include "core/error.h"

namespace retort {

Json GateReport::to_json() const {
  Json json{{"passed", passed},
            {"type", type},
            {"kl_mean", kl_mean},
            {"kl_p99", kl_p99},
            {"top1", top1},
            {"delta_perplexity", perplexity_shipped - perplexity_trained},
            {"rows", rows},
            {"positions", positions},
            {"perplexity", {{"trained", perplexity_trained}, {"shipped", perplexity_shipped}}},
            {"stops", {{"trained", stops_trained}, {"shipped", stops}}},
            {"texts", texts},
            {"limits", {{"max_kl", limits.max_kl}, {"max_kl_p99", limits.max_kl_p99}, {"min_top1", limits.min_top1}}},
            {"reasons", reasons}};
  for (const auto& [name, w] : weights) {
    json["weights"][name] = {
        {"tensor", w.tensor},
        {"relative_error", w.relative_error},
        {"worst_block", w.worst_block},
        {"unexplained", w.unexplained},
        {"limits", {{"relative_error", w.bounds.relative_error}, {"worst_block", w.bounds.worst_block}}}};
  }
  return json;
}

GateReport gate(const GateReference& reference, const GateFile& file, std::span<const GateRow> rows,
                std::optional<double> max_kl, std::optional<double> min_top1, int64_t max_tokens) {
  if (rows.empty()) fail(Exit::internal, "the export gate needs held-out rows");
  GateReport report;
  report.type = file.type;
  report.limits = gate_limits(file.type, max_kl, min_top1);
  // A part that cannot even read the file says so; the others still say what they find.
  auto run = [&](auto&& part) {
    try {
      part();
    } catch (const Error& error) {
      if (error.exit() != Exit::bad_input) throw;
      report.reasons.push_back(error.what());
    }
  };
  run([&] { compare_text(reference, file.path, rows, report); });
  if (file.adapter.empty()) run([&] { compare_weights(reference, file, report); });
  run([&] { compare_predictions(reference, file, rows, max_kl, min_top1, max_tokens, report); });
  report.passed = report.reasons.empty();
  return report;
}

}  // namespace retort
