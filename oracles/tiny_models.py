"""Tiny random models of every supported architecture, each with what transformers computes from it.

Each model becomes a folder as `save_pretrained` writes it, plus `golden.json`:

  sequences       per sequence `token_ids` and, per position, either all log-probabilities of the next token
                  (`logprobs`, short sequences) or those of the token that follows (`target_logprobs`, one
                  fewer than tokens), the most likely token (`argmax`) and `logsumexp` of the raw logits
  greedy          `prompt_ids`, the 20 most likely `continuation_ids`, and the logit `gaps` between the
                  first and second choice
  gradients       mean cross-entropy (nats) over the response tokens of all `pairs`, and of its gradient per
                  parameter: shape, L2 `norm`, sampled `entries` as [flat row-major index, value]

Everything is computed in float32 from the weights on disk, whatever their type. The weights are large
enough that each of them matters, and the script fails if one does not: a reader that drops a bias,
transposes a matrix or ignores a config key cannot agree with the golden file.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from common import REPOSITORY, rounded, write_json

SMALL = dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
                   high_freq_factor=4.0, original_max_position_embeddings=64)

# name: (architecture, config, type on disk, length of the long sequence, what is done differently).
# Epsilons of RMSNorm are larger than usual, so that a wrong one shows.
MODELS = {
    "llama-tied": ("Llama", dict(vocab_size=100, num_hidden_layers=2, tie_word_embeddings=True,
                                 rms_norm_eps=1e-2), "float32", 33, {"stop_ids": [2, 5]}),
    "llama-bias-llama3-rope": ("Llama", dict(vocab_size=97, num_hidden_layers=2, attention_bias=True,
                                             mlp_bias=True, rms_norm_eps=5e-3, max_position_embeddings=512,
                                             rope_parameters=LLAMA3_ROPE), "float32", 150, {"both_styles": True}),
    "llama-linear-rope": ("Llama", dict(vocab_size=96, num_hidden_layers=2, rms_norm_eps=1e-2,
                                        max_position_embeddings=128,
                                        rope_parameters=dict(rope_type="linear", rope_theta=1000.0, factor=2.0)),
                          "float32", 100, {"old_style": True}),
    "qwen2": ("Qwen2", dict(vocab_size=128, num_hidden_layers=3, tie_word_embeddings=True, rms_norm_eps=1e-2,
                            rope_parameters=dict(rope_type="default", rope_theta=1000000.0)), "float32", 33, {}),
    "qwen3": ("Qwen3", dict(vocab_size=110, num_hidden_layers=2, head_dim=16, rms_norm_eps=1e-2,
                            rope_parameters=dict(rope_type="default", rope_theta=1000000.0)), "float32", 33, {}),
    "mistral-bf16": ("Mistral", dict(vocab_size=104, num_hidden_layers=2, num_key_value_heads=1,
                                     sliding_window=None, rms_norm_eps=1e-2), "bfloat16", 33, {}),
    "llama-sharded-f16": ("Llama", dict(vocab_size=100, num_hidden_layers=3, rms_norm_eps=1e-2), "float16", 33,
                          {"shard_size": "34KB"}),
}


def randomise(model, generator):
    """Weights around 0 with deviation 0.25, norm weights around 1, so that nothing is a no-op."""
    for name, parameter in model.named_parameters():
        centre = 1.0 if name.endswith("norm.weight") else 0.0
        parameter.data = centre + 0.25 * torch.randn(parameter.shape, generator=generator)


def old_style(config):
    """The same config as transformers 4 wrote it: `rope_theta` and `rope_scaling` at the top level."""
    config = dict(config)
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] == "linear":  # the oldest files say `type`
        rope = {"type": rope.pop("rope_type"), **rope}
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.45.0"
    return config


def save(name, directory, generator):
    """Make the model `name` in `directory` as transformers saves it, and return the files' names."""
    architecture, config, dtype, _, options = MODELS[name]
    config = getattr(transformers, architecture + "Config")(**{**SMALL, **config})
    model = getattr(transformers, architecture + "ForCausalLM")(config)
    randomise(model, generator)
    model.to(getattr(torch, dtype))
    if "stop_ids" in options:
        model.generation_config.eos_token_id = options["stop_ids"]
    model.save_pretrained(directory, max_shard_size=options.get("shard_size", "5GB"))
    shards = sorted(path.name for path in directory.glob("*.safetensors"))
    assert len(shards) == (2 if "shard_size" in options else 1), shards
    path = directory / "config.json"
    if "old_style" in options:
        path.write_text(json.dumps(old_style(json.loads(path.read_text())), indent=2) + "\n")
    if "both_styles" in options:
        other = old_style(json.loads(path.read_text()))
        (directory / "config.transformers4.json").write_text(json.dumps(other, indent=2) + "\n")
        parameters = [AutoConfig.from_pretrained(directory / file).rope_parameters
                      for file in ("config.json", "config.transformers4.json")]
        assert parameters[0] == parameters[1], parameters


