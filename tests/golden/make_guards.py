#!/usr/bin/env python3
"""guards.json: what datatrove's filters measure of texts, and the exact Jaccard of rows that are near copies.

    pip install datatrove numpy nltk regex && python tests/golden/make_guards.py

Each measure is found from the filter's own decisions, by bisection of its limit. Words are split at white space and
sentences by a regular expression, so that no language model is needed; everything else is datatrove's code.
"""
import json, math, pathlib, random, re

import datatrove.pipeline.filters.c4_filters as c4
import datatrove.pipeline.filters.fineweb_quality_filter as fineweb
import datatrove.pipeline.filters.gopher_quality_filter as gopher
import datatrove.pipeline.filters.gopher_repetition_filter as repetition
from datatrove.data import Document

for module in (fineweb, gopher, repetition):
    module.split_into_words = lambda text, language: text.split()
c4.split_into_sentences = lambda text, language: re.findall(r"""[^.!?]+[.!?][.!?"')\]]*(?=\s|$)|.+$""", text) or [text]


def kept(filter_, text):
    result = filter_.filter(Document(text=text, id="0"))
    return result is True or (isinstance(result, tuple) and result[0] is True)


def value(make, text, low=-1.0, high=200001.0):
    """The largest limit that is exceeded: the filter keeps the text when the measure is at most the limit."""
    for _ in range(200):
        middle = (low + high) / 2
        if kept(make(middle), text):
            high = middle
        else:
            low = middle
    return high


def gopher_only(**limit):
    options = dict(min_doc_words=None, max_doc_words=None, min_avg_word_length=None, max_avg_word_length=None,
                   max_symbol_word_ratio=None, max_bullet_lines_ratio=None, max_ellipsis_lines_ratio=None,
                   max_non_alpha_words_ratio=None, min_stop_words=None)
    options.update(limit)
    return gopher.GopherQualityFilter(**options)


def repetition_only(**limit):
    options = dict(dup_line_frac=None, dup_para_frac=None, dup_line_char_frac=None, dup_para_char_frac=None,
                   top_n_grams=(), dup_n_grams=())
    options.update(limit)
    return repetition.GopherRepetitionFilter(**options)


def fineweb_only(**limit):
    options = dict(line_punct_thr=-1, short_line_thr=2, char_duplicates_ratio=2, new_line_ratio=1e9)
    options.update(limit)
    return fineweb.FineWebQualityFilter(**options)


def c4_only(limit):
    return c4.C4QualityFilter(filter_lorem_ipsum=False, filter_curly_bracket=False, min_num_sentences=limit)


def at_least(make, text):
    """A filter that keeps a text when the measure is at least the limit."""
    low, high = -1.0, 200001.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(make(middle), text) else (low, middle)
    return low


def measures(text):
    some = 1e-12  # datatrove takes a limit of 0 for none
    up = lambda make: value(lambda x: make(max(x, some)), text, 0.0)
    result = {
        "gopher_max_words": up(lambda x: gopher_only(max_doc_words=x)),
        "gopher_max_word_length": up(lambda x: gopher_only(max_avg_word_length=x)),
        "gopher_bullet_lines": up(lambda x: gopher_only(max_bullet_lines_ratio=x)),
        "gopher_ellipsis_lines": up(lambda x: gopher_only(max_ellipsis_lines_ratio=x)),
        "gopher_alphabetic_words": at_least(lambda x: gopher_only(max_non_alpha_words_ratio=x), text),
        "gopher_stop_words": math.floor(at_least(lambda x: gopher_only(min_stop_words=x), text) + 1e-9),
        "gopher_duplicate_lines": up(lambda x: repetition_only(dup_line_frac=x)),
        "gopher_duplicate_line_chars": up(lambda x: repetition_only(dup_line_char_frac=x)),
        "gopher_duplicate_paragraphs": up(lambda x: repetition_only(dup_para_frac=x)),
        "gopher_duplicate_paragraph_chars": up(lambda x: repetition_only(dup_para_char_frac=x)),
        "fineweb_punctuation": at_least(lambda x: fineweb_only(line_punct_thr=x), text),
        "fineweb_short_lines": up(lambda x: fineweb_only(short_line_thr=x)),
        "fineweb_duplicate_chars": up(lambda x: fineweb_only(char_duplicates_ratio=x)),
        "fineweb_newlines": up(lambda x: fineweb_only(new_line_ratio=x)),
        "c4_sentences": at_least(c4_only, text),
    }
    # One limit serves two measures there: the larger one is found.
    result["gopher_symbols"] = up(lambda x: gopher_only(max_symbol_word_ratio=x))
    words = text.split()
    for n in (2, 3, 4):
        grams = repetition.get_n_grams(words, n)
        twice = len(set(grams)) < len(grams)  # a single n-gram repeats nothing, whatever its share
        result[f"gopher_top_{n}_gram"] = up(lambda x: repetition_only(top_n_grams=((n, x),))) if twice else 0.0
    for n in range(5, 11):
        result[f"gopher_duplicate_{n}_gram"] = up(lambda x: repetition_only(dup_n_grams=((n, x),)))
    return {name: round(measure, 9) if measure > 1e-9 else 0.0 for name, measure in result.items()}


TEXTS = [
    "The cat sat on the mat. It had been there for hours, and nobody would have it moved.\n\nThe dog came in with a "
    "bone. \"Is that mine?\" asked the cat. It was not.\nThe end...",
    "- one\n- two\n- three\n• four\nand so on…",
    "# Title\n\nBuy now! Buy now! Buy now!\nBuy now! Buy now! Buy now!\n\nBuy now! Buy now! Buy now!\n\nThis site uses "
    "cookies. Read our privacy policy to learn more about it.\nEnable JavaScript to see this page well.",
    "1 2 3 4 5 6 7 8 9 10 11 12 a b c ### ... ... 13",
    "Étude naïve: ça coûte 3 €, déjà vu. Où est-il? Là-bas.\nСъешь же ещё этих мягких французских булок.\n"
    "東京は日本の首都です。",
    "we the people of the united states in order to form a more perfect union we the people of the united states in "
    "order to form a more perfect union we the people of the united states in order to form a more perfect union",
    "x",
]


def near_pairs():
    """Rows that are copies of each other with some words changed, and every pair's exact Jaccard of 5-word shingles."""
    draw = random.Random(7)
    vocabulary = [f"w{i}" for i in range(400)]
    rows = []
    for _ in range(40):
        row = [draw.choice(vocabulary) for _ in range(60)]
        rows.append(row)
        for changes in (1, 2, 4):
            copy = list(row)
            for _ in range(changes):
                copy[draw.randrange(60)] = draw.choice(vocabulary)
            rows.append(copy)
    shingles = [{tuple(row[i:i + 5]) for i in range(56)} for row in rows]
    pairs = []
    for i in range(len(rows)):
        for j in range(i):
            jaccard = len(shingles[i] & shingles[j]) / len(shingles[i] | shingles[j])
            if jaccard >= 0.5:
                pairs.append([j, i, round(jaccard, 9)])
    return {"rows": [" ".join(row) for row in rows], "pairs": pairs}


golden = {"texts": [{"text": text, "measures": measures(text)} for text in TEXTS], "near": near_pairs()}
path = pathlib.Path(__file__).with_name("guards.json")
path.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
