"""Commands about what can be proved: the audit in every format, its gates, what changed, what to do, and whether the proof holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from agent.door import LENGTH, Call, command, length, main, moment

FILE = click.Path(path_type=Path, dir_okay=False)
FORMATS = ("json", "html", "md", "sarif", "junit", "badge", "csv")


@main.group()
def audit() -> None:
    """What can be proved about a period, and how ready a service is by fifty questions."""


def _wish(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    from agent.audit import GATE

    if value is not None and not GATE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is none of: verdict, blockers, regression, level=R0 to level=R5, section:MON>=6")
    return value


def _as_of(_: click.Context, __: click.Parameter, value: str) -> Any:
    from datetime import UTC, datetime

    try:
        read = datetime.fromisoformat(value)
    except ValueError as problem:
        raise click.BadParameter(f"{value!r} is no time; write it as 2026-11-27 or 2026-11-27T08:00:00Z") from problem
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def _outputs(function: Callable[..., None]) -> Callable[..., None]:
    """The options of what writes an audit."""
    out = click.option("--out", multiple=True, type=FILE, metavar="FILE", help="Where to write it; may be repeated. Its ending says in which format.")
    form = click.option("--format", "form", type=click.Choice(FORMATS), help="The format, where no --out says it. Other than html it is printed.")
    return out(form(function))


LAST = click.option("--last", "length", default="30d", show_default=True, callback=length, metavar="LENGTH", help=f"The period up to now: {LENGTH}.")


@command("watchkeeper audit run fraud --out fraud.html", "run", audit)
@click.argument("service", required=False)
@LAST
@_outputs
@click.option(
    "--gate", callback=_wish, metavar="WHAT", help="End with 1 or 3 unless it is met: verdict, blockers, regression, level=R3, section:MON>=6."
)
@click.option("--baseline", metavar="FILE", help="Compare with an audit that was written as JSON, or with the `last` that was kept.")
@click.option("--ratchet", is_flag=True, help="Where the gate is not met, stop only for what got worse since the baseline.")
@click.option("--keep", is_flag=True, help="Seal what it came to in the record: `--baseline last` and the metrics go by that.")
@click.option("--collect", is_flag=True, help="Look first at what the questions go by and has not been looked at within its interval.")
def audit_run(
    call: Call,
    service: str | None,
    length: Any,
    out: Sequence[Path],
    form: str | None,
    gate: str | None,
    baseline: str | None,
    ratchet: bool,
    keep: bool,
    collect: bool,
) -> None:
    """Write what can be proved about the period: a page for people, or what other programs read.

    The page needs nothing else to be read or printed. What was not seen is said. Exit code 4 when the evidence does not hold. With --gate
    0 when every service meets it, 1 when one does not, 3 when too little is known to tell. --collect looks as `check` does, and so may open
    incidents.
    """
    from agent import audit, reach
    from agent.hands import doing

    if not baseline and (ratchet or gate == "regression"):
        raise click.UsageError("what got worse is told only against an earlier audit: give --baseline last, or --baseline audit.json")
    config = call.config()
    names = [reach.service_named(config, service)] if service else list(config.services)
    if collect:
        _collected(config, names)
    now = moment()
    with reach.reading(config) as ledger:
        report = audit.collect(config, ledger, names, now - length, now)
        before = None if baseline is None else audit.last(ledger, names, now) if baseline == "last" else audit.read(Path(baseline))
    if keep:
        with doing(config) as them:
            them.keep_audit(names, length)
    if before is not None:
        report = audit.compared(report, before)
    _write(call, report, out, form)
    code = audit.gate(gate, [one["readiness"] for one in report["services"]], ratchet) if gate else 0
    raise SystemExit(code if report["evidence"]["verified"] else 4)


def _collected(config: Any, names: Sequence[str]) -> None:
    """Look now, through the daemon where there is one; what cannot look says so in its finding."""
    from agent import audit, reach
    from agent.hands import doing

    with doing(config) as them:
        with reach.reading(config) as ledger:
            due = audit.due(config, ledger, names, moment())
        for key in due:
            them.check(key)


def _write(call: Call, report: Any, out: Sequence[Path], form: str | None) -> None:
    """Into the files; without any the page into one of its own, and what is no page to the terminal."""
    from agent import audit
    from agent.audit.formats import form_of

    if not out and (form or "html") == "html" and not call.json:
        out = [Path(f"audit-{report['as_of'][:10]}.html")]
    asked = [(file, form if form and len(out) == 1 else form_of(file)) for file in out]
    for file, kind in asked:
        _put(file, audit.written(report, kind))
    if form not in (None, "html") and not out:
        click.echo(call.discreet(audit.written(report, str(form)).decode()), nl=False)
        return
    written = f"written to {', '.join(map(str, out))}\n" if out else ""
    call.say(report, lambda told: f"{audit.summary(told)}\n{written}")


def _put(file: Path, body: bytes) -> None:
    from agent.errors import ConfigError

    try:
        file.write_bytes(body)
    except OSError as problem:
        raise ConfigError(f"{file} cannot be written: {problem.strerror}; name a file in a folder that is there and yours") from problem


@command("watchkeeper audit replay audit.json --as-of 2026-12-24", "replay", audit)
@click.argument("file", type=FILE)
@click.option("--as-of", required=True, callback=_as_of, metavar="TIME", help="The moment to score it at, UTC: 2026-12-24 or 2026-12-24T08:00:00Z.")
@_outputs
def audit_replay(call: Call, file: Path, as_of: Any, out: Sequence[Path], form: str | None) -> None:
    """Score a stored audit again as of another moment, by the questions of today, from the evidence it holds.

    Later than the audit: what will have run out by then if nothing is looked at. Earlier: what of it was known already.
    """
    from agent import audit

    before = audit.read(file)
    _write(call, audit.compared(audit.replayed(before, as_of), before), out, form)


@command("watchkeeper audit diff last-week.json today.json", "diff", audit)
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
def audit_diff(call: Call, before: Path, after: Path) -> None:
    """What changed between two audits that were written as JSON, the worst first. 1: something got worse; 3: something is not seen any more."""
    from agent import audit

    report = audit.compared(audit.read(after), audit.read(before))
    told = [{"service": one["service"], "changes": one["readiness"]["changes"]} for one in report["services"]]
    call.say(told, lambda _: audit.difference(report))
    raise SystemExit(audit.gate("regression", [one["readiness"] for one in report["services"]]))


@command("watchkeeper audit plan fraud --safe", "plan", audit)
@click.argument("service", required=False)
@click.option("--safe", "kinds", flag_value="safe", help="Only what the agent can do itself without touching what serves.")
@click.option("--live", "kinds", flag_value="live", help="Only what reaches what serves, and wants a person's yes.")
def audit_plan(call: Call, service: str | None, kinds: str | None) -> None:
    """What to do for a better audit, in order, each with its command and what it would earn."""
    from agent import audit, reach
    from agent.audit.doing import KINDS, plan_text

    config, now = call.config(), moment()
    names = [reach.service_named(config, service)] if service else list(config.services)
    with reach.reading(config) as ledger:
        report = audit.collect(config, ledger, names, now, now)
    told = [audit.todo(one["readiness"], one["service"], (kinds,) if kinds else tuple(KINDS)) for one in report["services"]]
    call.say(told, "".join(map(plan_text, told)).rstrip("\n"))


@command("watchkeeper audit fleet", "fleet", audit)
def audit_fleet(call: Call) -> None:
    """Every service by its last audit that was kept, the worst first: verdict, level, least section, blockers, budget left, trend, owner."""
    from agent import reach
    from agent.audit import kept
    from agent.audit.fleet import fleet, text

    config = call.config()
    with reach.reading(config) as ledger:
        call.say(fleet(config, kept.reader()(ledger), moment()), text)


@command("watchkeeper audit explain DEPL-05 fraud", "explain", audit)
@click.argument("item")
@click.argument("service", required=False)
def audit_explain(call: Call, item: str, service: str | None) -> None:
    """One of the fifty questions: what answers it, what counts, what is known of it now, and how to earn it."""
    from agent import audit, reach

    config = call.config()
    names = [reach.service_named(config, service)] if service else list(config.services)
    with reach.reading(config) as ledger:
        call.say(audit.explain(config, ledger, item, names, moment()), audit.explanation)


def _anchors(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say where anchors are."""
    url = click.option("--prometheus", metavar="URL", help="The Prometheus that scrapes the agent's /metrics, such as http://127.0.0.1:9090.")
    match = click.option("--match", default="", metavar="SELECTOR", help='Which of several agents scraped there, such as job="watchkeeper".')
    noted = click.option("--anchor", multiple=True, metavar="LINKS:HEAD", help="A length and last link that you wrote down; may be repeated.")
    return url(match(noted(function)))


