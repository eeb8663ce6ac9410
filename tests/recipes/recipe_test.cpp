#include "recipes/recipe.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/files.h"
#include "recipes/prune.h"

namespace retort {
namespace {

class RecipeFile : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / ("retort-recipe-" + std::to_string(getpid()) + ".yaml");
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Recipe load(const std::string& text, const std::vector<std::string>& overrides = {}) {
    std::ofstream(path_) << text;
    return load_recipe(path_, overrides);
  }
  std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
    try {
      load(text, overrides);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage);
      return error.what();
    }
    ADD_FAILURE() << "accepted: " << text;
    return "";
  }
  std::filesystem::path path_;
};

const char* const minimal =
    "name: small\n"
    "model: {path: model.gguf}\n"
    "data: {train: [{kind: jsonl, path: rows.jsonl}]}\n";

TEST_F(RecipeFile, EveryShippedRecipeLoads) {
  int count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(RETORT_SOURCE_DIR "/configs"))
    if (entry.path().extension() == ".yaml" && entry.path().parent_path().filename() != "deploy") {
      if (Yaml::load(entry.path()).has("prune"))
        EXPECT_NO_THROW(load_prune_recipe(entry.path())) << entry.path();
      else
        EXPECT_NO_THROW(load_recipe(entry.path())) << entry.path();
      ++count;
    }
  EXPECT_GE(count, 1);
}

TEST_F(RecipeFile, TheStoredTextHoldsNoValueOfTheEnvironment) {
  setenv("RETORT_TEST_HOOK", "T0KEN", 1);
  const std::string text =
      std::string(minimal) + "retrain: {notify: {webhook: \"https://h/${env:RETORT_TEST_HOOK}\"}}\n";
  const Recipe recipe = load(text);
  EXPECT_EQ(recipe.retrain->notify.webhook, "https://h/T0KEN");
  EXPECT_EQ(recipe.text.find("T0KEN"), std::string::npos) << recipe.text;
  const Recipe again = load(recipe.text);
  EXPECT_EQ(again.hash, recipe.hash);
  setenv("RETORT_TEST_HOOK", "another", 1);
  EXPECT_NE(load(text).hash, recipe.hash) << "what the recipe says counts";
  unsetenv("RETORT_TEST_HOOK");
}

TEST_F(RecipeFile, TheReferencePageIsTheSchemas) {
  EXPECT_EQ(read_text(RETORT_SOURCE_DIR "/docs/recipe.md"), recipe_reference())
      << "run: retort schema --markdown > docs/recipe.md";
}

TEST_F(RecipeFile, DefaultsAreTheDesigns) {
  const Recipe recipe = load(minimal);
  EXPECT_EQ(recipe.adapter.r, 16);
  EXPECT_EQ(recipe.adapter.lora_alpha, 32);
  EXPECT_TRUE(recipe.adapter.target_modules.all_linear());
  EXPECT_EQ(recipe.model.base, "native");
  EXPECT_EQ(recipe.data.max_length, 512);
}

TEST_F(RecipeFile, MisspeltKeyIsNamedWithItsLineAndWhatWasMeant) {
  const std::string message = refusal(std::string(minimal) + "adapter:\n  lora_alhpa: 32\n");
  EXPECT_NE(message.find(".yaml:5"), std::string::npos) << message;
  EXPECT_NE(message.find("lora_alpha"), std::string::npos) << message;
}

TEST_F(RecipeFile, PeersNamesAreAnsweredWithOurs) {
  EXPECT_NE(refusal(std::string(minimal) + "train: {per_device_train_batch_size: 4}\n").find("micro_batch_size"),
            std::string::npos);
  EXPECT_NE(refusal(std::string(minimal) + "lora_r: 8\n").find("adapter.r"), std::string::npos);
}

TEST_F(RecipeFile, OverridesReplaceAndSayWhereTheyComeFrom) {
  EXPECT_EQ(load(minimal, {"adapter.r=8"}).adapter.r, 8);
  EXPECT_DOUBLE_EQ(load(minimal, {"train.learning_rate=1e-4"}).train.learning_rate, 1e-4);
  EXPECT_NE(refusal(minimal, {"adapter.r=many"}).find("command line"), std::string::npos);
}

