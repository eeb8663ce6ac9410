#include "models/bnb_state_dict.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/json.h"

namespace retort {
namespace {

constexpr const char* state_suffix = ".quant_state.bitsandbytes__";

/// Which dtype a state's words mean.
constexpr std::pair<const char*, at::ScalarType> dtype_names[] = {
    {"float32", at::kFloat}, {"bfloat16", at::kBFloat16}, {"float16", at::kHalf}};

template <typename T>
std::vector<T> values(const SafetensorsEntry& entry) {
  if (entry.type != c10::CppTypeToScalarType<T>::value)
    fail(Exit::bad_input, "tensor {}: {}, expected {}", entry.name, entry.dtype,
         c10::toString(c10::CppTypeToScalarType<T>::value));
  std::vector<T> out(entry.bytes.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), entry.bytes.data(), out.size() * sizeof(T));
  return out;
}

/// Finds and remembers the tensors of one weight.
struct Reader {
  const std::function<const SafetensorsEntry*(const std::string&)>& find;
  std::vector<std::string> names;

  const SafetensorsEntry* optional(const std::string& name) {
    const SafetensorsEntry* entry = find(name);
    if (entry) names.push_back(name);
    return entry;
  }
  const SafetensorsEntry& required(const std::string& name) {
    const SafetensorsEntry* entry = optional(name);
    if (!entry) fail(Exit::bad_input, "tensor {} is missing, but its weight is quantized by bitsandbytes", name);
    return *entry;
  }
};

void read_scales(const std::string& name, const Json& json, Reader& reader, BnbState& state) {
  const SafetensorsEntry& absmax = reader.required(name + ".absmax");
  const SafetensorsEntry* nested = reader.optional(name + ".nested_absmax");
  const std::string where = "tensor " + name + ": quant_state";
  if (!nested) {
    if (json.contains("nested_offset"))
      fail(Exit::bad_input, "tensor {}.nested_absmax is missing, but the state speaks of nested scales", name);
    state.absmax = values<float>(absmax);
    return;
  }
  state.nested = values<uint8_t>(absmax);
  state.absmax = values<float>(*nested);
  state.nested_map = values<float>(reader.required(name + ".nested_quant_map"));
  state.nested_block = json_get<int64_t>(json, "nested_blocksize", where);
  state.offset = static_cast<float>(json_get<double>(json, "nested_offset", where));
  if (state.nested.empty()) fail(Exit::bad_input, "tensor {}.absmax is empty", name);
}

QuantizedTensor read_4bit(const std::string& name, const std::string& kind, Reader& reader,
                          std::shared_ptr<const void> owner) {
  const SafetensorsEntry& codes = reader.required(name);
  const SafetensorsEntry& packed = reader.required(name + state_suffix + kind);
  const std::string where = "tensor " + packed.name;
  const Json json = parse_json({reinterpret_cast<const char*>(packed.bytes.data()), packed.bytes.size()}, where);
  auto state = std::make_shared<BnbState>();
  if (const auto type = json_get<std::string>(json, "quant_type", where); type != kind)
    fail(Exit::bad_input, "{}: its quant_type is \"{}\", its name says \"{}\"", where, type, kind);
  state->format = bnb_options(kind).format;
  state->block = json_get<int64_t>(json, "blocksize", where);
  const auto dtype = json_get<std::string>(json, "dtype", where);
  const auto known = std::find_if(std::begin(dtype_names), std::end(dtype_names),
                                  [&](const auto& entry) { return dtype == entry.first; });
  if (known == std::end(dtype_names))
    fail(Exit::bad_input, "{}: dtype \"{}\", allowed: float32, bfloat16, float16", where, dtype);
  state->dtype = known->second;
  std::vector<int64_t> shape;
  const Json sizes = json_get<Json>(json, "shape", where);
  if (!sizes.is_array()) fail(Exit::bad_input, "{}: shape is {}, expected an array", where, sizes.type_name());
  for (const Json& size : sizes) {
    if (!json_holds<int64_t>(size)) fail(Exit::bad_input, "{}: shape holds {}", where, size.dump().substr(0, 80));
    shape.push_back(size.get<int64_t>());
  }
  // bitsandbytes itself computes with its own table whatever the file says, so a file with another one lies.
  const std::vector<float> map = values<float>(reader.required(name + ".quant_map"));
  const std::array<float, 16>& table = bnb_table(state->format);
  if (map.size() != table.size())
    fail(Exit::bad_input, "tensor {}.quant_map: {} values, expected 16", name, map.size());
  for (size_t i = 0; i < table.size(); ++i)
    if (!(std::abs(map[i] - table[i]) < 1e-4f))
      fail(Exit::bad_input, "tensor {}.quant_map: value {} is {}, {} has {}", name, i, map[i], kind, table[i]);
  read_scales(name, json, reader, *state);
  return {name, std::move(state), std::move(shape), codes.bytes, std::move(owner)};
}

QuantizedTensor read_int8(const std::string& name, const std::string& module, const SafetensorsEntry& codes,
                          Reader& reader, std::shared_ptr<const void> owner) {
  reader.names.push_back(name);
  if (codes.shape.size() != 2)
    fail(Exit::bad_input, "tensor {}: int8 with {} dimensions, expected 2", name, codes.shape.size());
  auto state = std::make_shared<BnbState>();
  state->format = BnbFormat::int8_rows;
  state->block = codes.shape[1];
  state->dtype = at::kHalf;
  state->absmax = values<float>(reader.required(module + "SCB"));
  if (const SafetensorsEntry* format = reader.optional(module + "weight_format"))
    if (format->bytes.size() != 1 || format->bytes[0] != 0)
      fail(Exit::bad_input, "tensor {}: allowed: 0, rows one after another; bitsandbytes no longer reads the others",
           format->name);
  return {name, std::move(state), codes.shape, codes.bytes, std::move(owner)};
}

}  // namespace

