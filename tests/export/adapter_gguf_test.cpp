// GGUF adapters both ways, and files that are none.
#include "export/adapter_gguf.h"

#include <ATen/ATen.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "core/error.h"
#include "core/files.h"
#include "tests/adapters/golden.h"
#include "tests/export/small_model.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct AdapterFile : testing::Test {
  TemporaryFolder folder;
  std::unique_ptr<Checkpoint> base;
  std::unique_ptr<CausalLM> model;
  fs::path path = folder / "adapter.gguf";

  AdapterFile() {
    write_small_model(folder / "base.gguf", "k");
    base = Checkpoint::open(folder / "base.gguf");
    model = CausalLM::load(*base, {});
    AdapterOptions options;
    options.r = 4;
    options.rank_pattern = {{"q_proj", 1}, {"down_proj", 5}};
    options.target_modules = {.expression = "", .names = {"q_proj", "k_proj", "down_proj", "embed_tokens", "lm_head"}};
    attach(*model, options, 1);
    at::manual_seed(2);
    for (const Parameter& parameter : trainable_parameters(*model)) parameter.tensor.detach().normal_(0, 0.05);
    export_gguf_adapter(path, *model, {.base = "b", .base_hash = "h", .data_hash = "d"});
  }

  /// The file again, after `alter` has seen its keys and tensors.
  void rewrite(const std::function<void(GgufWriter&, std::map<std::string, at::Tensor>&)>& alter) {
    const auto file = GgufFile::open(path);
    GgufWriter writer;
    writer.copy_metadata(*file);
    std::map<std::string, at::Tensor> tensors;
    for (const QuantizedTensor& tensor : file->tensors()) tensors[tensor.name()] = tensor.dequantize(at::kFloat);
    alter(writer, tensors);
    for (const auto& [name, tensor] : tensors)
      writer.add(name, tensor.scalar_type() == at::kHalf ? GGML_TYPE_F16 : GGML_TYPE_F32, tensor.sizes());
    writer.begin(path);
    for (const auto& [name, tensor] : tensors) {
      const at::Tensor dense = tensor.contiguous();
      writer.write(name, {static_cast<const uint8_t*>(dense.const_data_ptr()), dense.nbytes()});
    }
    writer.commit();
  }
  std::string refusal() const {
    try {
      read_gguf_adapter(path, base->config());
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_input) << error.what();
      EXPECT_NE(std::string(error.what()).find("adapter.gguf"), std::string::npos) << error.what();
      return error.what();
    }
    return "nothing was refused";
  }
};

TEST_F(AdapterFile, IsReadBackAsTheProductsThatTheModelHas) {
  const ProductAdapter read = read_gguf_adapter(path, base->config());
  const std::map<std::string, Product> expected = products_of(*model);
  ASSERT_EQ(read.modules.size(), expected.size());
  EXPECT_EQ(read.modules.size(), 3U * 8 + 2);
  for (const auto& [module, product] : expected) {
    EXPECT_TRUE(at::equal(read.modules.at(module).a, product.a)) << module;
    EXPECT_TRUE(at::equal(read.modules.at(module).b, product.b)) << module;
    EXPECT_EQ(read.modules.at(module).scale, 1) << module;
  }
  EXPECT_EQ(read.origin.base, "b");
  EXPECT_EQ(read.origin.base_hash, "h");
  EXPECT_EQ(read.origin.data_hash, "d");
  write_gguf_adapter(folder / "again.gguf", read, base->config(), {.base = "b", .base_hash = "h", .data_hash = "d"});
  EXPECT_EQ(read_text(folder / "again.gguf"), read_text(path));
}

TEST_F(AdapterFile, ThroughAPeftFolderItIsTheSame) {
  save_products(folder / "peft", read_gguf_adapter(path, base->config()));
  const std::map<std::string, Product> expected = products_of(*model);
  load_peft(folder / "peft", *model);
  for (const auto& [module, product] : products_of(*model))
    EXPECT_TRUE(
        at::allclose(at::mm(product.b, product.a), at::mm(expected.at(module).b, expected.at(module).a), 1e-5, 1e-7))
        << module;
}

