// Distillation on the real model, as a shell sees it: filling a cache, training from it, asking a teacher online.
#include <gtest/gtest.h>

#include <set>

#include "core/files.h"
#include "core/json.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct Distill : testing::Test {
  TemporaryFolder folder;
  std::vector<std::string> command(const std::string& name, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {name,
                                          RETORT_SOURCE_DIR "/configs/quickstart.yaml",
                                          "output_dir=" + (folder / "runs").string(),
                                          "train.max_steps=2",
                                          "data.max_length=128",
                                          "data.truncation=drop",
                                          "data.train.0.limit=12",
                                          "data.validation.0.limit=4",
                                          "export.files=[{format: peft}]",
                                          "evaluate=[]"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Json report() const { return read_json(folder / "runs/foldoc-categories/latest/report.json"); }
};

TEST_F(Distill, TrainsFromACacheThatTwoProcessesFilled) {
  const std::string cache = "distill={teacher: {kind: self}, cache: {path: " + (folder / "cache").string() + "}}";
  int64_t documents = 0;
  for (const char* share : {"1/2", "2/2", "2/2"}) {
    const ProcessResult filled = retort(command("cache-teacher", {cache, "--shard", share, "--json"}));
    ASSERT_EQ(filled.status, 0) << filled.errors;
    const Json done = parse_json(filled.output, "cache-teacher")[0];
    if (documents > 0 && std::string(share) == "2/2" && done["documents"] == 0) continue;  // nothing is asked twice
    EXPECT_GT(done["documents"].get<int64_t>(), 0);
    documents += done["documents"].get<int64_t>();
  }
  const ProcessResult shown = retort({"inspect", (folder / "cache").string()});
  EXPECT_EQ(shown.status, 0) << shown.errors;
  for (const char* said :
       {"LibTorch", "teacher.vocabulary", "bytes_per_position", "tail_mass", "coding_nats", "hidden_nats"})
    EXPECT_NE(shown.output.find(said), std::string::npos) << said << "\n" << shown.output;

  // Whoever reads it as a whole writes that share's manifest, also where it is there already.
  ASSERT_EQ(retort(command("cache-teacher", {cache})).status, 0);
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(24 * 60);
  fs::last_write_time(folder / "cache", old);
  const ProcessResult run = retort(command("run", {cache}));
  ASSERT_EQ(run.status, 0) << run.errors;
  EXPECT_GT(fs::last_write_time(folder / "cache"), old + std::chrono::hours(24)) << "a cache in use is not old";
  const Json distill = report()["distill"];
  const Json& teacher = distill["teachers"][0];
  EXPECT_EQ(teacher["capture"]["documents"], 0) << "all of it was there";
  EXPECT_EQ(teacher["cache"]["documents"].get<int64_t>(), documents);
  const Json data = report()["data"]["ledger"];
  int64_t rows = data["rows"].get<int64_t>();
  for (const auto& [why, dropped] : data["dropped"].items()) rows -= dropped.get<int64_t>();
  EXPECT_EQ(rows, documents) << "of held-out rows nothing is kept";
  // The teacher is the student's own base, so the student agrees with it until it is trained.
  EXPECT_NEAR(distill["before"][0]["divergence"].get<double>(), 0, 1e-6);
  EXPECT_EQ(distill["before"][0]["agreement"], 1.0);
  EXPECT_GT(distill["after"][0]["divergence"].get<double>(), 1e-6);
  EXPECT_GT(distill["after"][0]["tokens"].get<int64_t>(), 0);
}

// The same weights in two engines: what one of them said is not the other's.
TEST_F(Distill, KeepsSeveralTeachersApartInOneFolder) {
  const std::string block =
      "distill={teacher: [{kind: self, weight: 3}, {path: smollm2}], cache: {path: " + (folder / "cache").string() +
      "}}";
  const ProcessResult run = retort(command("run", {block, "train.max_steps=1", "data.train.0.limit=6"}));
  ASSERT_EQ(run.status, 0) << run.errors;
  const Json teachers = report()["distill"]["teachers"];
  ASSERT_EQ(teachers.size(), 2u);
  std::set<std::string> folders;
  for (const Json& teacher : teachers) {
    folders.insert(teacher["capture"]["folder"].get<std::string>());
    EXPECT_GT(teacher["capture"]["documents"].get<int64_t>(), 0);
    EXPECT_EQ(fs::path(teacher["capture"]["folder"].get<std::string>()).parent_path(), folder / "cache");
    EXPECT_EQ(teacher["cache"]["teacher"]["engine"], teacher["engine"]);
  }
  EXPECT_EQ(folders.size(), 2u);
}

TEST_F(Distill, AsksSeveralTeachersOnline) {
  const ProcessResult check = retort(command(
      "check",
      {"distill={teacher: [{kind: self, weight: 3}, {path: smollm2}], online: true, loss: skew_kl}", "--json"}));
  ASSERT_EQ(check.status, 0) << check.errors;
  const Json teachers = parse_json(check.output, "check")["teachers"];
  ASSERT_EQ(teachers.size(), 2u);
  EXPECT_TRUE(teachers[1]["cache"].is_null());
  // A teacher that every step asks is in the plan; the base as its own teacher needs no second copy.
  const auto predicted = [&](const std::string& distill) {
    const ProcessResult alone = retort(command("check", {"distill=" + distill, "--json"}));
    EXPECT_EQ(alone.status, 0) << alone.errors;
    return parse_json(alone.output, "check")["predicted_memory_bytes"].get<double>();
  };
  const double weights = 90e6;  // of the file's 98 MB those that a pass reads
  const double cached = predicted("{teacher: {path: smollm2}}");
  const double online = predicted("{teacher: {path: smollm2}, online: true}");
  EXPECT_GT(online, cached + weights);
  EXPECT_LT(predicted("{teacher: {kind: self}, online: true}"), cached + weights);
  const ProcessResult run = retort(
      command("run", {"distill={teacher: [{kind: self, weight: 3}, {path: smollm2}], online: true, loss: skew_kl}"}));
  ASSERT_EQ(run.status, 0) << run.errors;
  const Json distill = report()["distill"];
  EXPECT_EQ(distill["teachers"][0]["engine"], "LibTorch");
  EXPECT_EQ(distill["teachers"][1]["engine"], "llama.cpp");
  // The same weights in another engine, which rounds activations to 8 bits.
  EXPECT_LT(distill["before"][1]["divergence"].get<double>(), 0.02);
  EXPECT_GT(distill["before"][1]["divergence"].get<double>(), 1e-6);
}

TEST_F(Distill, LearnsFromItsOwnAnswersAndTheTextsThatTwoModelsShare) {
  const ProcessResult own = retort(command(
      "run", {"distill={teacher: {kind: self}, online: true, on_policy: {lambda: 1, max_new_tokens: 8, refresh: 4}}"}));
  ASSERT_EQ(own.status, 0) << own.errors;
  EXPECT_EQ(report()["distill"]["on_policy"]["lambda"], 1.0);
  EXPECT_EQ(report()["train"]["steps"], 2);
  // The student is its teacher until it is trained, and what it said is nothing to learn.
  EXPECT_NEAR(report()["train"]["loss_first"].get<double>(), 0, 1e-5);

  const ProcessResult spans =
      retort(command("run", {"distill={teacher: {path: smollm2}, online: true, loss: spans}", "train.max_steps=1"}));
  ASSERT_EQ(spans.status, 0) << spans.errors;
  const Json distill = report()["distill"];
  const Json& aligned = distill["teachers"][0]["aligned"];
  EXPECT_EQ(aligned["tokens"], aligned["of"]) << "the same vocabulary meets at every token";
  EXPECT_LT(distill["before"][0]["divergence"].get<double>(), 0.01);
  EXPECT_GT(distill["before"][0]["spans"].get<int64_t>(), 0);
}

TEST_F(Distill, FollowsATeachersLayersAndSaysHowFarItIsFromItsReference) {
  const ProcessResult run = retort(
      command("run", {"distill={teacher: {path: smollm2, reference: smollm2}, online: true, hidden_states: {layers: "
                      "[{student: 3, teacher: 3}, {student: 29, teacher: 20}], distance: mse, project: true}}"}));
  ASSERT_EQ(run.status, 0) << run.errors;
  const Json distill = report()["distill"];
  EXPECT_EQ(distill["hidden_states"]["layers"].size(), 2u);
  EXPECT_NEAR(distill["teachers"][0]["error"]["mean_kl"].get<double>(), 0, 1e-6) << "its reference is the same file";
  const std::string metrics = read_text(folder / "runs/foldoc-categories/latest/metrics.jsonl");
  EXPECT_NE(metrics.find("hidden_states"), std::string::npos) << metrics;
}

TEST_F(Distill, LearnsFromRecordedAnswers) {
  const auto token = [](const char* text, double log_p, const char* other) {
    const auto entry = [](const std::string& t, double p) {
      return Json{{"token", t}, {"bytes", std::vector<int>(t.begin(), t.end())}, {"logprob", p}};
    };
    Json one = entry(text, log_p);
    one["top_logprobs"] = {entry(text, log_p), entry(other, log_p - 2)};
    return one;
  };
  std::string lines;
  for (const char* what : {"daemon", "kernel", "shell"}) {
    const Json answer = {{"role", "assistant"}, {"content", "A program"}};
    lines += Json{{"messages", {{{"role", "user"}, {"content", std::string("What is a ") + what + "?"}}}},
                  {"response",
                   {{"model", "big"},
                    {"choices",
                     {{{"finish_reason", "stop"},
                       {"message", answer},
                       {"logprobs", {{"content", {token("A", -0.3, "The"), token(" program", -0.7, " process")}}}}}}}}}}
                 .dump() +
             "\n";
  }
  const fs::path file = folder / "answers.jsonl";
  write_atomic(file, lines);
  const std::string data = "data.train=[{kind: recorded, path: " + file.string() + "}]";
  const ProcessResult run =
      retort(command("run", {data, "distill={teacher: {path: " + file.string() + "}}", "train.max_steps=1"}));
  ASSERT_EQ(run.status, 0) << run.errors;
  const Json teacher = report()["distill"]["teachers"][0];
  EXPECT_EQ(teacher["vocabulary"], "recorded answers: 3; 6 of 9 trained tokens have log-probabilities");

  const ProcessResult compared =
      retort(command("run", {data, "distill={teacher: {path: " + file.string() + ", reference: smollm2}}"}));
  EXPECT_EQ(compared.status, 64) << compared.errors;

  write_atomic(file, "{\"prompt\": \"What?\"}\n");
  const ProcessResult nothing = retort(command("run", {data, "distill={teacher: {path: " + file.string() + "}}"}));
  EXPECT_EQ(nothing.status, 65) << nothing.errors;
  EXPECT_NE(nothing.errors.find("answers.jsonl:1"), std::string::npos) << nothing.errors;
}

TEST_F(Distill, RefusesACacheOfAnotherTeacher) {
  const std::string place = "cache: {path: " + (folder / "cache").string() + "}";
  ASSERT_EQ(retort(command("cache-teacher", {"distill={teacher: {kind: self}, " + place + "}"})).status, 0);
  const ProcessResult other = retort(command("run", {"distill={teacher: {path: smollm2}, " + place + "}"}));
  EXPECT_EQ(other.status, 65) << other.errors;
  for (const std::string& said : {std::string("teacher.hash"), (folder / "cache").string()})
    EXPECT_NE(other.errors.find(said), std::string::npos) << other.errors;
}

// Whether loss: uld reads a cache follows from the vocabularies.
TEST_F(Distill, RefusesWhatItsCacheCouldNotGiveBeforeFillingIt) {
  for (const char* name : {"check", "run", "cache-teacher"}) {
    const ProcessResult refused =
        retort(command(name, {"distill={teacher: {kind: self}, loss: uld, temperature: 3, cache: {path: " +
                              (folder / "cache").string() + "}}"}));
    EXPECT_EQ(refused.status, 64) << refused.errors;
    EXPECT_NE(refused.errors.find("no masses at temperature 3, only at 1, 2, 4"), std::string::npos) << refused.errors;
    EXPECT_FALSE(fs::exists(folder / "cache")) << name;
  }
}

TEST_F(Distill, RefusesOwnAnswersThatLlamaCppCannotGive) {
  const ProcessResult run = retort(
      command("run", {"distill={teacher: {kind: self}, online: true, on_policy: {lambda: 1}}", "model.base=nf4"}));
  EXPECT_EQ(run.status, 64) << run.errors;
  EXPECT_NE(run.errors.find("distill.on_policy"), std::string::npos) << run.errors;
}

TEST_F(Distill, RefusesToFillNothing) {
  EXPECT_EQ(retort(command("cache-teacher")).status, 64);
  EXPECT_EQ(retort(command("cache-teacher", {"distill={teacher: {kind: self}}", "--shard", "3/2"})).status, 64);
  EXPECT_EQ(retort(command("cache-teacher", {"distill={teacher: {kind: self}, online: true}"})).status, 64);
}

}  // namespace
}  // namespace retort