def load(directory, config=None):
    """The model on disk, widened to float32."""
    config = config or AutoConfig.from_pretrained(directory)
    return AutoModelForCausalLM.from_pretrained(
        directory, config=config, dtype=torch.float32, attn_implementation="eager").eval()


def logits_of(model, token_ids):
    """[tokens, vocabulary]"""
    return model(torch.tensor([token_ids]), use_cache=False).logits[0]


def logprobs_of(model, token_ids):
    """[tokens, vocabulary]; row t is the distribution of token t + 1."""
    return logits_of(model, token_ids).log_softmax(-1)


def draw(length, vocabulary, generator):
    return torch.randint(0, vocabulary, (length,), generator=generator).tolist()


@torch.no_grad()
def check_everything_matters(directory, model, token_ids, generator):
    """Fail unless each tensor and each config key that enters the forward pass moves the log-probabilities."""
    reference = logprobs_of(model, token_ids)
    error = (logprobs_of(load(directory).double(), token_ids) - reference).abs().max().item()
    assert error < 2e-5, f"float32 rounding alone moves log-probabilities by {error}"
    for name, parameter in model.named_parameters():
        kept = parameter.data.clone()
        parameter.data += 0.1 * kept.std() * torch.randn(kept.shape, generator=generator)
        change = (logprobs_of(model, token_ids) - reference).abs().max().item()
        parameter.data = kept
        assert change > 1e-3, f"{name} hardly matters: {change}"
    config = AutoConfig.from_pretrained(directory)
    rope = config.rope_parameters
    changes = {"rms_norm_eps": config.rms_norm_eps / 10,
               "rope_theta": {**rope, "rope_theta": rope["rope_theta"] * 2}}
    if rope["rope_type"] != "default":
        changes["rope_type"] = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
        changes["factor"] = {**rope, "factor": rope["factor"] * 1.5}
    if rope["rope_type"] == "llama3":
        changes["low_freq_factor"] = {**rope, "low_freq_factor": 0.5}
        changes["high_freq_factor"] = {**rope, "high_freq_factor": 8.0}
        changes["original_max_position_embeddings"] = {**rope, "original_max_position_embeddings": 128}
    for key, value in changes.items():
        config = AutoConfig.from_pretrained(directory)
        setattr(config, key if key == "rms_norm_eps" else "rope_parameters", value)
        change = (logprobs_of(load(directory, config), token_ids) - reference).abs().max().item()
        assert change > 1e-3, f"config key {key} hardly matters: {change}"
    return error


@torch.no_grad()
def golden_sequence(model, token_ids, complete):
    logits = logits_of(model, token_ids)
    logprobs = logits.log_softmax(-1)
    if complete:
        return {"token_ids": token_ids, "logprobs": rounded(logprobs)}
    first, second = logits.topk(2).values.unbind(-1)
    if (first - second).min() < 1e-3:
        return None  # too close to a tie: the caller draws again
    targets = logprobs[:-1].gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0]
    return {"token_ids": token_ids, "target_logprobs": rounded(targets),
            "argmax": logits.argmax(-1).tolist(), "logsumexp": rounded(logits.logsumexp(-1))}


