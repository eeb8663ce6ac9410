// Vocabularies leave GGUF as a Hugging Face folder's tokenizer files, whole or cut, and come back as the same
// tokenizer.
#include "data/gguf_vocabulary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/json.h"
#include "data/sentencepiece.h"
#include "data/tokenizer.h"
#include "data/vocabulary_source.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

const fs::path golden = fs::path(RETORT_GOLDEN) / "tokenizers";

std::vector<std::string> texts() {
  std::vector<std::string> all = hard_texts();
  all.push_back("<|begin|>Hi<|im_end|>\n<tool> [INST] <s>");
  return all;
}

class WrittenTokenizer : public testing::TestWithParam<const char*> {
 protected:
  fs::path model() const { return GetParam() == std::string("SmolLM2") ? smollm2_path() : golden / GetParam(); }
  TemporaryFolder folder_;
};

TEST_P(WrittenTokenizer, GivesTheTokensOfTheVocabularyItWasMadeOf) {
  write_tokenizer_files(read_vocabulary(model()), folder_.path(), "test");
  const auto before = Tokenizer::open(model()), after = Tokenizer::open(folder_.path());
  EXPECT_EQ(after->size(), before->size());
  for (const std::string& text : texts()) {
    EXPECT_EQ(after->encode(text, true, true), before->encode(text, true, true)) << text;
    EXPECT_EQ(after->encode(text, false), before->encode(text, false)) << text;
  }
  EXPECT_EQ(after->bos(), before->bos());
  EXPECT_EQ(after->eos(), before->eos());
  EXPECT_EQ(after->chat_template(), before->chat_template());
  // SentencePiece's scores come back as the order of merges.
  if (read_vocabulary(model()).model == "gpt2") {
    EXPECT_EQ(after->hash(), before->hash());
  }
}

TEST_P(WrittenTokenizer, CutKeepsTextsAndTheTokensOfTextsItWasCutFor) {
  const GgufVocabulary whole = read_vocabulary(model());
  const auto before = Tokenizer::open(model());
  const std::vector<std::string> domain = {"The modem turns bits into tones, and the line carries them.\n",
                                           "A compiler translates programs; 1,024 bytes are enough."};
  std::vector<bool> wanted(whole.tokens.size(), false);
  for (const std::string& text : domain)
    for (const int32_t id : before->encode(text, false)) wanted[static_cast<size_t>(id)] = true;
  const std::vector<int64_t> kept = closed_under_merges(whole, wanted);
  EXPECT_LT(kept.size(), whole.tokens.size());
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
  const GgufVocabulary cut = cut_vocabulary(whole, kept);
  write_tokenizer_files(cut, folder_.path(), "test");
  const auto after = Tokenizer::open(folder_.path());
  EXPECT_EQ(after->size(), static_cast<int64_t>(kept.size()));
  for (const std::string& text : domain) {
    std::vector<int32_t> ids;  // as the whole vocabulary has them
    for (const int32_t id : after->encode(text, false))
      ids.push_back(static_cast<int32_t>(kept[static_cast<size_t>(id)]));
    EXPECT_EQ(ids, before->encode(text, false)) << text;
  }
  for (const std::string& text : texts())
    EXPECT_EQ(after->decode(after->encode(text, true), true), before->decode(before->encode(text, true), true)) << text;
  for (size_t id = 0; id < whole.tokens.size(); ++id) {
    const int32_t type = whole.types[id];
    if (type != token_control && type != token_byte) continue;
    EXPECT_TRUE(std::binary_search(kept.begin(), kept.end(), static_cast<int64_t>(id))) << whole.tokens[id];
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, WrittenTokenizer,
                         testing::Values("gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "tekken", "gpt-4o",
                                         "sentencepiece", "sentencepiece-json", "sentencepiece-no-prefix", "SmolLM2"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(CutVocabulary, KeepsThePartsOfMergesAndNoMergeOfATokenThatWent) {
  GgufVocabulary v;
  v.model = "gpt2";
  v.tokens = {"a", "b", "c", "ab", "abc", "bc", "<end>", "[PAD7]"};
  v.types = {token_normal, token_normal, token_normal,  token_normal,
             token_normal, token_normal, token_control, token_unused};
  v.merges = {"a b", "b c", "ab c"};
  v.eos = 6;
  v.ends = {6};
  std::vector<bool> wanted(8, false);
  wanted[4] = wanted[7] = true;
  const std::vector<int64_t> kept = closed_under_merges(v, wanted);
  EXPECT_EQ(kept, (std::vector<int64_t>{0, 1, 2, 3, 4, 6}));  // "ab" is a part of "abc"; "bc" and the hole go
  const GgufVocabulary cut = cut_vocabulary(v, kept);
  EXPECT_EQ(cut.merges, (std::vector<std::string>{"a b", "ab c"}));
  EXPECT_EQ(cut.eos, 5);
  EXPECT_EQ(cut.ends, std::vector<int64_t>{5});
}

TEST(TokenizerWriter, RefusesAPreTokenizerWithoutKnownRules) {
  GgufVocabulary v = read_vocabulary(golden / "smollm");
  v.pre = "deepseek-r1-qwen";
  TemporaryFolder folder;
  expect_error(Exit::bad_input, {"test", "deepseek-r1-qwen", "smollm"},
               [&] { write_tokenizer_files(v, folder.path(), "test"); });
}

}  // namespace
}  // namespace retort
