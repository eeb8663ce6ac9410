// The student beside its teachers, before and after.
#include <cmath>

#include "report/format.h"
#include "report/view.h"

namespace retort {
namespace {

Json fact(const std::string& label, const std::string& value) { return {{"label", label}, {"value", value}}; }

/// A divergence; a model that agrees with itself is at 0 up to what f32 rounds.
std::string show_divergence(const Json& value) {
  return value.is_number() && std::abs(value.get<double>()) < 1e-6 ? "0" : show_number(value);
}

/// A row of the table: what, before, after.
Json compared(const std::string& what, const std::string& before, const std::string& after) {
  return {{"what", what}, {"before", before}, {"after", after}};
}

Json teacher_view(const Json& teacher, const Json& before, const Json& after) {
  Json facts = Json::array();
  for (const char* key : {"engine", "quantization", "weight"})
    facts.push_back(fact(key, show_any(value_at(teacher, std::string("/") + key))));
  const Json& cache = value_at(teacher, "/cache");
  if (cache.is_object()) {
    facts.push_back(fact("cached tokens", show_count(value_at(cache, "/positions"))));
    facts.push_back(fact("bytes a token", show_number(value_at(cache, "/bytes_per_position"))));
    facts.push_back(fact("mass outside the kept tokens", show_percent(value_at(cache, "/tail_mass"))));
  }
  const Json& error = value_at(teacher, "/error");
  if (error.is_object())
    facts.push_back(fact("its own error, KL from its reference", show_number(value_at(error, "/mean_kl"))));
  const Json& aligned = value_at(teacher, "/aligned");
  if (aligned.is_object())
    facts.push_back(fact("tokens whose text both cut alike",
                         show_count(value_at(aligned, "/tokens")) + " of " + show_count(value_at(aligned, "/of"))));
  Json rows = Json::array();
  if (after.is_object()) {  // recorded answers cannot be asked about other rows
    const bool by_text = value_at(after, "/spans").is_number();
    rows.push_back(compared(
        by_text ? "Divergence of shared stretches of text, nats a stretch" : "KL from the teacher, nats a token",
        show_divergence(value_at(before, "/divergence")), show_divergence(value_at(after, "/divergence"))));
    if (!by_text)
      rows.push_back(compared("Same most likely token", show_percent(value_at(before, "/agreement")),
                              show_percent(value_at(after, "/agreement"))));
    rows.push_back(compared("Cross entropy, nats a token", show_number(value_at(before, "/cross_entropy")),
                            show_number(value_at(after, "/cross_entropy"))));
  }
  if (value_at(after, "/lost_mass").is_number())
    facts.push_back(fact("mass on tokens that the student lacks", show_percent(value_at(after, "/lost_mass"), 3)));
  Json positions = Json::array();
  const Json &first = list_at(before, "/by_position"), &then = list_at(after, "/by_position");
  for (size_t i = 0; i < then.size() && i < first.size(); ++i) {
    if (value_at(then[i], "/tokens") == Json(0)) continue;
    positions.push_back({{"from", show_count(value_at(then[i], "/from"))},
                         {"tokens", show_count(value_at(then[i], "/tokens"))},
                         {"before", show_divergence(value_at(first[i], "/divergence"))},
                         {"after", show_divergence(value_at(then[i], "/divergence"))}});
  }
  return {{"path", text_at(teacher, "/path")},
          {"vocabulary", text_at(teacher, "/vocabulary")},
          {"sha256", text_at(teacher, "/sha256")},
          {"facts", facts},
          {"rows", rows},
          {"positions", positions}};
}

}  // namespace

Json distill_view(const Json& report) {
  const Json& distill = value_at(report, "/distill");
  if (!distill.is_object()) return nullptr;
  Json facts = Json::array();
  for (const char* key : {"loss", "temperature", "kd_ratio", "estimator"})
    facts.push_back(fact(key, show_any(value_at(distill, std::string("/") + key))));
  Json teachers = Json::array();
  const Json &all = list_at(distill, "/teachers"), &before = list_at(distill, "/before"),
             &after = list_at(distill, "/after");
  for (size_t i = 0; i < all.size(); ++i)
    teachers.push_back(
        teacher_view(all[i], i < before.size() ? before[i] : Json(), i < after.size() ? after[i] : Json()));
  return {{"facts", facts}, {"teachers", teachers}};
}

}  // namespace retort