TEST_F(AdapterFile, AlphaOverTheRankScalesAsInLlamaCpp) {
  rewrite([](GgufWriter& writer, auto&) { writer.set_f32("adapter.lora.alpha", 10); });
  const ProductAdapter read = read_gguf_adapter(path, base->config());
  EXPECT_EQ(read.modules.at("model.layers.0.self_attn.k_proj").scale, 2.5);
  EXPECT_EQ(read.modules.at("model.layers.0.self_attn.q_proj").scale, 10);
  EXPECT_EQ(read.modules.at("model.layers.7.mlp.down_proj").scale, 2);
}

TEST_F(AdapterFile, HalfPrecisionIsRead) {
  rewrite([](GgufWriter&, auto& tensors) {
    for (auto& [name, tensor] : tensors) tensor = tensor.to(at::kHalf);
  });
  const Product read = read_gguf_adapter(path, base->config()).modules.at("lm_head");
  EXPECT_TRUE(at::allclose(read.b, products_of(*model).at("lm_head").b, 1e-3));
}

TEST_F(AdapterFile, WhatIsNoAdapterOfThisBaseIsRefused) {
  const std::string whole = read_text(path);
  const auto refused = [&](const char* part, const auto& alter) {
    write_atomic(path, whole);
    rewrite(alter);
    const std::string message = refusal();
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  const std::string q = "blk.0.attn_q.weight", k = "blk.0.attn_k.weight";
  using Tensors = std::map<std::string, at::Tensor>;
  refused("general.type", [](GgufWriter& w, Tensors&) { w.set_text("general.type", "model"); });
  refused("adapter.type", [](GgufWriter& w, Tensors&) { w.set_text("adapter.type", "control_vector"); });
  refused("general.architecture", [](GgufWriter& w, Tensors&) { w.set_text("general.architecture", "gemma"); });
  refused("adapter.lora.alpha", [](GgufWriter& w, Tensors&) { w.set_f32("adapter.lora.alpha", -1); });
  refused("blk.0.attn_k.weight.lora_b is missing", [&](GgufWriter&, Tensors& t) { t.erase(k + ".lora_b"); });
  refused("blk.0.attn_k.weight.lora_a is missing", [&](GgufWriter&, Tensors& t) { t.erase(k + ".lora_a"); });
  refused("blk.9.attn_k.weight.lora_a belongs to no weight", [&](GgufWriter&, Tensors& t) {
    t["blk.9.attn_k.weight.lora_a"] = at::ones({4, 256});
  });
  refused("blk.0.attn_norm.weight", [&](GgufWriter&, Tensors& t) { t["blk.0.attn_norm.weight"] = at::ones({256}); });
  refused("blk.0.attn_k.weight.lora_a has shape", [&](GgufWriter&, Tensors& t) {
    t[k + ".lora_a"] = at::ones({4, 255});
  });
  refused("the base's weight [16, 256]", [&](GgufWriter&, Tensors& t) { t[k + ".lora_b"] = at::ones({17, 4}); });
  refused("of rank 4 and 3", [&](GgufWriter&, Tensors& t) { t[k + ".lora_a"] = at::ones({3, 256}); });
  refused("not finite", [&](GgufWriter&, Tensors& t) { t[q + ".lora_b"].fill_(std::nan("")); });
  refused("holds no adapter", [&](GgufWriter&, Tensors& t) { t.clear(); });
  write_atomic(path, "GGUF");
  EXPECT_NE(refusal(), "nothing was refused");
}

TEST_F(AdapterFile, AnotherBasesShapesAreRefusedWhenItIsWritten) {
  ProductAdapter adapter = read_gguf_adapter(path, base->config());
  adapter.modules["lm_head"].b = at::ones({33, 4});
  EXPECT_THROW(write_gguf_adapter(folder / "out.gguf", adapter, base->config(), {}), Error);
  adapter.modules = {{"model.layers.0.mlp.experts", {at::ones({1, 1}), at::ones({1, 1})}}};
  EXPECT_THROW(write_gguf_adapter(folder / "out.gguf", adapter, base->config(), {}), Error);
  EXPECT_FALSE(fs::exists(folder / "out.gguf"));
}

}  // namespace
}  // namespace retort
