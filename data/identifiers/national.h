// Numbers that states give to persons. Every argument is the number as registers hold it: no separators, letters in
// upper case. A wrong length, layout, date or check digit makes the answer false. Numbers of companies are not personal
// data and are refused where a scheme covers both.
#pragma once

#include <string_view>

namespace retort {

/// US Social Security Number by SSA's rules: area not 000, 666 or 9xx, group not 00, serial not 0000, and none of the
/// numbers that became public in advertisements. It has no check digit.
bool is_us_ssn(std::string_view number);
/// US Individual Taxpayer Identification Number (IRS): 9xx with a group of 50-65, 70-88, 90-92 or 94-99.
bool is_us_itin(std::string_view number);
/// UK NHS number: modulus 11 (NHS Data Dictionary).
bool is_uk_nhs(std::string_view number);
/// Spanish NIF of persons: DNI (8 digits and a letter), NIE (X, Y, Z) and K, L, M numbers; letter by modulus 23.
bool is_es_nif(std::string_view number);
/// Italian codice fiscale of persons: layout, birth date, check letter; also with omocodia letters for digits.
bool is_it_fiscal_code(std::string_view number);
/// Polish PESEL: birth date with its century, weights 1 3 7 9.
bool is_pl_pesel(std::string_view number);
/// Indian Aadhaar: 12 digits from 2, no palindrome, Verhoeff.
bool is_in_aadhaar(std::string_view number);
/// French NIR with its key: sex, month and department as INSEE issues them, 97 minus the number mod 97.
bool is_fr_nir(std::string_view number);
/// German Steuer-ID: one digit two or three times among the first ten, ISO 7064 MOD 11,10.
bool is_de_tax_id(std::string_view number);
/// Dutch burgerservicenummer of nine digits: the "elfproef".
bool is_nl_bsn(std::string_view number);
/// Belgian national number: birth date, 97 minus the number mod 97, with a 2 before it for births from 2000.
bool is_be_national_number(std::string_view number);
/// Swiss AHV/AVS number: 756, EAN-13.
bool is_ch_ahv(std::string_view number);
/// Swedish personnummer of 10 or 12 digits: birth date, Luhn over the last ten.
bool is_se_personnummer(std::string_view number);
/// Norwegian fødselsnummer, also D and H numbers: birth date, two check digits by modulus 11.
bool is_no_fodselsnummer(std::string_view number);
/// Finnish henkilötunnus of 11 characters with its century sign (+, -, A-F, U-Y): birth date, modulus 31.
bool is_fi_henkilotunnus(std::string_view number);
/// Brazilian CPF: two check digits by modulus 11; not one digit eleven times.
bool is_br_cpf(std::string_view number);
/// Canadian Social Insurance Number: Luhn, not from 0 or 8.
bool is_ca_sin(std::string_view number);
/// Australian Tax File Number of nine digits: modulus 11.
bool is_au_tfn(std::string_view number);
/// Turkish T.C. Kimlik number: two check digits by modulus 10.
bool is_tr_kimlik(std::string_view number);
/// South African identity number: birth date, citizenship 0 or 1, Luhn.
bool is_za_id(std::string_view number);
/// Chinese resident identity number (GB 11643): province, birth date from 1800 to 2099, ISO 7064 MOD 11-2.
bool is_cn_resident_id(std::string_view number);
/// Mexican CURP: layout, birth date, state, check digit.
bool is_mx_curp(std::string_view number);

}  // namespace retort
