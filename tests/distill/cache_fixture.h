// A small data set and a teacher that makes logits up: the cache's tests need no model.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/rng.h"
#include "distill/cache_shard.h"
#include "distill/logit_cache.h"
#include "tests/core/support.h"

namespace retort {

constexpr int64_t cache_vocab = 500;

struct FakeDocument {
  std::vector<int32_t> ids;
  std::vector<bool> trained;
};

/// One document a window.
class FakeDataset : public PackedDataset {
 public:
  explicit FakeDataset(std::vector<FakeDocument> documents) : documents_(std::move(documents)) {}
  int64_t windows() const override { return static_cast<int64_t>(documents_.size()); }
  int64_t window_tokens(int64_t window) const override { return static_cast<int64_t>(documents_[window].ids.size()); }
  int64_t window_trained(int64_t window) const override {
    return std::count(documents_[window].trained.begin() + 1, documents_[window].trained.end(), true);
  }
  const Ledger& ledger() const override { return ledger_; }
  Batch batch(std::span<const int64_t> windows) const override {
    std::vector<int64_t> ids, labels;
    Batch batch;
    batch.offsets = {0};
    for (int64_t w : windows) {
      const FakeDocument& d = documents_[w];
      for (size_t t = 0; t < d.ids.size(); ++t) {
        ids.push_back(d.ids[t]);
        labels.push_back(t + 1 < d.ids.size() && d.trained[t + 1] ? d.ids[t + 1] : -1);
      }
      batch.offsets.push_back(static_cast<int64_t>(ids.size()));
    }
    batch.ids = at::tensor(ids, at::kLong);
    batch.labels = at::tensor(labels, at::kLong);
    return batch;
  }
  std::string key() const override { return "fake"; }
  std::vector<FakeDocument>& documents() { return documents_; }
  const std::vector<FakeDocument>& documents() const { return documents_; }

 private:
  std::vector<FakeDocument> documents_;
  Ledger ledger_;
};

/// Documents of 5 to 34 tokens; the middle of each is not trained.
inline FakeDataset fake_data(int64_t count, uint64_t seed = 1) {
  Rng rng(seed);
  std::vector<FakeDocument> documents(count);
  for (FakeDocument& d : documents) {
    const uint64_t length = 5 + rng.below(30);
    for (uint64_t t = 0; t < length; ++t) {
      d.ids.push_back(static_cast<int32_t>(rng.below(cache_vocab)));
      d.trained.push_back(t < length / 3 || t > length / 2);
    }
  }
  return FakeDataset(std::move(documents));
}

/// Logits that are the same whenever a position of a document is asked for; some rows are peaked, some flat.
inline at::Tensor fake_logits(std::span<const int32_t> ids, int64_t position, int64_t vocab = cache_vocab) {
  Rng rng(document_key(ids).low + static_cast<uint64_t>(position));
  const double sharpness = 0.5 + 6 * rng.uniform();
  std::vector<float> logits(vocab);
  for (float& logit : logits) {
    double sum = 0;  // nearly normal
    for (int i = 0; i < 4; ++i) sum += rng.uniform() - 0.5;
    logit = static_cast<float>(3 + sharpness * sum);
  }
  return at::tensor(logits);
}

class FakeTeacher : public Teacher {
 public:
  const TeacherIdentity& identity() const override { return identity_; }
  int64_t vocab() const override { return width; }
  void logits(const std::vector<std::vector<int32_t>>& documents, const std::vector<std::vector<int64_t>>& wanted,
              const std::function<void(size_t, const at::Tensor&)>& each) override {
    for (size_t d = 0; d < documents.size(); ++d) {
      std::vector<at::Tensor> rows;
      for (int64_t position : wanted[d]) rows.push_back(fake_logits(documents[d], position, width));
      if (before) before(rows);
      ++asked;
      each(d, at::stack(rows));
    }
  }

  int64_t asked = 0, width = cache_vocab;
  std::function<void(std::vector<at::Tensor>& rows)> before = {};  ///< may change a document's rows, or throw

 private:
  TeacherIdentity identity_ = {"teacher-hash", "F32", "tokens", "fake", cache_vocab + 12};
};

class Cache : public testing::Test {
 protected:
  CacheSubject subject() { return {teacher_.identity(), "tokens", "template", cache_vocab}; }
  CaptureReport fill(const PackedDataset& data, CacheShare share = {}) {
    return capture(teacher_, data, cells_, subject(), options_, folder_.path(), share);
  }
  std::shared_ptr<const LogitCache> open() { return LogitCache::open(folder_.path(), subject()); }
  TemporaryFolder folder_;
  FakeTeacher teacher_;
  CacheOptions options_ = {.top_k = 12, .min_probability = 0.01, .tail_clusters = 6};
  Cells cells_ =
      cluster_cells(at::randn({cache_vocab, 8}, at::make_generator<at::CPUGeneratorImpl>(3)), cache_vocab, 6, 42);
};

/// Each label's row of the teacher's logits, f64 [rows, V].
inline at::Tensor true_log_p(const FakeDataset& data, std::span<const int64_t> windows, double temperature) {
  std::vector<at::Tensor> rows;
  const Batch batch = data.batch(windows);
  for (size_t d = 0; d + 1 < batch.offsets.size(); ++d) {
    const at::Tensor ids = batch.ids.slice(0, batch.offsets[d], batch.offsets[d + 1]).to(at::kInt).contiguous();
    const std::span<const int32_t> span(ids.const_data_ptr<int32_t>(), ids.numel());
    for (int64_t t = 0; t < ids.numel(); ++t)
      if (batch.labels[batch.offsets[d] + t].item<int64_t>() >= 0) rows.push_back(fake_logits(span, t));
  }
  return at::log_softmax(at::stack(rows).to(at::kDouble) / temperature, 1);
}

/// Forward KL of a partition against log q [rows, V], f64 [rows].
inline at::Tensor partition_kl(const Partition& p, const at::Tensor& log_q) {
  const at::Tensor ids = p.ids.clamp_min(0).to(at::kLong), used = p.ids >= 0;
  const at::Tensor q = log_q.exp();
  at::Tensor rest = q.clone();
  rest.scatter_(1, ids, at::where(used, at::zeros_like(p.log_p, at::kDouble), rest.gather(1, ids)));
  for (int64_t r = 0; r < ids.size(0); ++r)  // place 0 of unused ones may have put token 0 back
    for (int64_t i = 0; i < ids.size(1); ++i)
      if (used[r][i].item<bool>()) rest[r][ids[r][i].item<int64_t>()] = 0;
  const at::Tensor cell = p.cell_of.to(at::kLong).expand({ids.size(0), -1});
  const at::Tensor mass_q = at::zeros_like(p.log_mass, at::kDouble).scatter_add_(1, cell, rest);
  const auto part = [](const at::Tensor& log_p, const at::Tensor& log_q) {
    return at::where(log_p.isinf(), at::zeros_like(log_p), log_p.exp() * (log_p - log_q)).sum(1);
  };
  return part(p.log_p.to(at::kDouble), log_q.gather(1, ids)) + part(p.log_mass.to(at::kDouble), mass_q.log());
}

}  // namespace retort
