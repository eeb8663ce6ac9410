#include "adapters/options.h"

#include <re2/re2.h>

#include <algorithm>
#include <set>

#include "adapters/attach.h"
#include "core/error.h"
#include "core/schema.h"

namespace retort {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

void check_expression(const std::string& key, const std::string& expression) {
  const RE2 compiled(expression, RE2::Quiet);
  if (!compiled.ok())
    fail(Exit::usage,
         "{}: \"{}\" is not a regular expression of RE2: {} (look-around and back-references do not exist in it)", key,
         expression, compiled.error());
}

}  // namespace

bool ModuleChoice::all_linear() const { return lower(expression) == "all-linear"; }

void from_yaml(const Yaml& node, ModuleChoice& choice) {
  choice = {};
  if (node.is_list()) {
    for (const Yaml& item : node.items()) choice.names.push_back(item.as_string());
  } else if (node.is_scalar()) {
    choice.expression = node.as_string();
  } else if (!node.is_null()) {
    node.refuse(
        fmt::format("found {}; give \"all-linear\", a list of module names, or one regular expression", node.shown()));
  }
}

Json json_schema_of(ModuleChoice*) {
  return {{"oneOf", {{{"type", "string"}}, {{"type", "array"}, {"items", {{"type", "string"}}}}, {{"type", "null"}}}},
          {"description", "all-linear, a list of module names, or one regular expression for whole names"}};
}

Json json_of(const ModuleChoice& choice) {
  if (!choice.expression.empty()) return choice.expression;
  return choice.names.empty() ? Json(nullptr) : Json(choice.names);
}

std::string LoraInit::name() const {
  static constexpr const char* names[] = {"true", "gaussian", "pissa", "olora", "loftq"};
  return iterations > 0 ? fmt::format("pissa_niter_{}", iterations) : names[kind];
}

void from_yaml(const Yaml& node, LoraInit& init) {
  const std::string text = node.is_scalar() ? node.as_string() : "";
  for (const LoraInit::Kind kind :
       {LoraInit::kaiming, LoraInit::gaussian, LoraInit::pissa, LoraInit::olora, LoraInit::loftq}) {
    init = {kind, 0};
    if (text == init.name()) return;
  }
  static const RE2 randomized("pissa_niter_([1-9][0-9]?)");
  init = {LoraInit::pissa, 0};
  if (RE2::FullMatch(text, randomized, &init.iterations)) return;
  node.refuse(fmt::format("found {}; allowed: true, gaussian, pissa, pissa_niter_N with N from 1 to 99, olora, loftq",
                          node.shown()));
}

Json json_schema_of(LoraInit*) {
  return {{"oneOf",
           {{{"enum", {true, "gaussian", "pissa", "olora", "loftq"}}},
            {{"type", "string"}, {"pattern", "^pissa_niter_[1-9][0-9]?$"}}}}};
}

Json json_of(const LoraInit& init) { return init.kind == LoraInit::kaiming ? Json(true) : Json(init.name()); }

