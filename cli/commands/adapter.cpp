// retort adapter: adapters merged into their base, combined, converted and compared.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "adapters/combine.h"
#include "adapters/compare.h"
#include "cli/command.h"
#include "cli/commands/export.h"
#include "core/error.h"
#include "core/sources.h"
#include "core/temporary_folder.h"
#include "export/adapter_gguf.h"
#include "recipes/version.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> adapters;
  std::string model;
  ExportArguments merged;  ///< of merge
  CombineOptions combination;
  bool undo = false, json = false, modules = false;
};

/// The base that --model names, opened when it is needed.
class Base {
 public:
  /// Without `check`, adapters of any base are taken: un-merging reads a model that is no longer the base.
  explicit Base(std::string uri, bool check = true) : uri_(std::move(uri)), check_(check) {}

  bool given() const { return !uri_.empty(); }
  const std::string& uri() const { return uri_; }
  const Checkpoint& checkpoint() {
    if (!checkpoint_) checkpoint_ = Checkpoint::open(pull({.uri = uri_, .sha256 = "", .name = ""}));
    return *checkpoint_;
  }
  CausalLM& model() {
    if (!model_) model_ = CausalLM::load(checkpoint(), {});
    return *model_;
  }
  std::string hash() { return check_ ? checkpoint().hash() : ""; }

 private:
  std::string uri_;
  bool check_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<CausalLM> model_;
};

/// A PEFT folder, also where a run's folder is named, or a GGUF file.
fs::path path_of(const std::string& adapter) {
  const fs::path path = pull({.uri = adapter, .sha256 = "", .name = ""});
  return fs::exists(path / "adapter" / "adapter_config.json") ? path / "adapter" : path;
}

ProductAdapter read_adapter(const std::string& argument, Base& base) {
  const fs::path path = path_of(argument);
  ProductAdapter adapter;
  if (fs::is_directory(path)) {
    adapter = base.given() ? read_products(path, &base.model(), base.hash()) : read_products(path);
  } else {
    if (!base.given())
      fail(Exit::usage, "{}: a GGUF adapter holds neither its base's names nor its order of rows: give --model",
           argument);
    adapter = read_gguf_adapter(path, base.checkpoint().config());
    const std::string hash = base.hash();
    if (!hash.empty() && !adapter.origin.base_hash.empty() && adapter.origin.base_hash != hash)
      fail(Exit::bad_input, "{}: the adapter was trained on another base: it says {}, this model's hash is {}",
           argument, adapter.origin.base_hash, hash);
    adapter.origin.base_hash = hash;
  }
  if (base.given()) adapter.origin.base = base.uri();
  return adapter;
}

std::vector<ProductAdapter> read_adapters(const Options& options, Base& base) {
  std::vector<ProductAdapter> adapters;
  for (const std::string& argument : options.adapters) adapters.push_back(read_adapter(argument, base));
  return adapters;
}

void print_written(const std::string& out, const char* what, const ProductAdapter& adapter) {
  int64_t rank = 0;
  for (const auto& [module, product] : adapter.modules) rank = std::max(rank, product.a.size(0));
  fmt::print("{}: {}, {} modules, rank {}\n", out, what, adapter.modules.size(), rank);
}

int run_combine(const Options& options) {
  Base base(options.model);
  const ProductAdapter combined = combine(read_adapters(options, base), options.combination);
  save_products(options.merged.out, combined);
  print_written(options.merged.out, "PEFT adapter", combined);
  return 0;
}

int run_convert(const Options& options) {
  const std::string& out = options.merged.out;
  const bool to_gguf = out.ends_with(".gguf");
  const fs::path path = path_of(options.adapters.front());
  std::string model = options.model;
  if (model.empty() && to_gguf && fs::is_directory(path)) model = read_peft_config(path).origin.base;
  if (model.empty() && to_gguf)
    fail(Exit::usage, "{}: does not say which base it belongs to; give --model", path.string());
  Base base(model);
  const ProductAdapter adapter = read_adapter(options.adapters.front(), base);
  if (to_gguf)
    write_gguf_adapter(out, adapter, base.checkpoint().config(),
                       {.base = adapter.origin.base,
                        .base_hash = adapter.origin.base_hash,
                        .data_hash = adapter.origin.data_hash,
                        .version = "Retort " + version()});
  else
    save_products(out, adapter);
  print_written(out, to_gguf ? "GGUF adapter" : "PEFT adapter", adapter);
  return 0;
}

