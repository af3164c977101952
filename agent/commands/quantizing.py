"""The command that makes a model smaller here and now, and shows whether that is any good; without a configuration or a store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from agent.door import Call, command

TRAINER = "runbooks._quantize"  # a program like any other trainer; its folder is all that is known of it here
RESULT = ("model.onnx", "model.onnx.data", "report.json", "quantize.html", "pareto.svg")
CODES = {"better": 0, "none": 1, "unknown": 3}
WORDS = {"better": ("BETTER", "bold green"), "none": ("NONE IS BETTER", "bold red"), "unknown": ("COULD NOT TELL", "bold yellow")}
TAIL = 2000  # characters of its last words
FILE = click.Path(path_type=Path, dir_okay=False)
SHARE = click.FloatRange(0, 1)


@command("watchkeeper quantize models/7/model.onnx --rows calibration.parquet --label y --out smaller", "quantize")
@click.argument("model", type=FILE)
@click.option(
    "--rows", required=True, type=FILE, metavar="FILE", help="Rows as Parquet, such as the model is asked: to calibrate with, and to compare."
)
@click.option("--compare", type=FILE, metavar="FILE", help="Other rows to compare answers on.  [default: three of four of --rows]")
@click.option("--label", metavar="COLUMN", help="The column with the truth: what is surely wrong more often is refused.")
@click.option("--feature", "features", multiple=True, metavar="COLUMN", help="A column the model takes, in their order; may be given again.")
@click.option("--classes", metavar="A,B,...", help="What the model's scores are of, in their order.")
@click.option("--factory", metavar="MODULE:FUNCTION", help="MODEL holds the weights (safetensors) of the torch module that this makes.")
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, metavar="ROWS", help="A size that is timed.  [default: 1 and 32]")
@click.option("--threads", type=click.IntRange(1), metavar="NUMBER", help="In how many the server computes.  [default: 1]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="What the server computes on.  [default: cpu]")
@click.option("--rounds", type=click.IntRange(1), metavar="NUMBER", help="How often each is timed.  [default: 400, or a minute for each size]")
@click.option("--least", type=SHARE, help="The part of the answers that must be kept.  [default: 0.98]")
@click.option("--largest", type=SHARE, help="The part of the size that may be kept.  [default: 0.6]")
@click.option("--speed", type=click.FloatRange(0), metavar="NUMBER", help="How many times as fast it must be.  [default: 1]")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Keep the best one there, and what was measured.")
@click.option("--html", type=FILE, metavar="FILE", help="Also write a page with the picture and every number.")
def quantize(call: Call, model: Path, rows: Path, compare: Path | None, out: Path | None, html: Path | None, **given: Any) -> None:
    """Whether MODEL can be made smaller without being slower or worse: yes (exit code 0), no (1), could not tell (3).

    MODEL is an ONNX file, or weights with --factory. The few variants that its operators give reason to try are made, asked the same rows and timed
    beside it in turn; what is larger, slower or worse is refused, and why is told. Nothing is kept without --out.
    """
    from agent import show

    for path in (model, rows, *([compare] if compare else ())):
        if not path.is_file():
            raise click.BadParameter(f"there is no file {path}")
    kept = _folder(out)
    with tempfile.TemporaryDirectory(prefix="watchkeeper-", dir=kept) as scratch, show.progress(not call.json) as tell:
        job = Path(scratch)
        _ask(job, model, {"calibration": rows, **({"evaluation": compare} if compare else {})}, given)
        told = {**_run(job, tell), "model": str(model)}
        told |= {"html": _copied(job / "quantize.html", html), "out": _kept(job, kept) if told["outcome"] == "better" else None}
    call.say(told, _said)
    raise SystemExit(CODES[str(told["outcome"])])


def _folder(out: Path | None) -> Path | None:
    """Where the result goes; ConfigError where it cannot, before anything is measured."""
    from agent.errors import ConfigError

    if out is None:
        return None
    if (out / RESULT[0]).exists():
        raise ConfigError(f"--out {out} holds a {RESULT[0]} already; name another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out
    except OSError as problem:
        raise ConfigError(f"--out {out} cannot be written: {problem.strerror}; name another folder") from problem


def _ask(job: Path, model: Path, tables: Mapping[str, Path], given: Mapping[str, Any]) -> None:
    parameters = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value not in (None, ())}
    if given["classes"]:
        parameters["classes"] = given["classes"].split(",")
    data = {name: {"path": str(path.resolve()), "sha256": _sha256(path), "rows": 0} for name, path in tables.items()}
    champion = {"version": model.stem, "files": {model.name: str(model.resolve())}}
    (job / "spec.json").write_text(json.dumps({"service": "here", "data": data, "champion": champion, "seed": 0, "parameters": parameters}))


def _run(job: Path, tell: Any) -> Mapping[str, Any]:
    """What the program reports; WorkerError where it died over it."""
    from agent.errors import WorkerError

    with (job / "log").open("w+b") as log:
        # its own, or what the operator names with --factory
        command, env = [sys.executable, "-P", "-m", TRAINER], {**os.environ, "WATCHKEEPER_JOB": str(job)}
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)  # noqa: S603 - ours
        try:
            for done, what in _progress(process.stdout or ()):
                if tell is not None:
                    tell(done, what)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if code in CODES.values() and (job / "report.json").exists():
            return dict(json.loads((job / "report.json").read_text()))
        log.seek(0)
        last = log.read().decode("utf-8", "replace").strip()[-TAIL:].rsplit("\n", 1)[-1]
    if code == -9:
        raise WorkerError("the program that quantizes was killed; memory ran out, most likely: use a machine with more of it")
    raise WorkerError(f"the program that quantizes ended with status {code}{f'; its last words: {last}' if last else ''}")


def _progress(lines: Any) -> Iterator[tuple[float, str]]:
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            yield float(said["done"]), str(said["what"])


def _kept(job: Path, out: Path | None) -> str | None:
    """The result into the folder, the model last: where it is, all of it is."""
    if out is None:
        return None
    for name in reversed(RESULT):
        if (job / name).exists():
            (job / name).replace(out / name)
    return str(out)


def _copied(page: Path, html: Path | None) -> str | None:
    from agent.errors import ConfigError

    if html is None or not page.exists():
        return None
    try:
        shutil.copyfile(page, html)
    except OSError as problem:
        raise ConfigError(f"--html {html} cannot be written: {problem.strerror}; name another file") from problem
    return str(html)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# As text


def _said(told: Mapping[str, Any]) -> str:
    """The outcome, a table of what was measured, and why each other variant is none."""
    from rich.text import Text

    from agent.show import plain, printed, rows

    word, style = WORDS[told["outcome"]]
    lines: list[Any] = [Text(word, style=style), f"  {plain(told['why'])}" if told["outcome"] != "none" else ""]
    measured = [one for one in told.get("variants", ()) if "speed" in one]
    if measured:
        sizes = list(measured[0]["speed"])
        heads = ["variant", "size", "memory", *(f"{what}, batch {size}" for size in sizes for what in ("p50", "p99", "faster")), "answers"]
        lines += ["", rows(heads, [_line(one, sizes) for one in measured], 2), ""]
        became = [[one["name"], one["outcome"], one["why"] or one["tried"]] for one in told["variants"] if one["outcome"]]
        lines += [rows(["variant", "", "why"], [*became, *([name, "not tried", why] for name, why in told["untried"].items())], 2)]
    lines += ["", *(f"  {plain(said)}" for said in _left(told))]
    return printed(*lines)


def _left(told: Mapping[str, Any]) -> Iterator[str]:
    if told["out"]:
        yield f"{told['out']}/{RESULT[0]} is the best, beside report.json, quantize.html and pareto.svg"
    elif told["outcome"] == "better":
        yield "nothing was kept; --out FOLDER keeps the best"
    if told["html"]:
        yield f"{told['html']} tells all of it"


def _line(one: Mapping[str, Any], sizes: Sequence[str]) -> list[str]:
    cells = [one["name"], f"{_mib(one['size'])} ({one['share']:.2f}x)", "" if one["memory"] is None else _mib(one["memory"])]
    for size in sizes:
        speed = one["speed"][size]
        middle, low, high = speed["ratio"]
        cells += [f"{speed['p50'] * 1000:.3g} ms", f"{speed['p99'] * 1000:.3g} ms"]
        cells += [f"{middle:.2f}x ({low:.2f} to {high:.2f})" if one["outcome"] else ""]
    return [*cells, one["quality"]["in_words"] if one["outcome"] else ""]


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.0f} KiB"
