// train.fit: what it chooses, what it says, and that the choice trains the same.
#include "trainer/fit.h"

#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "core/error.h"
#include "tests/trainer/fake.h"

namespace retort {
namespace {

TrainOptions options_from(const std::string& yaml) { return from_yaml<TrainOptions>(Yaml::parse(yaml, "test.yaml")); }

/// The small random Llama of two blocks, with adapters, and windows so long that two ways' needs differ by megabytes:
/// nothing is computed, and the process differs by less between two measurements of it.
struct Case {
  std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(RETORT_GOLDEN "/tiny_llama/grouped");
  std::unique_ptr<CausalLM> model = CausalLM::load(*checkpoint, {.base = BaseForm::dense});
  EvenData data{40, 40000, 40};

  Case() { attach(*model, {}, 7); }
  /// Bytes that a way needs, with the tenth that is kept free.
  int64_t need(int64_t micro, int64_t every) {
    TrainOptions options;
    options.micro_batch_size = micro;
    options.gradient_accumulation_steps = 8 / micro;
    options.gradient_checkpointing = every > 0;
    options.gradient_checkpointing_every = std::max<int64_t>(1, every);
    return static_cast<int64_t>(1.1 * static_cast<double>(plan_memory(*model, data, nullptr, options, 1).total()));
  }
  Fit fit(int64_t bytes) {
    return fit_training(
        *model, data, nullptr,
        options_from(fmt::format("{{micro_batch_size: 2, gradient_accumulation_steps: 4, fit: {{memory: "
                                 "{}}}}}",
                                 bytes)),
        1);
  }
};

}  // namespace

TEST(Fit, TakesTheFastestWayThatFits) {
  Case c;
  const Fit all = c.fit(int64_t{1} << 40);
  EXPECT_EQ(all.options.micro_batch_size, 8);
  EXPECT_EQ(all.options.gradient_accumulation_steps, 1);
  EXPECT_FALSE(all.options.gradient_checkpointing);
  EXPECT_NE(all.reason.find("nothing is faster"), std::string::npos) << all.reason;

  // Half-way between two ways' needs.
  const auto between = [&](int64_t less, int64_t more) {
    EXPECT_GT(more - less, int64_t{16} << 20);
    return less + (more - less) / 2;
  };
  // The batch is split before blocks run again.
  const int64_t not_all = between(c.need(4, 0), c.need(8, 0));
  const Fit split = c.fit(not_all);
  EXPECT_EQ(split.options.micro_batch_size, 4);
  EXPECT_EQ(split.options.windows_per_step(), 8);
  EXPECT_FALSE(split.options.gradient_checkpointing);
  EXPECT_LE(split.memory.total(), not_all);
  EXPECT_NE(split.reason.find("micro_batch_size 8"), std::string::npos) << split.reason;

  // Only the smallest way is left.
  const Fit tight = c.fit(between(c.need(1, 1), c.need(1, 2)));
  EXPECT_EQ(tight.options.micro_batch_size, 1);
  EXPECT_EQ(tight.options.gradient_accumulation_steps, 8);
  EXPECT_TRUE(tight.options.gradient_checkpointing);
  EXPECT_EQ(tight.options.gradient_checkpointing_every, 1);
}

TEST(Fit, WhatCannotFitIsAnErrorThatSaysWhatTakesTheMemory) {
  Case c;
  try {
    c.fit(1000);
    ADD_FAILURE() << "fits into 1000 bytes";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::usage);
    for (const char* part : {"train.fit.memory: 1.0 kB", "micro_batch_size 1", "weights", "activations", "adamw_8bit"})
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << part << "\n" << error.what();
  }
}

TEST(Fit, TheChoiceIsReadBackAndAnotherRecipesIsRefused) {
  Case c;
  const Fit fit = c.fit(c.need(4, 0));
  const TrainOptions options = options_from("{micro_batch_size: 8, fit: {memory: 1GiB}}");
  const Fit again = Fit::from_json(fit.to_json(), options, "fit.json");
  EXPECT_EQ(again.options.micro_batch_size, fit.options.micro_batch_size);
  EXPECT_EQ(again.options.gradient_accumulation_steps, fit.options.gradient_accumulation_steps);
  EXPECT_EQ(again.reason, fit.reason);
  Json broken = fit.to_json();
  broken["gradient_accumulation_steps"] = 3;
  EXPECT_THROW(Fit::from_json(broken, options, "fit.json"), Error);
  broken.erase("micro_batch_size");
  EXPECT_THROW(Fit::from_json(broken, options, "fit.json"), Error);
}

TEST(TrainOptions, ReadsSizesOfMemory) {
  for (const auto& [text, bytes] : std::vector<std::pair<std::string, int64_t>>{
           {"8GiB", int64_t{8} << 30}, {"1.5 GB", 1500000000}, {"500MB", 500000000}, {"4096", 4096}, {"16 KiB", 16384}})
    EXPECT_EQ(options_from(fmt::format("{{fit: {{memory: {}}}}}", text)).fit->memory.bytes, bytes) << text;
  for (const char* text :
       {"{fit: {memory: 8 gigs}}", "{fit: {memory: -1GiB}}", "{fit: {memory: 0}}", "{fit: {memory: [8]}}", "{fit: {}}",
        "{fit: {memory: 8GiB, gradient_checkpointing: true}}", "{fit: {memory: 8GiB}, gradient_checkpointing: true}",
        "{gradient_checkpointing_every: 2}", "{activation_offloading: true}", "{fit: {memory: 1e30}}"}) {
    try {
      options_from(text);
      ADD_FAILURE() << text << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage) << text;
    }
  }
}

}  // namespace retort
