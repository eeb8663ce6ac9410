#include "distill/cells.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace retort {
namespace {

at::Tensor embedding(int64_t rows, int64_t dim, at::ScalarType type = at::kFloat) {
  return at::randn({rows, dim}, at::make_generator<at::CPUGeneratorImpl>(5), type);
}

TEST(Cells, AreTheSameOnAnyNumberOfThreads) {
  const at::Tensor rows = embedding(7000, 48);
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const Cells one = cluster_cells(rows, 7000, 16, 42);
  at::set_num_threads(3);
  const Cells three = cluster_cells(rows, 7000, 16, 42);
  at::set_num_threads(before);
  EXPECT_EQ(one.hash(), three.hash());
  EXPECT_EQ(one.of.max().item<int64_t>(), 15);
  EXPECT_NE(one.hash(), cluster_cells(rows, 7000, 16, 43).hash());
}

TEST(Cells, HoldTokensOfOneDirection) {
  // Five directions far apart, two hundred rows of any length around each.
  const at::Tensor centres = at::eye(5, 12), labels = at::arange(1000).remainder(5);
  const at::Tensor rows = (centres.index_select(0, labels) + 0.05 * embedding(1000, 12)) *
                          (0.1 + at::rand({1000, 1}, at::make_generator<at::CPUGeneratorImpl>(2)));
  const Cells cells = cluster_cells(rows, 1000, 5, 1);
  for (int64_t label = 0; label < 5; ++label) {
    const at::Tensor of = cells.of.index({labels == label});
    EXPECT_EQ(of.min().item<int64_t>(), of.max().item<int64_t>()) << "direction " << label;
  }
}

TEST(Cells, GivePaddingAndZeroRowsACellThatTheyDoNotMove) {
  const at::Tensor rows = embedding(600, 16), padding = 1000 * embedding(40, 16).flip(0);
  const Cells alone = cluster_cells(rows, 600, 8, 42);
  const Cells padded = cluster_cells(at::cat({rows, padding, at::zeros({3, 16})}), 600, 8, 42);
  EXPECT_TRUE(at::equal(alone.of, padded.of.slice(0, 0, 600)));
  EXPECT_LT(padded.of.max().item<int64_t>(), 8);
}

TEST(Cells, ThatLoseAllTheirTokensSpoilNoOther) {
  // Two directions and four cells: centres coincide, and the first one takes all.
  const at::Tensor rows = at::cat({at::eye(1, 8).expand({100, 8}), -at::eye(1, 8).expand({100, 8})});
  const at::Tensor of = cluster_cells(rows, 200, 4, 42).of;
  EXPECT_EQ(of.slice(0, 0, 100).min().item<int64_t>(), of.slice(0, 0, 100).max().item<int64_t>());
  EXPECT_EQ(of.slice(0, 100).min().item<int64_t>(), of.slice(0, 100).max().item<int64_t>());
  EXPECT_NE(of[0].item<int64_t>(), of[100].item<int64_t>());
}

TEST(Cells, TakeAnyFloatTypeAndRefuseMoreCellsThanRows) {
  EXPECT_EQ(cluster_cells(embedding(300, 8, at::kBFloat16), 300, 255, 1).count, 255);
  EXPECT_EQ(cluster_cells(embedding(300, 8), 300, 1, 1).of.max().item<int64_t>(), 0);
  EXPECT_THROW(cluster_cells(embedding(10, 8), 10, 11, 1), Error);
  EXPECT_THROW(cluster_cells(embedding(300, 8), 300, 256, 1), Error);
}

}  // namespace
}  // namespace retort
