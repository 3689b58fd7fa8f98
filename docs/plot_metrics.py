#!/usr/bin/env python3
"""Draw curves of a run's metrics.jsonl as one SVG file, with the standard library alone.

    python3 docs/plot_metrics.py runs/dpkd-dolly docs/src/images/dpkd-dolly.svg \
        forward_kl rouge_l loss reward_chosen,reward_rejected

Each further argument is a panel; names joined by commas share one. Evaluation metrics (forward_kl,
rouge_l, ...) are points of the `eval` lines, everything else is taken from the step lines.
Several runs joined by commas (the same configuration with other seeds) share a colour a metric.
"""
import argparse
import json
import pathlib

COLOURS = ["#1f6feb", "#d1570a", "#2a8f4f", "#8250df"]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 190, 70, 20, 26, 34


def series(lines, name):
    """[(step, value)] of one name."""
    of_eval = [(line["step"], line["eval"][name]) for line in lines if name in line.get("eval", {})]
    if of_eval:
        return of_eval
    return [(line["step"], line[name]) for line in lines if isinstance(line.get(name), (int, float))]


def ticks(low, high, count=4):
    return [low + (high - low) * i / count for i in range(count + 1)]


def panel(top, names, runs):
    curves = [(number, name, series(lines, name)) for number, name in enumerate(names) for lines in runs]
    points = [point for _, _, curve in curves for point in curve]
    if not points:
        raise SystemExit(f"no values of {', '.join(names)} in this run")
    last = max(step for step, _ in points) or 1
    low, high = min(v for _, v in points), max(v for _, v in points)
    low, high = (low, high) if high > low else (low - 1, high + 1)
    x = lambda step: LEFT + (WIDTH - LEFT - RIGHT) * step / last
    y = lambda value: top + TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)
    out = []
    for value in ticks(low, high):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#8884"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step in ticks(0, last):
        out.append(f'<text x="{x(step):.1f}" y="{top + HEIGHT - 16}" text-anchor="middle">{step:g}</text>')
    out.append(f'<text x="{WIDTH - RIGHT}" y="{top + HEIGHT - 3}" text-anchor="end">optimiser step</text>')
    for number, name in enumerate(names):
        out.append(f'<text x="{LEFT + 170 * number}" y="{top + 16}" fill="{COLOURS[number % len(COLOURS)]}">{name}</text>')
    for number, _, curve in curves:
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4" stroke-opacity="0.8"/>')
        if len(curve) <= 40:
            out += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="2.6" fill="{colour}"><title>step {s}: {v:.5g}</title></circle>'
                    for s, v in curve]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the run's folder, or several joined by commas")
    parser.add_argument("out", type=pathlib.Path, help="the SVG file")
    parser.add_argument("panels", nargs="+", help="names of one panel, joined by commas")
    arguments = parser.parse_args()
    files = [pathlib.Path(run) / "metrics.jsonl" for run in arguments.run.split(",")]
    runs = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    body = []
    for number, names in enumerate(arguments.panels):
        body += panel(number * HEIGHT, names.split(","), runs)
    height = HEIGHT * len(arguments.panels)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="11" fill="#777">\n<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n")


if __name__ == "__main__":
    main()
