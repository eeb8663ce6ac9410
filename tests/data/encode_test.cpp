#include "data/encode.h"

#include <gtest/gtest.h>

#include "tests/core/support.h"
#include "tests/data/fake_tokenizer.h"
#include "tests/data/smollm2.h"

namespace retort {
namespace {

const std::string chatml =
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}";
const std::vector<Message> two_turns = {
    {"user", "What is a pipe?"}, {"assistant", "A stream."}, {"user", "And a socket?"}, {"assistant", "An end point."}};

Chat chat_of(std::vector<Message> messages) { return {"rows.jsonl:7", "k", std::move(messages), "", {}}; }

/// The row's text with trained spans in braces: what a person checks.
std::string marked(const Tokenizer& tokenizer, const Example& example) {
  std::string text;
  bool inside = false;
  for (size_t t = 0; t <= example.ids.size(); ++t) {
    bool trained = t < example.ids.size() && example.trained[t];
    if (trained != inside) text += trained ? "{" : "}";
    inside = trained;
    if (t < example.ids.size()) text += tokenizer.piece(example.ids[t]);
  }
  return text;
}

std::string marked(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const Chat& chat,
                   const EncodeOptions& options = {}) {
  Ledger ledger;
  return marked(tokenizer, *encode(tokenizer, chat_template, chat, options, ledger));
}

Json golden_templates() { return read_json(std::filesystem::path(RETORT_GOLDEN) / "chat_templates.json")["templates"]; }

/// A tokenizer of tests/golden/tokenizers, with a cache of its own.
std::unique_ptr<Tokenizer> golden_tokenizer(const std::string& name) {
  smollm2_path();
  TemporaryFolder cache;
  std::string before = std::getenv("RETORT_CACHE") ? std::getenv("RETORT_CACHE") : "";
  setenv("RETORT_CACHE", cache.path().c_str(), 1);
  auto tokenizer = Tokenizer::open(std::filesystem::path(RETORT_GOLDEN) / "tokenizers" / name);
  if (before.empty())
    unsetenv("RETORT_CACHE");
  else
    setenv("RETORT_CACHE", before.c_str(), 1);
  return tokenizer;
}

TEST(Encode, MasksSmolLM2) {
  ChatTemplate chat_template(smollm2());
  const std::string system =
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n";
  const std::string first = "<|im_start|>user\nWhat is a pipe?<|im_end|>\n<|im_start|>assistant\n";
  const std::string second = "\n<|im_start|>user\nAnd a socket?<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(marked(smollm2(), chat_template, chat_of(two_turns)),
            system + first + "{A stream.<|im_end|>}" + second + "{An end point.<|im_end|>}");
  EncodeOptions options;
  options.train_on = TrainOn::last_assistant;
  EXPECT_EQ(marked(smollm2(), chat_template, chat_of(two_turns), options),
            system + first + "A stream.<|im_end|>" + second + "{An end point.<|im_end|>}");
  options.train_on = TrainOn::all;
  EXPECT_EQ(
      marked(smollm2(), chat_template, chat_of(two_turns), options),
      "<|im_start|>{" + system.substr(12) + first + "A stream.<|im_end|>" + second + "An end point.<|im_end|>\n}");
  EXPECT_EQ(marked(smollm2(), chat_template, chat_of({{"system", "S"}, {"user", "U"}, {"assistant", ""}})),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n{<|im_end|>}");
}

TEST(Encode, MasksLlama3) {
  auto tokenizer = golden_tokenizer("llama-bpe");
  ChatTemplate chat_template(*tokenizer, golden_templates()["llama3"]);
  auto header = [](const std::string& role) { return "<|start_header_id|>" + role + "<|end_header_id|>\n\n"; };
  EXPECT_EQ(marked(*tokenizer, chat_template, chat_of(two_turns)),
            "<|begin|>" + header("user") + "What is a pipe?<|eot_id|>" + header("assistant") + "{A stream.<|eot_id|>}" +
                header("user") + "And a socket?<|eot_id|>" + header("assistant") + "{An end point.<|eot_id|>}");
}

TEST(Encode, MasksMistral) {
  auto tokenizer = golden_tokenizer("sentencepiece");
  ChatTemplate chat_template(*tokenizer, golden_templates()["mistral"]);
  // SentencePiece's space after each special token is llama.cpp's, in training as in serving.
  EXPECT_EQ(marked(*tokenizer, chat_template, chat_of(two_turns)),
            "<s>[INST]  What is a pipe?[/INST]{  A stream.</s>}[INST]  And a socket?[/INST]{  An end point.</s>}");
  // The last user turn carries the system message only while it is the last message.
  std::vector<Message> with_system = two_turns;
  with_system.insert(with_system.begin(), {"system", "Be brief."});
  Ledger ledger;
  expect_error(Exit::bad_input, {"rows.jsonl:7", "do not nest", "[INST] What", "[INST] Be brief."},
               [&] { encode(*tokenizer, chat_template, chat_of(with_system), {}, ledger); });
}

TEST(Encode, MasksLlama2) {
  auto tokenizer = golden_tokenizer("sentencepiece-json");
  ChatTemplate chat_template(*tokenizer, golden_templates()["llama2"]);
  EXPECT_EQ(marked(*tokenizer, chat_template, chat_of(two_turns)),
            "<s> [INST] What is a pipe? [/INST]{ A stream. </s>}<s> [INST] And a socket? [/INST]{ An end point. </s>}");
}

// The property that everything rests on: whatever the template and the texts, a trained answer continues the very
// tokens that a server evaluates for the prompt.
TEST(Encode, PromptsAreTokenizedAsServed) {
  struct Case {
    std::string tokenizer, chat_template;
  };
  for (const Case& c :
       {Case{"llama-bpe", "llama3"}, Case{"tekken", "smollm2"}, Case{"gpt-2", "smollm2"},
        Case{"sentencepiece", "mistral"}, Case{"sentencepiece-json", "llama2"}, Case{"qwen2", "gemma"}}) {
    auto tokenizer = golden_tokenizer(c.tokenizer);
    std::string source = golden_templates()[c.chat_template];
    if (c.chat_template == "gemma") source.replace(source.find("<end_of_turn>"), 13, "<|im_end|>");
    ChatTemplate chat_template(*tokenizer, source);
    for (const std::string answer :
         {"Plain.", "\nNewline first", "  two spaces", "(brackets)", ".", "'s", "1234", "\t", "s"}) {
      Chat chat = chat_of({two_turns[0], two_turns[1], two_turns[2], {"assistant", answer}});
      EncodeOptions options;
      options.train_on = TrainOn::last_assistant;
      Ledger ledger;
      Example example = *encode(*tokenizer, chat_template, chat, options, ledger);
      std::vector<int32_t> prompt =
          tokenizer->encode(chat_template.render(std::span(chat.messages).first(3), true), true, true);
      EXPECT_EQ(encode_prompt(*tokenizer, chat_template, chat), prompt);
      ASSERT_GE(example.ids.size(), prompt.size());
      EXPECT_EQ(std::vector<int32_t>(example.ids.begin(), example.ids.begin() + prompt.size()), prompt)
          << c.tokenizer << answer;
      std::vector<int32_t> rest(example.ids.begin() + prompt.size(), example.ids.end());
      EXPECT_EQ(encode_answer(*tokenizer, chat_template, chat, answer), rest) << c.tokenizer << answer;
      EXPECT_TRUE(tokenizer->ends_generation(rest.back()));
      EXPECT_EQ(std::count(example.trained.begin(), example.trained.end(), 1), static_cast<long>(rest.size()));
      // And it says what the template says.
      std::string text;
      for (int32_t id : rest) text += tokenizer->piece(id);
      std::string whole = chat_template.render(chat.messages, false);
      std::string added = whole.substr(chat_template.render(std::span(chat.messages).first(3), true).size());
      // SentencePiece's space after a control token is llama.cpp's own.
      EXPECT_TRUE(added.starts_with(text) || (" " + added).starts_with(text))
          << c.tokenizer << ": " << text << " in " << added;
    }
  }
}

TEST(Encode, AnAnswerNeverMergesWithItsPrompt) {
  ChatTemplate chat_template(smollm2());
  Chat chat = chat_of({{"user", "U"}, {"assistant", "\n\nX"}});
  std::vector<int32_t> prompt = encode_prompt(smollm2(), chat_template, chat);
  std::string text = chat_template.render(chat.messages, false);
  std::vector<int32_t> whole = smollm2().encode(text, true, true);
  ASSERT_NE(std::vector<int32_t>(whole.begin(), whole.begin() + prompt.size()), prompt)
      << "the case is no case any more";
  EXPECT_EQ(encode_answer(smollm2(), chat_template, chat, "\n\nX"), smollm2().encode("\n\nX<|im_end|>", true));
}

TEST(Encode, RefusesPrefixesThatDoNotNest) {
  FakeTokenizer tokenizer(golden_templates()["thinking"]);
  std::string source = golden_templates()["thinking"];
  for (size_t at; (at = source.find("<|im_end|>")) != std::string::npos;) source.replace(at, 10, "</s>");
  ChatTemplate chat_template(tokenizer, source);
  Chat chat = chat_of({{"user", "U"}, {"assistant", "<think>hm</think>Yes."}, {"user", "V"}, {"assistant", "No."}});
  Ledger ledger;
  expect_error(Exit::bad_input, {"rows.jsonl:7", "do not nest at message 4", "Yes.", "<think>hm", "last_assistant"},
               [&] { encode(tokenizer, chat_template, chat, {}, ledger); });
  EncodeOptions options;
  options.train_on = TrainOn::last_assistant;
  EXPECT_EQ(marked(tokenizer, chat_template, chat, options),
            "<|im_start|>user\nU</s>\n<|im_start|>assistant\nYes.</s>\n<|im_start|>user\nV</"
            "s>\n<|im_start|>assistant\n{No.</s>}");
}

TEST(Encode, StopsWhereTrainingWouldGoWrong) {
  FakeTokenizer tokenizer(chatml), adds_bos("{{ bos_token }}{{ bos_token }}" + chatml, true);
  ChatTemplate chat_template(tokenizer), doubled(adds_bos),
      open(tokenizer, "{% for m in messages %}{{ m['content'] }}{% endfor %}");
  Ledger ledger;
  expect_error(Exit::bad_input, {"rows.jsonl:7", "no trained token", "role \"assistant\""}, [&] {
    encode(tokenizer, chat_template, chat_of({{"user", "U"}}), {}, ledger);
  });
  expect_error(Exit::bad_input, {"rows.jsonl:7", "end-of-turn that is never trained", "message 2"}, [&] {
    encode(tokenizer, open, chat_of({{"user", "U"}, {"assistant", "A"}}), {}, ledger);
  });
  expect_error(Exit::bad_input, {"rows.jsonl:7", "a doubled BOS"}, [&] {
    encode(adds_bos, doubled, chat_of({{"user", "U"}, {"assistant", "A"}}), {}, ledger);
  });
  expect_error(Exit::bad_input, {"a doubled BOS"}, [&] {
    encode_prompt(adds_bos, doubled, chat_of({{"user", "U"}, {"assistant", "A"}}));
  });
  expect_error(Exit::bad_input, {"rows.jsonl:7", "no trained token"}, [&] {
    encode(tokenizer, chat_template, {"rows.jsonl:7", "", {}, "", {}}, {}, ledger);
  });
  expect_error(Exit::usage, {"max_length"}, [&] {
    EncodeOptions options;
    options.max_length = 1;
    encode(tokenizer, chat_template, chat_of(two_turns), options, ledger);
  });
  expect_error(Exit::usage, {"lost", "right, left, drop, error"}, [] { truncation_from("lost"); });
  expect_error(Exit::usage, {"user", "assistant, last_assistant, all"}, [] { train_on_from("user"); });
}

TEST(Encode, TruncatesAsTold) {
  FakeTokenizer tokenizer(chatml);
  ChatTemplate chat_template(tokenizer);
  const Chat chat =
      chat_of({{"user", "question"}, {"assistant", "answer"}});  // [user]question</s>\n[assistant]answer</s>
  EncodeOptions options;
  Ledger ledger;
  options.max_length = 30;
  EXPECT_EQ(marked(tokenizer, *encode(tokenizer, chat_template, chat, options, ledger)),
            "[user]question</s>\n[assistant]{ans}");
  EXPECT_EQ(ledger.truncated, 1);
  EXPECT_EQ(ledger.tokens, 30);
  EXPECT_EQ(ledger.trained_tokens, 3);
  options.max_length = 27;
  expect_error(Exit::bad_input,
               {"rows.jsonl:7", "lost its whole answer", "34 tokens", "max_length is 27", "left", "drop"},
               [&] { encode(tokenizer, chat_template, chat, options, ledger); });
  options.truncation = Truncation::left;
  EXPECT_EQ(marked(tokenizer, *encode(tokenizer, chat_template, chat, options, ledger)),
            "uestion</s>\n[assistant]{answer</s>}");
  options.truncation = Truncation::drop;
  ledger = {};
  EXPECT_FALSE(encode(tokenizer, chat_template, chat, options, ledger));
  EXPECT_EQ(ledger.dropped.at("longer than max_length"), 1);
  EXPECT_EQ(ledger.rows, 1);
  EXPECT_EQ(ledger.tokens, 0);
  options.truncation = Truncation::error;
  expect_error(Exit::bad_input, {"rows.jsonl:7", "34 tokens", "max_length is 27"},
               [&] { encode(tokenizer, chat_template, chat, options, ledger); });

  FakeTokenizer adds_bos(chatml, true);
  options.truncation = Truncation::left;
  options.max_length = 10;
  EXPECT_EQ(marked(adds_bos, ChatTemplate(adds_bos), chat, options), "<s>t]{answer</s>}");
}

TEST(Encode, TrainsAllOfAPlainText) {
  FakeTokenizer tokenizer, adds_bos("", true);
  ChatTemplate none(tokenizer);
  Chat text{"a.txt:1", "", {}, "ab</s>c", {}};
  Ledger ledger;
  EXPECT_EQ(marked(tokenizer, *encode(tokenizer, none, text, {}, ledger)), "a{b</s>c</s>}");
  EXPECT_EQ(encode(tokenizer, none, text, {}, ledger)->ids.size(), 8u) << "text that looks special stays text";
  EXPECT_EQ(marked(adds_bos, none, text), "<s>{ab</s>c</s>}");
  EXPECT_EQ(ledger.rows, 2);
  EXPECT_EQ(ledger.tokens, 16);
  EXPECT_EQ(ledger.trained_tokens, 14);
  EXPECT_EQ(ledger.to_json().dump(), R"({"rows":2,"tokens":16,"trained_tokens":14,"truncated":0,"dropped":{}})");
}

}  // namespace
}  // namespace retort