const Schema<AdapterOptions>& schema_of(AdapterOptions*) {
  static const auto schema =
      Schema<AdapterOptions>("adapter", "What is trained: an update of the linear layers. The names are PEFT's.")
          .field("kind", &AdapterOptions::kind, "which adapter; `retort schema` lists them")
          .field("r", &AdapterOptions::r, "rank of the update", {.minimum = 1, .maximum = 65536})
          .field("lora_alpha", &AdapterOptions::lora_alpha, "the update is scaled by lora_alpha / r",
                 {.minimum = 0, .minimum_open = true})
          .field("lora_dropout", &AdapterOptions::lora_dropout, "share of the inputs of A that a training step drops",
                 {.minimum = 0, .maximum = 0.95})
          .field("use_rslora", &AdapterOptions::use_rslora, "scale by lora_alpha / sqrt(r)")
          .field("target_modules", &AdapterOptions::target_modules,
                 "`all-linear` (all but the head), a list of names (whole, or the part after a dot), or a regular "
                 "expression")
          .field("exclude_modules", &AdapterOptions::exclude_modules,
                 "modules left out, as a list or a regular expression")
          .field("layers_to_transform", &AdapterOptions::layers_to_transform,
                 "numbers of the layers to adapt; empty: all")
          .field("layers_pattern", &AdapterOptions::layers_pattern,
                 "name of the list of layers that layers_to_transform counts in, where the first number is not it")
          .field("rank_pattern", &AdapterOptions::rank_pattern, "module name or regular expression -> its rank")
          .field("alpha_pattern", &AdapterOptions::alpha_pattern, "module name or regular expression -> its lora_alpha")
          .field("init_lora_weights", &AdapterOptions::init_lora_weights,
                 "`true`: A kaiming-uniform, B zero; `gaussian`: A normal with deviation 1 / r, B zero; `pissa`, "
                 "`pissa_niter_N` (randomized, N rounds), `olora`: from the weight itself; `loftq`: from what nf4, fp4 "
                 "or int8 lost of it")
          .field("lora_bias", &AdapterOptions::lora_bias, "train a bias with B")
          .field("feedforward_modules", &AdapterOptions::feedforward_modules,
                 "ia3: the target modules whose input is scaled instead of their output")
          .field("projection_prng_key", &AdapterOptions::projection_prng_key,
                 "vera: seed of the random projections that all layers share", {.minimum = 0})
          .field("d_initial", &AdapterOptions::d_initial, "vera: what the trained vector d starts from")
          .field("dtype", &AdapterOptions::dtype,
                 "lora: type of what is trained, and of the saved file; updates of `bf16` are rounded stochastically",
                 {.one_of = {"f32", "bf16"}})
          .field("bias", &AdapterOptions::bias, "biases are never trained", {.one_of = {"none"}})
          .field("modules_to_save", &AdapterOptions::modules_to_save,
                 "modules trained whole beside the adapter: lm_head, embed_tokens, linear layers, by the end of their "
                 "names")
          .field("trainable_token_indices", &AdapterOptions::trainable_token_indices,
                 "lora: tokens whose embeddings are trained, and their rows of a tied head")
          .renamed("lora_r", "r")
          .renamed("lora_rank", "r")
          .renamed("rank", "r")
          .renamed("alpha", "lora_alpha")
          .renamed("dropout", "lora_dropout")
          .renamed("rslora", "use_rslora")
          .renamed("lora_target", "target_modules")
          .renamed("lora_target_modules", "target_modules")
          .renamed("lora_modules_to_save", "modules_to_save")
          .renamed("lora_target_linear", "target_modules")
          .renamed("type", "kind")
          .renamed("autocast_adapter_dtype", "dtype")
          .rule([](const AdapterOptions& options, const Yaml& node) {
            try {
              check_options(options);
            } catch (const Error& error) {
              node.refuse(error.what());
            }
          });
  return schema;
}

namespace {

/// A key that is set, but that the kind does not read, would be silently lost.
void check_keys(const AdapterOptions& options) {
  static const std::set<std::string> common = {"kind", "target_modules", "exclude_modules", "bias", "modules_to_save"};
  const AdapterKind& kind = adapter_kind(options.kind);
  const Json given = to_json(options), unset = to_json(AdapterOptions{});
  for (const auto& [key, value] : given.items()) {
    const bool read = common.contains(key) ||
                      std::any_of(kind.keys.begin(), kind.keys.end(), [&](const char* name) { return key == name; });
    if (!read && value != unset[key])
      fail(Exit::usage, "{}: \"{}\" adapters have no such key; allowed: {}", key, kind.name,
           fmt::join(kind.keys, ", "));
  }
}

}  // namespace

void check_options(const AdapterOptions& options) {
  check_keys(options);
  if (options.dtype == "bf16" && options.kind == "dora")
    fail(Exit::usage, "dtype: DoRA's lengths of rows need more than bf16's 8 bits; use f32");
  if (options.lora_bias && options.kind == "dora")
    fail(Exit::usage, "lora_bias: DoRA rescales rows of the weight and has no place for a bias; leave it out");
  if (options.target_modules.empty())
    fail(Exit::usage,
         "target_modules: empty, so nothing would be trained; allowed: all-linear, a list of module names, "
         "a regular expression");
  const bool by_expression = !options.target_modules.expression.empty() && !options.target_modules.all_linear();
  if (by_expression) {
    check_expression("target_modules", options.target_modules.expression);
    if (!options.layers_to_transform.empty())
      fail(Exit::usage,
           "layers_to_transform: does not go with a regular expression as target_modules; put the layers' "
           "numbers into the expression, or name the modules in a list");
  }
  if (options.exclude_modules.all_linear())
    fail(Exit::usage, "exclude_modules: \"all-linear\" is for target_modules only");
  if (!options.exclude_modules.expression.empty())
    check_expression("exclude_modules", options.exclude_modules.expression);
  if (!options.layers_pattern.empty() && options.layers_to_transform.empty())
    fail(Exit::usage, "layers_pattern: says where layers_to_transform counts, which is empty; give both or none");
  for (const std::string& pattern : options.layers_pattern) check_expression("layers_pattern", pattern);
  for (const auto& [pattern, r] : options.rank_pattern) {
    check_expression("rank_pattern", pattern);
    if (r < 1) fail(Exit::usage, "rank_pattern: {} is {}; a rank is at least 1", pattern, r);
  }
  for (const auto& [pattern, alpha] : options.alpha_pattern) {
    check_expression("alpha_pattern", pattern);
    if (!(alpha > 0)) fail(Exit::usage, "alpha_pattern: {} is {}; an alpha is above 0", pattern, alpha);
  }
}

}  // namespace retort
