// Merged models and adapters as GGUF: their numbers in libllama, their metadata, and disks that do not play along.
#include "export/gguf.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "adapters/attach.h"
#include "adapters/merge.h"
#include "core/error.h"
#include "core/hash.h"
#include "models/served.h"
#include "tests/adapters/golden.h"
#include "tests/export/small_model.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

std::vector<int32_t> some_ids() {
  std::vector<int32_t> ids;
  for (uint64_t z : random_bits("ids", 24)) ids.push_back(static_cast<int32_t>(z % 32));
  return ids;
}

at::Tensor served(const fs::path& path, const fs::path& adapter = {}) {
  return ServedModel::open(path, {.threads = 2, .adapter = adapter, .exact = true})->logits(some_ids());
}

class Exported : public testing::Test {
 protected:
  void SetUp() override { use("k"); }
  void use(const std::string& name) {
    write_small_model(path("base.gguf"), name);
    open(path("base.gguf"));
  }
  void open(const fs::path& base) {
    base_ = Checkpoint::open(base);
    model_ = CausalLM::load(*base_, {});
  }
  /// Adapters with a B that matters, of different ranks and scales.
  AttachReport adapt(const AdapterOptions& options) {
    const AttachReport report = attach(*model_, options, 1);
    at::manual_seed(2);
    for (const Parameter& parameter : trainable_parameters(*model_)) parameter.tensor.detach().normal_(0, 0.05);
    return report;
  }
  static AdapterOptions mixed() {
    AdapterOptions options;
    options.r = 4;
    options.lora_alpha = 12;
    options.use_rslora = true;
    options.rank_pattern = {{"q_proj", 3}, {"down_proj", 5}};
    options.alpha_pattern = {{"k_proj", 20}};
    return options;
  }
  at::Tensor trained() {
    const at::NoGradGuard no_grad;
    const std::vector<int32_t> ids = some_ids();
    const at::Tensor tokens = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()));
    return model_->logits(model_->hidden({tokens, tokens, {0, tokens.size(0)}}));
  }
  ExportedFile export_to(const std::string& name, const std::string& type) {
    return export_gguf(path(name), *base_, *model_, gguf_type(type), {});
  }
  fs::path path(const std::string& name) const { return temporary_.path() / name; }
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(temporary_.path())) names.insert(entry.path().filename());
    return names;
  }

  TemporaryFolder temporary_;
  std::unique_ptr<Checkpoint> base_;
  std::unique_ptr<CausalLM> model_;
};

TEST_F(Exported, MergedModelAndAdapterBothServeTheTrainersLogits) {
  adapt(mixed());
  export_to("merged.gguf", "F32");
  const ExportedFile adapter = export_gguf_adapter(path("adapter.gguf"), *model_, {});
  EXPECT_EQ(adapter.type, "F32");
  const at::Tensor expected = trained();
  EXPECT_GT(relative_error(served(path("base.gguf")), expected), 0.05);
  EXPECT_LT(relative_error(served(path("merged.gguf")), expected), 1e-5);
  EXPECT_LT(relative_error(served(path("base.gguf"), path("adapter.gguf")), expected), 1e-5);
}

/// Each kind on every linear layer, what it starts from included.
struct Kind {
  const char* name;
  AdapterOptions options;
  bool held_by_llama_cpp;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }
std::vector<Kind> kinds() {
  AdapterOptions lora, rslora, head, dora, vera, ia3, bias, pissa, olora, embedding, saved, tokens;
  rslora.use_rslora = true;
  head.target_modules = {.expression = "", .names = {"lm_head", "o_proj"}};
  dora.kind = "dora";
  vera.kind = "vera";
  ia3.kind = "ia3";
  bias.lora_bias = true;
  bias.layers_to_transform = {1};
  pissa.init_lora_weights = {LoraInit::pissa, 0};
  olora.init_lora_weights = {LoraInit::olora, 0};
  // Scale 1: with a large one the random numbers below make logits in which f32's rounding shows.
  rslora.lora_alpha = lora.lora_alpha = head.lora_alpha = pissa.lora_alpha = olora.lora_alpha = saved.lora_alpha =
      tokens.lora_alpha = embedding.lora_alpha = 3;
  embedding.target_modules = {.expression = "", .names = {"embed_tokens", "q_proj"}};
  saved.modules_to_save = {"lm_head", "embed_tokens", "down_proj"};
  tokens.trainable_token_indices = {1, 5, 30};
  std::vector<Kind> all = {{"lora", lora, true},           {"rslora", rslora, true}, {"head", head, true},
                           {"embedding", embedding, true}, {"saved", saved, false},  {"tokens", tokens, false},
                           {"dora", dora, false},          {"vera", vera, true},     {"ia3", ia3, false},
                           {"bias", bias, false},          {"pissa", pissa, true},   {"olora", olora, true}};
  for (Kind& kind : all)
    if (kind.options.kind != "ia3") kind.options.r = 3;
  return all;
}

