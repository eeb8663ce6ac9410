// The models of tests/golden/make_quantize.py: weights and importance matrices that follow from a formula.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "export/imatrix.h"
#include "models/family.h"

namespace retort {

inline ModelConfig small_config(const std::string& name) {
  ModelConfig c;
  c.family = c.architecture = "llama";
  c.context = 64;
  c.vocab = 32;
  if (name == "k") {
    c.layers = 8, c.dim = 256, c.heads = 4, c.kv_heads = 1, c.head_dim = 16, c.ffn = 256;
  } else {
    c.layers = 2, c.dim = 96, c.heads = 2, c.kv_heads = 2, c.head_dim = 48, c.ffn = 160, c.tied = true;
  }
  return c;
}

/// SplitMix64 from the FNV-1a hash of the name.
inline std::vector<uint64_t> random_bits(const std::string& name, int64_t count) {
  uint64_t hash = 0xCBF29CE484222325;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001B3;
  std::vector<uint64_t> bits(static_cast<size_t>(count));
  for (uint64_t& z : bits) {
    hash += 0x9E3779B97F4A7C15;
    z = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    z ^= z >> 31;
  }
  return bits;
}

/// Sums of four 16-bit numbers, nearly normal, exact in f32.
inline std::vector<float> small_weights(const std::string& name, int64_t count) {
  std::vector<float> weights;
  for (uint64_t z : random_bits(name, count)) {
    const int64_t sum = static_cast<int64_t>((z & 0xFFFF) + ((z >> 16) & 0xFFFF) + ((z >> 32) & 0xFFFF) + (z >> 48));
    const float weight = static_cast<float>(sum - 131070) * 0x1p-21F;
    weights.push_back(name.find("norm") == std::string::npos ? weight : weight + 1);
  }
  return weights;
}

inline void write_small_model(const std::filesystem::path& path, const std::string& name) {
  const ModelConfig config = small_config(name);
  const Family& family = family_of(config);
  GgufWriter writer;
  family.write_metadata(config, writer);
  writer.set_text("general.license", "mit");
  writer.set_u32("general.base_model.count", 2);
  writer.set_text("general.base_model.1.name", "an ancestor");
  writer.set_u32("quantize.imatrix.chunks_count", 99);
  writer.set_text("tokenizer.ggml.model", "no_vocab");
  for (const TensorSpec& spec : family.tensors(config)) writer.add(spec.gguf, GGML_TYPE_F32, spec.shape);
  writer.begin(path);
  for (const TensorSpec& spec : family.tensors(config)) {
    int64_t count = 1;
    for (int64_t n : spec.shape) count *= n;
    const std::vector<float> weights = small_weights(spec.gguf, count);
    writer.write(spec.gguf, {reinterpret_cast<const uint8_t*>(weights.data()), weights.size() * sizeof(float)});
  }
  writer.commit();
}

inline Imatrix small_imatrix(const std::string& name) {
  const ModelConfig config = small_config(name);
  Imatrix imatrix{.entries = {}, .datasets = {"formula"}, .chunks = 1, .chunk_size = 4};
  for (const TensorSpec& spec : family_of(config).tensors(config)) {
    if (spec.shape.size() != 2 || !spec.gguf.starts_with("blk.")) continue;
    std::vector<float> sums;
    for (uint64_t z : random_bits(spec.gguf + ".in_sum2", spec.shape[1]))
      sums.push_back((static_cast<float>(z & 0xFFFF) + 1) * 0x1p-8F);
    imatrix.entries[spec.gguf] = {sums, {4}};
  }
  return imatrix;
}

}  // namespace retort