TEST_F(RecipeFile, WhatCannotBeIsRefusedBeforeAnythingRuns) {
  const std::string no_validation = refusal(std::string(minimal) + "export: {files: [{format: gguf, type: Q8_0}]}\n");
  EXPECT_NE(no_validation.find("data.validation"), std::string::npos) << no_validation;
  refusal(std::string(minimal) + "export: {files: [{format: gguf}]}\n");
  refusal(std::string(minimal) + "export: {files: [{format: peft, type: Q8_0}]}\n");
  for (const char* file :
       {"{format: gguf, type: Q8_0, merge: adapter}", "{format: gguf, imatrix: train, merge: adapter}",
        "{format: peft, merge: adapter}", "{format: gguf, type: Q8_0, merge: yes}"}) {
    const std::string why = refusal(std::string(minimal) + "export: {files: [" + file + "]}\n");
    EXPECT_NE(why.find("merge"), std::string::npos) << why;
  }
  refusal("name: ../x\nmodel: {path: m}\ndata: {train: [{kind: jsonl, path: a}]}\n");
  refusal(std::string(minimal) + "adapter: {r: 0}\n");
  refusal(std::string(minimal) + "train: {warmup_ratio: 2}\n");
}

TEST_F(RecipeFile, TheHashFollowsTheContent) {
  EXPECT_EQ(load(minimal).hash, load(minimal).hash);
  EXPECT_NE(load(minimal).hash, load(minimal, {"seed=7"}).hash);
}

TEST_F(RecipeFile, SourcesAreNamesOrUrisOrPaths) {
  const Recipe recipe = load(std::string(minimal) +
                             "sources:\n  a: {uri: \"deb:x!y\", sha256: "
                             "0000000000000000000000000000000000000000000000000000000000000000}\n  b: rows.csv\n");
  EXPECT_EQ(source_of(recipe, "a").uri, "deb:x!y");
  EXPECT_EQ(source_of(recipe, "a").sha256.size(), 64U);
  EXPECT_EQ(source_of(recipe, "b").uri, "rows.csv");
  EXPECT_EQ(source_of(recipe, "other.gguf").uri, "other.gguf");
}

TEST_F(RecipeFile, DistillRefusesWhatDoesNotGoTogether) {
  const struct {
    const char *block, *said;
  } cases[] = {
      {"{}", "teacher"},
      {"{teacher: []}", "at least one teacher"},
      {"{teacher: {kind: ggfu}}", "allowed: auto, recorded, gguf"},
      {"{teacher: {path: t.gguf, n_gpu_layers: 3}}", "gpu_layers"},
      {"{teacher: {path: t.gguf}, loss: forward_lk}", "did you mean forward_kl?"},
      {"{teacher: {path: t.gguf}, kd_ratio: 1.5}", "kd_ratio"},
      {"{teacher: {path: t.gguf}, loss: jsd, loss_args: {beta: 1.5}}", "allowed: 0 to 1"},
      {"{teacher: {path: t.gguf}, loss: jsd, loss_args: {bata: 0.5}}", "did you mean beta?"},
      {"{teacher: {path: t.gguf}, loss_args: {beta: 0.5}}", "forward_kl has no number of its own"},
      {"{teacher: {path: t.gguf}, online: true, cache: {top_k: 4}}", "online: true uses no cache"},
      {"{teacher: {path: t.gguf}, loss: reverse_kl, estimator: zero}", "use clustered or ghost"},
      {"{teacher: {path: t.gguf}, loss: jsd, loss_args: {beta: 1}, estimator: zero}", "use clustered or ghost"},
      {"{teacher: {path: t.gguf}, loss: skew_reverse_kl, loss_args: {lambda: 0}, estimator: zero}",
       "use clustered or ghost"},
      {"{teacher: {path: t.gguf}, loss: jsd, estimator: sampled}", "forward_kl alone"},
      {"{teacher: {path: t.gguf}, temperature: 3}", "no masses at temperature 3, only at 1, 2, 4"},
      {"{teacher: {path: t.gguf}, temperature: 3, estimator: ghost}", "no masses at temperature 3"},
      {"{teacher: {path: t.gguf}, temperature: 2, estimator: sampled}", "wants temperature 1"},
      {"{teacher: {path: t.gguf}, estimator: sampled, cache: {tail_samples: 0}}", "tail_samples is 0"},
      {"{teacher: {path: t.gguf}, cache: {temperatures: [2]}}", "sampled has no masses at temperature 1"},
      {"{teacher: {path: t.gguf}, estimator: full}", "cache.full: true"},
      {"{teacher: {path: t.gguf}, cache: {tail_clusters: 300}}", "tail_clusters"},
      {"{teacher: {path: t.gguf}, cache: {tail_samples: 256}}", "found 256; allowed: at least 0 and at most 255"},
      {"{teacher: {path: t.gguf}, cache: {temperatures: [1, 0.2]}}",
       "found 0.2; allowed: at least 0.25 and at most 100"},
      {"{teacher: {path: t.gguf}, cache: {seed: -1}}", "found -1"},
      {"{teacher: {path: t.gguf}, on_policy: {lambda: 0.5}}", "needs online: true"},
      {"{teacher: {path: t.gguf}, loss: spans, temperature: 2}", "at temperature 1"},
      {"{teacher: {path: t.gguf}, loss: spans, online: true, on_policy: {lambda: 0.5}}", "the recipe's own rows"},
      {"{teacher: {kind: self}, hidden_states: {layers: [{student: 1, teacher: 1}]}}", "nothing to follow"},
      {"{teacher: {path: t.gguf}, hidden_states: {layers: []}}", "at least one pair"},
  };
  for (const auto& [block, said] : cases) {
    const std::string found = refusal(minimal + std::string("distill: ") + block + "\n");
    EXPECT_NE(found.find(said), std::string::npos) << block << "\n" << found;
    EXPECT_NE(found.find("distill"), std::string::npos) << found;
  }
}

