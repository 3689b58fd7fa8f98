"""Reads back what `distil export` wrote, with the tools that it is written for.

    distil export RUN --tensorboard logs --csv run.csv --wandb run.jsonl
    python oracles/read_exports.py RUN logs/NAME run.csv run.jsonl

Compares every number with RUN/metrics.jsonl: the event file as TensorBoard's own package reads it
(scalars are f32 there; text summaries by their tags), the table as Python's csv module reads it, the lines for
Weights & Biases as JSON, those two exactly. The model card's YAML is read by PyYAML. Exit status 0, or 1 with
what differs. Needs tensorboard==2.21.0 and pyyaml==6.0.4; the gate installs both below target/.
"""

import csv
import json
import pathlib
import struct
import sys

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NOTHING_DROPPED = {"scalars": 0, "tensors": 0}


def f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def source(run):
    """{(step, name with dots): number} of metrics.jsonl; a later line of a step counts."""
    numbers = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(line)
        step = line.pop("step")
        if "warning" in line:
            continue
        for key, value in line.items():
            inner = value.items() if isinstance(value, dict) else [(None, value)]
            for name, number in inner:
                if number is not None:
                    numbers[step, key if name is None else f"{key}.{name}"] = number
    return numbers


def grouped(name):
    return name.replace(".", "/", 1) if "." in name else f"train/{name}"


def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance=NOTHING_DROPPED)
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = [
        (event.step, tag, event.value) for tag in tags["scalars"] for event in accumulator.Scalars(tag)
    ]
    times = [event.wall_time for event in accumulator.Scalars("train/loss")]
    assert times == sorted(times) and times[0] > 1.6e9, f"wall times: {times}"
    for tag in ("config", "samples"):
        text = accumulator.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        assert text.strip(), f"the text {tag} is empty"
    assert accumulator.SummaryMetadata("config").plugin_data.plugin_name == "text"
    assert accumulator.GetSourceWriter() == "distil"
    return scalars


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            del row["run"]
            step = int(row.pop("step"))
            for name, cell in row.items():
                if cell:
                    yield step, name, float(cell)


def lines(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(line)
        if "config" in line:
            continue
        step = line.pop("_step")
        assert line.pop("_timestamp") > 1.6e9
        for name, number in line.items():
            yield step, name, number


def same(what, found, wanted):
    """Every number once, and no other."""
    found = list(found)
    as_read = {(step, name): value for step, name, value in found}
    differ = [
        f"{key}: {as_read.get(key)} for {wanted.get(key)}"
        for key in as_read.keys() | wanted.keys()
        if as_read.get(key) != wanted.get(key)
    ]
    if differ or len(found) != len(wanted):
        print(f"{what}: {len(found)} numbers for {len(wanted)}", *sorted(differ)[:10], sep="\n")
        return False
    print(f"{what}: {len(found)} numbers as in metrics.jsonl")
    return True


def card(path):
    text = path.read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    good = head["library_name"] == "transformers" and "distillation" in head["tags"]
    print(f"card: {head}")
    return good


def main():
    run, logs, sheet, log = map(pathlib.Path, sys.argv[1:])
    numbers = source(run)
    in_groups = {(step, grouped(name)): value for (step, name), value in numbers.items()}
    checks = [
        same("TensorBoard", events(logs), {key: f32(value) for key, value in in_groups.items()}),
        same("CSV", table(sheet), numbers),
        same("Weights & Biases", lines(log), in_groups),
        card(run / "student" / "README.md"),
    ]
    sys.exit(0 if all(checks) else 1)


if __name__ == "__main__":
    main()
