// Sentences with one identifier each, or with what only looks like one: for recall and precision.
#pragma once

#include <map>

#include "data/identifiers/finder.h"
#include "tests/data/identifier_draws.h"

namespace retort {

struct IdentifierSample {
  std::string rule, text;
  size_t begin, end;  ///< of the identifier in the text
  bool valid;
};

namespace samples {

struct Scheme {
  const char* rule;
  std::function<std::string(Draw&)> valid;
  std::vector<std::string> forms;  ///< '#' is a character; the first that has as many; "": as it is
  std::string word = "";           ///< stands before numbers that nothing else tells apart
  std::function<std::string(Draw&)> invalid = nullptr;  ///< none: a valid one with one character exchanged
};

inline std::string ssn(Draw& draw, const std::string& area) {
  return area + fmt::format("{:02}{:04}", draw.between(1, 99), draw.between(1, 9999));
}

inline const std::vector<Scheme>& schemes() {
  static const auto mod_11 = [](std::initializer_list<int> weights) {
    return [weights = std::vector<int>(weights)](const std::string& number) {
      int sum = 0;
      for (size_t i = 0; i < number.size(); ++i) sum += weights[i] * (number[i] - '0');
      return sum;
    };
  };
  static const auto until = [](Draw& draw, const std::function<std::string(Draw&)>& make) {
    for (;;)
      if (std::string number = make(draw); !number.empty()) return number;
  };
  static const auto ending = [](std::string body, int modulus, int sum, const char* alphabet) {
    return body + alphabet[sum % modulus];
  };
  static const std::vector<Scheme> list = {
      {"card", card, {"", "#### #### #### ####", "####-####-####-####", "#### ###### #####"}},
      {"iban", iban, {"", "in fours"}},
      {"us_ssn",
       [](Draw& d) { return ssn(d, fmt::format("{:03}", d.between(1, 665))); },
       {"###-##-####"},
       "",
       [](Draw& d) {
         if (d.below(3) == 0) return ssn(d, d.pick({"000", "666"}));
         std::string number = ssn(d, fmt::format("{:03}", d.between(1, 665)));
         return d.below(2) ? number.replace(3, 2, "00") : number.replace(5, 4, "0000");
       }},
      {"us_itin",
       [](Draw& d) { return "9" + d.digits(2) + std::to_string(d.between(70, 88)) + d.digits(4); },
       {"###-##-####"},
       "",
       [](Draw& d) {
         return "9" + d.digits(2) + d.pick({"89", "93", "66", "49", "07"}) + d.digits(4);
       }},
      {"uk_nhs",
       [](Draw& d) {
         return until(d, [](Draw& e) { return closed(e.digits(9), 11, mod_11({10, 9, 8, 7, 6, 5, 4, 3, 2, 1})); });
       },
       {"### ### ####", ""},
       "NHS number"},
      {"es_nif",
       [](Draw& d) {
         const size_t kind = d.below(4);
         const std::string digits = kind < 3 ? std::to_string(kind) + d.digits(7) : d.digits(8);
         const std::string number = kind < 3 ? "XYZ"[kind] + digits.substr(1) : digits;
         return ending(number, 23, rest(digits, 23), "TRWAGMYFPDXBNJZSQVHLCKE");
       },
       {""}},
      {"it_fiscal_code", fiscal_code, {""}},
      {"pl_pesel",
       [](Draw& d) {
         return closed(date(d, "ymd") + d.digits(4), 10, mod_11({1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1}));
       },
       {""},
       "PESEL"},
      {"in_aadhaar",
       [](Draw& d) { return closed(d.of("23456789", 1) + d.digits(10), 10, verhoeff); },
       {"#### #### ####", "####-####-####"}},
      {"fr_nir",
       [](Draw& d) {
         const std::string body = d.of("12", 1) + date(d, "ym") + d.pick({"13", "33", "59", "75", "92"}) + d.digits(6);
         return body + fmt::format("{:02}", 97 - rest(body, 97));
       },
       {"", "# ## ## ## ### ### ##"}},
      {"de_tax_id", de_tax_id, {"## ### ### ###", ""}, "Steuer-ID"},
      {"nl_bsn",
       [](Draw& d) {
         return until(d, [](Draw& e) { return closed(e.digits(8), 11, mod_11({9, 8, 7, 6, 5, 4, 3, 2, 10})); });
       },
       {"", "####.##.###"},
       "BSN"},
      {"be_national_number",
       [](Draw& d) {
         const std::string body = date(d, "ymd") + d.digits(3);
         return body + fmt::format("{:02}", 97 - rest(body, 97));
       },
       {"##.##.##-###.##", ""}},
      {"ch_ahv",
       [](Draw& d) {
         return closed("756" + d.digits(9), 10, mod_11({1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1}));
       },
       {"###.####.####.##", ""}},
      {"se_personnummer", [](Draw& d) { return with_luhn(date(d, "ymd") + d.digits(3)); }, {"######-####"}},
      {"no_fodselsnummer",
       [](Draw& d) {
         return until(d, [](Draw& e) {
           const std::string body = closed(date(e, "dmy") + e.digits(3), 11, mod_11({3, 7, 6, 1, 8, 9, 4, 5, 2, 1}));
           return body.empty() ? body : closed(body, 11, mod_11({5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1}));
         });
       },
       {"###### #####", ""},
       "fødselsnummer"},
      {"fi_henkilotunnus",
       [](Draw& d) {
         const std::string day = date(d, "dmy"), one = fmt::format("{:03}", d.between(2, 899));
         return ending(day + "-" + one, 31, rest(day + one, 31), "0123456789ABCDEFHJKLMNPRSTUVWXY");
       },
       {""}},
      {"br_cpf",
       [](Draw& d) {
         std::string body = d.digits(9);
         for (int check = 0; check < 2; ++check) {
           int sum = 0;
           for (size_t i = 0; i < body.size(); ++i) sum += (body[i] - '0') * static_cast<int>(body.size() + 1 - i);
           body += std::to_string(sum % 11 < 2 ? 0 : 11 - sum % 11);
         }
         return body;
       },
       {"###.###.###-##", "#########-##"}},
      {"ca_sin",
       [](Draw& d) { return with_luhn(d.of("1234567", 1) + d.digits(7)); },
       {"### ### ###", "###-###-###"},
       "SIN"},
      {"au_tfn",
       [](Draw& d) {
         return until(d, [](Draw& e) { return closed(e.digits(8), 11, mod_11({1, 4, 3, 7, 5, 8, 6, 9, 10})); });
       },
       {"### ### ###", ""},
       "tax file number"},
      {"tr_kimlik",
       [](Draw& d) {
         const std::string body =
             closed(d.of("123456789", 1) + d.digits(8), 10, mod_11({3, 1, 3, 1, 3, 1, 3, 1, 3, 1}));
         return body + std::to_string(weighted(body, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}) % 10);
       },
       {""},
       "T.C. kimlik no"},
      {"za_id",
       [](Draw& d) { return with_luhn(date(d, "ymd") + d.digits(4) + d.of("01", 1) + "8"); },
       {""},
       "South African ID number"},
      {"cn_resident_id",
       [](Draw& d) {
         const std::string body = d.pick({"110101", "310104", "440106", "510105"}) + date(d, "Ymd") + d.digits(3);
         return ending(body, 11, weighted(body, {7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2}), "10X98765432");
       },
       {""}},
      {"mx_curp", curp, {""}},
      {"bitcoin",
       [](Draw& d) { return d.below(2) ? bech32(d) : base58(d, d.below(2) ? 0 : 5); },
       {""},
       "",
       [](Draw& d) { return d.below(2) ? spoiled(d, bech32(d), 4) : spoiled(d, base58(d, 0), 1); }},
      {"ethereum",
       ethereum,
       {""},
       "",
       [](Draw& d) {
         std::string address = ethereum(d);
         for (;;) {
           char& c = address[2 + d.below(40)];
           if (c <= '9') continue;
           c = static_cast<char>(c ^ 0x20);  // the other case
           return address;
         }
       }},
      {"ip",
       [](Draw& d) {
         if (d.below(3) == 0)
           return "2a0" + d.of("0123456789abcdef", 1) + ":" + d.pick({"1450", "e8", "cafe"}) +
                  "::" + d.of("123456789abcdef", 3);
         return fmt::format("{}.{}.{}.{}", d.pick({"8", "23", "52", "81", "94", "151", "185", "212"}), d.below(256),
                            d.below(256), d.between(1, 254));
       },
       {""},
       "",
       [](Draw& d) {
         const std::string last = fmt::format("{}.{}", d.below(256), d.between(1, 254));
         return d.pick({"10.1." + last, "192.168." + last, "172.20." + last, "8.300." + last, "8.8.8." + last,
                        "version 4.1." + last, "fe80::" + d.of("123456789abcdef", 3), "2001:db8::" + d.of("1234567", 2),
                        fmt::format("{}:{}:{}", d.between(10, 23), d.between(10, 59), d.between(10, 59)),
                        "aa:bb:cc:" + d.of("abcdef", 2) + ":11:22"});
       }},
      {"email",
       [](Draw& d) {
         const std::string name = d.of("abcdefghijklmnopqrstuvwxyz", 5), domain = d.of("abcdefghijklmnopqrstuvwxyz", 7);
         return d.pick({name, name + "." + d.of("abcd", 4), name + "+list", name + "_99", "J" + name}) + "@" +
                d.pick({domain, "mail." + domain, domain + "-inc"}) + "." +
                d.pick({"com", "org", "de", "co.uk", "io", "museum", "edu"});
       },
       {""},
       "",
       [](Draw& d) {
         const std::string name = d.of("abcdefghij", 5), domain = d.of("abcdefghij", 7);
         return d.pick({name + "@" + domain, name + "@" + domain + ".invalid", name + "@" + domain + ".c0m",
                        "@" + name + ".org", name + "..x@" + domain + ".org", "git@" + domain + ".com:team/" + name,
                        "https://" + name + ":pass@" + domain + ".com/", name + " @ " + domain + ".com",
                        name + "@-" + domain + ".com", name + ".@" + domain + ".com"});
       }},
      {"phone",
       [](Draw& d) {
         const std::string us = d.pick({"212", "415", "303", "617", "206", "512"}),
                           middle = d.of("23456789", 1) + "4" + d.digits(1), four = d.digits(4);
         return d.pick({"(" + us + ") " + middle + "-" + four, us + "-" + middle + "-" + four,
                        "+1 " + us + " " + middle + " " + four, "+1-" + us + "-" + middle + "-" + four,
                        "020 7" + d.digits(3) + " " + four, "+44 20 7" + d.digits(3) + " " + four,
                        "+49 30 9" + d.digits(6), "+33 1 42 " + d.digits(2) + " " + d.digits(2) + " " + d.digits(2),
                        "07400 " + d.digits(6)});
       },
       {""},
       "",
       [](Draw& d) {
         const std::string seven = d.digits(3) + "-" + d.digits(4);
         return d.pick({"(" + d.pick({"012", "123", "000"}) + ") " + seven, "+999 30 " + seven, "+1 012 " + seven,
                        "+44 1 " + d.digits(3), "1995-2004", "212-555", "+33 " + d.digits(3)});
       }},
  };
  return list;
}

/// The number in one of its scheme's forms.
inline std::string written(Draw& draw, const Scheme& scheme, const std::string& number) {
  const std::string form = draw.pick(scheme.forms);
  std::string text;
  if (form == "in fours") {
    for (size_t i = 0; i < number.size(); i += 4) {
      if (i > 0) text += ' ';
      text.append(number, i, 4);
    }
    return text;
  }
  size_t at = 0;
  for (char c : form) {
    if (c == '#' && at == number.size()) return number;
    text += c == '#' ? number[at++] : c;
  }
  return at == number.size() ? text : number;
}

}  // namespace samples

