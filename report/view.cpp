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

// "shipped:Q4_K_M" is "Shipped Q4_K_M".
std::string model_label(const std::string& on) {
  if (on == "base") return "Base model";
  if (on == "trained") return "Trained";
  if (on.starts_with("teacher")) return "Teacher" + on.substr(7);
  if (on.starts_with("shipped:")) return "Shipped " + on.substr(8);
  return on;
}

std::string format_label(const std::string& format) {
  if (format == "gguf") return "GGUF";
  if (format == "gguf_adapter") return "GGUF adapter";
  if (format == "peft") return "PEFT adapter";
  if (format == "safetensors") return "Hugging Face folder";
  return format;
}

bool lower_is_better(const std::string& kind) { return kind == "perplexity"; }

std::string kind_label(const std::string& kind) {
  if (kind == "choice_accuracy") return "Choice accuracy";
  if (kind == "exact_match") return "Exact match";
  if (kind == "perplexity") return "Perplexity";
  std::string label = kind;
  std::replace(label.begin(), label.end(), '_', ' ');
  return label;
}

std::string show_metric(const std::string& kind, const Json& value, int extra = 0) {
  return lower_is_better(kind) ? show_number(value, 3 + extra) : show_percent(value, 1);
}

// Evaluations of one kind on one data set, in the order base, trained, shipped.
struct Evaluation {
  std::string kind, data;
  std::vector<const Json*> entries;
};

std::vector<Evaluation> evaluations_of(const Json& report) {
  std::vector<Evaluation> evaluations;
  for (const Json& entry : list_at(report, "/evaluate")) {
    std::string kind = text_at(entry, "/kind"), data = text_at(entry, "/data");
    auto it = std::find_if(evaluations.begin(), evaluations.end(),
                           [&](const Evaluation& e) { return e.kind == kind && e.data == data; });
    if (it == evaluations.end()) it = evaluations.insert(it, {kind, data, {}});
    it->entries.push_back(&entry);
  }
  auto rank = [](const Json* entry) {
    std::string on = text_at(*entry, "/on");
    return on.starts_with("teacher") ? -1 : on == "base" ? 0 : on == "trained" ? 1 : 2;
  };
  for (Evaluation& evaluation : evaluations)
    std::stable_sort(evaluation.entries.begin(), evaluation.entries.end(),
                     [&](const Json* a, const Json* b) { return rank(a) < rank(b); });
  return evaluations;
}

const Json* entry_on(const Evaluation& evaluation, const std::string& prefix) {
  for (const Json* entry : evaluation.entries)
    if (text_at(*entry, "/on").starts_with(prefix)) return entry;
  return nullptr;
}

// The evaluation that the top of the page speaks of: the first of a task, else the first.
const Evaluation* headline(const std::vector<Evaluation>& evaluations) {
  for (const Evaluation& evaluation : evaluations)
    if (!lower_is_better(evaluation.kind)) return &evaluation;
  return evaluations.empty() ? nullptr : &evaluations.front();
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

Json tiles_of(const Json& report, const std::vector<Evaluation>& evaluations) {
  Json tiles = Json::array();
  if (const Evaluation* evaluation = headline(evaluations)) {
    const Json *base = entry_on(*evaluation, "base"), *after = entry_on(*evaluation, "shipped:");
    if (!after) after = entry_on(*evaluation, "trained");
    if (after) {
      auto with_error = [&](const Json& entry) {
        const Json& error = value_at(entry, "/stderr");
        return show_metric(evaluation->kind, value_at(entry, "/value")) +
               (error.is_number() ? " ± " + show_metric(evaluation->kind, error) : "");
      };
      Json tile = {{"label", kind_label(evaluation->kind)},
                   {"value", show_metric(evaluation->kind, value_at(*after, "/value"))},
                   {"wide", true}};
      std::string note = model_label(text_at(*after, "/on")) + " " + with_error(*after);
      if (base && base != after) {
        tile["before"] = show_metric(evaluation->kind, value_at(*base, "/value"));
        note = "base " + with_error(*base) + ", " + note;
      }
      tile["note"] = note + fmt::format("; {} rows", show_count(value_at(*after, "/n")));
      tiles.push_back(tile);
    }
  }
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

Json evaluations_view(const std::vector<Evaluation>& evaluations) {
  Json view = Json::array();
  for (const Evaluation& evaluation : evaluations) {
    Json rows = Json::array();
    const Json* base = entry_on(evaluation, "base");
    std::string majority;
    for (const Json* entry : evaluation.entries) {
      const Json &value = value_at(*entry, "/value"), &error = value_at(*entry, "/stderr");
      std::string change;
      if (base && entry != base && value.is_number() && value_at(*base, "/value").is_number()) {
        double difference = value.get<double>() - value_at(*base, "/value").get<double>();
        change = lower_is_better(evaluation.kind) ? show_number(difference) : show_number(100 * difference) + " pts";
        if (difference > 0) change = "+" + change;
      }
      if (value_at(*entry, "/majority").is_number()) majority = show_percent(value_at(*entry, "/majority"));
      rows.push_back({{"on", model_label(text_at(*entry, "/on"))},
                      {"value", show_metric(evaluation.kind, value)},
                      {"stderr", error.is_number() ? "± " + show_metric(evaluation.kind, error) : ""},
                      {"n", show_count(value_at(*entry, "/n"))},
                      {"change", change}});
    }
    view.push_back({{"title", kind_label(evaluation.kind)},
                    {"data", evaluation.data},
                    {"direction", lower_is_better(evaluation.kind) ? "lower is better" : "higher is better"},
                    {"majority", majority},
                    {"rows", rows}});
  }
  return view;
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
  std::vector<Evaluation> evaluations = evaluations_of(report);
  return {{"title", title_of(report)},
          {"tiles", tiles_of(report, evaluations)},
          {"evaluations", evaluations_view(evaluations)},
          {"samples", samples_view(report)},
          {"distill", distill_view(report)},
          {"exports", exports_view(report)},
          {"commands", serve_commands(report)},
          {"training", training_facts(report)},
          {"curve", curve_table(report)},
          {"trained", trained_view(report)},
          {"ledger", ledger_view(report)},
          {"environment", facts_of(value_at(report, "/environment"))},
          {"recipe", text_at(report, "/recipe")}};
}

Json report_charts(const Json& report) {
  Json charts = {{"curve", Json::array()}, {"evaluations", Json::array()}};
  for (const Json& point : thinned_curve(report, 1000))
    charts["curve"].push_back({value_at(point, "/step"), value_at(point, "/loss"), value_at(point, "/validation_loss"),
                               value_at(point, "/learning_rate")});
  for (const Evaluation& evaluation : evaluations_of(report)) {
    Json bars = Json::array();
    Json majority = nullptr;
    for (const Json* entry : evaluation.entries) {
      bars.push_back({model_label(text_at(*entry, "/on")), value_at(*entry, "/value"), value_at(*entry, "/stderr")});
      if (value_at(*entry, "/majority").is_number()) majority = (*entry)["majority"];
    }
    charts["evaluations"].push_back(
        {{"percent", !lower_is_better(evaluation.kind)}, {"majority", majority}, {"bars", bars}});
  }
  return charts;
}

}  // namespace retort
