#include "adapters/products.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <set>

#include "adapters/match.h"
#include "core/error.h"
#include "models/safetensors.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view prefix = "base_model.model.";

/// How PEFT names the two factors of a module.
struct FactorNames {
  std::string a, b;
  explicit FactorNames(const std::string& module) {
    const std::string before = std::string(prefix) + module;
    a = before + (is_embedding(module) ? ".lora_embedding_A" : ".lora_A.weight");
    b = before + (is_embedding(module) ? ".lora_embedding_B" : ".lora_B.weight");
  }
};

at::Tensor read_factor(const SafetensorsFile& file, const std::string& name, const std::string& partner) {
  const std::string where = file.path().string();
  const SafetensorsEntry* entry = file.find(name);
  if (!entry) fail(Exit::bad_input, "{}: tensor {} is missing, though there is {}", where, name, partner);
  if (entry->shape.size() != 2)
    fail(Exit::bad_input, "{}: tensor {} has shape [{}], expected two dimensions", where, name,
         fmt::join(entry->shape, ", "));
  return file.weights(name).to(at::kFloat);
}

/// The ranks and scales that the configuration gives to the modules; it may name modules that hold no tensor here.
std::vector<Target> targets_of(AdapterOptions options, const std::vector<std::string>& modules,
                               const fs::path& folder) {
  options.target_modules = {.expression = ".*", .names = {}};
  options.exclude_modules = {};
  options.layers_to_transform.clear();
  options.layers_pattern.clear();
  try {
    return match_targets(options, modules, "");
  } catch (const Error& error) {
    fail(Exit::bad_input, "{}: {}", (folder / "adapter_config.json").string(), error.what());
  }
}

std::map<std::string, Product> read_lora(const fs::path& folder, const AdapterOptions& options) {
  const auto file = SafetensorsFile::open(folder / "adapter_model.safetensors");
  std::vector<std::string> modules;
  for (const SafetensorsEntry& entry : file->entries()) {
    const std::string& name = entry.name;
    const size_t end = std::min(name.find(".lora_A.weight"), name.find(".lora_embedding_A"));
    if (name.starts_with(prefix) && end != std::string::npos)
      modules.push_back(name.substr(prefix.size(), end - prefix.size()));
  }
  std::sort(modules.begin(), modules.end());
  if (modules.empty()) fail(Exit::bad_input, "{}: holds no tensor of a LoRA adapter", file->path().string());
  std::map<std::string, Product> products;
  std::set<std::string> read;
  for (const Target& target : targets_of(options, modules, folder)) {
    const std::string& module = modules[target.index];
    const FactorNames names(module);
    Product product{read_factor(*file, names.a, names.b), read_factor(*file, names.b, names.a), target.scale};
    if (product.a.size(0) != target.r || product.b.size(1) != target.r)
      fail(Exit::bad_input, "{}: {} has factors [{}] and [{}], but its rank by adapter_config.json is {}",
           file->path().string(), module, fmt::join(product.a.sizes(), ", "), fmt::join(product.b.sizes(), ", "),
           target.r);
    // PEFT stores the frozen weight too where the head or the embedding is a target.
    read.insert({names.a, names.b, std::string(prefix) + module + ".base_layer.weight"});
    products[module] = std::move(product);
  }
  for (const SafetensorsEntry& entry : file->entries())
    if (!read.contains(entry.name))
      fail(Exit::bad_input, "{}: unexpected tensor {}: it is no factor of a LoRA product", file->path().string(),
           entry.name);
  return products;
}

}  // namespace

void check_same_weight(const std::string& module, const ProductAdapter& first, const ProductAdapter& second) {
  const Product &x = first.modules.at(module), &y = second.modules.at(module);
  if (x.b.size(0) == y.b.size(0) && x.a.size(1) == y.a.size(1)) return;
  fail(Exit::bad_input, "{}: {} changes a weight [{}, {}], {} one of [{}, {}]; they are for different bases", module,
       first.name, x.b.size(0), x.a.size(1), second.name, y.b.size(0), y.a.size(1));
}

std::map<std::string, Product> products_of(CausalLM& model) {
  std::map<std::string, Product> products;
  const auto add = [&](const std::string& module, const LowRank& change) {
    if (!change.b.defined()) fail(Exit::usage, "{}: its adapter is no product B A alone", module);
    products[module] = {change.a, change.b, 1};
  };
  for (const Linear* linear : model.linears()) {
    if (!linear->adapter) continue;
    const bool plain = linear->adapter->bias(linear->bias).is_same(linear->bias);
    add(linear->name, plain ? linear->adapter->low_rank() : LowRank{});
  }
  if (const auto& adapter = model.embedding().adapter) add(model.embedding().name, adapter->low_rank());
  return products;
}

bool is_embedding(std::string_view module) { return module.ends_with("embed_tokens"); }

ProductAdapter read_products(const fs::path& folder, CausalLM* model, const std::string& base_hash) {
  const at::NoGradGuard no_grad;
  const PeftConfig config = read_peft_config(folder);
  const std::string kind = config.options.kind;
  if (const std::string why = more_than_products(config.options); !why.empty())
    fail(Exit::bad_input,
         "{}: a {} adapter that is no product B A alone can be neither combined nor converted: {}. Merge it instead",
         folder.string(), kind, why);
  ProductAdapter adapter{folder.string(), config.options, config.origin, {}};
  if (model) {
    load_peft(folder, *model, base_hash);
    if (kind != "lora") adapter.modules = products_of(*model);
    detach(*model);
    adapter.origin.base_hash = base_hash;
  } else if (kind != "lora") {
    fail(Exit::usage, "{}: the shapes of a {} adapter's products are its base's: give --model", folder.string(), kind);
  }
  if (kind == "lora") adapter.modules = read_lora(folder, config.options);
  return adapter;
}

void save_products(const fs::path& folder, const ProductAdapter& adapter) {
  const at::NoGradGuard no_grad;
  AdapterOptions options;  // a plain LoRA on the same modules
  options.target_modules = adapter.options.target_modules;
  options.exclude_modules = adapter.options.exclude_modules;
  options.layers_to_transform = adapter.options.layers_to_transform;
  options.layers_pattern = adapter.options.layers_pattern;
  options.r = 0;
  for (const auto& [module, product] : adapter.modules) options.r = std::max(options.r, product.a.size(0));
  options.lora_alpha = static_cast<double>(options.r);

  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [module, product] : adapter.modules) {
    const int64_t missing = options.r - product.a.size(0);
    const FactorNames names(module);
    tensors.emplace_back(names.a, at::constant_pad_nd(product.a, {0, 0, 0, missing}));
    tensors.emplace_back(names.b, at::constant_pad_nd(product.b * product.scale, {0, missing}));
    for (const auto& [name, tensor] : {tensors[tensors.size() - 2], tensors.back()})
      if (!at::isfinite(tensor).all().item<bool>())
        fail(Exit::bad_input, "{}: {} would not be finite; the adapters' numbers or the weights are too large",
             folder.string(), name);
  }
  write_peft(folder, tensors, options, adapter.origin);
}

}  // namespace retort
