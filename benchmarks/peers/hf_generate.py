"""Tokens a second of transformers' `generate`. One process is one measurement; it prints one line of JSON."""

import argparse
import time

import torch
from common import forget_peak, peak_rss_bytes, random_rows, report, versions
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
    # No token ends a response, so that all have the full length.
    model.generation_config.eos_token_id = None
    prompts = torch.tensor(random_rows(args.sequences, args.prompt_tokens, model.config.vocab_size))

    def generate(new_tokens):
        output = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )
        if output.shape[1] != args.prompt_tokens + new_tokens:
            raise SystemExit("responses ended early")

    torch.manual_seed(0)
    forget_peak()
    generate(4)  # not counted: the first call allocates
    start = time.perf_counter()
    generate(args.new_tokens)
    seconds = time.perf_counter() - start
    report(
        {
            "peer": "transformers",
            "case": f"{args.sequences} sequences, prompts of {args.prompt_tokens} tokens, "
            f"{args.new_tokens} new tokens each, temperature 1",
            "precision": args.precision,
            "seconds": seconds,
            "tokens_per_second": args.sequences * args.new_tokens / seconds,
            "threads": torch.get_num_threads(),
            "peak_rss_bytes": peak_rss_bytes(),
            "versions": versions("torch", "transformers"),
        }
    )


if __name__ == "__main__":
    main()
