"""Seconds of a step of TRL's GKDTrainer. One process is one measurement; it prints one line of JSON."""

import argparse
import statistics
import tempfile
import time

import torch
from common import forget_peak, peak_rss_bytes, random_rows, report, versions
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl.experimental.gkd import GKDConfig, GKDTrainer

IGNORED = -100


class Clock(TrainerCallback):
    """Times every step: forward passes, loss, backward pass, clipping and optimiser, not the data."""

    def __init__(self):
        self.seconds = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        # No token ends a response, so that all have the full length. `train` has just copied the
        # tokenizer's end into the model's settings, so this cannot be done earlier.
        model.generation_config.eos_token_id = None
        # As in `distil bench`: weights are loaded, the step that is not counted is yet to come.
        forget_peak()

    def on_step_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self.start)


class Gkd(GKDTrainer):
    """GKDTrainer that also counts the tokens it generates."""

    generated = []

    @staticmethod
    def generate_on_policy_outputs(model, inputs, generation_config):
        outputs = GKDTrainer.generate_on_policy_outputs(model, inputs, generation_config)
        labels = outputs[2]
        Gkd.generated.append(int((labels != IGNORED).sum()))
        return outputs


def collate(rows):
    """Batches of equal length, straight from token ids: no text, no chat template, no padding.

    Every token is a target. The first has nothing before it that could predict it, so TRL's shift
    leaves length - 1 positions with a loss.
    """
    input_ids = torch.tensor([row["input_ids"] for row in rows])
    prompts = torch.tensor([row["prompt"] for row in rows])
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "labels": input_ids.clone(),
        "prompts": prompts,
        "prompt_attention_mask": torch.ones_like(prompts),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--mode", choices=["off", "on"], default="off")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence, with --mode off")
    parser.add_argument("--prompt-tokens", type=int, default=32, help="of a sequence, with --mode on")
    parser.add_argument("--new-tokens", type=int, default=128, help="generated after each prompt, with --mode on")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that is not counted")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    on_policy = args.mode == "on"
    length = args.prompt_tokens + args.new_tokens if on_policy else args.length

    # The student's weights stay in f32 in both cases: training pure bf16 weights loses small updates.
    student = AutoModelForCausalLM.from_pretrained(args.student, dtype=torch.float32)
    # The teacher is never updated, so with bf16 it is held in bf16. That is the faster choice for TRL:
    # autocast would convert f32 weights anew in every step.
    teacher_dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    teacher = AutoModelForCausalLM.from_pretrained(args.teacher, dtype=teacher_dtype)
    student.generation_config.eos_token_id = None

    steps = args.steps + 1
    rows = random_rows(args.batch * steps, length, student.config.vocab_size)
    data = Dataset.from_list([{"input_ids": row, "prompt": row[: args.prompt_tokens]} for row in rows])
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = GKDConfig(
            output_dir=folder,
            lmbda=1.0 if on_policy else 0.0,  # 1: every batch is the student's own; 0: none is
            # In TRL's generalized_jsd_loss 0 is F.kl_div(student, teacher): the forward KL,
            # sum of p_teacher (log p_teacher - log p_student). 1 is the reverse KL.
            beta=0.0,
            temperature=1.0,
            max_new_tokens=args.new_tokens,
            max_length=length,
            max_steps=steps,
            per_device_train_batch_size=args.batch,
            gradient_accumulation_steps=1,
            gradient_checkpointing=False,  # on by default in TRL; it would compute forward passes twice
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            weight_decay=0.01,
            max_grad_norm=1.0,
            bf16=args.precision == "bf16",
            use_cpu=True,
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            seed=0,
        )
        trainer = Gkd(
            model=student,
            teacher_model=teacher,
            args=config,
            data_collator=collate,
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(args.teacher),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)  # it prints to where the JSON goes
        trainer.generation_config.eos_token_id = None
        trainer.train()

    seconds = clock.seconds[1:]
    generated = Gkd.generated[1:]
    if on_policy and any(count != args.batch * args.new_tokens for count in generated):
        raise SystemExit(f"responses ended early: {generated} tokens a step")
    report(
        {
            "peer": "trl",
            "case": f"on-policy, {args.batch} × ({args.prompt_tokens} + {args.new_tokens} new) tokens"
            if on_policy
            else f"off-policy, {args.batch} × {length} tokens",
            "precision": args.precision,
            "seconds": statistics.median(seconds),
            "seconds_all": seconds,
            "tokens": args.batch * length,
            "generated_tokens": generated,
            "threads": torch.get_num_threads(),
            "peak_rss_bytes": peak_rss_bytes(),
            "versions": versions("torch", "transformers", "trl", "accelerate"),
        }
    )


if __name__ == "__main__":
    main()
