// The YAML file of a task and its data.
#include <re2/re2.h>

#include "core/error.h"
#include "core/jinja.h"
#include "data/dataset.h"
#include "monitor/harness_task.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct DataFiles {
  Json data_files;
};
const Schema<DataFiles>& schema_of(DataFiles*) {
  static const auto schema =
      Schema<DataFiles>("dataset_kwargs", "")
          .field("data_files", &DataFiles::data_files, "split: file or list of files", {.required = true});
  return schema;
}

struct FewshotConfig {
  std::string sampler;
};
const Schema<FewshotConfig>& schema_of(FewshotConfig*) {
  static const auto schema = Schema<FewshotConfig>("fewshot_config", "")
                                 .field("sampler", &FewshotConfig::sampler, "the first rows of fewshot_split",
                                        {.one_of = {"first_n"}, .required = true});
  return schema;
}

struct Generation {
  std::optional<Json> until;
  int64_t max_gen_toks = 256;
  double temperature = 0;
  bool do_sample = false;
};
const Schema<Generation>& schema_of(Generation*) {
  static const auto schema =
      Schema<Generation>("generation_kwargs", "")
          .field("until", &Generation::until, "a text or a list of texts that end an answer")
          .field("max_gen_toks", &Generation::max_gen_toks, "longest answer", {.minimum = 1})
          .field("temperature", &Generation::temperature, "answers are greedy", {.minimum = 0, .maximum = 0})
          .field("do_sample", &Generation::do_sample, "answers are greedy")
          .rule([](const Generation& generation, const Yaml& node) {
            if (generation.do_sample) node["do_sample"].refuse("answers are greedy: false");
          });
  return schema;
}

struct Metric {
  std::string metric, aggregation = "mean";
  std::optional<bool> higher_is_better;
  bool ignore_case = false, ignore_punctuation = false, ignore_numbers = false;
};

/// What each metric is here. Metrics that the harness lacks have the name of their evaluator.
struct KnownMetric {
  const char* name;
  bool of_choices, of_answers;
  Json evaluator;
};
const std::vector<KnownMetric>& known_metrics() {
  static const std::vector<KnownMetric> metrics = {
      {"acc", true, false, {{"kind", "choice_accuracy"}}},
      {"acc_norm", true, false, {{"kind", "choice_accuracy"}, {"normalize", "characters"}}},
      {"acc_bytes", true, false, {{"kind", "choice_accuracy"}, {"normalize", "bytes"}}},
      {"calibration", true, false, {{"kind", "calibration"}}},
      {"exact_match", false, true, {{"kind", "exact_match"}, {"strip", false}, {"must_stop", false}}},
      {"f1", false, true, {{"kind", "f1"}}},
      {"rouge_l", false, true, {{"kind", "rouge_l"}}},
      {"length", false, true, {{"kind", "length"}}},
      {"repetition", false, true, {{"kind", "repetition"}}},
      {"refusal", false, true, {{"kind", "refusal"}}},
      {"perplexity", true, true, {{"kind", "perplexity"}}},
      {"bits_per_byte", true, true, {{"kind", "bits_per_byte"}}}};
  return metrics;
}
const KnownMetric& known_metric(const std::string& name) {
  const auto& metrics = known_metrics();
  return *std::find_if(metrics.begin(), metrics.end(), [&](const KnownMetric& known) { return known.name == name; });
}

const Schema<Metric>& schema_of(Metric*) {
  static const auto schema = [] {
    std::vector<std::string> names;
    for (const KnownMetric& metric : known_metrics()) names.push_back(metric.name);
    return Schema<Metric>("metric", "")
        .field("metric", &Metric::metric, "the metric", {.one_of = names, .required = true})
        .field("aggregation", &Metric::aggregation, "over rows", {.one_of = {"mean"}})
        .field("higher_is_better", &Metric::higher_is_better, "as the metric's own")
        .field("ignore_case", &Metric::ignore_case, "of exact_match")
        .field("ignore_punctuation", &Metric::ignore_punctuation, "of exact_match")
        .field("ignore_numbers", &Metric::ignore_numbers, "of exact_match")
        .rule([](const Metric& metric, const Yaml& node) {
          if ((metric.ignore_case || metric.ignore_punctuation || metric.ignore_numbers) &&
              metric.metric != "exact_match")
            node.refuse("ignore_case, ignore_punctuation and ignore_numbers belong to exact_match");
          const std::string kind = known_metric(metric.metric).evaluator["kind"];
          const int better = evaluator_kinds().at(kind)->better;
          if (metric.higher_is_better && better != 0 && *metric.higher_is_better != (better > 0))
            node["higher_is_better"].refuse(
                fmt::format("of {} {} is better", metric.metric, better > 0 ? "a higher value" : "a lower value"));
        });
  }();
  return schema;
}

