"""Tokens a second of llama.cpp, through the C interface of llama-cpp-python.

One process is one measurement; it prints one line of JSON. (The file is not called llama_cpp.py:
Python would then import it instead of the package.)

--work decode   sequences that are continued together, a token for each in every step
--work prefill  whole sequences read, logits of the last position of each only
--work score    the same with the logits of every position, which a teacher needs
"""

import argparse
import ctypes
import os
import time

import llama_cpp as ll
from common import forget_peak, peak_rss_bytes, random_rows, report, versions


@ll.llama_log_callback
def silent(level, text, data):
    pass


class Engine:
    """A model, a context with room for all sequences, and a batch to fill."""

    def __init__(self, gguf, sequences, length, threads):
        ll.llama_backend_init()
        self.model = ll.llama_model_load_from_file(gguf.encode(), ll.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"{gguf}: cannot be loaded")
        params = ll.llama_context_default_params()
        # A cache of its own for every sequence: in a shared one each would compute, and then mask,
        # attention to all the others.
        params.kv_unified = False
        params.n_seq_max = sequences
        params.n_ctx = sequences * max(256, -(-length // 256) * 256)
        params.n_batch = sequences * length
        params.n_threads = params.n_threads_batch = threads
        self.context = ll.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit("no context for so many sequences")
        self.vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        self.batch = ll.llama_batch_init(sequences * length, 0, 1)

    def fill(self, tokens):
        """The batch becomes `tokens`: (id, position, sequence, whether logits are wanted)."""
        self.batch.n_tokens = len(tokens)
        for at, (token, position, sequence, logits) in enumerate(tokens):
            self.batch.token[at] = token
            self.batch.pos[at] = position
            self.batch.n_seq_id[at] = 1
            self.batch.seq_id[at][0] = sequence
            self.batch.logits[at] = logits

    def decode(self):
        code = ll.llama_decode(self.context, self.batch)
        if code != 0:
            raise SystemExit(f"llama_decode failed with {code}")

    def wait(self):
        ll.llama_synchronize(self.context)

    def forget(self):
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)


def read(engine, rows, every):
    """Reads whole sequences; `every` asks for the logits of every position."""
    engine.forget()
    engine.fill(
        [
            (token, position, sequence, every or position + 1 == len(row))
            for sequence, row in enumerate(rows)
            for position, token in enumerate(row)
        ]
    )
    start = time.perf_counter()
    engine.decode()
    engine.wait()
    return time.perf_counter() - start


def generate(engine, prompts, new_tokens, sampler):
    """Samples `new_tokens` for every prompt; seconds for the prompts and for all that follows."""
    prefill = read(engine, prompts, every=False)
    length = len(prompts[0])
    start = time.perf_counter()
    # The logits of sequence i stand where its token stood in the batch: at the end of its prompt
    # first, then at i.
    places = [(sequence + 1) * length - 1 for sequence in range(len(prompts))]
    for step in range(new_tokens):
        # `llama_sampler_sample` draws from the whole vocabulary. What it draws may be an end: it is
        # continued like any other, so that all have the full length.
        drawn = [ll.llama_sampler_sample(sampler, engine.context, place) for place in places]
        if step + 1 < new_tokens:
            engine.fill([(token, length + step, sequence, True) for sequence, token in enumerate(drawn)])
            engine.decode()
            places = range(len(prompts))
    engine.wait()
    return prefill, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--work", choices=["decode", "prefill", "score"], default="decode")
    parser.add_argument("--sequences", type=int, help="default: 32, 4 for prefill and score")
    parser.add_argument("--prompt-tokens", type=int, help="default: 32, 256 for prefill and score")
    parser.add_argument("--new-tokens", type=int, default=64, help="of --work decode")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    decoding = args.work == "decode"
    sequences = args.sequences or (32 if decoding else 4)
    prompt_tokens = args.prompt_tokens or (32 if decoding else 256)

    ll.llama_log_set(silent, ctypes.c_void_p(0))
    engine = Engine(args.gguf, sequences, prompt_tokens + (args.new_tokens if decoding else 0), args.threads)
    rows = random_rows(sequences, prompt_tokens, engine.vocabulary)
    forget_peak()
    if decoding:
        sampler = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
        ll.llama_sampler_chain_add(sampler, ll.llama_sampler_init_temp(1.0))
        ll.llama_sampler_chain_add(sampler, ll.llama_sampler_init_dist(0))
        generate(engine, rows, 4, sampler)  # not counted
        prefill, decode = generate(engine, rows, args.new_tokens, sampler)
        seconds, tokens = prefill + decode, sequences * args.new_tokens
        case = f"{sequences} sequences, prompts of {prompt_tokens} tokens, {args.new_tokens} new tokens each"
        phases = {"prefill": prefill, "decode": decode}
    else:
        read(engine, rows, args.work == "score")  # not counted
        seconds, tokens = read(engine, rows, args.work == "score"), sequences * prompt_tokens
        case = f"{sequences} × {prompt_tokens} tokens, logits of " + (
            "every position" if args.work == "score" else "the last position"
        )
        phases = {"prefill": seconds}
    report(
        {
            "peer": "llama.cpp",
            "case": case,
            "precision": "q4_1",
            "seconds": seconds,
            "phases": phases,
            "tokens_per_second": tokens / seconds,
            "threads": args.threads,
            "peak_rss_bytes": peak_rss_bytes(),
            "system": ll.llama_print_system_info().decode().strip(),
            "versions": versions("llama_cpp_python"),
        }
    )


if __name__ == "__main__":
    main()
