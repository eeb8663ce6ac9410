// retort adapter: its four commands on small adapters and models.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "adapters/products.h"
#include "core/json.h"
#include "export/gguf.h"
#include "models/gguf.h"
#include "tests/adapters/golden.h"
#include "tests/cli/program.h"
#include "tests/export/small_model.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

std::string golden(const std::string& name) { return (golden_folder / name).string(); }

struct AdapterCommand : testing::Test {
  TemporaryFolder folder;
  std::string at(const std::string& name) const { return (folder / name).string(); }

  ProcessResult done(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "adapter");
    const ProcessResult result = retort(arguments);
    EXPECT_EQ(result.status, 0) << result.errors;
    return result;
  }
  void refused(int status, const std::string& part, std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "adapter");
    const ProcessResult result = retort(arguments);
    EXPECT_EQ(result.status, status) << result.errors;
    EXPECT_NE(result.errors.find(part), std::string::npos) << result.errors;
  }
  /// A small GGUF base, and adapters on it in the folders "one" and "two".
  std::unique_ptr<CausalLM> small() {
    write_small_model(at("base.gguf"), "k");
    const auto base = Checkpoint::open(at("base.gguf"));
    auto model = CausalLM::load(*base, {});
    AdapterOptions options;
    options.r = 4;
    for (const char* name : {"one", "two"}) {
      attach(*model, options, 1);
      at::manual_seed(name[0]);
      for (const Parameter& parameter : trainable_parameters(*model)) parameter.tensor.detach().normal_(0, 0.05);
      save_peft(at(name), *model, options,
                {.base = at("base.gguf"), .base_hash = base->hash(), .template_hash = "", .data_hash = ""});
    }
    return model;
  }
  /// Largest difference between the tensors of two GGUF files.
  double difference(const std::string& one, const std::string& two) const {
    const auto first = GgufFile::open(at(one)), second = GgufFile::open(at(two));
    double largest = 0;
    for (const QuantizedTensor& tensor : first->tensors())
      largest = std::max(largest,
                         (tensor.dequantize() - second->find(tensor.name())->dequantize()).abs().max().item<double>());
    return largest;
  }
};

TEST_F(AdapterCommand, CombineWritesWhatDiffThenDescribes) {
  const std::string lora = golden("peft_lora"), rslora = golden("peft_rslora");
  const ProcessResult made = done({"combine", lora, rslora, "--weights", "0.7,-0.4", "--type", "cat", "--out",
                                   at("both"), "--model", golden("peft_base")});
  EXPECT_NE(made.output.find("21 modules, rank 8"), std::string::npos) << made.output;
  const Json report =
      parse_json(done({"diff", lora, at("both"), "--json", "--model", golden("peft_base")}).output, "diff");
  EXPECT_EQ(report["modules"].size(), 21U);
  for (const Json& entry : report["modules"])
    if (entry["module"] == "model.layers.1.mlp.up_proj") {  // of the first alone
      EXPECT_NEAR(entry["size"][1].get<double>() / entry["size"][0].get<double>(), 0.7, 1e-5);
      EXPECT_NEAR(entry["cosine"].get<double>(), 1, 1e-6);
      EXPECT_NEAR(entry["difference"].get<double>(), 0.3, 1e-5);
    }
  const std::string table = done({"diff", lora}).output;
  EXPECT_NE(table.find("q_proj x 3"), std::string::npos) << table;
  EXPECT_NE(table.find("rank 90 %"), std::string::npos) << table;
}

TEST_F(AdapterCommand, ConvertGoesToGgufAndBack) {
  small();
  done({"convert", at("one"), "--out", at("one.gguf")});
  done({"convert", at("one.gguf"), "--model", at("base.gguf"), "--out", at("back")});
  const Json report = parse_json(done({"diff", at("one"), at("back"), "--json"}).output, "diff");
  EXPECT_LT(report["all"]["difference"].get<double>(), 1e-6);
  refused(64, "--model", {"convert", at("one.gguf"), "--out", at("again")});
  write_small_model(at("other.gguf"), "odd");
  refused(65, "blk.", {"convert", at("one.gguf"), "--model", at("other.gguf"), "--out", at("again")});
}

TEST_F(AdapterCommand, MergeTakesSeveralAndUndoTakesThemOut) {
  const auto model = small();
  done({"merge", at("one"), "--type", "F32", "--out", at("one.merged.gguf")});
  EXPECT_GT(difference("base.gguf", "one.merged.gguf"), 1e-2);
  done({"merge", at("one"), at("two"), "--weights", "0.5,-2", "--type", "F32", "--out", at("both.merged.gguf")});
  const auto one = read_products(at("one")).modules, two = read_products(at("two")).modules;
  const std::string module = "model.layers.3.mlp.up_proj";
  const auto change = [&](const auto& products) {
    const Product& product = products.at(module);
    return at::mm(product.b, product.a) * product.scale;
  };
  const auto before = GgufFile::open(at("base.gguf")), after = GgufFile::open(at("both.merged.gguf"));
  const at::Tensor expected = before->find("blk.3.ffn_up.weight")->dequantize() + 0.5 * change(one) - 2 * change(two);
  EXPECT_LT(relative_error(after->find("blk.3.ffn_up.weight")->dequantize(), expected), 1e-6);

  done({"merge", at("one"), at("two"), "--weights", "0.5,-2", "--undo", "--model", at("both.merged.gguf"), "--type",
        "F32", "--out", at("undone.gguf")});
  EXPECT_LT(difference("base.gguf", "undone.gguf"), 1e-6);
  // Without --undo a merged model is another base.
  refused(65, "another base",
          {"merge", at("one"), "--model", at("both.merged.gguf"), "--type", "F32", "--out", at("x.gguf")});
  EXPECT_FALSE(fs::exists(at("x.gguf")));
}

TEST_F(AdapterCommand, WhatCannotBeCombinedExits64Or65) {
  const std::string lora = golden("peft_lora");
  refused(64, "linaer not in {linear,cat,svd", {"combine", lora, "--type", "linaer", "--out", at("x")});
  refused(64, "--weights: \"a\"", {"combine", lora, "--weights", "a", "--out", at("x")});
  refused(64, "weights: 2 given for 1 adapters", {"combine", lora, "--weights", "1,2", "--out", at("x")});
  refused(64, "ranks must be equal", {"combine", lora, golden("peft_head"), "--type", "linear", "--out", at("x")});
  refused(65, "rescaled rows", {"combine", lora, golden("peft_dora"), "--out", at("x")});
  refused(65, "cannot scale", {"convert", golden("peft_ia3"), "--out", at("x")});
  refused(64, "--model", {"convert", golden("peft_vera"), "--out", at("x")});
  refused(65, "is no PEFT adapter", {"diff", golden("peft_base")});
  EXPECT_FALSE(fs::exists(at("x")));
}

TEST_F(AdapterCommand, EachHelpHasAnExample) {
  for (const char* name : {"merge", "combine", "convert", "diff"}) {
    const ProcessResult help = done({name, "--help"});
    EXPECT_NE(help.output.find(std::string("  retort adapter ") + name), std::string::npos) << help.output;
  }
}

}  // namespace
}  // namespace retort