class ExportedKind : public Exported, public testing::WithParamInterface<Kind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, ExportedKind, testing::ValuesIn(kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(ExportedKind, IsServedMergedAndAloneWhereLlamaCppHasAFormForIt) {
  const Kind& kind = GetParam();
  const AttachReport report = attach(*model_, kind.options, 1);
  at::manual_seed(2);
  for (const Parameter& parameter : trainable_parameters(*model_))
    parameter.tensor.detach().add_(at::randn_like(parameter.tensor), 0.1);
  check_merged_gguf(kind.options, report.targets);
  export_to("merged.gguf", "F32");
  const at::Tensor expected = trained();
  EXPECT_GT(relative_error(served(path("base.gguf")), expected), 1e-3);
  EXPECT_LT(relative_error(served(path("merged.gguf")), expected), 1e-5);
  if (kind.held_by_llama_cpp) {
    check_gguf_adapter(base_->config(), kind.options, report.targets);
    export_gguf_adapter(path("adapter.gguf"), *model_, {});
    EXPECT_LT(relative_error(served(path("base.gguf"), path("adapter.gguf")), expected), 1e-5);
  } else {
    EXPECT_THROW(check_gguf_adapter(base_->config(), kind.options, report.targets), Error);
    EXPECT_THROW(export_gguf_adapter(path("adapter.gguf"), *model_, {}), Error);
  }
}

TEST_P(ExportedKind, OfATiedModelIsServedMerged) {
  use("odd");
  AdapterOptions options = GetParam().options;
  if (options.lora_bias) options.layers_to_transform = {0};
  const AttachReport report = attach(*model_, options, 1);
  at::manual_seed(2);
  for (const Parameter& parameter : trainable_parameters(*model_))
    parameter.tensor.detach().add_(at::randn_like(parameter.tensor), 0.1);
  export_to("merged.gguf", "F32");
  EXPECT_LT(relative_error(served(path("merged.gguf")), trained()), 1e-5);
  const auto tied = [](const std::string& target) { return target == "model.embed_tokens" || target == "lm_head"; };
  if (std::any_of(report.targets.begin(), report.targets.end(), tied)) {
    EXPECT_THROW(check_gguf_adapter(base_->config(), options, report.targets), Error);
  }
}

TEST_F(Exported, ABiasOfTheHeadIsRefused) {
  AdapterOptions options;
  options.lora_bias = true;
  options.target_modules = {.expression = "", .names = {"lm_head"}};
  EXPECT_THROW(check_merged_gguf(options, adapt(options).targets), Error);
}

TEST_F(Exported, ATiedModelServesToo) {
  use("odd");
  adapt(mixed());
  export_to("merged.gguf", "F32");
  export_gguf_adapter(path("adapter.gguf"), *model_, {});
  EXPECT_EQ(GgufFile::open(path("merged.gguf"))->find("output.weight"), nullptr);
  EXPECT_LT(relative_error(served(path("merged.gguf")), trained()), 1e-5);
  EXPECT_LT(relative_error(served(path("base.gguf"), path("adapter.gguf")), trained()), 1e-5);
}

TEST_F(Exported, AnAdapterOnATiedHeadUntiesItInAMergeAndIsRefusedAlone) {
  use("odd");
  AdapterOptions options;
  options.target_modules = {.expression = "", .names = {"lm_head"}};
  const AttachReport report = adapt(options);
  export_to("merged.gguf", "F32");
  EXPECT_NE(GgufFile::open(path("merged.gguf"))->find("output.weight"), nullptr);
  EXPECT_LT(relative_error(served(path("merged.gguf")), trained()), 1e-5);
  EXPECT_THROW(check_gguf_adapter(base_->config(), options, report.targets), Error);
  EXPECT_THROW(export_gguf_adapter(path("adapter.gguf"), *model_, {}), Error);
  use("k");
  EXPECT_NO_THROW(check_gguf_adapter(base_->config(), options, adapt(options).targets));
  export_gguf_adapter(path("adapter.gguf"), *model_, {});
  EXPECT_LT(relative_error(served(path("base.gguf"), path("adapter.gguf")), trained()), 1e-5);
}

TEST_F(Exported, TheAdapterFileIsWhatLlamaCppAsksFor) {
  adapt(mixed());
  export_gguf_adapter(path("adapter.gguf"), *model_, {.name = "x", .base = "b", .version = "Retort 1"});
  const auto file = GgufFile::open(path("adapter.gguf"));
  EXPECT_EQ(file->text("general.type"), "adapter");
  EXPECT_EQ(file->text("general.architecture"), "llama");
  EXPECT_EQ(file->text("adapter.type"), "lora");
  EXPECT_EQ(file->text("general.base_model.0.name"), "b");
  EXPECT_FALSE(file->has("adapter.lora.alpha"));
  EXPECT_EQ(file->tensors().size(), 2u * 7 * 8);
  EXPECT_EQ(file->find("blk.0.attn_q.weight.lora_a")->shape(), (std::vector<int64_t>{3, 256}));
  EXPECT_EQ(file->find("blk.7.ffn_down.weight.lora_b")->shape(), (std::vector<int64_t>{256, 5}));
}

TEST_F(Exported, MergedWeightsAreBasePlusDeltaAndTheRestIsUntouched) {
  AdapterOptions options = mixed();
  options.alpha_pattern.clear();
  options.rank_pattern.clear();
  options.target_modules = {.expression = "", .names = {"q_proj", "up_proj"}};
  adapt(options);
  export_to("merged.gguf", "F32");
  const auto merged = Checkpoint::open(path("merged.gguf"));
  const auto changed = merged_tensors(*base_, *model_);
  EXPECT_EQ(changed.size(), 16u);
  for (const std::string& name : base_->names()) {
    const at::Tensor before = base_->tensor(name).dequantize(), after = merged->tensor(name).dequantize();
    const auto made = changed.find(name);
    if (made == changed.end()) {
      EXPECT_TRUE(at::equal(before, after)) << name;
    } else {
      EXPECT_TRUE(at::equal(after, made->second())) << name;
      EXPECT_FALSE(at::equal(before, after)) << name;
    }
  }
}

TEST_F(Exported, BlocksThatNothingChangedAreKept) {
  for (const auto& [type, exported] : {std::pair{"Q8_0", "Q8_0"},
                                       {"Q4_1", "Q4_1"},
                                       {"Q4_K_M", "Q4_K_M"},
                                       {"IQ4_XS", "IQ4_XS"},
                                       {"Q4_1", "Q4_K_M"},
                                       {"Q4_0", "Q8_0"},
                                       {"Q6_K", "Q3_K_M"}}) {
    use("k");
    export_to("quantized.gguf", type);
    open(path("quantized.gguf"));
    AdapterOptions options;
    options.target_modules = {.expression = "", .names = {"v_proj"}};
    adapt(options);
    export_to("again.gguf", exported);
    const auto before = GgufFile::open(path("quantized.gguf")), after = GgufFile::open(path("again.gguf"));
    const auto hash = [](const QuantizedTensor& tensor) {
      return sha256_hex({reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size()});
    };
    for (const QuantizedTensor& tensor : before->tensors()) {
      const QuantizedTensor& now = *after->find(tensor.name());
      const bool changed = tensor.name().find("attn_v") != std::string::npos;
      EXPECT_EQ(hash(now) != hash(tensor), changed) << type << " -> " << exported << ": " << tensor.name();
      EXPECT_TRUE(changed || now.type_name() == tensor.type_name()) << tensor.name();
    }
  }
}

TEST_F(Exported, WithoutAnAdapterTheBaseItselfIsQuantizedAgain) {
  export_to("quantized.gguf", "Q4_0");
  open(path("quantized.gguf"));
  export_to("again.gguf", "Q8_0");
  EXPECT_EQ(GgufFile::open(path("again.gguf"))->find("blk.0.attn_q.weight")->type_name(), "Q8_0");
}

TEST_F(Exported, MetadataOfTheBaseIsKeptAndTheOriginAdded) {
  const Imatrix imatrix = small_imatrix("k");
  const Provenance provenance{.name = "tuned",
                              .license = "",
                              .base = "somewhere/base",
                              .base_hash = "aa",
                              .data = "rows",
                              .data_hash = "bb",
                              .chat_template = "{{ messages }}",
                              .version = "Retort 1"};
  export_gguf(path("out.gguf"), *base_, *model_, gguf_type("Q4_K_M"), provenance, {.imatrix = &imatrix, .threads = 1});
  const auto file = GgufFile::open(path("out.gguf"));
  EXPECT_EQ(file->text("general.name"), "tuned");
  EXPECT_EQ(file->text("general.license"), "mit");
  EXPECT_EQ(file->text("general.type"), "model");
  EXPECT_EQ(file->integer("general.file_type"), 15);
  EXPECT_EQ(file->integer("general.quantization_version"), 2);
  EXPECT_EQ(file->text("general.base_model.0.name"), "somewhere/base");
  EXPECT_EQ(file->integer("general.base_model.count"), 1);
  EXPECT_FALSE(file->has("general.base_model.1.name"));
  EXPECT_EQ(file->integer("quantize.imatrix.chunks_count"), 1);
  EXPECT_EQ(file->text("retort.base_hash"), "aa");
  EXPECT_EQ(file->text("general.dataset.0.version"), "bb");
  EXPECT_EQ(file->text("retort.version"), "Retort 1");
  EXPECT_EQ(file->text("tokenizer.chat_template"), "{{ messages }}");
  EXPECT_EQ(file->text("tokenizer.ggml.model"), "no_vocab");
  EXPECT_EQ(file->text("quantize.imatrix.dataset"), "formula");
  EXPECT_EQ(file->integer("quantize.imatrix.entries_count"), 56);
  EXPECT_EQ(file->integer("llama.block_count"), 8);
}

/// Every write past `bytes` into a file fails, as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_;
};

