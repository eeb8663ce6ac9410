// Our own rules for secrets, one by one, and gitleaks' files.
#include <gtest/gtest.h>
#include <re2/re2.h>

#include <set>

#include "core/files.h"
#include "core/rng.h"
#include "data/secrets/secrets.h"
#include "tests/core/support.h"
#include "tests/data/guard_support.h"

namespace retort {
namespace {

const std::string lower = "abcdefghijklmnopqrstuvwxyz", upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", digit = "0123456789",
                  hexadecimal = "0123456789abcdef", any = lower + upper + digit;

/// Random characters: no key that looks real is written in this file.
std::string drawn(size_t length, const std::string& alphabet = any, uint64_t seed = 1) {
  Rng rng(seed);
  std::string text;
  while (text.size() < length) text += alphabet[rng.below(alphabet.size())];
  return text;
}

std::vector<std::string> found_in(const SecretFinder& finder, const std::string& text) {
  std::vector<FoundSpan> spans;
  finder.find(text, spans);
  std::vector<std::string> found;
  for (const FoundSpan& span : spans)
    found.push_back(finder.rules()[span.rule].name + " " + text.substr(span.begin, span.end - span.begin));
  return found;
}
using Found = std::vector<std::string>;

struct Case {
  const char* rule;
  std::string before, secret, after;  ///< the text, of which `secret` is found
  std::string near_miss;              ///< a text in which the rule finds nothing
};

std::vector<Case> cases() {
  const std::string pem = "-----BEGIN RSA PRIVATE KEY-----\n" + drawn(64) + "\n-----END RSA PRIVATE KEY-----";
  const auto dash = [](const std::string& prefix, size_t length, const std::string& alphabet = any) {
    return prefix + drawn(length, alphabet);
  };
  return {
      {"private_key", "my key:\n", pem, "\n", "-----BEGIN PUBLIC KEY-----\n" + drawn(64)},
      {"aws_access_key_id", "id ", dash("AKIA", 16, "ABCDEFGH234567"), ".", "id AKIA" + drawn(15, "ABCDEFGH")},
      {"aws_secret_access_key", "aws_secret = \"", drawn(40), "\"", "aws_secret = \"" + drawn(39) + "\""},
      {"google_api_key", "maps?key=", dash("AIza", 35), "&x", "maps?AIza" + drawn(30)},
      {"google_oauth_secret", "", dash("GOCSPX-", 28), "", "GOCSPX-" + drawn(20)},
      {"azure_storage_key", "AccountKey=", drawn(86) + "==", ";", "AccountKey=" + drawn(80) + "=="},
      {"azure_sas", "?sv=1&sig=", drawn(44) + "%3D", "&se", "?sv=1&sig=" + std::string(44, 'a') + "%3D"},
      {"github_token", "", dash("ghp_", 36), "", "ghp_" + std::string(36, 'a')},
      {"gitlab_token", "", dash("glpat-", 20), "", "glpat-" + drawn(12)},
      {"slack_token", "", dash("xoxb-", 24, digit + lower), "", "xoxb-aaaaaaaaaa"},
      {"slack_webhook", "https://hooks.slack.com/services/", "T" + drawn(43), "", "https://hooks.slack.com/docs"},
      {"stripe_key", "", dash("sk_live_", 24), "", "pk_live_" + drawn(24)},
      {"anthropic_key", "", dash("sk-ant-api03-", 60), "", "sk-ant-api03-" + drawn(12)},
      {"openai_key", "", dash("sk-proj-", 48), "", "sk-" + drawn(40, lower)},
      {"huggingface_token", "", dash("hf_", 34, lower + upper), "", "hf_" + drawn(12, lower)},
      {"npm_token", "", dash("npm_", 36), "", "npm_" + drawn(30)},
      {"pypi_token", "", dash("pypi-AgE", 70), "", "pypi-AgE" + drawn(20)},
      {"sendgrid_key", "", "SG." + drawn(22) + "." + drawn(43), "", "SG." + drawn(22) + "." + drawn(20)},
      {"twilio_key", "", dash("SK", 32, hexadecimal), "", "SK" + std::string(32, '0')},
      {"mailgun_key", "", dash("key-", 32, hexadecimal), "", "key-" + drawn(30, hexadecimal)},
      {"telegram_token", "", drawn(9, "123456789") + ":AA" + drawn(33), "", "12345:AA" + drawn(33)},
      {"discord_token", "discord ", "M" + drawn(23) + "." + drawn(6, any, 2) + "." + drawn(30, any, 3), "",
       "other M" + drawn(23) + "." + drawn(6, any, 2) + "." + drawn(30, any, 3)},
      {"shopify_token", "", dash("shpat_", 32, hexadecimal), "", "shpat_" + drawn(31, hexadecimal)},
      {"digitalocean_token", "", dash("dop_v1_", 64, hexadecimal), "", "dop_v1_" + drawn(60, hexadecimal)},
      {"databricks_token", "", dash("dapi", 32, hexadecimal), "", "dapi" + drawn(20, hexadecimal)},
      {"vault_token", "", dash("hvs.", 30), "", "hvs." + drawn(10)},
      {"docker_token", "", dash("dckr_pat_", 27), "", "dckr_pat_" + drawn(10)},
      {"atlassian_token", "", dash("ATATT3", 110), "", "ATATT3" + drawn(50)},
      {"jwt", "", "eyJ" + drawn(20) + ".eyJ" + drawn(40, any, 2) + "." + drawn(43, any, 3), "",
       "eyJ" + drawn(20) + ".x"},
      {"url_password", "postgres://ann:", "tr0ub4dor", "@db.corp/x", "postgres://ann:${PASSWORD}@db.corp/x"},
      {"authorization", "Authorization: Bearer ", drawn(24), "", "Authorization: Bearer <token>"},
      {"assignment", "password = \"", "x7Rq0pLw92", "\"", "password = \"correcthorse\""},
  };
}

TEST(Secrets, EachRuleFindsItsOwnAndNotItsNeighbour) {
  const SecretFinder finder(builtin_secret_rules());
  std::set<std::string> tested;
  for (const Case& each : cases()) {
    tested.insert(each.rule);
    EXPECT_EQ(found_in(finder, each.before + each.secret + each.after),
              Found{std::string(each.rule) + " " + each.secret})
        << each.rule;
    for (const std::string& found : found_in(finder, each.near_miss))
      EXPECT_FALSE(found.starts_with(std::string(each.rule) + " ")) << found;
  }
  for (const SecretRule& rule : finder.rules()) EXPECT_TRUE(tested.contains(rule.name)) << rule.name;
}

TEST(Secrets, PlaceholdersAreNone) {
  const SecretFinder finder(builtin_secret_rules());
  for (const char* text :
       {"AKIAIOSFODNN7EXAMPLE", "api_key = \"your_key_0123456\"", "password: changeme123", "token = xxxxxxxx0123",
        "postgres://ann:${PASSWORD}@db and secret = ${SECRET}", "the key idea is that a token 12 long was passed"})
    EXPECT_TRUE(found_in(finder, text).empty()) << text << ": " << found_in(finder, text)[0];
}

TEST(Secrets, EntropyIsShannons) {
  EXPECT_DOUBLE_EQ(byte_entropy("aaaa"), 0);
  EXPECT_DOUBLE_EQ(byte_entropy("abcd"), 2);
  EXPECT_DOUBLE_EQ(byte_entropy("aabb"), 1);
}

// Too little memory for the keywords' automaton says nothing about a text.
TEST(Secrets, AreFoundWhateverMemoryThereIs) {
  const std::string text = "password = \"x7Rq0pLw92\"";
  const Found expected = {"assignment x7Rq0pLw92"};
  size_t refused = 0, usable = 0;
  for (int64_t memory = 1 << 10; memory <= 4 << 20; memory += memory / 8) {
    try {
      const SecretFinder finder(builtin_secret_rules(), memory);
      ++usable;
      EXPECT_EQ(found_in(finder, text), expected) << memory << " bytes";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_input);
      ++refused;
    }
  }
  EXPECT_GT(refused, 0U);
  EXPECT_GT(usable, 0U);
}

TEST(Secrets, TakeAnyBytes) {
  const SecretFinder finder(builtin_secret_rules());
  std::string noise;
  Rng rng(4);
  for (int i = 0; i < 100000; ++i) noise += static_cast<char>(rng.next());
  for (const std::string& text :
       {noise, std::string(1 << 20, 'a'), std::string("\xff password=\xfe\0", 13), std::string()})
    found_in(finder, text);
}

/// A gitleaks file with these rules.
struct File {
  TemporaryFolder folder;
  std::string path = (folder / "gitleaks.toml").string();
  explicit File(const std::string& text) { write_atomic(path, text); }
  SecretFinder finder() const { return SecretFinder(read_gitleaks_rules(path)); }
};

constexpr const char* acme = R"(title = "ours"
[[rules]]
id = "acme"
description = "Acme's keys"
regex = '''acme_([a-z0-9]{12})'''
entropy = 2.5
keywords = ["ACME_"]
tags = ["key"]
)";

