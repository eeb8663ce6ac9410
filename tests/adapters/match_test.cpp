// Which modules an adapter goes to. The expectations are PEFT 0.21's, read off check_target_module_exists and
// get_pattern_key.
#include "adapters/match.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/schema.h"

namespace retort {
namespace {

const std::vector<std::string> names = [] {
  std::vector<std::string> all;
  for (int layer = 0; layer < 12; ++layer)
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"})
      all.push_back(fmt::format("model.layers.{}.{}", layer, name));
  all.emplace_back("lm_head");
  return all;
}();

std::vector<std::string> chosen(const AdapterOptions& options) {
  std::vector<std::string> result;
  for (const Target& target : match_targets(options, names)) result.push_back(names[target.index]);
  return result;
}

AdapterOptions targeting(ModuleChoice choice) {
  AdapterOptions options;
  options.target_modules = std::move(choice);
  return options;
}
AdapterOptions by_list(std::vector<std::string> list) {
  return targeting({.expression = "", .names = std::move(list)});
}
AdapterOptions by_expression(std::string expression) {
  return targeting({.expression = std::move(expression), .names = {}});
}

std::string refusal(const AdapterOptions& options) {
  try {
    match_targets(options, names);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::usage);
    return error.what();
  }
  return "accepted";
}

TEST(Match, AllLinearIsEveryLinearButTheHead) {
  EXPECT_EQ(chosen(by_expression("all-linear")).size(), 36u);
  EXPECT_EQ(chosen(by_expression("ALL-LINEAR")).size(), 36u);
}

TEST(Match, AListEntryIsAWholeNameOrWhatFollowsADot) {
  EXPECT_EQ(chosen(by_list({"q_proj"})).size(), 12u);
  EXPECT_EQ(chosen(by_list({"1.self_attn.q_proj"})), std::vector<std::string>{"model.layers.1.self_attn.q_proj"});
  EXPECT_EQ(chosen(by_list({"lm_head"})), std::vector<std::string>{"lm_head"});
  EXPECT_NE(refusal(by_list({"proj"})).find("\"proj\" matches no linear layer"), std::string::npos);
}

TEST(Match, AnExpressionMatchesTheWholeName) {
  EXPECT_EQ(chosen(by_expression(".*\\.q_proj")).size(), 12u);
  EXPECT_EQ(chosen(by_expression("model\\.layers\\.(1|2)\\..*_proj")).size(), 6u);
  EXPECT_NE(refusal(by_expression("q_proj")).find("did you mean"), std::string::npos);
}

TEST(Match, LayersAreTheFirstNumberAndAWholeNamePassesThemBy) {
  AdapterOptions options = by_list({"q_proj", "model.layers.7.mlp.up_proj"});
  options.layers_to_transform = {0, 11};
  EXPECT_EQ(chosen(options), (std::vector<std::string>{"model.layers.0.self_attn.q_proj", "model.layers.7.mlp.up_proj",
                                                       "model.layers.11.self_attn.q_proj"}));
  options.layers_pattern = {"layers"};
  EXPECT_EQ(chosen(options).size(), 3u);
  options.layers_pattern = {"blocks"};
  EXPECT_NE(refusal(options).find("no target lies in layer 0"), std::string::npos);
  options = by_list({"q_proj"});
  options.layers_to_transform = {12};
  EXPECT_NE(refusal(options).find("no linear layer is left"), std::string::npos);
}

TEST(Match, ExcludedModulesAreLeftOut) {
  AdapterOptions options = by_expression("all-linear");
  options.exclude_modules = {.expression = "", .names = {"k_proj", "up_proj"}};
  EXPECT_EQ(chosen(options).size(), 12u);
  options.exclude_modules = {.expression = ".*_proj", .names = {}};
  EXPECT_NE(refusal(options).find("no linear layer is left"), std::string::npos);
  options.exclude_modules = {.expression = "", .names = {"v_proj"}};
  EXPECT_NE(refusal(options).find("exclude_modules: \"v_proj\" matches no linear layer"), std::string::npos);
}

TEST(Match, PatternsSetRankAndScale) {
  AdapterOptions options = by_list({"q_proj", "up_proj"});
  options.r = 4;
  options.lora_alpha = 8;
  options.rank_pattern = {{"up_proj", 16}, {".*\\.1\\.self_attn\\.q_proj", 2}};
  options.alpha_pattern = {{"layers\\.[0-4]\\.mlp\\.up_proj", 32}};
  const auto targets = match_targets(options, names);
  const auto of = [&](const std::string& name) {
    for (const Target& target : targets)
      if (names[target.index] == name) return target;
    return Target{};
  };
  EXPECT_EQ(of("model.layers.0.self_attn.q_proj").r, 4);
  EXPECT_EQ(of("model.layers.1.self_attn.q_proj").r, 2);
  EXPECT_EQ(of("model.layers.11.self_attn.q_proj").r, 4);
  EXPECT_EQ(of("model.layers.3.mlp.up_proj").r, 16);
  EXPECT_EQ(of("model.layers.3.mlp.up_proj").scale, 2);
  EXPECT_EQ(of("model.layers.5.mlp.up_proj").scale, 0.5);
  options.use_rslora = true;
  EXPECT_EQ(match_targets(options, names)[0].scale, 4);
}

TEST(Match, PatternsThatMeetAreRefused) {
  AdapterOptions options = by_list({"q_proj"});
  options.rank_pattern = {{"q_proj", 2}, {"self_attn.q_proj", 4}};
  EXPECT_NE(refusal(options).find("both match model.layers.0.self_attn.q_proj"), std::string::npos);
  options.rank_pattern = {{"up_proj", 2}};
  EXPECT_NE(refusal(options).find("rank_pattern: \"up_proj\" matches no"), std::string::npos);
}

TEST(Match, ATypoNamesTheNearestAndAllThereIs) {
  const std::string message = refusal(by_list({"q_prj"}));
  EXPECT_NE(message.find("did you mean \"q_proj\"?"), std::string::npos) << message;
  EXPECT_NE(message.find("model.layers.0-11.mlp.up_proj"), std::string::npos) << message;
}

TEST(Match, WhatCannotHoldIsRefused) {
  EXPECT_NE(refusal(by_expression("(?=q)q_proj")).find("RE2"), std::string::npos);
  EXPECT_NE(refusal(by_list({})).find("empty"), std::string::npos);
  AdapterOptions options = by_expression(".*q_proj");
  options.layers_to_transform = {1};
  EXPECT_NE(refusal(options).find("layers_to_transform"), std::string::npos);
  options = by_list({"q_proj"});
  options.layers_pattern = {"layers"};
  EXPECT_NE(refusal(options).find("layers_pattern"), std::string::npos);
}

TEST(AdapterOptions, AreReadFromARecipe) {
  const auto options = from_yaml<AdapterOptions>(Yaml::parse(
      "{r: 8, lora_alpha: 16, target_modules: [q_proj, v_proj], exclude_modules: '.*2.*', layers_to_transform: [1], "
      "rank_pattern: {q_proj: 4}, init_lora_weights: gaussian}",
      "recipe"));
  EXPECT_EQ(options.r, 8);
  EXPECT_EQ(options.target_modules.names, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(options.exclude_modules.expression, ".*2.*");
  EXPECT_EQ(options.rank_pattern.at("q_proj"), 4);
  EXPECT_EQ(options.init_lora_weights.kind, LoraInit::gaussian);
  EXPECT_TRUE(AdapterOptions{}.target_modules.all_linear());
}

TEST(AdapterOptions, ARecipesMistakesSayWhere) {
  for (const auto& [text, message] :
       std::vector<std::pair<std::string, std::string>>{{"{lora_r: 8}", "r"},
                                                        {"{r: 0}", "r"},
                                                        {"{init_lora_weights: pisa}", "allowed: true"},
                                                        {"{kind: ia3, r: 8}", "r: \"ia3\" adapters have no such key"},
                                                        {"{kind: vera, use_rslora: true}", "use_rslora"},
                                                        {"{kind: dora, lora_bias: true}", "lora_bias"},
                                                        {"{kind: dora, dtype: bf16}", "lengths"},
                                                        {"{kind: vera, dtype: bf16}", "dtype"},
                                                        {"{kind: lroa}", "lora"},
                                                        {"{target_modules: {q: 1}}", "all-linear"},
                                                        {"{kind: ia3, trainable_token_indices: [1]}", "no such key"},
                                                        {"{bias: all}", "none"}}) {
    try {
      from_yaml<AdapterOptions>(Yaml::parse(text, "recipe"));
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage);
      EXPECT_NE(std::string(error.what()).find("recipe:1"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace retort
