"""Facts about FOLDOC as Debian's dict-foldoc 20230119 ships it, found with Python's gzip and re alone.

    python3 tests/golden/make_foldoc.py /usr/share/dictd > tests/golden/foldoc.json
"""
import collections
import gzip
import hashlib
import json
import pathlib
import re
import sys
import textwrap

folder = pathlib.Path(sys.argv[1])
text = gzip.open(folder / "foldoc.dict.dz").read()
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def number(digits):
    value = 0
    for digit in digits:
        value = value * 64 + DIGITS.index(digit)
    return value


entries = collections.defaultdict(list)
for line in open(folder / "foldoc.index", encoding="utf-8"):
    word, offset, size = line.rstrip("\n").split("\t")
    if not word.startswith("00-database-"):
        entries[number(offset), number(size)].append(word)

categories, dated, samples = collections.Counter(), 0, {}
for (offset, size), words in sorted(entries.items()):
    entry = text[offset:offset + size].decode()
    category = re.search(r"<([a-z, ]+)>", entry)
    if category:
        categories[category[1].split(",")[0]] += 1
        dated += bool(re.search(r"\((?:19|20)\d\d-\d\d-\d\d\)", entry))
    if words[0] in ("ibm 709", "ce", "starlisp", "*lisp", "c++", "zmodem"):
        body = re.sub(r"\A(?:\S.*\n)+", "", entry.lstrip("\n"))
        samples[words[0]] = {"headwords": words, "definition": textwrap.dedent(body).strip("\n")}

sha256 = hashlib.sha256((folder / "foldoc.dict.dz").read_bytes()).hexdigest()
json.dump({"sha256": sha256, "entries": len(entries), "with_category": sum(categories.values()), "with_category_and_date": dated,
           "categories": categories.most_common(12), "samples": samples}, sys.stdout, indent=1)
print()