TEST_F(RecipeFile, DistillTakesTemperaturesThatNoCacheHasToHold) {
  for (const char* more : {"estimator: zero", "estimator: full, cache: {full: true}", "loss: uld", "online: true"})
    EXPECT_EQ(load(minimal + fmt::format("distill: {{teacher: {{path: t.gguf}}, temperature: 3, {}}}\n", more))
                  .distill->temperature,
              3)
        << more;
}

TEST_F(RecipeFile, DistillDrawsTheTailWhereThatIsUnbiased) {
  const auto estimator = [&](const std::string& more) {
    return estimator_of(*load(minimal + ("distill: {teacher: {path: t.gguf}" + more + "}\n")).distill);
  };
  EXPECT_EQ(estimator(""), Estimator::sampled);
  EXPECT_EQ(estimator(", temperature: 2"), Estimator::clustered);
  EXPECT_EQ(estimator(", loss: jsd"), Estimator::clustered);
  EXPECT_EQ(estimator(", cache: {tail_samples: 0}"), Estimator::clustered);
  EXPECT_EQ(estimator(", estimator: ghost"), Estimator::ghost);
}

TEST_F(RecipeFile, DistillTakesOneTeacherOrSeveral) {
  const Recipe one = load(minimal + std::string("distill: {teacher: {path: t.gguf}, loss: jsd}\n"));
  ASSERT_EQ(one.distill->teacher.teachers.size(), 1u);
  EXPECT_EQ(divergence_options(*one.distill).parameter, 0.5) << "the loss's usual number";
  const Recipe two = load(minimal + std::string("distill:\n  teacher: [{path: t.gguf, weight: 2}, {kind: self}]\n"
                                                "  loss: skew_kl\n  loss_args: {lambda: 0.2}\n  kd_ratio: 0.75\n"));
  ASSERT_EQ(two.distill->teacher.teachers.size(), 2u);
  EXPECT_EQ(two.distill->teacher.teachers[0].weight, 2);
  const DivergenceOptions options = divergence_options(*two.distill);
  EXPECT_EQ(options.parameter, 0.2);
  EXPECT_EQ(options.kd_weight, 0.75);
  EXPECT_EQ(options.ce_weight, 0.25);
  EXPECT_FALSE(load(minimal).distill);
  EXPECT_EQ(load(minimal + std::string("distill: {teacher: {path: t.gguf}, cache: {seed: 7}}\n")).distill->cache.seed,
            7);
}

}  // namespace
}  // namespace retort