TEST(Gitleaks, RulesAreRead) {
  const File file(acme);
  const SecretFinder finder = file.finder();
  ASSERT_EQ(finder.rules().size(), 1u);
  EXPECT_EQ(finder.rules()[0].text, "Acme's keys");
  // The first group that matches is the secret; the keyword counts in any case; the entropy must be above.
  EXPECT_EQ(found_in(finder, "x acme_k3j9x0q2m4z7 y"), Found{"acme k3j9x0q2m4z7"});
  EXPECT_TRUE(found_in(finder, "x acme_aaaaaaaaaaab y").empty());
  EXPECT_TRUE(File(std::string(acme) + "[[rules.allowlists]]\nstopwords = [\"k3J9\"]\n")
                  .finder()
                  .rules()[0]
                  .exemptions.size() == 1);
}

TEST(Gitleaks, AllowlistsExempt) {
  const std::string text = "x acme_k3j9x0q2m4z7 y";
  for (const char* list :
       {"[[rules.allowlists]]\nstopwords = [\"K3J9\"]", "[rules.allowlist]\nregexes = ['^k3j']",
        "[[rules.allowlists]]\nregexTarget = \"match\"\nregexes = ['^acme_k3']",
        "[[rules.allowlists]]\nregexTarget = \"line\"\nregexes = ['^x ']", "[allowlist]\nregexes = ['k3j']",
        "[[allowlists]]\ntargetRules = [\"acme\"]\nstopwords = [\"k3j\"]",
        "[[rules.allowlists]]\ncondition = \"AND\"\nregexes = ['^k3']\nstopwords = [\"k3j\"]"})
    EXPECT_TRUE(found_in(File(std::string(acme) + list + "\n").finder(), text).empty()) << list;
  // By a path or a commit nothing is exempt: rows have none.
  for (const char* list : {"[[rules.allowlists]]\npaths = ['.*']", "[allowlist]\ncommits = [\"abc\"]",
                           "[[allowlists]]\ntargetRules = [\"other\"]\nstopwords = [\"k3j\"]",
                           "[[rules.allowlists]]\ncondition = \"AND\"\nregexes = ['^k3']\nstopwords = [\"none\"]",
                           "[[rules.allowlists]]\ncondition = \"AND\"\nregexes = ['^k3']\npaths = ['.*']"})
    EXPECT_EQ(found_in(File(std::string(acme) + list + "\n").finder(), text).size(), 1u) << list;
}

