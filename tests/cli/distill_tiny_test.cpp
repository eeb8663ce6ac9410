// Distillation between tiny models, as a shell sees it: what their vocabularies, adapters and references decide.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "adapters/peft.h"
#include "core/files.h"
#include "core/json.h"
#include "export/gguf.h"
#include "recipes/recipe.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"
#include "tests/export/tiny_folder.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct DistillTiny : testing::Test {
  TemporaryFolder folder;
  fs::path student = folder / "student", teacher = folder / "teacher", runs = folder / "runs/tiny";
  std::string recipe = folder / "recipe.yaml";

  DistillTiny() {
    setenv("RETORT_CACHE", (folder / "cache").c_str(), 1);
    write_tiny_folder(student, tiny_folder_config(1), at::kFloat);
    std::string train, held;
    for (int i = 0; i < 12; ++i)
      (i < 8 ? train : held) +=
          Json{{"prompt", fmt::format("What is number {}?", i)}, {"completion", fmt::format("It is {} or so.", i * 7)}}
              .dump() +
          "\n";
    write_atomic(folder / "train.jsonl", train);
    write_atomic(folder / "held.jsonl", held);
    write_atomic(recipe, fmt::format(R"(
name: tiny
threads: 1
output_dir: {0}/runs
model: {{path: {0}/student}}
adapter: {{r: 4}}
data:
  max_length: 64
  train: [{{kind: jsonl, path: {0}/train.jsonl}}]
  validation: [{{kind: jsonl, path: {0}/held.jsonl}}]
train: {{max_steps: 2, micro_batch_size: 2, save_steps: 1}}
export: {{files: [{{format: peft}}]}}
)",
                                     folder.path().string()));
  }
  ~DistillTiny() override { unsetenv("RETORT_CACHE"); }

  /// A teacher of the student's family whose head is `width` wide, its tokens changed by `alter`.
  void write_teacher(int64_t width, const std::function<void(const fs::path&)>& alter = {}) const {
    Json config = tiny_folder_config(2);
    config["vocab_size"] = width;
    write_tiny_folder(teacher, config, at::kFloat);
    if (alter) alter(teacher);
  }
  /// A random adapter of the teacher, as a PEFT folder and as a GGUF file; the teacher as a GGUF file.
  void write_adapter() const {
    const auto checkpoint = Checkpoint::open(teacher);
    const auto model = CausalLM::load(*checkpoint, {});
    export_gguf(folder / "teacher.gguf", *checkpoint, *model, gguf_type("F32"), {});
    attach(*model, {}, 1);
    const at::NoGradGuard no_grad;
    at::manual_seed(1);
    for (const Parameter& p : trainable_parameters(*model)) at::Tensor(p.tensor).normal_(0, 0.3);
    save_peft(folder / "peft", *model, {}, {"", checkpoint->hash(), "", "", ""});
    export_gguf_adapter(folder / "adapter.gguf", *model, {});
  }
  std::vector<std::string> command(const std::string& name, const std::string& distill,
                                   std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {name, recipe, "distill={" + distill + "}"});
    return more;
  }
  Json distilled(const std::string& distill) const {
    const ProcessResult run = retort(command("run", distill));
    EXPECT_EQ(run.status, 0) << run.errors;
    return run.status == 0 ? read_json(runs / "latest/report.json")["distill"] : Json();
  }
  void refused(const std::string& name, int status, const std::vector<std::string>& parts,
               const std::string& distill) const {
    const ProcessResult result = retort(command(name, distill));
    EXPECT_EQ(result.status, status) << result.errors;
    for (const std::string& part : parts)
      EXPECT_NE(result.errors.find(part), std::string::npos) << "no \"" << part << "\" in: " << result.errors;
  }
  std::string at(const std::string& name) const { return (folder / name).string(); }
};

TEST_F(DistillTiny, RefusesOwnAnswersWhereNothingOfThemWouldBeCompared) {
  write_teacher(512, [](const fs::path& path) {
    for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
      fs::copy(fs::path(RETORT_GOLDEN) / "tokenizers/sentencepiece-json" / file, path / file,
               fs::copy_options::overwrite_existing);
  });
  const std::string across = "teacher: {path: " + at("teacher") + "}, online: true, loss: uld";
  EXPECT_GT(distilled(across)["teachers"][0]["aligned"]["tokens"].get<int64_t>(), 0);
  for (const char* name : {"check", "run"})
    refused(name, 64, {"distill.on_policy", "uld", at("teacher")}, across + ", on_policy: {lambda: 1}");
  refused("check", 64, {"on_policy", "kd_ratio"}, "teacher: {}, online: true, kd_ratio: 0, on_policy: {lambda: 1}");
}

