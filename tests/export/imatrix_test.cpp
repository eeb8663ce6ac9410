// Importance matrices: collected, written, read.
#include "export/imatrix.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "core/json.h"
#include "export/gguf.h"
#include "tests/adapters/golden.h"
#include "tests/data/smollm2.h"
#include "tests/export/small_model.h"

namespace retort {
namespace {

Batch batch_of(std::vector<int64_t> ids) {
  const at::Tensor tokens = at::tensor(ids);
  return {tokens, at::full_like(tokens, -1), {0, tokens.size(0)}};
}

/// Gives two batches of 3 and 2 tokens.
std::function<bool(Batch&)> two_batches() {
  return [given = 0](Batch& batch) mutable {
    if (given == 2) return false;
    batch = given++ == 0 ? batch_of({1, 2, 3}) : batch_of({4, 5});
    return true;
  };
}

TEST(Imatrix, SumsTheSquaresOfEachLinearsInput) {
  TemporaryFolder temporary;
  write_small_model(temporary.path() / "base.gguf", "odd");
  const auto base = Checkpoint::open(temporary.path() / "base.gguf");
  const auto model = CausalLM::load(*base, {});
  const Imatrix imatrix = collect_imatrix(*model, two_batches(), "rows");
  EXPECT_EQ(imatrix.entries.size(), 14u);  // no head
  EXPECT_EQ(imatrix.chunks, 2);
  EXPECT_EQ(imatrix.chunk_size, 3);

  // The first layer's q, k and v see the normed embedding.
  const at::Tensor x = base->tensor("model.embed_tokens.weight").dequantize(at::kDouble).slice(0, 1, 6);
  const at::Tensor normed = x * (x.square().mean(-1, true) + base->config().norm_eps).rsqrt() *
                            base->tensor("model.layers.0.input_layernorm.weight").dequantize(at::kDouble);
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"}) {
    const Imatrix::Entry& entry = imatrix.entries.at(name);
    EXPECT_EQ(entry.counts, std::vector<float>{5});
    EXPECT_LT(relative_error(at::tensor(entry.sum_squares), normed.square().sum(0)), 1e-6) << name;
  }
  EXPECT_EQ(imatrix.entries.at("blk.1.ffn_down.weight").sum_squares.size(), 160u);
}

TEST(Imatrix, AgreesWithLlamaImatrixOnSmolLM2) {
  const Json golden = read_json(golden_folder / "imatrix.json");
  const auto base = Checkpoint::open(smollm2_path());
  const auto model = CausalLM::load(*base, {});
  const auto ids = golden["ids"].get<std::vector<int64_t>>();
  Batch both = batch_of(ids);
  both.offsets = {0, 128, 256};  // llama-imatrix saw two chunks
  const Imatrix imatrix = collect_imatrix(
      *model, [&, given = false](Batch& batch) mutable { return batch = both, !std::exchange(given, true); }, "text");
  ASSERT_EQ(imatrix.entries.size(), golden["weights"].size());
  for (const auto& [name, expected] : golden["weights"].items()) {
    const Imatrix::Entry& entry = imatrix.entries.at(name);
    EXPECT_EQ(entry.counts.at(0), expected["count"].get<float>()) << name;
    const at::Tensor sums = at::tensor(entry.sum_squares).to(at::kDouble);
    const double total = expected["total"];
    EXPECT_NEAR(sums.sum().item<double>(), total, 1e-3 * total) << name;
    const auto columns = expected["columns"].get<std::vector<double>>();
    const auto step = static_cast<int64_t>(entry.sum_squares.size()) / 8;
    for (size_t i = 0; i < columns.size(); ++i)
      EXPECT_NEAR(sums[static_cast<int64_t>(i) * step].item<double>(), columns[i], 0.01 * columns[i] + 1e-6 * total)
          << name;
  }
}

TEST(Imatrix, AWriteReadRoundTripKeepsEveryNumber) {
  TemporaryFolder temporary;
  const Imatrix before = small_imatrix("odd");
  write_imatrix(temporary.path() / "imatrix.gguf", before);
  const Imatrix after = read_imatrix(temporary.path() / "imatrix.gguf");
  EXPECT_EQ(after.datasets, before.datasets);
  EXPECT_EQ(after.chunks, before.chunks);
  EXPECT_EQ(after.chunk_size, before.chunk_size);
  ASSERT_EQ(after.entries.size(), before.entries.size());
  for (const auto& [name, entry] : before.entries) {
    EXPECT_EQ(after.entries.at(name).sum_squares, entry.sum_squares);
    EXPECT_EQ(after.entries.at(name).counts, entry.counts);
  }
}

TEST(Imatrix, NothingCountedMeansEqualWeights) {
  EXPECT_EQ(column_weights({{2, 4, 6, 8}, {2, 0}}), (std::vector<float>{1, 2, 1, 1}));
}

TEST(Imatrix, WhatIsNoneIsRefused) {
  TemporaryFolder temporary;
  const auto path = temporary.path() / "imatrix.gguf";
  const auto refusal = [&] {
    try {
      read_imatrix(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_input);
      return std::string(error.what());
    }
    return std::string("read");
  };
  write_small_model(path, "odd");
  EXPECT_NE(refusal().find("general.type"), std::string::npos) << refusal();
  Imatrix imatrix = small_imatrix("odd");
  imatrix.entries.begin()->second.sum_squares[3] = -1;
  write_imatrix(path, imatrix);
  EXPECT_NE(refusal().find("expected finite numbers"), std::string::npos) << refusal();
  imatrix = small_imatrix("odd");
  imatrix.entries.begin()->second.counts = {std::nanf("")};
  write_imatrix(path, imatrix);
  EXPECT_NE(refusal().find("counts"), std::string::npos) << refusal();
  std::filesystem::resize_file(path, 200);
  EXPECT_NE(refusal().find("imatrix.gguf"), std::string::npos) << refusal();
  std::ofstream(path) << "not a GGUF file";
  EXPECT_NE(refusal().find("imatrix.gguf"), std::string::npos) << refusal();
}

TEST(Imatrix, OfAnotherModelIsRefused) {
  TemporaryFolder temporary;
  write_small_model(temporary.path() / "base.gguf", "odd");
  const auto base = Checkpoint::open(temporary.path() / "base.gguf");
  const auto model = CausalLM::load(*base, {});
  const auto refusal = [&](const Imatrix& imatrix) {
    try {
      export_gguf(temporary.path() / "out.gguf", *base, *model, gguf_type("Q4_0"), {},
                  {.imatrix = &imatrix, .threads = 1});
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_input);
      return std::string(error.what());
    }
    return std::string("exported");
  };
  EXPECT_NE(refusal(small_imatrix("k")).find("256 columns, the model's has"), std::string::npos);
  Imatrix other;
  other.entries["blk.0.attn_qkv.weight"] = {{1}, {1}};
  EXPECT_NE(refusal(other).find("none of its 1 tensors"), std::string::npos);
}

}  // namespace
}  // namespace retort