@command("watchkeeper audit bundle fraud --out fraud.tar.gz", "bundle", audit)
@click.argument("service", required=False)
@click.option("--out", required=True, type=FILE, metavar="FILE", help="Where to write it, a .tar.gz.")
@LAST
@_anchors
def audit_bundle(call: Call, service: str | None, out: Path, length: Any, prometheus: str | None, match: str, anchor: Sequence[str]) -> None:
    """Pack an audit with what it takes to check it: evidence, chain, anchors, configuration, schema, and verify.py, which needs only Python.

    It is not written where it would tell of people: an e-mail address, a card or an account number ends with 3 and its place.
    """
    from agent import audit, reach
    from agent.audit.packing import bundle
    from agent.audit.verifying import anchors_of

    call.hide(*([prometheus] if prometheus else []))
    config, now = call.config(), moment()
    names = [reach.service_named(config, service)] if service else list(config.services)
    held = anchors_of(prometheus, match, anchor)
    with reach.reading(config) as ledger:
        report = audit.collect(config, ledger, names, now - length, now)
        body = bundle(config, ledger, report, held)
    _put(out, body)
    told = {"bundle": str(out), "bytes": len(body), "anchors": len(held), "verified": report["evidence"]["verified"]}
    call.say(told, f"{out}: {len(body):,} bytes, {len(held)} anchors; 'watchkeeper audit verify {out}' checks it, and so does the verify.py in it")
    raise SystemExit(0 if report["evidence"]["verified"] else 4)


