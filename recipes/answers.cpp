#include "recipes/answers.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/signals.h"
#include "data/encode.h"
#include "data/text_input.h"
#include "recipes/prepare.h"
#include "recipes/stages.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

constexpr size_t rows_at_once = 32;

using Question = std::vector<Message>;

uint64_t hash_of(const Question& question) {
  Json json = Json::array();
  for (const Message& message : question) json.push_back({message.role, message.content});
  return xxh3(json.dump());
}

using Known = std::set<std::pair<uint64_t, int64_t>>;

/// The questions and samples that an earlier call answered, without a last line that it did not finish.
Known answered_in(const fs::path& part) {
  Known known;
  const std::string text = read_text(part, uint64_t{1} << 40);
  fs::resize_file(part, text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);
  LineReader reader(part);
  for (std::string line; reader.next(line);) {
    const std::string where = reader.place();
    const Json row = parse_json(line, where);
    Question question;
    for (const Json& message : json_get<std::vector<Json>>(row, "messages", where))
      question.push_back(
          {json_get<std::string>(message, "role", where), json_get<std::string>(message, "content", where)});
    if (question.empty())
      fail(Exit::bad_input, "{}: messages is empty; remove the file to ask everything again", where);
    question.pop_back();
    known.emplace(hash_of(question), json_get<int64_t>(row, "sample", where));
  }
  return known;
}

struct Asked {
  Question question;
  std::vector<int32_t> ids;
  uint64_t hash;
  int64_t sample;
};

class Lines {
 public:
  explicit Lines(const fs::path& path) : path_(path), file_(std::fopen(path.c_str(), "ab"), &std::fclose) {
    check(file_ != nullptr);
  }
  void add(const Json& line) {
    const std::string text = line.dump() + "\n";
    check(std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size());
  }
  /// What was added is on the disk afterwards.
  void sync() { check(std::fflush(file_.get()) == 0 && fsync(fileno(file_.get())) == 0); }

 private:
  void check(bool good) const {
    if (!good) fail(Exit::io, "{}: {}; what was answered before is kept", path_.string(), std::strerror(errno));
  }
  fs::path path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

}  // namespace

RecordReport record_answers(const Recipe& recipe, ServedModel& model, const Tokenizer& tokenizer,
                            const ChatTemplate& chat_template, const std::string& model_name,
                            const RecordOptions& options, const fs::path& out, const ProgressSink& sink) {
  const Stopwatch clock;
  const fs::path part = out.string() + ".part";
  if (out.has_parent_path()) fs::create_directories(out.parent_path());
  const auto refuse_existing = [&] {
    if (fs::exists(out)) fail(Exit::usage, "{} exists already; remove it, or name another file", out.string());
  };
  refuse_existing();
  const FileLock lock(part, false);
  refuse_existing();  // whoever held the lock may have finished it
  RecordReport report;
  const Known before = answered_in(part);
  std::set<uint64_t> seen;
  std::vector<Asked> open;
  const Stream<Chat> chats = chats_of(with_local_paths(recipe, recipe.data.train, sink));
  for (Chat chat; chats(chat);) {
    if (!chat.messages.empty() && chat.messages.back().role == "assistant") chat.messages.pop_back();
    if (chat.messages.empty())
      fail(Exit::bad_input, "{}: the row asks nothing: it has no message before the answer", chat.place);
    const uint64_t hash = hash_of(chat.messages);
    if (!seen.insert(hash).second) continue;
    const std::vector<int32_t> ids = encode_prompt(tokenizer, chat_template, chat);
    for (int64_t sample = 0; sample < options.samples; ++sample) {
      if (before.contains({hash, sample}))
        ++report.before;
      else
        open.push_back({chat.messages, ids, hash, sample});
    }
  }
  report.questions = static_cast<int64_t>(seen.size());
  Lines lines(part);
  Progress progress(sink);
  progress.start("answers", open.size());
  for (size_t first = 0; first < open.size(); first += rows_at_once) {
    const auto group = std::span(open).subspan(first, std::min(rows_at_once, open.size() - first));
    const auto keep = [&](size_t i, const Generated& answer) {
      report.tokens += static_cast<int64_t>(answer.ids.size());
      const std::string text = tokenizer.decode(answer.ids);
      if (!answer.stopped || text.find_first_not_of(" \t\r\n") == std::string::npos) {
        ++report.unfinished;
        return;
      }
      Json messages = Json::array();
      for (const Message& message : group[i].question)
        messages.push_back({{"role", message.role}, {"content", message.content}});
      messages.push_back({{"role", "assistant"}, {"content", text}});
      lines.add({{"model", model_name}, {"sample", group[i].sample}, {"messages", std::move(messages)}});
      ++report.answers;
    };
    if (options.temperature > 0) {
      for (size_t i = 0; i < group.size(); ++i)
        keep(i, model.generate(group[i].ids, options.max_tokens, options.temperature,
                               options.seed ^ group[i].hash ^ xxh3(std::to_string(group[i].sample))));
    } else {
      std::vector<ServedRequest> requests;
      for (const Asked& asked : group) requests.push_back({asked.ids, {}, options.max_tokens});
      model.run(requests, {}, keep);
    }
    lines.sync();
    progress.update(first + group.size(), fmt::format("{:.0f} tokens/s", double(report.tokens) / clock.seconds()));
    if (stop_signal())
      fail(Exit::retry, "stopped by a signal after {} answers, which are kept in {}; the same command goes on",
           report.answers, part.string());
  }
  progress.finish();
  fs::rename(part, out);
  report.seconds = clock.seconds();
  return report;
}

}  // namespace retort