@torch.no_grad()
def golden_greedy(model, prompt_ids, length=20):
    ids, gaps = list(prompt_ids), []
    for _ in range(length):
        best = logits_of(model, ids)[-1].topk(2)
        gaps.append(best.values[0] - best.values[1])
        ids.append(best.indices[0].item())
    if min(gaps) < 0.02 or len(set(ids[len(prompt_ids):])) < 5:
        return None  # a near tie, or a dull loop: the caller draws again
    return {"prompt_ids": prompt_ids, "continuation_ids": ids[len(prompt_ids):],
            "gaps": rounded(torch.stack(gaps), 4)}


def golden_gradients(model, pairs, generator):
    model.zero_grad()
    total = sum(len(pair["response_ids"]) for pair in pairs)
    loss = 0.0
    for pair in pairs:
        prompt, response = pair["prompt_ids"], pair["response_ids"]
        logprobs = logprobs_of(model, prompt + response)[len(prompt) - 1:-1]
        loss = loss - logprobs.gather(1, torch.tensor(response)[:, None]).sum() / total
    loss.backward()
    parameters = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.flatten()
        norm = gradient.norm().item()
        assert norm > 1e-4, f"{name} receives almost no gradient: {norm}"
        largest = gradient.abs().argmax().item()
        candidates = (gradient.abs() > 0.01 * gradient.abs().max()).nonzero()[:, 0].tolist()
        candidates.remove(largest)
        order = torch.randperm(len(candidates), generator=generator)[:4].tolist()
        chosen = sorted([largest, *(candidates[place] for place in order)])
        parameters[name] = {"shape": list(parameter.shape), "norm": float(f"{norm:.8g}"),
                            "entries": [[index, float(f"{gradient[index].item():.8g}")] for index in chosen]}
    return {"pairs": pairs, "response_tokens": total, "loss": round(loss.item(), 7), "parameters": parameters}


def first_found(make, attempts=300):
    """The first draw that is not too close to a tie."""
    for _ in range(attempts):
        if (found := make()) is not None:
            return found
    raise SystemExit("no draw without a near tie; change the seed")


def build(name, out, seed):
    directory = out / f".{name}.tmp"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    save(name, directory, generator)
    model = load(directory)
    asked_rope = {"rope_type": "default", "rope_theta": 10000.0, **MODELS[name][1].get("rope_parameters", {})}
    assert asked_rope.items() <= model.config.rope_parameters.items(), model.config.rope_parameters
    vocabulary, long = model.config.vocab_size, MODELS[name][3]
    error = check_everything_matters(directory, model, draw(long, vocabulary, generator), generator)

    sequences = [golden_sequence(model, draw(length, vocabulary, generator), True) for length in (1, 7)]
    sequences.append(first_found(lambda: golden_sequence(model, draw(long, vocabulary, generator), False)))
    pairs = [{"prompt_ids": draw(prompt, vocabulary, generator), "response_ids": draw(response, vocabulary, generator)}
             for prompt, response in ((5, 9), (3, 6))]
    write_json(directory / "golden.json", {
        "made_by": f"oracles/tiny_models.py --seed {seed}; torch {torch.__version__.split('+')[0]}, "
                   f"transformers {transformers.__version__}",
        "sequences": sequences,
        "greedy": first_found(lambda: golden_greedy(model, draw(6, vocabulary, generator))),
        "gradients": golden_gradients(model, pairs, generator),
    })
    shutil.rmtree(out / name, ignore_errors=True)
    directory.rename(out / name)
    size = sum(path.stat().st_size for path in (out / name).iterdir())
    print(f"{name}: {size / 1000:.0f} kB, float64 differs by {error:.1e}")
    return size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "crates/model/tests/fixtures/models",
                        help="folder for the models (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    sizes = [build(name, arguments.out, arguments.seed + number) for number, name in enumerate(MODELS)]
    assert sum(sizes) < 900_000, f"fixtures take {sum(sizes)} bytes"
    print(f"together {sum(sizes) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
