"""A game day: the example stack is broken in one way after another, and what is noticed and put right is read from the agent's own record.

python -m examples.digits.gameday [--only NAME] [--out FILE.md] [--keep DIR] [--plain] [--json]
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from examples.digits.demo import INTERRUPTED, as_ctrl_c, missing, refused, tidy
from examples.digits.failures import Failure, failures, trained_again
from examples.digits.narrator import Narrator
from examples.digits.served import Digits, folder_of
from examples.digits.split import bad, moment
from examples.digits.stage import BrokenOffError, Stage
from examples.digits.story import LOOKS, SERVICE, MissedError, Story

PASS, FAIL = "PASS", "FAIL"
HELD = 6.0  # seconds that a failure which no runbook should answer stands after it was found: enough for the wrong thing to be done
PATIENCE = 3  # times as long as a quiet machine needs is what is waited: a slow one is no failure, and the times are told
WELL = 60.0  # seconds that the service may take to be well again once what was broken is mended


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one failure. `found_after` and `recovered_after` are seconds from when it was made, the latter to the last bad answer or, where no
    answer was bad, to the end of the incident; `lost` of `answers` were wrong or refused meanwhile."""

    name: str
    outcome: str
    what: str = ""
    found_by: str = ""
    found_after: float | None = None
    recovered_by: str = ""
    recovered_after: float | None = None
    lost: int | None = None
    answers: int | None = None
    said: str = ""
    timeline: tuple[tuple[float, str], ...] = ()


class Calm(Digits):
    """The example's own server under watches that look less often than the demo's: a game day goes on for minutes, on whatever machine there is.

    One more asks whether training can be repeated, as it once was: version 1 was made again from its pins, and came out the same.
    """

    def start(self) -> None:
        trained_again(self.stage)
        super().start()

    def configure(self) -> dict[str, str]:
        made = super().configure()
        path = self.stage.folder / "watchkeeper.yaml"
        text = path.read_text(encoding="utf-8")
        for check, every, calmer in (("serving.answers", "2s", "6s"), ("data.contract", "1s", "3s")):
            old = f"- check: {check}\n        every: {every}\n"
            assert old in text, f"{path} looks otherwise at {check}"
            text = text.replace(old, f"- check: {check}\n        every: {calmer}\n")
        text += "      - {check: lineage.repeated, every: 10s}\n"  # the watches of the only service stand last
        path.write_text(text, encoding="utf-8")
        return made


