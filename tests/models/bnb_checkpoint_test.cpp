// Folders that transformers and bitsandbytes wrote (tests/golden/make_bnb.py): read, written again, refused when
// damaged; and the same numbers from the plain model, quantized while it is read.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "core/json.h"
#include "models/bnb_state_dict.h"
#include "models/causal_lm.h"
#include "models/quantized_checkpoint.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

const fs::path golden = RETORT_GOLDEN;

using Tensors = std::map<std::string, at::Tensor>;

Tensors tensors_of(const fs::path& file) {
  const auto safetensors = SafetensorsFile::open(file);
  Tensors all;
  for (const SafetensorsEntry& entry : safetensors->entries())
    all[entry.name] = safetensors->tensor(entry.name).clone();
  return all;
}

struct BnbFolder : testing::TestWithParam<const char*> {
  fs::path folder() const { return golden / ("bnb_" + std::string(GetParam())); }
  /// What Retort calls the format of the folder.
  std::string form() const { return GetParam() == std::string("nf4") ? "nf4_dq" : GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(, BnbFolder, testing::Values("nf4", "fp4", "int8"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(BnbFolder, GivesTransformersLogits) {
  const auto checkpoint = Checkpoint::open(folder());
  const auto model = CausalLM::load(*checkpoint, {});
  const Tensors expected = tensors_of(folder() / "expected.safetensors");
  const at::NoGradGuard no_grad;
  Batch batch;
  batch.ids = expected.at("ids");
  batch.offsets = {0, batch.ids.size(0)};
  const at::Tensor logits = model->logits(model->hidden(batch)), wanted = expected.at("logits");
  EXPECT_LT((logits - wanted).abs().max().item<float>(), 1e-5f * wanted.abs().max().item<float>());
}

TEST_P(BnbFolder, IsWhatThePlainModelBecomesWhileItIsRead) {
  const auto stored = Checkpoint::open(folder()), made = open_checkpoint(golden / "peft_base", form());
  ASSERT_EQ(stored->names(), made->names());
  int64_t quantized = 0;
  for (const std::string& name : stored->names()) {
    const QuantizedTensor a = stored->tensor(name), b = made->tensor(name);
    EXPECT_EQ(a.type_name(), b.type_name()) << name;
    ASSERT_EQ(a.parts().size(), b.parts().size()) << name;
    for (size_t i = 0; i < a.parts().size(); ++i)
      EXPECT_TRUE(std::ranges::equal(a.parts()[i], b.parts()[i])) << name << " part " << i;
    quantized += !a.is_ggml();
  }
  EXPECT_EQ(quantized, 3 * 7);
  EXPECT_EQ(made->hash(), Checkpoint::open(golden / "peft_base")->hash());
  EXPECT_NE(stored->hash(), made->hash());
}

// Name by name and byte by byte; the state is JSON, whose blanks may differ.
TEST_P(BnbFolder, IsWrittenAsItWas) {
  const Tensors wanted = tensors_of(folder() / "model.safetensors");
  const auto checkpoint = Checkpoint::open(folder());
  size_t compared = 0;
  for (const std::string& name : checkpoint->names()) {
    const QuantizedTensor tensor = checkpoint->tensor(name);
    if (tensor.is_ggml()) {
      ++compared;
      continue;
    }
    for (const auto& [part, value] : bnb_state_dict(tensor)) {
      ASSERT_TRUE(wanted.contains(part)) << part;
      const at::Tensor& other = wanted.at(part);
      ++compared;
      if (part.find("quant_state") == std::string::npos) {
        EXPECT_TRUE(at::equal(value, other)) << part;
        continue;
      }
      const auto json = [](const at::Tensor& bytes) {
        return parse_json({static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()}, "state");
      };
      EXPECT_EQ(nlohmann::json(json(value)), nlohmann::json(json(other))) << part;
    }
  }
  EXPECT_EQ(compared, wanted.size());
}

/// The NF4 folder with one tensor changed, or removed when the change returns none.
struct Damaged {
  TemporaryFolder folder;
  std::string refusal(const std::string& source, const std::string& name,
                      const std::function<at::Tensor(at::Tensor)>& change) {
    Tensors tensors = tensors_of(golden / source / "model.safetensors");
    EXPECT_TRUE(tensors.contains(name)) << name;
    tensors[name] = change(tensors.at(name));
    if (!tensors[name].defined()) tensors.erase(name);
    write_safetensors(folder / "model.safetensors", {tensors.begin(), tensors.end()});
    fs::copy_file(golden / source / "config.json", folder / "config.json", fs::copy_options::overwrite_existing);
    try {
      Checkpoint::open(folder.path());
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_input) << error.what();
      return error.what();
    }
    return "";
  }
};

TEST(BnbFolders, RefuseAStateThatContradictsItself) {
  Damaged damaged;
  const std::string q = "model.layers.1.self_attn.q_proj.", w = q + "weight", s = w + ".quant_state.bitsandbytes__nf4";
  const auto refused = [&](const std::string& name, const std::function<at::Tensor(at::Tensor)>& change,
                           const std::string& source = "bnb_nf4") {
    const std::string text = damaged.refusal(source, name, change);
    EXPECT_NE(text.find(q), std::string::npos) << name << ": " << text;
  };
  const auto drop = [](const at::Tensor&) { return at::Tensor(); };
  const auto shorter = [](const at::Tensor& t) { return t.slice(0, 0, t.size(0) - 1).contiguous(); };
  const auto not_a_number = [](at::Tensor t) { return t.to(at::kFloat).fill_(NAN); };
  EXPECT_EQ(damaged.refusal("bnb_nf4", w, [](at::Tensor t) { return t; }), "");
  for (const char* part : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"}) {
    refused(w + part, drop);
    refused(w + part, shorter);
    refused(w + part, not_a_number);
  }
  refused(w, shorter);
  refused(w, drop);
  refused(s, drop);
  refused(s, shorter);
  const auto state = [](const std::string& key, const Json& value) {
    return [=](const at::Tensor& bytes) {
      Json json = parse_json({static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()}, "state");
      json[key] = value;
      const std::string text = json.dump();
      return at::tensor(std::vector<uint8_t>(text.begin(), text.end()), at::kByte);
    };
  };
  for (const auto& [key, value] : std::vector<std::pair<std::string, Json>>{{"quant_type", "fp4"},
                                                                            {"quant_type", 4},
                                                                            {"blocksize", 128},
                                                                            {"blocksize", 0},
                                                                            {"blocksize", -64},
                                                                            {"blocksize", "64"},
                                                                            {"dtype", "int3"},
                                                                            {"nested_blocksize", 0},
                                                                            {"shape", {16, 17}},
                                                                            {"shape", {-16, -16}},
                                                                            {"shape", "all"},
                                                                            {"shape", {1e30, 16}},
                                                                            {"shape", Json::array()},
                                                                            {"nested_offset", "x"},
                                                                            {"nested_offset", 1e300}})
    refused(s, state(key, value));
  refused(w + ".quant_map", [](at::Tensor t) { return t.flip(0); });

  refused(q + "SCB", drop, "bnb_int8");
  refused(q + "SCB", shorter, "bnb_int8");
  refused(q + "SCB", not_a_number, "bnb_int8");
  refused(w, shorter, "bnb_int8");
  refused(
      q + "weight_format", [](at::Tensor t) { return t.fill_(2); }, "bnb_int8");
}

/// Counts what tensors take on the CPU; codes and scales of quantized weights are no tensors.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    live += bytes;
    peak = std::max(peak, live);
    void* data = c10::alloc_cpu(bytes);
    sizes[data] = bytes;
    return {data, data, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }

  static inline std::map<void*, size_t> sizes;
  static inline size_t live = 0, peak = 0;

 private:
  static void release(void* data) {
    live -= sizes[data];
    sizes.erase(data);
    c10::free_cpu(data);
  }
};

// Beside the codes there is never more than one weight in full.
TEST(QuantizeWhileReading, NeedsOneTensorBesideTheResult) {
  c10::Allocator* const before = c10::GetCPUAllocator();
  static CountingAllocator counting;
  c10::SetCPUAllocator(&counting, 255);
  const auto checkpoint = open_checkpoint(golden / "peft_base", "nf4_dq");
  const auto model = CausalLM::load(*checkpoint, {});
  c10::SetCPUAllocator(before, 255);
  size_t largest = 0, vectors = 0;
  for (const std::string& name : checkpoint->names()) {
    const QuantizedTensor tensor = checkpoint->tensor(name);
    if (tensor.shape().size() == 1)
      vectors += static_cast<size_t>(tensor.elements()) * sizeof(float);
    else if (!tensor.is_ggml())
      largest = std::max(largest, static_cast<size_t>(tensor.elements()) * sizeof(float));
  }
  EXPECT_GE(CountingAllocator::peak, largest);
  EXPECT_LT(CountingAllocator::peak, largest + vectors + 4096);
}

}  // namespace
}  // namespace retort
