#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "data/dataset.h"
#include "data/vocabulary.h"
#include "models/gguf.h"
#include "tests/core/support.h"
#include "tests/data/foldoc.h"
#include "tests/data/smollm2.h"

namespace retort {
namespace {

const std::filesystem::path golden = std::filesystem::path(RETORT_GOLDEN) / "tokenizers";

/// What Hugging Face's tokenizers and SentencePiece gave (make_tokenizers.py).
const Json& expected() {
  static const Json json = read_json(golden / "expected.json");
  return json;
}

/// A cache of its own, so that no test sees another's vocabulary.
class TokenizerFolder : public testing::Test {
 protected:
  void SetUp() override {
    before_ = std::getenv("RETORT_CACHE") ? std::getenv("RETORT_CACHE") : "";
    smollm2_path();  // from the real cache
    pull_foldoc();
    setenv("RETORT_CACHE", cache_.path().c_str(), 1);
  }
  void TearDown() override {
    if (before_.empty())
      unsetenv("RETORT_CACHE");
    else
      setenv("RETORT_CACHE", before_.c_str(), 1);
  }
  /// A copy of a golden folder that a test may change.
  std::filesystem::path copy(const std::string& name) {
    std::filesystem::path folder = work_ / name;
    std::filesystem::copy(golden / name, folder);
    return folder;
  }
  TemporaryFolder work_;

 private:
  TemporaryFolder cache_;
  std::string before_;
};

/// The folder that the model's makers published, rebuilt from what the GGUF file keeps of it.
std::filesystem::path smollm2_folder(const TemporaryFolder& work) {
  auto file = GgufFile::open(smollm2_path());
  std::vector<std::string> tokens = file->texts("tokenizer.ggml.tokens");
  Json added = Json::array();
  nlohmann::json vocab = nlohmann::json::object(), merges = file->texts("tokenizer.ggml.merges");
  for (size_t id = 0; id < tokens.size(); ++id) {
    vocab[tokens[id]] = id;
    if (id < 17) added.push_back({{"id", id}, {"content", tokens[id]}, {"special", true}});
  }
  nlohmann::json digits = {{"type", "Digits"}, {"individual_digits", true}};
  nlohmann::json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  nlohmann::json json = {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}},
                         {"added_tokens", nlohmann::json::parse(added.dump())},
                         {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {digits, bytes}}}}};
  write_atomic(work / "tokenizer.json", json.dump());
  write_json(work / "tokenizer_config.json", {{"bos_token", "<|im_start|>"},
                                              {"eos_token", "<|im_end|>"},
                                              {"pad_token", "<|im_end|>"},
                                              {"unk_token", "<|endoftext|>"},
                                              {"add_prefix_space", false},
                                              {"chat_template", file->text("tokenizer.chat_template")}});
  write_json(work / "config.json", {{"vocab_size", 49152}});
  return work.path();
}

void expect_golden_ids(const Tokenizer& tokenizer, const std::string& name) {
  for (size_t i = 0; i < expected()["texts"].size(); ++i) {
    std::string text = expected()["texts"][i];
    EXPECT_EQ(tokenizer.encode(text, false), expected()[name]["ids"][i].get<std::vector<int32_t>>())
        << name << ": " << text;
  }
}

class KnownTokenizer : public TokenizerFolder, public testing::WithParamInterface<const char*> {};

TEST_P(KnownTokenizer, GivesTheIdsOfItsMaker) { expect_golden_ids(*Tokenizer::open(golden / GetParam()), GetParam()); }

INSTANTIATE_TEST_SUITE_P(All, KnownTokenizer,
                         testing::Values("gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "tekken", "gpt-4o",
                                         "sentencepiece", "sentencepiece-no-prefix", "sentencepiece-json"));

