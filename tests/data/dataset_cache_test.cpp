#include "data/dataset_cache.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include "core/files.h"
#include "core/memory.h"
#include "core/sources.h"
#include "data/hdf5.h"
#include "tests/core/support.h"
#include "tests/data/fake_tokenizer.h"

namespace retort {
namespace {

const std::string chatml =
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}";

Chat chat_number(int64_t i) {
  return {fmt::format("rows.jsonl:{}", i + 1),
          std::to_string(i),
          {{"user", std::to_string(i)}, {"assistant", std::string(1 + i * 37 % 50, static_cast<char>('a' + i % 26))}},
          "",
          {}};
}

Stream<Chat> chats(int64_t count) {
  return [i = int64_t{0}, count](Chat& chat) mutable {
    if (i == count) return false;
    chat = chat_number(i++);
    return true;
  };
}

Stream<Chat> never() {
  return [](Chat&) -> bool { throw std::runtime_error("a row was read"); };
}

class Dataset : public testing::Test {
 protected:
  void SetUp() override {
    before_ = std::getenv("RETORT_CACHE") ? std::getenv("RETORT_CACHE") : "";
    setenv("RETORT_CACHE", cache_.path().c_str(), 1);
  }
  void TearDown() override {
    if (before_.empty())
      unsetenv("RETORT_CACHE");
    else
      setenv("RETORT_CACHE", before_.c_str(), 1);
  }
  std::unique_ptr<PackedDataset> build(int64_t count, const std::string& data = "data") {
    return build_dataset(chats(count), tokenizer_, template_, options_, data);
  }
  std::filesystem::path file(const PackedDataset& dataset) { return (cache_ / "datasets") / (dataset.key() + ".h5"); }
  FakeTokenizer tokenizer_{chatml};
  ChatTemplate template_{tokenizer_};
  PackedOptions options_{{.max_length = 128}, true};

