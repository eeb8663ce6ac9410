#include "models/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "core/json.h"

namespace retort {
namespace {

struct Dtype {
  const char* name;
  at::ScalarType type;
};

// In the reference's order (huggingface/safetensors tensor.rs, enum Dtype), which is also the order of writing,
// reversed.
constexpr Dtype dtypes[] = {
    {"BOOL", at::kBool},
    {"U8", at::kByte},
    {"I8", at::kChar},
    {"F8_E5M2", at::kFloat8_e5m2},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"I16", at::kShort},
    {"U16", at::kUInt16},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"I32", at::kInt},
    {"U32", at::kUInt32},
    {"F32", at::kFloat},
    {"F64", at::kDouble},
    {"I64", at::kLong},
    {"U64", at::kUInt64},
};

constexpr uint64_t header_limit = 100'000'000;

/// Where an entry of the header comes from, for messages.
struct Place {
  const std::string& file;
  const std::string& tensor;
  template <typename... A>
  [[noreturn]] void refuse(fmt::format_string<A...> format, A&&... arguments) const {
    fail(Exit::bad_input, "{}: tensor \"{}\": {}", file, tensor, fmt::format(format, std::forward<A>(arguments)...));
  }
};

const Json& member(const Json& entry, const char* key, const Place& place) {
  auto it = entry.find(key);
  if (it == entry.end()) place.refuse("key \"{}\" is missing", key);
  return *it;
}

/// An array of integers from 0 to 2^63 - 1.
std::vector<int64_t> sizes(const Json& list, const char* key, const Place& place) {
  if (!list.is_array()) place.refuse("\"{}\" is {}, expected an array", key, list.dump().substr(0, 80));
  std::vector<int64_t> values;
  for (const Json& item : list) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > INT64_MAX)
      place.refuse("\"{}\" holds {}, expected an integer from 0", key, item.dump().substr(0, 80));
    values.push_back(item.get<int64_t>());
  }
  return values;
}

