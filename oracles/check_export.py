"""Does a model exported by distil give the same log-probabilities in transformers?

`python check_export.py DIR` loads the Hugging Face directory with transformers (weights, tokenizer, chat
template, generation config) and lets it say something.
`python check_export.py DIR ROWS.jsonl SCORES.jsonl` also compares, in float32, each row's response
log-probabilities with those that `distil score DIR --data ROWS.jsonl --out SCORES.jsonl` wrote.

ROWS holds {"prompt", "response"}; SCORES, line by line, {"token_ids", "logprobs"} of the response's tokens,
end token included, and optionally "prompt_ids". Exit status: 0 equal, 1 different, 2 unusable input.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer


def read_jsonl(path, *keys):
    """The objects of a JSONL file. ValueError names the line that lacks one of `keys`."""
    objects = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            objects.append(json.loads(line))
            if missing := [key for key in keys if key not in objects[-1]]:
                raise ValueError(f"{path}, line {number}: no {', '.join(missing)}")
    return objects


def encode_prompt(tokenizer, prompt, raw):
    """Token ids of a user's message in the chat template, or of the bare text; BOS once, where one belongs."""
    if not raw:
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": prompt}],
                                               add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    return [tokenizer.bos_token_id] + ids if adds_bos and ids[:1] != [tokenizer.bos_token_id] else ids


def end_ids(model, tokenizer):
    """Every token that ends a response."""
    ends = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}


@torch.no_grad()
def logprobs_of(model, prompt_ids, response_ids):
    """Log-probability of each response token."""
    logits = model(torch.tensor([prompt_ids + response_ids])).logits[0, len(prompt_ids) - 1:-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response_ids)[:, None])[:, 0]


def compare(model, tokenizer, rows, scores, raw):
    """The largest difference, after saying what is wrong with any row."""
    worst = 0.0
    for number, (row, score) in enumerate(zip(rows, scores), 1):
        ids, ours = score["token_ids"], torch.tensor(score["logprobs"])
        if len(ids) != len(ours) or not ids or ids[-1] not in end_ids(model, tokenizer):
            print(f"row {number}: {len(ids)} token_ids, {len(ours)} logprobs; the last token must end the response")
            worst = float("inf")
            continue
        text = tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False)
        if text != row["response"]:
            print(f"row {number}: token_ids say {text!r}, the response is {row['response']!r}")
            worst = float("inf")
        prompt_ids = encode_prompt(tokenizer, row["prompt"], raw)
        if score.get("prompt_ids", prompt_ids) != prompt_ids:
            print(f"row {number}: prompt_ids {score['prompt_ids']}, transformers has {prompt_ids}")
            worst = float("inf")
        difference = (logprobs_of(model, prompt_ids, ids) - ours).abs()
        largest = difference.max().item() if difference.isfinite().all() else float("inf")
        print(f"row {number}: {len(ids)} tokens, largest difference {largest:.2e} at token {difference.argmax()}")
        worst = max(worst, largest)
    return worst


def say_something(model, tokenizer, raw):
    ids = torch.tensor([encode_prompt(tokenizer, "Why do cats purr?", raw)])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16)
    print("loads; greedy answer:", repr(tokenizer.decode(output[0, ids.shape[1]:])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="the exported Hugging Face directory")
    parser.add_argument("rows", type=Path, nargs="?", help="JSONL of prompt and response")
    parser.add_argument("scores", type=Path, nargs="?", help="JSONL that `distil score` wrote for these rows")
    parser.add_argument("--raw", action="store_true", help="prompts are bare text: no chat template")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="in nats (default: %(default)s)")
    arguments = parser.parse_args()
    if (arguments.rows is None) != (arguments.scores is None):
        parser.error("ROWS and SCORES come together")
    rows, scores = [], []
    if arguments.rows is not None:
        try:
            rows = read_jsonl(arguments.rows, "prompt", "response")
            scores = read_jsonl(arguments.scores, "token_ids", "logprobs")
        except (OSError, ValueError) as error:
            parser.error(str(error))
        if len(rows) != len(scores) or not rows:
            parser.error(f"{len(rows)} rows and {len(scores)} scores; there must be as many, and at least one")
    if not (arguments.directory / "config.json").is_file():
        parser.error(f"{arguments.directory} is no Hugging Face directory: it has no config.json")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    tokenizer = AutoTokenizer.from_pretrained(arguments.directory)
    # output_loading_info names weights that transformers missed or did not know: neither may happen.
    model, info = AutoModelForCausalLM.from_pretrained(
        arguments.directory, dtype=torch.float32, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    if problems:
        print("transformers does not take the weights as they are:", problems)
        sys.exit(1)
    model.eval()
    say_something(model, tokenizer, arguments.raw)
    if not rows:
        return
    worst = compare(model, tokenizer, rows, scores, arguments.raw)
    print(f"{len(rows)} rows, largest difference {worst:.2e}, allowed {arguments.tolerance:.0e}")
    sys.exit(0 if worst <= arguments.tolerance else 1)


if __name__ == "__main__":
    main()
