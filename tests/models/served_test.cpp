// A GGUF file in llama.cpp: batches that share beginnings give what single documents give; damaged files are errors.
#include "models/served.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <llama.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "core/files.h"
#include "models/gguf.h"
#include "models/llama_runtime.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"

namespace retort {
namespace {

/// SmolLM2's vocabulary and keys on a random model of two layers: small enough to load many times.
void write_small(const std::filesystem::path& path) {
  const auto real = GgufFile::open(smollm2_path());
  GgufWriter writer;
  writer.copy_metadata(*real);
  writer.set_u32("llama.embedding_length", 32);
  writer.set_u32("llama.block_count", 2);
  writer.set_u32("llama.feed_forward_length", 64);
  writer.set_u32("llama.attention.head_count", 2);
  writer.set_u32("llama.attention.head_count_kv", 1);
  writer.set_u32("llama.rope.dimension_count", 16);
  writer.set_u32("llama.context_length", 512);
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors = {{"token_embd.weight", {49152, 32}},
                                                                       {"output_norm.weight", {32}}};
  for (const char* layer : {"blk.0.", "blk.1."}) {
    const std::vector<std::pair<std::string, std::vector<int64_t>>> block = {
        {"attn_norm.weight", {32}},    {"attn_q.weight", {32, 32}},      {"attn_k.weight", {16, 32}},
        {"attn_v.weight", {16, 32}},   {"attn_output.weight", {32, 32}}, {"ffn_norm.weight", {32}},
        {"ffn_gate.weight", {64, 32}}, {"ffn_up.weight", {64, 32}},      {"ffn_down.weight", {32, 64}}};
    for (const auto& [name, shape] : block) tensors.emplace_back(layer + name, shape);
  }
  for (const auto& [name, shape] : tensors) writer.add(name, GGML_TYPE_F32, shape);
  writer.begin(path);
  at::manual_seed(11);
  for (const auto& [name, shape] : tensors) {
    const at::Tensor weight = shape.size() == 1 ? at::ones(shape) : at::randn(shape) * 0.4;
    writer.write(name, {static_cast<const uint8_t*>(weight.const_data_ptr()), weight.nbytes()});
  }
  writer.commit();
}

const std::filesystem::path& small_path() {
  static TemporaryFolder folder;
  static const std::filesystem::path path = [] {
    write_small(folder.path() / "small.gguf");
    return folder.path() / "small.gguf";
  }();
  return path;
}

std::unique_ptr<ServedModel> small() { return ServedModel::open(small_path(), {.exact = true}); }

std::vector<int32_t> random_ids(std::mt19937& random, size_t n) {
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % 49152);
  return ids;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a - b).abs().max().item<double>();
}

TEST(Served, SharedBeginningsChangeNothing) {
  const auto model = small();
  std::mt19937 random(1);
  const std::vector<int32_t> preamble = random_ids(random, 30);
  std::vector<std::vector<int32_t>> documents;
  std::vector<std::vector<int64_t>> wanted;
  for (int row = 0; row < 25; ++row) {  // several passes
    std::vector<int32_t> prompt = preamble;
    for (int32_t id : random_ids(random, 10 + row % 7)) prompt.push_back(id);
    for (int answer = 0; answer < 5; ++answer) {
      documents.push_back(prompt);
      for (int32_t id : random_ids(random, 1 + answer % 3)) documents.back().push_back(id);
      wanted.push_back({});
      for (size_t t = prompt.size() - 1; t < documents.back().size(); ++t)
        wanted.back().push_back(static_cast<int64_t>(t));
    }
  }
  documents.push_back(documents.front());  // a document twice, and one that is the beginning of another
  wanted.push_back(wanted.front());
  documents.push_back(preamble);
  wanted.push_back({29});
  std::vector<at::Tensor> together;
  model->logits(documents, wanted, [&](size_t i, const at::Tensor& logits) {
    ASSERT_EQ(i, together.size());
    together.push_back(logits);
  });
  ASSERT_EQ(together.size(), documents.size());
  for (size_t i = 0; i < documents.size(); i += i + 8 < documents.size() ? 7 : 1) {
    EXPECT_LT(largest_difference(together[i], model->logits(documents[i], wanted[i])), 1e-4) << i;
  }
}

TEST(Served, LongDocumentsRunInChunks) {
  const auto model = small();
  std::mt19937 random(2);
  const std::vector<int32_t> ids = random_ids(random, 1500);
  const at::Tensor all = model->logits(ids);
  ASSERT_EQ(all.sizes(), at::IntArrayRef({1500, 49152}));
  const std::vector<int64_t> some = {0, 511, 512, 1499};
  EXPECT_LT(largest_difference(model->logits(ids, some), all.index_select(0, at::tensor(some))), 1e-4);
}

TEST(Served, GeneratesTheSameAloneAndInABatch) {
  const auto model = small();
  std::mt19937 random(3);
  std::vector<ServedRequest> requests;
  for (size_t i = 0; i < 8; ++i) requests.push_back({random_ids(random, 5 + i), {}, 6});
  std::vector<Generated> together;
  model->run(requests, {}, [&](size_t i, const Generated& generated) {
    ASSERT_EQ(i, together.size());
    together.push_back(generated);
  });
  ASSERT_EQ(together.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].ids, model->generate(requests[i].ids, 6).ids) << i;
  }
}

