#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "data/loader.h"
#include "data/packing.h"
#include "tests/core/support.h"

namespace retort {
namespace {

class Windows : public PackedDataset {
 public:
  explicit Windows(int64_t count, std::string key = "key") : count_(count), key_(std::move(key)) {}
  int64_t windows() const override { return count_; }
  int64_t window_tokens(int64_t) const override { return 1; }
  int64_t window_trained(int64_t) const override { return 1; }
  const Ledger& ledger() const override { return ledger_; }
  Batch batch(std::span<const int64_t>) const override { return {}; }
  std::string key() const override { return key_; }

 private:
  int64_t count_;
  std::string key_;
  Ledger ledger_;
};

std::vector<int64_t> epoch_of(Loader& loader, int64_t n, int64_t windows) {
  std::vector<int64_t> all;
  while (static_cast<int64_t>(all.size()) < windows) {
    std::vector<int64_t> some = loader.next(n);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

TEST(Loader, GivesEveryWindowOnceAnEpoch) {
  Windows data(103);
  Loader loader(data, 7);
  std::vector<int64_t> first = epoch_of(loader, 10, 103), second = epoch_of(loader, 10, 103);
  EXPECT_EQ(first.size(), 103u);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 103u);
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 103u);
  EXPECT_NE(first, second);
  EXPECT_EQ(loader.epoch(), 1);
  Loader again(data, 7), other(data, 8);
  EXPECT_EQ(epoch_of(again, 1, 103), first);
  EXPECT_NE(epoch_of(other, 10, 103), first);
}

TEST(Loader, AnEpochsEndGivesFewer) {
  Windows data(5);
  Loader loader(data, 1, false);
  EXPECT_EQ(loader.next(3), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(loader.next(3), (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(loader.next(3), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(loader.epoch(), 1);
}

TEST(Loader, GoesOnWhereItStopped) {
  Windows data(37);
  for (int steps = 0; steps < 15; ++steps) {
    Loader one(data, 3), resumed(data, 3);
    for (int i = 0; i < steps; ++i) one.next(4);
    resumed.restore(parse_json(one.state().dump(), "state"));
    for (int i = 0; i < 25; ++i) EXPECT_EQ(one.next(4), resumed.next(4)) << steps;
  }
}

TEST(Loader, RefusesAnothersState) {
  Windows data(37), other(37, "other key"), longer(38);
  Loader loader(data, 3);
  loader.next(5);
  const Json state = loader.state();
  expect_error(Exit::bad_input, {"data", "other key"}, [&] { Loader(other, 3).restore(state); });
  expect_error(Exit::bad_input, {"windows", "38"}, [&] { Loader(longer, 3).restore(state); });
  expect_error(Exit::bad_input, {"seed"}, [&] { Loader(data, 4).restore(state); });
  expect_error(Exit::bad_input, {"shuffle"}, [&] { Loader(data, 3, false).restore(state); });
  for (const auto& [key, value] : {std::pair<std::string, Json>{"permutation", "0000000000000000"},
                                   {"position", 38},
                                   {"position", -1},
                                   {"epoch", -1},
                                   {"epoch", "x"}}) {
    Json changed = state;
    changed[key] = value;
    expect_error(Exit::bad_input, {key}, [&] { Loader(data, 3).restore(changed); });
  }
  expect_error(Exit::bad_input, {"no window"}, [] {
    Windows none(0);
    Loader loader(none, 1);
  });
}

TEST(Packer, KeepsEveryDocumentWholeAndOnce) {
  std::vector<Packer::Window> windows;
  Packer packer(100, true, [&](const Packer::Window& window) { windows.push_back(window); });
  int64_t total = 0, rows = 20000;  // more than one pool
  for (int64_t i = 0; i < rows; ++i) {
    int64_t length = 1 + i * 7919 % 100;
    total += length;
    packer.add({std::to_string(i), "", std::vector<int32_t>(length, static_cast<int32_t>(i)),
                std::vector<uint8_t>(length, 1), false});
  }
  packer.finish();
  std::set<int32_t> seen;
  int64_t tokens = 0;
  for (const Packer::Window& window : windows) {
    int64_t size = 0;
    for (const Example& example : window) {
      EXPECT_TRUE(seen.insert(example.ids[0]).second);
      EXPECT_EQ(example.ids.size(), 1u + int64_t{example.ids[0]} * 7919 % 100);
      size += static_cast<int64_t>(example.ids.size());
    }
    EXPECT_LE(size, 100);
    tokens += size;
  }
  EXPECT_EQ(seen.size(), static_cast<size_t>(rows));
  EXPECT_EQ(tokens, total);
  EXPECT_GT(static_cast<double>(total) / (100.0 * static_cast<double>(windows.size())), 0.95) << "windows are full";

  std::vector<Packer::Window> again;
  Packer same(100, true, [&](const Packer::Window& window) { again.push_back(window); });
  for (int64_t i = 0; i < 1000; ++i) same.add({"", "", std::vector<int32_t>(1 + i % 90, int32_t(i)), {}, false});
  same.finish();
  for (size_t w = 1; w < again.size(); ++w)
    EXPECT_LT(again[w - 1][0].ids[0], again[w][0].ids[0]) << "in the rows' order";
  expect_error(Exit::internal, {"101 tokens", "100"}, [&] {
    same.add({"", "", std::vector<int32_t>(101), {}, false});
  });
}

// Rows of one length are often of one kind; steps of one kind each make a worse model (docs/performance.md).
TEST(Packer, MixesShortAndLongRows) {
  size_t mixed = 0, windows = 0;
  Packer packer(120, true, [&](const Packer::Window& window) {
    std::set<size_t> lengths;
    for (const Example& example : window) lengths.insert(example.ids.size());
    mixed += lengths.size() > 1;
    ++windows;
  });
  for (int64_t i = 0; i < 1000; ++i) packer.add({"", "", std::vector<int32_t>(i < 500 ? 10 : 30), {}, false});
  packer.finish();
  EXPECT_GT(mixed, windows * 2 / 3);
}

}  // namespace
}  // namespace retort
