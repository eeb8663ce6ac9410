// The gate passes what was exported and refuses each fault that exports have had elsewhere.
#include "export/gate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "adapters/attach.h"
#include "core/files.h"
#include "data/encode.h"
#include "export/gguf.h"
#include "models/family.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"
#include "tests/export/gate_faults.h"

namespace retort {
namespace {

/// A random model of two layers with SmolLM2's real vocabulary and template, an adapter on every linear, and its
/// exports.
struct Fixture {
  TemporaryFolder folder;
  std::unique_ptr<Checkpoint> base;
  std::unique_ptr<CausalLM> trained;
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::vector<GateRow> rows;
  std::time_t now = 1'700'000'000;

  Fixture() {
    const auto path = folder.path() / "base.gguf";
    write_base(path);
    base = Checkpoint::open(path);
    trained = CausalLM::load(*base, {});
    AdapterOptions options;
    options.r = 4;
    attach(*trained, options, 7);
    at::NoGradGuard no_grad;
    for (Parameter& parameter : trainable_parameters(*trained)) parameter.tensor.normal_(0, 0.05);
    tokenizer = Tokenizer::open(path);
    chat_template.emplace(*tokenizer, "", now);
    Ledger ledger;
    for (const Chat& chat : questions()) {
      rows.push_back({chat, *encode(*tokenizer, *chat_template, chat, {}, ledger)});
    }
  }

  static void write_base(const std::filesystem::path& path) {
    const auto real = GgufFile::open(smollm2_path());
    ModelConfig config;
    config.family = config.architecture = "llama";
    config.vocab = 49152;
    config.dim = 64, config.layers = 2, config.heads = 4, config.kv_heads = 2, config.head_dim = 16, config.ffn = 96;
    config.context = 512;
    config.tied = true;
    const Family& family = family_of(config);
    GgufWriter writer;
    writer.copy_metadata(*real);
    family.write_metadata(config, writer);
    const auto specs = family.tensors(config);
    for (const TensorSpec& spec : specs) writer.add(spec.gguf, GGML_TYPE_F32, spec.shape);
    writer.begin(path);
    at::manual_seed(3);
    for (const TensorSpec& spec : specs) {
      // Large enough that attention looks at places, small enough that layers do not amplify rounding as no trained
      // model does.
      const bool sharp = spec.name.find("q_proj") != std::string::npos ||
                         spec.name.find("k_proj") != std::string::npos || spec.name.find("embed") != std::string::npos;
      const bool norm = spec.shape.size() == 1;
      const at::Tensor weight = norm ? at::rand(spec.shape) + 0.5 : at::randn(spec.shape) * (sharp ? 0.25 : 0.1);
      writer.write(spec.gguf, {static_cast<const uint8_t*>(weight.const_data_ptr()), weight.nbytes()});
    }
    writer.commit();
  }

  std::filesystem::path exported(const std::string& type) {
    auto path = folder.path() / (type + ".gguf");
    if (!std::filesystem::exists(path)) export_gguf(path, *base, *trained, gguf_type(type), {});
    return path;
  }

  GateReference reference() { return {*base, *trained, *tokenizer, *chat_template, now}; }

