#!/usr/bin/env python3
"""identifiers.json: numbers that python-stdnum calls valid and near ones that it does not, by our rules' names.

    pip install python-stdnum bech32 base58 pycryptodome phonenumbers && python tests/golden/make_identifiers.py

Valid numbers are drawn in the scheme's layout until python-stdnum takes one; an invalid one differs from a valid one in
one character and is refused by it. Bitcoin comes from base58 and bech32, Ethereum's case from pycryptodome's Keccak, IP
addresses from Python's ipaddress, telephone numbers from the Python port of libphonenumber.
"""
import datetime, importlib, ipaddress, json, pathlib, random, re, string

import base58, bech32, phonenumbers
import stdnum.iban
from Crypto.Hash import keccak

COUNT = 12
rng = random.Random(20)


def module(name):
    return importlib.import_module("stdnum." + name)


def digits(n, first="0123456789"):
    return rng.choice(first) + "".join(rng.choice(string.digits) for _ in range(n - 1))


def letters(n):
    return "".join(rng.choice(string.ascii_uppercase) for _ in range(n))


def day(first=1930, last=2005):
    start = datetime.date(first, 1, 1).toordinal()
    return datetime.date.fromordinal(rng.randrange(start, datetime.date(last, 12, 31).toordinal()))


def pesel():
    d = day()
    return f"{d.year % 100:02}{d.month + (20 if d.year >= 2000 else 0):02}{d.day:02}" + digits(5)


def fiscal_code():
    d = day()
    return (letters(6) + f"{d.year % 100:02}" + "ABCDEHLMPRST"[d.month - 1] + f"{d.day + rng.choice((0, 40)):02}" +
            rng.choice("ABCDEFGHL") + digits(3) + letters(1))


def curp():
    d = day(1940, 1999)
    return ("".join(rng.choice("BCDFGHJ") for _ in range(4)) + d.strftime("%y%m%d") + rng.choice("HM") +
            rng.choice(("AS", "DF", "JC", "NL", "OC", "YN", "ZS")) + "".join(rng.choice("BCDFG") for _ in range(3)) +
            digits(2))


# Our rule: (python-stdnum's module, a draw in the layout).
SCHEMES = {
    "card": ("luhn", lambda: rng.choice(("4" + digits(15), "5" + digits(1, "12345") + digits(14), "34" + digits(13),
                                         "37" + digits(13), "6011" + digits(12), "3530" + digits(12)))),
    "us_ssn": ("us.ssn", lambda: digits(9)),
    "us_itin": ("us.itin", lambda: "9" + digits(8)),
    "uk_nhs": ("gb.nhs", lambda: digits(10)),
    "es_nif": ("es.nif", lambda: rng.choice((digits(8) + letters(1), rng.choice("XYZKLM") + digits(7) + letters(1)))),
    "it_fiscal_code": ("it.codicefiscale", fiscal_code),
    "pl_pesel": ("pl.pesel", pesel),
    "in_aadhaar": ("in_.aadhaar", lambda: digits(12, "23456789")),
    "fr_nir": ("fr.nir", lambda: rng.choice("12") + digits(2) + f"{rng.randint(1, 12):02}" +
               rng.choice(("2A", "2B", "01", "33", "75", "97")) + digits(8)),
    "de_tax_id": ("de.idnr", lambda: digits(11, "123456789")),
    "nl_bsn": ("nl.bsn", lambda: digits(9)),
    "be_national_number": ("be.nn", lambda: day().strftime("%y%m%d") + digits(5)),
    "ch_ahv": ("ch.ssn", lambda: "756" + digits(10)),
    "se_personnummer": ("se.personnummer", lambda: day().strftime("%Y%m%d") + digits(4)),
    "no_fodselsnummer": ("no.fodselsnummer", lambda: day(1940, 1999).strftime("%d%m%y") + digits(5)),
    "fi_henkilotunnus": ("fi.hetu", lambda: day(1930, 1999).strftime("%d%m%y") + "-" + digits(3, "012345678") +
                         rng.choice("0123456789ABCDEFHJKLMNPRSTUVWXY")),
    "br_cpf": ("br.cpf", lambda: digits(11)),
    "ca_sin": ("ca.sin", lambda: digits(9)),
    "au_tfn": ("au.tfn", lambda: digits(9)),
    "tr_kimlik": ("tr.tckimlik", lambda: digits(11, "123456789")),
    "za_id": ("za.idnr", lambda: day().strftime("%y%m%d") + digits(4) + rng.choice("01") + digits(2)),
    "cn_resident_id": ("cn.ric", lambda: rng.choice(("110101", "310104", "440106")) + day().strftime("%Y%m%d") +
                       digits(3) + rng.choice("0123456789X")),
    "mx_curp": ("mx.curp", curp),
}


def one_changed(number):
    at = rng.randrange(len(number))
    same = string.digits if number[at] in string.digits else string.ascii_uppercase
    if number[at] not in same:
        return number
    return number[:at] + rng.choice([c for c in same if c != number[at]]) + number[at + 1:]


