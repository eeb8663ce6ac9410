#include "data/identifiers/number_rules.h"

#include "data/identifiers/national.h"
#include "data/identifiers/payment.h"

namespace retort {
namespace {

constexpr bool alone = false, in_context = true;

/// Longest first, so that a shorter number is not found in the beginning of a longer one. Functions, not constants:
/// number_rules() is called before main, when constants of this file may not be made yet.
std::vector<NumberForm> card_forms() {
  return {
      {"###################", alone},
      {"#### #### #### #### ###", alone},
      {"####-####-####-####-###", alone},
      {"##################", alone},
      {"#################", alone},
      {"################", alone},
      {"#### #### #### ####", alone},
      {"####-####-####-####", alone},
      {"####.####.####.####", alone},
      {"###############", alone},
      {"#### ###### #####", alone},
      {"####-######-#####", alone},
      {"##############", alone},
      {"#### ###### ####", alone},
      {"####-######-####", alone},
      {"#############", alone},
      {"############", alone},
  };
}

/// 15 to 33 characters, together or in groups of four.
std::vector<NumberForm> iban_forms() {
  std::vector<NumberForm> forms;
  for (size_t length = 33; length >= 15; --length) {
    std::string together(length, '#'), grouped;
    for (size_t at = 0; at < length; at += 4) {
      if (at) grouped += ' ';
      grouped += together.substr(at, 4);
    }
    forms.push_back({together, alone});
    forms.push_back({grouped, alone});
  }
  return forms;
}

}  // namespace

const std::vector<NumberRule>& number_rules() {
  static const std::vector<NumberRule> rules = {
      {"iban", "bank account: mod 97, the country's length and layout", is_iban, iban_forms(), "", true},
      {"card", "payment card: Luhn, an issuer's prefix and length", is_payment_card, card_forms()},
      {"us_ssn",
       "US Social Security Number with separators, or with a word nearby",
       is_us_ssn,
       {{"###-##-####", alone}, {"### ## ####", in_context}, {"#########", in_context}},
       "ssn|social security|soc. sec"},
      {"us_itin",
       "US Individual Taxpayer Identification Number with separators, or with a word nearby",
       is_us_itin,
       {{"###-##-####", alone}, {"### ## ####", in_context}, {"#########", in_context}},
       "itin|taxpayer"},
      {"uk_nhs",
       "UK NHS number with a word nearby",
       is_uk_nhs,
       {{"### ### ####", in_context}, {"###-###-####", in_context}, {"##########", in_context}},
       "nhs|national health|health service|patient"},
      {"es_nif",
       "Spanish DNI, NIE and other NIF of persons",
       is_es_nif,
       {{"#########", alone}, {"########-#", alone}, {"##.###.###-#", alone}, {"#-#######-#", alone}}},
      {"it_fiscal_code",
       "Italian codice fiscale of persons",
       is_it_fiscal_code,
       {{"################", alone}, {"### ### ##### #####", alone}},
       "",
       true},
      {"pl_pesel",
       "Polish PESEL with a word nearby",
       is_pl_pesel,
       {{"###########", in_context}},
       "pesel|ewidencyjn|polish id|polish national"},
      {"in_aadhaar",
       "Indian Aadhaar in groups of four, or with a word nearby",
       is_in_aadhaar,
       {{"#### #### ####", alone}, {"####-####-####", alone}, {"############", in_context}},
       "aadhaar|aadhar|uidai|adhaar"},
      {"fr_nir",
       "French NIR with its key",
       is_fr_nir,
       {{"###############", alone},
        {"# ## ## ## ### ### ##", alone},
        {"#############-##", alone},
        {"############# ##", alone}}},
      {"de_tax_id",
       "German Steuer-ID in its groups, or with a word nearby",
       is_de_tax_id,
       {{"## ### ### ###", alone}, {"###########", in_context}},
       "steuer|idnr|steuer-id|id-nr|identifikationsnummer|tax id|tin"},
      {"nl_bsn",
       "Dutch BSN with points, or with a word nearby",
       is_nl_bsn,
       {{"####.##.###", alone}, {"#### ## ###", in_context}, {"### ### ###", in_context}, {"#########", in_context}},
       "bsn|burgerservice|sofi|sofinummer|citizen service"},
      {"be_national_number",
       "Belgian national number",
       is_be_national_number,
       {{"##.##.##-###.##", alone}, {"###########", alone}}},
      {"ch_ahv", "Swiss AHV/AVS number", is_ch_ahv, {{"#############", alone}, {"###.####.####.##", alone}}},
      {"se_personnummer",
       "Swedish personnummer with its sign or century, or with a word nearby",
       is_se_personnummer,
       {{"######-####", alone},
        {"######+####", alone},
        {"########-####", alone},
        {"############", alone},
        {"##########", in_context}},
       "personnummer|personnr|pers.nr|identity"},
      {"no_fodselsnummer",
       "Norwegian f\xc3\xb8"
       "dselsnummer in its groups, or with a word nearby",
       is_no_fodselsnummer,
       {{"###### #####", alone}, {"###########", in_context}},
       "dselsnummer|fodselsnummer|personnummer|norwegian"},
      {"fi_henkilotunnus",
       "Finnish henkil\xc3\xb6tunnus",
       is_fi_henkilotunnus,
       {{"######-####", alone}, {"######+####", alone}, {"###########", alone}},
       "",
       false,
       true},
      {"br_cpf",
       "Brazilian CPF in its form, or with a word nearby",
       is_br_cpf,
       {{"###.###.###-##", alone}, {"#########-##", alone}, {"###########", in_context}},
       "cpf|cadastro|contribuinte"},
      {"ca_sin",
       "Canadian SIN with a word nearby",
       is_ca_sin,
       {{"### ### ###", in_context}, {"###-###-###", in_context}, {"#########", in_context}},
       "sin|social insurance|nas"},
      {"au_tfn",
       "Australian TFN with a word nearby",
       is_au_tfn,
       {{"### ### ###", in_context}, {"#########", in_context}},
       "tfn|tax file"},
      {"tr_kimlik",
       "Turkish kimlik number with a word nearby",
       is_tr_kimlik,
       {{"###########", in_context}},
       "kimlik|tckn|t.c.|tc no|turkish id"},
      {"za_id",
       "South African identity number with a word nearby",
       is_za_id,
       {{"#############", in_context}, {"###### #### ## #", in_context}},
       "identity|id number|id no|south african|rsa id"},
      {"cn_resident_id", "Chinese resident identity number", is_cn_resident_id, {{"##################", alone}}},
      {"mx_curp", "Mexican CURP", is_mx_curp, {{"##################", alone}}},
  };
  return rules;
}

}  // namespace retort