TEST_F(TokenizerFolder, WritesThePreTokenizerThatItFound) {
  for (const char* name : {"gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "tekken", "gpt-4o"})
    EXPECT_EQ(GgufFile::open(vocabulary_file(golden / name))->text("tokenizer.ggml.pre"), name);
}

TEST_F(TokenizerFolder, SplitsSpecialTokensOut) {
  for (const char* name : {"gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "tekken", "gpt-4o"}) {
    auto tokenizer = Tokenizer::open(golden / name);
    EXPECT_EQ(tokenizer->encode("<|begin|>Hi<|im_end|>\n<tool>", true, false),
              // llama-bpe's own template puts one more in front
              expected()[std::string(name) == "llama-bpe" ? "dbrx" : name]["with_special"].get<std::vector<int32_t>>())
        << name;
    EXPECT_EQ(tokenizer->bos(), 0);
    EXPECT_EQ(tokenizer->eos(), 1);
    EXPECT_TRUE(tokenizer->ends_generation(1));
    EXPECT_FALSE(tokenizer->ends_generation(0));
    EXPECT_EQ(tokenizer->adds_bos(), std::string(name) == "llama-bpe");
    EXPECT_EQ(tokenizer->piece(0), "<|begin|>");
  }
}

TEST_F(TokenizerFolder, PadsToTheModelsRows) {
  auto folder = copy("gpt-2");
  write_json(folder / "config.json", {{"vocab_size", 470}});
  auto tokenizer = Tokenizer::open(folder);
  EXPECT_EQ(tokenizer->size(), 470);
  auto file = GgufFile::open(vocabulary_file(folder));
  EXPECT_EQ(file->texts("tokenizer.ggml.tokens")[465], "[PAD465]");
  EXPECT_EQ(file->integers("tokenizer.ggml.token_type")[465], 5);
  EXPECT_EQ(file->integers("tokenizer.ggml.token_type")[460], 4) << "an added token that is not special";
  write_json(folder / "config.json", {{"vocab_size", 400}});
  expect_error(Exit::bad_input, {"461 tokens", "vocab_size is 400"}, [&] { Tokenizer::open(folder); });
}

TEST_F(TokenizerFolder, ContinuesATextWithoutSentencePiecesSpace) {
  auto tokenizer = Tokenizer::open(golden / "sentencepiece");
  EXPECT_TRUE(tokenizer->adds_bos());
  for (std::string text : {"answer", " answer", "\nanswer", "(x)", "</s>[INST] hi"}) {
    std::string whole;
    for (int32_t id : tokenizer->encode_after(text)) whole += tokenizer->piece(id);
    // After a special token llama.cpp puts SentencePiece's space again, as a server does in the middle of a prompt.
    EXPECT_EQ(whole, text == "</s>[INST] hi" ? "</s>[INST]  hi" : text);
  }
  auto without = Tokenizer::open(golden / "sentencepiece-no-prefix");
  EXPECT_EQ(without->encode_after("answer"), without->encode("answer", true));
}

TEST_F(TokenizerFolder, RefusesAModelThatLlamaCppReadsOtherwise) {
  expect_error(Exit::bad_input, {"libsentencepiece and llama.cpp tokenize"},
               [] { Tokenizer::open(golden / "sentencepiece-unigram"); });
  expect_error(Exit::bad_input, {"libsentencepiece and llama.cpp tokenize", "leading and trailing"},
               [] { Tokenizer::open(golden / "sentencepiece-squeezed"); });
}

TEST_F(TokenizerFolder, NamesAnUnknownPreTokenizer) {
  auto folder = copy("llama-bpe");
  std::string text = read_text(folder / "tokenizer.json");
  size_t at = text.find(R"(\\p{N}{1,3})");
  ASSERT_NE(at, std::string::npos);
  text.replace(at, 11, R"(\\p{N}{1,4})");
  write_atomic(folder / "tokenizer.json", text);
  expect_error(Exit::bad_input, {"unknown pre-tokenizer", R"(\p{N}{1,4})", "llama-bpe, dbrx, qwen2, tekken"},
               [&] { Tokenizer::open(folder); });
}

TEST_F(TokenizerFolder, RefusesContradictions) {
  auto change = [&](const std::string& name, auto&& edit) {
    auto folder = copy(name);
    Json json = read_json(folder / "tokenizer.json");
    edit(json);
    write_json(folder / "tokenizer.json", json);
    return folder;
  };
  auto refuse = [&](const std::string& name, const std::string& what, auto&& edit) {
    auto folder = change(name, edit);
    expect_error(Exit::bad_input, {what}, [&] { Tokenizer::open(folder); });
    std::filesystem::remove_all(folder);
  };
  refuse("gpt-2", "which is no token of the vocabulary", [](Json& json) {
    json["model"]["merges"].push_back({"q", "zq"});
  });
  refuse("gpt-2", "is \"!\" and \"x!\"", [](Json& json) {
    json["added_tokens"].push_back({{"id", json["model"]["vocab"]["!"]}, {"content", "x!"}, {"special", true}});
  });
  refuse("gpt-2", "has the id -1", [](Json& json) { json["model"]["vocab"]["!"] = -1; });
  refuse("gpt-2", "model.type is Unigram", [](Json& json) { json["model"]["type"] = "Unigram"; });
  refuse("gpt-2", "normalizer Lowercase", [](Json& json) { json["normalizer"] = {{"type", "Lowercase"}}; });
  refuse("gpt-2", "add_prefix_space", [](Json& json) { json["pre_tokenizer"]["add_prefix_space"] = true; });
  refuse("gpt-2", "occurs twice", [](Json& json) {
    json["added_tokens"][0]["content"] = "!";
    json["model"]["vocab"].erase("<|begin|>");
  });
  refuse("gpt-2", "expected \"left right\"", [](Json& json) { json["model"]["merges"][0] = 3; });
  refuse("gpt-2", "neither byte-level", [](Json& json) { json["pre_tokenizer"] = nullptr; });
  refuse("sentencepiece-json", "no token <0x41>", [](Json& json) { json["model"]["vocab"].erase("<0x41>"); });
}

TEST_F(TokenizerFolder, SmolLM2FromAFolderEqualsItsGguf) {
  auto file = GgufFile::open(smollm2_path());
  std::vector<std::string> tokens = file->texts("tokenizer.ggml.tokens");
  auto written = GgufFile::open(vocabulary_file(smollm2_folder(work_)));
  for (const std::string& key : file->keys()) {
    if (!key.starts_with("tokenizer.") || key == "tokenizer.ggml.scores") continue;
    EXPECT_TRUE(written->has(key)) << key;
  }
  EXPECT_EQ(written->texts("tokenizer.ggml.tokens"), tokens);
  EXPECT_EQ(written->texts("tokenizer.ggml.merges"), file->texts("tokenizer.ggml.merges"));
  EXPECT_EQ(written->integers("tokenizer.ggml.token_type"), file->integers("tokenizer.ggml.token_type"));

  auto tokenizer = Tokenizer::open(work_.path());
  expect_golden_ids(*tokenizer, "SmolLM2");
  expect_golden_ids(smollm2(), "SmolLM2");
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->chat_template(), smollm2().chat_template());
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("caf\xc3\xa9 \xf0\x9f\x9a\x80", false)),
            "caf\xc3\xa9 \xf0\x9f\x9a\x80");
}

