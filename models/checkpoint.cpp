#include "models/checkpoint.h"

#include <fmt/ranges.h>
#include <ggml.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "core/hash.h"
#include "models/bnb_state_dict.h"
#include "models/family.h"
#include "models/gguf.h"
#include "models/safetensors.h"

namespace retort {
namespace {

/// A tensor of the model and its bytes in the file.
struct Stored {
  TensorSpec spec;
  QuantizedTensor tensor;  ///< under Hugging Face's name, rows in the file's order
};

QuantizedTensor copied(const QuantizedTensor& tensor) {
  auto buffer = std::make_shared<std::vector<uint8_t>>(tensor.bytes().begin(), tensor.bytes().end());
  const std::span<const uint8_t> bytes(*buffer);
  return QuantizedTensor(tensor.name(), tensor.type(), tensor.shape(), bytes, std::move(buffer));
}

class FileCheckpoint : public Checkpoint {
 public:
  FileCheckpoint(std::filesystem::path path, ModelConfig config, std::vector<Stored> stored,
                 std::shared_ptr<const GgufFile> gguf)
      : path_(std::move(path)), config_(std::move(config)), stored_(std::move(stored)), gguf_(std::move(gguf)) {
    for (size_t i = 0; i < stored_.size(); ++i) index_.emplace(stored_[i].spec.name, i);
  }

  const ModelConfig& config() const override { return config_; }
  const std::filesystem::path& path() const override { return path_; }
  bool is_gguf() const override { return gguf_ != nullptr; }
  const GgufFile* gguf() const override { return gguf_.get(); }
  bool has(const std::string& name) const override { return index_.contains(name); }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const Stored& s : stored_) names.push_back(s.spec.name);
    return names;
  }

  QuantizedTensor tensor(const std::string& name) const override {
    auto it = index_.find(name);
    if (it == index_.end()) fail(Exit::bad_input, "{}: tensor {} is missing", path_.string(), name);
    const Stored& s = stored_[it->second];
    if (gguf_ && s.spec.permuted_heads > 0) return s.tensor.permute_rows(rows_to_hf(s.spec));
    // Some writers of safetensors do not align their data.
    if (s.tensor.is_ggml() && reinterpret_cast<uintptr_t>(s.tensor.bytes().data()) % alignof(double) != 0)
      return copied(s.tensor);
    return s.tensor;
  }

  std::string hash() const override {
    std::call_once(hashed_, [this] {
      Sha256 sha;
      std::vector<std::string> sorted = names();
      std::sort(sorted.begin(), sorted.end());
      for (const std::string& name : sorted) {
        const QuantizedTensor t = tensor(name);
        sha.update(fmt::format("{}\n{}\n[{}]\n", name, t.type_name(), fmt::join(t.shape(), ",")));
        for (const auto& part : t.parts()) sha.update(part);
      }
      hash_ = sha.hex();
    });
    return hash_;
  }

 private:
  std::filesystem::path path_;
  ModelConfig config_;
  std::vector<Stored> stored_;
  std::unordered_map<std::string, size_t> index_;
  std::shared_ptr<const GgufFile> gguf_;
  mutable std::once_flag hashed_;
  mutable std::string hash_;
};

/// Containers disagree on leading dimensions of one.
std::vector<int64_t> without_leading_ones(std::vector<int64_t> shape) {
  auto first = std::find_if(shape.begin(), shape.end() - 1, [](int64_t size) { return size != 1; });
  shape.erase(shape.begin(), first);
  return shape;
}

Stored checked(const TensorSpec& spec, const QuantizedTensor& tensor, const std::string& where) {
  if (without_leading_ones(tensor.shape()) != without_leading_ones(spec.shape))
    fail(Exit::bad_input, "{}: tensor {}: shape [{}], but the configuration asks for [{}]", where, tensor.name(),
         fmt::join(tensor.shape(), ", "), fmt::join(spec.shape, ", "));
  const bool blocks = !tensor.is_ggml() || ggml_blck_size(static_cast<ggml_type>(tensor.type())) != 1;
  if (spec.shape.size() == 1 && blocks)
    fail(Exit::bad_input, "{}: tensor {} is {}, but llama.cpp keeps vectors in F32", where, tensor.name(),
         tensor.type_name());
  return {spec, tensor.renamed(spec.name, spec.shape)};
}

std::unique_ptr<Checkpoint> open_gguf(const std::filesystem::path& path) {
  auto file = GgufFile::open(path);
  const std::string where = path.string();
  const Family& family = family_of_architecture(file->text("general.architecture"), where);
  const ModelConfig config = family.from_gguf(*file);
  std::vector<Stored> stored;
  std::unordered_set<std::string> expected = {"rope_freqs.weight"};  // in ModelConfig::rope_factors
  for (const TensorSpec& spec : family.tensors(config)) {
    const QuantizedTensor* tensor = file->find(spec.gguf);
    if (!tensor) fail(Exit::bad_input, "{}: tensor {} is missing", where, spec.gguf);
    stored.push_back(checked(spec, *tensor, where));
    expected.insert(spec.gguf);
  }
  for (const QuantizedTensor& tensor : file->tensors())
    if (!expected.contains(tensor.name()))
      fail(Exit::bad_input, "{}: tensor {} belongs to no known part of a {} model", where, tensor.name(), family.name);
  return std::make_unique<FileCheckpoint>(path, config, std::move(stored), std::move(file));
}

/// The safetensors files of a folder and which of them holds which tensor.
struct Shards {
  std::vector<std::shared_ptr<const SafetensorsFile>> files;
  std::map<std::string, const SafetensorsFile*> holder;
};

