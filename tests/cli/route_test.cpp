// retort route as a shell runs it: measured with real models, calibrated, evaluated, refused and revoked.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/rng.h"
#include "data/text_input.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"

namespace retort {
namespace {

/// Rows of a small model that is right where x is large.
std::string drawn_rows(size_t rows, uint64_t seed, const std::string& small_sha256) {
  Rng rng(seed);
  std::string text;
  for (size_t i = 0; i < rows; ++i) {
    const double x = rng.uniform();
    text += Json{{"prompt", std::to_string(rng.next())},
                 {"small", rng.uniform() < x ? 1 : 0},
                 {"large", rng.uniform() < 0.9 ? 1 : 0},
                 {"features", {{"x", x}}},
                 {"small_sha256", small_sha256}}
                .dump() +
            "\n";
  }
  return text;
}

TEST(Route, CalibratesEvaluatesRefusesAndRevokes) {
  const TemporaryFolder folder;
  auto path = [&](const char* name) { return (folder / name).string(); };
  write_atomic(path("model.gguf"), "the small model");
  const std::string hash = sha256_file(path("model.gguf"));
  write_atomic(path("rows.jsonl"), drawn_rows(800, 1, hash));
  write_atomic(path("other.jsonl"), drawn_rows(500, 2, hash));
  const ProcessResult made =
      retort({"route", "calibrate", path("rows.jsonl"), "--epsilon", "0.1", "--out", path("router.json")});
  ASSERT_EQ(made.status, 0) << made.errors;
  const Json router = read_json(path("router.json"));
  EXPECT_EQ(router["small_sha256"], hash);
  EXPECT_EQ(router["revoked"], false);
  EXPECT_LE(router["calibration"]["bound"].get<double>(), 0.1);

  const std::vector<std::string> evaluate{
      "route",     "evaluate", path("router.json"), path("other.jsonl"), "--small", path("model.gguf"), "--out",
      path("out"), "--json"};
  const ProcessResult found = retort(evaluate);
  ASSERT_EQ(found.status, 0) << found.errors;
  const Json report = read_json(folder / "out" / "report.json");
  EXPECT_EQ(parse_json(found.output, "stdout"), report);
  EXPECT_LE(report["router"]["chosen"]["loss_at_least"].get<double>(), 0.1);
  const std::string page = read_text(folder / "out" / "report.html");
  EXPECT_NE(page.find("The loss keeps its limit"), std::string::npos);
  EXPECT_EQ(page.find("What was trained"), std::string::npos);

  write_atomic(path("model.gguf"), "another model");
  const ProcessResult another = retort(evaluate);
  EXPECT_EQ(another.status, 65);
  EXPECT_NE(another.errors.find("calibrated for the small model"), std::string::npos) << another.errors;
  EXPECT_EQ(read_json(path("router.json"))["revoked"], true);
  EXPECT_NE(read_json(path("router.json"))["reason"].get<std::string>().find("the small model is"), std::string::npos);
  write_atomic(path("model.gguf"), "the small model");
  EXPECT_EQ(retort(evaluate).status, 65) << "until it is calibrated again";
  ASSERT_EQ(retort({"route", "calibrate", path("rows.jsonl"), "--epsilon", "0.1", "--out", path("router.json")}).status,
            0);

  auto with_drift = [&](bool alarm) {
    write_json(path("drift.json"), {{"drift", {{"decision", {{"alarm", alarm}}}}}});
    std::vector<std::string> arguments = evaluate;
    arguments.insert(arguments.end(), {"--drift", path("drift.json")});
    return retort(arguments);
  };
  EXPECT_EQ(with_drift(false).status, 0);
  EXPECT_EQ(read_json(path("router.json"))["revoked"], false);
  EXPECT_EQ(with_drift(true).status, 10);
  EXPECT_EQ(read_json(path("router.json"))["revoked"], true);
  const ProcessResult revoked = retort(evaluate);
  EXPECT_EQ(revoked.status, 65);
  EXPECT_NE(revoked.errors.find("revoked"), std::string::npos);
}

TEST(Route, MeasuresWhatBothModelsAnswer) {
  const TemporaryFolder folder;
  const std::string model = smollm2_path().string(), out = (folder / "rows.jsonl").string();
  const ProcessResult found =
      retort({"route", "measure", RETORT_SOURCE_DIR "/configs/quickstart.yaml", "--small", model, "--large", model,
              "--limit", "4", "--max-tokens", "8", "--quiet", "--out", out});
  ASSERT_EQ(found.status, 0) << found.errors;
  const std::string text = read_text(out);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);
  const Json row = parse_json(text.substr(0, text.find('\n')), out);
  EXPECT_EQ(row["small_sha256"], row["large_sha256"]);
  EXPECT_EQ(row["small"], row["large"]);
  EXPECT_GT(row["features"]["prompt_bits_per_byte"].get<double>(), 0);
  EXPECT_GT(row["features"]["first_token_entropy"].get<double>(), 0);
  EXPECT_LT(row["features"]["min_log_p"].get<double>(), 0);
  EXPECT_LE(row["features"]["min_log_p"].get<double>(), row["features"]["mean_log_p"].get<double>());
}

TEST(Route, DistanceToTheProfileTellsOtherPromptsApart) {
  const TemporaryFolder folder;
  const std::string root = folder.path().string();
  const std::filesystem::path model = smollm2_path();
  std::filesystem::create_symlink(model, folder / "model.gguf");
  setenv("RETORT_PROJECT_KEY", "a key for tests, longer than 16", 1);
  Rng rng(3);
  const std::vector<std::string> things{"lamp", "coat", "kettle", "radio", "table"};
  auto question = [&] { return fmt::format("Where is the {} I ordered?", things[rng.below(things.size())]); };
  auto line = [](const std::string& prompt) { return Json{{"prompt", prompt}, {"answer", "Here."}}.dump() + "\n"; };
  std::string baseline, held_out;
  for (int i = 0; i < 40; ++i) baseline += line(fmt::format("{} Bill {}.", question(), i));
  for (int i = 0; i < 3; ++i) held_out += line(fmt::format("{} Bill {}.", question(), 100 + i));
  for (int i = 0; i < 3; ++i) held_out += line(fmt::format("for (k = 0; k < {}; ++k) xs[k] *= 0.5f;", i));
  write_atomic(folder / "baseline.jsonl", baseline);
  write_atomic(folder / "held_out.jsonl", held_out);
  write_atomic(folder / "recipe.yaml", fmt::format(R"(
name: orders
model: {{path: {0}/model.gguf}}
data:
  train: [{{kind: jsonl, path: {0}/baseline.jsonl, fields: {{completion: answer}}}}]
  validation: [{{kind: jsonl, path: {0}/held_out.jsonl, fields: {{completion: answer}}}}]
output_dir: {0}/runs
drift: {{baseline_log: "{0}/baseline.jsonl", max_tokens: 32}}
)",
                                                   root));
  const ProcessResult profiled = retort({"drift", "profile", root + "/recipe.yaml", "--quiet"});
  ASSERT_EQ(profiled.status, 0) << profiled.errors;
  const std::vector<std::string> measure{"route",
                                         "measure",
                                         root + "/recipe.yaml",
                                         "--small",
                                         root + "/model.gguf",
                                         "--large",
                                         root + "/model.gguf",
                                         "--max-tokens",
                                         "2",
                                         "--quiet",
                                         "--profile",
                                         root + "/model.gguf.drift.json",
                                         "--out",
                                         root + "/rows.jsonl"};
  const ProcessResult found = retort(measure);
  setenv("RETORT_PROJECT_KEY", "another key for tests, also long", 1);
  const ProcessResult other_key = retort(measure);
  unsetenv("RETORT_PROJECT_KEY");
  ASSERT_EQ(found.status, 0) << found.errors;
  std::vector<double> distances;
  LineReader lines(folder / "rows.jsonl");
  for (std::string text; lines.next(text);) {
    const Json row = parse_json(text, lines.place());
    EXPECT_EQ(row["profile_sha256"].get<std::string>().size(), 64u);
    distances.push_back(row["features"]["profile_distance"].get<double>());
  }
  ASSERT_EQ(distances.size(), 6u);
  EXPECT_LT(*std::max_element(distances.begin(), distances.begin() + 3),
            *std::min_element(distances.begin() + 3, distances.end()));
  EXPECT_EQ(other_key.status, 65);
}

}  // namespace
}  // namespace retort
