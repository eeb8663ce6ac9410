// How far the file can read: a needle (a number in a sentence) hidden at several depths of texts of several lengths,
// and perplexity by position in the longest.
#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "models/served.h"
#include "monitor/evaluate.h"
#include "monitor/targets.h"

namespace retort {
namespace {

constexpr int64_t kAnswerTokens = 12;
constexpr int64_t kPositionsPerRange = 64;  // whose logits are looked at, evenly taken

struct Options : EvaluatorOptions {
  std::vector<int64_t> lengths = {256, 512, 1024};
  std::vector<double> depths = {0, 0.25, 0.5, 0.75, 1};
  int64_t texts = 2;
};
const Schema<Options>& schema_of(Options*) {
  static const auto schema = evaluator_schema<Options>("")
                                 .field("lengths", &Options::lengths, "tokens of a prompt with a needle in it",
                                        {.minimum = 128, .maximum = 1 << 20})
                                 .field("depths", &Options::depths, "where the needle is: 0 the beginning, 1 the end",
                                        {.minimum = 0, .maximum = 1})
                                 .field("texts", &Options::texts,
                                        "different texts for each length and depth, cut from the rows", {.minimum = 1})
                                 .rule([](const Options& options, const Yaml& node) {
                                   if (options.lengths.empty()) node["lengths"].refuse("at least one length is needed");
                                   if (options.depths.empty()) node["depths"].refuse("at least one depth is needed");
                                 });
  return schema;
}

/// Texts of `length` tokens cut from the rows one after the other.
std::vector<std::vector<int32_t>> cut_texts(const Measured& measured, int64_t length, int64_t count) {
  std::string all;
  for (const EvaluationRow& row : measured.rows) all += measured.tokenizer.decode(row.example.ids) + "\n\n";
  const std::vector<int32_t> ids = measured.tokenizer.encode(all, false);
  if (std::ssize(ids) < length)
    fail(Exit::bad_input, "evaluate: context: lengths up to {} tokens need as much text, the rows have {} tokens",
         length, ids.size());
  std::vector<std::vector<int32_t>> texts;
  for (int64_t begin = 0; begin + length <= std::ssize(ids) && std::ssize(texts) < count; begin += length)
    texts.emplace_back(ids.begin() + begin, ids.begin() + begin + length);
  return texts;
}

/// A prompt and the number that answers it.
struct Needle {
  int64_t length;
  double depth;
  std::string number;
  std::vector<int32_t> ids;
};

/// The wording is RULER's. `text` is shortened so that the prompt has `length` tokens.
Needle hidden(const Tokenizer& tokenizer, std::span<const int32_t> text, int64_t length, double depth, int64_t trial) {
  // A number of five digits that depends on nothing but the cell.
  const auto cell = static_cast<uint64_t>(length * 1000 + std::llround(depth * 100) * 10 + trial);
  Needle needle{length, depth, std::to_string(10000 + cell * 2654435761U % 90000), {}};
  const std::string key = "the special magic number for Retort";
  const std::vector<int32_t> sentence =
      tokenizer.encode("\nOne of the special magic numbers is this: " + key + " is " + needle.number + ".\n", false);
  const std::vector<int32_t> question =
      tokenizer.encode("\nWhat is " + key + " mentioned in the text above? In the text, " + key + " is", false);
  needle.ids = tokenizer.encode("", false, true);
  const int64_t taken = std::ssize(needle.ids) + std::ssize(sentence) + std::ssize(question), room = length - taken;
  if (room < 1)
    fail(Exit::usage,
         "evaluate: context: lengths: {} tokens hold no text beside the needle and its question, which have {} with "
         "this "
         "vocabulary; give more than {}",
         length, taken, taken);
  const auto before = static_cast<int64_t>(std::llround(depth * static_cast<double>(room)));
  needle.ids.insert(needle.ids.end(), text.begin(), text.begin() + before);
  needle.ids.insert(needle.ids.end(), sentence.begin(), sentence.end());
  needle.ids.insert(needle.ids.end(), text.begin() + before, text.begin() + room);
  needle.ids.insert(needle.ids.end(), question.begin(), question.end());
  return needle;
}

/// Whether each needle's number is in the greedy answer.
std::vector<RowScore> found(const Measured& measured, std::span<const Needle> needles) {
  std::vector<ServedRequest> requests;
  for (const Needle& needle : needles) requests.push_back({needle.ids, {}, kAnswerTokens});
  std::vector<RowScore> scores(needles.size());
  measured.model.run(requests, {}, [&](size_t i, const Generated& generated) {
    scores[i].numerator = measured.tokenizer.decode(generated.ids).find(needles[i].number) != std::string::npos;
  });
  return scores;
}

/// A range [from, to) of positions.
struct Range {
  int64_t from, to;
};

Json perplexity_by_position(const Measured& measured, const std::vector<std::vector<int32_t>>& texts) {
  std::vector<Range> ranges;
  const int64_t length = std::ssize(texts.front());
  for (int64_t from = 0, to = 64; from < length; from = to, to *= 2) ranges.push_back({from, std::min(to, length)});
  std::vector<int64_t> wanted, range_of;
  for (size_t r = 0; r < ranges.size(); ++r) {
    // The first token has nothing before it, the last position nothing after it.
    const int64_t from = ranges[r].from, count = std::min(ranges[r].to, length - 1) - from;
    for (int64_t k = 0; k < std::min(count, kPositionsPerRange); ++k) {
      wanted.push_back(from + k * count / std::min(count, kPositionsPerRange));
      range_of.push_back(static_cast<int64_t>(r));
    }
  }
  std::vector<std::vector<RowScore>> scores(ranges.size(), std::vector<RowScore>(texts.size(), RowScore{0, 0}));
  const std::vector<std::vector<int64_t>> positions(texts.size(), wanted);
  measured.model.logits(texts, positions, [&](size_t i, const at::Tensor& logits) {
    std::vector<int64_t> next;
    for (int64_t position : wanted) next.push_back(texts[i][static_cast<size_t>(position + 1)]);
    const std::vector<double> log_p = log_probabilities(logits, next);
    for (size_t k = 0; k < wanted.size(); ++k) {
      RowScore& score = scores[static_cast<size_t>(range_of[k])][i];
      score.numerator -= log_p[k];
      ++score.denominator;
    }
  });
  Json result = Json::array();
  for (size_t r = 0; r < ranges.size(); ++r) {
    Evaluation evaluation;
    const auto exponential = [](double x) { return std::exp(x); };
    estimate_ratio(scores[r], exponential, exponential, evaluation);
    if (!std::isfinite(evaluation.value))
      fail(Exit::bad_input, "evaluate: context: the model's logits at positions {} to {} are not finite numbers",
           ranges[r].from, ranges[r].to);
    result.push_back({{"from", ranges[r].from},
                      {"to", ranges[r].to},
                      {"perplexity", evaluation.value},
                      {"stderr", evaluation.standard_error}});
  }
  return result;
}

std::vector<Evaluation> measure(const EvaluatorOptions& given, const Measured& measured) {
  const auto& options = static_cast<const Options&>(given);
  const int64_t longest = *std::max_element(options.lengths.begin(), options.lengths.end());
  const std::vector<std::vector<int32_t>> texts = cut_texts(measured, longest, options.texts);
  std::vector<Needle> needles;
  for (int64_t length : options.lengths)
    for (double depth : options.depths)
      for (size_t t = 0; t < texts.size(); ++t)
        needles.push_back(hidden(measured.tokenizer, texts[t], length, depth, static_cast<int64_t>(t)));
  const std::vector<RowScore> scores = found(measured, needles);
  // All cells of a text share it: a text is one row.
  std::vector<RowScore> of_texts(texts.size(), RowScore{0, 0});
  Json cells = Json::array();
  for (size_t i = 0; i < needles.size(); i += texts.size()) {
    const auto cell = std::span(scores).subspan(i, texts.size());
    for (size_t t = 0; t < texts.size(); ++t) {
      of_texts[t].numerator += cell[t].numerator;
      of_texts[t].denominator += 1;
    }
    cells.push_back({{"length", needles[i].length}, {"depth", needles[i].depth}, {"n", texts.size()}});
    add_ratio("found", cell, cells.back());
  }
  Evaluation result;
  estimate_ratio(of_texts, result);
  result.details = {{"needles", std::move(cells)}, {"positions", perplexity_by_position(measured, texts)}};
  return {result};
}

}  // namespace

extern const EvaluatorKind evaluator_context;
const EvaluatorKind evaluator_context{
    .summary =
        "share of numbers found again that were hidden at several depths of texts of several lengths; also "
        "perplexity by position",
    .unit = "share",
    .better = 1,
    .schema = evaluator_schema_of<Options>,
    .read = read_evaluator_options<Options>,
    .measure = measure};

}  // namespace retort
