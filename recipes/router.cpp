#include "recipes/router.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "data/project_key.h"
#include "data/text_input.h"
#include "models/served.h"
#include "monitor/profile.h"
#include "monitor/slot.h"
#include "monitor/targets.h"
#include "recipes/drift.h"
#include "recipes/prepare.h"
#include "recipes/stages.h"
#include "recipes/version.h"
#include "report/report.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

struct Asked {
  Chat chat;
  EvaluationRow small, large;
};

std::vector<Asked> rows_to_ask(const Recipe& recipe, const fs::path& small, const fs::path& large,
                               const RouteMeasurement& options, const ProgressSink& progress) {
  const auto small_tokenizer = Tokenizer::open(small), large_tokenizer = Tokenizer::open(large);
  const ChatTemplate small_template(*small_tokenizer, chat_template_of(recipe)),
      large_template(*large_tokenizer, chat_template_of(recipe));
  const EncodeOptions encoding = encode_options(recipe);
  std::vector<Asked> asked;
  Ledger ledger;
  int64_t skip = options.skip;
  const Stream<Chat> chats = chats_of(with_local_paths(recipe, recipe.data.validation, progress));
  for (Chat chat; chats(chat);) {
    if (skip-- > 0) continue;
    if (options.limit > 0 && static_cast<int64_t>(asked.size()) == options.limit) break;
    auto a = evaluation_row(*small_tokenizer, small_template, chat, encoding, ledger);
    auto b = evaluation_row(*large_tokenizer, large_template, chat, encoding, ledger);
    if (a && b && !a->prompt.empty() && !b->prompt.empty())
      asked.push_back({std::move(chat), std::move(*a), std::move(*b)});
  }
  if (asked.empty()) fail(Exit::bad_input, "no validation row of the recipe asks anything (data.validation)");
  return asked;
}

/// What was asked, as drift's traffic has it.
TrafficRow traffic_row(const Chat& chat) {
  TrafficRow row;
  row.place = chat.place;
  for (const Message& message : chat.messages)
    if (&message != &chat.messages.back() || message.role != "assistant")
      row.text += (row.text.empty() ? "" : "\n\n") + message.content;
  return row;
}

/// Greedy answers, in order.
std::vector<Generated> answers(ServedModel& model, const std::vector<Asked>& rows, EvaluationRow Asked::*side,
                               int64_t max_tokens, const std::string& task, const ProgressSink& progress) {
  std::vector<ServedRequest> requests;
  for (const Asked& row : rows) requests.push_back({(row.*side).prompt, {}, max_tokens});
  std::vector<Generated> found(rows.size());
  Progress shown(progress);
  shown.start(task, rows.size());
  size_t done = 0;
  model.run(requests, {}, [&](size_t i, const Generated& generated) {
    found[i] = generated;
    shown.update(++done);
  });
  shown.finish();
  return found;
}

bool is_right(const Tokenizer& tokenizer, const Generated& answer, const EvaluationRow& row) {
  return trim(tokenizer.decode(answer.ids)) == trim(row.expected);
}

/// What the small model's own run says of each row.
std::vector<std::map<std::string, double>> features_of_run(ServedModel& model, const std::vector<Asked>& rows,
                                                           const std::vector<Generated>& generated) {
  std::vector<std::vector<int32_t>> documents;
  std::vector<std::vector<int64_t>> wanted;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<int32_t>& prompt = rows[i].small.prompt;
    documents.push_back(joined(prompt, generated[i].ids));
    const size_t last = documents.back().size() - (generated[i].stopped ? 0 : 1);
    std::vector<int64_t> positions;
    for (size_t p = prompt.size() - 1; p < std::max(last, prompt.size()); ++p)
      positions.push_back(static_cast<int64_t>(p));
    wanted.push_back(std::move(positions));
  }
  std::vector<std::map<std::string, double>> features(rows.size());
  model.logits(documents, wanted, [&](size_t i, const at::Tensor& logits) {
    const at::Tensor log_p = at::log_softmax(logits.to(at::kDouble), -1);
    const at::Tensor greedy = log_p.amax(-1);
    features[i] = {{"first_token_entropy", -(log_p[0].exp() * log_p[0]).sum().item<double>()},
                   {"mean_log_p", greedy.mean().item<double>()},
                   {"min_log_p", greedy.min().item<double>()}};
  });
  return features;
}

/// |phi(x) - mean of the profile|.
double distance(const std::vector<int32_t>& features, const FeatureMean& mean) {
  double squares = 0;
  for (size_t i = 0; i < features.size(); ++i)
    squares += std::pow(features[i] * kFeatureUnit - mean.sum[i] / static_cast<double>(mean.rows), 2);
  return std::sqrt(squares);
}

