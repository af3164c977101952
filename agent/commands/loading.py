"""The command that loads a server and says whether it holds; without a configuration or a store, or for a service of one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from agent.door import Call, Short, command, main
from agent.door import length as span

PERCENTILES = {"p50": "p50", "p95": "p95", "p99": "p99", "p999": "p99.9"}  # option -> limit
LEFT = {
    "html": "load.html",
    "junit": "load.xml",
    "csv": "load.csv",
    "hdr": "load.hlog",
    "save": "yardstick.csv",
    "tried": "capacity.csv",
}  # option -> what the check leaves
PLOT = ".hgrm"  # the suffix of a file that HdrHistogram's plotter reads
FILE = click.Path(path_type=Path, dir_okay=False)


@main.group(cls=Short, default="run")
def load() -> None:
    """Send a server requests, and say whether it answers in time.

    `watchkeeper load URL ...` is short for `watchkeeper load run URL ...`.
    """


def whole(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    """A request as JSON."""
    try:
        made = None if value is None else json.loads(value)
    except (ValueError, RecursionError) as problem:
        raise click.BadParameter(f"this is no JSON: {problem}") from problem
    if made is not None and not isinstance(made, (dict, list)):
        raise click.BadParameter("write an object or a list, such as {}")
    return made


Options = Callable[[Callable[..., None]], Callable[..., None]]


def length(name: str, text: str, **more: Any) -> Options:
    """An option that takes a length of time."""
    return click.option(name, callback=span, metavar="LENGTH", help=text, **more)


def _several(*options: Options) -> Options:
    """Options that several commands share, in the order in which --help shows them."""

    def mark(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return mark


ARRIVING = _several(
    click.option(
        "--arrivals",
        type=click.Choice(["poisson", "constant", "ramp", "spike", "replayed"]),
        help="How requests follow each other.  [default: poisson, as those of many people do]",
    ),
    click.option("--begin", type=float, metavar="NUMBER", help="Of a ramp: the rate it begins with."),
    click.option("--peak", type=float, metavar="NUMBER", help="Of a spike: the rate within it."),
    length("--peak-at", "Of a spike: when it begins, the warm-up counted."),
    length("--peak-for", "Of a spike: how long it lasts."),
    click.option("--times", type=FILE, metavar="FILE", help="Of replayed arrivals: a time in seconds a line."),
)
LIMITED = _several(
    length("--p50", "The limit of the median latency, such as 20ms."),
    length("--p95", "The limit of the 95th percentile."),
    length("--p99", "The limit of the 99th percentile, such as 100ms."),
    length("--p999", "The limit of the 99.9th percentile, which takes 50 minutes to judge."),
)
JUDGED = _several(
    length("--burst", "The verdict allows for stalls up to this long.  [default: 1s]"),
    click.option("--confidence", type=click.FloatRange(0.5, 1, max_open=True), help="How sure a verdict must be.  [default: 0.95]"),
)
SENDING = _several(
    length("--warm", "How long requests are sent before that, and not judged.  [default: 5s]"),
    click.option("--seed", type=click.IntRange(0), metavar="NUMBER", help="The same seed draws the same arrivals.  [default: 0]"),
    length("--timeout", "An answer that takes longer is none.  [default: 30s]"),
    click.option("--connections", type=click.IntRange(1), metavar="NUMBER", help="At most so many requests at once; more wait.  [default: 512]"),
    click.option("--workers", type=click.IntRange(1), metavar="NUMBER", help="Generator processes.  [default: 1]"),
    click.option("--method", type=click.Choice(["GET", "POST"]), help="How a plain http URL is asked.  [default: POST]"),
    click.option("--header", metavar="'NAME: VALUE'", help="Sent with every request, such as 'Authorization: Bearer ${TOKEN}'."),
    click.option("--ca", type=FILE, metavar="FILE", help="The certificates that https is trusted by."),
    click.option("--request", callback=whole, metavar="JSON", help="What is sent; with --from, {inputs} in it is a row's."),
    click.option("--data", "requests", type=FILE, metavar="FILE", help="A file of one JSON request a line, sent in turn."),
    click.option("--from", "table", metavar="TABLE", help="A table of logged requests: a file, or a URL such as sqlite:log.db?table=live."),
    click.option("--rows", type=click.IntRange(1), metavar="NUMBER", help="How many of its newest rows are sent.  [default: 1000]"),
    click.option("--expect-status", type=int, multiple=True, metavar="CODE", help="A status that is good; may be given again.  [default: any 2xx]"),
    click.option("--expect-field", multiple=True, metavar="PLACE", help="A dotted place in a good answer, such as outputs.0; may be given again."),
    click.option("--yes", is_flag=True, help="Do not ask before a URL is loaded that stands in no configuration."),
)


@command("watchkeeper load run http://127.0.0.1:8000/predict --rate 200 --for 5m --p99 100ms --request '{\"amount\": 1}'", "run", load)
@click.argument("target")
@click.option("--rate", type=float, required=True, metavar="NUMBER", help="Requests a second, such as 200; of a ramp, where it ends.")
@length("--for", "How long they are sent and judged.", default="5m", show_default=True)
@LIMITED
@JUDGED
@ARRIVING
@click.option("--join-at", "join", metavar="HOST:PORT", help="The --workers are those that join there: watchkeeper load worker --join HOST:PORT.")
@click.option("--metrics", "expose", metavar="HOST:PORT", help="Serve the run's numbers to Prometheus there while it goes on.")
@click.option("--closed", "users", type=click.IntRange(1), metavar="USERS", help="Send as so many users who each wait for an answer: never a PASS.")
@click.option("--to-the-end", is_flag=True, help="Go on where a limit surely fails already.")
@SENDING
@click.option("--html", type=FILE, metavar="FILE", help="Also write a page with the pictures and every number.")
@click.option("--junit", type=FILE, metavar="FILE", help="Also write JUnit XML, a test case a limit.")
@click.option("--csv", type=FILE, metavar="FILE", help="Also write the windows.")
@click.option("--hdr", type=FILE, metavar="FILE", help="Also write an HdrHistogram log, or with the suffix .hgrm its percentiles.")
def load_run(call: Call, html: Path | None, junit: Path | None, csv: Path | None, hdr: Path | None, **settings: Any) -> None:
    """Send TARGET requests at a rate, and say whether it answers in time.

    TARGET is a URL (http://HOST/PATH, oip+http://HOST/MODEL ...), or a service of the configuration whose `load:` allows it. The schedule is drawn
    before the run and kept whatever the server does; latency counts from it. A URL is asked about first, and --yes says that it may be loaded: on
    localhost too, where a tunnel may end. Ctrl-C ends the run early and judges nothing. Exit code 0: every limit holds; 1: one does not; 3: the run
    cannot tell, was called off, or the generator was too slow itself.
    """
    files = {"html": html, "junit": junit, "csv": csv, "hdr": hdr}
    settings["early"] = not settings.pop("to_the_end")
    verdict = _performed(call, "sla.latency", settings, {"limits": _limits(settings), "report": True}, files)
    _told(call, settings["target"], verdict, _written(files, verdict.data))


@command("watchkeeper load capacity http://127.0.0.1:8000/predict --from-rate 20 --to-rate 2000 --p99 100ms --data requests.jsonl", "capacity", load)
@click.argument("target")
@click.option("--from-rate", "rate", type=float, required=True, metavar="NUMBER", help="The first rate, in requests a second, such as 20.")
@click.option("--to-rate", "ceiling", type=float, metavar="NUMBER", help="The highest rate to try.  [default: what the service's `load:` allows]")
@LIMITED
@click.option("--at-least", type=float, metavar="NUMBER", help="The rate that is needed: less is a fail.")
@length("--within", "How long all of it may take.  [default: 2h]")
@length("--step", "How long one rate is tried.  [default: what a pass takes, five minutes of p99]")
@click.option("--width", type=float, metavar="NUMBER", help="End when the last fail is so many times the last pass.  [default: 1.1]")
@length("--drain", "The pause between two rates.  [default: 2s]")
@JUDGED
@click.option("--arrivals", type=click.Choice(["poisson", "constant"]), help="How requests follow each other.  [default: poisson]")
@SENDING
@click.option("--csv", type=FILE, metavar="FILE", help="Also write what was tried.")
def load_capacity(call: Call, csv: Path | None, **settings: Any) -> None:
    """How many requests a second TARGET bears within its limits.

    The rate is doubled until one fails, then the gap is halved, and the last that passed is tried for long. What is printed is the last rate that
    passed and the first that failed. Exit code 0: it was found, and is what is needed; 1: less is borne than is needed; 3: the runs cannot tell.
    """
    settings["for"] = settings.pop("within")
    verdict = _performed(call, "sla.capacity", settings, {"limits": _limits(settings)}, {"csv": csv})
    _told(call, settings["target"], verdict, _written({"tried": csv}, verdict.data))


@command("watchkeeper load compare http://127.0.0.1:8000/predict --rate 200 --against before.csv --data requests.jsonl", "compare", load)
@click.argument("target")
@click.option("--rate", type=float, required=True, metavar="NUMBER", help="Requests a second, such as 200, as in the run before.")
@length("--for", "How long they are sent and judged.", default="5m", show_default=True)
@click.option("--against", type=FILE, metavar="FILE", help="What the run before left with --save.")
@click.option("--save", type=FILE, metavar="FILE", help="Leave this run's windows for a later one.")
@length("--cut", "The length of a window.  [default: 10s]")
@click.option("--floor", type=click.FloatRange(0), metavar="SHARE", help="By how much a latency must have grown to matter.  [default: 0.1]")
@length("--floor-seconds", "... and by how much at least.  [default: 5ms]")
@click.option("--floor-errors", type=click.FloatRange(0, 1), metavar="SHARE", help="By how much the share of errors.  [default: 0.005]")
@click.option("--arrivals", type=click.Choice(["poisson", "constant"]), help="How requests follow each other.  [default: poisson]")
@SENDING
def load_compare(call: Call, against: Path | None, save: Path | None, **settings: Any) -> None:
    """Whether TARGET got slower, or fails more, than in a run before.

    p50, p95, p99 and the share of errors of windows are compared with those of the run that left the file. Exit code 0: nothing got worse by what
    matters; 1: something did; 3: the runs cannot tell, or this was the first.
    """
    verdict = _performed(call, "sla.regression", settings, {}, {"save": save}, {"baseline": _pinned(against)} if against else {})
    _told(call, settings["target"], verdict, _written({"save": save}, verdict.data), str(save or ""))


@command("watchkeeper load worker --join 10.0.0.7:5557", "worker", load)
@click.option("--join", required=True, metavar="HOST:PORT", help="Where the load test waits: what its --join-at says.")
def load_worker(call: Call, join: str) -> None:
    """Send a part of a load test that another machine runs, once.

    What comes over that port, requests and their headers, is neither encrypted nor asked who may have it: it belongs on a private network. Ctrl-C
    ends the worker, and makes the run invalid.
    """
    from importlib import import_module

    from agent.commands import _live
    from agent.plugins import find

    package = find("check", "sla.latency").module.rpartition(".")[0]  # whoever owns the check: what works for it lies beside it
    with _live.watching() as tell:
        import_module(f"{package}._drive").join(join, tell)
    call.say({"joined": join}, f"did its part of the load test at {join}")


def _performed(
    call: Call,
    check: str,
    settings: Mapping[str, Any],
    more: Mapping[str, Any],
    files: Mapping[str, Path | None],
    words: Mapping[str, Any] | None = None,
) -> Any:
    """The check's Verdict: told what was given, held to what the target bears, and watched on the way."""
    from agent.commands import _aimed, _live
    from agent.errors import BusyError
    from agent.look import Watchful
    from agent.perform import perform

    for option, path in files.items():
        if path is not None and not os.access(path.parent, os.W_OK):
            raise click.BadParameter(
                f"{path} could not be written after the run: there is no such folder, or it is read-only", param_hint=f"--{option}"
            )
    for option, name in (("--data", "requests"), ("--times", "times"), ("--ca", "ca")):
        _there(option, settings.get(name))
    target, parameters = settings["target"], {**_parameters(settings), **more}
    known = _aimed.known(call, target) if "://" not in target else _aimed.unknown(target, settings)
    if "://" in target:
        _aimed.agreed(target, settings, parameters)
    job = {
        "check": check,
        "parameters": parameters,
        "load": known["load"],
        "locators": {**known["locators"], **_aimed.rows(settings["table"])},
        **(words or {}),
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: drain, and tell what was seen
    if why := known["trouble"]():
        raise BusyError(f"no load test while {why}; see to it first, or wait for its end")
    with _live.watching() as tell:
        watchful = Watchful(tell, known["trouble"])
        return watchful.told(perform(job, watchful))


def _told(call: Call, target: str, verdict: Any, files: Sequence[str], saved: str = "") -> None:
    """What came of it, and how the command ends."""
    from agent.commands import _loaded
    from agent.credential import shown

    summary = json.loads(verdict.data.get("load.json", b"{}"))
    judged = {"status": verdict.status.value, "reason": verdict.reason, "reading": verdict.reading, "parts": verdict.parts}
    told = {"target": shown(target), **summary, **judged, "files": files, "saved": saved}
    call.say(told, _loaded.loaded)
    raise SystemExit({"ok": 0, "fail": 1}.get(verdict.status.value, 3))


OTHERS = ("target", "method", "header", "ca", "table", "yes", *PERCENTILES)  # options that are no parameters of a check


def _parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, in the check's words; the rest is left to the check."""
    given = {name: value for name, value in settings.items() if value not in (None, ()) and name not in OTHERS}
    expect = {name: given.pop(option) for option, name in (("expect_status", "status"), ("expect_field", "fields")) if option in given}
    given |= {name: str(given[name]) for name in ("times", "requests") if name in given}
    given |= {"duration": given.pop("for")} if "for" in given else {}
    return {**given, **({"expect": expect} if expect else {})}


def _there(option: str, file: Path | None) -> Path | None:
    """A file that is to be read."""
    if file is not None and not file.is_file():
        raise click.BadParameter(f"there is no file {file}", param_hint=option)
    return file


def _limits(settings: Mapping[str, Any]) -> dict[str, timedelta]:
    limits = {limit: settings[option] for option, limit in PERCENTILES.items() if settings[option] is not None}
    if not limits:
        raise click.UsageError("no limit is given, so nothing could ever be wrong: add --p99 100ms, or --p50, --p95, --p999")
    return limits


def _pinned(file: Path) -> Any:
    """What another run left, as a baseline; its time is that of the file."""
    from agent.model import UTC, Baseline

    _there("--against", file)
    at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return Baseline(at, at, "", str(file), at, None, {LEFT["save"]: file.read_bytes()})


def _written(wanted: Mapping[str, Path | None], data: Mapping[str, bytes]) -> list[str]:
    """Every file that was asked for, where the run left it."""
    from agent.errors import ConfigError

    made = []
    for option, path in wanted.items():
        body = data.get("load.hgrm" if path and option == "hdr" and path.suffix == PLOT else LEFT[option])
        if path is None or body is None:
            continue
        try:
            path.write_bytes(body)
        except OSError as problem:
            raise ConfigError(f"--{option} {path} cannot be written: {problem.strerror}; name another file") from problem
        made.append(str(path))
    return made
