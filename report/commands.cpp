// The commands that serve what a run exported.
#include <algorithm>

#include "report/format.h"
#include "report/report.h"

namespace retort {
namespace {

// One word of a POSIX shell.
std::string shell_word(const std::string& text) {
  auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || std::string("-_./:+=@%").find(c) != std::string::npos;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), plain)) return text;
  std::string word = "'";
  for (char c : text) word += c == '\'' ? "'\\''" : std::string(1, c);
  return word + "'";
}

// A model's name as Ollama allows it.
std::string model_name(const Json& report) {
  std::string name = text_at(report, "/name");
  for (char& c : name)
    c = std::isalnum(static_cast<unsigned char>(c)) ? std::tolower(static_cast<unsigned char>(c)) : '-';
  return name.empty() ? "model" : name;
}

// A question for the examples: the shortest of the samples'.
std::string example_prompt(const Json& report) {
  std::string shortest;
  const Json& samples = value_at(report, "/samples");
  if (samples.is_array())
    for (const Json& sample : samples) {
      std::string prompt = text_at(sample, "/prompt");
      if (!prompt.empty() && (shortest.empty() || prompt.size() < shortest.size())) shortest = prompt;
    }
  return shortest.empty() ? "Hello" : shortest;
}

void add(Json& commands, const std::string& file, const char* title, const char* text, std::string code) {
  commands.push_back({{"file", file}, {"title", title}, {"text", text}, {"code", std::move(code)}});
}

// A merged file, or with `adapter` the base's own file and the adapter beside it.
void serve_gguf(Json& commands, const Json& report, const std::string& path, const std::string& adapter) {
  std::string file = shell_word(path), system = text_at(report, "/chat/system");
  if (!adapter.empty()) file += " --lora " + shell_word(adapter);
  Json messages = Json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  messages.push_back({{"role", "user"}, {"content", example_prompt(report)}});
  Json request = {{"messages", messages}, {"temperature", 0}};
  add(commands, path, "llama.cpp server", "An OpenAI-compatible server on port 8080, and a question to it.",
      fmt::format("llama-server -m {} --port 8080 &\ncurl -s http://localhost:8080/v1/chat/completions -H "
                  "'Content-Type: application/json' \\\n  -d {}",
                  file, shell_word(request.dump(-1, ' ', false, Json::error_handler_t::replace))));
  add(commands, path, "llama.cpp command line", "A chat in the terminal, with the template in the file.",
      fmt::format("llama-cli -m {} -cnv --temp 0{}", file, system.empty() ? "" : " -sys " + shell_word(system)));
  std::string modelfile = "FROM ./" + path + "\n";
  if (!adapter.empty()) modelfile += "ADAPTER ./" + adapter + "\n";
  modelfile += "PARAMETER temperature 0\n";
  if (!system.empty()) modelfile += "SYSTEM \"\"\"" + system + "\"\"\"\n";
  add(commands, path, "Ollama", "Registers the file under a name, then chats.",
      fmt::format("cat > Modelfile <<'END'\n{}END\nollama create {} -f Modelfile\nollama run {}", modelfile,
                  model_name(report), model_name(report)));
  if (!adapter.empty()) return;  // LM Studio loads none
  add(commands, path, "LM Studio", "Copies the file into LM Studio's library; load it there by its name.",
      fmt::format("lms import --copy {}", file));
}

void serve_gguf_adapter(Json& commands, const Json& report, const std::string& path) {
  std::string base = text_at(report, "/model/path");
  add(commands, path, "llama.cpp, adapter over the base",
      "Keeps the base model's file as it is; several adapters can share it.",
      fmt::format("llama-server -m {} --lora {} --port 8080", base.empty() ? "BASE.gguf" : shell_word(base),
                  shell_word(path)));
}

std::string python_text(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// The system message as the first entry of a Python list, with a comma; nothing when there is none.
std::string python_system(const Json& report) {
  const std::string system = text_at(report, "/chat/system");
  return system.empty() ? "" : fmt::format("{{\"role\": \"system\", \"content\": {}}}, ", python_text(system));
}

void serve_peft(Json& commands, const Json& report, const std::string& path) {
  std::string base = text_at(report, "/model/hub_id");
  const std::string python_base = python_text(base.empty() ? "BASE_MODEL_FOLDER_OR_HUB_ID" : base);
  add(commands, path, "PEFT in Python", "The adapter over the base model in transformers.",
      fmt::format("from peft import PeftModel\n"
                  "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                  "base = {}\n"
                  "tokenizer = AutoTokenizer.from_pretrained(base)\n"
                  "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), {})\n"
                  "chat = [{}{{\"role\": \"user\", \"content\": {}}}]\n"
                  "inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors=\"pt\", "
                  "return_dict=True)\n"
                  "output = model.generate(**inputs, max_new_tokens=64, do_sample=False)\n"
                  "print(tokenizer.decode(output[0, inputs[\"input_ids\"].shape[1]:], skip_special_tokens=True))",
                  python_base, python_text(path), python_system(report), python_text(example_prompt(report))));
}

// A merged model that needs no base.
void serve_hf_folder(Json& commands, const Json& report, const std::string& path) {
  add(commands, path, "transformers in Python", "The merged model with its tokenizer and chat template.",
      fmt::format("from transformers import pipeline\n\n"
                  "chat = pipeline(\"text-generation\", model={})\n"
                  "print(chat([{}{{\"role\": \"user\", \"content\": {}}}], max_new_tokens=64, "
                  "do_sample=False)[0][\"generated_text\"][-1])",
                  python_text(path), python_system(report), python_text(example_prompt(report))));
  add(commands, path, "vLLM", "An OpenAI-compatible server on port 8000.",
      fmt::format("vllm serve {} --port 8000", shell_word(path)));
}

}  // namespace

Json serve_commands(const Json& report) {
  Json commands = Json::array();
  const Json& exports = value_at(report, "/export");
  if (!exports.is_array()) return commands;
  for (const Json& file : exports) {
    if (value_at(file, "/gate/passed") == Json(false)) continue;
    std::string path = text_at(file, "/path"), format = text_at(file, "/format");
    if (path.empty()) continue;
    if (format == "gguf") serve_gguf(commands, report, path, text_at(file, "/adapter"));
    if (format == "gguf_adapter") serve_gguf_adapter(commands, report, path);
    if (format == "peft") serve_peft(commands, report, path);
    if (format == "safetensors") serve_hf_folder(commands, report, path);
  }
  return commands;
}

}  // namespace retort