TEST_F(Exported, AFullDiskIsAnErrorThatLeavesNothing) {
  adapt(mixed());
  export_to("small.gguf", "Q4_0");
  std::ofstream(path("out.gguf")) << "what was there";
  const auto expect_refused = [&](const std::string& type) {
    try {
      export_to("out.gguf", type);
      FAIL() << type;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::io) << error.what();
      EXPECT_NE(std::string(error.what()).find("out.gguf"), std::string::npos) << error.what();
    }
    EXPECT_EQ(files(), (std::set<std::string>{"base.gguf", "out.gguf", "small.gguf"}));
    EXPECT_EQ(read_text(path("out.gguf")), "what was there");
  };
  EXPECT_GT(export_scratch_bytes(*base_, *model_, gguf_type("F16")), 7'000'000);
  const FileSizeLimit full(2'500'000);
  expect_refused("F32");  // the result does not fit
  expect_refused("F16");  // nor does the merged model before it
  open(path("small.gguf"));
  EXPECT_LT(export_scratch_bytes(*base_, *model_, gguf_type("F16")), 2'000'000);
  expect_refused("F16");  // what llama.cpp makes of it does not fit
}

TEST_F(Exported, AnUnwritableFolderIsAnError) {
  adapt(mixed());
  for (const fs::path& bad : {fs::path("/proc/out.gguf"), path("base.gguf/out.gguf")}) {
    EXPECT_THROW(export_gguf(bad, *base_, *model_, gguf_type("Q8_0"), {}), Error);
    EXPECT_THROW(export_gguf_adapter(bad, *model_, {}), Error);
  }
}

TEST_F(Exported, AnAdapterThatIsNotFiniteIsRefused) {
  adapt(mixed());
  trainable_parameters(*model_).front().tensor.detach().fill_(std::nan(""));
  EXPECT_THROW(export_to("out.gguf", "F32"), Error);
  EXPECT_THROW(export_gguf_adapter(path("adapter.gguf"), *model_, {}), Error);
  EXPECT_EQ(files(), std::set<std::string>{"base.gguf"});
}

}  // namespace
}  // namespace retort
