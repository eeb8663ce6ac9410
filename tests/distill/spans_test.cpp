// Two tokenizations of one text: the stretches between meeting points, on the cases where aligners go wrong.
#include "distill/spans.h"

#include <gtest/gtest.h>

#include "tests/data/fake_tokenizer.h"
#include "tests/data/smollm2.h"

namespace retort {
namespace {

using Tokens = std::vector<std::string>;

/// "ab|c = a|bc" for each span: what a person checks.
std::vector<std::string> shown(const Tokens& student, const Tokens& teacher) {
  std::vector<std::string> all;
  for (const Span& span : align_spans(student, teacher)) {
    std::string line;
    for (int64_t i = span.student_begin; i < span.student_end; ++i)
      line += (i > span.student_begin ? "|" : "") + student[static_cast<size_t>(i)];
    line += " = ";
    for (int64_t i = span.teacher_begin; i < span.teacher_end; ++i)
      line += (i > span.teacher_begin ? "|" : "") + teacher[static_cast<size_t>(i)];
    all.push_back(line);
  }
  return all;
}

TEST(Spans, MeetWhereBothHaveABorder) {
  EXPECT_EQ(shown({"The", " ker", "nel", " runs"}, {"The", " kernel", " ru", "ns"}),
            (Tokens{"The = The", " ker|nel =  kernel", " runs =  ru|ns"}));
  EXPECT_EQ(shown({"abc", "d", "ef"}, {"a", "bcde", "f"}), (Tokens{"abc|d|ef = a|bcde|f"}));
  EXPECT_EQ(shown({"a"}, {"a"}), (Tokens{"a = a"}));
  EXPECT_TRUE(shown({}, {"a"}).empty());
  EXPECT_TRUE(shown({"a"}, {}).empty());
}

TEST(Spans, BytesInsideACharacterAreBordersToo) {
  // An euro sign (E2 82 AC): whole here, three byte tokens there, then split in two on both sides.
  EXPECT_EQ(shown({"\xE2\x82\xAC", "5"}, {"\xE2", "\x82", "\xAC", "5"}),
            (Tokens{"\xE2\x82\xAC = \xE2|\x82|\xAC", "5 = 5"}));
  EXPECT_EQ(shown({"a\xE2", "\x82\xAC"}, {"a", "\xE2", "\x82\xAC"}), (Tokens{"a\xE2 = a|\xE2", "\x82\xAC = \x82\xAC"}));
}

TEST(Spans, LeadingSpaceOfOneSideIsNoDifference) {
  EXPECT_EQ(shown({"The", " end"}, {" The", " end"}), (Tokens{"The =  The", " end =  end"}));
  EXPECT_EQ(shown({" The", " end"}, {"The", " end"}), (Tokens{" The = The", " end =  end"}));
  EXPECT_EQ(shown({"The"}, {"\n", " ", "The"}), (Tokens{"The = The"}));
  EXPECT_EQ(shown({" a"}, {" ", "a"}), (Tokens{" a =  |a"}));
  EXPECT_TRUE(shown({"  "}, {"\n"}).empty());
}

TEST(Spans, NothingIsAlignedAfterADifference) {
  EXPECT_EQ(shown({"same", " one", "x"}, {"same", " two", "x"}), (Tokens{"same = same"}));
  EXPECT_EQ(shown({"same", " longer"}, {"same"}), (Tokens{"same = same"}));
  EXPECT_TRUE(shown({"b", "c"}, {"a", "c"}).empty());
}

TEST(Spans, TokensWithoutBytesBelongToWhatComesBefore) {
  EXPECT_EQ(shown({"a", "", "b"}, {"a", "b", ""}), (Tokens{"a| = a", "b = b|"}));
}

TEST(Spans, EndsOfTurnMeetWhateverTheirText) {
  const FakeTokenizer bytes;
  const Tokenizer& real = smollm2();
  auto with_end = [](const Tokenizer& tokenizer, const std::string& text, int32_t end) {
    std::vector<int32_t> ids = tokenizer.encode(text, false);
    ids.push_back(end);
    return token_bytes(tokenizer, ids);
  };
  const std::string text = "A na\xC3\xAFve \xF0\x9F\x98\x80 caf\xC3\xA9.";
  const Tokens student = with_end(real, text, real.eos()), teacher = with_end(bytes, text, bytes.eos());
  const std::vector<Span> spans = align_spans(student, teacher);
  ASSERT_EQ(spans.size(), student.size()) << "a byte vocabulary meets every token";
  EXPECT_EQ(spans.back(), (Span{static_cast<int64_t>(student.size()) - 1, static_cast<int64_t>(student.size()),
                                static_cast<int64_t>(teacher.size()) - 1, static_cast<int64_t>(teacher.size())}));
  for (size_t i = 0; i < spans.size(); ++i) {
    EXPECT_EQ(spans[i].student_begin, static_cast<int64_t>(i));
    std::string covered;
    for (int64_t t = spans[i].teacher_begin; t < spans[i].teacher_end; ++t) covered += teacher[static_cast<size_t>(t)];
    EXPECT_EQ(covered, student[i]);
  }
}

}  // namespace
}  // namespace retort
