"""Distillation losses and their gradients in float64, by PyTorch's autograd from the formulas as written.

Writes `losses.json`. p is the teacher, q the student; logits are [positions, vocabulary], temperature 1,
natural logarithms. For each divergence: `per_position` values, their `mean`, and `gradient` of that mean
with respect to the student's logits.

  cross_entropy    -log q(target)
  forward_kl       sum_a p log(p / q)
  reverse_kl       sum_a q log(q / p)
  jsd_B            B KL(p || m) + (1 - B) KL(q || m),  m = B p + (1 - B) q
  tvd              1/2 sum_a |p - q|
  symmetric_kl_S   (1 - S) KL(p || q) + S KL(q || p)
  skew_kl_A        KL(p || A p + (1 - A) q)
  skew_reverse_kl_A  KL(q || (1 - A) p + A q)
  akl_M            w_h KL(p || q) + w_t KL(q || p); w_h, w_t the shares of sum |p - q| on the head (likeliest tokens
                   of p with cumulative mass <= M, the first always) and on the tail, constants for the gradient
  dpkd_token       -log sigma(beta D), D = [log q(y_t) - log q(y_s)] - [log p(y_t) - log p(y_s)],
                   y_t = argmax p and y_s = argmax q, both constants for the gradient (released code of DPKD)
  dpkd_sequence    DPKD (arXiv 2406.19774) eq. 9, from sums of log-probabilities over a response:
                   -log sigma(beta / |y_t| log q(y_t)/p(y_t) - beta / |y_s| log q(y_s)/p(y_s)), averaged over pairs;
                   `gradient` of each pair's own value with respect to its four sums
"""

import argparse
from pathlib import Path

import torch
from torch.nn.functional import logsigmoid

from common import REPOSITORY, rounded, write_json

POSITIONS, VOCABULARY, BETA = 6, 11, 0.1


def kl(log_a, log_b):
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def jsd(log_p, log_q, beta):
    log_m = (beta * log_p.exp() + (1 - beta) * log_q.exp()).log()
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)


def akl(log_p, log_q, mass):
    p, q = log_p.exp(), log_q.exp().detach()
    ordered, order = p.sort(-1, descending=True)
    inside = ordered.cumsum(-1) <= mass
    inside[:, 0] = True
    head = torch.zeros_like(inside).scatter(-1, order, inside)
    gap = (p - q).abs()
    w_h = (gap * head).sum(-1) / gap.sum(-1)
    return w_h * kl(log_p, log_q) + (1 - w_h) * kl(log_q, log_p)


def pick(log_probabilities, tokens):
    return log_probabilities.gather(-1, tokens[:, None])[:, 0]


def dpkd_margin(log_p, log_q):
    teacher_token, student_token = log_p.argmax(-1), log_q.argmax(-1)
    return (pick(log_q, teacher_token) - pick(log_q, student_token)
            - pick(log_p, teacher_token) + pick(log_p, student_token))


def divergence(student_logits, per_position, **extra):
    gradient, = torch.autograd.grad(per_position.mean(), student_logits, retain_graph=True)
    return {**extra, "per_position": rounded(per_position, 12), "mean": round(per_position.mean().item(), 12),
            "gradient": rounded(gradient, 12)}


def dpkd_sequence(pairs):
    results = []
    for pair in pairs:
        names = ("student_chosen", "teacher_chosen", "student_rejected", "teacher_rejected")
        sums = torch.tensor([pair[name] for name in names], dtype=torch.float64, requires_grad=True)
        margin = (BETA / pair["chosen_tokens"] * (sums[0] - sums[1])
                  - BETA / pair["rejected_tokens"] * (sums[2] - sums[3]))
        value = -logsigmoid(margin)
        gradient, = torch.autograd.grad(value, sums)
        results.append({**pair, "margin": round(margin.item(), 12), "value": round(value.item(), 12),
                        "gradient": dict(zip(names, rounded(gradient, 12)))})
    return {"beta": BETA, "pairs": results, "mean": round(sum(r["value"] for r in results) / len(results), 12)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "crates/distil/tests/fixtures/losses.json",
                        help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()

    generator = torch.Generator().manual_seed(arguments.seed)
    normal = lambda: torch.randn(POSITIONS, VOCABULARY, generator=generator, dtype=torch.float64)
    # Four decimals, so that the file's numbers are exactly the ones used here. The student is a blurred
    # teacher: it agrees about the best token at some positions only.
    teacher = (2 * normal()).round(decimals=4)
    student = (0.5 * teacher + normal()).round(decimals=4).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (POSITIONS,), generator=generator)
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)

    agree = (log_p.argmax(-1) == log_q.argmax(-1)).sum().item()
    assert 0 < agree < POSITIONS, f"{agree} of {POSITIONS} positions agree; change the seed"
    margin = dpkd_margin(log_p, log_q)
    assert (margin <= 0).all()

    result = {
        "made_by": f"oracles/kd_losses.py --seed {arguments.seed}; torch {torch.__version__.split('+')[0]}",
        "teacher_logits": rounded(teacher, 4),
        "student_logits": rounded(student, 4),
        "targets": targets.tolist(),
        "cross_entropy": divergence(student, -pick(log_q, targets)),
        "forward_kl": divergence(student, kl(log_p, log_q)),
        "reverse_kl": divergence(student, kl(log_q, log_p)),
        "jsd_0.5": divergence(student, jsd(log_p, log_q, 0.5), beta=0.5),
        "jsd_0.1": divergence(student, jsd(log_p, log_q, 0.1), beta=0.1),
        "tvd": divergence(student, 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)),
        "symmetric_kl_0.9": divergence(student, 0.1 * kl(log_p, log_q) + 0.9 * kl(log_q, log_p)),
        "skew_kl_0.1": divergence(student, kl(log_p, (0.1 * log_p.exp() + 0.9 * log_q.exp()).log())),
        "skew_reverse_kl_0.1": divergence(student, kl(log_q, (0.9 * log_p.exp() + 0.1 * log_q.exp()).log())),
        "akl_0.5": divergence(student, akl(log_p, log_q, 0.5)),
        "dpkd_token": divergence(student, -logsigmoid(BETA * margin), beta=BETA, margins=rounded(margin, 12),
                                 teacher_tokens=log_p.argmax(-1).tolist(), student_tokens=log_q.argmax(-1).tolist()),
        # A typical start (the student prefers its own), a learned pair, one far out, unequal lengths throughout.
        "dpkd_sequence": dpkd_sequence([
            dict(student_chosen=-60.5, teacher_chosen=-21.25, chosen_tokens=24,
                 student_rejected=-30.75, teacher_rejected=-75.5, rejected_tokens=31),
            dict(student_chosen=-18.0, teacher_chosen=-20.5, chosen_tokens=15,
                 student_rejected=-44.25, teacher_rejected=-26.0, rejected_tokens=9),
            dict(student_chosen=-900.0, teacher_chosen=-12.0, chosen_tokens=2,
                 student_rejected=-3.5, teacher_rejected=-700.0, rejected_tokens=1),
        ]),
    }
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
