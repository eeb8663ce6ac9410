// safetensors against files of the reference writer, and against files that contradict themselves.
#include "models/safetensors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "core/files.h"
#include "core/json.h"
#include "tests/core/support.h"

namespace retort {
namespace {

const std::filesystem::path golden = RETORT_GOLDEN;

TEST(Safetensors, ReadsEveryDtypeOfTheReferenceWriter) {
  const auto file = SafetensorsFile::open(golden / "dtypes.safetensors");
  EXPECT_EQ(file->metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(file->entries().size(), 18U);
  const std::vector<std::pair<const char*, at::ScalarType>> expected = {{"bool", at::kBool},
                                                                        {"uint8", at::kByte},
                                                                        {"int8", at::kChar},
                                                                        {"float8_e5m2", at::kFloat8_e5m2},
                                                                        {"float8_e4m3fn", at::kFloat8_e4m3fn},
                                                                        {"int16", at::kShort},
                                                                        {"uint16", at::kUInt16},
                                                                        {"float16", at::kHalf},
                                                                        {"bfloat16", at::kBFloat16},
                                                                        {"int32", at::kInt},
                                                                        {"uint32", at::kUInt32},
                                                                        {"float32", at::kFloat},
                                                                        {"float64", at::kDouble},
                                                                        {"int64", at::kLong},
                                                                        {"uint64", at::kUInt64}};
  for (const auto& [name, type] : expected) {
    const at::Tensor tensor = file->tensor(name);
    EXPECT_EQ(tensor.scalar_type(), type) << name;
    at::Tensor count = at::arange(6).reshape({2, 3});
    if (type == at::kBool) count = count.clamp_max(1);
    EXPECT_TRUE(at::equal(tensor.to(at::kDouble), count.to(at::kDouble))) << name;
  }
  EXPECT_EQ(file->tensor("a_scalar").dim(), 0);
  EXPECT_EQ(file->tensor("a_scalar").item<float>(), 1.5F);
  EXPECT_EQ(file->tensor("an_empty_one").sizes(), (std::vector<int64_t>{0, 4}));
  EXPECT_EQ(file->tensor("a \"name\" ▁").item<float>(), 1.0F);
}

TEST(Safetensors, WritesTheReferenceWritersBytes) {
  const auto file = SafetensorsFile::open(golden / "dtypes.safetensors");
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const SafetensorsEntry& entry : file->entries()) tensors.emplace_back(entry.name, file->tensor(entry.name));
  std::reverse(tensors.begin(), tensors.end());  // the writer sorts
  TemporaryFolder folder;
  write_safetensors(folder / "copy.safetensors", tensors, file->metadata());
  EXPECT_EQ(read_text(folder / "copy.safetensors"), read_text(golden / "dtypes.safetensors"));
}

TEST(Safetensors, WritesStridedTensorsAndNone) {
  TemporaryFolder folder;
  const at::Tensor matrix = at::randn({4, 6});
  write_safetensors(folder / "a.safetensors", {{"t", matrix.t()}, {"part", matrix.narrow(1, 2, 3)}});
  const auto file = SafetensorsFile::open(folder / "a.safetensors");
  EXPECT_TRUE(at::equal(file->tensor("t"), matrix.t()));
  EXPECT_TRUE(at::equal(file->tensor("part"), matrix.narrow(1, 2, 3)));
  write_safetensors(folder / "b.safetensors", {}, {});
  EXPECT_TRUE(SafetensorsFile::open(folder / "b.safetensors")->entries().empty());
}

TEST(Safetensors, TensorsOutliveTheFileObject) {
  at::Tensor tensor;
  {
    TemporaryFolder folder;
    write_safetensors(folder / "a.safetensors", {{"w", at::arange(1000)}});
    tensor = SafetensorsFile::open(folder / "a.safetensors")->tensor("w");
  }
  EXPECT_TRUE(at::equal(tensor, at::arange(1000)));
}

/// A file with this header text and so many bytes of data, each 1.
std::filesystem::path file_with(const TemporaryFolder& folder, const std::string& header, size_t data) {
  const auto path = folder / "x.safetensors";
  const uint64_t length = header.size();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), sizeof length);
  out << header << std::string(data, '\1');
  return path;
}

