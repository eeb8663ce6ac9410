#include "distill/torch_teacher.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "core/hash.h"
#include "distill/model_hash.h"

namespace retort {
namespace {

/// Tokens of one forward.
constexpr int64_t kTokens = 1024;

at::Tensor as_indices(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

class TorchTeacher final : public Teacher {
 public:
  TorchTeacher(CausalLM& model, std::shared_ptr<CausalLM> owned, AdapterSet adapters, TeacherIdentity identity,
               std::string name)
      : owned_(std::move(owned)),
        model_(model),
        adapters_(std::move(adapters)),
        identity_(std::move(identity)),
        name_(std::move(name)) {}

  const TeacherIdentity& identity() const override { return identity_; }
  int64_t vocab() const override { return model_.config().vocab; }
  std::shared_ptr<CausalLM> torch() override { return owned_; }

  void logits(const std::vector<std::vector<int32_t>>& documents, const std::vector<std::vector<int64_t>>& wanted,
              const std::function<void(size_t, const at::Tensor&)>& each) override {
    for (size_t first = 0, last = 0; first < documents.size(); first = last) {
      Batch batch{{}, {}, {0}};
      std::vector<int64_t> ids, rows;
      std::vector<size_t> numbers;
      for (; last < documents.size(); ++last) {
        const std::vector<int32_t>& document = documents[last];
        if (wanted[last].empty()) continue;
        const auto length = wanted[last].back() + 1;
        if (!ids.empty() && batch.tokens() + length > kTokens) break;
        for (int64_t position : wanted[last]) rows.push_back(batch.tokens() + position);
        ids.insert(ids.end(), document.begin(), document.begin() + length);
        batch.offsets.push_back(batch.tokens() + length);
        numbers.push_back(last);
      }
      if (ids.empty()) continue;
      batch.ids = as_indices(ids);
      const at::Tensor hidden = hidden_rows(batch, rows, numbers);
      int64_t row = 0;
      for (size_t d = first; d < last; ++d) {
        const auto count = static_cast<int64_t>(wanted[d].size());
        if (count == 0) continue;
        const at::Tensor logits = head(hidden.slice(0, row, row + count)).cpu();
        check_logits(logits, name_, d, wanted[d]);
        each(d, logits);
        row += count;
      }
    }
  }

  /// Keeps the hidden states of all rows; the head runs chunk by chunk.
  DenseLogits dense(const Batch& batch, const std::vector<int64_t>& rows) override {
    return [this, hidden = hidden_rows(batch, rows)](int64_t begin, int64_t end) {
      return head(hidden.slice(0, begin, end));
    };
  }

 private:
  /// `numbers`: what errors call the batch's documents; empty: by their place in it.
  at::Tensor hidden_rows(const Batch& batch, const std::vector<int64_t>& rows,
                         const std::vector<size_t>& numbers = {}) {
    const at::NoGradGuard no_grad;
    const Wearing wearing(*this);
    const at::Tensor hidden = model_.hidden(batch).index_select(0, as_indices(rows).to(model_.device()));
    // A NaN anywhere in a hidden state makes all of its logits NaN.
    for (size_t d = 0, row = 0; row < rows.size(); ++d) {
      std::vector<int64_t> positions;
      const auto first = static_cast<int64_t>(row);
      for (; row < rows.size() && rows[row] < batch.offsets[d + 1]; ++row)
        positions.push_back(rows[row] - batch.offsets[d]);
      check_logits(hidden.slice(0, first, static_cast<int64_t>(row)), name_, numbers.empty() ? d : numbers[d],
                   positions);
    }
    return hidden;
  }

  at::Tensor head(const at::Tensor& hidden) {
    const at::NoGradGuard no_grad;
    const Wearing wearing(*this);
    return model_.logits(hidden).to(at::kFloat);
  }

  /// The teacher's adapters on a model that is another's; nothing to do for its own.
  struct Wearing {
    explicit Wearing(TorchTeacher& teacher) {
      if (!teacher.owned_) lent.emplace(teacher.model_, teacher.adapters_);
    }
    std::optional<LentAdapters> lent;
  };

  std::shared_ptr<CausalLM> owned_;
  CausalLM& model_;
  AdapterSet adapters_;
  TeacherIdentity identity_;
  std::string name_;
};

}  // namespace

void LentAdapters::swap() {
  const std::vector<Linear*> linears = model_.linears();
  set_.linears.resize(linears.size());
  for (size_t i = 0; i < linears.size(); ++i) std::swap(linears[i]->adapter, set_.linears[i]);
  std::swap(model_.embedding().adapter, set_.embedding);
}

std::unique_ptr<Teacher> torch_teacher(CausalLM& model, std::unique_ptr<CausalLM> owned, AdapterSet adapters,
                                       TeacherIdentity identity, std::string name) {
  return std::make_unique<TorchTeacher>(model, std::move(owned), std::move(adapters), std::move(identity),
                                        std::move(name));
}

TeacherIdentity torch_identity(const Checkpoint& checkpoint, const std::filesystem::path& adapter,
                               const Tokenizer& tokenizer) {
  std::vector<QuantizedTensor> tensors;
  for (const std::string& name : checkpoint.names()) tensors.push_back(checkpoint.tensor(name));
  TeacherIdentity identity{checkpoint.hash(), main_type(tensors), tokenizer.hash(), "LibTorch",
                           checkpoint.config().vocab};
  if (!adapter.empty()) identity.hash = sha256_hex(identity.hash + hash_of_adapter(adapter));
  return identity;
}

}  // namespace retort