TEST_F(TokenizerFolder, SmolLM2FromAFolderReadsFoldocAsItsGguf) {
  auto folder = Tokenizer::open(smollm2_folder(work_));
  Foldoc foldoc = pull_foldoc();
  Stream<Row> rows = open_rows({.kind = "dictd", .path = foldoc.text, .options = {{"index", foldoc.index.string()}}});
  int64_t count = 0;
  for (Row row; rows(row); ++count) {
    std::string text = row.fields["definition"];
    ASSERT_EQ(folder->encode(text, false), smollm2().encode(text, false)) << row.place;
    if (count % 100 == 0) {
      ASSERT_EQ(folder->decode(folder->encode(text, false)), text) << row.place;
    }
  }
  EXPECT_GT(count, 12000);
}

TEST_F(TokenizerFolder, ALongRunIsRefusedWhereLlamaCppWouldCrash) {
  for (const char* name : {"gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o"}) {
    auto tokenizer = Tokenizer::open(golden / name);
    for (std::string c : {" ", "a", "!", "\xc3\xa9", "1"}) {
      std::string run, text;
      for (int i = 0; i < 100000; ++i) run += c;
      for (int i = 0; i < 100000; ++i) text += c + (i % 8000 == 0 ? "1\n." : "");
      EXPECT_FALSE(tokenizer->encode(text, true).empty());
      if ((std::string(name) == "tekken" || std::string(name) == "gpt-4o") && c != "1")
        expect_error(Exit::bad_input, {"a run of more than 8192"}, [&] { tokenizer->encode(run, true); });
      else
        EXPECT_FALSE(tokenizer->encode(run, true).empty());
    }
  }
}