def pair(is_valid, draw):
    valid, invalid = [], []
    while len(valid) < COUNT:
        number = draw()
        if is_valid(number):
            valid.append(number)
    while len(invalid) < COUNT:
        number = one_changed(rng.choice(valid))
        if not is_valid(number):
            invalid.append(number)
    return {"valid": valid, "invalid": invalid}


def iban_pairs():
    """Every country of python-stdnum's table: one valid number, and one with a wrong check or a wrong kind."""
    valid, invalid = [], []
    table = pathlib.Path(stdnum.iban.__file__).with_name("iban.dat").read_text()
    for country, layout in re.findall(r'^(\w\w) .*bban="([^"]*)"', table, re.M):
        body = ""
        for length, kind in re.findall(r"(\d+)!?([nac])", layout):
            alphabet = {"n": string.digits, "a": string.ascii_uppercase, "c": string.digits + string.ascii_uppercase}
            body += "".join(rng.choice(alphabet[kind]) for _ in range(int(length)))
        number = country + stdnum.iban.calc_check_digits(country + "00" + body) + body
        if not stdnum.iban.is_valid(number, check_country=False):
            raise SystemExit("no IBAN: " + number)
        valid.append(number)
        wrong = one_changed(number)
        while wrong[:2] != country or stdnum.iban.is_valid(wrong, check_country=False):
            wrong = one_changed(number)
        invalid += [wrong, number[:-1]]
    return {"valid": valid, "invalid": invalid}


def bitcoin_pairs():
    valid = [base58.b58encode_check(bytes([version]) + rng.randbytes(20)).decode()
             for version in (0, 5, 111, 196) for _ in range(4)]
    valid += [bech32.encode(part, 0, rng.randbytes(size)) for part in ("bc", "tb") for size in (20, 32) for _ in range(3)]
    # BIP 350: the test vectors of witness version 1 and above.
    valid += ["bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y", "BC1SW50QGDZ25J",
              "bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
              "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c"]
    invalid = [one_changed(address) for address in valid[:28]]
    invalid = [address for address in invalid if address not in valid]
    invalid += ["bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",
                "tb1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqglt7rf",
                "BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL",
                "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh", "tb1q0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq24jc47",
                "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4",
                "BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R", "bc1pw5dgrnzv",
                "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",
                "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P",
                "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq",
                "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v07qwwzcrf",
                "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vpggkg4j", "bc1gmk9yu"]
    return {"valid": valid, "invalid": invalid}


def ethereum_pairs():
    valid = []
    while len(valid) < COUNT:
        plain = rng.randbytes(20).hex()
        digest = keccak.new(digest_bits=256, data=plain.encode()).hexdigest()
        valid.append("0x" + "".join(c.upper() if int(h, 16) >= 8 else c for c, h in zip(plain, digest)))
    swapped = []
    for address in valid:
        at = rng.choice([i for i in range(2, 42) if address[i].isalpha()])
        swapped.append(address[:at] + address[at].swapcase() + address[at + 1:])
    return {"valid": valid, "invalid": swapped}


def ip_pairs():
    draws = [str(ipaddress.ip_address(rng.getrandbits(32))) for _ in range(40)]
    draws += ["10.1.2.3", "192.168.0.1", "127.0.0.1", "100.64.9.9", "169.254.1.1", "198.51.100.7", "203.0.113.9",
              "172.31.255.255", "172.32.0.1", "8.8.8.8", "240.1.1.1"]
    draws += ["2001:db8::1", "2001:4860:4860::8888", "fe80::1", "fd00::1", "::1", "2a00:1450:4001:81b::200e", "::"]
    draws += [str(ipaddress.ip_address(0x2a << 120 | rng.getrandbits(120))) for _ in range(10)]
    multicast = lambda text: ipaddress.ip_address(text).is_multicast
    return {"valid": [a for a in draws if ipaddress.ip_address(a).is_global and not multicast(a)],
            "invalid": [a for a in draws if not ipaddress.ip_address(a).is_global or multicast(a)] +
            ["256.1.1.1", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1::2::3", "12345::1"]}


def phones():
    regions = {}
    for region in ("US", "GB", "DE", "FR", "ES", "IN", "AU", "BR"):
        number = phonenumbers.example_number(region)
        form = phonenumbers.PhoneNumberFormat
        regions[region] = [phonenumbers.format_number(number, f) for f in (form.INTERNATIONAL, form.NATIONAL)]
    return regions


golden = {}
for rule, (name, draw) in SCHEMES.items():
    golden[rule] = pair(module(name).is_valid, draw)
golden["iban"], golden["bitcoin"], golden["ethereum"] = iban_pairs(), bitcoin_pairs(), ethereum_pairs()
golden["ip"] = ip_pairs()
keccaks = {text: keccak.new(digest_bits=256, data=text.encode()).hexdigest() for text in ("", "abc", "q" * 135, "q" * 136, "q" * 300)}
golden = {"rules": golden, "phones": phones(), "keccak_256": keccaks}
path = pathlib.Path(__file__).with_name("identifiers.json")
path.write_text(json.dumps(golden, indent=0, separators=(",", ":")) + "\n")
print(path.stat().st_size, "bytes")
