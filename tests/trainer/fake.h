// A model and a data set small enough to train in a millisecond a step, for tests of the loop itself.
#pragma once

#include <ATen/ATen.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/hash.h"
#include "data/loader.h"
#include "models/causal_lm.h"
#include "models/safetensors.h"
#include "trainer/train.h"

namespace retort {

/// hidden = dropout(E[ids] + E[ids] Aᵀ Bᵀ), logits = hidden Eᵀ; A and B are trained, by autograd.
class FakeModel : public CausalLM {
 public:
  explicit FakeModel(at::ScalarType dtype = at::kFloat, double dropout = 0, int64_t rank = 3) : dropout_(dropout) {
    auto generator = at::globalContext().defaultGenerator(at::kCPU).clone();
    generator.set_current_seed(3);
    const auto options = at::TensorOptions(dtype);
    config_.vocab = 29;
    config_.dim = config_.ffn = 8;
    embedding_ = at::randn({29, 8}, generator, options);
    a_ = (at::randn({rank, 8}, generator, options) * 0.3).requires_grad_(true);
    b_ = (at::randn({8, rank}, generator, options) * 0.1).requires_grad_(true);
  }
  const ModelConfig& config() const override { return config_; }
  at::ScalarType dtype() const override { return embedding_.scalar_type(); }
  at::Device device() const override { return at::kCPU; }
  std::vector<Linear*> linears() override { return {}; }
  Embedding& embedding() override { return frozen_embedding_; }
  at::Tensor hidden(const Batch& batch, const ForwardOptions& options) override {
    if (on_forward) on_forward(options.training);
    const at::Tensor x = embedding_.index_select(0, batch.ids);
    const at::Tensor h = x + x.matmul(a_.t()).matmul(b_.t());
    return at::dropout(h, dropout_, options.training && dropout_ > 0);
  }
  at::Tensor logits(const at::Tensor& hidden) override { return hidden.matmul(embedding_.t()); }
  at::Tensor cross_entropy(const at::Tensor& hidden, const at::Tensor& labels) override {
    return at::cross_entropy_loss(logits(hidden), labels, {}, at::Reduction::Sum, -1);
  }
  void observe(std::function<void(const std::string&, const at::Tensor&)>) override {}
  int64_t weight_bytes() const override { return embedding_.nbytes(); }
  int64_t parameter_count() const override { return embedding_.numel(); }

  std::vector<Parameter> parameters() const { return {{"lora_A.weight", a_}, {"lora_B.weight", b_}}; }
  void save(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    write_safetensors(folder / "adapter_model.safetensors", {{"base_model.model.lora_A.weight", a_.detach()},
                                                             {"base_model.model.lora_B.weight", b_.detach()}});
  }

  std::function<void(bool training)> on_forward;

 private:
  ModelConfig config_;
  Embedding frozen_embedding_;  // of no use here
  at::Tensor embedding_, a_, b_;
  double dropout_;
};

/// Rows of 2 to 40 tokens, of which between one and all but one are trained.
class FakeData : public PackedDataset {
 public:
  explicit FakeData(int64_t windows, uint64_t seed = 1) : seed_(seed) {
    std::mt19937_64 random(seed);
    for (int64_t w = 0; w < windows; ++w) {
      const int64_t tokens = 2 + static_cast<int64_t>(random() % 39);
      const int64_t trained = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(tokens - 1));
      std::vector<int64_t> ids(static_cast<size_t>(tokens));
      ids[0] = static_cast<int64_t>(random() % 29);
      for (size_t t = 1; t < ids.size(); ++t)
        ids[t] = random() % 4 ? (ids[t - 1] * 5 + 3) % 29 : static_cast<int64_t>(random() % 29);
      rows_.push_back(std::move(ids));
      trained_.push_back(trained);
    }
  }
  int64_t windows() const override { return static_cast<int64_t>(rows_.size()); }
  int64_t window_tokens(int64_t w) const override { return static_cast<int64_t>(rows_[size_t(w)].size()); }
  int64_t window_trained(int64_t w) const override { return trained_[size_t(w)]; }
  const Ledger& ledger() const override { return ledger_; }
  Batch batch(std::span<const int64_t> windows) const override {
    std::vector<int64_t> ids, labels, offsets{0};
    for (const int64_t w : windows) {
      const auto& row = rows_[size_t(w)];
      for (size_t t = 0; t < row.size(); ++t) {
        ids.push_back(row[t]);
        const bool trained = t + 1 < row.size() && int64_t(t) + 1 >= int64_t(row.size()) - trained_[size_t(w)];
        labels.push_back(trained ? row[t + 1] : -1);
      }
      offsets.push_back(int64_t(ids.size()));
    }
    return {at::tensor(ids), at::tensor(labels), offsets};
  }
  std::string key() const override { return sha256_hex(fmt::format("fake {} {}", seed_, windows())); }

 private:
  uint64_t seed_;
  std::vector<std::vector<int64_t>> rows_;
  std::vector<int64_t> trained_;
  Ledger ledger_;
};

/// Windows of one length, all tokens but the first trained; ids below `vocab`.
class EvenData : public PackedDataset {
 public:
  EvenData(int64_t windows, int64_t tokens, int64_t vocab) : windows_(windows), tokens_(tokens), vocab_(vocab) {
    ledger_.rows = windows;
    ledger_.tokens = windows * tokens;
  }
  int64_t windows() const override { return windows_; }
  int64_t window_tokens(int64_t) const override { return tokens_; }
  int64_t window_trained(int64_t) const override { return tokens_ - 1; }
  const Ledger& ledger() const override { return ledger_; }
  Batch batch(std::span<const int64_t> windows) const override {
    const int64_t documents = static_cast<int64_t>(windows.size());
    Batch batch{at::randint(vocab_, {documents * tokens_}, at::kLong), {}, {0}};
    batch.labels = batch.ids.roll(-1).clone();
    for (int64_t d = 1; d <= documents; ++d) {
      batch.labels[d * tokens_ - 1] = -1;
      batch.offsets.push_back(d * tokens_);
    }
    return batch;
  }
  std::string key() const override { return "even"; }

 private:
  int64_t windows_, tokens_, vocab_;
  Ledger ledger_;
};

/// A fresh folder, gone when the process ends; in memory where the system has such a file system, for there fsync costs
/// nothing.
inline std::filesystem::path fresh_folder(const std::string& name) {
  static const struct Base {
    std::filesystem::path path =
        (access("/dev/shm", W_OK) == 0 ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path()) /
        fmt::format("retort-trainer-{}", getpid());
    ~Base() { std::filesystem::remove_all(path); }
  } base;
  const auto folder = base.path / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

/// The lines of metrics.jsonl without what depends on the clock and the machine.
inline std::vector<std::string> metrics_lines(const std::filesystem::path& folder) {
  std::vector<std::string> lines;
  std::string text = read_text(folder / "metrics.jsonl");
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    Json line = parse_json(text.substr(begin, end - begin), "metrics.jsonl");
    for (const char* key : {"tokens_per_second", "memory_bytes", "wall_time"}) line.erase(key);
    lines.push_back(line.dump());
    begin = end == std::string::npos ? text.size() : end + 1;
  }
  return lines;
}

}  // namespace retort
