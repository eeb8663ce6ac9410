// retort inspect: what is in a file or folder, from its own headers: keys, tensors, types, sizes.
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>

#include "cli/command.h"
#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/sources.h"
#include "data/hdf5_contents.h"
#include "distill/logit_cache.h"
#include "models/checkpoint.h"
#include "models/family.h"
#include "models/gguf.h"
#include "models/safetensors.h"
#include "models/weight_error.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

constexpr size_t shown_elements = 8;

/// What every format comes down to; `metadata` is an object, `tensors` a list of {name, type, shape, bytes}.
Json contents_of(const char* format, const fs::path& path, uint64_t bytes, Json metadata, Json tensors) {
  return {{"format", format},
          {"path", path.string()},
          {"bytes", bytes},
          {"metadata", std::move(metadata)},
          {"tensors", std::move(tensors)}};
}

Json tensor_json(const std::string& name, const std::string& type, const std::vector<int64_t>& shape, uint64_t bytes) {
  return {{"name", name}, {"type", type}, {"shape", shape}, {"bytes", bytes}};
}

template <typename T>
Json array_json(const char* type, const std::vector<T>& values, bool full) {
  if (full || values.size() <= shown_elements) return values;
  return {{"type", type},
          {"count", values.size()},
          {"first", std::vector<T>(values.begin(), values.begin() + shown_elements)}};
}

Json gguf_value(const GgufFile& file, const std::string& key, bool full) {
  const int64_t id = gguf_find_key(file.context(), key.c_str());
  gguf_type type = gguf_get_kv_type(file.context(), id);
  if (type == GGUF_TYPE_STRING) return file.text(key);
  if (type == GGUF_TYPE_BOOL) return file.boolean(key);
  if (type == GGUF_TYPE_FLOAT32 || type == GGUF_TYPE_FLOAT64) return file.real(key);
  if (type != GGUF_TYPE_ARRAY) return file.integer(key);
  type = gguf_get_arr_type(file.context(), id);
  if (type == GGUF_TYPE_STRING) return array_json("strings", file.texts(key), full);
  if (type == GGUF_TYPE_FLOAT32) return array_json("floats", file.reals(key), full);
  if (type == GGUF_TYPE_BOOL || type == GGUF_TYPE_FLOAT64)
    return {{"type", gguf_type_name(type)}, {"count", gguf_get_arr_n(file.context(), id)}};
  return array_json("integers", file.integers(key), full);
}

/// Whether Retort can train on it; the reason when it cannot.
void add_verdict(Json& contents, const fs::path& path) {
  try {
    const auto model = Checkpoint::open(path);
    contents["base_model"] = {{"usable", true}, {"family", model->config().family}};
  } catch (const Error& error) {
    contents["base_model"] = {{"usable", false}, {"reason", error.what()}};
  }
}

Json inspect_gguf(const fs::path& path, bool full) {
  const auto file = GgufFile::open(path);
  Json metadata = Json::object(), tensors = Json::array();
  for (const std::string& key : file->keys()) metadata[key] = gguf_value(*file, key, full);
  for (const QuantizedTensor& t : file->tensors())
    tensors.push_back(tensor_json(t.name(), t.type_name(), t.shape(), t.bytes().size()));
  Json contents = contents_of("gguf", path, file->size(), std::move(metadata), std::move(tensors));
  if (!file->has("general.type") || file->text("general.type") == "model") add_verdict(contents, path);
  return contents;
}

Json safetensors_json(const SafetensorsFile& file) {
  Json tensors = Json::array();
  for (const SafetensorsEntry& e : file.entries())
    tensors.push_back(tensor_json(e.name, e.dtype, e.shape, e.bytes.size()));
  return tensors;
}

Json inspect_safetensors(const fs::path& path) {
  const auto file = SafetensorsFile::open(path);
  return contents_of("safetensors", path, file->size(), file->metadata(), safetensors_json(*file));
}

/// A folder with a JSON description and safetensors files beside it: a model or a PEFT adapter.
Json inspect_folder(const fs::path& folder) {
  const bool adapter = fs::exists(folder / "adapter_config.json");
  const fs::path description = folder / (adapter ? "adapter_config.json" : "config.json");
  if (!fs::exists(description))
    fail(Exit::bad_input,
         "{}: a folder is a model (config.json), a PEFT adapter (adapter_config.json) or a cache of a teacher's logits "
         "(manifest-*.json); it has none of them",
         folder.string());
  Json metadata = read_json(description);
  if (!metadata.is_object()) fail(Exit::bad_input, "{}: expected an object", description.string());
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (files.empty()) fail(Exit::bad_input, "{}: holds no safetensors file", folder.string());
  Json tensors = Json::array();
  uint64_t bytes = 0;
  for (const fs::path& path : files) {
    const auto file = SafetensorsFile::open(path);
    bytes += file->size();
    for (Json& tensor : safetensors_json(*file)) tensors.push_back(std::move(tensor));
  }
  Json contents =
      contents_of(adapter ? "peft" : "hugging face", folder, bytes, std::move(metadata), std::move(tensors));
  if (!adapter) add_verdict(contents, folder);
  return contents;
}

