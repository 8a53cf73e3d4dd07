"""Everything that only a GPU can show, in one report: `python -m monodepth_nb gpu-check`.

Each part is a command of its own with a limit of time, so that one that fails or hangs does not lose the others. Run it
from a checkout; `PYTHONPATH=.` instead of an installation will do.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

from monodepth_nb.identity import move_aside

ROOT = Path(__file__).resolve().parent.parent  # of the checkout
TAIL = 40  # lines of a part's output that the report shows
HERE = ("-m", "monodepth_nb")


class Part(NamedTuple):
    title: str
    share: float  # of the time left, relative to the shares of the later parts
    arguments: tuple  # of Python; a part that lacks one (None) is left out


class Outcome(NamedTuple):
    part: Part
    verdict: str
    seconds: float
    output: str


def parts(
    out: Path, data, labelled, reference, size=(256, 512), width=1.0, steps=300, epochs=24, device="cuda"
) -> list[Part]:
    """What is run, the most valuable first.

    data, labelled: folders to train on with the few-pairs recipe and to score that on; reference: file for
    `benchmark.against_reference`; None leaves their parts out
    """
    tests = ("-m", "pytest", "-m", "cuda", "-rfE", "--tb=short", "-p", "no:cacheprovider", "tests/test_precision.py")
    train = (*HERE, "train", "--size", *size, "--width", width, "--device", device, "--run-dir")
    one = ("--data", "motorcycle", "--batch-size", 1, "--epochs", steps, "--learning-rate", 4e-4)
    few = ("--recipe", "few-pairs", "--epochs", epochs, "--learning-rate", 1e-3, "--schedule", "cosine")
    encoder = ("--encoder", "lite0", "--trainable-encoder", "--encoder-learning-rate", 3e-4)
    run, timing = out / "few_pairs", (*HERE, "benchmark", "--device", device)
    score = (*HERE, "evaluate", data and run / "last.pt", "--all", "--device", device, "--out", out / "scores")
    found = [
        Part("Tests", 2, tests),
        Part("Against the reference", 1, (*timing, "--reference", reference)),
        Part("One pair", 1, (*train, out / "one_pair", *one)),
        Part("Few pairs", 4, (*train, run, *few, *encoder, "--data", data)),
        Part("Few pairs, scored", 1, (*score, "--data", labelled)),
        Part("Benchmark", 1, timing),
    ]
    return [part for part in found if None not in part.arguments]


def run(part: Part, limit_s: float, log: Path) -> Outcome:
    """Run a part in a process of its own, for `limit_s` seconds at most."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    options = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": path, "MPLBACKEND": "Agg"}, "timeout": limit_s}
    started = time.monotonic()
    with open(log, "w") as file:
        options |= {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
        try:
            status = subprocess.run([sys.executable, *map(str, part.arguments)], **options).returncode
            verdict = f"failed with exit status {status}" if status else "passed"
        except subprocess.TimeoutExpired:
            verdict = f"stopped after its limit of {limit_s:.0f} s"
    # A progress bar overwrites its line; the last state of it is enough.
    text = log.read_bytes().decode(errors="replace").replace("\r\n", "\n").rstrip("\n")
    lines = [line.rsplit("\r", 1)[-1] for line in text.split("\n")]
    return Outcome(part, verdict, time.monotonic() - started, "\n".join(lines[-TAIL:]))


def report(title: str, outcomes: list[Outcome]) -> str:
    """Markdown: a table of the parts, then the end of what each has printed."""
    lines = [f"# GPU check: {title}", "", "| part | result | seconds |", "|---|---|---|"]
    lines += [f"| {o.part.title} | {o.verdict} | {o.seconds:.0f} |" for o in outcomes]
    for outcome in outcomes:
        command = " ".join(map(str, ("python", *outcome.part.arguments)))
        lines += ["", f"## {outcome.part.title}", "", "```", f"$ {command}", outcome.output, "```"]
    return "\n".join(lines) + "\n"


def check(todo: list[Part], minutes: float, out: Path) -> bool:
    """Run all parts within `minutes` and write OUT/report.md, after each part anew. Returns whether all passed."""
    if (out / "report.md").exists():  # a finished run in it would be resumed, and pass without training a step
        print(f"the last report is kept in {move_aside(out)}")
    out.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    title, outcomes, end = f"{card}, torch {torch.__version__}", [], time.monotonic() + 60 * minutes
    for index, part in enumerate(todo):
        limit_s = (end - time.monotonic()) * part.share / sum(later.share for later in todo[index:])
        print(f"{part.title}: at most {limit_s:.0f} s", flush=True)
        outcomes.append(run(part, limit_s, out / f"{part.title.lower().replace(', ', '_').replace(' ', '_')}.log"))
        print(f"  {outcomes[-1].verdict}, {outcomes[-1].seconds:.0f} s", flush=True)
        (out / "report.md").write_text(report(title, outcomes), encoding="utf-8")
    print(out / "report.md")
    return all(outcome.verdict == "passed" for outcome in outcomes)
