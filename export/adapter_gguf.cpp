#include "export/adapter_gguf.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ggml.h>

#include <cmath>
#include <set>

#include "core/error.h"
#include "export/metadata.h"
#include "models/family.h"

namespace retort {
namespace {

struct Weight {
  std::string module;
  TensorSpec spec;
  bool embedding() const { return is_embedding(module); }
  /// Of what a product adds to: an embedding's transposed weight.
  int64_t rows() const { return spec.shape[embedding() ? 1 : 0]; }
  int64_t columns() const { return spec.shape[embedding() ? 0 : 1]; }
};

/// The weights that an adapter can change, in the model's order.
std::vector<Weight> weights_of(const ModelConfig& config) {
  std::vector<Weight> weights;
  for (TensorSpec& spec : family_of(config).tensors(config))
    if (spec.shape.size() == 2 && spec.name.ends_with(".weight"))
      weights.push_back({spec.name.substr(0, spec.name.size() - 7), std::move(spec)});
  return weights;
}

void check_is_lora(const GgufFile& file, const ModelConfig& config) {
  const auto expect = [&](const char* key, const std::string& wanted) {
    const std::string found = file.text(key, "");
    if (found != wanted)
      fail(Exit::bad_input, "{}: {} is \"{}\", expected \"{}\" for a LoRA adapter on this base", file.path().string(),
           key, found, wanted);
  };
  expect("general.type", "adapter");
  expect("adapter.type", "lora");
  expect("general.architecture", config.architecture);
  if (file.has("adapter.alora.invocation_tokens"))
    fail(Exit::bad_input, "{}: adapter.alora.invocation_tokens: activated LoRA is not supported", file.path().string());
}

/// The factor of a weight with `columns` columns, as a matrix: GGUF does not keep a first dimension of 1.
at::Tensor factor(const GgufFile& file, const std::string& name, int64_t columns) {
  const QuantizedTensor* stored = file.find(name);
  if (!stored) fail(Exit::bad_input, "{}: tensor {} is missing", file.path().string(), name);
  stored->check_holds_weights();
  const at::Tensor value = stored->dequantize(at::kFloat);
  if (columns < 1 || stored->columns() != columns || value.dim() > 2)
    fail(Exit::bad_input, "{}: tensor {} has shape [{}], expected [·, {}]", file.path().string(), name,
         fmt::join(stored->shape(), ", "), columns);
  if (!at::isfinite(value).all().item<bool>())
    fail(Exit::bad_input, "{}: tensor {} holds numbers that are not finite", file.path().string(), name);
  return value.view({-1, columns});
}

at::Tensor reordered(const at::Tensor& rows, const std::vector<int64_t>& order) {
  return order.empty() ? rows : rows.index_select(0, at::tensor(order));
}

Product read_product(const GgufFile& file, const Weight& weight, double alpha) {
  const std::string a_name = weight.spec.gguf + ".lora_a", b_name = weight.spec.gguf + ".lora_b";
  const QuantizedTensor* stored = file.find(b_name);
  if (!stored) fail(Exit::bad_input, "{}: tensor {} is missing", file.path().string(), b_name);
  const int64_t r = stored->columns();
  Product product;
  // An embedding is looked up by rows, so its A lies transposed.
  product.a = weight.embedding() ? factor(file, a_name, r).t().contiguous() : factor(file, a_name, weight.columns());
  product.b = factor(file, b_name, r);
  if (product.a.size(0) != r || product.a.size(1) != weight.columns() || product.b.size(0) != weight.rows())
    fail(Exit::bad_input, "{}: the product of {} and {} is [{}, {}] of rank {} and {}, the base's weight [{}, {}]",
         file.path().string(), b_name, a_name, product.b.size(0), product.a.size(1), r, product.a.size(0),
         weight.rows(), weight.columns());
  product.b = reordered(product.b, rows_to_hf(weight.spec));
  if (alpha > 0) product.scale = alpha / static_cast<double>(r);
  return product;
}

}  // namespace

ProductAdapter read_gguf_adapter(const std::filesystem::path& path, const ModelConfig& config) {
  const at::NoGradGuard no_grad;
  const auto file = GgufFile::open(path);
  check_is_lora(*file, config);
  const double alpha = file->real("adapter.lora.alpha", 0);
  if (!std::isfinite(alpha) || alpha < 0)
    fail(Exit::bad_input, "{}: adapter.lora.alpha is {}, allowed: 0 or more", path.string(), alpha);
  ProductAdapter adapter{path.string(), {}, {}, {}};
  adapter.origin.base = file->text("general.base_model.0.name", "");
  adapter.origin.base_hash = file->text("retort.base_hash", "");
  adapter.origin.data_hash = file->text("retort.data_hash", "");
  std::set<std::string> read;
  adapter.options.target_modules = {};
  for (const Weight& weight : weights_of(config)) {
    const std::string a = weight.spec.gguf + ".lora_a", b = weight.spec.gguf + ".lora_b";
    if (!file->find(a) && !file->find(b)) continue;
    adapter.modules[weight.module] = read_product(*file, weight, alpha);
    adapter.options.target_modules.names.push_back(weight.module);
    read.insert({a, b});
  }
  for (const QuantizedTensor& tensor : file->tensors())
    if (!read.contains(tensor.name()))
      fail(Exit::bad_input, "{}: tensor {} belongs to no weight of the base", path.string(), tensor.name());
  if (adapter.modules.empty()) fail(Exit::bad_input, "{}: holds no adapter", path.string());
  return adapter;
}

ExportedFile write_gguf_adapter(const std::filesystem::path& path, const ProductAdapter& adapter,
                                const ModelConfig& config, const Provenance& provenance) {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  std::set<std::string> without_form;
  for (const auto& [module, product] : adapter.modules) without_form.insert(module);
  for (const Weight& weight : weights_of(config)) {
    const auto found = adapter.modules.find(weight.module);
    // A tied embedding's adapter would change the head too.
    if (found == adapter.modules.end() || (config.tied && weight.embedding())) continue;
    without_form.erase(weight.module);
    const Product& product = found->second;
    if (product.a.size(1) != weight.columns() || product.b.size(0) != weight.rows())
      fail(Exit::bad_input, "{}: {} changes a weight [{}, {}], the base's is [{}, {}]; it was trained on another base",
           adapter.name, weight.module, product.b.size(0), product.a.size(1), weight.rows(), weight.columns());
    const at::Tensor b = reordered(product.b * product.scale, rows_to_gguf(weight.spec));
    if (!at::isfinite(b).all().item<bool>() || !at::isfinite(product.a).all().item<bool>())
      fail(Exit::bad_input, "{}: the adapter's numbers are not finite", weight.module);
    tensors.emplace_back(weight.spec.gguf + ".lora_a", (weight.embedding() ? product.a.t() : product.a).contiguous());
    tensors.emplace_back(weight.spec.gguf + ".lora_b", b.contiguous());
  }
  if (!without_form.empty())  // a tied head has no tensor of its own
    fail(Exit::usage,
         "gguf_adapter: llama.cpp has no form for an adapter on {} of this base; export a merged gguf instead",
         *without_form.begin());
  if (tensors.empty()) fail(Exit::internal, "{}: there is no adapter to export", path.string());

  GgufWriter writer;
  set_adapter_metadata(writer, config, provenance);
  for (const auto& [name, tensor] : tensors) writer.add(name, GGML_TYPE_F32, tensor.sizes());
  writer.begin(path);
  for (const auto& [name, tensor] : tensors)
    writer.write(name, {static_cast<const uint8_t*>(tensor.const_data_ptr()), tensor.nbytes()});
  const auto bytes = static_cast<int64_t>(writer.commit());
  return {path, "gguf_adapter", "F32", bytes, 32};
}

}  // namespace retort