class Quiet(Narrator):
    """Says nothing: what is wanted is the result."""

    def __init__(self) -> None:
        super().__init__(plain=True)

    def tell(self, who: str, what: str, at: float | None = None) -> None: ...

    def also(self, text: str) -> None: ...


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    names = [one.name for one in failures()]
    parser = argparse.ArgumentParser(prog="watchkeeper gameday", description="Break the example stack, and see what is noticed and put right.")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"only this failure: {', '.join(names)}; may be given again")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the report as Markdown, too")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="play in this folder and leave everything there")
    parser.add_argument("--plain", action="store_true", help="no colours, whatever the terminal")
    parser.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Plays it; 0 when every failure was found and put right, 1 when one was not, 2 when it could not begin."""
    given = arguments(argv)
    if why := missing(0):
        return refused(why)
    if given.out and not given.out.resolve().parent.is_dir():
        return refused(f"there is no folder for {given.out}; make it first")
    try:
        folder = folder_of(given.keep) if given.keep else Path(tempfile.mkdtemp(prefix="watchkeeper gameday "))
    except OSError as problem:
        return refused(f"the game day cannot write its files: {problem}; name another folder with --keep DIR")
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, as_ctrl_c)
    narrator = Quiet() if given.json else Narrator(given.plain)
    return perform(given, folder.resolve(), narrator)


def perform(given: argparse.Namespace, folder: Path, narrator: Narrator) -> int:
    """The day in a folder; whatever happens, nothing that it started is left."""
    stage, found = Stage(folder), list[Outcome]()
    try:
        with stage, narrator:
            for outcome in played(Story(stage, narrator, Calm(stage), patience=PATIENCE), given.only):
                found.append(outcome)
                narrator.tell("story", f"{outcome.name}: {outcome.outcome}" + (f": {outcome.said}" if outcome.said else ""))
    except KeyboardInterrupt:
        narrator.tell("story", "stopped; nothing is left running")
        tidied(given, folder)
        return INTERRUPTED
    if stage.killed:
        found.append(Outcome("the end", FAIL, said=f"{', '.join(stage.killed)} did not end when asked to, and had to be killed"))
    failed = any(one.outcome == FAIL for one in found)
    if failed:
        print(f"what the agent and the others wrote is left in {folder}", file=sys.stderr)
    else:
        tidied(given, folder)
    if given.out:
        given.out.write_text(report(found), encoding="utf-8")
    print(json.dumps([asdict(one) for one in found], indent=2) if given.json else f"\n{table(found)}")
    return 1 if failed else 0


def tidied(given: argparse.Namespace, folder: Path) -> None:
    """Leaves nothing of a temporary folder."""
    if not given.keep:
        tidy(folder, INTERRUPTED)


# The day


def played(story: Story, only: Sequence[str] | None) -> Iterator[Outcome]:
    """One outcome after another; a stack that broke off ends the day."""
    try:
        _ready(story)
        for one in failures():
            if not only or one.name in only:
                story.narrator.also(f"\n-- {one.name}: {one.what}")
                yield _one(story, one)
    except BrokenOffError as problem:
        yield Outcome("the example stack", FAIL, said=f"broke off: {problem}")


def _ready(story: Story) -> None:
    """Version 1 serves, is known to be good, and a rollback was drilled."""
    try:
        story.begin()
        story.drill()
    except MissedError as problem:
        raise BrokenOffError(f"it did not come up: {problem}") from None


@dataclass(frozen=True, slots=True)
class Made:
    """A failure that was made at a time, and what the agent wrote down of it since."""

    story: Story
    one: Failure
    at: float

    def member(self) -> dict[str, Any] | None:
        """The watch that should find it, in an incident, failing since then; a watch that could not see has found nothing."""
        incident = self.story.agent.incident(self.one.found_by)
        members = incident["members"] if incident else []
        seen = [one for one in members if one["watch"] == f"{SERVICE}/{self.one.found_by}" and one["cause"] != "blind"]
        return next((one for one in seen if moment(one["since_at"]) >= self.at), None)

    def runs(self) -> list[dict[str, Any]]:
        """What was wanted since then, oldest first."""
        return [run for run in self.story.agent.get(f"/api/runs?service={SERVICE}&limit=50")[::-1] if moment(run["wanted_at"]) >= self.at]

    def decided(self) -> bool:
        """Whether each of them has come to its end, or to a person."""
        return all(run["ended_at"] or run["state"] == "awaiting" for run in self.runs())

    def over(self) -> dict[str, Any] | None:
        """The watch that found it, once it is ok again and the service is well."""
        member = self.member()
        return member if member and member["cleared_at"] and well(self.story) else None

    def events(self) -> list[dict[str, Any]]:
        """What was written down since then, but for the small steps, oldest first."""
        found = sorted(self.story.agent.get(f"/api/events?limit=200&service={SERVICE}"), key=lambda event: int(event["id"]))
        return [event for event in found if moment(event["at"]) >= self.at and event["kind"] != "step" and event["what"]]


def well(story: Story) -> bool:
    """Whether every watch that matters is ok and nothing pages. That a loaded machine could not see for a moment is a ticket, and no trouble."""
    state = story.agent.state()
    status = {one["check"]: one["status"] for one in state["watches"]}
    return all(status[look] == "ok" for look in LOOKS) and not any(incident["severity"] == "page" for incident in state["incidents"])


def _one(story: Story, one: Failure) -> Outcome:
    try:
        story.until("every watch is ok", lambda: well(story), WELL)
        served, made = story.server.served(), Made(story, one, time.time())
        one.make(story)
        story.until(f"{one.found_by} fails", made.member, one.within)
        until = time.monotonic() + (0 if one.cure else HELD)
        story.until("what was wanted is decided", lambda: time.monotonic() >= until and made.decided() and (made.runs() or not one.cure), 40)
        one.mend(story)
        return _judged(made, story.until(f"{one.found_by} is ok again", made.over, WELL), served)
    except MissedError as problem:
        with suppress(MissedError):
            _put_right(story, one)
        return Outcome(one.name, FAIL, one.what, said=str(problem))


def _put_right(story: Story, one: Failure) -> None:
    """After a failure that was missed: the stack as it was before, for those to come."""
    with suppress(OSError, BrokenOffError):
        one.mend(story)
        if story.server.served() != "1":
            story.narrator.tell("operator", story.server.deploy("1"))
        story.until("every watch is ok", lambda: well(story), WELL)


def _judged(made: Made, member: Mapping[str, Any], served: str) -> Outcome:
    """PASS: found by the watch that should, and put right by what should, with nothing else done to the service."""
    one, runs, cleared = made.one, made.runs(), moment(member["cleared_at"])
    answers = [answer for answer in made.story.answers.all if made.at <= moment(answer["at"]) <= cleared]
    lost = [answer for answer in answers if bad(answer)]
    wrong = _wrong(one, runs, served, made.story.server.served())
    return Outcome(
        name=one.name,
        outcome=FAIL if wrong else PASS,
        what=one.what,
        found_by=one.found_by,
        found_after=round(moment(member["since_at"]) - made.at, 2),
        recovered_by=_by(runs),
        recovered_after=round(max((moment(answer["answered_at"]) for answer in lost), default=cleared) - made.at, 2),
        lost=len(lost),
        answers=len(answers),
        said=wrong,
        timeline=tuple((moment(event["at"]) - made.at, event["what"]) for event in made.events()),
    )


def _wrong(one: Failure, runs: Sequence[Mapping[str, Any]], served: str, now: str) -> str:
    acted = [run["runbook"] for run in runs if run["state"] == "succeeded"]
    if one.cure and acted != [one.cure]:
        return f"{one.cure} should have put it right by itself, once; instead: {', '.join(acted) or 'nothing was done'}"
    if not one.cure and acted:
        return f"{acted[-1]} was carried out, which could not help"
    return f"version {now} serves; version {served} should" if now != served else ""


def _by(runs: Sequence[Mapping[str, Any]]) -> str:
    for run in runs[::-1]:
        if run["state"] == "succeeded":
            return f"{run['runbook']}, by {run['by']}"
    return "a person, at the source" + (f"; {runs[-1]['runbook']} declined" if runs and runs[-1]["state"] == "stopped" else "")


# What came of it


COLUMNS = ("failure", "outcome", "found by", "after", "recovered by", "after", "lost")


def cells(one: Outcome) -> tuple[str, ...]:
    """One row of the table."""
    lost = "" if one.lost is None else f"{one.lost} of {one.answers}"
    return (one.name, one.outcome, one.found_by, _seconds(one.found_after), one.recovered_by, _seconds(one.recovered_after), lost)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def table(found: Sequence[Outcome]) -> str:
    """For a terminal; what went wrong stands below."""
    body = [COLUMNS, *map(cells, found)]
    widths = [max(len(row[place]) for row in body) for place in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in body]
    return "\n".join([*lines, *(f"  {one.name}: {one.said}" for one in found if one.said)])


def report(found: Sequence[Outcome]) -> str:
    """For the record, in Markdown: the table, and each failure with what the agent wrote down."""
    counts = ", ".join(f"{sum(one.outcome == word for one in found)} {word}" for word in (PASS, FAIL))
    lines = [f"# Game day, {datetime.now(UTC):%Y-%m-%d %H:%M}Z", "", f"{counts}.", ""]
    lines += [_row(COLUMNS), _row(["---"] * len(COLUMNS)), *(_row(cells(one)) for one in found)]
    for one in found:
        lines += [
            "",
            f"## {one.name}: {one.outcome}",
            "",
            *([f"Made: {one.what}.", ""] if one.what else []),
            *([f"{one.said}", ""] if one.said else []),
        ]
        lines += [f"- {at:.1f} s: {_plain(what)}" for at, what in one.timeline]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
