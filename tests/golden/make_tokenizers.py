"""Makes tests/golden/tokenizers: tiny tokenizers of the kinds that Retort reads, and the ids that Hugging Face's `tokenizers` and
SentencePiece give for hard texts.

    python make_tokenizers.py SMOLLM2_TOKENIZER_JSON

Versions: tokenizers 0.23.3, sentencepiece 0.2.3. Training text: this file and the Python standard library's documentation, so that
anyone can run it; the ids are what counts, not the vocabulary.
"""
import json
import os
import pathlib
import sys

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).parent / "tokenizers"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER, WORD = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[^\r\n\p{L}\p{N}]?"
LLAMA3 = CONTRACTIONS + "|" + WORD + r"\p{L}+|\p{N}{1,3}" + REST
QWEN2 = CONTRACTIONS + "|" + WORD + r"\p{L}+|\p{N}" + REST
TEKKEN = f"{WORD}{UPPER}*{LOWER}+|{WORD}{UPPER}+{LOWER}*|\\p{{N}}" + REST.replace(r"[\r\n]*|", r"[\r\n/]*|", 1)
GPT4O = (f"{WORD}{UPPER}*{LOWER}+{CONTRACTIONS}?|{WORD}{UPPER}+{LOWER}*{CONTRACTIONS}?|\\p{{N}}{{1,3}}"
         + REST.replace(r"[\r\n]*|", r"[\r\n/]*|", 1))

SPECIAL = ["<|begin|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
TEXTS = [
    "Hello, world!", " leading and trailing  ", "two  three   four    spaces",
    "line\nline\n\nparagraph\n\n\n  indented\r\ncarriage", "tab\tseparated\t\tvalues",
    "3 33 333 3333 33333 3.14159 1e-10 0x1F 1,234,567", "I've been 'told he's there, 'RE you sure? We'Ve a'lL",
    "é e\u0301 ñ Ångström naïve ﬁne Ⅷ ½", "我想在工作 한국어 日本語の", "нещо مرحبا नम",
    "🚀 😶\u200d🌫\ufe0f ✅ 🦙🦙", "<html><body class=\"x\">&amp;</body></html>",
    "def f(x):\n    return {k: v for k, v in x.items()}  # comment\n", "------======= \"\"\"\"......!!!!!!?????? ```",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", "x" * 100, " " * 30 + "x",
    "zero\u200bwidth no\u00a0break", "HTTPServer2Go iPhone15 snake_case kebab-case", "",
]


def corpus():
    text = pathlib.Path(__file__).read_text() + "".join(TEXTS)
    for module in ("argparse", "json", "tarfile", "typing", "pathlib"):
        text += __import__(module).__doc__ or ""
        docs = (getattr(v, "__doc__", None) for v in vars(__import__(module)).values())
        text += " ".join(doc for doc in docs if isinstance(doc, str))
    return [line + "\n" for line in text.split("\n")]


def byte_level(name, steps, normalizer=None, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = steps
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=460, show_progress=False, special_tokens=SPECIAL,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens(["<tool>"])
    if name == "llama-bpe":
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])])
    save(name, tokenizer)


def save(name, tokenizer, bos="<|begin|>", eos="<|im_end|>"):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    json.dump(json.loads(tokenizer.to_str()), (folder / "tokenizer.json").open("w"), ensure_ascii=False,
              separators=(",", ":"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": bos, "eos_token": {"content": eos}}) + "\n")
    ids = [tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]
    expected[name] = {"ids": ids, "with_special": tokenizer.encode("<|begin|>Hi<|im_end|>\n<tool>", add_special_tokens=True).ids}


def split(regex):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentence_pieces():
    """The same model as tokenizer.model and, converted as transformers does it, as tokenizer.json."""
    text = OUT / "corpus.txt"
    text.write_text("".join(corpus()))
    variants = {"sentencepiece": dict(model_type="bpe", normalization_rule_name="identity", byte_fallback=True),
                "sentencepiece-no-prefix": dict(model_type="bpe", normalization_rule_name="identity", byte_fallback=True,
                                                add_dummy_prefix=False),
                "sentencepiece-unigram": dict(model_type="unigram", normalization_rule_name="identity", byte_fallback=True),
                "sentencepiece-squeezed": dict(model_type="bpe", normalization_rule_name="identity", byte_fallback=True,
                                               remove_extra_whitespaces=True)}
    for name, options in variants.items():
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        options = {"remove_extra_whitespaces": False, **options}
        sentencepiece.SentencePieceTrainer.train(
            input=os.path.relpath(text), model_prefix=os.path.relpath(folder / "tokenizer"), vocab_size=500, split_digits=True, num_threads=1,
            minloglevel=2, character_coverage=0.995, **options)
        (folder / "tokenizer.vocab").unlink()
        (folder / "tokenizer_config.json").write_text(json.dumps({
            "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True,
            "added_tokens_decoder": {"500": {"content": "[INST]", "special": True}, "501": {"content": "[/INST]", "special": True}},
        }) + "\n")
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        expected[name] = {"ids": [processor.encode(t) for t in TEXTS]}
    text.unlink()

    processor = sentencepiece.SentencePieceProcessor(model_file=str(OUT / "sentencepiece" / "tokenizer.model"))
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]
    vocab = {p: i for i, (p, _) in enumerate(pieces)}
    merges = sorted(((-score, l, r) for p, score in pieces if not processor.is_byte(vocab[p]) and vocab[p] > 2
                     for i in range(1, len(p)) if (l := p[:i]) in vocab and (r := p[i:]) in vocab),
                    key=lambda m: (m[0], len(m[1])))
    tokenizer = Tokenizer(models.BPE(vocab, [(l, r) for _, l, r in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    save("sentencepiece-json", tokenizer, "<s>", "</s>")


def smollm2(path):
    """The real vocabulary under the pre-tokenizer that its makers published."""
    description = json.loads(pathlib.Path(path).read_text())
    description["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}
    tokenizer = Tokenizer.from_str(json.dumps(description))
    expected["SmolLM2"] = {"ids": [tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]}


expected = {}
byte_level("gpt-2", pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
byte_level("smollm", pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                              pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]))
byte_level("llama-bpe", split(LLAMA3), ignore_merges=True)
byte_level("dbrx", split(LLAMA3))
byte_level("qwen2", split(QWEN2))
byte_level("tekken", split(TEKKEN), ignore_merges=True)
byte_level("gpt-4o", split(GPT4O))
sentence_pieces()
smollm2(sys.argv[1])
lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in expected.items())
(OUT / "expected.json").write_text(f'{{"texts": {json.dumps(TEXTS)},\n{lines}}}\n')