struct FilterStep {
  std::string function, regex_pattern = R"(#### (\-?[0-9\.\,]+))", fallback = "[invalid]";
  int64_t group_select = 0;
};
const Schema<FilterStep>& schema_of(FilterStep*) {
  static const auto schema =
      Schema<FilterStep>("filter", "")
          .field("function", &FilterStep::function, "the step",
                 {.one_of = {"regex", "take_first", "remove_whitespace", "lowercase"}, .required = true})
          .field("regex_pattern", &FilterStep::regex_pattern, "of regex, in RE2's syntax")
          .field("group_select", &FilterStep::group_select, "of regex: which match; -1: the last")
          .field("fallback", &FilterStep::fallback, "of regex: what stands for no match")
          .rule([](const FilterStep& step, const Yaml& node) {
            if (step.function != "regex" &&
                (node.has("regex_pattern") || node.has("group_select") || node.has("fallback")))
              node.refuse("regex_pattern, group_select and fallback belong to function: regex");
            if (const re2::RE2 pattern(step.regex_pattern, re2::RE2::Quiet); !pattern.ok())
              node["regex_pattern"].refuse("not a regular expression in RE2's syntax, which has no look-around: " +
                                           pattern.error());
          });
  return schema;
}
struct Pipeline {
  std::string name;
  std::vector<FilterStep> filter;
};
const Schema<Pipeline>& schema_of(Pipeline*) {
  static const auto schema = Schema<Pipeline>("filter_list", "")
                                 .field("name", &Pipeline::name, "of the pipeline", {.required = true})
                                 .field("filter", &Pipeline::filter, "its steps", {.required = true});
  return schema;
}