TEST(Served, GenerationStopsWhereItIsTold) {
  const auto model = small();
  const std::vector<int32_t> prompt = {1, 2, 3, 4};
  const std::vector<ServedRequest> requests = {
      {prompt, {}, 50, [](std::span<const int32_t> ids) { return ids.size() < 3; }}};
  model->run(requests, {}, [](size_t, const Generated& generated) {
    EXPECT_EQ(generated.ids.size(), 3u);
    EXPECT_FALSE(generated.stopped);
  });
  int streamed = 0;
  EXPECT_EQ(model->generate(prompt, 7, 0, 0, [&](int32_t) { ++streamed; }).ids.size(), 7u);
  EXPECT_EQ(streamed, 7);
  // Sampling follows its seed.
  EXPECT_EQ(model->generate(prompt, 9, 1.0, 5).ids, model->generate(prompt, 9, 1.0, 5).ids);
  EXPECT_NE(model->generate(prompt, 9, 1.0, 5).ids, model->generate(prompt, 9, 1.0, 6).ids);
}

TEST(Served, RefusesTokensOutsideTheVocabulary) {
  const auto model = small();
  EXPECT_THROW(model->logits(std::vector<int32_t>{1, 49152}), Error);
  EXPECT_THROW(model->logits(std::vector<int32_t>{-1}), Error);
  EXPECT_THROW(model->logits(std::vector<int32_t>{}), Error);
}

TEST(Served, ReportsMemory) {
  const auto model = small();
  model->logits(std::vector<int32_t>{1, 2, 3});
  EXPECT_GT(model->memory_bytes(), 49152 * 32 * 4);
  EXPECT_LT(model->memory_bytes(), int64_t{1} << 30);
}

/// Loads `path` in a child process: what would abort or crash there must not take the test with it.
/// Returns the exit code: 0 loaded, 65 refused; -signal when it died.
int load_in_child(const std::filesystem::path& path) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 0;
    try {
      LlamaCapture capture;
      load_llama(path, llama_model_default_params());
    } catch (const Error& error) {
      code = static_cast<int>(error.exit());
      if (std::string(error.what()).find(path.filename().string()) == std::string::npos) code = 1;
    } catch (...) {
      code = 2;
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Served, DamagedFilesAreErrorsWithLlamaCppsWords) {
  TemporaryFolder folder;
  const auto path = folder.path() / "damaged.gguf";
  write_atomic(path, "GGUF");
  expect_error(Exit::bad_input, {"damaged.gguf", "llama.cpp cannot load it"}, [&] { ServedModel::open(path); });
  const std::string whole = read_text(small_path());
  write_atomic(path, std::string_view(whole).substr(0, whole.size() - 4096));
  expect_error(Exit::bad_input, {"damaged.gguf", "corrupted or incomplete"}, [&] { ServedModel::open(path); });
  expect_error(Exit::io, {"missing.gguf"}, [&] { ServedModel::open(folder.path() / "missing.gguf"); });
}

TEST(Served, AssertionsOfLlamaCppAreErrors) {
  TemporaryFolder folder;
  const auto path = folder.path() / "layers.gguf";
  const auto file = GgufFile::open(small_path());
  GgufWriter writer;
  writer.copy_metadata(*file);
  writer.set_u32("llama.block_count", 100000);  // GGML_ASSERT(hparams.n_layer_all <= LLAMA_MAX_LAYERS)
  for (const QuantizedTensor& tensor : file->tensors()) writer.add(tensor.name(), tensor.type(), tensor.shape());
  writer.begin(path);
  for (const QuantizedTensor& tensor : file->tensors()) writer.write(tensor.name(), tensor.bytes());
  writer.commit();
  expect_error(Exit::bad_input, {"layers.gguf", "GGML_ASSERT"}, [&] { ServedModel::open(path); });
}

TEST(Served, NoDamageEndsTheProcess) {
  TemporaryFolder folder;
  const auto path = folder.path() / "damaged.gguf";
  const std::string whole = read_text(small_path());
  std::mt19937 random(4);
  int refused = 0;
  for (int i = 0; i < 40; ++i) {
    std::string damaged = whole;
    // Half of the damage goes to the first keys, where hyperparameters are.
    const size_t range = i % 2 ? damaged.size() : 3000;
    const size_t at = random() % (range - 8);
    const auto bits = static_cast<uint32_t>(random());
    for (size_t b = 0; b < (i % 3 ? 1u : 4u); ++b) damaged[at + b] = static_cast<char>(bits >> (8 * b));
    write_atomic(path, damaged);
    const int code = load_in_child(path);
    EXPECT_TRUE(code == 0 || code == 65) << "damage " << i << " at byte " << at << ": " << code;
    refused += code == 65;
  }
  EXPECT_GT(refused, 5);
}

TEST(Runtime, CountsCores) {
  EXPECT_GE(usable_cores(), 1);
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    CPU_SET(cpu, &one);
    break;
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(usable_cores(), 1);
  sched_setaffinity(0, sizeof before, &before);

  const char* outer = std::getenv("OMP_NUM_THREADS");
  const std::string kept = outer ? outer : "";
  unsetenv("OMP_NUM_THREADS");
  const int all = usable_cores();
  setenv("OMP_NUM_THREADS", "1", 1);
  EXPECT_EQ(usable_cores(), 1);
  setenv("OMP_NUM_THREADS", "100000", 1);
  EXPECT_EQ(usable_cores(), all);
  outer ? setenv("OMP_NUM_THREADS", kept.c_str(), 1) : unsetenv("OMP_NUM_THREADS");
}

}  // namespace
}  // namespace retort
