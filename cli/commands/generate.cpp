// retort generate: answers a prompt with a model, as llama.cpp serves it, and streams the text.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>

#include "cli/command.h"
#include "core/error.h"
#include "core/signals.h"
#include "core/sources.h"
#include "data/chat_template.h"
#include "data/encode.h"
#include "data/tokenizer.h"
#include "recipes/answers.h"
#include "recipes/serve.h"

namespace retort {
namespace {

struct Arguments {
  std::string model, adapter, prompt, system, rows, out;
  bool raw = false;
  double temperature = 0;
  int64_t max_tokens = 256, samples = 1;
  uint64_t seed = 0;
  int threads = 0;
};

/// Bytes of `text` that are whole UTF-8 characters: a token may end inside one.
size_t whole_characters(const std::string& text) {
  size_t at = text.size();
  for (size_t back = 1; back <= std::min<size_t>(4, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    const size_t length = byte < 0x80 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    if (length > back) at = text.size() - back;
    break;
  }
  return at;
}

int answer_rows(const Arguments& arguments) {
  const Recipe recipe = load_recipe(arguments.rows);
  const auto path = pull(source_of(recipe, arguments.model));
  catch_stop_signals();
  const auto tokenizer = Tokenizer::open(path);
  const ServableFile file(path);
  const auto model = serve(path, file, arguments.adapter, {.threads = arguments.threads});
  const RecordReport done =
      record_answers(recipe, *model, *tokenizer, ChatTemplate(*tokenizer), path.filename().string(),
                     {.temperature = arguments.temperature,
                      .samples = arguments.samples,
                      .max_tokens = arguments.max_tokens,
                      .seed = arguments.seed},
                     arguments.out, stream_progress());
  fmt::print(
      "{}: {} answers to {} questions, {} found from before; {} were not finished in {} tokens\n"
      "{} tokens in {:.0f} s ({:.0f} tokens/s). Train on them with data.train: [{{kind: recorded, path: {}}}]\n",
      arguments.out, done.answers, done.questions, done.before, done.unfinished, arguments.max_tokens, done.tokens,
      done.seconds, double(done.tokens) / done.seconds, arguments.out);
  return 0;
}

int generate(const Arguments& arguments) {
  if (!arguments.rows.empty()) return answer_rows(arguments);
  const auto path = pull({.uri = arguments.model, .sha256 = "", .name = ""});
  std::string prompt = arguments.prompt;
  if (prompt.empty()) {
    prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    while (!prompt.empty() && prompt.back() == '\n') prompt.pop_back();
  }
  if (prompt.empty()) fail(Exit::usage, "--prompt is empty, and nothing came on standard input");
  const auto tokenizer = Tokenizer::open(path);
  std::vector<int32_t> ids;
  if (arguments.raw) {
    ids = tokenizer->encode(prompt, true, true);
  } else {
    Chat chat;
    chat.place = "the prompt";
    if (!arguments.system.empty()) chat.messages.push_back({"system", arguments.system});
    chat.messages.push_back({"user", prompt});
    ids = encode_prompt(*tokenizer, ChatTemplate(*tokenizer), chat);
  }
  const ServableFile file(path);
  const auto model = serve(path, file, arguments.adapter, {.threads = arguments.threads});
  std::string pending;
  model->generate(ids, arguments.max_tokens, arguments.temperature, arguments.seed, [&](int32_t id) {
    pending += tokenizer->piece(id);
    const size_t whole = whole_characters(pending);
    std::fwrite(pending.data(), 1, whole, stdout);
    std::fflush(stdout);
    pending.erase(0, whole);
  });
  std::printf("%s\n", pending.c_str());
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("--model", arguments->model, "GGUF file or Hugging Face folder: a path or a source")->required();
  app.add_option("--adapter", arguments->adapter, "PEFT folder or GGUF adapter: a path or a source");
  app.add_option("--prompt", arguments->prompt, "the question; default: standard input");
  app.add_option("--system", arguments->system, "the system message; default: the template's own");
  app.add_flag("--raw", arguments->raw, "continue the text as it is, without the chat template");
  CLI::Option* rows = app.add_option("--rows", arguments->rows, "a recipe: answer what each of its training rows asks")
                          ->excludes("--prompt", "--system", "--raw");
  CLI::Option* out =
      app.add_option("--out", arguments->out, "of --rows: a file of recorded answers, a data set")->needs(rows);
  rows->needs(out);
  app.add_option("--samples", arguments->samples, "of --rows: answers to a question, at a temperature above 0")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->needs(rows)
      ->capture_default_str();
  app.add_option("--temperature", arguments->temperature, "0: always the most likely token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--seed", arguments->seed, "for a temperature above 0")->capture_default_str();
  app.add_option("--max-tokens", arguments->max_tokens, "longest answer")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--threads", arguments->threads, "0: the cores that may be used")->check(CLI::Range(0, 4096));
  return [arguments] { return generate(*arguments); };
}

}  // namespace

extern const Command command_generate;
const Command command_generate = {
    "generate", "Answer a prompt, or every question of a recipe, with a model.",
    "  retort generate --model runs/foldoc-categories/latest/export/foldoc-categories-Q4_K_M.gguf \\\n"
    "    --prompt 'What is a modem?'\n"
    "  echo 'What is a modem?' | retort generate --model base.gguf --adapter runs/foldoc-categories/latest/adapter\n"
    "  retort generate --model base.gguf --raw --prompt 'Once upon a time' --max-tokens 64\n"
    "  retort generate --model teacher.gguf --rows recipe.yaml --out answers.jsonl    # distillation by sequences\n",
    setup};

}  // namespace retort