 private:
  TemporaryFolder cache_;
  std::string before_;
};

TEST_F(Dataset, HoldsEveryTokenAndLabelOnce) {
  auto dataset = build(500);
  std::map<std::vector<int64_t>, std::vector<int64_t>> found;  // a document's ids -> its labels
  int64_t tokens = 0, trained = 0;
  for (int64_t window = 0; window < dataset->windows(); ++window) {
    Batch batch = dataset->batch(std::vector<int64_t>{window});
    EXPECT_LE(batch.tokens(), 128);
    EXPECT_EQ(batch.tokens(), dataset->window_tokens(window));
    EXPECT_EQ(batch.labels.ge(0).sum().item<int64_t>(), dataset->window_trained(window));
    tokens += batch.tokens();
    trained += dataset->window_trained(window);
    for (size_t d = 0; d + 1 < batch.offsets.size(); ++d) {
      auto slice = [&](const at::Tensor& all) {
        at::Tensor part = all.slice(0, batch.offsets[d], batch.offsets[d + 1]).contiguous();
        return std::vector<int64_t>(part.data_ptr<int64_t>(), part.data_ptr<int64_t>() + part.numel());
      };
      EXPECT_TRUE(found.emplace(slice(batch.ids), slice(batch.labels)).second);
    }
  }
  Ledger ledger;
  for (int64_t i = 0; i < 500; ++i) {
    Example example = *encode(tokenizer_, template_, chat_number(i), options_.encode, ledger);
    auto it = found.find({example.ids.begin(), example.ids.end()});
    ASSERT_NE(it, found.end()) << i;
    for (size_t t = 0; t < example.ids.size(); ++t)
      EXPECT_EQ(it->second[t], t + 1 < example.ids.size() && example.trained[t + 1] ? example.ids[t + 1] : -1);
  }
  EXPECT_EQ(found.size(), 500u);
  EXPECT_EQ(tokens, ledger.tokens);
  EXPECT_EQ(trained, ledger.trained_tokens);
  EXPECT_EQ(dataset->ledger().to_json(), ledger.to_json());
}

TEST_F(Dataset, BatchesSeveralWindows) {
  auto dataset = build(60);
  ASSERT_GE(dataset->windows(), 4);
  Batch together = dataset->batch(std::vector<int64_t>{2, 0});
  Batch second = dataset->batch(std::vector<int64_t>{2}), first = dataset->batch(std::vector<int64_t>{0});
  EXPECT_TRUE(at::equal(together.ids, at::cat({second.ids, first.ids})));
  EXPECT_TRUE(at::equal(together.labels, at::cat({second.labels, first.labels})));
  std::vector<int64_t> offsets = second.offsets;
  for (size_t i = 1; i < first.offsets.size(); ++i) offsets.push_back(second.tokens() + first.offsets[i]);
  EXPECT_EQ(together.offsets, offsets);
  expect_error(Exit::internal, {"window 999"}, [&] { dataset->batch(std::vector<int64_t>{999}); });
}

TEST_F(Dataset, WithoutPackingARowIsAWindow) {
  options_.packing = false;
  auto dataset = build(50);
  EXPECT_EQ(dataset->windows(), 50);
  Ledger ledger;
  for (int64_t i = 0; i < 50; ++i)
    EXPECT_EQ(dataset->window_tokens(i),
              static_cast<int64_t>(encode(tokenizer_, template_, chat_number(i), options_.encode, ledger)->ids.size()));
}

TEST_F(Dataset, IsMadeOnce) {
  auto first = build(50);
  auto second = build_dataset(never(), tokenizer_, template_, options_, "data");
  EXPECT_EQ(first->key(), second->key());
  EXPECT_TRUE(at::equal(first->batch(std::vector<int64_t>{0}).ids, second->batch(std::vector<int64_t>{0}).ids));
}

TEST_F(Dataset, IsMadeAgainForAnythingThatChangesIt) {
  std::set<std::string> keys = {dataset_key(tokenizer_, template_, options_, "data")};
  auto expect_new = [&](const std::string& key) { EXPECT_TRUE(keys.insert(key).second) << key; };
  expect_new(dataset_key(tokenizer_, template_, options_, "other data"));
  expect_new(dataset_key(FakeTokenizer(chatml, true), template_, options_, "data"));
  expect_new(dataset_key(tokenizer_, ChatTemplate(tokenizer_, chatml + " "), options_, "data"));
  PackedOptions options = options_;
  options.encode.max_length = 129;
  expect_new(dataset_key(tokenizer_, template_, options, "data"));
  options = options_;
  options.packing = false;
  expect_new(dataset_key(tokenizer_, template_, options, "data"));
  options = options_;
  options.encode.train_on = TrainOn::all;
  expect_new(dataset_key(tokenizer_, template_, options, "data"));
  options = options_;
  options.encode.truncation = Truncation::left;
  expect_new(dataset_key(tokenizer_, template_, options, "data"));
}

TEST_F(Dataset, ADamagedCacheIsRefusedAndMadeAgain) {
  auto good = build(300);
  const std::filesystem::path path = file(*good);
  const std::string bytes = read_text(path);
  at::Tensor ids = good->batch(std::vector<int64_t>{0}).ids;
  auto damage = [&](const std::string& damaged, const std::string& what) {
    std::filesystem::remove(path);
    std::ofstream(path, std::ios::binary) << damaged;
    expect_error(Exit::bad_input, {path.filename().string(), what}, [&] { open_dataset(path); });
    EXPECT_TRUE(at::equal(build(300)->batch(std::vector<int64_t>{0}).ids, ids));
    EXPECT_EQ(read_text(path).size(), bytes.size());
  };
  damage("", "not a sealed HDF5 file");
  damage("junk", "not a sealed HDF5 file");
  for (size_t size : {size_t{513}, bytes.size() / 2, bytes.size() - 1}) damage(bytes.substr(0, size), "cut or grew");
  damage(bytes + "x", "cut or grew");
  for (size_t at = 512; at < bytes.size(); at += bytes.size() / 40) {
    std::string flipped = bytes;
    flipped[at] ^= 1;
    damage(flipped, "checksum");
  }
  std::string seal = bytes;
  seal[20] = 'z';
  damage(seal, "seal");
}

TEST_F(Dataset, AFlippedChunkIsSeenWithoutTheSealToo) {
  auto good = build(300);
  std::string bytes = read_text(file(*good));
  // The first document's ids as they lie in the file.
  at::Tensor ids = good->batch(std::vector<int64_t>{0}).ids.slice(0, 0, 12).to(at::kInt);
  size_t at = bytes.find({reinterpret_cast<const char*>(ids.data_ptr()), 48});
  ASSERT_NE(at, std::string::npos);
  bytes[at] ^= 1;
  TemporaryFolder folder;
  std::ofstream(folder / "flipped.h5", std::ios::binary) << bytes;
  Hdf5File file = Hdf5File::open(folder / "flipped.h5", /*verify=*/false);
  std::vector<int32_t> values(4);
  expect_error(Exit::bad_input, {"flipped.h5", "\"ids\"", "checksum"}, [&] { file.read<int32_t>("ids", 0, values); });
}

TEST_F(Dataset, TwoProcessesMayAskAtOnce) {
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) {
    pid_t child = fork();
    if (child == 0) {
      try {
        _exit(build(3000)->windows() > 0 ? 0 : 1);
      } catch (...) {
        _exit(2);
      }
    }
    children.push_back(child);
  }
  for (pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_GT(build_dataset(never(), tokenizer_, template_, options_, "data")->windows(), 0);
}

TEST_F(Dataset, AFailedRowLeavesNothing) {
  Stream<Chat> failing = [i = 0](Chat& chat) mutable {
    chat = chat_number(i);
    if (++i == 20) chat.messages.pop_back();
    return true;
  };
  expect_error(Exit::bad_input, {"rows.jsonl:20", "no trained token"},
               [&] { build_dataset(failing, tokenizer_, template_, options_, "data"); });
  for (const auto& entry : std::filesystem::directory_iterator(cache_folder() / "datasets"))
    EXPECT_EQ(entry.path().extension(), ".lock") << entry.path();
  expect_error(Exit::bad_input, {"no row is left", "0 rows"}, [&] { build(0); });
}

TEST_F(Dataset, ThatIsInUseIsNotPruned) {
  build(20);
  const auto age = [](std::chrono::hours hours) {
    for (const auto& entry : std::filesystem::directory_iterator(cache_folder() / "datasets"))
      std::filesystem::last_write_time(entry.path(), std::filesystem::file_time_type::clock::now() - hours);
  };
  age(std::chrono::hours(48));
  build_dataset(never(), tokenizer_, template_, options_, "data");
  prune_cache(24 * 3600);
  EXPECT_GT(build_dataset(never(), tokenizer_, template_, options_, "data")->windows(), 0);
  age(std::chrono::hours(48));
  EXPECT_GT(prune_cache(24 * 3600), 0u);
}

TEST_F(Dataset, CountsWhatItDropped) {
  options_.encode.max_length = 40;
  options_.encode.truncation = Truncation::drop;
  const Ledger ledger = build(200)->ledger();
  EXPECT_EQ(ledger.rows, 200);
  EXPECT_GT(ledger.dropped.at("longer than max_length"), 0);
  EXPECT_EQ(build_dataset(never(), tokenizer_, template_, options_, "data")->ledger().to_json(), ledger.to_json());
}

TEST_F(Dataset, MemoryDoesNotGrowWithTheRows) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer keeps what was freed";
#endif
  auto texts = [&](int64_t count, const std::string& data) {
    Stream<Chat> rows = [i = int64_t{0}, count](Chat& chat) mutable {
      if (i == count) return false;
      chat = {"text:1", "", {}, std::string(20 + i++ * 37 % 80, 'x'), {}};
      return true;
    };
    return build_dataset(rows, tokenizer_, template_, options_, data)->ledger().rows;
  };
  EXPECT_EQ(texts(40000, "more than one pool"), 40000);
  const auto before = static_cast<int64_t>(peak_resident_bytes());
  EXPECT_EQ(texts(320000, "eight times the rows"), 320000);
  EXPECT_LT(static_cast<int64_t>(peak_resident_bytes()) - before, 8 << 20);
}

}  // namespace
}  // namespace retort
