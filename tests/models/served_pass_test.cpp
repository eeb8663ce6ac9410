// How documents are put together for llama.cpp, without llama.cpp.
#include "models/served_pass.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace retort {
namespace {

using Ids = std::vector<int32_t>;

Ids tokens_of(const SharedPass& pass, size_t document) {
  Ids ids;
  for (const size_t node : pass.paths[document]) ids.push_back(pass.nodes[node].token);
  return ids;
}

TEST(SharedPass, TheCommonBeginningEndsBeforeWhatAnyoneWants) {
  std::vector<ServedRequest> requests = {{{1, 2, 3, 4}, {3}}, {{1, 2, 3, 5, 6}, {4}}};
  EXPECT_EQ(shared_beginning(requests), 3);
  requests[1].wanted = {1, 4};
  EXPECT_EQ(shared_beginning(requests), 1);
  // A continuation needs the logits of the last token, so that one is left to the pass.
  const std::vector<ServedRequest> continued = {{{1, 2, 3}, {}, 5}, {{1, 2, 3}, {}, 5}};
  EXPECT_EQ(shared_beginning(continued), 2);
  EXPECT_EQ(shared_beginning(std::vector<ServedRequest>{{{1, 2, 3}, {2}}}), 0) << "one document shares with none";
}

TEST(SharedPass, TokensAreComputedOnceUpToWhereDocumentsPart) {
  const std::vector<ServedRequest> requests = {
      {{9, 1, 2, 3}, {3}}, {{9, 1, 2, 4, 5}, {2, 4}}, {{9, 7}, {1}}, {{9, 1, 2, 3}, {3}, 2}};
  const SharedPass pass = plan_pass(requests, 0, 1, true);
  EXPECT_EQ(pass.last, 4u);
  EXPECT_EQ(pass.generated, 2);
  EXPECT_EQ(pass.nodes.size(), 6u) << "1, 2, 3, 4, 5 and 7";
  for (size_t d = 0; d < requests.size(); ++d) {
    EXPECT_EQ(tokens_of(pass, d), Ids(requests[d].ids.begin() + 1, requests[d].ids.end())) << d;
    for (size_t i = 0; i < pass.paths[d].size(); ++i) {
      const PassNode& node = pass.nodes[pass.paths[d][i]];
      EXPECT_EQ(node.position, static_cast<int64_t>(i) + 1);
      EXPECT_TRUE(std::find(node.sequences.begin(), node.sequences.end(), d + 1) != node.sequences.end());
      if (i > 0) {
        EXPECT_LT(pass.paths[d][i - 1], pass.paths[d][i]) << "a token follows its beginning";
      }
    }
    for (const int64_t wanted : requests[d].wanted)
      EXPECT_TRUE(pass.nodes[pass.paths[d][static_cast<size_t>(wanted - 1)]].output);
  }
  EXPECT_FALSE(pass.nodes[pass.paths[0][0]].output);
}

TEST(SharedPass, HoldsAsManyTokensAndDocumentsAsMayBe) {
  Ids document(200);
  std::iota(document.begin(), document.end(), 0);
  std::vector<ServedRequest> requests;
  for (int32_t i = 0; i < 4; ++i) {
    document[0] = 1000 + i;  // nothing in common
    requests.push_back({document, {199}});
  }
  EXPECT_EQ(plan_pass(requests, 0, 0, true).last, 2u);
  EXPECT_EQ(plan_pass(requests, 2, 0, true).first, 2u);
  requests[1].generate = 113;
  EXPECT_EQ(plan_pass(requests, 0, 0, true).last, 1u) << "there must be room for what follows";
  EXPECT_EQ(plan_pass(requests, 0, 0, false).last, 1u) << "a recurrent state is one document's";
  const std::vector<ServedRequest> long_one = {{Ids(2000, 1), {1999}}, {{1}, {0}}};
  EXPECT_EQ(plan_pass(long_one, 0, 0, true).last, 1u);
  const std::vector<ServedRequest> many(300, {{1, 2}, {1}});
  EXPECT_EQ(plan_pass(many, 0, 0, true).last, static_cast<size_t>(kPassDocuments));
}

}  // namespace
}  // namespace retort