@command("watchkeeper audit verify fraud.tar.gz --prometheus http://127.0.0.1:9090", "verify", audit)
@click.argument("place", type=click.Path(path_type=Path), required=False)
@_anchors
def audit_verify(call: Call, place: Path | None, prometheus: str | None, match: str, anchor: Sequence[str]) -> None:
    """Whether a bundle holds, or a store, without PLACE that of the configuration: integrity, completeness and vantage.

    0: intact, and anchored outside. 3: intact, and no anchor says whether something was cut off its end. 4: broken, or not to be read.
    """
    from agent.audit.verify import text
    from agent.audit.verifying import EXITS, anchors_of

    call.hide(*([prometheus] if prometheus else []))
    verdict = _verdict(call, place, anchors_of(prometheus, match, anchor))
    call.say(verdict.told(), text(verdict).rstrip("\n"))
    raise SystemExit(EXITS[verdict.code])


def _verdict(call: Call, place: Path | None, anchors: Any) -> Any:
    from agent import reach
    from agent.audit.verifying import must_be_record, of_bundle, of_record
    from agent.errors import ConfigError
    from agent.store import Store

    if place is not None and not place.exists():
        raise ConfigError(f"there is no {place}; 'watchkeeper audit bundle --out FILE' makes a bundle")
    if place is None:
        config = call.config()
        with reach.reading(config) as ledger:
            return of_record(ledger, anchors, config)
    if place.is_dir() or place.open("rb").read(2) == b"\x1f\x8b":
        return of_bundle(place, anchors)
    must_be_record(place)
    store = Store.open(place)
    try:
        with store.read() as ledger:
            return of_record(ledger, anchors)
    finally:
        store.close()
