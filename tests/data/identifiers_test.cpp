// Check digits and layouts against python-stdnum (tests/golden/make_identifiers.py), and what is found in sentences.
#include <gtest/gtest.h>

#include "data/identifiers/finder.h"
#include "data/identifiers/internet.h"
#include "data/identifiers/national.h"
#include "data/identifiers/number_rules.h"
#include "data/identifiers/phone.h"
#include "tests/core/support.h"
#include "tests/data/guard_support.h"
#include "tests/data/identifier_samples.h"

namespace retort {
namespace {

/// "card 4111…": what is found in the text.
std::vector<std::string> found_in(const std::string& text,
                                  const IdentifierOptions& options = {.regions = {"US", "GB"}}) {
  std::vector<FoundSpan> spans;
  IdentifierFinder(options).find(text, spans);
  std::vector<std::string> found;
  for (const FoundSpan& span : spans)
    found.push_back(
        fmt::format("{} {}", identifier_rules()[span.rule].name, text.substr(span.begin, span.end - span.begin)));
  return found;
}
using Found = std::vector<std::string>;

TEST(Identifiers, AreValidWhereTheirSchemesSaySo) {
  const Json golden = read_json(RETORT_GOLDEN "/identifiers.json")["rules"];
  std::map<std::string, std::function<bool(const std::string&)>> checks = {
      {"bitcoin", [](const std::string& text) { return is_bitcoin_address(text); }},
      {"ethereum", [](const std::string& text) { return is_ethereum_address(text); }},
      {"ip", [](const std::string& text) { return is_ipv4(text, true) || is_ipv6(text, true); }}};
  for (const NumberRule& rule : number_rules()) checks[rule.name] = rule.valid;
  for (const auto& [rule, valid] : checks) {
    ASSERT_TRUE(golden.contains(rule)) << rule;
    ASSERT_GE(golden[rule]["valid"].size(), 10u) << rule;
    for (const std::string number : golden[rule]["valid"]) EXPECT_TRUE(valid(number)) << rule << " " << number;
    for (const std::string number : golden[rule]["invalid"]) EXPECT_FALSE(valid(number)) << rule << " " << number;
    for (const char* number : {"", "0", "x", "\xff\xff", "00000000000000000000000000000000000000"})
      EXPECT_FALSE(valid(number)) << rule << " " << number;
  }
}

TEST(Identifiers, KeccakIsEthereums) {
  const Json golden = read_json(RETORT_GOLDEN "/identifiers.json")["keccak_256"];
  for (const auto& [text, hash] : golden.items()) {
    std::string hex;
    for (uint8_t byte : keccak_256(text)) hex += fmt::format("{:02x}", byte);
    EXPECT_EQ(hex, hash) << text.size();
  }
}

TEST(Identifiers, OneDigitChangedIsNoneOfTheScheme) {
  // Every single wrong digit of numbers whose schemes promise to find it.
  for (const auto& [rule, number] :
       std::vector<std::pair<std::string, std::string>>{{"card", "4539578763621486"},
                                                        {"uk_nhs", "9434765919"},
                                                        {"in_aadhaar", "234123412346"},
                                                        {"iban", "GB82WEST12345698765432"}}) {
    const auto& rules = number_rules();
    const auto check = std::find_if(rules.begin(), rules.end(), [&](const NumberRule& r) { return r.name == rule; });
    ASSERT_TRUE(check->valid(number)) << rule;
    for (size_t at = 0; at < number.size(); ++at)
      for (char digit = '0'; digit <= '9'; ++digit) {
        std::string wrong = number;
        wrong[at] = digit;
        EXPECT_EQ(check->valid(wrong), wrong == number) << rule << " " << wrong;
      }
  }
}

TEST(Identifiers, SocialSecurityNumbersFollowTheirIssuersRules) {
  EXPECT_TRUE(is_us_ssn("123456789"));
  for (const char* never : {"000456789", "666456789", "900456789", "999456789", "123006789", "123450000", "078051120",
                            "219099999", "12345678", "1234567890"})
    EXPECT_FALSE(is_us_ssn(never)) << never;
}

TEST(Identifiers, TwoCheckDigitsBothCount) {
  EXPECT_TRUE(is_tr_kimlik("10000000146"));
  EXPECT_FALSE(is_tr_kimlik("10000001046"));  // the sum, which is the last digit, stays
}

TEST(Identifiers, EmailsAreWholeAddresses) {
  EXPECT_EQ(found_in("<Ann.Lee@mail.org>, josé@correo.es. a+b_c@x.co.uk!"),
            (Found{"email Ann.Lee@mail.org", "email josé@correo.es", "email a+b_c@x.co.uk"}));
  for (const char* text : {"a..b@mail.org", "a.@mail.org", "ann@localhost", "ann@mail.notatld", "git@host.com:team/x",
                           "https://ann:pass@host.com/", "ann @ mail.org", "@mail.org", "ann@-mail.org"})
    EXPECT_TRUE(found_in(text).empty()) << text;
}

// Recall and precision with other seeds: bench/identifiers.cpp, docs/guards.md.
TEST(Identifiers, AreFoundAndNothingElseIs) {
  const IdentifierFinder finder({.regions = {"US", "GB"}});
  const auto scores = identifier_scores(finder, identifier_samples(1, 150));
  for (const IdentifierRule& rule : identifier_rules()) {
    ASSERT_TRUE(scores.contains(rule.name)) << rule.name;
    const IdentifierScore& score = scores.at(rule.name);
    ASSERT_EQ(score.valid, 150) << rule.name;
    EXPECT_GE(static_cast<double>(score.hits), 0.95 * static_cast<double>(score.valid)) << rule.name;
    EXPECT_GE(static_cast<double>(score.hits), 0.85 * static_cast<double>(score.claimed)) << rule.name;
  }
}

TEST(Identifiers, PhonesAreKnownByRegion) {
  const Json golden = read_json(RETORT_GOLDEN "/identifiers.json")["phones"];
  for (const auto& [region, forms] : golden.items()) {
    const std::string international = forms[0], national = forms[1];
    EXPECT_EQ(found_in("Write " + international + " down", {.rules = {"phone"}, .regions = {}}),
              Found{"phone " + international});
    EXPECT_EQ(found_in("my phone: " + national, {.rules = {"phone"}, .regions = {region}}), Found{"phone " + national});
    EXPECT_TRUE(found_in("my phone: " + national, {.rules = {"phone"}, .regions = {}}).empty()) << national;
  }
  EXPECT_TRUE(std::ranges::binary_search(phone_regions(), std::string("GB")));
  EXPECT_FALSE(std::ranges::binary_search(phone_regions(), std::string("UK")));
}

TEST(Identifiers, BareDigitsNeedAWordBesideThem) {
  EXPECT_TRUE(found_in("order 9434765919 of 2004").empty());
  EXPECT_EQ(found_in("NHS no. 9434765919"), Found{"uk_nhs 9434765919"});
  EXPECT_TRUE(found_in("since 046454286 was").empty()) << "\"sin\" is not in \"since\"";
  EXPECT_EQ(found_in("SSN 123456789"), Found{"us_ssn 123456789"});
  EXPECT_TRUE(found_in("serial 2125550123").empty());
  EXPECT_EQ(found_in("call 2125550123"), Found{"phone 2125550123"});
}

TEST(Identifiers, PartsOfLongerNumbersAreNone) {
  EXPECT_TRUE(found_in("44539578763621486x").empty());
  EXPECT_TRUE(found_in("4539578763621486.25 and 1-4539578763621486").empty());
  EXPECT_TRUE(found_in("1.8.8.8.8 8.8.8.8.1 version 8.8.8.8 v8.8.8.8").empty());
  EXPECT_TRUE(found_in("3f4539578763621486ab").empty());
  EXPECT_TRUE(found_in("ISBN 978-0-201-53082-7, 12.05.1998, 1995-1998").empty());
}

TEST(Identifiers, SeparatorsOfPrintCount) {
  EXPECT_EQ(found_in("4539 5787 6362 1486"), Found{"card 4539 5787 6362 1486"});
  EXPECT_EQ(found_in("(4539‑5787‑6362‑1486)"), Found{"card 4539‑5787‑6362‑1486"});
  EXPECT_EQ(found_in("gb82 west 1234 5698 7654 32"), Found{"iban gb82 west 1234 5698 7654 32"});
  EXPECT_TRUE(found_in("4539\n5787\n6362\n1486").empty());
}

TEST(Identifiers, OverlapsAreOneFinding) {
  // The e-mail's digits are a card's; the card's end is a telephone number's.
  EXPECT_EQ(found_in("4539578763621486@mail.org"), Found{"email 4539578763621486@mail.org"});
  EXPECT_EQ(found_in("call 4539578763621486"), Found{"card 4539578763621486"});
  EXPECT_EQ(found_in("a@b.org,8.8.8.8; +1 212 555 0123,123-45-6789; 2001:4860::8888 c@d.de"),
            (Found{"email a@b.org", "ip 8.8.8.8", "phone +1 212 555 0123", "us_ssn 123-45-6789", "ip 2001:4860::8888",
                   "email c@d.de"}));
}

TEST(Identifiers, PrivateAddressesOnRequest) {
  const IdentifierOptions all{.rules = {"ip"}, .global_ip_only = false};
  EXPECT_EQ(found_in("at 10.1.2.3 and fe80::1", all), (Found{"ip 10.1.2.3", "ip fe80::1"}));
  EXPECT_TRUE(found_in("at 10.1.2.3 and fe80::1").empty());
  EXPECT_TRUE(found_in("at 256.1.2.3 and 12:30:45 and std::vector::size", all).empty());
}

TEST(Identifiers, TakeAnyBytesInLinearTime) {
  const IdentifierFinder finder({.regions = {"US"}});
  Rng rng(5);
  std::string noise;
  const std::string alphabet("0123456789 -.:+()@ab\xff\xc2\xa0\xe2\0", 26);
  for (int i = 0; i < 200000; ++i) noise += alphabet[rng.below(alphabet.size())];
  for (const std::string& text :
       {noise, std::string(1 << 20, '1'), std::string(1 << 20, '@'), std::string(1 << 20, ':'), std::string(3, '\0'),
        std::string("\xf0\x9f"), std::string("12345\0 6789", 11)}) {
    std::vector<FoundSpan> spans;
    finder.find(text, spans);
    for (const FoundSpan& span : spans) {
      EXPECT_LT(span.begin, span.end);
      EXPECT_LE(span.end, text.size());
    }
  }
}

TEST(Pii, OptionsSayWhatIsLookedFor) {
  const std::string off = "deduplicate: false, contamination: false, secrets: false, pii: ";
  const auto rows = text_rows({"ann@mail.org 8.8.8.8 4539578763621486", "tel. 030 901820"});
  EXPECT_EQ(guard("{" + off + "{}}", rows).found(), (Found{"email rows:1", "ip rows:1", "card rows:1"}));
  EXPECT_EQ(guard("{" + off + "{only: [ip]}}", rows).found(), Found{"ip rows:1"});
  EXPECT_EQ(guard("{" + off + "{skip: [ip, card]}}", rows).found(), Found{"email rows:1"});
  EXPECT_EQ(guard("{" + off + "{only: [phone], regions: [DE]}}", rows).found(), Found{"phone rows:2"});
  expect_error(Exit::usage, {"UK", "GB"}, [] { guards_of("{pii: {regions: [UK]}}"); });
  expect_error(Exit::usage, {"did you mean email"}, [] { guards_of("{pii: {only: [mail]}}"); });
  expect_error(Exit::usage, {"skip"}, [&] { guard("{" + off + "{only: [ip], skip: [ip]}}", rows); });
}

}  // namespace
}  // namespace retort
