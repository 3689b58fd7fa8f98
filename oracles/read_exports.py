"""Reads back what `distil export` wrote, with the tools that it is written for.

    distil export RUN --tensorboard logs --csv run.csv --wandb run.jsonl
    python oracles/read_exports.py RUN logs/NAME run.csv run.jsonl

Compares every number with RUN/metrics.jsonl: the event file as TensorBoard's own package reads it
(scalars are f32 there; text summaries by their tags), the table as Python's csv module reads it, and the log that
wandb writes, offline and below the current folder, when the book's lines of Python are run on run.jsonl; those two
exactly. The model card's YAML is read by PyYAML. Exit status 0, or 1 with what differs. Needs tensorboard==2.21.0,
pyyaml==6.0.4 and wandb==0.31.0; the gate installs them below target/.
"""

import csv
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

BOOK = pathlib.Path(__file__).parent.parent / "docs" / "src" / "export.md"
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


def log_with_wandb(path):
    """Runs the lines of Python that the book has for this, on this file; the log that they write."""
    blocks = BOOK.read_text(encoding="utf-8").split("```python\n")[1:]
    (code,) = [block.split("```")[0] for block in blocks if "import json, wandb" in block]
    quiet = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    shutil.rmtree("wandb", ignore_errors=True)
    # In a process of its own: the log is whole once that has ended.
    code = code.replace("run.jsonl", path.as_posix())
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | quiet)
    (log,) = pathlib.Path("wandb").glob("offline-run-*/*.wandb")
    return log


def wandb_records(path):
    """The records of a wandb log: seven bytes, then a LevelDB log (blocks of 32 KiB; a record is a checksum of
    four bytes, two bytes of length, one of kind, and data; kinds 1 and 4 end what began before)."""
    data, place, record = path.read_bytes(), 7, b""
    while place < len(data):
        left = -place % 32768
        if 0 < left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(record)
            record = b""


def items(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def logged(path):
    """The numbers that wandb has logged, after a look at the run's name, configuration and times."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    head, times = lines[0], {line["_step"]: line["_timestamp"] for line in lines[1:]}
    records = list(wandb_records(log_with_wandb(path)))
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert run.display_name == head["name"], run.display_name
    config = items(run.config.update)
    del config["_wandb"]
    assert config == head["config"], config
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row = items(record.history.item)
            step = row.pop("_step")
            assert row.pop("_timestamp") == times[step] > 1.6e9
            # Of the logging, not of the run.
            del row["_runtime"]
            for name, number in row.items():
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
        same("Weights & Biases", logged(log), in_groups),
        card(run / "student" / "README.md"),
    ]
    sys.exit(0 if all(checks) else 1)


if __name__ == "__main__":
    main()