Json inspect_hdf5(const fs::path& path) {
  const Hdf5Contents file = hdf5_contents(path);
  Json arrays = Json::array();
  for (const Hdf5Array& a : file.arrays)
    arrays.push_back(tensor_json(a.name, a.type, a.shape, static_cast<uint64_t>(a.stored_bytes)));
  return contents_of("hdf5", path, fs::file_size(path), file.attributes, std::move(arrays));
}

/// A teacher's logits: a folder's tensors are its shards, each with its number of positions.
Json inspect_cache(const fs::path& path) {
  const Json described = describe_cache(path);
  const Json& parts = described["parts"];
  Json metadata = Json::object();  // flat, so that a line shows each value whole
  for (const auto& [key, value] : described.items()) {
    if (value.is_object())
      for (const auto& [inner, one] : value.items()) metadata[key + "." + inner] = one;
    else if (key != "parts")
      metadata[key] = value;
  }
  uint64_t bytes = 0;
  for (const Json& part : parts) bytes += part["bytes"].get<uint64_t>();
  return contents_of("logit cache", path, bytes, std::move(metadata), parts);
}

/// By what the file begins with: names tell nothing in a content-addressed cache.
Json inspect(const fs::path& path, bool full) {
  if (is_cache(path)) return inspect_cache(path);
  if (fs::is_directory(path)) return inspect_folder(path);
  const auto file = MappedFile::open(path);
  const auto begins = [&](size_t at, std::string_view magic) {
    const auto bytes = file->bytes();
    return bytes.size() >= at + magic.size() && std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
  };
  if (begins(0, "GGUF")) return inspect_gguf(path, full);
  if (begins(0, "\x89HDF") || begins(0, "RETORT-HDF5")) return inspect_hdf5(path);
  if (begins(8, "{") || path.extension() == ".safetensors") return inspect_safetensors(path);
  fail(Exit::bad_input, "{}: neither GGUF, safetensors nor HDF5 by its first bytes", path.string());
}

/// Adds to each of the model's tensors how far it is from the same one of `original`.
void add_errors(Json& contents, const fs::path& path, const std::string& original) {
  const auto made = Checkpoint::open(path), base = Checkpoint::open(pull({.uri = original, .sha256 = "", .name = ""}));
  std::map<std::string, std::string> own_names;  // of GGUF
  if (made->is_gguf()) {
    own_names["lm_head.weight"] = "output.weight";
    for (const TensorSpec& spec : family_of(made->config()).tensors(made->config())) own_names[spec.name] = spec.gguf;
  }
  std::map<std::string, WeightError> errors;
  Squares all;
  for (WeightError& error : weight_errors(*base, *made)) {
    all.difference += error.squares.difference;
    all.size += error.squares.size;
    const auto own = own_names.find(error.name);
    errors.emplace(own == own_names.end() ? error.name : own->second, std::move(error));
  }
  for (Json& tensor : contents["tensors"]) {
    const auto error = errors.find(tensor["name"].get<std::string>());
    if (error == errors.end()) continue;
    tensor["relative_error"] = error->second.squares.relative();
    tensor["largest_error"] = error->second.largest;
  }
  contents["against"] = original;
  contents["relative_error"] = all.relative();
}

struct Total {
  int64_t tensors = 0, elements = 0;
  uint64_t bytes = 0;
  double bits() const { return elements ? 8.0 * static_cast<double>(bytes) / static_cast<double>(elements) : 0; }
  Json to_json(const std::string& type) const {
    return {
        {"type", type}, {"tensors", tensors}, {"elements", elements}, {"bytes", bytes}, {"bits_per_weight", bits()}};
  }
};

