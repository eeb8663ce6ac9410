"""Does transformers read a folder that Retort wrote as llama.cpp and Retort do? Tokens of hard texts, logits, a chat.

    python check_hf_folder.py FOLDER [--base MODEL] [--retort build/release/bin/retort] [--llama-tokenize llama-tokenize]

FOLDER: what `retort prune` or `retort export --format safetensors` wrote. --base: a GGUF file whose vocabulary the folder has;
its tokens by llama.cpp's own llama-tokenize must be those of the folder's tokenizer. --retort: its logits for one text must
agree with transformers' to 1e-4 of their largest value (f32). Versions: transformers 5.17, torch 2.11.
"""
import argparse
import ast
import subprocess
import tempfile

import safetensors.torch
import torch
import transformers

TEXTS = [
    "Hello, world!", " leading and trailing  ", "two  three   four    spaces",
    "line\nline\n\nparagraph\n\n\n  indented\r\ncarriage", "tab\tseparated\t\tvalues",
    "3 33 333 3333 33333 3.14159 1e-10 0x1F 1,234,567", "I've been 'told he's there, 'RE you sure? We'Ve a'lL",
    "é e\u0301 ñ Ångström naïve ﬁne Ⅷ ½", "我想在工作 한국어 日本語の", "нещо مرحبا नम",
    "🚀 😶\u200d🌫\ufe0f ✅ 🦙🦙", "<html><body class=\"x\">&amp;</body></html>",
    "def f(x):\n    return {k: v for k, v in x.items()}  # comment\n", "------======= \"\"\"\"......!!!!!!?????? ```",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", "x" * 300, " " * 70 + "x",
    "zero\u200bwidth no\u00a0break", "<|im_start|>user\nHi<|im_end|>\n",
]


def llama_tokens(program, model, text):
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        shown = subprocess.run([program, "-m", model, "-f", file.name, "--ids", "--no-escape", "--log-disable"], check=True,
                               capture_output=True, text=True).stdout
    return ast.literal_eval(shown.strip().splitlines()[-1])


parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--base")
parser.add_argument("--retort")
parser.add_argument("--llama-tokenize", default="llama-tokenize")
options = parser.parse_args()

tokenizer = transformers.AutoTokenizer.from_pretrained(options.folder)
same = sum(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text for text in TEXTS)
print(f"{type(tokenizer).__name__}, {len(tokenizer)} tokens: {same} of {len(TEXTS)} texts come back as they were")
if options.base:
    for text in TEXTS:
        wanted, found = llama_tokens(options.llama_tokenize, options.base, text), tokenizer.encode(text)
        assert wanted == found, (text, wanted, found)
    print(f"{len(TEXTS)} texts: the tokens of llama-tokenize")
if tokenizer.chat_template:
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "What is a modem?"}], add_generation_prompt=True,
                                         tokenize=False)
    print("a chat:", repr(chat))

model, loading = transformers.AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32,
                                                                   output_loading_info=True)
assert not any(loading.values()), loading
print(f"{type(model).__name__}, {sum(p.numel() for p in model.parameters())} parameters, {len(model.model.layers)} layers")
ids = tokenizer.encode("A modem turns bits into tones and tones into bits; what a telephone line carries is sound.")
if options.retort:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        subprocess.run([options.retort, "logits", "--model", options.folder, "--ids", ",".join(map(str, ids)), "--out",
                        file.name], check=True, capture_output=True)
        found = safetensors.torch.load_file(file.name)["logits"]
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0]
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    print(f"logits of {len(ids)} tokens: largest difference {error:.1e} of the largest logit")
    assert error < 1e-4
output = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
print("goes on:", repr(tokenizer.decode(output[0, len(ids):])))
