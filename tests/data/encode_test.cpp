#include "data/encode.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/error.h"

namespace retort {
namespace {

const Tokenizer& smollm2() {
  static std::unique_ptr<Tokenizer> tokenizer = Tokenizer::open(std::getenv("RETORT_TEST_MODEL"));
  return *tokenizer;
}

TEST(Encode, TrainsTheAssistantsTurnOfSmolLM2) {
  ChatTemplate chat_template(smollm2());
  Ledger ledger;
  Chat chat{"rows.jsonl:1", "", {{"user", "What is a pipe?"}, {"assistant", "A stream."}}, {}, {}};
  auto example = encode(smollm2(), chat_template, chat, {}, ledger);
  ASSERT_TRUE(example);
  std::string all, trained;
  for (size_t t = 0; t < example->ids.size(); ++t) {
    all += smollm2().piece(example->ids[t]);
    if (example->trained[t]) trained += smollm2().piece(example->ids[t]);
  }
  EXPECT_EQ(all,
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nWhat is a pipe?<|im_end|>\n<|im_start|>assistant\nA stream.<|im_end|>");
  EXPECT_EQ(trained, "A stream.<|im_end|>");
}

}  // namespace
}  // namespace retort