/// Bits a byte of each prompt and, with a profile, how far it lies from what that saw. Returns the profile's hash.
std::string add_prompt_features(const Recipe& recipe, const fs::path& small, const fs::path& profile_path,
                                const std::vector<Asked>& rows, std::vector<std::map<std::string, double>>& features,
                                const ProgressSink& progress) {
  MeasureOptions options{
      .signals = {"bits_per_byte"}, .key = "", .threads = static_cast<int>(recipe.threads), .cache = false};
  Profile profile;
  std::string hash;
  const FeatureMean* mean = nullptr;
  if (!profile_path.empty()) {
    if (!recipe.drift)
      fail(Exit::usage, "{}: a profile needs the recipe's drift block, for its key", recipe.file.string());
    std::tie(profile, hash) = read_profile(profile_path);
    const auto signal = profile.signals.find("embedding");
    if (signal == profile.signals.end() || signal->second.features.rows == 0)
      fail(Exit::bad_input, "{}: the profile has no signal embedding, which the distance is of", profile_path.string());
    mean = &signal->second.features;
    options.signals.push_back("embedding");
    options.key = project_key(recipe.drift->key, "drift.key");
    options.gamma = profile.identity.gamma;
    options.max_tokens = profile.identity.max_tokens;
  }
  Measurer measurer(small, options);
  if (mean && profile.identity.model_sha256 != measurer.model_sha256())
    fail(Exit::bad_input, "{}: the profile is of another model than {}", profile_path.string(), small.string());
  if (mean && profile.identity.key != key_id(options.key))
    fail(Exit::bad_input, "{}: the profile was made with another project key", profile_path.string());
  std::vector<TrafficRow> traffic;
  for (const Asked& row : rows) traffic.push_back(traffic_row(row.chat));
  const std::vector<RowMeasure> measures = measured(measurer, traffic, "prompts", progress);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto bits = measures[i].numbers.find("bits_per_byte");
    features[i]["prompt_bits_per_byte"] = bits == measures[i].numbers.end() ? 0 : bits->second;
    if (mean) features[i]["profile_distance"] = distance(measures[i].features.at("embedding"), *mean);
  }
  return hash;
}

}  // namespace

Json measure_routes(const Recipe& recipe, const RouteMeasurement& options, const ProgressSink& progress) {
  Progress shown(progress);
  const PullOptions pulling{.progress = &shown};
  const fs::path small = pull(source_of(recipe, options.small), pulling),
                 large = pull(source_of(recipe, options.large), pulling);
  const std::vector<Asked> rows = rows_to_ask(recipe, small, large, options, progress);
  const ServedOptions serving{.threads = static_cast<int>(recipe.threads), .exact = true};
  std::vector<Generated> of_small, of_large;
  std::vector<std::map<std::string, double>> features;
  {
    const auto model = ServedModel::open(small, serving);
    of_small = answers(*model, rows, &Asked::small, options.max_tokens, "small model", progress);
    features = features_of_run(*model, rows, of_small);
  }
  {
    const auto model = ServedModel::open(large, serving);
    of_large = answers(*model, rows, &Asked::large, options.max_tokens, "large model", progress);
  }
  const std::string profile = add_prompt_features(recipe, small, options.profile, rows, features, progress);
  const auto small_tokenizer = Tokenizer::open(small), large_tokenizer = Tokenizer::open(large);
  const std::string small_hash = sha256_file(small), large_hash = sha256_file(large);
  const double small_bytes = static_cast<double>(fs::file_size(small)) / 1e9,
               large_bytes = static_cast<double>(fs::file_size(large)) / 1e9;
  AtomicFile file(options.out);
  double small_right = 0, large_right = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool a = is_right(*small_tokenizer, of_small[i], rows[i].small),
               b = is_right(*large_tokenizer, of_large[i], rows[i].large);
    small_right += a;
    large_right += b;
    Json line{{"prompt", traffic_row(rows[i].chat).text},
              {"small", a ? 1 : 0},
              {"large", b ? 1 : 0},
              {"small_cost", static_cast<double>(rows[i].small.prompt.size() + of_small[i].ids.size()) * small_bytes},
              {"large_cost", static_cast<double>(rows[i].large.prompt.size() + of_large[i].ids.size()) * large_bytes},
              {"features", features[i]},
              {"small_sha256", small_hash},
              {"large_sha256", large_hash}};
    if (!profile.empty()) line["profile_sha256"] = profile;
    file.write(line.dump() + "\n");
  }
  file.commit();
  const double n = static_cast<double>(rows.size());
  return {{"rows", rows.size()}, {"small", small_right / n}, {"large", large_right / n}, {"out", options.out.string()}};
}

Json evaluate_route(const RouteEvaluation& options) {
  const Router router = read_router(options.router);
  const RouteData data = read_route_rows(options.data);
  RouteSource now = data.source;
  if (!options.small.empty()) {
    now.small_sha256 = sha256_file(options.small);
    // What serves is another file: a gateway must not go on by what this one could do.
    if (!router.revoked && now.small_sha256 != router.source.small_sha256)
      revoke_router(options.router, fmt::format("the small model is {} now: {}", options.small.string(),
                                                now.small_sha256.substr(0, 12)));
  }
  require_valid(router, now, options.router.string());
  if (!options.drift.empty()) {
    const Json drift = read_json(options.drift);
    const std::string where = options.drift.string();
    if (json_get<bool>(json_get<Json>(json_get<Json>(drift, "drift", where), "decision", where), "alarm", where)) {
      revoke_router(options.router, "drift: " + where);
      fail(Exit::drift, "{}: {} says that the traffic has drifted: the router is revoked; calibrate it on fresh rows",
           options.router.string(), where);
    }
  }
  Json found = evaluate_router(router, data);
  found["small_sha256"] = router.source.small_sha256;
  found["large_sha256"] = router.source.large_sha256;
  found["profile_sha256"] = router.source.profile_sha256;
  const auto today = std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now());
  Json report{{"schema", 1},
              {"name", options.router.stem().string()},
              {"created", slot_name("day", today)},
              {"retort", version()},
              {"router", std::move(found)}};
  if (!options.out.empty()) {
    write_json(options.out / "report.json", report);
    write_atomic(options.out / "report.html", render_report(report));
  }
  return report;
}

}  // namespace retort