struct TaskFile {
  std::string task, task_alias, dataset_path, test_split = "test", fewshot_split, description,
                                              output_type = "generate_until", doc_to_text, target_delimiter = " ",
                                              fewshot_delimiter = "\n\n";
  Json tag, metadata, doc_to_target, doc_to_choice;
  DataFiles dataset_kwargs;
  std::optional<FewshotConfig> fewshot_config;
  int64_t num_fewshot = 0;
  Generation generation_kwargs;
  std::vector<Metric> metric_list;
  std::vector<Pipeline> filter_list;
};
const Schema<TaskFile>& schema_of(TaskFile*) {
  using O = TaskFile;
  const char* hub = "data sets come from local files: dataset_path: json or csv, with dataset_kwargs.data_files";
  static const auto schema =
      Schema<O>("task", "A task in lm-evaluation-harness' form.")
          .field("task", &O::task, "its name", {.required = true})
          .field("task_alias", &O::task_alias, "without effect")
          .field("tag", &O::tag, "without effect")
          .field("metadata", &O::metadata, "without effect")
          .field("dataset_path", &O::dataset_path, hub, {.one_of = {"json", "csv"}, .required = true})
          .field("dataset_kwargs", &O::dataset_kwargs, "where the rows are", {.required = true})
          .field("test_split", &O::test_split, "the rows to evaluate on")
          .field("fewshot_split", &O::fewshot_split, "the rows that worked examples come from")
          .field("fewshot_config", &O::fewshot_config, "how")
          .field("num_fewshot", &O::num_fewshot, "worked examples before each question",
                 {.minimum = 0, .maximum = 1000})
          .field("description", &O::description, "Jinja: what stands before everything")
          .field("output_type", &O::output_type, "what the model is asked",
                 {.one_of = {"multiple_choice", "generate_until"}})
          .field("doc_to_text", &O::doc_to_text, "a field's name, or Jinja: the question", {.required = true})
          .field("doc_to_target", &O::doc_to_target, "a field's name, Jinja or a number: the answer",
                 {.required = true})
          .field("doc_to_choice", &O::doc_to_choice, "a field's name, Jinja that gives a list, or a list")
          .field("target_delimiter", &O::target_delimiter, "between question and answer")
          .field("fewshot_delimiter", &O::fewshot_delimiter, "after each worked example")
          .field("generation_kwargs", &O::generation_kwargs, "of generate_until")
          .field("metric_list", &O::metric_list, "what is measured", {.required = true})
          .field("filter_list", &O::filter_list, "what is made of an answer before it is scored")
          .renamed("dataset_name", hub)
          .renamed("validation_split", "test_split: the one split that is evaluated on")
          .renamed("include", "a task stands in one file: copy what it includes")
          .renamed("process_docs", "rows cannot be changed by Python here: change the data")
          .renamed("process_results", "results cannot be scored by Python here")
          .renamed("doc_to_decontamination_query", "contamination is looked for by data.guards")
          .renamed("should_decontaminate", "contamination is looked for by data.guards")
          .rule([](const O& file, const Yaml& node) {
            const bool choice = file.output_type == "multiple_choice";
            if (choice == file.doc_to_choice.is_null())
              node.refuse("doc_to_choice belongs to output_type: multiple_choice, which needs it");
            if (choice && (node.has("generation_kwargs") || node.has("filter_list")))
              node.refuse("generation_kwargs and filter_list belong to output_type: generate_until");
            if (file.num_fewshot > 0 && (file.fewshot_split.empty() || !file.fewshot_config))
              node.refuse(
                  "num_fewshot needs fewshot_split and fewshot_config: {sampler: first_n}; the harness' default "
                  "sampler "
                  "draws with Python's random numbers, which are not repeated here");
            if (file.metric_list.empty()) node["metric_list"].refuse("at least one metric is needed");
            for (size_t i = 0; i < file.metric_list.size(); ++i) {
              const KnownMetric& known = known_metric(file.metric_list[i].metric);
              if (choice ? !known.of_choices : !known.of_answers)
                node["metric_list"].items()[i]["metric"].refuse(
                    fmt::format("{} cannot be measured of output_type: {}", known.name, file.output_type));
            }
          });
  return schema;
}

/// The engine cuts the white space around blocks, as chat templates want it; the harness' templates keep it. An empty
/// expression between shields it.
std::string shielded(const std::string& source) {
  std::string result;
  for (size_t at = 0; at < source.size(); ++at) {
    const std::string_view rest = std::string_view(source).substr(at);
    if ((rest.starts_with("{%") || rest.starts_with("{#")) && !rest.substr(2).starts_with("-")) result += "{{ '' }}";
    result += source[at];
    if (rest.starts_with("}\n") && at > 0 && (source[at - 1] == '%' || source[at - 1] == '#')) result += "{{ '' }}";
  }
  return source.ends_with('\n') ? result + "{{ '' }}" : result;
}

/// A field's name, or a template over the fields.
class Text {
 public:
  Text(const std::string& source, const std::string& where) : source_(source), template_(shielded(source), where) {}

  bool is_field(const Row& row) const { return row.fields.contains(source_); }
  /// Error(bad_input) naming the row and the field when the row lacks one.
  Json of(const Row& row, const char* key) const {
    if (auto field = row.fields.find(source_); field != row.fields.end()) return *field;
    for (const std::string& name : template_.variables()) {
      if (row.fields.contains(name)) continue;
      std::string found;
      for (const auto& [field, value] : row.fields.items()) found += (found.empty() ? "" : ", ") + field;
      fail(Exit::bad_input, "{}: {} reads the field \"{}\", the row has: {}", row.place, key, name, found);
    }
    try {
      return template_.render(row.fields);
    } catch (const Error& error) {
      fail(Exit::bad_input, "{}: {}: {}", row.place, key, error.what());
    }
  }

