// A model that trains in a second, its rows, and a serving log that can move to another domain.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/json.h"
#include "core/rng.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"
#include "tests/export/tiny_folder.h"

namespace retort {

struct RetrainFolder {
  TemporaryFolder folder;
  std::string recipe = folder / "recipe.yaml";
  std::vector<std::string> rows;

  RetrainFolder() {
    setenv("RETORT_CACHE", (folder / "cache").c_str(), 1);
    setenv("RETORT_PROJECT_KEY", "a key for tests, longer than 16", 1);
    write_tiny_folder(folder / "base", tiny_folder_config(1), at::kFloat);
    write_atomic(folder / "held.jsonl", rows_of(0, 60, false) + rows_of(60, 60, true));
    add_rows(200, 40, false);
    usual(false);
    write_atomic(recipe, fmt::format(R"(
name: orders
seed: 1
license: apache-2.0
threads: 1
output_dir: {0}/runs
model: {{path: {0}/base, base: f32}}
adapter: {{kind: lora, r: 8, lora_alpha: 16}}
data:
  max_length: 64
  guards: {{pii: {{action: fail}}}}
  train: [{{kind: jsonl, path: {0}/train.jsonl}}]
  validation: [{{kind: jsonl, path: {0}/held.jsonl}}]
train: {{max_steps: 24, micro_batch_size: 4, learning_rate: 1.0e-2, eval_steps: 100, save_steps: 8}}
export: {{files: [{{format: gguf, type: F32}}], gate: {{rows: 4}}}}
evaluate: [{{kind: bits_per_byte}}]
drift:
  baseline: [{{kind: jsonl, path: {0}/baseline.jsonl}}]
  slot: week
  min_rows: 10
  max_tokens: 32
  average_run_length: 12
  calibration: {{resamples: 999, sizes: [20]}}
retrain:
  slot: week
  registry: {0}/registry
  min_new_rows: 10
  gate: {{margin: 0.1}}
)",
                                     folder.path().string()));
  }
  ~RetrainFolder() {
    unsetenv("RETORT_CACHE");
    unsetenv("RETORT_PROJECT_KEY");
  }

  static std::string word(Rng& rng, const std::vector<std::string>& words) { return words[rng.below(words.size())]; }
  static uint64_t number(uint64_t i) { return 100 + i * 7919 % 900; }
  /// What is asked; `moved`: of another domain.
  static std::string question(Rng& rng, bool moved) {
    if (moved)
      return fmt::format("for (int {0} = 0; {0} < {1}; ++{0}) x[{0}] *= {2};", word(rng, {"i", "j", "k"}),
                         rng.below(900), word(rng, {"a", "0.5f", "n"}));
    return fmt::format("{} {} {}?", word(rng, {"Where is", "When comes", "Who sent"}),
                       word(rng, {"the blue", "my new", "that old"}), word(rng, {"lamp", "coat", "kettle", "radio"}));
  }
  /// What the next champion's traffic will be compared with.
  void usual(bool moved) const { write_atomic(folder / "baseline.jsonl", rows_of(5000, 60, moved)); }
  /// Rows `from` to `from + count` of a stream that is always the same.
  static std::string rows_of(uint64_t from, uint64_t count, bool moved) {
    std::string text;
    for (uint64_t i = from; i < from + count; ++i) {
      Rng rng(i);
      text += Json{{"prompt", fmt::format("{} {}", question(rng, moved), number(i))},
                   {"completion", moved ? "{ return; }" : "On Monday."}}
                  .dump() +
              "\n";
    }
    return text;
  }
  void add_rows(uint64_t from, uint64_t count, bool moved) {
    rows.push_back(rows_of(from, count, moved));
    write_rows();
  }
  void write_rows() const {
    std::string all;
    for (const std::string& some : rows) all += some;
    write_atomic(folder / "train.jsonl", all);
  }
  /// A log of one day; the last `moved` rows are of the other domain.
  std::string log(uint64_t seed, uint64_t count, uint64_t moved, const std::string& day) const {
    std::string text;
    Rng rng(seed);
    for (uint64_t i = 0; i < count; ++i)
      text += Json{{"prompt", fmt::format("{} {}", question(rng, i + moved >= count), number(seed + 31 * i))},
                   {"time", day}}
                  .dump() +
              "\n";
    const std::string file = folder / "traffic.jsonl";
    write_atomic(file, text);
    return file;
  }

  std::vector<std::string> command(const std::string& day, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"retrain", recipe, "--quiet", "--json", "--now", day};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  ProcessResult run(const std::string& day, std::vector<std::string> more = {}) const {
    return retort(command(day, std::move(more)));
  }
  std::filesystem::path champion(const std::string& model = "orders") const {
    return folder / "registry/models" / model / "champion";
  }
};

inline Json verdict_of(const ProcessResult& result) { return parse_json(result.output, "the verdict"); }

}  // namespace retort
