#include "models/quantized_checkpoint.h"

#include <mutex>
#include <unordered_map>

namespace retort {
namespace {

class QuantizedCheckpoint : public Checkpoint {
 public:
  QuantizedCheckpoint(std::unique_ptr<Checkpoint> base, const BnbOptions& options)
      : base_(std::move(base)), options_(options) {}

  const ModelConfig& config() const override { return base_->config(); }
  const std::filesystem::path& path() const override { return base_->path(); }
  bool is_gguf() const override { return base_->is_gguf(); }
  const GgufFile* gguf() const override { return base_->gguf(); }
  std::vector<std::string> names() const override { return base_->names(); }
  bool has(const std::string& name) const override { return base_->has(name); }
  std::string hash() const override { return base_->hash(); }
  const Checkpoint* unquantized() const override { return base_.get(); }

  QuantizedTensor tensor(const std::string& name) const override {
    const std::lock_guard lock(mutex_);
    if (const auto made = made_.find(name); made != made_.end()) return made->second;
    QuantizedTensor stored = base_->tensor(name);
    if (!is_block_matrix(stored)) return stored;
    return made_.emplace(name, bnb_quantized(stored, options_)).first->second;
  }

 private:
  std::unique_ptr<Checkpoint> base_;
  BnbOptions options_;
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, QuantizedTensor> made_;
};

}  // namespace

bool is_block_matrix(const QuantizedTensor& tensor) {
  return tensor.is_ggml() && tensor.shape().size() == 2 && tensor.name().starts_with("model.layers.");
}

std::unique_ptr<Checkpoint> quantize_while_reading(std::unique_ptr<Checkpoint> base, const BnbOptions& options) {
  return std::make_unique<QuantizedCheckpoint>(std::move(base), options);
}

std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path, const std::string& form) {
  auto checkpoint = Checkpoint::open(path);
  return form.empty() ? std::move(checkpoint) : quantize_while_reading(std::move(checkpoint), bnb_options(form));
}

}  // namespace retort