 private:
  std::string source_;
  JinjaTemplate template_;
};

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// Jinja prints a list in Python's form; as JSON it can be read again.
std::string as_json_list(const std::string& source, const Yaml& node) {
  const size_t begin = source.find_first_not_of(" \n"), end = source.find_last_not_of(" \n");
  if (begin == std::string::npos || !source.substr(begin).starts_with("{{") ||
      !source.substr(0, end + 1).ends_with("}}") || source.find("{{", begin + 2) != std::string::npos)
    node.refuse("a field's name, a list, or one Jinja expression {{ … }} that gives a list");
  return "{{ (" + source.substr(begin + 2, end - begin - 3) + ") | tojson }}";
}

/// What a row's choices are made from.
class Choices {
 public:
  explicit Choices(const Yaml& node) {
    if (node.is_list()) {
      for (const Yaml& item : node.items()) fixed_.push_back(item.as_string());
    } else {
      field_ = node.as_string();
      if (field_.find("{{") != std::string::npos) list_.emplace(as_json_list(field_, node), node.where());
    }
  }

  std::vector<std::string> of(const Row& row) const {
    std::vector<std::string> choices = fixed_;
    if (choices.empty()) {
      Json list;
      if (list_) {
        list = parse_json(text_of(list_->of(row, "doc_to_choice")), row.place + ": doc_to_choice");
      } else if (row.fields.contains(field_)) {
        list = row.fields[field_];
      }
      if (!list.is_array()) fail(Exit::bad_input, "{}: doc_to_choice \"{}\" gives no list", row.place, field_);
      for (const Json& choice : list) choices.push_back(text_of(choice));
    }
    if (choices.size() < 2) fail(Exit::bad_input, "{}: {} choices, at least two are needed", row.place, choices.size());
    return choices;
  }

 private:
  std::vector<std::string> fixed_;
  std::string field_;
  std::optional<Text> list_;
};

/// Everything that turns a row into a document.
struct Maker {
  Text question, target;
  std::optional<Choices> choices;

  std::string target_of(const Row& row, const std::vector<std::string>& among) const {
    const Json value = target.of(row, "doc_to_target");
    if (value.is_array()) fail(Exit::bad_input, "{}: doc_to_target gives a list; one answer is needed", row.place);
    const std::string text = text_of(value);
    if (among.empty()) return text;
    // A text of the data is the choice that it names; a number, or what a template makes of one, counts from 0.
    const bool named = target.is_field(row) && value.is_string();
    if (named && std::find(among.begin(), among.end(), text) != among.end()) return text;
    if (!text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos) {
      const size_t index = std::stoul(text);
      if (index >= among.size())
        fail(Exit::bad_input, "{}: doc_to_target is choice {}, the row has {} (counted from 0)", row.place, index,
             among.size());
      return among[index];
    }
    if (std::find(among.begin(), among.end(), text) == among.end())
      fail(Exit::bad_input, "{}: doc_to_target \"{}\" is none of the row's {} choices", row.place, text, among.size());
    return text;
  }
  HarnessDocument document(const Row& row) const {
    HarnessDocument document{row.place, text_of(question.of(row, "doc_to_text")), "", {}, ""};
    document.question = document.prompt;
    if (choices) document.choices = choices->of(row);
    document.target = target_of(row, document.choices);
    return document;
  }
};

std::vector<Row> rows_of(const TaskFile& file, const Yaml& node, const std::string& split, size_t limit) {
  const Yaml files = node["dataset_kwargs"]["data_files"];
  std::vector<std::string> names;
  const auto add = [&](const Yaml& named) {
    if (!named.is_list()) return names.push_back(named.as_string());
    for (const Yaml& item : named.items()) names.push_back(item.as_string());
  };
  if (files.is_map()) {
    if (!files.has(split)) files.refuse(fmt::format("has no split \"{}\"", split));
    add(files[split]);
  } else {
    if (split != "train")
      files.refuse(fmt::format("without names of splits the rows are the split \"train\", not \"{}\"", split));
    add(files);
  }
  std::vector<Row> rows;
  for (const std::string& name : names) {
    fs::path path = name;
    if (!fs::exists(path)) path = node.folder() / name;
    if (!fs::exists(path)) files.refuse(fmt::format("{} is no file, neither from here nor beside the task", name));
    const Stream<Row> stream = open_rows({.kind = file.dataset_path == "csv" ? "csv" : "jsonl", .path = path});
    for (Row row; rows.size() < limit && stream(row);) rows.push_back(std::move(row));
  }
  if (rows.empty()) fail(Exit::bad_input, "{}: the split \"{}\" has no rows", node["dataset_kwargs"].where(), split);
  return rows;
}