TEST_F(DistillTiny, WithoutItsShareATeacherIsAskedAboutHeldOutRowsAlone) {
  write_teacher(512);
  const auto loss = [&] { return read_json(runs / "latest/report.json")["train"]["loss_last"].get<double>(); };
  const std::string paths = "teacher: {path: " + at("teacher") + "}";
  const Json distill = distilled(paths + ", kd_ratio: 0");
  const double alone = loss();
  EXPECT_FALSE(distill["teachers"][0].contains("cache"));
  EXPECT_FALSE(fs::exists(folder / "cache/teachers"));
  EXPECT_GT(distill["after"][0]["divergence"].get<double>(), 0);
  ASSERT_EQ(retort({"run", recipe}).status, 0);
  EXPECT_DOUBLE_EQ(loss(), alone) << "as if there were no teacher";
  distilled("teacher: [{path: " + at("teacher") + "}, {kind: self}], kd_ratio: 0");
  EXPECT_DOUBLE_EQ(loss(), alone) << "nor two";
  distilled(paths);
  EXPECT_NE(loss(), alone);
}

TEST_F(DistillTiny, LostMassIsThatOfOneMeasurement) {
  write_teacher(512, [](const fs::path& path) {
    Json tokenizer = read_json(path / "tokenizer.json");
    Json more = tokenizer["added_tokens"].back();
    more["id"] = 461;
    more["content"] = "<more>";
    tokenizer["added_tokens"].push_back(more);
    write_json(path / "tokenizer.json", tokenizer);
  });
  const Json distill = distilled("teacher: {path: " + at("teacher") + "}, online: true");
  const double before = distill["before"][0]["lost_mass"].get<double>();
  EXPECT_GT(before, 0);
  EXPECT_DOUBLE_EQ(distill["after"][0]["lost_mass"].get<double>(), before) << "of the same rows and the same teacher";
}

TEST_F(DistillTiny, TheReferenceWearsTheTeachersAdapter) {
  write_teacher(512);
  write_adapter();
  const std::string paths = "path: " + at("teacher.gguf") + ", adapter: " + at("adapter.gguf");
  const Json distill = distilled("online: true, teacher: {" + paths + ", reference: " + at("teacher.gguf") + "}");
  EXPECT_NEAR(distill["teachers"][0]["error"]["mean_kl"].get<double>(), 0, 1e-9) << "its reference is the same file";
}

TEST_F(DistillTiny, RefusesToFollowLayersWithoutTheirAdapter) {
  write_teacher(512);
  write_adapter();
  const std::string layers = ", hidden_states: {layers: [{student: 0, teacher: 1}]}, online: true";
  const std::string gguf = "path: " + at("teacher.gguf") + ", adapter: " + at("adapter.gguf");
  for (const char* name : {"check", "run"})
    refused(name, 64, {"distill.hidden_states", at("adapter.gguf")}, "teacher: {" + gguf + "}" + layers);
  distilled("teacher: {path: " + at("teacher") + ", adapter: " + at("peft") + "}" + layers);
}

TEST_F(DistillTiny, RefusesWhatATeacherDoesNotRead) {
  write_teacher(512);
  for (const char* option : {"gpu_layers", "threads"})
    for (const std::string& which : {"path: " + at("teacher"), std::string("kind: self")})
      refused("check", 64, {fmt::format("teacher.{}", option)},
              fmt::format("online: true, teacher: {{{}, {}: 2}}", which, option));
}

TEST_F(DistillTiny, AResumedRunNamesWhatChangedInTheTeachersAndTheirCache) {
  const auto resumed_with = [&](const std::string& began, const std::string& goes_on, const std::string& key) {
    fs::remove_all(runs);
    distilled(began);
    const fs::path run = fs::canonical(runs / "latest");
    fs::remove(run / "report.json");
    // As if the folder's name did not give the other recipe away.
    const std::string hash = load_recipe(recipe, {"distill={" + goes_on + "}"}).hash;
    fs::rename(run, runs / ("20260101T000000Z-" + hash.substr(0, 8)));
    const ProcessResult result = retort(command("run", goes_on, {"--resume"}));
    EXPECT_EQ(result.status, 64) << result.errors;
    EXPECT_NE(result.errors.find(key), std::string::npos) << result.errors;
  };
  const std::string two = "online: true, teacher: [{kind: self}, {kind: self, weight: ";
  resumed_with(two + "1}]", two + "3}]", "distill.teacher.1.weight");
  const std::string cache = "teacher: {kind: self}, cache: {top_k: ";
  resumed_with(cache + "8}", cache + "9}", "distill.cache");
}

}  // namespace
}  // namespace retort
