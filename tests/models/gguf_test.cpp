// The GGUF container against files of the Python package gguf, and its typed accessors.
#include "models/gguf.h"

#include <ATen/ATen.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include "models/safetensors.h"
#include "tests/core/support.h"

namespace retort {
namespace {

const std::filesystem::path golden = RETORT_GOLDEN;

TEST(Gguf, ReadsEveryTypeOfKey) {
  const auto file = GgufFile::open(golden / "container.gguf");
  EXPECT_EQ(file->text("general.architecture"), "llama");
  EXPECT_EQ(file->integer("test.uint8"), 200);
  EXPECT_EQ(file->integer("test.int8"), -100);
  EXPECT_EQ(file->integer("test.uint16"), 60000);
  EXPECT_EQ(file->integer("test.int16"), -30000);
  EXPECT_EQ(file->integer("test.uint32"), 4000000000);
  EXPECT_EQ(file->integer("test.int32"), -2000000000);
  EXPECT_EQ(file->integer("test.uint64"), int64_t{1} << 60);
  EXPECT_EQ(file->integer("test.int64"), -(int64_t{1} << 60));
  EXPECT_EQ(file->real("test.float32"), 0.1F);
  EXPECT_EQ(file->real("test.float64"), 0.1);
  EXPECT_TRUE(file->boolean("test.bool"));
  EXPECT_EQ(file->text("test.string"), "naïve ▁");
  EXPECT_EQ(file->texts("test.strings"), (std::vector<std::string>{"a", "", "▁b"}));
  EXPECT_EQ(file->integers("test.integers"), (std::vector<int64_t>{3, -1, 2}));
  EXPECT_EQ(file->reals("test.floats"), (std::vector<float>{0.5F, -1.5F}));
  EXPECT_EQ(file->integer("test.none", 7), 7);
  EXPECT_EQ(file->text("test.none", "x"), "x");
  EXPECT_EQ(file->real("test.none", 0.5), 0.5);
  EXPECT_TRUE(file->boolean("test.none", true));
}

TEST(Gguf, NamesFileAndKeyWhenAKeyIsMissingOrOfAnotherType) {
  const auto file = GgufFile::open(golden / "container.gguf");
  const std::string name = file->path().string();
  const auto refuses = [&](const std::string& text, auto&& what) {
    expect_error(Exit::bad_input, {name + ": " + text}, what);
  };
  refuses("key \"test.none\" is missing", [&] { file->text("test.none"); });
  refuses("key \"test.int8\" is of type i8, expected string", [&] { file->text("test.int8"); });
  refuses("key \"test.string\" is of type str, expected an integer", [&] { file->integer("test.string"); });
  refuses("key \"test.float32\" is of type f32, expected an integer", [&] { file->integer("test.float32", 3); });
  refuses("key \"test.int8\" is of type i8, expected f32", [&] { file->real("test.int8"); });
  refuses("key \"test.int8\" is of type i8, expected bool", [&] { file->boolean("test.int8"); });
  refuses("key \"test.integers\" is of type array of i32, expected an integer",
          [&] { file->integer("test.integers"); });
  refuses("key \"test.integers\" is of type array of i32, expected array of str",
          [&] { file->texts("test.integers"); });
  refuses("key \"test.strings\" is of type array of str, expected array of integers",
          [&] { file->integers("test.strings"); });
  refuses("key \"test.floats\" is of type array of f32, expected array of integers",
          [&] { file->integers("test.floats"); });
  refuses("key \"test.integers\" is of type array of i32, expected array of f32",
          [&] { file->reals("test.integers"); });
}

TEST(Gguf, DequantizesAsTheNumpyImplementationOfEveryType) {
  const auto file = GgufFile::open(golden / "container.gguf");
  const auto expected = SafetensorsFile::open(golden / "container.safetensors");
  EXPECT_EQ(file->tensors().size(), expected->entries().size());
  EXPECT_EQ(file->tensors().size(), 26U);
  for (const QuantizedTensor& tensor : file->tensors()) {
    EXPECT_EQ(tensor.type_name(), tensor.name());
    EXPECT_EQ(tensor.shape(), (std::vector<int64_t>{2, 256}));
    const at::Tensor wanted = expected->tensor(tensor.name());
    // ggml contracts multiply and add; numpy does not.
    EXPECT_TRUE(at::allclose(tensor.dequantize(), wanted, 1e-5, 1e-6 * wanted.abs().max().item<double>()))
        << tensor.name();
  }
  EXPECT_EQ(file->find("Q4_0"), &file->tensors()[3]);
  EXPECT_EQ(file->find("none"), nullptr);
}

TEST(Gguf, WritesThePythonWritersBytes) {
  const auto file = GgufFile::open(golden / "container.gguf");
  TemporaryFolder folder;
  GgufWriter writer;
  writer.copy_metadata(*file);
  for (const QuantizedTensor& tensor : file->tensors())
    EXPECT_EQ(writer.add(tensor.name(), tensor.type(), tensor.shape()), tensor.bytes().size());
  writer.begin(folder / "copy.gguf");
  for (const QuantizedTensor& tensor : file->tensors()) writer.write(tensor.name(), tensor.bytes());
  EXPECT_FALSE(std::filesystem::exists(folder / "copy.gguf"));  // not before it is whole
  EXPECT_EQ(writer.commit(), file->size());
  EXPECT_EQ(read_text(folder / "copy.gguf"), read_text(golden / "container.gguf"));
}

TEST(Gguf, WritesEveryKindOfKeyAndOverridesCopiedOnes) {
  TemporaryFolder folder;
  GgufWriter writer;
  writer.copy_metadata(*GgufFile::open(golden / "container.gguf"));
  writer.set_text("test.string", "other");
  writer.set_u32("test.u32", 4000000000);
  writer.set_f32("test.f32", 0.25);
  writer.set_bool("test.bool", false);
  const std::vector<int32_t> integers = {5, -6};
  const std::vector<float> reals = {0.5F};
  writer.set_i32s("test.integers", integers);
  writer.set_f32s("test.floats", reals);
  writer.set_texts("test.strings", {"▁", "b"});
  writer.remove("test.int8");
  writer.begin(folder / "a.gguf");
  writer.commit();
  const auto file = GgufFile::open(folder / "a.gguf");
  EXPECT_EQ(file->text("test.string"), "other");
  EXPECT_EQ(file->integer("test.u32"), 4000000000);
  EXPECT_EQ(file->real("test.f32"), 0.25);
  EXPECT_FALSE(file->boolean("test.bool"));
  EXPECT_EQ(file->integers("test.integers"), (std::vector<int64_t>{5, -6}));
  EXPECT_EQ(file->reals("test.floats"), reals);
  EXPECT_EQ(file->texts("test.strings"), (std::vector<std::string>{"▁", "b"}));
  EXPECT_FALSE(file->has("test.int8"));
  EXPECT_EQ(file->integer("test.int16"), -30000);
}

TEST(Gguf, WriterRefusesTensorsOutOfOrderAndLeavesNothingBehind) {
  TemporaryFolder folder;
  const std::vector<uint8_t> bytes(16);
  {
    GgufWriter writer;
    const std::vector<int64_t> shape = {4};
    writer.add("a", GGML_TYPE_F32, shape);
    writer.add("b", GGML_TYPE_F32, shape);
    expect_error(Exit::internal, {"b added twice"}, [&] { writer.add("b", GGML_TYPE_F32, shape); });
    expect_error(Exit::bad_input, {"rows of 4 are not whole blocks of 32 (Q4_0)"},
                 [&] { writer.add("c", GGML_TYPE_Q4_0, shape); });
    expect_error(Exit::bad_input, {"has 64 bytes, allowed: 1 to 63"},
                 [&] { writer.add(std::string(64, 'x'), GGML_TYPE_F32, shape); });
    expect_error(Exit::internal, {"an empty GGUF key"}, [&] { writer.set_bool("", true); });
    expect_error(Exit::internal, {"NUL"}, [&] { writer.set_text("key", std::string("a\0b", 3)); });
    writer.begin(folder / "a.gguf");
    expect_error(Exit::internal, {"b (16 bytes) is not the one announced next"}, [&] { writer.write("b", bytes); });
    writer.write("a", bytes);
    expect_error(Exit::internal, {"1 of 2 tensors"}, [&] { writer.commit(); });
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Gguf, RefusesPartsOfASplitModel) {
  TemporaryFolder folder;
  GgufWriter writer;
  writer.set_u32("split.count", 3);
  writer.set_u32("split.no", 1);
  writer.begin(folder / "a.gguf");
  writer.commit();
  expect_error(Exit::bad_input, {"a.gguf: part 2 of 3 of a split model; join the parts first"},
               [&] { GgufFile::open(folder / "a.gguf"); });
}

TEST(Gguf, SaysWhereAFileIsCutShort) {
  TemporaryFolder folder;
  const std::string whole = read_text(golden / "container.gguf");
  const auto refuses = [&](size_t size, const std::string& part) {
    write_atomic(folder / "a.gguf", whole.substr(0, size));
    expect_error(Exit::bad_input, {(folder / "a.gguf").string(), part}, [&] { GgufFile::open(folder / "a.gguf"); });
  };
  refuses(0, "failed to read magic");
  refuses(100, "of 100)");
  refuses(whole.size() - 32, "tensor IQ4_XS: 272 bytes from byte 11584, but the file ends at byte 11840");
  write_atomic(folder / "a.gguf", "GGML" + whole.substr(4));
  expect_error(Exit::bad_input, {"invalid magic characters"}, [&] { GgufFile::open(folder / "a.gguf"); });
  expect_error(Exit::io, {"none.gguf"}, [&] { GgufFile::open(folder / "none.gguf"); });
}

}  // namespace
}  // namespace retort