int run_merge(Options options) {
  options.merged.model = options.model;
  fs::path adapter = path_of(options.adapters.front());
  const TemporaryFolder folder;
  // One adapter of any kind is merged as it is; what several come to is a product.
  if (options.adapters.size() > 1 || !options.combination.weights.empty() || options.undo ||
      !fs::is_directory(adapter)) {
    Base base(options.model, !options.undo);
    CombineOptions sum{.type = "cat", .weights = options.combination.weights};
    if (sum.weights.empty()) sum.weights.assign(options.adapters.size(), 1);
    if (options.undo)
      for (double& weight : sum.weights) weight = -weight;
    ProductAdapter combined = combine(read_adapters(options, base), sum);
    if (options.undo) combined.origin.base_hash.clear();
    adapter = folder / "adapter";
    save_products(adapter, combined);
  }
  options.merged.adapter = adapter.string();
  return run_export(options.merged);
}

std::string percent(double value) { return fmt::format("{:.3g} %", 100 * value); }

/// One line of a comparison; sizes are shares of the base's weight where that is known.
void print_line(const std::string& name, const Json& entry) {
  std::string line = fmt::format("{:<40}", name);
  const size_t adapters = entry["size"].size();
  for (size_t i = 0; i < adapters; ++i) {
    const auto size = entry["size"][i].get<double>();
    line += fmt::format(
        "{:>11}", entry.contains("base") ? percent(size / entry["base"].get<double>()) : fmt::format("{:.4g}", size));
  }
  for (const char* key : {"cosine", "difference"})
    if (entry.contains(key))
      line += fmt::format("{:>12}", entry[key].is_null() ? "-" : fmt::format("{:.4f}", entry[key].get<double>()));
  for (size_t i = 0; i < adapters; ++i)
    line += fmt::format("{:>14}", fmt::format("{:.1f} of {:.3g}", entry["rank"][i].get<double>(),
                                              entry["stored_rank"][i].get<double>()));
  fmt::print("{}\n", line);
}

int run_diff(const Options& options) {
  Base base(options.model);
  const std::vector<ProductAdapter> adapters = read_adapters(options, base);
  Json report = compare(adapters, base.given() ? &base.checkpoint() : nullptr);
  report["adapters"] = options.adapters;
  if (options.json) {
    fmt::print("{}\n", report.dump(2));
    return 0;
  }
  const bool two = adapters.size() == 2;
  const std::string size = base.given() ? "|dW|/|W|" : "|dW|", rank = fmt::format("rank {:g} %", 100 * kEnergy);
  fmt::print("{:<40}{}{}{}\n", "", two ? fmt::format("{:>11}{:>11}", size, size) : fmt::format("{:>11}", size),
             two ? fmt::format("{:>12}{:>12}", "cosine", "difference") : "",
             two ? fmt::format("{:>14}{:>14}", rank, rank) : fmt::format("{:>14}", rank));
  for (const Json& entry : report[options.modules ? "modules" : "layers"])
    print_line(options.modules
                   ? entry["module"].get<std::string>()
                   : fmt::format("{} x {}", entry["name"].get<std::string>(), entry["count"].get<int64_t>()),
               entry);
  print_line("all", report["all"]);
  return 0;
}

CLI::App* add_command(CLI::App& app, const char* name, const char* summary, const char* example, Options& options,
                      int most) {
  CLI::App* sub = app.add_subcommand(name, summary);
  sub->footer(std::string("Examples:\n") + example);
  sub->add_option(
         "adapters", options.adapters,
         most == 1 ? "PEFT folder, a run's folder or a GGUF adapter" : "PEFT folders, runs' folders or GGUF adapters")
      ->required()
      ->expected(1, most);
  sub->add_option("--model", options.model, "base: GGUF file, Hugging Face folder or URI");
  return sub;
}

std::vector<double> parsed_weights(const std::string& text) {
  std::vector<double> weights;
  for (const std::string& part : CLI::detail::split(text, ',')) {
    double weight = 0;
    if (!CLI::detail::lexical_cast(part, weight))
      fail(Exit::usage, "--weights: \"{}\" is no number; give one an adapter, as in 0.7,-0.4", part);
    weights.push_back(weight);
  }
  return weights;
}