TEST(Gitleaks, SecretGroupAndPath) {
  const SecretFinder finder = File(R"(
[[rules]]
id = "second"
regex = '(one)=(\w+)'
secretGroup = 2
path = '.*\.cfg'
[[rules]]
id = "file"
path = '\.pem$'
)")
                                  .finder();
  ASSERT_EQ(finder.rules().size(), 1u);  // a rule of paths alone has nothing to say of rows
  EXPECT_EQ(found_in(finder, "one=abc"), Found{"second abc"});
}

TEST(Gitleaks, BadFilesNameTheirLine) {
  for (const auto& [text, parts] : std::vector<std::pair<std::string, std::vector<std::string>>>{
           {"title = \"a\"\n[[rules]\n", {"gitleaks.toml:2"}},
           {"[[rules]]\nid = \"a\"\nregex = '(?<!x)y'\n", {"gitleaks.toml:1", "RE2", "a"}},
           {"[[rules]]\nid = \"a\"\nregex = 'y'\nverify = true\n", {"gitleaks.toml:4", "verify"}},
           {"[[rules]]\nregex = 'y'\n", {"gitleaks.toml:1", "id"}},
           {"[[rules]]\nid = \"a\"\nregex = 'y'\n[[rules]]\nid = \"a\"\nregex = 'z'\n", {"gitleaks.toml:4", "twice"}},
           {"[[rules]]\nid = \"a\"\nregex = 'y'\nentropy = \"3\"\n", {"gitleaks.toml:4", "entropy", "number"}},
           {"[[rules]]\nid = \"a\"\nregex = 'y'\nsecretGroup = 2\n", {"gitleaks.toml:1", "secretGroup", "0 groups"}},
           {"[[rules]]\nid = \"a\"\nregex = 'y'\nkeywords = \"k\"\n", {"gitleaks.toml:4", "keywords"}},
           {"[extend]\nuseDefault = true\n", {"gitleaks.toml:1", "extend"}},
           {"[[rules]]\nid = \"a\"\nregex = 'y'\n[[rules.required]]\nid = \"b\"\n", {"gitleaks.toml:", "required"}},
           {"[[rules]]\nid = \"a\"\nregex = 'y'\n[rules.allowlist]\ncondition = \"NOR\"\n",
            {"gitleaks.toml:4", "condition", "OR, AND"}},
           {"[[rules]]\nid = \"a\"\nregex = 'y'\n[rules.allowlist]\n", {"gitleaks.toml:4", "regexes"}},
           {"", {"no rule"}},
           {"\xff\xfe", {"gitleaks.toml:1"}}})
    expect_error(Exit::bad_input, parts, [&] { File(text).finder(); });
}

