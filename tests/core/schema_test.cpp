#include "core/schema.h"

#include "tests/core/support.h"

namespace retort {
namespace {

// A type with its own way to be written: a name or a list of names.
struct Names {
  std::vector<std::string> names;
};
void from_yaml(const Yaml& node, Names& value) {
  if (node.is_scalar()) {
    value.names = {node.as_string()};
  } else {
    for (const Yaml& item : node.items()) value.names.push_back(item.as_string());
  }
}
Json json_schema_of(Names*) {
  return {{"anyOf", Json::array({{{"type", "string"}}, {{"type", "array"}, {"items", {{"type", "string"}}}}})}};
}
Json json_of(const Names& value) { return value.names; }

struct Inner {
  std::string kind = "lora";
  int64_t r = 16;
  std::optional<double> dropout;
};
const Schema<Inner>& schema_of(Inner*) {
  static const auto schema = Schema<Inner>("adapter", "A low-rank adapter.")
                                 .field("kind", &Inner::kind, "which one", {.one_of = {"lora", "dora", "vera"}})
                                 .field("r", &Inner::r, "rank", {.minimum = 1, .maximum = 4096})
                                 .field("dropout", &Inner::dropout, "share | dropped", {.minimum = 0, .maximum = 1})
                                 .renamed("lora_r", "r")
                                 .renamed("bf16", "write model.dtype: bf16");
  return schema;
}

struct Outer {
  std::string name;
  bool packing = true;
  double learning_rate = 5e-4;
  Inner adapter{.kind = "dora", .r = 8, .dropout = {}};
  std::vector<Inner> more;
  std::map<std::string, Inner> named;
  std::vector<int64_t> sizes = {1, 2};
  std::map<std::string, double> weights;
  std::filesystem::path out = "runs";
  Json anything;
  std::optional<Yaml> later;
  std::optional<Inner> maybe;
  Names targets;
};
const Schema<Outer>& schema_of(Outer*) {
  static const auto schema =
      Schema<Outer>("recipe", "Everything.")
          .field("name", &Outer::name, "what the run is called", {.required = true})
          .field("packing", &Outer::packing, "rows share a window")
          .field("learning_rate", &Outer::learning_rate, "step size", {.minimum = 0, .minimum_open = true})
          .field("adapter", &Outer::adapter, "the adapter")
          .field("more", &Outer::more, "further ones")
          .field("named", &Outer::named, "by name")
          .field("sizes", &Outer::sizes, "numbers", {.minimum = 1})
          .field("weights", &Outer::weights, "by name", {.maximum = 1, .maximum_open = true})
          .field("out", &Outer::out, "folder")
          .field("anything", &Outer::anything, "untyped")
          .field("later", &Outer::later, "read later")
          .field("maybe", &Outer::maybe, "may be missing")
          .field("targets", &Outer::targets, "one or more")
          .rule([](const Outer& o, const Yaml& node) {
            if (o.packing && o.learning_rate > 1) node["learning_rate"].refuse("with packing: at most 1");
          });
  return schema;
}

Outer read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return from_yaml<Outer>(Yaml::parse(text, "r.yaml", overrides));
}

TEST(Schema, ReadsEveryType) {
  const Outer o = read(
      "name: a\npacking: false\nlearning_rate: 1e-3\nadapter: {r: 4, dropout: 0.5}\nmore: [{kind: vera}, {}]\n"
      "named: {x: {r: 2}}\nsizes: [3]\nweights: {a: 0.5}\nout: there\nanything: {k: [1, x]}\nlater: {free: form}\n"
      "maybe:\ntargets: all\n");
  EXPECT_FALSE(o.packing);
  EXPECT_EQ(o.learning_rate, 1e-3);
  EXPECT_EQ(o.adapter.kind, "dora") << "the outer struct's default";
  EXPECT_EQ(o.adapter.r, 4);
  EXPECT_EQ(o.adapter.dropout, 0.5);
  EXPECT_EQ(o.more.at(0).kind, "vera");
  EXPECT_EQ(o.more.at(1).kind, "lora");
  EXPECT_EQ(o.named.at("x").r, 2);
  EXPECT_EQ(o.sizes, std::vector<int64_t>{3});
  EXPECT_EQ(o.weights.at("a"), 0.5);
  EXPECT_EQ(o.out, "there");
  EXPECT_EQ(o.anything.dump(), R"({"k":[1,"x"]})");
  EXPECT_EQ((*o.later)["free"].where(), "r.yaml:11 later.free");
  EXPECT_FALSE(o.maybe);
  EXPECT_EQ(o.targets.names, std::vector<std::string>{"all"});
}

TEST(Schema, AbsentKeysKeepDefaultsAndNullSectionsAreEmpty) {
  const Outer o = read("name: a\nadapter:\n");
  EXPECT_EQ(o.adapter.r, 8);
  EXPECT_EQ(o.sizes.size(), 2u);
  EXPECT_TRUE(o.packing);
}

TEST(Schema, UnknownKeyNamesTheNearest) {
  expect_error(Exit::usage,
               {"r.yaml:2 learning_rat: unknown key: found \"learning_rat\"; allowed: name, packing, learning_rate",
                "did you mean learning_rate?"},
               [] { read("name: a\nlearning_rat: 1\n"); });
  expect_error(Exit::usage, {"r.yaml:3 adapter.R", "did you mean r?"}, [] { read("name: a\nadapter:\n  R: 1\n"); });
}

TEST(Schema, PeersNamesSayOurs) {
  expect_error(Exit::usage, {"adapter.lora_r: unknown key \"lora_r\"; here it is called r"},
               [] { read("name: a\nadapter: {lora_r: 1}"); });
  expect_error(Exit::usage, {"unknown key \"bf16\": write model.dtype: bf16"},
               [] { read("name: a\nadapter: {bf16: true}"); });
}

TEST(Schema, RangesAndChoicesSayWhatIsAllowed) {
  expect_error(Exit::usage, {"r.yaml:1 adapter.r: found 0; allowed: at least 1 and at most 4096"},
               [] { read("{name: a, adapter: {r: 0}}"); });
  expect_error(Exit::usage, {"learning_rate: found 0; allowed: above 0"}, [] { read("{name: a, learning_rate: 0}"); });
  expect_error(Exit::usage, {"weights.b: found 1; allowed: below 1"}, [] { read("{name: a, weights: {b: 1}}"); });
  expect_error(Exit::usage, {"sizes[1]: found -1; allowed: at least 1"}, [] { read("{name: a, sizes: [1, -1]}"); });
  expect_error(Exit::usage, {"adapter.kind: found \"lroa\"; allowed: lora, dora, vera; did you mean lora?"},
               [] { read("{name: a, adapter: {kind: lroa}}"); });
  expect_error(Exit::usage, {"adapter.r: expected a whole number, found 1.5"},
               [] { read("{name: a, adapter: {r: 1.5}}"); });
  expect_error(Exit::usage, {"adapter: expected a map", "found a list"}, [] { read("{name: a, adapter: [1]}"); });
  expect_error(Exit::usage, {"command line: adapter.r=-3 adapter.r: found -3"},
               [] { read("name: a", {"adapter.r=-3"}); });
}

TEST(Schema, AllProblemsAreReportedAtOnce) {
  expect_error(Exit::usage, {"packing: expected true", "adapter.r: found", "adapter.q: unknown", "\"name\" is missing"},
               [] { read("packing: 3\nadapter: {r: -1, q: 2}\n"); });
}

TEST(Schema, RulesSeeTheWholeStruct) {
  expect_error(Exit::usage, {"r.yaml:1 learning_rate: with packing: at most 1"},
               [] { read("{name: a, learning_rate: 2}"); });
  EXPECT_NO_THROW(read("{name: a, learning_rate: 2, packing: false}"));
}

TEST(Schema, ResolvedValuesReadBack) {
  const Outer first = read("name: a\nmore: [{r: 3}]\nanything: [1]\nlater: {x: 1}\ntargets: [u, v]\nmaybe: {r: 5}\n");
  const Json json = to_json(first);
  EXPECT_EQ(json["adapter"].dump(), R"({"kind":"dora","r":8,"dropout":null})");
  EXPECT_EQ(json["maybe"]["r"], 5);
  const Outer second = from_yaml<Outer>(Yaml::from_json(json, "resolved"));
  EXPECT_EQ(to_json(second).dump(), json.dump());
}

TEST(Schema, JsonSchemaDescribesTypesBoundsAndDefaults) {
  const Json schema = schema_of(static_cast<Outer*>(nullptr)).json_schema();
  EXPECT_EQ(schema["required"].dump(), R"(["name"])");
  EXPECT_EQ(schema["additionalProperties"], false);
  const Json& adapter = schema["properties"]["adapter"];
  EXPECT_EQ(adapter["properties"]["r"]["default"], 8) << "the outer struct's default";
  EXPECT_EQ(adapter["properties"]["r"]["minimum"], 1);
  EXPECT_EQ(adapter["properties"]["kind"]["enum"].dump(), R"(["lora","dora","vera"])");
  EXPECT_EQ(adapter["properties"]["dropout"]["type"].dump(), R"(["number","null"])");
  EXPECT_EQ(schema["properties"]["learning_rate"]["exclusiveMinimum"], 0.0);
  EXPECT_EQ(schema["properties"]["more"]["items"]["properties"]["kind"]["default"], "lora");
  EXPECT_TRUE(schema["properties"]["targets"].contains("anyOf"));
}

TEST(Schema, MarkdownHasASectionForEveryStruct) {
  const std::string page = schema_of(static_cast<Outer*>(nullptr)).markdown();
  for (const char* part :
       {"## recipe\n", "## `adapter`\n", "## `more[]`\n", "## `named.*`\n", "## `maybe`\n",
        "| `name` | text | required | what the run is called |", "| `r` | whole number ≥ 1 ≤ 4096 | `8` | rank |",
        "| `kind` | lora, dora, vera | `\"dora\"` | which one |", "share \\| dropped",
        "| `targets` | text or list of text | `[]` | one or more |"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part << "\nnot in\n" << page;
  }
}

TEST(DidYouMean, FindsSlipsAndNothingFarAway) {
  const std::vector<std::string> names = {"learning_rate", "max_steps", "r", "seed"};
  EXPECT_EQ(did_you_mean("learningrate", names), "learning_rate");
  EXPECT_EQ(did_you_mean("Max-Steps", names), "max_steps");
  EXPECT_EQ(did_you_mean("sede", names), "seed");
  EXPECT_EQ(did_you_mean("completely_else", names), "");
  EXPECT_EQ(did_you_mean(std::string(100'000, 'x'), names), "");
}

}  // namespace
}  // namespace retort