void add_weights(CLI::App& app, Options& options) {
  app.add_option_function<std::string>(
         "--weights", [&options](const std::string& text) { options.combination.weights = parsed_weights(text); },
         "one an adapter, as in 0.7,-0.4; by default 1 each")
      ->type_name("WEIGHT,...");
}

std::function<int()> setup(CLI::App& app) {
  constexpr int kMany = 64;
  auto options = std::make_shared<Options>();
  app.require_subcommand(1);

  CLI::App* merge =
      add_command(app, "merge", "merge adapters into their base, or take them out again",
                  "  retort adapter merge adapter --type Q4_K_M --out merged.gguf\n"
                  "  retort adapter merge style domain --weights 0.5,1 --type Q8_0 --out merged.gguf\n"
                  "  retort adapter merge adapter --undo --model merged-F32.gguf --type F32 --out base.gguf",
                  *options, kMany);
  merge->add_option("--type", options->merged.type, "of the file: F32, Q8_0, Q4_K_M …")->required();
  merge->add_option("--imatrix", options->merged.imatrix, "importance matrix in llama-imatrix's GGUF format");
  merge->add_option("--threads", options->merged.threads, "for quantizing; 0: one a core")->check(CLI::Range(0, 4096));
  merge->add_flag("--undo", options->undo, "--model is a merged model: subtract the adapters (products only)");
  add_weights(*merge, *options);

  CLI::App* combined =
      add_command(app, "combine", "make one adapter of several on the same base, by weights",
                  "  retort adapter combine style domain --weights 0.7,0.3 --type svd --rank 16 --out both\n"
                  "  retort adapter combine a b c --type ties_svd --density 0.3 --out merged-tasks\n"
                  "  retort adapter combine adapter --type svd --rank 4 --out smaller",
                  *options, kMany);
  combined
      ->add_option("--type", options->combination.type,
                   "PEFT's: svd and cat keep the sum, linear adds factors, ties elects signs, dare drops at random")
      ->check(CLI::IsMember(combination_types()))
      ->capture_default_str();
  combined->add_option("--rank", options->combination.rank, "of the types that end in svd; by default the largest one");
  combined->add_option("--density", options->combination.density,
                       "share of the numbers that ties, dare and magnitude_prune keep");
  combined->add_option("--seed", options->combination.seed, "of what dare drops");
  add_weights(*combined, *options);

  CLI::App* convert = add_command(app, "convert", "write an adapter as plain LoRA in a PEFT folder, or as GGUF",
                                  "  retort adapter convert adapter --out adapter.gguf\n"
                                  "  retort adapter convert adapter.gguf --model base.gguf --out adapter\n"
                                  "  retort adapter convert vera-adapter --model base.gguf --out lora-adapter",
                                  *options, 1);
  CLI::App* diff = add_command(app, "diff", "how much adapters change each layer, and how much alike two are",
                               "  retort adapter diff adapter --model base.gguf\n"
                               "  retort adapter diff yesterday today --json",
                               *options, 2);
  diff->add_flag("--json", options->json, "print everything as JSON");
  diff->add_flag("--modules", options->modules, "a line for every module instead of one for all layers");

  for (CLI::App* sub : {merge, combined, convert})
    sub->add_option("--out", options->merged.out,
                    sub == merge      ? "GGUF file to write"
                    : sub == combined ? "PEFT folder to write"
                                      : "folder, or file that ends in .gguf, to write")
        ->required();
  return [=] {
    if (merge->parsed()) return run_merge(*options);
    if (combined->parsed()) return run_combine(*options);
    return convert->parsed() ? run_convert(*options) : run_diff(*options);
  };
}

}  // namespace

extern const Command command_adapter{
    .name = "adapter",
    .summary = "Merge, combine, convert or compare adapters.",
    .examples =
        "  retort adapter merge adapter --type Q4_K_M --out merged.gguf\n"
        "  retort adapter combine style domain --weights 0.7,0.3 --out both\n"
        "  retort adapter convert adapter --out adapter.gguf\n"
        "  retort adapter diff yesterday today --model base.gguf",
    .setup = setup,
};

}  // namespace retort