/// So many valid and as many invalid ones of each rule.
inline std::vector<IdentifierSample> identifier_samples(uint64_t seed, int64_t of_each) {
  const std::vector<std::string> sentences = {"Please note {} in the file.",
                                              "{}",
                                              "(see {}), as agreed",
                                              "id={};",
                                              "\"{}\", she wrote.",
                                              "Kunde: {}\nDanke",
                                              "<td>{}</td>"};
  std::vector<IdentifierSample> all;
  for (size_t rule = 0; rule < samples::schemes().size(); ++rule) {
    const samples::Scheme& scheme = samples::schemes()[rule];
    samples::Draw draw{Rng(seed, rule + 1)};
    for (int64_t i = 0; i < 2 * of_each; ++i) {
      const bool valid = i % 2 == 0;
      std::string number = !valid && scheme.invalid ? scheme.invalid(draw) : scheme.valid(draw);
      if (!valid && !scheme.invalid) number = samples::spoiled(draw, number);
      number = samples::written(draw, scheme, number);
      std::string sentence = draw.pick(sentences);
      const size_t place = sentence.find("{}");
      const std::string before = sentence.substr(0, place) + (scheme.word.empty() ? "" : scheme.word + " ");
      all.push_back({scheme.rule, before + number + sentence.substr(place + 2), before.size(),
                     before.size() + number.size(), valid});
    }
  }
  return all;
}

/// What a finder made of samples, by rule.
struct IdentifierScore {
  int64_t valid = 0;    ///< identifiers there
  int64_t hits = 0;     ///< of these, found in full under their own name
  int64_t claimed = 0;  ///< findings under the name, right or wrong
};

inline std::map<std::string, IdentifierScore> identifier_scores(const IdentifierFinder& finder,
                                                                const std::vector<IdentifierSample>& all) {
  std::map<std::string, IdentifierScore> scores;
  for (const IdentifierSample& sample : all) {
    if (sample.valid) ++scores[sample.rule].valid;
    std::vector<FoundSpan> found;
    finder.find(sample.text, found);
    for (const FoundSpan& span : found) {
      const std::string name = identifier_rules()[span.rule].name;
      ++scores[name].claimed;
      if (sample.valid && name == sample.rule && span.begin == sample.begin && span.end == sample.end)
        ++scores[name].hits;
    }
  }
  return scores;
}

}  // namespace retort
