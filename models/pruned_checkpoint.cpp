#include "models/pruned_checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <ggml.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "core/hash.h"
#include "models/family.h"

namespace retort {
namespace {

QuantizedTensor as_f32(const QuantizedTensor& tensor, const at::Tensor& values) {
  const at::Tensor dense = values.contiguous();
  const std::span<const uint8_t> bytes(static_cast<const uint8_t*>(dense.const_data_ptr()), dense.nbytes());
  return QuantizedTensor(tensor.name(), GGML_TYPE_F32, dense.sizes().vec(), bytes,
                         std::make_shared<const at::Tensor>(dense));
}

/// A vector's rows are its elements.
QuantizedTensor some_rows(const QuantizedTensor& tensor, const std::vector<int64_t>& rows) {
  if (rows.empty()) return tensor;
  if (!tensor.is_ggml()) return as_f32(tensor, tensor.dequantize(at::kFloat).index_select(0, at::tensor(rows)));
  std::vector<int64_t> shape = tensor.shape();
  const size_t row_bytes = tensor.bytes().size() / static_cast<size_t>(shape[0]);
  auto buffer = std::make_shared<std::vector<uint8_t>>(row_bytes * rows.size());
  for (size_t i = 0; i < rows.size(); ++i)
    std::memcpy(buffer->data() + i * row_bytes, tensor.bytes().data() + static_cast<size_t>(rows[i]) * row_bytes,
                row_bytes);
  shape[0] = static_cast<int64_t>(rows.size());
  const std::span<const uint8_t> bytes(*buffer);
  return QuantizedTensor(tensor.name(), tensor.type(), std::move(shape), bytes, std::move(buffer));
}

QuantizedTensor some_columns(const QuantizedTensor& tensor, const std::vector<int64_t>& columns) {
  if (columns.empty()) return tensor;
  return as_f32(tensor, tensor.dequantize(at::kFloat).index_select(1, at::tensor(columns)));
}

class PrunedCheckpoint : public Checkpoint {
 public:
  PrunedCheckpoint(const Checkpoint& base, Pruning kept) : base_(base), kept_(std::move(kept)), config_(base.config()) {
    if (kept_.layers.empty()) {
      kept_.layers.resize(static_cast<size_t>(config_.layers));
      std::iota(kept_.layers.begin(), kept_.layers.end(), 0);
    }
    if (!kept_.channels.empty() && kept_.channels.size() != kept_.layers.size())
      fail(Exit::internal, "channels of {} layers are given, {} are kept", kept_.channels.size(), kept_.layers.size());
    check("layer", kept_.layers, config_.layers);
    check("token", kept_.tokens, config_.vocab);
    for (const auto& channels : kept_.channels) {
      check("MLP channel", channels, config_.ffn);
      if (channels.empty() || channels.size() != kept_.channels[0].size())
        fail(Exit::internal, "every layer's MLP keeps as many channels, and at least one");
    }
    config_.layers = static_cast<int64_t>(kept_.layers.size());
    if (!kept_.channels.empty()) config_.ffn = static_cast<int64_t>(kept_.channels[0].size());
    if (!kept_.tokens.empty()) config_.vocab = static_cast<int64_t>(kept_.tokens.size());
    for (const TensorSpec& spec : family_of(config_).tensors(config_)) names_.push_back(spec.name);
  }

  const ModelConfig& config() const override { return config_; }
  const std::filesystem::path& path() const override { return base_.path(); }
  bool is_gguf() const override { return base_.is_gguf(); }
  const GgufFile* gguf() const override { return base_.gguf(); }
  std::vector<std::string> names() const override { return names_; }
  bool has(const std::string& name) const override {
    return std::find(names_.begin(), names_.end(), name) != names_.end();
  }

  QuantizedTensor tensor(const std::string& name) const override {
    const std::string prefix = "model.layers.";
    if (!name.starts_with(prefix)) {
      const bool by_token = name.starts_with("model.embed_tokens.") || name.starts_with("lm_head.");
      return by_token ? some_rows(base_.tensor(name), kept_.tokens) : base_.tensor(name);
    }
    const size_t dot = name.find('.', prefix.size());
    const size_t layer = std::stoul(name.substr(prefix.size(), dot - prefix.size()));
    const std::string rest = name.substr(dot);
    const QuantizedTensor whole = base_.tensor(prefix + std::to_string(kept_.layers.at(layer)) + rest);
    const QuantizedTensor stored = whole.renamed(name, whole.shape());
    if (kept_.channels.empty()) return stored;
    const auto& channels = kept_.channels.at(layer);
    if (rest.starts_with(".mlp.gate_proj.") || rest.starts_with(".mlp.up_proj.")) return some_rows(stored, channels);
    return rest == ".mlp.down_proj.weight" ? some_columns(stored, channels) : stored;
  }

  /// Of the base and what is kept: equal ones hold the same tensors.
  std::string hash() const override {
    Sha256 sha;
    sha.update(fmt::format("{}\n{}\n{}\n", base_.hash(), fmt::join(kept_.layers, ","), fmt::join(kept_.tokens, ",")));
    for (const auto& channels : kept_.channels) sha.update(fmt::format("{}\n", fmt::join(channels, ",")));
    return sha.hex();
  }

 private:
  void check(const char* what, const std::vector<int64_t>& indices, int64_t limit) const {
    for (const int64_t index : indices)
      if (index < 0 || index >= limit)
        fail(Exit::usage, "{}: there is no {} {}; allowed: 0 to {}", base_.path().string(), what, index, limit - 1);
  }

  const Checkpoint& base_;
  Pruning kept_;
  ModelConfig config_;
  std::vector<std::string> names_;
};

}  // namespace

std::unique_ptr<Checkpoint> prune_while_reading(const Checkpoint& base, Pruning kept) {
  return std::make_unique<PrunedCheckpoint>(base, std::move(kept));
}

}  // namespace retort
