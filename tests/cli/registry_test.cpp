// retort registry as a shell runs it.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/temporary_folder.h"
#include "registry/registry.h"
#include "tests/cli/program.h"

namespace retort {
namespace {

class RegistryCommand : public testing::Test {
 protected:
  ProcessResult run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "registry");
    arguments.insert(arguments.end(), {"--registry", folder().string()});
    return retort(arguments);
  }
  std::filesystem::path folder() const { return temporary_ / "registry"; }
  std::string file(const std::string& content) const {
    write_atomic(temporary_ / "model.gguf", content);
    return (temporary_ / "model.gguf").string();
  }
  Json listed() const { return parse_json(run({"list", "--json"}).output, "stdout"); }
  TemporaryFolder temporary_;
};

TEST_F(RegistryCommand, PromotesShowsComparesAndGoesBack) {
  EXPECT_EQ(run({"list"}).status, 74);
  ASSERT_EQ(run({"promote", "m", file("a"), "--reason", "the first one"}).status, 0);
  const ProcessResult second = run({"promote", "m", file("b")});
  ASSERT_EQ(second.status, 0) << second.errors;
  EXPECT_EQ(listed()[0]["champion"], sha256_hex("b"));
  EXPECT_EQ(listed()[0]["previous"], sha256_hex("a"));
  const ProcessResult shown = run({"show", "m"});
  EXPECT_NE(shown.output.find("the first one"), std::string::npos) << shown.output << shown.errors;
  const Json differences = parse_json(run({"diff", "m", "champion", "previous", "--json"}).output, "stdout");
  EXPECT_EQ(differences[0]["a"], sha256_hex("b"));
  EXPECT_EQ(run({"rollback", "m"}).status, 0);
  EXPECT_EQ(listed()[0]["champion"], sha256_hex("a"));
  EXPECT_EQ(run({"rollback", "m"}).status, 64);
  EXPECT_EQ(run({"promote", "m", sha256_hex("b").substr(0, 12)}).status, 0);
  EXPECT_EQ(listed()[0]["champion"], sha256_hex("b"));
  const ProcessResult unknown = run({"show", "n"});
  EXPECT_EQ(unknown.status, 64);
  EXPECT_NE(unknown.errors.find("there are: m"), std::string::npos) << unknown.errors;
}

TEST_F(RegistryCommand, WaitsForNobody) {
  ASSERT_EQ(run({"promote", "m", file("a")}).status, 0);
  Registry registry(folder());
  const auto lease = registry.lease("m");
  EXPECT_EQ(run({"promote", "m", file("b")}).status, 75);
}

TEST_F(RegistryCommand, ExportsWithCardDecisionsAndHashes) {
  {
    Registry registry(folder());
    RegistryDecision decision{.kind = "promoted", .key = "k", .slot = "2026-W01", .at = 1'767'225'600};
    decision.reasons = {"no worse | shown"};
    decision.evaluations = Json::array(
        {{{"kind", "choice_accuracy"}, {"data", "validation"}, {"on", "challenger"}, {"value", 0.75}, {"n", 200}}});
    registry.promote(registry.lease("m"), file("a"), decision,
                     {{"license", "apache-2.0"}, {"base_model", "org/base"}, {"seed", 42}});
  }
  const auto out = temporary_ / "out";
  ASSERT_EQ(run({"export", "m", "--out", out.string()}).status, 0);
  const ProcessResult sums = run_program({"sha256sum", "--check", "--strict", "SHA256SUMS"}, out);
  EXPECT_EQ(sums.status, 0) << sums.output << sums.errors;
  EXPECT_EQ(read_text(out / "model.gguf"), "a");
  EXPECT_EQ(read_json(out / "version.json")["aliases"], Json({"champion"}));
  const std::string card = read_text(out / "README.md");
  EXPECT_EQ(card, run({"card", "m"}).output);
  ASSERT_TRUE(card.starts_with("---\n"));
  const YAML::Node front = YAML::Load(card.substr(4, card.find("\n---\n") - 4));
  EXPECT_EQ(front["license"].as<std::string>(), "apache-2.0");
  const YAML::Node result = front["model-index"][0]["results"][0];
  EXPECT_EQ(result["dataset"]["name"].as<std::string>(), "validation");
  EXPECT_EQ(result["metrics"][0]["value"].as<double>(), 0.75);
  for (const char* part : {"license: \"apache-2.0\"\n", "base_model: \"org/base\"\n", "value: 0.75", "| seed | 42 |",
                           "no worse \\| shown", "slot 2026-W01", "2026-01-01 00:00 UTC"})
    EXPECT_NE(card.find(part), std::string::npos) << part << "\n" << card;
  EXPECT_EQ(run({"export", "m", "--out", out.string()}).status, 64);
}

TEST_F(RegistryCommand, RemovesWhatNothingKeeps) {
  for (const char* content : {"a", "b", "c"}) ASSERT_EQ(run({"promote", "m", file(content)}).status, 0);
  const auto gc = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"gc", "--json"});
    return parse_json(run(more).output, "stdout");
  };
  EXPECT_EQ(gc({})["removed"].size(), 0u);
  EXPECT_EQ(gc({"--keep", "0", "--dry-run"})["removed"].size(), 0u);  // decided upon today
  EXPECT_EQ(run({"gc", "--keep", "-1"}).status, 64);
}

}  // namespace
}  // namespace retort