std::optional<BnbStored> read_bnb(const std::string& name,
                                  const std::function<const SafetensorsEntry*(const std::string&)>& find,
                                  std::shared_ptr<const void> owner) {
  Reader reader{find, {}};
  for (const char* kind : {"nf4", "fp4"})
    if (find(name + state_suffix + kind)) {
      QuantizedTensor tensor = read_4bit(name, kind, reader, std::move(owner));
      return BnbStored{std::move(tensor), std::move(reader.names)};
    }
  const SafetensorsEntry* entry = find(name);
  if (!entry || entry->type != at::kChar || !name.ends_with(".weight")) return std::nullopt;
  const std::string module = name.substr(0, name.size() - std::strlen("weight"));
  QuantizedTensor tensor = read_int8(name, module, *entry, reader, std::move(owner));
  return BnbStored{std::move(tensor), std::move(reader.names)};
}

std::vector<std::pair<std::string, at::Tensor>> bnb_state_dict(const QuantizedTensor& tensor) {
  const BnbState& state = *tensor.bnb();
  const std::string& name = tensor.name();
  // A tensor over bytes that `tensor` keeps.
  const auto view = [&](const void* data, std::vector<int64_t> shape, at::ScalarType dtype) {
    return at::from_blob(
        const_cast<void*>(data), shape, [tensor](void*) {}, dtype);
  };
  const auto list = [&](const std::vector<float>& values) {
    return view(values.data(), {static_cast<int64_t>(values.size())}, at::kFloat);
  };
  const auto size = static_cast<int64_t>(tensor.bytes().size());
  if (state.format == BnbFormat::int8_rows) {
    const std::string module = name.substr(0, name.size() - std::strlen("weight"));
    return {{name, view(tensor.bytes().data(), tensor.shape(), at::kChar)},
            {module + "SCB", list(state.absmax)},
            {module + "weight_format", at::zeros({}, at::kByte)}};
  }
  if (state.format == BnbFormat::int8_blocks)
    fail(Exit::usage, "int8_blocks: bitsandbytes has no files of it; allowed: nf4, fp4, int8");
  const char* kind = state.format == BnbFormat::nf4 ? "nf4" : "fp4";
  const char* dtype = std::find_if(std::begin(dtype_names), std::end(dtype_names), [&](const auto& entry) {
                        return state.dtype == entry.second;
                      })->first;
  Json json = {{"quant_type", kind}, {"blocksize", state.block}, {"dtype", dtype}, {"shape", tensor.shape()}};
  std::vector<std::pair<std::string, at::Tensor>> all = {
      {name, view(tensor.bytes().data(), {size, 1}, at::kByte)},
      {name + ".quant_map",
       at::tensor(std::vector<float>(bnb_table(state.format).begin(), bnb_table(state.format).end()))}};
  if (state.is_double()) {
    json["nested_blocksize"] = state.nested_block;
    json["nested_dtype"] = "float32";
    json["nested_offset"] = state.offset;
    all.emplace_back(name + ".absmax",
                     view(state.nested.data(), {static_cast<int64_t>(state.nested.size())}, at::kByte));
    all.emplace_back(name + ".nested_absmax", list(state.absmax));
    all.emplace_back(name + ".nested_quant_map", list(state.nested_map));
  } else {
    all.emplace_back(name + ".absmax", list(state.absmax));
  }
  const std::string text = json.dump();
  all.emplace_back(name + state_suffix + kind, at::tensor(std::vector<uint8_t>(text.begin(), text.end()), at::kByte));
  return all;
}

}  // namespace retort