TEST(Gitleaks, ARecipeNamesItsFile) {
  const File file(acme);
  const std::string off = "deduplicate: false, contamination: false, secrets: ";
  const auto rows = text_rows({"x acme_k3j9x0q2m4z7 y", "password = \"x7Rq0pLw92\""});
  EXPECT_EQ(guard("{" + off + "{rules: " + file.path + "}}", rows).found(),
            (Found{"acme rows:1", "assignment rows:2"}));
  EXPECT_EQ(guard("{" + off + "{rules: " + file.path + ", builtin: false}}", rows).found(), Found{"acme rows:1"});
  EXPECT_EQ(guard("{" + off + "{rules: " + file.path + ", skip: [acme, assignment]}}", rows).found(), Found{});
  const Guarded redacted = guard("{" + off + "{rules: " + file.path + ", actions: {acme: redact}}}", rows);
  EXPECT_EQ(redacted.rows[0].text, "x acme_[ACME] y");
  EXPECT_EQ(redacted.rows[1].text, rows[1].text);
  expect_error(Exit::usage, {"skip", "did you mean acme"},
               [&] { guard("{" + off + "{rules: " + file.path + ", skip: [acm]}}", rows); });
  expect_error(Exit::usage, {"builtin"}, [&] { guards_of("{secrets: {builtin: false}}"); });
  // The file's bytes belong to the identity of the data.
  const auto hash = [&] {
    return guards_hash(guards_of("{secrets: {rules: " + file.path + "}}"),
                       [](const std::string& path) { return std::filesystem::path(path); });
  };
  const std::string before = hash();
  write_atomic(file.path, std::string(acme) + "# more\n");
  EXPECT_NE(hash(), before);
}

}  // namespace
}  // namespace retort
