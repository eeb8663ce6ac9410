// Canaries: fixed texts whose most probable next tokens change only when the deployment does: the file, its template,
// or the program that runs it. They say nothing about the domain.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/tokenizer.h"
#include "models/served.h"

namespace retort {

/// The texts that every profile uses unless the recipe names others; of no one's data.
const std::vector<std::string>& canary_texts();

/// What a deployment says after each text, as a user's message where the model has a chat template: its most probable
/// tokens under keyed hashes, with their probabilities.
struct Canaries {
  static constexpr size_t kTop = 64;
  std::string texts;  ///< keyed hash of the texts
  std::vector<std::map<std::string, double>> top;
  Json to_json() const;
  static Canaries from_json(const Json& json, const std::string& where);
};

Canaries ask_canaries(ServedModel& model, const Tokenizer& tokenizer, const std::vector<std::string>& texts,
                      const std::string& key);

/// KL divergence in nats from what a profile says to what a deployment says now, over the profile's tokens of each text
/// and all others as one: never larger than the divergence over the whole vocabulary.
struct CanaryDivergence {
  double mean = 0, largest = 0;
};
/// Error(bad_input) when the texts are other ones.
CanaryDivergence divergence(const Canaries& before, ServedModel& model, const Tokenizer& tokenizer,
                            const std::vector<std::string>& texts, const std::string& key);

}  // namespace retort