/// The worked examples before each question.
std::string examples_before(const TaskFile& file, const Row& asked, std::span<const Row> pool, const Maker& maker) {
  std::string text;
  int64_t taken = 0;
  for (const Row& row : pool) {
    if (taken == file.num_fewshot) break;
    if (file.fewshot_split == file.test_split && row.fields == asked.fields) continue;
    const HarnessDocument example = maker.document(row);
    text += example.prompt + file.target_delimiter + example.target + file.fewshot_delimiter;
    ++taken;
  }
  if (taken < file.num_fewshot)
    fail(Exit::bad_input, "{}: num_fewshot is {}, the split \"{}\" has {} other rows", asked.place, file.num_fewshot,
         file.fewshot_split, taken);
  return text;
}

Evaluator metric_of(const Metric& metric, int64_t max_tokens) {
  Json keys = known_metric(metric.metric).evaluator;
  keys["name"] = metric.metric;
  for (const auto& [key, on] :
       {std::pair("ignore_case", metric.ignore_case), std::pair("ignore_punctuation", metric.ignore_punctuation),
        std::pair("ignore_numbers", metric.ignore_numbers)})
    if (on) keys[key] = true;
  Evaluator evaluator = evaluator_from(keys);
  const Needs needs = evaluator.kind->needs(*evaluator.options);
  if (!needs.answer && !needs.match) return evaluator;
  keys["max_tokens"] = max_tokens;
  return evaluator_from(keys);
}

std::vector<HarnessPipeline> pipelines_of(const TaskFile& file) {
  std::vector<HarnessPipeline> pipelines;
  for (const Pipeline& pipeline : file.filter_list) {
    pipelines.push_back({pipeline.name, {}});
    for (const FilterStep& step : pipeline.filter) {
      auto pattern = std::make_shared<re2::RE2>(step.regex_pattern, re2::RE2::Quiet);
      pipelines.back().filters.push_back({step.function, std::move(pattern), step.group_select, step.fallback});
    }
  }
  if (pipelines.empty()) pipelines.push_back({"none", {}});
  return pipelines;
}

}  // namespace

HarnessTask load_harness_task(const fs::path& path, int64_t limit) {
  const Yaml node = Yaml::load(path);
  const auto file = from_yaml<TaskFile>(node);
  HarnessTask task{.name = file.task,
                   .multiple_choice = file.output_type == "multiple_choice",
                   .target_delimiter = file.target_delimiter,
                   .until = {},
                   .max_tokens = file.generation_kwargs.max_gen_toks,
                   .pipelines = pipelines_of(file),
                   .metrics = {},
                   .documents = {}};
  const Json until = file.generation_kwargs.until.value_or(file.fewshot_delimiter);
  for (const Json& stop : until.is_array() ? until : Json::array({until})) task.until.push_back(text_of(stop));
  for (const Metric& metric : file.metric_list) task.metrics.push_back(metric_of(metric, task.max_tokens));
  Maker maker{{file.doc_to_text, node["doc_to_text"].where()},
              {text_of(file.doc_to_target), node["doc_to_target"].where()},
              std::nullopt};
  if (task.multiple_choice) maker.choices.emplace(node["doc_to_choice"]);
  const Text description(file.description, path.string() + ": description");
  std::vector<Row> pool;
  // One more than is wanted: the row that is asked may be among them.
  if (file.num_fewshot > 0) pool = rows_of(file, node, file.fewshot_split, SIZE_MAX);
  for (const Row& row : rows_of(file, node, file.test_split, limit > 0 ? static_cast<size_t>(limit) : SIZE_MAX)) {
    HarnessDocument document = maker.document(row);
    document.prompt =
        text_of(description.of(row, "description")) + examples_before(file, row, pool, maker) + document.prompt;
    if (document.prompt.empty()) fail(Exit::bad_input, "{}: doc_to_text is empty", row.place);
    task.documents.push_back(std::move(document));
  }
  return task;
}

}  // namespace retort
