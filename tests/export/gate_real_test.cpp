// The gate on the real SmolLM2-135M, exported once as Q4_K_M with an importance matrix, then damaged.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>

#include "adapters/attach.h"
#include "data/encode.h"
#include "export/gguf.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"
#include "tests/export/gate_faults.h"

namespace retort {
namespace {

struct Exported {
  TemporaryFolder folder;
  std::unique_ptr<Checkpoint> base = Checkpoint::open(smollm2_path());
  std::unique_ptr<CausalLM> trained = CausalLM::load(*base, {});
  std::unique_ptr<Tokenizer> tokenizer = Tokenizer::open(base->path());
  std::time_t now = 1'700'000'000;
  ChatTemplate chat_template{*tokenizer, "", now};
  std::vector<GateRow> rows;
  Imatrix imatrix;
  std::filesystem::path path = folder.path() / "whole.gguf";

  Exported() {
    AdapterOptions options;
    options.r = 4;
    attach(*trained, options, 7);
    at::NoGradGuard no_grad;
    at::manual_seed(5);
    for (Parameter& parameter : trainable_parameters(*trained)) parameter.tensor.normal_(0, 0.01);
    Ledger ledger;
    for (const Chat& chat : questions()) rows.push_back({chat, *encode(*tokenizer, chat_template, chat, {}, ledger)});
    size_t next = 0;
    imatrix = collect_imatrix(
        *trained,
        [&](Batch& batch) {
          if (next == rows.size()) return false;
          const auto& ids = rows[next++].example.ids;
          batch.ids = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()));
          batch.labels = at::full_like(batch.ids, -1);
          batch.offsets = {0, batch.ids.numel()};
          return true;
        },
        "five questions");
    export_gguf(path, *base, *trained, gguf_type("Q4_K_M"), {}, {.imatrix = &imatrix});
  }

  GateReference reference() { return {*base, *trained, *tokenizer, chat_template, now}; }
  GateFile file(const std::filesystem::path& which) {
    return {.path = which, .adapter = {}, .type = "Q4_K_M", .imatrix = &imatrix};
  }
};

class RealGate : public testing::Test {
 protected:
  static void SetUpTestSuite() { exported_ = new Exported; }
  static void TearDownTestSuite() {
    delete exported_;
    exported_ = nullptr;
  }
  static Exported& exported() { return *exported_; }

  static GateReport judge(const std::filesystem::path& path) {
    return gate(exported().reference(), exported().file(path), exported().rows, {}, {}, 100);
  }
  /// The gate's report on a copy with a fault.
  static GateReport damaged(const ChangeKeys& keys, const ChangeTensor& tensors = {}) {
    const auto path = exported().folder.path() / "damaged.gguf";
    write_changed(exported().path, path, keys, tensors);
    return judge(path);
  }

 private:
  static inline Exported* exported_ = nullptr;
};

TEST_F(RealGate, PassesTheFileWithAnImportanceMatrix) {
  const GateReport report = judge(exported().path);
  EXPECT_TRUE(report.passed) << reasons(report);
  for (const char* type : {"Q4_K", "Q5_0", "Q6_K", "Q8_0"}) EXPECT_TRUE(report.weights.contains(type)) << type;
  // The matrix puts single weights beyond the bound, and only quantizing again explains them.
  const WeightDifference& of_type = report.weights.at("Q5_0");
  EXPECT_GT(of_type.worst_block, of_type.bounds.worst_block);
  EXPECT_LE(of_type.unexplained, of_type.bounds.worst_block);
  GateFile without = exported().file(exported().path);
  without.imatrix = nullptr;
  GateReport other;
  compare_weights(exported().reference(), without, other);
  expect_refused(other, "has a weight that is off by");
}

