"""What the peers' scripts share: memory, reproducible tokens, versions. Only the standard library."""

import importlib.metadata
import json
import platform
from pathlib import Path


def forget_peak():
    """Lets the peak of resident memory begin anew (Linux, proc(5)), as `distil bench` does."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_rss_bytes():
    """The largest resident memory since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def random_rows(rows, length, vocabulary):
    """Token ids from the generator that `distil bench` uses, so both sides see the same kind of text."""
    state = 1
    ids = []
    for _ in range(rows * length):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((state * vocabulary) >> 64)
    return [ids[at : at + length] for at in range(0, rows * length, length)]


def versions(*packages):
    found = {"python": platform.python_version()}
    for package in packages:
        found[package] = importlib.metadata.version(package)
    return found


def report(figures):
    """The one line that compare.py reads."""
    print(json.dumps(figures), flush=True)
