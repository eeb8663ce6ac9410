// The schema of retort prune's recipe.
#include "core/error.h"
#include "recipes/prune.h"

namespace retort {

const Schema<PruneLayers>& schema_of(PruneLayers*) {
  using O = PruneLayers;
  static const auto schema =
      Schema<O>("layers", "Which layers stay.")
          .field("keep", &O::keep, "the layers to keep, ascending; the first one is 0", {.minimum = 0})
          .field("count", &O::count, "how many to keep, instead of a list", {.minimum = 1, .maximum = 10'000})
          .field("by", &O::by,
                 "which ones: even (evenly spaced, the first and the last among them), or kl (one after the other, the "
                 "layer goes whose removal costs least KL on the calibration rows)",
                 {.one_of = {"even", "kl"}})
          .rule([](const O& layers, const Yaml& node) {
            if (layers.keep.empty() != layers.count.has_value()) node.refuse("give either keep, a list, or count");
            if (!layers.keep.empty() && node.has("by"))
              node["by"].refuse("chooses layers for a count; keep names them");
            for (size_t i = 1; i < layers.keep.size(); ++i)
              if (layers.keep[i] <= layers.keep[i - 1]) node["keep"].refuse("layers must ascend, each once");
          });
  return schema;
}

const Schema<PruneMlp>& schema_of(PruneMlp*) {
  using O = PruneMlp;
  static const auto schema =
      Schema<O>("mlp", "How wide each MLP stays: the channels that contribute most to its output are kept.")
          .field("size", &O::size, "channels to keep, rounded down to a multiple of `multiple`",
                 {.minimum = 1, .maximum = 1 << 24, .required = true})
          .field("multiple", &O::multiple, "32 fits GGUF's simple blocks, 256 its K-quants",
                 {.minimum = 1, .maximum = 1 << 16})
          .rule([](const O& mlp, const Yaml& node) {
            if (mlp.size < mlp.multiple) node["size"].refuse("is below the multiple that it is rounded down to");
          });
  return schema;
}

const Schema<PruneVocabulary>& schema_of(PruneVocabulary*) {
  using O = PruneVocabulary;
  static const auto schema =
      Schema<O>("vocabulary",
                "Which tokens stay: those of data.train, special tokens, all bytes, and what they are merged of.")
          .field("min_count", &O::min_count, "how often a token must occur", {.minimum = 1});
  return schema;
}

const Schema<PruneOptions>& schema_of(PruneOptions*) {
  using O = PruneOptions;
  static const auto schema =
      Schema<O>("prune", "What is cut: at least one of layers, mlp and vocabulary, in this order.")
          .field("layers", &O::layers, "fewer layers")
          .field("mlp", &O::mlp, "a narrower MLP")
          .field("vocabulary", &O::vocabulary, "fewer tokens")
          .field("calibration_tokens", &O::calibration_tokens,
                 "tokens of data.train that the importance of layers and channels is measured on",
                 {.minimum = 16, .maximum = 1 << 24})
          .rule([](const O& prune, const Yaml& node) {
            if (!prune.layers && !prune.mlp && !prune.vocabulary)
              node.refuse("nothing is cut; give at least one of layers, mlp, vocabulary");
          });
  return schema;
}

const Schema<PruneModel>& schema_of(PruneModel*) {
  using O = PruneModel;
  static const auto schema =
      Schema<O>("model", "The teacher.")
          .field("path", &O::path, "a source's name, a URI, a GGUF file or a Hugging Face folder", {.required = true});
  return schema;
}

const Schema<PruneRecipe>& schema_of(PruneRecipe*) {
  using O = PruneRecipe;
  static const auto schema =
      Schema<O>("prune recipe", "A smaller student out of a teacher.")
          .field("name", &O::name, "names the student", {.required = true})
          .field("device", &O::device, "auto, cpu, cuda or cuda:N")
          .field("threads", &O::threads, "of the processor; 0: one a core", {.minimum = 0, .maximum = 4096})
          .field("sources", &O::sources, "names for things to fetch: {uri, sha256} or a URI")
          .field("model", &O::model, "the teacher", {.required = true})
          .field(
              "data", &O::data,
              "train: rows to calibrate on, and whose tokens the vocabulary keeps; validation: rows that teacher and "
              "student are compared on",
              {.required = true})
          .field("prune", &O::prune, "what is cut", {.required = true})
          .field("type", &O::type, "F32, BF16 or F16; empty: a folder's own, F32 for a GGUF file",
                 {.one_of = {"", "F32", "BF16", "F16"}})
          .field("output", &O::output, "the folder to write", {.required = true});
  return schema;
}

PruneRecipe load_prune_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  const Yaml yaml = Yaml::load(path, overrides);
  PruneRecipe recipe = from_yaml<PruneRecipe>(yaml);
  recipe.file = path;
  if (recipe.name.empty()) yaml["name"].refuse("is empty");
  if (recipe.output.empty()) yaml["output"].refuse("is empty: it names the folder to write");
  if (recipe.data.train.empty()) yaml["data"]["train"].refuse("at least one data set is needed");
  if (recipe.data.validation.empty())
    yaml["data"].refuse("teacher and student are compared on held-out rows: give data.validation");
  // What is there and was not made by this command is not replaced.
  if (std::filesystem::exists(recipe.output) && !std::filesystem::exists(recipe.output / "prune.json"))
    yaml["output"].refuse(fmt::format("{} exists and is no student of an earlier retort prune; name another folder",
                                      recipe.output.string()));
  return recipe;
}

}  // namespace retort
