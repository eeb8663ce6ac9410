#include "report/view.h"

#include <algorithm>
#include <map>
#include <vector>

#include "report/format.h"
#include "report/report.h"

namespace retort {
namespace {

void add_fact(Json& facts, const std::string& label, const std::string& value) {
  if (!value.empty() && value != "–") facts.push_back({{"label", label}, {"value", value}});
}

// An object of the report, key by key; the keys are the recipe's, so they are shown as they are.
Json facts_of(const Json& object) {
  Json facts = Json::array();
  if (object.is_object())
    for (const auto& [key, value] : object.items()) facts.push_back({{"label", key}, {"value", show_any(value)}});
  return facts;
}

std::string format_label(const std::string& format) {
  if (format == "gguf") return "GGUF";
  if (format == "gguf_adapter") return "GGUF adapter";
  if (format == "peft") return "PEFT adapter";
  if (format == "safetensors") return "Hugging Face folder";
  return format;
}

// The file that ships: the first GGUF that passed, else the first GGUF, else the first file.
const Json* shipped_file(const Json& report) {
  const Json *passed = nullptr, *gguf = nullptr, *any = nullptr;
  for (const Json& file : list_at(report, "/export")) {
    if (!any) any = &file;
    if (text_at(file, "/format") != "gguf") continue;
    if (!gguf) gguf = &file;
    if (!passed && value_at(file, "/gate/passed") == Json(true)) passed = &file;
  }
  return passed ? passed : gguf ? gguf : any;
}

Json title_of(const Json& report) {
  int passed = 0, refused = 0;
  for (const Json& file : list_at(report, "/export")) {
    const Json& gate = value_at(file, "/gate/passed");
    passed += gate == Json(true);
    refused += gate == Json(false);
  }
  Json title = {{"name", text_at(report, "/name")},
                {"created", text_at(report, "/created")},
                {"version", text_at(report, "/retort")}};
  if (report.contains("retrain")) {
    title.update(retrain_title(report));
    return title;
  }
  if (report.contains("drift")) {
    title.update(drift_title(report));
    return title;
  }
  if (report.contains("router")) {
    title.update(router_title(report));
    return title;
  }
  if (refused > 0) {
    title["status"] = "bad";
    title["status_text"] = "Refused by the export gate";
    title["sentence"] =
        fmt::format("{} of {} exported files differ from the trained model by more than the gate allows.", refused,
                    refused + passed);
  } else if (passed > 0) {
    title["status"] = "good";
    title["status_text"] = "Passed the export gate";
    title["sentence"] = passed == 1 ? "The exported file behaves like the model that was trained."
                                    : "Every exported file behaves like the model that was trained.";
  } else {
    title["status"] = "plain";
    title["status_text"] = "No file was gated";
    title["sentence"] = "Nothing was compared with the trained model after export.";
  }
  return title;
}

Json tiles_of(const Json& report, const std::vector<EvaluationGroup>& evaluations) {
  Json tiles = Json::array();
  if (report.contains("retrain")) return retrain_tiles(report);
  if (report.contains("drift")) return drift_tiles(report);
  if (report.contains("router")) return router_tiles(report);
  if (Json tile = evaluation_tile(evaluations); !tile.is_null()) tiles.push_back(std::move(tile));
  if (const Json* file = shipped_file(report)) {
    std::string bits = show_number(value_at(*file, "/bits_per_weight"), 3);
    tiles.push_back({{"label", "Size on disk"},
                     {"value", show_bytes(value_at(*file, "/bytes"))},
                     {"note", text_at(*file, "/type") + (bits == "–" ? "" : ", " + bits + " bits per weight")}});
    const Json& speed = value_at(*file, "/speed/generation_tokens_per_second");
    if (speed.is_number())
      tiles.push_back({{"label", "Generation"},
                       {"value", show_number(speed, 3)},
                       {"unit", "tokens/s"},
                       {"note", "first token after " + show_seconds(value_at(*file, "/speed/first_token_seconds"))}});
  }
  if (const Json& seconds = value_at(report, "/seconds/total"); seconds.is_number())
    tiles.push_back({{"label", "Whole run"},
                     {"value", show_seconds(seconds)},
                     {"note", "training " + show_seconds(value_at(report, "/seconds/train"))}});
  return tiles;
}

// "0.012 ≤ 0.05"; at_least: "97.2 % ≥ 90 %".
Json with_limit(const std::string& value, const std::string& limit, bool at_least) {
  return {{"value", value}, {"limit", limit == "–" ? "" : (at_least ? "≥ " : "≤ ") + limit}};
}

Json exports_view(const Json& report) {
  Json view = Json::array();
  for (const Json& file : list_at(report, "/export")) {
    std::string type = text_at(file, "/type");
    const Json& gate = value_at(file, "/gate");
    const Json& limits = value_at(gate, "/limits");
    const Json& passed = value_at(gate, "/passed");
    Json gated = Json::array();
    if (gate.is_object()) {
      auto add = [&](const char* label, Json figure) {
        figure["label"] = label;
        if (figure["value"] != "–") gated.push_back(figure);
      };
      add("KL mean",
          with_limit(show_number(value_at(gate, "/kl_mean")), show_number(value_at(limits, "/max_kl")), false));
      add("KL mean of the merge, in F32", with_limit(show_number(value_at(file, "/f32_merge/kl_mean")), "–", false));
      add("KL 99th percentile",
          with_limit(show_number(value_at(gate, "/kl_p99")), show_number(value_at(limits, "/max_kl_p99")), false));
      add("Top-1 agreement",
          with_limit(show_percent(value_at(gate, "/top1")), show_percent(value_at(limits, "/min_top1")), true));
      add("Δ perplexity", with_limit(show_number(value_at(gate, "/delta_perplexity")), "–", false));
      add("Rows compared", with_limit(show_count(value_at(gate, "/rows")), "–", false));
    }
    Json speed = Json::array();
    if (value_at(file, "/speed").is_object()) {
      add_fact(speed, "Prompt", show_number(value_at(file, "/speed/prompt_tokens_per_second")) + " tokens/s");
      add_fact(speed, "Generation", show_number(value_at(file, "/speed/generation_tokens_per_second")) + " tokens/s");
      add_fact(speed, "First token", show_seconds(value_at(file, "/speed/first_token_seconds")));
      add_fact(speed, "Memory", show_bytes(value_at(file, "/speed/memory_bytes")));
    }
    Json reasons = Json::array();
    for (const Json& reason : list_at(gate, "/reasons")) reasons.push_back(show_any(reason));
    view.push_back({{"path", text_at(file, "/path")},
                    {"adapter", text_at(file, "/adapter")},
                    {"format", format_label(text_at(file, "/format"))},
                    {"type", type},
                    {"sha256", text_at(file, "/sha256")},
                    {"size", show_bytes(value_at(file, "/bytes"))},
                    {"bits", show_number(value_at(file, "/bits_per_weight"))},
                    {"status", passed == Json(true)    ? "passed"
                               : passed == Json(false) ? "refused"
                                                       : ""},
                    {"reasons", reasons},
                    {"gate", gated},
                    {"speed", speed}});
  }
  return view;
}

Json training_facts(const Json& report) {
  const Json& train = value_at(report, "/train");
  Json facts = Json::array();
  add_fact(facts, "Loss, first step", show_number(value_at(train, "/loss_first"), 4));
  add_fact(facts, "Loss, last step", show_number(value_at(train, "/loss_last"), 4));
  add_fact(facts, "Steps", show_count(value_at(train, "/steps")));
  add_fact(facts, "Tokens", show_count(value_at(train, "/tokens")));
  add_fact(facts, "Trained tokens", show_count(value_at(train, "/trained_tokens")));
  add_fact(facts, "Tokens per second", show_number(value_at(train, "/tokens_per_second")));
  add_fact(facts, "Peak memory", show_bytes(value_at(train, "/peak_memory_bytes")));
  add_fact(facts, "Best step", show_count(value_at(train, "/best_step")));
  add_fact(facts, "Time to export", show_seconds(value_at(report, "/seconds/export")));
  add_fact(facts, "Time to evaluate", show_seconds(value_at(report, "/seconds/evaluate")));
  return facts;
}

// At most `most` points of the curve, evenly taken; the last one and every point with a validation loss stay.
Json thinned_curve(const Json& report, size_t most) {
  const Json& curve = list_at(report, "/train/curve");
  size_t stride = std::max<size_t>(1, (curve.size() + most - 1) / most);
  Json points = Json::array();
  for (size_t i = 0; i < curve.size(); ++i)
    if (i % stride == 0 || i + 1 == curve.size() || value_at(curve[i], "/validation_loss").is_number())
      points.push_back(curve[i]);
  return points;
}

Json curve_table(const Json& report) {
  Json rows = Json::array();
  for (const Json& point : thinned_curve(report, 24))
    rows.push_back({{"step", show_count(value_at(point, "/step"))},
                    {"loss", show_number(value_at(point, "/loss"), 4)},
                    {"validation", show_number(value_at(point, "/validation_loss"), 4)},
                    {"rate", show_number(value_at(point, "/learning_rate"), 3)}});
  return rows;
}

Json trained_view(const Json& report) {
  Json facts = Json::array();
  const Json &trainable = value_at(report, "/train/parameters/trainable"),
             &frozen = value_at(report, "/train/parameters/frozen");
  add_fact(facts, "Trainable parameters", show_count(trainable));
  add_fact(facts, "Frozen parameters", show_count(frozen));
  if (trainable.is_number() && frozen.is_number() && trainable.get<double>() + frozen.get<double>() > 0)
    add_fact(facts, "Share trained",
             show_percent(trainable.get<double>() / (trainable.get<double>() + frozen.get<double>()), 2));
  Json targets = Json::array();
  for (const Json& target : list_at(report, "/train/targets")) {
    std::string shape;
    for (const Json& size : list_at(target, "/shape")) shape += (shape.empty() ? "" : " × ") + show_count(size);
    targets.push_back({{"name", text_at(target, "/name")},
                       {"count", show_count(value_at(target, "/count"))},
                       {"shape", shape},
                       {"parameters", show_count(value_at(target, "/parameters"))}});
  }
  return {{"facts", facts},
          {"targets", targets},
          {"model", facts_of(value_at(report, "/model"))},
          {"adapter", facts_of(value_at(report, "/adapter"))},
          {"options", facts_of(value_at(report, "/train/options"))}};
}

Json ledger_view(const Json& report) {
  const Json& ledger = value_at(report, "/data/ledger");
  Json facts = Json::array(), dropped = Json::array();
  add_fact(facts, "Rows", show_count(value_at(ledger, "/rows")));
  add_fact(facts, "Tokens", show_count(value_at(ledger, "/tokens")));
  add_fact(facts, "Trained tokens", show_count(value_at(ledger, "/trained_tokens")));
  add_fact(facts, "Truncated rows", show_count(value_at(ledger, "/truncated")));
  if (value_at(ledger, "/dropped").is_object())
    for (const auto& [reason, rows] : ledger["dropped"].items())
      dropped.push_back({{"label", reason}, {"value", show_count(rows)}});
  Json files = Json::array();
  for (const Json& file : list_at(report, "/data/files"))
    files.push_back(
        {{"name", text_at(file, "/name")}, {"split", text_at(file, "/split")}, {"sha256", text_at(file, "/sha256")}});
  return {{"facts", facts}, {"dropped", dropped}, {"files", files}};
}

}  // namespace

Json report_view(const Json& report) {
  const std::vector<EvaluationGroup> evaluations = evaluation_groups(report);
  return {{"title", title_of(report)},
          {"tiles", tiles_of(report, evaluations)},
          {"evaluations", evaluations_view(evaluations)},
          {"samples", samples_view(report)},
          {"distill", distill_view(report)},
          {"retrain", retrain_view(report)},
          {"drift", drift_view(report)},
          {"router", router_view(report)},
          {"exports", exports_view(report)},
          {"commands", serve_commands(report)},
          {"training", training_facts(report)},
          {"curve", curve_table(report)},
          {"trained", trained_view(report)},
          {"ledger", ledger_view(report)},
          {"guards", guards_view(report)},
          {"environment", facts_of(value_at(report, "/environment"))},
          {"recipe", text_at(report, "/recipe")}};
}

Json report_charts(const Json& report) {
  Json charts = {{"curve", Json::array()},
                 {"evaluations", evaluation_charts(evaluation_groups(report))},
                 {"drift", drift_charts(report)}};
  for (const Json& point : thinned_curve(report, 1000))
    charts["curve"].push_back({value_at(point, "/step"), value_at(point, "/loss"), value_at(point, "/validation_loss"),
                               value_at(point, "/learning_rate")});
  return charts;
}

}  // namespace retort
