// What is done about findings, whatever guard made them.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/files.h"
#include "core/hash.h"
#include "core/rng.h"
#include "core/temporary_folder.h"
#include "data/guard_run.h"
#include "tests/core/support.h"
#include "tests/data/guard_support.h"

namespace retort {
namespace {

const std::string quality_only = "deduplicate: false, contamination: false, secrets: false, quality: ";
const std::string short_text = "few words", mail = "write to ann.lee@example.com or bob@example.org today";

struct Key {
  TemporaryFolder folder;
  std::string path = (folder / "key").string();
  Key() { write_atomic(path, "0123456789abcdef0123456789abcdef\n"); }
};

TEST(Guards, ReportByDefaultAndChangeNothing) {
  const Guarded result = guard("{" + quality_only + "{rules: [gopher_min_words]}}", text_rows({short_text}));
  ASSERT_EQ(result.rows.size(), 1u);
  EXPECT_EQ(result.rows[0].text, short_text);
  ASSERT_EQ(result.audit.size(), 1u);
  EXPECT_EQ(result.audit[0]["action"], "report");
  EXPECT_EQ(result.totals.rules.at("quality").at("gopher_min_words").findings, 1);
}

TEST(Guards, LookForDuplicatesAndContaminationWithoutBeingAsked) {
  const std::string row = "the quick brown fox jumps over the lazy dog while seven wizards box quietly at night";
  const Guarded result = guard("{}", text_rows({row, row}), text_rows({row}, "held"));
  EXPECT_EQ(result.rows.size(), 2u);
  EXPECT_EQ(result.found(), (std::vector<std::string>{"whole rows:1", "whole rows:2", "exact rows:2"}));
  const Guarded nothing = guard("{deduplicate: false, contamination: false, secrets: false}", text_rows({row, row}),
                                text_rows({row}, "held"));
  EXPECT_TRUE(nothing.audit.empty());
}

TEST(Guards, DropLeavesTheRowOutAndFailEndsThePassNamingIt) {
  const std::string rules = "rules: [gopher_min_words], limits: {gopher_min_words: 5}";
  const std::vector<Chat> rows = text_rows({"one two three four five", short_text, "six words are more than five ."});
  const Guarded result = guard("{" + quality_only + "{action: drop, " + rules + "}}", rows);
  ASSERT_EQ(result.rows.size(), 2u);
  EXPECT_EQ(result.rows[1].place, "rows:3");
  EXPECT_EQ(result.totals.dropped, 1);
  EXPECT_EQ(result.totals.kept, 2);
  expect_error(Exit::data_guard, {"rows:2", "quality", "gopher_min_words"},
               [&] { guard("{" + quality_only + "{action: fail, " + rules + "}}", rows); });
  // `retort guard` goes on, so that it can name every row.
  const Guarded all = guard("{" + quality_only + "{action: fail, " + rules + "}}", rows, {}, false);
  EXPECT_EQ(all.totals.refused, 1);
  EXPECT_EQ(all.rows.size(), 2u);
  EXPECT_EQ(refusal_of(all.totals), Exit::data_guard);
  EXPECT_EQ(refusal_of(result.totals), Exit::done);
}

TEST(Guards, RefuseToDropEveryRow) {
  expect_error(Exit::data_guard, {"all 2", "data.train"}, [&] {
    guard("{" + quality_only + "{action: drop, rules: [gopher_min_words]}}", text_rows({"a b c", "d e f"}));
  });
}

TEST(Guards, GiveARuleAnActionOfItsOwn) {
  const Guarded result = guard("{" + quality_only +
                                   "{rules: [gopher_min_words, gopher_stop_words], actions: {gopher_min_words: drop}, "
                                   "limits: {gopher_min_words: 3}}}",
                               text_rows({short_text, "the end of it all"}));
  EXPECT_EQ(result.rows.size(), 1u);
  EXPECT_EQ(result.found(), (std::vector<std::string>{"gopher_min_words rows:1", "gopher_stop_words rows:1"}));
  EXPECT_EQ(result.audit[0]["action"], "drop");
  EXPECT_EQ(result.audit[1]["action"], "report");
}

TEST(Guards, RedactAndHashReplaceTheValueAlone) {
  const Key key;
  const std::string off = "deduplicate: false, contamination: false, secrets: false, ";
  const Guarded redacted =
      guard("{" + off + "pii: {action: redact}}", {chat_row(mail, "done, ann.lee@example.com", "r:1")});
  ASSERT_EQ(redacted.rows.size(), 1u);
  EXPECT_EQ(redacted.rows[0].messages[0].content, "write to [EMAIL] or [EMAIL] today");
  EXPECT_EQ(redacted.rows[0].messages[1].content, "done, [EMAIL]");
  EXPECT_EQ(redacted.totals.changed, 1);
  EXPECT_EQ(redacted.audit[0]["message"], 0);
  EXPECT_EQ(redacted.audit[0]["begin"], mail.find("ann"));
  EXPECT_EQ(redacted.audit[0]["end"], mail.find(" or"));

  const Guarded hashed = guard("{key_file: " + key.path + ", " + off + "pii: {action: hash}}",
                               {chat_row(mail, "ann.lee@example.com", "r:1")});
  // The first 8 bytes of HMAC-SHA-256 under the key, as `openssl dgst -sha256 -hmac` prints it.
  EXPECT_EQ(hashed.rows[0].messages[1].content, "[EMAIL:68ee8db751192140]");
  EXPECT_EQ(hashed.rows[0].messages[0].content.find("write to [EMAIL:68ee8db751192140] or [EMAIL:"), 0u);
  EXPECT_EQ(hashed.audit[0]["hmac"], hashed.audit[2]["hmac"]);
  EXPECT_EQ(hashed.audit[0]["hmac"].get<std::string>().substr(0, 16), "68ee8db751192140");
}

TEST(Guards, FindingsThatOverlapBecomeOnePlaceholder) {
  const std::string off = "deduplicate: false, contamination: false, ";
  const Guarded result = guard("{" + off + "pii: {action: redact}, secrets: {action: redact}}",
                               text_rows({"token: ann.lee7x@corp.com/zQ91k and bob@example.org"}));
  EXPECT_EQ(result.found(), (std::vector<std::string>{"email rows:1", "email rows:1", "assignment rows:1"}));
  EXPECT_EQ(result.rows[0].text, "token: [ASSIGNMENT] and [EMAIL]");
}

TEST(Guards, AnAuditNeverHoldsTheValue) {
  const Guarded result = guard("{pii: {}, deduplicate: false}", {chat_row(mail, "answer", "r:1")});
  ASSERT_FALSE(result.audit.empty());
  for (const Json& line : result.audit) {
    EXPECT_EQ(line.dump().find("example"), std::string::npos) << line;
    for (const char* field : {"guard", "rule", "row", "place", "action", "begin", "end", "hmac"})
      EXPECT_TRUE(line.contains(field)) << field;
    EXPECT_EQ(line["hmac"].get<std::string>().size(), 64u);
    EXPECT_EQ(line["row"].get<std::string>().size(), 64u);
    // An unkeyed hash of a phone number can be looked up by trying all of them.
    EXPECT_NE(line["hmac"], sha256_hex("ann.lee@example.com"));
  }
}

TEST(Guards, HashNeedsAProjectKey) {
  expect_error(Exit::usage, {"pii", "key_file", "RETORT_PROJECT_KEY"},
               [&] { guard("{pii: {action: hash}}", text_rows({mail})); });
  expect_error(Exit::usage, {"pii", "key_file"}, [&] { guard("{pii: {actions: {email: hash}}}", text_rows({mail})); });
  const TemporaryFolder folder;
  write_atomic(folder / "key", "short\n");
  expect_error(Exit::usage, {"5 bytes", "16"},
               [&] { guard("{key_file: " + (folder / "key").string() + ", pii: {action: hash}}", text_rows({mail})); });
  expect_error(Exit::io, {"missing"}, [&] {
    guard("{key_file: " + (folder / "missing").string() + ", pii: {action: hash}}", text_rows({mail}));
  });
  setenv("RETORT_PROJECT_KEY", "0123456789abcdef0123456789abcdef", 1);
  const Guarded result = guard("{pii: {action: hash}}", text_rows({mail}));
  unsetenv("RETORT_PROJECT_KEY");
  EXPECT_NE(result.rows[0].text.find("[EMAIL:68ee8db751192140]"), std::string::npos) << result.rows[0].text;
}

TEST(Guards, TheNumberOfThreadsChangesNothing) {
  std::vector<std::string> texts;
  for (int i = 0; i < 9000; ++i) {
    const int row = i % 7000;
    texts.push_back(
        fmt::format("{} wrote {} lines about subject {} to {}@example.com", row % 37, row % 5, row % 211, row % 1999));
  }
  const Key key;
  const std::string yaml =
      "{key_file: " + key.path + ", deduplicate: {action: drop}, pii: {action: hash}, quality: {}}";
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Guarded one = guard(yaml, text_rows(texts));
  at::set_num_threads(4);
  const Guarded four = guard(yaml, text_rows(texts));
  at::set_num_threads(threads);
  EXPECT_EQ(one.audit, four.audit);
  ASSERT_EQ(one.rows.size(), four.rows.size());
  EXPECT_LT(one.rows.size(), texts.size());
  for (size_t i = 0; i < one.rows.size(); ++i) EXPECT_EQ(one.rows[i].text, four.rows[i].text);
  EXPECT_EQ(one.totals.to_json(), four.totals.to_json());
}

TEST(Guards, AreReadStrictly) {
  for (const auto& [yaml, part] : std::vector<std::pair<std::string, std::string>>{
           {"{dedup: {}}", "deduplicate"},
           {"{deduplicate: {treshold: 0.5}}", "did you mean threshold"},
           {"{deduplicate: {threshold: 1.5}}", "at most 1"},
           {"{deduplicate: {action: redact}}", "report, drop, fail"},
           {"{deduplicate: {actions: {nearly: drop}}}", "did you mean near"},
           {"{quality: {limits: {gopher_words: 5}}}", "gopher_min_words"},
           {"{quality: {rules: [gophr]}}", "did you mean gopher"},
           {"{contamination: {words: 4}}", "short_words"},
           {"{contamination: true}", "false"},
           {"{key: secret}", "key_file"},
           {"{pii: {action: [hash]}}", "recipe.yaml:1"}})
    expect_error(Exit::usage, {part}, [&] { guards_of(yaml); });
}

TEST(Guards, TheirHashFollowsEverythingThatDecides) {
  const TemporaryFolder folder;
  const auto resolve = [](const std::string& path) { return std::filesystem::path(path); };
  const auto hash = [&](const std::string& yaml) { return guards_hash(guards_of(yaml), resolve); };
  const std::string old = (folder / "old.jsonl").string();
  write_atomic(old, R"({"text": "a b c"})");
  const std::string against = "{deduplicate: {against: [{kind: jsonl, path: " + old + "}]}}", before = hash(against);
  EXPECT_EQ(hash("{}"), hash("{deduplicate: {}}"));
  EXPECT_NE(hash("{}"), hash("{deduplicate: {action: drop}}"));
  EXPECT_NE(hash("{}"), hash("{deduplicate: false}"));
  EXPECT_EQ(before, hash(against));
  write_atomic(old, R"({"text": "a b d"})");
  EXPECT_NE(before, hash(against));
  const Key key;
  EXPECT_NE(hash("{}"), hash("{key_file: " + key.path + "}"));
}

TEST(Guards, TakeAnyBytes) {
  std::string large(10 << 20, 'x');
  for (size_t i = 0; i < large.size(); i += 7) large[i] = ' ';
  std::string noise;
  Rng rng(3);
  for (int i = 0; i < 100000; ++i) noise += static_cast<char>(rng.next());
  const Guarded result =
      guard("{pii: {}, secrets: {}, quality: {}}",
            text_rows({"", " \n\t ", "\xff\xfe\x80", "\xf0\x9f", std::string(3, '\0'), noise, large, "é"}));
  EXPECT_EQ(result.rows.size(), 8u);
  EXPECT_EQ(result.rows[5].text, noise);
}

TEST(Guards, CountAlikeWhateverIsWrittenOfThem) {
  const GuardTotals totals = guard("{quality: {}}", text_rows({short_text, short_text})).totals;
  EXPECT_EQ(guard_totals_from(totals.to_json(), "x").to_json(), totals.to_json());
  expect_error(Exit::bad_input, {"x", "rows"}, [] { guard_totals_from(Json::object(), "x"); });
}

}  // namespace
}  // namespace retort
