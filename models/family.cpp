#include "models/family.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/error.h"

namespace retort {

#define KIND(name) extern const Family family_##name;
#include "family_kinds.inc"
#undef KIND

static const Family* const all_families[] = {
#define KIND(name) &family_##name,
#include "family_kinds.inc"
#undef KIND
};

static const Family& find_family(std::vector<std::string> Family::*names, const std::string& wanted, const char* key,
                                 const std::string& where) {
  std::vector<std::string> known;
  for (const Family* family : all_families) {
    const auto& of_family = family->*names;
    if (std::find(of_family.begin(), of_family.end(), wanted) != of_family.end()) return *family;
    known.insert(known.end(), of_family.begin(), of_family.end());
  }
  fail(Exit::bad_input, "{}: {} \"{}\" is not supported, allowed: {}", where, key, wanted, fmt::join(known, ", "));
}

const Family& family_of_model_type(const std::string& model_type, const std::string& where) {
  return find_family(&Family::model_types, model_type, "model_type", where);
}

const Family& family_of_architecture(const std::string& architecture, const std::string& where) {
  return find_family(&Family::architectures, architecture, "general.architecture", where);
}

const Family& family_of(const ModelConfig& config) {
  for (const Family* family : all_families)
    if (config.family == family->name) return *family;
  fail(Exit::internal, "no family \"{}\"", config.family);
}

// Rotary pairs are (i, i + half) in Hugging Face's heads and (2i, 2i + 1) in GGUF's.
std::vector<int64_t> rows_to_gguf(const TensorSpec& spec) {
  if (spec.permuted_heads == 0) return {};
  const int64_t rows = spec.shape[0], head = rows / spec.permuted_heads, half = head / 2;
  std::vector<int64_t> order(static_cast<size_t>(rows));
  for (int64_t h = 0; h < spec.permuted_heads; ++h)
    for (int64_t i = 0; i < half; ++i)
      for (int64_t p = 0; p < 2; ++p) order[static_cast<size_t>(h * head + 2 * i + p)] = h * head + p * half + i;
  return order;
}

std::vector<int64_t> rows_to_hf(const TensorSpec& spec) {
  const std::vector<int64_t> there = rows_to_gguf(spec);
  std::vector<int64_t> back(there.size());
  for (size_t i = 0; i < there.size(); ++i) back[static_cast<size_t>(there[i])] = static_cast<int64_t>(i);
  return back;
}

}  // namespace retort
