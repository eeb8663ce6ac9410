#include "monitor/canary.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "data/chat_template.h"
#include "monitor/measure.h"

namespace retort {
namespace {

std::string hash_of(const std::vector<std::string>& texts, const std::string& key) {
  std::string all = "canaries";
  for (const std::string& text : texts) all += fmt::format(" {}:{}", text.size(), text);
  return keyed_hash(key, all);
}

std::string token_name(const std::string& key, size_t text, int64_t id) {
  return keyed_hash(key, fmt::format("canary {} token {}", text, id), 8);
}

/// Log-probabilities f32 [V] of what follows each text.
std::vector<at::Tensor> answers(ServedModel& model, const Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  const ChatTemplate chat_template(tokenizer, "", 0);
  std::vector<at::Tensor> result;
  for (const std::string& text : texts) {
    const Message message{"user", text};
    const std::vector<int32_t> ids = chat_template.source().empty()
                                         ? tokenizer.encode(text, false, true)
                                         : tokenizer.encode(chat_template.render({{message}}, true), true, true);
    const std::vector<int64_t> last = {static_cast<int64_t>(ids.size()) - 1};
    result.push_back(model.logits(ids, last)[0].to(at::kDouble).log_softmax(0).contiguous());
  }
  return result;
}

}  // namespace

const std::vector<std::string>& canary_texts() {
  static const std::vector<std::string> texts = {
      "The capital of France is",
      "Water boils at a temperature of",
      "def fibonacci(n):\n    if n < 2:\n        return",
      "SELECT name, price FROM products WHERE price >",
      "Dear customer, thank you for your order. We are sorry to hear that",
      "Der schnelle braune Fuchs springt über den",
      "La république est une forme de gouvernement dans laquelle",
      "2, 3, 5, 7, 11, 13, 17,",
      "The patient was given 5 mg of the medicine twice a day and after a week",
      "Once upon a time, in a village by the sea, there lived",
      "The court held that the contract was void because",
      "To make the dough, mix the flour with warm water and",
      "{\"id\": 17, \"status\": \"active\", \"tags\": [",
      "In a closed system the total energy",
      "El tren sale a las ocho de la mañana y llega",
      "She opened the letter slowly, and when she saw the signature",
  };
  return texts;
}

Canaries ask_canaries(ServedModel& model, const Tokenizer& tokenizer, const std::vector<std::string>& texts,
                      const std::string& key) {
  Canaries canaries;
  canaries.texts = hash_of(texts, key);
  for (const at::Tensor& log_p : answers(model, tokenizer, texts)) {
    const auto [values, ids] = log_p.topk(std::min<int64_t>(Canaries::kTop, log_p.numel()));
    auto& top = canaries.top.emplace_back();
    for (int64_t k = 0; k < values.numel(); ++k)
      top[token_name(key, canaries.top.size() - 1, ids[k].item<int64_t>())] = std::exp(values[k].item<double>());
  }
  return canaries;
}

CanaryDivergence divergence(const Canaries& before, ServedModel& model, const Tokenizer& tokenizer,
                            const std::vector<std::string>& texts, const std::string& key) {
  if (before.texts != hash_of(texts, key) || before.top.size() != texts.size())
    fail(Exit::bad_input, "the profile was made with other canaries: build it again with `retort drift profile`");
  CanaryDivergence result;
  const std::vector<at::Tensor> now = answers(model, tokenizer, texts);
  for (size_t i = 0; i < now.size(); ++i) {
    // The profile's tokens carry no ids: look for their names among all.
    std::map<std::string, double> present;
    const double* log_q = now[i].const_data_ptr<double>();
    for (int64_t id = 0; id < now[i].numel() && present.size() < before.top[i].size(); ++id) {
      std::string name = token_name(key, i, id);
      if (before.top[i].contains(name)) present.emplace(std::move(name), std::exp(log_q[id]));
    }
    constexpr double kLeast = 1e-12;  // a token that is gone from the vocabulary
    double kl = 0, p_rest = 1, q_rest = 1;
    for (const auto& [name, p] : before.top[i]) {
      const double q = present.contains(name) ? present[name] : 0;
      kl += p * std::log(p / std::max(q, kLeast));
      p_rest -= p;
      q_rest -= q;
    }
    if (p_rest > kLeast) kl += p_rest * std::log(p_rest / std::max(q_rest, kLeast));
    result.mean += std::max(kl, 0.0) / static_cast<double>(now.size());
    result.largest = std::max(result.largest, kl);
  }
  return result;
}

Json Canaries::to_json() const { return {{"texts", texts}, {"top", top}}; }

Canaries Canaries::from_json(const Json& json, const std::string& where) {
  Canaries canaries;
  canaries.texts = json_get<std::string>(json, "texts", where);
  const Json top = json_get<Json>(json, "top", where);
  if (!top.is_array()) fail(Exit::bad_input, "{}: top is {}, a list is needed", where, top.type_name());
  for (const Json& tokens : top) {
    if (!tokens.is_object()) fail(Exit::bad_input, "{}: top holds {}, objects are needed", where, tokens.type_name());
    auto& entry = canaries.top.emplace_back();
    double mass = 0;
    for (const auto& [name, p] : tokens.items()) {
      const double value = p.is_number() ? p.get<double>() : -1;
      mass += entry[name] = value;
      if (!(value > 0 && value <= 1)) fail(Exit::bad_input, "{}: {} is no probability", where, p.dump());
    }
    if (mass > 1 + 1e-6) fail(Exit::bad_input, "{}: probabilities sum to {}", where, mass);
  }
  return canaries;
}

}  // namespace retort