Shards open_shards(const std::filesystem::path& folder) {
  Shards shards;
  const auto single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (std::filesystem::exists(single)) {
    shards.files.push_back(SafetensorsFile::open(single));
    for (const SafetensorsEntry& entry : shards.files[0]->entries()) shards.holder[entry.name] = shards.files[0].get();
    return shards;
  }
  if (!std::filesystem::exists(index))
    fail(Exit::bad_input, "{}: holds neither model.safetensors nor model.safetensors.index.json", folder.string());
  const Json json = read_json(index);
  const std::string where = index.string();
  const Json map = json_get<Json>(json, "weight_map", where);
  if (!map.is_object()) fail(Exit::bad_input, "{}: weight_map is {}, expected an object", where, map.type_name());
  std::map<std::string, const SafetensorsFile*> opened;
  for (const auto& [name, value] : map.items()) {
    const std::string file = value.is_string() ? value.get<std::string>() : "";
    // Only files of this folder: the index is untrusted.
    if (file.empty() || file.find('/') != std::string::npos || !file.ends_with(".safetensors"))
      fail(Exit::bad_input, "{}: weight_map puts \"{}\" into {}, expected the name of a safetensors file beside it",
           where, name, value.dump().substr(0, 80));
    auto [it, is_new] = opened.try_emplace(file, nullptr);
    if (is_new) {
      if (!std::filesystem::exists(folder / file))
        fail(Exit::bad_input, "{}: weight_map names {}, which is missing", where, file);
      it->second = shards.files.emplace_back(SafetensorsFile::open(folder / file)).get();
    }
    if (!it->second->find(name))
      fail(Exit::bad_input, "{}: weight_map puts \"{}\" into {}, which does not hold it", where, name, file);
    shards.holder[name] = it->second;
  }
  return shards;
}

int ggml_type_of(const SafetensorsEntry& entry, const std::string& where) {
  switch (entry.type) {
    case at::kFloat:
      return GGML_TYPE_F32;
    case at::kHalf:
      return GGML_TYPE_F16;
    case at::kBFloat16:
      return GGML_TYPE_BF16;
    case at::kDouble:
      return GGML_TYPE_F64;
    default:
      fail(Exit::bad_input, "{}: tensor {} is {}, allowed: F32, F16, BF16, F64", where, entry.name, entry.dtype);
  }
}

std::unique_ptr<Checkpoint> open_folder(const std::filesystem::path& folder) {
  const auto config_file = folder / "config.json";
  const std::string where = config_file.string();
  if (!std::filesystem::exists(config_file))
    fail(Exit::bad_input, "{}: a model's folder needs config.json, which is missing", folder.string());
  Json json = read_json(config_file);
  // What bitsandbytes did to the weights, their tensors say themselves; of other quantizations the family knows none.
  if (json.is_object() && json.contains("quantization_config") && json["quantization_config"].is_object() &&
      json["quantization_config"].value("quant_method", Json()) == "bitsandbytes")
    json.erase("quantization_config");
  const Family& family = family_of_model_type(json_get<std::string>(json, "model_type", where), where);
  const ModelConfig config = family.from_hf(json, where);
  const Shards shards = open_shards(folder);

  std::vector<Stored> stored;
  std::unordered_set<std::string> expected;
  const auto find = [&](const std::string& name) {
    const auto holder = shards.holder.find(name);
    return holder == shards.holder.end() ? nullptr : holder->second->find(name);
  };
  for (const TensorSpec& spec : family.tensors(config)) {
    auto holder = shards.holder.find(spec.name);
    if (holder == shards.holder.end()) fail(Exit::bad_input, "{}: tensor {} is missing", folder.string(), spec.name);
    const SafetensorsFile& file = *holder->second;
    const std::string file_name = file.path().string();
    const SafetensorsEntry& entry = *file.find(spec.name);
    try {
      if (const auto bnb = read_bnb(spec.name, find, file.file())) {
        stored.push_back(checked(spec, bnb->tensor, file_name));
        expected.insert(bnb->names.begin(), bnb->names.end());
        continue;
      }
      const QuantizedTensor tensor(entry.name, ggml_type_of(entry, file_name), entry.shape, entry.bytes, file.file());
      stored.push_back(checked(spec, tensor, file_name));
    } catch (const Error& error) {
      const std::string text = error.what();
      fail(error.exit(), "{}{}", text.starts_with(file_name) ? "" : file_name + ": ", text);
    }
    expected.insert(spec.name);
  }
  for (const auto& [name, file] : shards.holder) {
    if (expected.contains(name) || name.ends_with(".rotary_emb.inv_freq")) continue;  // a buffer of old checkpoints
    if (name == "lm_head.weight") {                                                   // listed by tensors() unless tied
      const auto head = file->find(name)->bytes, embedding = stored.front().tensor.bytes();
      if (std::equal(head.begin(), head.end(), embedding.begin(), embedding.end())) continue;
      fail(Exit::bad_input, "{}: lm_head.weight differs from the embedding, but {} says tie_word_embeddings",
           folder.string(), where);
    }
    fail(Exit::bad_input, "{}: tensor {} belongs to no known part of a {} model", file->path().string(), name,
         family.name);
  }
  return std::make_unique<FileCheckpoint>(folder, config, std::move(stored), nullptr);
}

}  // namespace

std::unique_ptr<Checkpoint> Checkpoint::open(const std::filesystem::path& path) {
  return std::filesystem::is_directory(path) ? open_folder(path) : open_gguf(path);
}

}  // namespace retort