SafetensorsEntry read_entry(const std::string& name, const Json& json, std::span<const uint8_t> data,
                            const Place& place) {
  if (!json.is_object()) place.refuse("{}, expected an object", json.dump().substr(0, 80));
  const Json& dtype = member(json, "dtype", place);
  auto known = std::find_if(std::begin(dtypes), std::end(dtypes), [&](const Dtype& d) { return dtype == d.name; });
  if (known == std::end(dtypes)) {
    std::vector<const char*> names;
    for (const Dtype& d : dtypes) names.push_back(d.name);
    place.refuse("dtype {}, allowed: {}", dtype.dump().substr(0, 80), fmt::join(names, ", "));
  }
  SafetensorsEntry entry{name, known->name, known->type, sizes(member(json, "shape", place), "shape", place), {}};
  uint64_t expected = c10::elementSize(known->type);
  for (int64_t size : entry.shape)
    if (__builtin_mul_overflow(expected, static_cast<uint64_t>(size), &expected) || expected > INT64_MAX)
      place.refuse("shape [{}] is impossible", fmt::join(entry.shape, ", "));
  const auto range = sizes(member(json, "data_offsets", place), "data_offsets", place);
  if (range.size() != 2 || range[0] > range[1])
    place.refuse("data_offsets [{}], expected a begin and an end", fmt::join(range, ", "));
  const auto begin = static_cast<uint64_t>(range[0]), end = static_cast<uint64_t>(range[1]);
  if (end > data.size()) place.refuse("ends at byte {} of {} bytes of data (cut short?)", end, data.size());
  if (end - begin != expected)
    place.refuse("{} bytes, but shape [{}] in {} takes {}", end - begin, fmt::join(entry.shape, ", "), entry.dtype,
                 expected);
  entry.bytes = data.subspan(begin, end - begin);
  return entry;
}

}  // namespace

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->file_ = MappedFile::open(path);
  const auto bytes = file->file_->bytes();
  const std::string where = path.string();
  uint64_t length = 0;
  if (bytes.size() < sizeof length)
    fail(Exit::bad_input, "{}: {} bytes, a safetensors file has at least 8", where, bytes.size());
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > header_limit || length > bytes.size() - sizeof length)
    fail(Exit::bad_input, "{}: the header claims {} bytes, allowed: {}", where, length,
         std::min<uint64_t>(header_limit, bytes.size() - sizeof length));
  const auto data = bytes.subspan(sizeof length + length);
  const Json header = parse_json({reinterpret_cast<const char*>(bytes.data()) + sizeof length, length}, where);
  if (!header.is_object()) fail(Exit::bad_input, "{}: the header is no JSON object", where);

  for (const auto& [name, json] : header.items()) {
    const Place place{where, name};
    if (name == "__metadata__") {
      if (!json.is_object()) place.refuse("expected an object of strings");
      for (const auto& [key, value] : json.items()) {
        if (!value.is_string()) place.refuse("key \"{}\" is {}, expected a string", key, value.dump().substr(0, 80));
        file->metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    file->entries_.push_back(read_entry(name, json, data, place));
  }
  // By begin, then end, so that empty tensors come before the one that starts at the same byte.
  std::stable_sort(file->entries_.begin(), file->entries_.end(), [](const auto& a, const auto& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  uint64_t end = 0;
  for (size_t i = 0; i < file->entries_.size(); ++i) {
    const SafetensorsEntry& entry = file->entries_[i];
    const auto begin = static_cast<uint64_t>(entry.bytes.data() - data.data());
    if (begin != end)
      Place{where, entry.name}.refuse("begins at byte {} of the data, expected {}: {}", begin, end,
                                      begin < end ? "it overlaps the tensor before it" : "a gap");
    end = begin + entry.bytes.size();
    if (!file->index_.emplace(entry.name, i).second) Place{where, entry.name}.refuse("is there twice");
  }
  if (end != data.size())
    fail(Exit::bad_input, "{}: {} bytes of data, but the tensors end at byte {}", where, data.size(), end);
  return file;
}

const SafetensorsEntry* SafetensorsFile::find(const std::string& name) const {
  auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const SafetensorsEntry* entry = find(name);
  if (!entry) fail(Exit::bad_input, "{}: tensor \"{}\" is missing", path().string(), name);
  const auto options = at::TensorOptions().dtype(entry->type);
  if (entry->bytes.empty()) return at::empty(entry->shape, options);
  auto* data = const_cast<uint8_t*>(entry->bytes.data());
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(entry->type) == 0)
    return at::from_blob(
        data, entry->shape, [owner = file_](void*) {}, options);
  at::Tensor copy = at::empty(entry->shape, options);
  std::memcpy(copy.data_ptr(), data, entry->bytes.size());
  return copy;
}

at::Tensor SafetensorsFile::weights(const std::string& name) const {
  at::Tensor value = tensor(name);
  if (!at::isFloatingType(value.scalar_type()) || value.element_size() < 2)
    fail(Exit::bad_input, "{}: tensor {} is of type {}, allowed: F64, F32, F16, BF16", path().string(), name,
         find(name)->dtype);
  if (!at::isfinite(value).all().item<bool>())
    fail(Exit::bad_input, "{}: tensor {} holds numbers that are not finite", path().string(), name);
  return value;
}

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const auto rank = [](at::ScalarType type) {
    auto it = std::find_if(std::begin(dtypes), std::end(dtypes), [&](const Dtype& d) { return d.type == type; });
    if (it == std::end(dtypes)) fail(Exit::internal, "safetensors cannot hold {}", c10::toString(type));
    return it - std::begin(dtypes);
  };
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto rank_a = rank(tensors[a].second.scalar_type()), rank_b = rank(tensors[b].second.scalar_type());
    return rank_a != rank_b ? rank_a > rank_b : tensors[a].first < tensors[b].first;
  });

  // Put together by hand: a look-up in an ordered JSON object is linear.
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + Json(metadata).dump() + ",";
  uint64_t offset = 0;
  for (size_t i : order) {
    const auto& [name, tensor] = tensors[i];
    const uint64_t end = offset + static_cast<uint64_t>(tensor.numel()) * tensor.element_size();
    const Json entry = {{"dtype", dtypes[rank(tensor.scalar_type())].name},
                        {"shape", tensor.sizes().vec()},
                        {"data_offsets", {offset, end}}};
    text += Json(name).dump() + ":" + entry.dump() + ",";
    offset = end;
  }
  if (text.back() == ',') text.pop_back();
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();

  AtomicFile file(path);
  file.write(std::span(reinterpret_cast<const uint8_t*>(&length), sizeof length));
  file.write(text);
  for (size_t i : order) {
    const at::Tensor tensor = tensors[i].second.detach().cpu().contiguous();
    file.write(std::span(static_cast<const uint8_t*>(tensor.data_ptr()), tensor.nbytes()));
  }
  file.commit();
}

}  // namespace retort
