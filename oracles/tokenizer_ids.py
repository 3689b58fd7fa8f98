"""Small tokenizers of every kind that distil reads, and the ids that the `tokenizers` library gives for
tricky texts.

Writes into crates/model/tests/fixtures/tokenizers:

  smollm.gguf, gpt2.gguf, qwen2.gguf, llama-bpe.gguf   a byte-level BPE of about 500 tokens each, as GGUF
                                                       metadata without weights
  metaspace/                                           a Hugging Face directory with a SentencePiece-like BPE
                                                       (a space in front of every text, byte fallback, BOS)
  ids.json      `texts`, and per tokenizer the `ids` of each text without and `prompt_ids` with special tokens,
                and the `decoded` text of the ids with special tokens left out

The reference of a GGUF file is not read from it: it is put together here from what the pre-tokenizer's name
stands for in the models' own tokenizer.json. (transformers' reading of GGUF leaves out SmolLM's single digits,
Qwen2's NFC and Llama 3's `ignore_merges`.) Nor may this file be called tokenizers.py: it would hide the library.
"""

import argparse
import json
from pathlib import Path

from gguf import GGUFWriter
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from common import REPOSITORY, write_json

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind; it's used to foxes.",
    "We're sure they'll say he'd rather wait. I'm not, and they've not. DON'T SHOUT, IT'S RUDE.",
    "def add(first, second):\n    return first + second\n\n\nfor index in range(100):\n\tprint(index, 2024)\n",
    "In 1999 there were 12345 rivers, 67 lakes and 8.5 mountains; 31415926535 is a number, 007 an agent.",
    "Über die Brücke ging ein Café-Gast: «naïve» façade, crème brûlée, Ärger, größer, Straße.",
    "日本語の文章です。東京は大きい。 Привет, мир! Как дела? مرحبا بالعالم ",
    "the then them there these theory other another mother brother weather whether together",
    "    indented\n        more\n\t\ttabs\r\nwindows lines\r\n\r\nend   of   spaces    ",
] * 4

TEXTS = [
    "", " ", "  ", "\n", "\n\n", "\t", "\r\n", " \n ", "   \n\n   x", "a", " a", "a ", "  a  b   c    ",
    "Hello, world!", "The quick brown fox doesn't mind.", "It's IT'S it’s we'LL they'Re 'S 's' 'ſ",
    "1", "12", "123", "1234", "1234567", " 1 12 123", "3.14159", "1,000,000", "x1y22z333", "٣٤٥ ½ Ⅷ ²³",
    "def f(x):\n    return x ** 2\n\n\nprint(f(3))\n", "\tindented\twith\ttabs\n\t\t- more", "a\r\nb\r\n\r\nc", "a\u00a0b\u2003c\u3000d\u0085e\u200bf",
    "Über Café naïve", "Cafe\u0301 A\u030a \u1e9b\u0323", "\ufb01ne \u2126hm \uff21\uff22", "日本語 東京", "Привет, мир!", "مرحبا بالعالم", "ไทย หิน", "한국어 \u1112\u1161\u11ab",
    "😀", "👩‍👩‍👧‍👦 family 🏳️‍🌈", "🇩🇪🇫🇷", "e\u0301\u0302\u0303", "\u202eright to left\u202c", "\u0000\u0001\u001f\u007f", "\ufeffBOM", "\ufffd\U0010fffd",
    "<|im_start|>user\nHi<|im_end|>\n", "<|im_start|><|im_start|>", "x<|im_end|>y", "<|im_end", "<think>why</think>", "<tool call> two", " <|endoftext|> ",
    "[PAD7] zebra  zebra zebras", "https://example.org/a?b=c&d=%20#e", "{\"key\": [1, 2.5, null]}", "!!!??? ... --- ***", "$5 €5 5€ 5%", "a_b-c+d=e", "C++ & C# <b>x</b>",
    "the theory of the mother's brother", "   leading", "trailing   ", "a\n\n\n\nb", "x\n  y", "ABCdefGHI", "'''", "\"'\"'", "line one\n\nline two \n line three\n",
]

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<think>", "<tool call>"]
UNUSED = ["[PAD7]"]
WHOLE_WORD = "\u0120zebra"  # in the vocabulary, but no merges lead to it
NORMAL_TYPE, CONTROL_TYPE, USER_DEFINED_TYPE, UNUSED_TYPE = 1, 3, 4, 5

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

