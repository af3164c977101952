"""What the agent has of one service, as the rules that answer the audit's questions read it, and how such a rule is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from agent import plugins
from agent.audit.rests import SOURCES, Thing, configured, rests
from agent.audit.scoring import Answer, Evidence, Said
from agent.config import Config, ServiceConfig, WatchConfig
from agent.model import Event, Finding, Incident, Locator, Run, Signal, Status, reach
from agent.model import brief as brief
from agent.store import Ledger

GRADES: tuple[Said, ...] = ("fail", "partial", "pass")  # the worst first
MOST = 5000  # rows of a kind that are read
SEEING = (Status.OK, Status.WARN, Status.FAIL)  # a look that came to one of these saw the world


@dataclass(frozen=True)
class Known:
    """One service in one snapshot of the store. `intact`: the chain of evidence holds."""

    config: Config
    ledger: Ledger
    service: ServiceConfig
    now: datetime
    intact: bool = True

    @cached_property
    def span(self) -> tuple[datetime, datetime]:
        """When the record begins and when something was last written to it; both `now` where it is empty."""
        return self.ledger.span() or (self.now, self.now)

    @property
    def seen_at(self) -> datetime:
        """How new an answer from the record is: a record that nothing was written to for a year says nothing of that year."""
        return min(self.span[1], self.now)

    @property
    def served(self) -> str | None:
        found = self.ledger.served_now(self.service.name)
        return None if found is None else found.version

    @cached_property
    def attached(self) -> frozenset[str]:
        """The sources that the service or one of its watches is bound to."""
        bound: list[Mapping[str, Locator]] = [self.service.targets, *(watch.bind for watch in self.service.watches)]
        return frozenset(SOURCES[role] for targets in bound for role in targets if role in SOURCES)

    @cached_property
    def incidents(self) -> Sequence[Incident]:
        return self.ledger.incidents(service=self.service.name, limit=MOST)

    @cached_property
    def runs(self) -> Sequence[Run]:
        return self.ledger.runs(service=self.service.name, limit=MOST)

    def pages(self, days: int) -> list[Incident]:
        """The incidents that page, opened in the last so many days."""
        return [one for one in self.incidents if one.severity == "page" and one.opened_at >= self.now - timedelta(days=days)]

    def events(self, kind: str, days: int) -> Sequence[Event]:
        """The service's events of a kind, newest first."""
        return self.ledger.events(kind, service=self.service.name, since=self.now - timedelta(days=days), limit=MOST)

    def acts(self, days: int) -> Iterator[tuple[str, str]]:
        """(who, what) of every act of a person: an incident acknowledged, a run asked for or approved, something silenced."""
        since = self.now - timedelta(days=days)
        yield from ((i.acknowledged_by, "ack") for i in self.incidents if i.acknowledged_by and i.acknowledged_at and i.acknowledged_at >= since)
        yield from ((one.by, run.runbook) for run in self.runs for one in run.approvals if one.at >= since)
        yield from ((s.by, "silence") for s in self.ledger.silences() if s.start_at >= since and s.match.split("/")[0] == self.service.name)

    # Watches

    def watching(self, item: str) -> list[WatchConfig]:
        """The watches whose check says that it is evidence for this question."""
        checks = plugins.listing("check")
        return [watch for watch in self.service.watches if item in checks[watch.check].promises.get("answers", ())]

    def signal(self, watch: WatchConfig) -> Signal | None:
        """What it last came to, where that saw something of the world."""
        found = self.ledger.signal(watch.key)
        return found if found is not None and found.status in SEEING and found.state != "blind" else None

    def last(self, item: str) -> list[tuple[WatchConfig, Signal, Finding]]:
        """The watches for a question that saw something when they last looked, each with its newest finding that did."""
        found = []
        for watch in self.watching(item):
            signal = self.signal(watch)
            kept = next((one for one in self.ledger.findings(watch=watch.key, limit=100) if one.status in SEEING), None)
            found += [(watch, signal, kept)] if signal and kept else []
        return found

    def drilled(self, item: str) -> Finding | None:
        """The newest finding that saw something, of a step of a drill whose check says that it is evidence for this question."""
        answering = [name for name, one in plugins.listing("check").items() if item in one.promises.get("answers", ())]
        steps = tuple(f"@run-{run.id}" for run in self.runs if run.drill)
        found = (one for name in answering for one in self.ledger.findings(self.service.name, check=name, limit=MOST))
        return max((one for one in found if one.status in SEEING and one.watch.endswith(steps)), key=lambda one: one.id, default=None)

    def looks(self, watch: WatchConfig, days: int) -> Looks:
        """How often a watch looked in the last so many days, how often it saw something, and how often it should have since it began.

        What saw nothing is counted by the findings; where those are kept for less time than was asked about, so much less is looked at.
        """
        wanted = timedelta(days=days)
        since = self.now - min(wanted, self.config.retention.findings)
        looks, good, first = self.ledger.looks(watch.key, since)
        kept = self.ledger.statuses(watch.key, since)
        blind = sum(n for status, n in kept.items() if status not in SEEING)
        length = self.now - max(first, since) if first else timedelta()
        whole = length + watch.every + timedelta(minutes=1) >= wanted  # the first look of a stretch comes up to an interval after it began
        return Looks(looks, good, min(blind, looks), length, wanted, length / watch.every, whole)

    # Words

    def rests(self, *things: Thing) -> tuple[Evidence, ...]:
        """What an answer rests on, as evidence."""
        return rests(self.service, things)

    def configured(self, *keys: str) -> tuple[Evidence, ...]:
        """What the configuration says under these keys of the service, as evidence."""
        return (configured(self.config, self.service, self.seen_at, *keys),)

    def history(self, days: int) -> str:
        """How much of the time asked about the record covers, such as "3 min of 28 d"."""
        return reach(self.now - self.span[0], timedelta(days=days))

    def short(self, days: int) -> bool:
        """Whether the record covers less than that."""
        return self.now - self.span[0] < timedelta(days=days)