void add_totals(Json& contents) {
  std::map<std::string, Total> by_type;
  Total all;
  for (Json& tensor : contents["tensors"]) {
    Total one{1, 1, tensor["bytes"].get<uint64_t>()};
    for (const Json& size : tensor["shape"]) one.elements *= size.get<int64_t>();
    tensor["bits_per_weight"] = one.bits();
    for (Total* total : {&all, &by_type[tensor["type"].get<std::string>()]}) {
      total->tensors += 1;
      total->elements += one.elements;
      total->bytes += one.bytes;
    }
  }
  Json types = Json::array();
  for (const auto& [type, total] : by_type) types.push_back(total.to_json(type));
  contents["by_type"] = std::move(types);
  contents["total"] = all.to_json("all");
}

std::string dump(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string shown(const Json& value) {
  std::string text;
  if (value.is_object() && value.contains("count")) {
    text = fmt::format("{} {}", value["count"].get<size_t>(), value["type"].get<std::string>());
    if (value.contains("first")) text += ": " + dump(value["first"]) + " …";
  } else {
    text = dump(value);
  }
  constexpr size_t limit = 100;
  if (text.size() <= limit) return text;
  size_t end = limit;
  while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // not inside a character
  return text.substr(0, end) + fmt::format("… ({} bytes)", text.size());
}

void print_total(const std::string& name, const Json& total) {
  fmt::print("  {:<10} {:>6} tensors {:>14} elements {:>10} {:>8.3f} bits each\n", name,
             total["tensors"].get<int64_t>(), total["elements"].get<int64_t>(),
             format_bytes(total["bytes"].get<uint64_t>()), total["bits_per_weight"].get<double>());
}

std::string error_of(const Json& tensor) {
  if (!tensor.contains("relative_error")) return "";
  return fmt::format("  error {:.5f}, at most {:.2e}", tensor["relative_error"].get<double>(),
                     tensor["largest_error"].get<double>());
}

void print_text(const Json& contents) {
  fmt::print("{}: {}, {}\n", contents["path"].get<std::string>(), contents["format"].get<std::string>(),
             format_bytes(contents["bytes"].get<uint64_t>()));
  if (contents.contains("base_model")) {
    const Json& verdict = contents["base_model"];
    if (verdict["usable"])
      fmt::print("usable as a base model: yes, family {}\n", verdict["family"].get<std::string>());
    else
      fmt::print("usable as a base model: no: {}\n", verdict["reason"].get<std::string>());
  }
  fmt::print("\nmetadata\n");
  for (const auto& [key, value] : contents["metadata"].items()) fmt::print("  {:<44} {}\n", key, shown(value));
  fmt::print("\ntensors\n");
  for (const Json& t : contents["tensors"])
    fmt::print("  {:<56} {:<9} {:<20} {:>7.3f} bits each {:>10}{}\n", t["name"].get<std::string>(),
               t["type"].get<std::string>(), dump(t["shape"]), t["bits_per_weight"].get<double>(),
               format_bytes(t["bytes"].get<uint64_t>()), error_of(t));
  fmt::print("\nby type\n");
  for (const Json& total : contents["by_type"]) print_total(total["type"].get<std::string>(), total);
  print_total("all", contents["total"]);
  if (contents.contains("against"))
    fmt::print("\nrelative error {:.5f} against {}\n", contents["relative_error"].get<double>(),
               contents["against"].get<std::string>());
}

std::function<int()> setup(CLI::App& app) {
  struct Arguments {
    fs::path path;
    std::string against;
    bool json = false, full = false;
  };
  auto arguments = std::make_shared<Arguments>();
  app.add_option("path", arguments->path,
                 "a GGUF, safetensors or HDF5 file, a model's folder, a PEFT folder or a cache of logits")
      ->required();
  app.add_option("--against", arguments->against,
                 "the model that this one was made of (a path or a source): adds each tensor's error")
      ->type_name("MODEL");
  app.add_flag("--json", arguments->json, "print JSON");
  app.add_flag("--full", arguments->full, "show arrays whole, such as a vocabulary's tokens");
  return [arguments] {
    Json contents = inspect(arguments->path, arguments->full);
    add_totals(contents);
    if (!arguments->against.empty()) add_errors(contents, arguments->path, arguments->against);
    if (arguments->json)
      fmt::print("{}\n", dump(contents, 2));
    else
      print_text(contents);
    return 0;
  };
}

}  // namespace

extern const Command command_inspect;
const Command command_inspect = {"inspect", "Show what a model, adapter or data file holds, from its own headers.",
                                 "  retort inspect model.gguf\n"
                                 "  retort inspect model-Q4_K_M.gguf --against model-F32.gguf\n"
                                 "  retort inspect runs/foldoc-categories/latest/adapter\n"
                                 "  retort inspect model.safetensors --json\n"
                                 "  retort inspect runs/teacher-cache\n",
                                 setup};

}  // namespace retort