TEST_F(RealGate, RefusesQueriesAndKeysLeftUnpermuted) {
  const ModelConfig& config = exported().base->config();
  const GateReport report = damaged({}, [&](const std::string& name, Bytes& bytes) { unpermute(config, name, bytes); });
  expect_refused(report, "weights: model.layers.0.self_attn.q_proj.weight");
  expect_refused(report, "weights: model.layers.29.self_attn.k_proj.weight");
  expect_refused(report, "mean KL divergence");
}

TEST_F(RealGate, RefusesAWrongPreTokenizer) {
  expect_refused(damaged([](GgufWriter& w) { w.set_text("tokenizer.ggml.pre", "qwen2"); }), "tokens: of ");
}

TEST_F(RealGate, RefusesAWrongNorm) {
  const GateReport report = damaged({}, [](const std::string& name, Bytes& bytes) {
    if (name == "blk.12.ffn_norm.weight") change_floats(bytes, [](float x) { return x + 1; });
  });
  expect_refused(report, "weights: model.layers.12.post_attention_layernorm.weight");
  expect_refused(damaged([](GgufWriter& w) { w.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-6F); }),
                 "rotary or norm constants");
}

TEST_F(RealGate, RefusesADroppedTemplate) {
  expect_refused(damaged([](GgufWriter& w) { w.remove("tokenizer.chat_template"); }), "chat template: ");
}

/// Where a block keeps its f16 scale and its quants.
struct Layout {
  size_t scale, quants, quants_size;
};
const std::map<int, Layout> kLayouts = {{GGML_TYPE_Q8_0, {0, 2, 32}},
                                        {GGML_TYPE_Q5_0, {0, 2, 20}},
                                        {GGML_TYPE_Q4_K, {0, 16, 128}},
                                        {GGML_TYPE_Q6_K, {208, 0, 192}}};

TEST_F(RealGate, RefusesOneDamagedBlockOfEveryType) {
  // A fault in each of several tensors; each must be named, and nothing else.
  const auto whole = GgufFile::open(exported().path);
  std::map<std::string, std::string> hf_names;
  for (const TensorSpec& spec : family_of(exported().base->config()).tensors(exported().base->config()))
    hf_names[spec.gguf] = spec.name;
  std::map<int, int> used;
  std::map<std::string, std::pair<int, Layout>> chosen;  // the fault's kind, by tensor
  for (const QuantizedTensor& tensor : whole->tensors()) {
    const auto layout = kLayouts.find(tensor.type());
    if (layout == kLayouts.end() || tensor.name() == "token_embd.weight" || used[tensor.type()] == 4) continue;
    chosen[tensor.name()] = {used[tensor.type()]++, layout->second};
  }
  ASSERT_EQ(chosen.size(), 16u);
  const auto path = exported().folder.path() / "blocks.gguf";
  write_changed(exported().path, path, {}, [&](const std::string& name, Bytes& bytes) {
    const auto found = chosen.find(name);
    if (found == chosen.end()) return;
    const auto& [kind, layout] = found->second;
    const QuantizedTensor& tensor = *whole->find(name);
    const size_t size = ggml_type_size(static_cast<ggml_type>(tensor.type()));
    uint8_t* block = &bytes[bytes.size() / size / 2 * size];
    switch (kind) {
      case 0:
        std::memset(block + layout.scale, 0x2E, 2);
        break;  // 0.1: far above a weight's step
      case 1:
        std::memset(block + layout.quants, 0, layout.quants_size);
        break;
      case 2:
        std::memcpy(block, &bytes[bytes.size() / size / 3 * size], size);
        break;
      default:
        std::memset(block + layout.scale, 0, 2);
        break;
    }
  });
  GateReport report;
  compare_weights(exported().reference(), exported().file(path), report);
  for (const auto& [name, fault] : chosen)
    EXPECT_NE(reasons(report).find("weights: " + hf_names.at(name) + " "), std::string::npos)
        << name << ", fault " << fault.first << "\n"
        << reasons(report);
  EXPECT_EQ(report.reasons.size(), chosen.size());
}

}  // namespace
}  // namespace retort