CHAT_TEMPLATE = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
# name: (normalizer, pre-tokenizer, ignore_merges, whether BOS is added)
KINDS = {
    "smollm": (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]), False, False),
    "gpt2": (None, GPT2, False, False),
    "qwen2": (normalizers.NFC(), split(QWEN2), False, False),
    "llama-bpe": (None, split(LLAMA3), True, True),
}


def byte_level(normalizer, pre_tokenizer, ignore_merges, add_bos):
    """The tokens in the order of ids, the merges, and the reference tokenizer."""
    trained = Tokenizer(models.BPE())
    # With merges across digits, which a tokenizer that keeps digits apart must then not use.
    trained.pre_tokenizer = GPT2 if not ignore_merges else pre_tokenizer
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=480, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(trained.to_str())["model"]
    words = sorted(model["vocab"], key=model["vocab"].get)
    tokens = CONTROL + words + [WHOLE_WORD] + USER_DEFINED + UNUSED
    merges = [tuple(merge) for merge in model["merges"]]
    reference = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges, ignore_merges=ignore_merges))
    if normalizer:
        reference.normalizer = normalizer
    reference.pre_tokenizer = pre_tokenizer
    reference.decoder = decoders.ByteLevel()
    reference.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL])
    reference.add_tokens([AddedToken(token, normalized=False) for token in USER_DEFINED])
    if add_bos:
        reference.post_processor = bos(CONTROL[0], 0)
    return tokens, merges, reference


def bos(token, index):
    return processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, index)])


def write_gguf(path, name, tokens, merges, add_bos):
    kinds = {**dict.fromkeys(CONTROL, CONTROL_TYPE), **dict.fromkeys(USER_DEFINED, USER_DEFINED_TYPE),
             **dict.fromkeys(UNUSED, UNUSED_TYPE)}
    temporary = path.with_name(path.name + ".tmp")
    writer = GGUFWriter(temporary, "llama")
    writer.add_context_length(2048)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, NORMAL_TYPE) for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    if name != "llama-bpe":  # whose readers add BOS where the file does not say
        writer.add_add_bos_token(add_bos)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)


def metaspace():
    """A pipeline like Llama 2's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator(
        [line for text in CORPUS if text.isascii() for line in text.splitlines()],  # the rest falls back to bytes
        trainers.BpeTrainer(vocab_size=560, show_progress=False, max_token_length=12,
                            special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)]))
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = state["added_tokens"][:3]  # the byte tokens are for the fallback alone
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = bos("<s>", 1)
    return tokenizer


def expected(tokenizer):
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    return {"ids": ids, "prompt_ids": [tokenizer.encode(text).ids for text in TEXTS],
            "decoded": [tokenizer.decode(each) for each in ids]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "crates/model/tests/fixtures/tokenizers")
    out = parser.parse_args().out
    (out / "metaspace").mkdir(parents=True, exist_ok=True)
    golden = {"texts": TEXTS}
    for name, kind in KINDS.items():
        tokens, merges, reference = byte_level(*kind)
        write_gguf(out / f"{name}.gguf", name, tokens, merges, kind[-1])
        golden[name] = expected(reference)
    reference = metaspace()
    reference.save(str(out / "metaspace/tokenizer.json"), pretty=False)
    write_json(out / "metaspace/tokenizer_config.json", {
        "add_bos_token": True, "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "rstrip": False},
        "eos_token": "</s>", "pad_token": None, "tokenizer_class": "LlamaTokenizer", "model_max_length": 2048})
    golden["metaspace"] = expected(reference)
    write_json(out / "ids.json", golden)


if __name__ == "__main__":
    main()
