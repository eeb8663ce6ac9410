// Two keys and the e-detector: by hand, by their guarantees, and by what seq-style simulations give.
#include "monitor/alarm.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/rng.h"
#include "tests/core/support.h"

namespace retort {
namespace {

TEST(TwoKeys, BenjaminiHochbergAgreesWithScipy) {
  const Json golden = read_json(std::filesystem::path(RETORT_GOLDEN) / "drift.json")["scipy"];
  const auto adjusted = benjamini_hochberg(golden["bh_p"].get<std::vector<double>>());
  const auto expected = golden["bh_adjusted"].get<std::vector<double>>();
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(adjusted[i], expected[i], 1e-12);
  EXPECT_TRUE(benjamini_hochberg({}).empty());
  EXPECT_THROW(benjamini_hochberg(std::vector<double>{0.5, 1.5}), Error);
  EXPECT_THROW(benjamini_hochberg(std::vector<double>{NAN}), Error);
}

TEST(TwoKeys, AnAlarmNeedsBoth) {
  const auto detection = [](double p, double effect) {
    return Detection{.name = "psi", .statistic = 0, .p_value = p, .effect = effect, .limit = 0.1, .details = {}};
  };
  // 0.03 is significant alone, but not as one of four.
  const std::vector<Detection> detections = {detection(0.001, 0.2), detection(0.001, 0.1), detection(0.03, 0.2),
                                             detection(0.9, 0.2)};
  const std::vector<Verdict> verdicts = two_keys(detections, 0.03);
  EXPECT_TRUE(verdicts[0].alarm());
  EXPECT_TRUE(verdicts[1].significant);
  EXPECT_FALSE(verdicts[1].large);  // at its limit is not above it
  EXPECT_FALSE(verdicts[1].alarm());
  EXPECT_FALSE(verdicts[2].significant);
  EXPECT_TRUE(verdicts[2].large);
  EXPECT_FALSE(verdicts[2].alarm());
  EXPECT_NEAR(verdicts[2].p_adjusted, 0.04, 1e-12);
  EXPECT_TRUE(two_keys(std::vector{detection(0.03, 0.2)}, 0.03)[0].alarm());
  EXPECT_THROW(two_keys(std::vector{detection(NAN, 0.2)}), Error);
  EXPECT_THROW(two_keys(detections, 0), Error);
}

TEST(Evidence, HasMeanOneWhereNothingHasChanged) {
  // Of p-values, by the midpoint rule in u = p^0.1, which tames the pole at 0.
  Evidence mean{};
  const int steps = 20000;
  for (int i = 0; i < steps; ++i) {
    const double u = (i + 0.5) / steps, p = std::pow(u, 10);
    const Evidence evidence = evidence_of_p_value(p);
    for (size_t k = 0; k < kAlternatives; ++k) mean[k] += evidence[k] * 10 * std::pow(u, 9) / steps;
  }
  for (double m : mean) EXPECT_NEAR(m, 1, 1e-4);
  // Of counts, summed over all of them; the grid is that of the accuracies .85, .80, .75, .70 below .90.
  mean = {};
  const int rows = 50;
  for (int right = 0; right <= rows; ++right) {
    const double p = std::exp(std::lgamma(rows + 1) - std::lgamma(right + 1) - std::lgamma(rows - right + 1) +
                              right * std::log(0.9) + (rows - right) * std::log(0.1));
    const Evidence evidence = evidence_of_accuracy(right, rows, 0.9);
    for (size_t k = 0; k < kAlternatives; ++k) mean[k] += p * evidence[k];
  }
  for (double m : mean) EXPECT_NEAR(m, 1, 1e-9);
  EXPECT_NEAR(evidence_of_accuracy(40, 50, 0.9)[1], std::pow(0.8 / 0.9, 40) * std::pow(2, 10), 1e-9);
  // A low accuracy falls to a tenth at most.
  EXPECT_NEAR(evidence_of_accuracy(0, 1, 0.05)[3], 0.995 / 0.95, 1e-12);
  const std::vector<Evidence> both = {{1, 2, 3, 4}, {3, 2, 1, 0}};
  EXPECT_EQ(merge_evidence(both), (Evidence{2, 2, 2, 2}));
  EXPECT_THROW(merge_evidence({}), Error);
  // scipy 1.17.1: binomtest(45, 50).proportion_ci(0.9, "wilson").low
  EXPECT_NEAR(accuracy_lower_bound(0.9, 50), 0.8084624858484292, 1e-6);
  EXPECT_EQ(accuracy_lower_bound(0, 50), 0);
  EXPECT_THROW(accuracy_lower_bound(NAN, 50), Error);
  EXPECT_THROW(accuracy_lower_bound(0.5, 0), Error);
  EXPECT_THROW(evidence_of_p_value(0), Error);
  EXPECT_THROW(evidence_of_p_value(NAN), Error);
  EXPECT_THROW(evidence_of_accuracy(5, 4, 0.9), Error);
  EXPECT_THROW(evidence_of_accuracy(1, 4, 1), Error);
}

TEST(SequentialAlarm, IsShiryaevAndRoberts) {
  EXPECT_EQ(SequentialOptions{}.average_run_length, 365);  // a year of daily slots
  SequentialAlarm alarm({.average_run_length = 10, .baseline = {}});
  EXPECT_DOUBLE_EQ(alarm.step(1, {1, 1, 2, 4}).level, 2);     // R = 1, 1, 2, 4
  EXPECT_DOUBLE_EQ(alarm.step(2, {1, 0, 1, 2}).level, 3.75);  // R = 2, 0, 3, 10
  const SlotAnswer third = alarm.step(5, {1, 1, 1, 3});       // R = 3, 1, 4, 33
  EXPECT_DOUBLE_EQ(third.level, 10.25);
  EXPECT_TRUE(third.alarm);
  EXPECT_THROW(alarm.step(4, {1, 1, 1, 1}), Error);
  EXPECT_THROW(alarm.step(6, {1, NAN, 1, 1}), Error);
  EXPECT_THROW(SequentialAlarm({.average_run_length = 0.5, .baseline = {}}), Error);
  for (int64_t slot = 6; slot < 3000; ++slot) alarm.step(slot, {9, 9, 9, 9});
  EXPECT_TRUE(std::isfinite(alarm.history().back().level));
  EXPECT_EQ(alarm.history().size(), SequentialAlarm::kHistory);
}

int64_t binomial(Rng& rng, int64_t rows, double p) {
  int64_t count = 0;
  for (int64_t i = 0; i < rows; ++i) count += rng.uniform() < p;
  return count;
}

/// Slot of the first alarm of 50 labelled rows a day with accuracy 0.9 until `onset`, or 0.
int64_t first_alarm(uint64_t stream, double after, int64_t onset, int64_t days) {
  Rng rng(21, stream + 1);
  SequentialAlarm alarm({.average_run_length = 365, .baseline = {}});
  for (int64_t day = 1; day <= days; ++day) {
    if (alarm.step(day, evidence_of_accuracy(binomial(rng, 50, day <= onset ? 0.9 : after), 50, 0.9)).alarm) return day;
  }
  return 0;
}

TEST(SequentialAlarm, FalseAlarmsAndDelaysAreThoseOfThePrototype) {
  // Of 2,000 streams elsewhere: .07 and .25 of false alarms in 90 and 365 days; 9.0 and 3.2 days to see .85 and .80.
  const int streams = 400;
  int within_90 = 0, within_365 = 0;
  for (int s = 0; s < streams; ++s) {
    const int64_t day = first_alarm(static_cast<uint64_t>(s), 0.9, 365, 365);
    within_90 += day > 0 && day <= 90;
    within_365 += day > 0;
  }
  EXPECT_NEAR(within_90 / 400.0, 0.07, 0.05);
  EXPECT_NEAR(within_365 / 400.0, 0.25, 0.08);
  for (const auto& [after, delay] : {std::pair{0.85, 9.0}, {0.80, 3.2}}) {
    double sum = 0, seen = 0;
    for (int s = 0; s < streams; ++s) {
      const int64_t day = first_alarm(static_cast<uint64_t>(s), after, 30, 400);
      if (day <= 30) continue;
      sum += static_cast<double>(day - 30);
      ++seen;
    }
    EXPECT_NEAR(sum / seen, delay, 0.15 * delay) << after;
  }
}

TEST(SequentialAlarm, UniformPValuesRarelyAlarmInAYear) {
  int alarms = 0;
  for (uint64_t stream = 1; stream <= 300; ++stream) {
    Rng rng(22, stream);
    SequentialAlarm alarm({.average_run_length = 365, .baseline = {}});
    bool raised = false;
    for (int64_t day = 1; day <= 36; ++day) {  // a tenth of the run length: at most a tenth of the streams alarm
      const Evidence signals[] = {evidence_of_p_value(1 - rng.uniform()), evidence_of_p_value(1 - rng.uniform())};
      raised = raised || alarm.step(day, merge_evidence(signals)).alarm;
    }
    alarms += raised;
  }
  EXPECT_LE(alarms, 30 + 4 * 5);
}

const SequentialOptions kOptions{.average_run_length = 365, .baseline = "abc"};

TEST(AlarmState, TheSameSlotAgainGivesTheSameAnswer) {
  TemporaryFolder folder;
  const auto path = folder.path() / "state" / "alarm.json";
  EXPECT_FALSE(read_alarm(path, kOptions));
  const SlotAnswer first = step_alarm(path, kOptions, 3, {2, 2, 2, 2}, {{"p", 0.125}});
  EXPECT_FALSE(first.repeated);
  const std::string before = read_text(path);
  const SlotAnswer again = step_alarm(path, kOptions, 3, {500, 500, 500, 500}, {{"p", 0.5}});
  EXPECT_TRUE(again.repeated);
  EXPECT_EQ(again.level, first.level);
  EXPECT_EQ(again.alarm, first.alarm);
  EXPECT_EQ(again.record["p"], 0.125);
  EXPECT_EQ(read_text(path), before);
  EXPECT_THROW(step_alarm(path, kOptions, 2, {2, 2, 2, 2}), Error);
  EXPECT_EQ(read_text(path), before);
  // The file carries on exactly as one object does.
  SequentialAlarm alarm(kOptions);
  alarm.step(3, {2, 2, 2, 2});
  for (int64_t slot = 4; slot < 9; ++slot) {
    const Evidence evidence = {1.1, 0.7 * static_cast<double>(slot), 1.0 / 3, 0};
    EXPECT_EQ(step_alarm(path, kOptions, slot, evidence).level, alarm.step(slot, evidence).level);
  }
  EXPECT_EQ(read_alarm(path, kOptions)->history().size(), 6U);
}

TEST(AlarmState, SlotsThatAreRecordedMayComeAgainInAnyOrder) {
  TemporaryFolder folder;
  const auto path = folder.path() / "alarm.json";
  std::vector<SlotAnswer> answers;
  for (int64_t slot : {3, 5, 6}) {
    const double e = static_cast<double>(slot);
    answers.push_back(step_alarm(path, kOptions, slot, {e, e, e, e}, {{"of", slot}}));
  }
  const std::string before = read_text(path);
  for (size_t i : {0, 2, 1, 0}) {
    const SlotAnswer again = step_alarm(path, kOptions, answers[i].slot, {1, 1, 1, 1}, {{"of", "now"}});
    EXPECT_TRUE(again.repeated);
    EXPECT_EQ(again.level, answers[i].level);
    EXPECT_EQ(again.record, answers[i].record);
  }
  EXPECT_EQ(read_text(path), before);
  // Slot 4 was passed over: its evidence would come too late.
  expect_error(Exit::bad_input, {"slot 4", "6"}, [&] { step_alarm(path, kOptions, 4, {1, 1, 1, 1}); });
  EXPECT_FALSE(step_alarm(path, kOptions, 7, {1, 1, 1, 1}).repeated);
}

TEST(AlarmState, DamagedFilesAndOtherBaselinesAreRefused) {
  TemporaryFolder folder;
  const auto path = folder.path() / "alarm.json";
  step_alarm(path, kOptions, 1, {2, 2, 2, 2});
  const std::string good = read_text(path);
  const auto refused = [&](const std::string& text, const SequentialOptions& options) {
    write_atomic(path, text);
    try {
      step_alarm(path, options, 2, {2, 2, 2, 2});
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_input);
      EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
    }
    EXPECT_EQ(read_text(path), text);
  };
  for (size_t length : {size_t{0}, good.size() / 2, good.size() - 3}) refused(good.substr(0, length), kOptions);
  std::string changed = good;
  changed.replace(changed.find("2.0"), 3, "1.0");
  refused(changed, kOptions);
  refused("{}", kOptions);
  refused("[1, 2]", kOptions);
  refused(good, {.average_run_length = 365, .baseline = "other"});
  refused(good, {.average_run_length = 30, .baseline = "abc"});
  write_atomic(path, good);
  EXPECT_FALSE(step_alarm(path, kOptions, 2, {2, 2, 2, 2}).repeated);
}

TEST(AlarmState, AKilledProcessLeavesTheLastWholeSlot) {
  TemporaryFolder folder;
  const auto path = folder.path() / "alarm.json";
  const Evidence evidence = {1.1, 0.9, 1.02, 0.97};
  SequentialAlarm alone(kOptions);
  int64_t reached = 0;
  for (int kill_after_us : {0, 300, 1000, 2500, 6000, 15000, 40000}) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int64_t slot = reached + 1;; ++slot) step_alarm(path, kOptions, slot, evidence);
    }
    usleep(static_cast<useconds_t>(kill_after_us));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));  // not by an error of its own
    const auto state = read_alarm(path, kOptions);
    if (!state) continue;
    const SlotAnswer last = state->history().back();
    for (int64_t slot = reached + 1; slot <= last.slot; ++slot) alone.step(slot, evidence);
    EXPECT_EQ(last.level, alone.history().back().level);
    // The slot that was under way can be given again: the lock has gone with the process.
    EXPECT_EQ(step_alarm(path, kOptions, last.slot + 1, evidence).level, alone.step(last.slot + 1, evidence).level);
    reached = last.slot + 1;
  }
  EXPECT_GT(reached, 3);
}

TEST(AlarmState, ProcessesAtOnceTakeTurns) {
  TemporaryFolder folder;
  const auto path = folder.path() / "alarm.json";
  SequentialAlarm alone(kOptions);
  for (int64_t slot = 1; slot <= 5; ++slot) {
    const double expected = alone.step(slot, {2, 2, 2, 2}).level;
    std::vector<pid_t> children;
    for (int c = 0; c < 4; ++c) {
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {  // says by its exit status what it was answered
        const SlotAnswer answer = step_alarm(path, kOptions, slot, {2, 2, 2, 2});
        _exit(answer.level != expected ? 2 : answer.repeated ? 1 : 0);
      }
      children.push_back(child);
    }
    int fresh = 0;
    for (pid_t child : children) {
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFEXITED(status));
      EXPECT_LE(WEXITSTATUS(status), 1);
      fresh += WEXITSTATUS(status) == 0;
    }
    EXPECT_EQ(fresh, 1);
  }
}

}  // namespace
}  // namespace retort
