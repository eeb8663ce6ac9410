// Quantized files against llama-quantize's (tests/golden/make_quantize.py), and the list of types.
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"
#include "export/gguf.h"
#include "tests/adapters/golden.h"
#include "tests/export/small_model.h"

namespace retort {
namespace {

/// 8 hexadecimal digits a tensor, by sorted name, over type and bytes.
std::string hashes(const std::filesystem::path& path) {
  std::map<std::string, std::string> found;
  const auto file = GgufFile::open(path);
  for (const QuantizedTensor& tensor : file->tensors()) {
    Sha256 hash;
    hash.update(tensor.type_name());
    hash.update(tensor.bytes());
    found[tensor.name()] = hash.hex().substr(0, 8);
  }
  std::string all;
  for (const auto& [name, hash] : found) all += hash;
  return all;
}

class Quantize : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    write_small_model(temporary_.path() / "base.gguf", GetParam());
    base_ = Checkpoint::open(temporary_.path() / "base.gguf");
    model_ = CausalLM::load(*base_, {});
    imatrix_ = small_imatrix(GetParam());
    golden_ = read_json(golden_folder / "quantize.json")[GetParam()];
  }
  TemporaryFolder temporary_;
  std::unique_ptr<Checkpoint> base_;
  std::unique_ptr<CausalLM> model_;
  Imatrix imatrix_;
  Json golden_;
};
INSTANTIATE_TEST_SUITE_P(Model, Quantize, testing::Values("k", "odd"));

TEST_P(Quantize, EveryTypesBlocksEqualLlamaQuantizes) {
  int64_t compared = 0;
  for (const GgufType& type : gguf_types()) {
    ASSERT_TRUE(golden_.contains(type.name)) << type.name;
    for (const auto& [label, expected] : golden_[type.name].items()) {
      if (label == "plain" && type.needs_imatrix) continue;  // the odd model falls back to types that need none
      const std::filesystem::path path = temporary_.path() / "out.gguf";
      const GgufOptions options{.imatrix = label == "imatrix" ? &imatrix_ : nullptr, .threads = 2};
      const ExportedFile file = export_gguf(path, *base_, *model_, type, {}, options);
      EXPECT_EQ(hashes(path), expected.get<std::string>()) << type.name << " " << label;
      EXPECT_EQ(file.bytes, static_cast<int64_t>(std::filesystem::file_size(path)));
      ++compared;
    }
  }
  EXPECT_GT(compared, 50);
}

TEST(GgufTypes, NeedAnImportanceMatrixWhereLlamaQuantizeDoes) {
  const Json golden = read_json(golden_folder / "quantize.json")["k"];
  for (const GgufType& type : gguf_types()) {
    if (golden[type.name].empty()) continue;  // rows of 64 fit no block of Q1_0, with or without
    EXPECT_EQ(type.needs_imatrix, !golden[type.name].contains("plain")) << type.name;
    if (!type.needs_imatrix) continue;
    EXPECT_THROW(check_imatrix_given(type, false), Error);
    EXPECT_NO_THROW(check_imatrix_given(type, true));
  }
}

TEST(GgufTypes, AreFoundByNameAndAlias) {
  EXPECT_STREQ(gguf_type("q4_k_m").name, "Q4_K_M");
  EXPECT_STREQ(gguf_type("Q4_K").name, "Q4_K_M");
  EXPECT_EQ(block_bits(gguf_type("Q4_K_M")), 4.5);
  EXPECT_EQ(block_bits(gguf_type("IQ4_XS")), 4.25);
  try {
    gguf_type("Q4_K_N");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::usage);
    EXPECT_NE(std::string(error.what()).find("did you mean"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("IQ4_XS"), std::string::npos) << error.what();
  }
  EXPECT_NE(list_gguf_types().find(fmt::format("{:<10} {:>11}\n", "Q5_K_S", 5.5)), std::string::npos)
      << list_gguf_types();
}

TEST(GgufTypes, ATypeWithoutAFallbackSaysSo) {
  TemporaryFolder temporary;
  write_small_model(temporary.path() / "base.gguf", "k");
  const auto base = Checkpoint::open(temporary.path() / "base.gguf");
  const auto model = CausalLM::load(*base, {});
  try {
    export_gguf(temporary.path() / "out.gguf", *base, *model, gguf_type("Q1_0"), {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::bad_input);
    EXPECT_NE(std::string(error.what()).find("no tensor type fallback"), std::string::npos) << error.what();
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(temporary.path()), {}), 1) << "something was left behind";
}

}  // namespace
}  // namespace retort