  GateReport run(const std::filesystem::path& path, const std::string& type) {
    return gate(reference(), {.path = path, .adapter = {}, .type = type}, rows);
  }
};

Fixture& fixture() {
  static Fixture one;
  return one;
}

std::filesystem::path faulty(const std::filesystem::path& from, const std::string& name, const ChangeKeys& keys,
                             const ChangeTensor& tensors = {}) {
  const auto path = fixture().folder.path() / (name + ".gguf");
  write_changed(from, path, keys, tensors);
  return path;
}

void unpermute(const std::string& name, Bytes& bytes) { unpermute(fixture().base->config(), name, bytes); }

/// The predictions alone must show it too: a fault in the weights' names would hide it from the weights' comparison.
void expect_predictions_refuse(const std::filesystem::path& path, const std::string& type) {
  GateReport report;
  compare_predictions(fixture().reference(), {.path = path, .adapter = {}, .type = type}, fixture().rows, {}, {}, 4096,
                      report);
  EXPECT_NE(reasons(report).find("mean KL divergence"), std::string::npos) << reasons(report);
}

TEST(Gate, PassesWhatWasExported) {
  for (const char* type : {"F32", "F16", "BF16", "Q8_0"}) {
    // Random logits nearly tie among 49,152 tokens, so only F32 is judged by the limits for real models.
    const bool exact = std::string(type) == "F32";
    const GateFile file{.path = fixture().exported(type), .adapter = {}, .type = type};
    const GateReport report = exact ? gate(fixture().reference(), file, fixture().rows)
                                    : gate(fixture().reference(), file, fixture().rows, 0.05, 0.75);
    EXPECT_TRUE(report.passed) << type << "\n" << reasons(report);
    EXPECT_EQ(report.rows, 5);
    EXPECT_GT(report.positions, 100);
    EXPECT_GT(report.texts, 20);
    if (exact) {
      EXPECT_LT(report.kl_mean, 1e-7);
      EXPECT_EQ(report.weights.at("F32").relative_error, 0);
    }
  }
}

TEST(Gate, RefusesAnAdapterThatWasNotMerged) {
  const auto without = fixture().folder.path() / "unmerged.gguf";
  auto model = CausalLM::load(*fixture().base, {});
  export_gguf(without, *fixture().base, *model, gguf_type("F32"), {});
  expect_refused(fixture().run(without, "F32"), "weights: model.layers.0.self_attn.q_proj.weight");
  expect_predictions_refuse(without, "F32");
}

TEST(Gate, RefusesQueriesAndKeysLeftUnpermuted) {
  for (const char* type : {"F32", "Q8_0"}) {
    const auto path = faulty(fixture().exported(type), std::string("permute-") + type, {}, unpermute);
    expect_refused(fixture().run(path, type), "weights: model.layers.0.self_attn.k_proj.weight");
    expect_predictions_refuse(path, type);
  }
}

TEST(Gate, RefusesAWrongPreTokenizer) {
  const auto path =
      faulty(fixture().exported("F32"), "pre", [](GgufWriter& w) { w.set_text("tokenizer.ggml.pre", "qwen2"); });
  expect_refused(fixture().run(path, "F32"), "tokens: of ");
}

TEST(Gate, RefusesAWrongNorm) {
  const auto plus_one = faulty(fixture().exported("F32"), "norm", {}, [](const std::string& name, Bytes& bytes) {
    if (name == "output_norm.weight") change_floats(bytes, [](float x) { return x + 1; });
  });
  expect_refused(fixture().run(plus_one, "F32"), "weights: model.norm.weight");
  expect_predictions_refuse(plus_one, "F32");
  const auto epsilon = faulty(fixture().exported("F32"), "epsilon",
                              [](GgufWriter& w) { w.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-2); });
  expect_refused(fixture().run(epsilon, "F32"), "rotary or norm constants");
}

TEST(Gate, RefusesAMissingOrChangedTemplate) {
  const auto dropped =
      faulty(fixture().exported("F32"), "no-template", [](GgufWriter& w) { w.remove("tokenizer.chat_template"); });
  expect_refused(fixture().run(dropped, "F32"), "chat template: ");
  const auto changed = faulty(fixture().exported("F32"), "template", [](GgufWriter& w) {
    w.set_text("tokenizer.chat_template", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
  });
  expect_refused(fixture().run(changed, "F32"), "renders to");
}

TEST(Gate, RefusesOneDamagedBlock) {
  // One weight of 98,304 in F32; one block of 192 in Q8_0, where quantization itself moves every weight.
  const auto weight = faulty(fixture().exported("F32"), "weight", {}, [](const std::string& name, Bytes& bytes) {
    if (name == "blk.1.ffn_down.weight") bytes[4000 + 3] ^= 0x01;
  });
  expect_refused(fixture().run(weight, "F32"), "weights: model.layers.1.mlp.down_proj.weight");
  const auto block = faulty(fixture().exported("Q8_0"), "block", {}, [](const std::string& name, Bytes& bytes) {
    if (name != "blk.1.ffn_down.weight") return;
    for (size_t i = 2; i < 34; ++i) bytes[34 * 50 + i] = static_cast<uint8_t>(bytes[34 * 50 + i] + 40);
  });
  expect_refused(fixture().run(block, "Q8_0"), "weights: model.layers.1.mlp.down_proj.weight");
}

TEST(Gate, RefusesAnotherEndOfText) {
  const auto path =
      faulty(fixture().exported("F32"), "eos", [](GgufWriter& w) { w.set_u32("tokenizer.ggml.eos_token_id", 42); });
  expect_refused(fixture().run(path, "F32"), "vocabulary: EOS is 42, the trainer's is 2");
}

TEST(Gate, SaysWhyAFileCannotBeRead) {
  const std::string whole = read_text(fixture().exported("F32"));
  const auto path = fixture().folder.path() / "cut.gguf";
  write_atomic(path, std::string_view(whole).substr(0, whole.size() / 2));
  const GateReport report = fixture().run(path, "F32");
  EXPECT_FALSE(report.passed);
  EXPECT_GE(report.reasons.size(), 2u) << reasons(report);
  // An infinite scale is found when llama.cpp checks the blocks.
  const auto infinite = faulty(fixture().exported("Q8_0"), "infinite", {}, [](const std::string& name, Bytes& bytes) {
    if (name == "blk.0.attn_v.weight") bytes[0] = 0x00, bytes[1] = 0x7C;
  });
  expect_refused(fixture().run(infinite, "Q8_0"), "attn_v.weight");
}

TEST(Gate, ComparesAServedAdapter) {
  const auto adapter = fixture().folder.path() / "adapter.gguf";
  export_gguf_adapter(adapter, *fixture().trained, {});
  GateFile file{.path = fixture().base->path(), .adapter = adapter, .type = "F32"};
  const GateReport report = gate(fixture().reference(), file, fixture().rows);
  EXPECT_TRUE(report.passed) << reasons(report);
  file.adapter.clear();
  EXPECT_FALSE(gate(fixture().reference(), file, fixture().rows).passed);
}

TEST(Gate, TakesLimitsFromTheRecipe) {
  const GateFile file{.path = fixture().exported("Q8_0"), .adapter = {}, .type = "Q8_0"};
  const GateReport strict = gate(fixture().reference(), file, fixture().rows, 1e-9);
  expect_refused(strict, "mean KL divergence");
  EXPECT_EQ(strict.limits.max_kl, 1e-9);
  expect_refused(gate(fixture().reference(), file, fixture().rows, {}, 1.0), "share of equal most likely tokens");
}

TEST(Gate, AllowsAShareOfFewPositionsItsScatter) {
  const GateFile file{.path = fixture().exported("Q8_0"), .adapter = {}, .type = "Q8_0"};
  const GateReport report = gate(fixture().reference(), file, fixture().rows);
  const double limit = gate_limits("Q8_0", {}, {}).min_top1;
  EXPECT_DOUBLE_EQ(report.limits.min_top1,
                   limit - 3 * std::sqrt(limit * (1 - limit) / static_cast<double>(report.positions)));
  EXPECT_EQ(gate(fixture().reference(), file, fixture().rows, {}, 0.7).limits.min_top1, 0.7);
}

TEST(Gate, LimitsSeparateWhatWasMeasured) {
  // docs/gate.md: mean KL of the tuned SmolLM2 without and with an importance matrix.
  for (const auto& [type, kl] : std::map<std::string, double>{{"Q8_0", 0.0075},
                                                              {"Q6_K", 0.019},
                                                              {"Q4_K_M", 0.117},
                                                              {"Q5_0", 0.169},
                                                              {"Q4_0", 0.58},
                                                              {"IQ4_XS", 0.40},
                                                              {"Q3_K_M", 0.39},
                                                              {"IQ3_M", 0.26},
                                                              {"IQ2_XXS", 0.91}})
    EXPECT_GT(gate_limits(type, {}, {}).max_kl, 1.4 * kl) << type;
  // Over a base of Q4_1 these round most of the training away.
  for (const auto& [type, kl] : std::map<std::string, double>{{"Q4_1", 0.75}, {"Q5_1", 1.0}, {"Q5_K_M", 0.60}})
    EXPECT_LT(gate_limits(type, {}, {}).max_kl, kl / 1.4) << type;
}

TEST(Gate, JudgesTheRealModel) {
  const auto base = Checkpoint::open(smollm2_path());
  const auto model = CausalLM::load(*base, {});
  const auto tokenizer = Tokenizer::open(base->path());
  const std::time_t now = 1'700'000'000;
  const ChatTemplate chat_template(*tokenizer, "", now);
  std::vector<GateRow> rows;
  Ledger ledger;
  for (const Chat& chat : questions()) rows.push_back({chat, *encode(*tokenizer, chat_template, chat, {}, ledger)});
  const GateReference reference{*base, *model, *tokenizer, chat_template, now};
  // The file itself: its weights are bit for bit what is trained against; llama.cpp rounds activations to 8 bits.
  const GateReport own = gate(reference, {.path = base->path(), .adapter = {}, .type = "Q4_1"}, rows);
  EXPECT_TRUE(own.passed) << reasons(own);
  EXPECT_EQ(own.weights.at("Q4_1").relative_error, 0);
  TemporaryFolder folder;
  export_gguf(folder.path() / "f32.gguf", *base, *model, gguf_type("F32"), {});
  const GateReport f32 = gate(reference, {.path = folder.path() / "f32.gguf", .adapter = {}, .type = "F32"}, rows);
  EXPECT_TRUE(f32.passed) << reasons(f32);
  EXPECT_LT(f32.kl_mean, 1e-5);
}

}  // namespace
}  // namespace retort
