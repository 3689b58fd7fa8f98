"""What all oracle scripts share: where the crates are, and files that appear whole or not at all."""

import json
import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def write_json(path, value):
    """Write `value` to `path`, one top-level key a line, through a temporary name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{json.dumps(key)}: {json.dumps(item, ensure_ascii=False)}" for key, item in value.items())
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def rounded(tensor, digits=7):
    """A tensor as nested lists of numbers rounded to `digits` decimals."""
    values = tensor.detach().double().tolist()

    def walk(value):
        return [walk(item) for item in value] if isinstance(value, list) else round(value, digits)

    return walk(values)