TEST_F(TokenizerFolder, AnEosThatBeginsEveryTurnGivesWayToTheConfigs) {
  auto folder = copy("gpt-2");
  write_json(folder / "tokenizer_config.json", {{"bos_token", "<|begin|>"}, {"eos_token", "<|begin|>"}});
  write_json(folder / "config.json", {{"eos_token_id", 1}});
  EXPECT_EQ(Tokenizer::open(folder)->eos(), 1);
}

TEST_F(TokenizerFolder, RefusesDamagedFiles) {
  auto cut = [&](const std::string& name, const std::string& file) {
    for (double part : {0.0, 0.1, 0.5, 0.9, 0.999}) {
      auto folder = copy(name);
      std::string text = read_text(folder / file);
      write_atomic(folder / file, text.substr(0, static_cast<size_t>(text.size() * part)));
      try {
        Tokenizer::open(folder);
        ADD_FAILURE() << name << " cut to " << part;
      } catch (const Error& error) {
        EXPECT_EQ(static_cast<int>(error.exit()), 65) << error.what();
      }
      std::filesystem::remove_all(folder);
    }
  };
  cut("llama-bpe", "tokenizer.json");
  cut("sentencepiece", "tokenizer.model");
}

TEST_F(TokenizerFolder, NeverCrashesOnFlippedBytes) {
  for (const auto& [name, file] :
       {std::pair{"gpt-2", "tokenizer.json"}, std::pair{"sentencepiece", "tokenizer.model"}}) {
    auto folder = copy(name);
    const std::string text = read_text(folder / file);
    for (size_t i = 0; i < 150; ++i) {
      std::string damaged = text;
      damaged[i * 7919 % text.size()] ^= static_cast<char>(1 << (i % 8));
      write_atomic(folder / file, damaged);
      try {
        Tokenizer::open(folder)->encode("The quick brown fox 123", true);
      } catch (const Error& error) {
        EXPECT_EQ(static_cast<int>(error.exit()), 65) << error.what();
      }
    }
  }
}

TEST(Tokenizer, RefusesAFileWithoutAVocabulary) {
  TemporaryFolder folder;
  GgufWriter writer;
  writer.set_text("general.architecture", "llama");
  writer.begin(folder / "empty.gguf");
  writer.commit();
  expect_error(Exit::bad_input, {"empty.gguf", "tokenizer.ggml.model is missing"},
               [&] { Tokenizer::open(folder / "empty.gguf"); });
}

TEST(Tokenizer, HashTellsVocabulariesApart) {
  EXPECT_EQ(smollm2().hash(), Tokenizer::open(smollm2_path())->hash());
  EXPECT_NE(smollm2().hash(), Tokenizer::open(golden / "smollm")->hash());
}

}  // namespace
}  // namespace retort