@dataclass(frozen=True, slots=True)
class Looks:
    """Looks of a watch: how many, how many good, how many that saw nothing; over which part of which length, how many were due, and whether they
    cover all of it."""

    looks: int
    good: int
    blind: int
    length: timedelta
    wanted: timedelta
    due: float
    whole: bool

    @property
    def seeing(self) -> int:
        return self.looks - self.blind

    @property
    def made(self) -> float:
        """The share of the looks that were due which was made; more than due is no virtue."""
        return min(1.0, self.looks / max(self.due, 1.0))

    @property
    def saw(self) -> float:
        """The share of the looks that were due which was made and saw something."""
        return min(1.0, self.seeing / max(self.due, 1.0))

    @property
    def history(self) -> str:
        return reach(self.length, self.wanted)


# Rules


def newest(known: Known, item: str) -> list[tuple[Signal, Finding, bool]]:
    """What the watches of a question last came to, the worst first: with its newest finding, and whether it looks again and again."""
    order = (Status.FAIL, Status.WARN, Status.OK)
    found = [(signal, kept, len(signal.statuses) > 1) for _, signal, kept in known.last(item)]
    return sorted(found, key=lambda one: order.index(one[0].status))


def graded(status: Status) -> Said:
    """What a look that saw something is worth as an answer."""
    return "fail" if status is Status.FAIL else "partial" if status is Status.WARN else "pass"


def worst(known: Known, item: str) -> Answer | None:
    """fail where a watch of the question fails, else as good as the rule allows; None where no watch has seen anything."""
    found = newest(known, item)
    if not found:
        return None
    signal, kept, again = found[0]
    said = graded(signal.status)
    words = "; ".join(f"{one.watch.partition('/')[2]}: {one.reason.partition(chr(10))[0]}" for one, _, _ in found)
    evidence = known.rests(*(kept for _, kept, _ in found))
    return Answer(said, min(one.looked_at for one, _, _ in found), again, kept.version, words, evidence=evidence)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one question is answered. `lacks` names the part of its pass that cannot be seen: then the answer is partial at most.

    `accuses`: so much cannot be seen that it can only tell a fail.
    """

    item: str
    ask: Callable[[Known], Answer | None]
    earn: str
    lacks: str = ""
    accuses: bool = False

    @property
    def best(self) -> float:
        """The most points it can come to."""
        return 0.0 if self.accuses else 0.5 if self.lacks else 1.0

    @property
    def reads(self) -> str:
        """What it goes by."""
        return " ".join((self.ask.__doc__ or "").split())

    def answer(self, known: Known) -> Answer | None:
        """The answer with what it lacks said; None: unknown."""
        found = self.ask(known)
        if found is None or found.said == "fail" or not self.lacks:
            return found
        if self.accuses:
            return None
        return replace(found, said="partial", observed=f"{found.observed}; not seen: {self.lacks}")


RULES: dict[str, Rule] = {}


Ask = Callable[[Known], Answer | None]


def rule(item: str, *, earn: str, lacks: str = "", accuses: bool = False) -> Callable[[Ask], Ask]:
    """Write a function down as the rule of a question; its docstring says what it goes by, `earn` what to do for a better answer."""

    def note(ask: Ask) -> Ask:
        RULES[item] = Rule(item, ask, earn, lacks, accuses)
        return ask

    return note


def among(value: float, full: float, half: float) -> Said:
    """pass from `full` on, partial from `half` on, else fail: for what is better the more it is."""
    return "pass" if value >= full else "partial" if value >= half else "fail"


def features_of(known: Known, watch: WatchConfig) -> list[str]:
    """The features that the rows a watch looks at are declared to have."""
    live = watch.bind.get("live") or known.service.targets.get("live")
    features = (live.options.get("features") if live else None) or ()
    if isinstance(features, Mapping):
        return [str(name) for name in features.get("names") or [f"{features.get('prefix', 'p')}{n}" for n in range(int(features.get("size", 0)))]]
    return [str(name) for name in features]
