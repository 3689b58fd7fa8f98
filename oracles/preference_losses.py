"""Preference losses and their gradients in float64, by PyTorch's autograd from the formulas as written.

Writes `preference.json`. p is the teacher, q the student, y_t the preferred response and y_s the other.

Sequence losses, from sums of log-probabilities over a response; n is its length, or 1 without normalisation,
h = log q/p (or log q alone, reference "none"), e the label smoothing, S(z) = -(1-e) log sigma(z) - e log sigma(-z):
  dpkd, dpo  S(beta h(y_t)/n_t - beta h(y_s)/n_s)
  ipo        (h(y_t)/n_t - h(y_s)/n_s - 1/(2 tau))^2
  cpo        S(beta log q(y_t)/n_t - beta log q(y_s)/n_s) - log q(y_t)/n_t
  simpo      S(beta log q(y_t)/n_t - beta log q(y_s)/n_s - gamma)
`gradient`: with respect to log q(y_t) and log q(y_s).

Token losses on logits [positions, vocabulary], y_t = argmax p and y_s = argmax q constants for the gradient:
  D = log q(y_t)/q(y_s) - log p(y_t)/p(y_s), without the second part for reference "none";
  dpkd  S(beta D);  ipo  (D - 1/(2 beta))^2
  soft_ce  w (-log q(target)) + (1-w) (-sum_a p log q)
`gradient`: of the mean over positions with respect to the student's logits.
"""

import argparse
from pathlib import Path

import torch
from torch.nn.functional import logsigmoid

from common import REPOSITORY, rounded, write_json

POSITIONS, VOCABULARY = 6, 11
PAIRS = [
    dict(student_chosen=-60.5, teacher_chosen=-21.25, chosen_tokens=24,
         student_rejected=-30.75, teacher_rejected=-75.5, rejected_tokens=31),
    dict(student_chosen=-18.0, teacher_chosen=-20.5, chosen_tokens=15,
         student_rejected=-44.25, teacher_rejected=-26.0, rejected_tokens=9),
    dict(student_chosen=-9.5, teacher_chosen=-8.0, chosen_tokens=1,
         student_rejected=-3.5, teacher_rejected=-7.0, rejected_tokens=2),
]


def smoothed(z, smoothing):
    return -(1 - smoothing) * logsigmoid(z) - smoothing * logsigmoid(-z)


def sequence(case, pair):
    chosen, rejected = (torch.tensor(pair[name], dtype=torch.float64, requires_grad=True)
                        for name in ("student_chosen", "student_rejected"))
    n_t, n_s = (pair["chosen_tokens"], pair["rejected_tokens"]) if case["length_normalize"] else (1, 1)
    loss, beta = case["loss"], case["beta"]
    h_t, h_s = chosen, rejected
    if case.get("reference") == "teacher":
        h_t, h_s = chosen - pair["teacher_chosen"], rejected - pair["teacher_rejected"]
    margin = beta * h_t / n_t - beta * h_s / n_s
    if loss in ("dpkd", "dpo"):
        value = smoothed(margin, case["label_smoothing"])
    elif loss == "ipo":
        value = (h_t / n_t - h_s / n_s - 1 / (2 * case["ipo_tau"])) ** 2
    elif loss == "cpo":
        value = smoothed(margin, case["label_smoothing"]) - chosen / n_t
    elif loss == "simpo":
        value = smoothed(margin - case["simpo_gamma"], case["label_smoothing"])
    gradient = torch.autograd.grad(value, (chosen, rejected))
    return {**pair, "value": round(value.item(), 14), "gradient": [round(g.item(), 14) for g in gradient]}


def pick(log_probabilities, tokens):
    return log_probabilities.gather(-1, tokens[:, None])[:, 0]


def positions(student_logits, per_position, **extra):
    gradient, = torch.autograd.grad(per_position.mean(), student_logits, retain_graph=True)
    return {**extra, "per_position": rounded(per_position, 12), "gradient": rounded(gradient, 12)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "crates/distil/tests/fixtures/preference.json",
                        help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()

    cases = []
    for normalize in (True, False):
        for smoothing in (0.0, 0.2):
            common = dict(length_normalize=normalize, beta=0.3, label_smoothing=smoothing)
            for reference in ("teacher", "none"):
                cases.append(dict(common, loss="dpkd" if normalize else "dpo", reference=reference))
            cases.append(dict(common, loss="cpo"))
            cases.append(dict(common, loss="simpo", simpo_gamma=0.7))
        for reference in ("teacher", "none"):
            cases.append(dict(loss="ipo", length_normalize=normalize, beta=0.3, ipo_tau=0.2, reference=reference))

    generator = torch.Generator().manual_seed(arguments.seed)
    normal = lambda: torch.randn(POSITIONS, VOCABULARY, generator=generator, dtype=torch.float64)
    teacher = (2 * normal()).round(decimals=4)
    student = (0.5 * teacher + normal()).round(decimals=4).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (POSITIONS,), generator=generator)
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    y_t, y_s = log_p.argmax(-1), log_q.argmax(-1)
    assert 0 < (y_t == y_s).sum() < POSITIONS, "change the seed"
    tokens = []
    for reference in ("teacher", "none"):
        gap = pick(log_q, y_t) - pick(log_q, y_s)
        if reference == "teacher":
            gap = gap - pick(log_p, y_t) + pick(log_p, y_s)
        for smoothing in (0.0, 0.2):
            tokens.append(positions(student, smoothed(0.5 * gap, smoothing), token_loss="dpkd", reference=reference,
                                    beta=0.5, label_smoothing=smoothing))
        tokens.append(positions(student, (gap - 1 / (2 * 0.5)) ** 2, token_loss="ipo", reference=reference, beta=0.5))

    soft = [positions(student, -w * pick(log_q, targets) - (1 - w) * (log_p.exp() * log_q).sum(-1), ce_share=w)
            for w in (0.0, 0.3, 1.0)]
    write_json(arguments.out, {
        "made_by": f"oracles/preference_losses.py --seed {arguments.seed}; torch {torch.__version__.split('+')[0]}",
        "sequence": [{**case, "pairs": [sequence(case, pair) for pair in PAIRS]} for case in cases],
        "teacher_logits": rounded(teacher, 4),
        "student_logits": rounded(student, 4),
        "targets": targets.tolist(),
        "token": tokens,
        "soft_cross_entropy": soft,
    })


if __name__ == "__main__":
    main()
