// Model files damaged in every place of their headers: each loads or is refused with one clear line, and nothing else
// happens.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "core/files.h"
#include "models/checkpoint.h"
#include "tests/core/support.h"
#include "tests/models/tiny_files.h"

namespace retort {
namespace {

struct Count {
  int loaded = 0, refused = 0;
};

/// Overwrites bytes in place: a file that is truncated and written again would be flushed to disk each time.
void patch(const std::filesystem::path& path, size_t at, std::string_view bytes) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(at));
  file << bytes;
}

/// Runs `read`, which may throw Error(bad_input) with a message of one line that names `path`'s folder.
void attempt(const std::filesystem::path& path, const std::function<void()>& read, Count& count) {
  try {
    read();
    ++count.loaded;
  } catch (const Error& error) {
    ++count.refused;
    const std::string text = error.what();
    EXPECT_EQ(error.exit(), Exit::bad_input) << text;
    EXPECT_NE(text.find(path.parent_path().string()), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_LT(text.size(), 1000U) << text;
  }  // anything else fails the test
}

/// Every damage to the first `header` bytes of the file at `path`: each byte set to other values, each place
/// overwritten by counts and offsets that are too large, the file cut at each length.
Count damage(const std::filesystem::path& path, size_t header, size_t step, const std::function<void()>& read) {
  const std::string bytes = read_text(path);
  Count count;
  const auto run = [&](size_t at, const void* value, size_t size) {
    const std::string_view before = std::string_view(bytes).substr(at, size);
    const std::string_view after(static_cast<const char*>(value), before.size());
    if (after == before) return;
    patch(path, at, after);
    attempt(path, read, count);
    patch(path, at, before);
  };
  for (size_t i = 0; i < header && !testing::Test::HasFailure(); i += step) {
    SCOPED_TRACE(fmt::format("{} at byte {}", path.filename().string(), i));
    const auto byte = static_cast<uint8_t>(bytes[i]);
    for (const uint8_t value : {uint8_t{0}, uint8_t{0xff}, static_cast<uint8_t>(byte ^ 0x80),
                                static_cast<uint8_t>(byte + 1), static_cast<uint8_t>(byte - 1)})
      run(i, &value, 1);
    for (const uint64_t value :
         {~uint64_t{0}, ~uint64_t{0} >> 1, uint64_t{1} << 63, uint64_t{1} << 40, uint64_t{1} << 31})
      run(i, &value, sizeof value);
  }
  for (size_t size = bytes.size(); size > 0; size -= std::min(size, size > header ? 1 + bytes.size() / 40 : step)) {
    std::filesystem::resize_file(path, size - 1);
    attempt(path, read, count);
  }
  return count;
}

/// Opens the model and reads all of it, as loading does.
void read_model(const std::filesystem::path& path) {
  const auto model = Checkpoint::open(path);
  for (const std::string& name : model->names()) model->tensor(name).dequantize();
  model->hash();
}

int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

class DamagedFiles : public testing::Test {
 protected:
  DamagedFiles() : json_(tiny_config()), before_(peak_memory_bytes()) {
    json_["num_hidden_layers"] = 1;
    tensors_ = tiny_tensors(json_);
  }
  /// A count in a header must not become an allocation: the files have a few kilobytes. (Sanitizers keep freed memory.)
  ~DamagedFiles() override {
#ifndef __SANITIZE_ADDRESS__
    EXPECT_LT(peak_memory_bytes() - before_, 100'000'000);
#endif
  }
  TemporaryFolder folder_;
  Json json_;
  TinyTensors tensors_;
  int64_t before_;
};

TEST_F(DamagedFiles, GgufModels) {
  const auto path = folder_ / "model.gguf";
  write_tiny_gguf(path, json_, tensors_);
  const size_t header = gguf_get_data_offset(GgufFile::open(path)->context());
  const Count count = damage(path, header, 1, [&] { read_model(path); });
  EXPECT_GT(count.refused, 2'000);
  EXPECT_GT(count.loaded, 50);  // names and values that mean nothing to the model
}

TEST_F(DamagedFiles, GgufKeysOfEveryType) {
  const auto path = folder_ / "container.gguf";
  std::filesystem::copy_file(std::filesystem::path(RETORT_GOLDEN) / "container.gguf", path);
  const size_t header = gguf_get_data_offset(GgufFile::open(path)->context());
  const Count count = damage(path, header, 1, [&] {
    const auto file = GgufFile::open(path);
    const auto read = [](const auto& what) {
      try {
        what();
      } catch (const Error&) {  // another type than the one asked for
      }
    };
    for (const std::string& key : file->keys()) {
      read([&] { file->texts(key); });
      read([&] { file->integers(key); });
      read([&] { file->real(key); });
    }
    for (const QuantizedTensor& tensor : file->tensors()) read([&] { tensor.dequantize(); });
  });
  EXPECT_GT(count.refused, 2'000);
}

TEST_F(DamagedFiles, SafetensorsFolders) {
  write_tiny_folder(folder_ / "hf", json_, tensors_);
  const auto path = folder_ / "hf" / "model.safetensors";
  uint64_t length = 0;
  std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(&length), sizeof length);
  const Count count = damage(path, 8 + length, 3, [&] { read_model(folder_ / "hf"); });
  EXPECT_GT(count.refused, 2'000);
}

TEST_F(DamagedFiles, ConfigJson) {
  write_tiny_folder(folder_ / "hf", json_, tensors_);
  const auto path = folder_ / "hf" / "config.json";
  const Count count = damage(path, std::filesystem::file_size(path), 2, [&] { read_model(folder_ / "hf"); });
  EXPECT_GT(count.refused, 2'000);
}

TEST_F(DamagedFiles, ShardIndex) {
  write_tiny_folder(folder_ / "hf", json_, tensors_);
  std::filesystem::rename(folder_ / "hf" / "model.safetensors", folder_ / "hf" / "part.safetensors");
  Json map = Json::object();
  for (const auto& [name, tensor] : tensors_) map[name] = "part.safetensors";
  const auto path = folder_ / "hf" / "model.safetensors.index.json";
  write_json(path, {{"weight_map", map}});
  const Count count = damage(path, std::filesystem::file_size(path), 5, [&] { read_model(folder_ / "hf"); });
  EXPECT_GT(count.refused, 2'000);
}

}  // namespace
}  // namespace retort