TEST(Safetensors, CopiesUnalignedTensors) {
  TemporaryFolder folder;
  const auto path = file_with(folder,
                              R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                              R"("w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
                              9);
  const auto file = SafetensorsFile::open(path);
  const at::Tensor tensor = file->tensor("w");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % sizeof(float), 0U);
  EXPECT_EQ(std::memcmp(tensor.const_data_ptr(), file->find("w")->bytes.data(), 8), 0);
}

TEST(Safetensors, RefusesWhatContradictsItself) {
  TemporaryFolder folder;
  const auto refuses = [&](const std::string& header, size_t data, const std::string& part) {
    SCOPED_TRACE(header);
    const auto path = file_with(folder, header, data);
    expect_error(Exit::bad_input, {path.string(), part}, [&] { SafetensorsFile::open(path); });
  };
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  refuses("[]", 0, "the header is no JSON object");
  refuses("{", 0, "not valid JSON");
  refuses(R"({"w":1})", 0, "tensor \"w\": 1, expected an object");
  refuses(R"({"w":{"dtype":"F32","shape":[1]}})", 4, "tensor \"w\": key \"data_offsets\" is missing");
  refuses(one("\"F31\"", "[1]", "[0,4]"), 4, "tensor \"w\": dtype \"F31\", allowed: BOOL, U8");
  refuses(one("7", "[1]", "[0,4]"), 4, "tensor \"w\": dtype 7, allowed");
  refuses(one("\"F32\"", "[-1]", "[0,4]"), 4, "\"shape\" holds -1, expected an integer from 0");
  refuses(one("\"F32\"", "[1.5]", "[0,4]"), 4, "\"shape\" holds 1.5, expected an integer from 0");
  refuses(one("\"F32\"", "1", "[0,4]"), 4, "\"shape\" is 1, expected an array");
  refuses(one("\"F32\"", "[4294967296,4294967296]", "[0,4]"), 4, "shape [4294967296, 4294967296] is impossible");
  refuses(one("\"F32\"", "[4611686018427387904]", "[0,4]"), 4, "is impossible");
  refuses(one("\"F32\"", "[2]", "[0,4]"), 4, "4 bytes, but shape [2] in F32 takes 8");
  refuses(one("\"F32\"", "[1]", "[4,0]"), 4, "data_offsets [4, 0], expected a begin and an end");
  refuses(one("\"F32\"", "[1]", "[0]"), 4, "data_offsets [0], expected a begin and an end");
  refuses(one("\"F32\"", "[1]", "[0,4]"), 3, "ends at byte 4 of 3 bytes of data");
  refuses(one("\"F32\"", "[1]", "[0,4]"), 5, "5 bytes of data, but the tensors end at byte 4");
  refuses(one("\"F32\"", "[1]", "[1,5]"), 5, "begins at byte 1 of the data, expected 0: a gap");
  refuses(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
      6, "begins at byte 2 of the data, expected 4: it overlaps");
  refuses(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2,
      "twice");
  refuses(R"({"__metadata__":{"format":1}})", 0, "key \"format\" is 1, expected a string");
}

TEST(Safetensors, RefusesImpossibleHeaderLengths) {
  TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  const auto refuses = [&](const std::string& bytes, const std::string& part) {
    write_atomic(path, bytes);
    expect_error(Exit::bad_input, {path.string(), part}, [&] { SafetensorsFile::open(path); });
  };
  refuses("", "0 bytes, a safetensors file has at least 8");
  refuses("1234567", "7 bytes, a safetensors file has at least 8");
  refuses(std::string("\x03\0\0\0\0\0\0\0{}", 10), "the header claims 3 bytes, allowed: 2");
  refuses(std::string(8, '\xff'), "the header claims 18446744073709551615 bytes, allowed: 0");
  // 200 MB of sparse file, of which the header claims 100,000,001 bytes.
  write_atomic(path, std::string("\x01\xe1\xf5\x05\0\0\0\0", 8));
  std::filesystem::resize_file(path, 200'000'000);
  expect_error(Exit::bad_input, {"the header claims 100000001 bytes, allowed: 100000000"},
               [&] { SafetensorsFile::open(path); });
  expect_error(Exit::io, {"missing.safetensors"}, [&] { SafetensorsFile::open(folder / "missing.safetensors"); });
}

}  // namespace
}  // namespace retort
