"""What people say where evidence cannot: that a question is met, that its gap is accepted, that it does not apply.

Each is an event of the record, sealed when it was said, so that none can be dated back, changed or taken away unseen. One that is written in the
configuration counts from when the agent first read it there, and as long as it stands there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent.audit.catalogue import Item, catalogue
from agent.audit.known import SEEING, Known
from agent.audit.scoring import Answer, Evidence
from agent.config import Config, Said, ServiceConfig
from agent.errors import PlanError
from agent.model import Event, Json, Status, digest, spell, to_json
from agent.plugins import listing, suggest
from agent.store import Ledger

LONGEST = {"attested": timedelta(days=180), "waived": timedelta(days=90), "not applicable": timedelta(days=180)}
MOST_APART = 2  # questions of a section that may be said not to apply
REVIEWS = ("MODEL-02", *(f"TEAM-{number:02d}" for number in range(1, 11)))  # they judge what the owner and the author did: somebody else must
BORNE_OUT_BY = {"TEAM-09": "DATA-01", "TEAM-10": "DEPL-08"}  # what requests lie outside is measured; what happens without the model was tried
KIND = "attest"


@dataclass(frozen=True, slots=True)
class Word:
    """What was said, when, in which event; `void` is why it does not count now, empty where it does."""

    said: Said
    at: datetime | None
    event: int | None
    configured: bool = False
    void: str = ""


# Said


def judged(said: Said, service: ServiceConfig, ledger: Ledger, now: datetime) -> Said:
    """What a person means to say, fit to be recorded: about the version that is served where that matters. PlanError says why it is refused."""
    item = catalogue().items.get(said.item)
    if item is None:
        raise PlanError(f"no question '{said.item}'{suggest(said.item, catalogue().items)}; there are DATA-01 to TEAM-10, ten a section")
    if not said.by.strip() or len(said.by) > 100 or not said.note.strip() or len(said.note) > 1000:
        raise PlanError(f"{item.id}: say who you are, and what, in at most 100 and 1000 characters")
    served = ledger.served_now(service.name)
    said = replace(said, version=said.version or (served.version if served and item.versioned and said.kind == "attested" else None))
    word = Word(said, now, None)
    if why := _void(word, item, service, served.version if served else None, now) or _own(said, service, ledger):
        raise PlanError(f"{item.id}: {why}")
    others = [one for one in words(service, ledger, now) if not one.void and one.said.kind == said.kind == "not applicable"]
    beside = {one.said.item for one in others if one.said.item.split("-")[0] == item.section} - {item.id}
    if len(beside) >= MOST_APART:
        raise PlanError(
            f"{item.id}: {' and '.join(sorted(beside))} are said not to apply already; at most {MOST_APART} questions of a section may be"
        )
    return said


def record(ledger: Ledger, service: str, said: Said, now: datetime, configured: bool = False) -> int:
    """Write it into the record."""
    where = ", as the configuration says" if configured else ""
    what = f"{said.item} {said.kind} by {said.by}{where} until {said.until_at:%Y-%m-%d}{f' ({said.reason})' if said.reason else ''}: {said.note}"
    return ledger.record(now, KIND, what, service=service, body={**to_json(said), "configured": configured})


def withdraw(ledger: Ledger, service: str, words: Sequence[Word], by: str, now: datetime) -> None:
    """Take back what was said."""
    for one in words:
        what = f"{one.said.item} is not {one.said.kind} by {one.said.by} any more: withdrawn by {by}"
        ledger.record(now, f"{KIND}.withdrawn", what, service=service, body={"event": one.event, "by": by})


def take_up(ledger: Ledger, config: Config, now: datetime) -> None:
    """Record what the configuration says anew, and what it says no more."""
    for service in config.services.values():
        held = {digest(to_json(one.said)): one for one in _recorded(ledger, service.name) if one.configured}
        said = {digest(to_json(one)): one for one in service.attest}
        withdraw(ledger, service.name, [one for key, one in held.items() if key not in said], "the configuration", now)
        for key in said.keys() - held.keys():
            record(ledger, service.name, said[key], now, configured=True)


# Heard


def words(service: ServiceConfig, ledger: Ledger, now: datetime) -> list[Word]:
    """Everything that was said of a service and not withdrawn, newest first, and why what does not count does not."""
    served = ledger.served_now(service.name)
    found = [_weighed(one, service, served.version if served else None, now) for one in _all(service, ledger)]
    return list(_limited(_countersigned(found)))


def _all(service: ServiceConfig, ledger: Ledger) -> Iterator[Word]:
    """What is in the record, and what the configuration says that is not in it yet."""
    recorded = _recorded(ledger, service.name)
    known = {digest(to_json(one.said)) for one in recorded if one.configured}
    written = {digest(to_json(one)) for one in service.attest}
    for said in service.attest:
        if digest(to_json(said)) not in known:
            yield Word(said, None, None, True, "it counts from when the agent has read it: watchkeeper run")
    for one in recorded:
        gone = one.configured and digest(to_json(one.said)) not in written
        yield replace(one, void="it stands in the configuration no more") if gone else one


def _recorded(ledger: Ledger, service: str) -> list[Word]:
    events = ledger.events(KIND, service=service, limit=5000)
    gone = {event.body.get("event") for event in events if event.kind == f"{KIND}.withdrawn"}
    return [_word(event) for event in events if event.kind == KIND and event.id not in gone]


def _word(event: Event) -> Word:
    body = {name: event.body[name] for name in ("kind", "item", "by", "note", "reason", "version")}
    said = Said(until_at=datetime.fromisoformat(event.body["until_at"]), **body)
    return Word(said, event.at, event.id, bool(event.body.get("configured")))


def _weighed(one: Word, service: ServiceConfig, served: str | None, now: datetime) -> Word:
    item = catalogue().items.get(one.said.item)
    return one if one.void or item is None else replace(one, void=_void(one, item, service, served, now))


def _void(one: Word, item: Item, service: ServiceConfig, served: str | None, now: datetime) -> str:
    """Why it does not count by itself."""
    said, at = one.said, one.at or now
    if said.until_at <= now:
        return f"it ended at {said.until_at:%Y-%m-%d %H:%M}Z"
    if said.until_at - at > LONGEST[said.kind] + timedelta(days=1):  # a day is named to its end
        return f"it may hold for at most {spell(LONGEST[said.kind])}; say an earlier day"
    if said.kind == "not applicable" and item.criticality == "blocker":
        return "it is a blocker, and a blocker always applies"
    if said.kind == "attested" and item.id in REVIEWS and _same(said.by, service.owner):
        return f"{said.by} owns {service.name}, and nobody attests their own review; let somebody else look"
    if said.kind == "attested" and item.versioned and said.version is None:
        return "it holds for one version: name it"
    if said.version is not None and served is not None and said.version != served:
        return f"it is about version {said.version}, and {served} is served"
    return ""


def _own(said: Said, service: ServiceConfig, ledger: Ledger) -> str:
    """Whether a person would attest a review of what they themselves brought in: they asked for the run in which the served version came."""
    served = ledger.served_now(service.name)
    if said.kind != "attested" or said.item not in REVIEWS or served is None:
        return ""
    runs = (run for run in ledger.runs(service=service.name, since=served.since_at - timedelta(days=30)) if run.wrote and not run.drill)
    brought = next((run for run in runs if run.wanted_at <= served.since_at <= (run.ended_at or served.since_at)), None)
    if brought is None or not _same(said.by, brought.by):
        return ""
    return f"{said.by} brought version {served.version} in (run {brought.id}), and nobody attests their own review; let somebody else look"


def _same(one: str, other: str | None) -> bool:
    return other is not None and one.strip().casefold() == other.strip().casefold()


def _countersigned(found: Sequence[Word]) -> Iterator[Word]:
    """A gap of a blocker is accepted by two people, or by nobody."""
    people: dict[str, set[str]] = {}
    for one in found:
        if one.said.kind == "waived" and not one.void:
            people.setdefault(one.said.item, set()).add(one.said.by.strip().casefold())
    for one in found:
        blocker = one.said.item in catalogue().items and catalogue().items[one.said.item].criticality == "blocker"
        alone = one.said.kind == "waived" and not one.void and blocker and len(people[one.said.item]) < 2
        yield replace(one, void="it is a blocker: a second person must accept it too") if alone else one


def _limited(found: Iterator[Word]) -> Iterator[Word]:
    """At most two questions of a section do not apply: the two that were said first."""
    made = list(found)
    apart: dict[str, set[str]] = {}
    for one in reversed(made):
        if one.said.kind == "not applicable" and not one.void and len(apart.setdefault(one.said.item.split("-")[0], set())) < MOST_APART:
            apart[one.said.item.split("-")[0]].add(one.said.item)
    for one in made:
        many = one.said.kind == "not applicable" and not one.void and one.said.item not in apart[one.said.item.split("-")[0]]
        yield replace(one, void=f"two others of its section do not apply already, and at most {MOST_APART} may") if many else one


# What it means for the audit


def apart(found: Sequence[Word]) -> dict[str, str]:
    """The questions that do not apply, and who says so."""
    return {
        one.said.item: f"{one.said.by}: {one.said.reason}, {one.said.note}" for one in found if one.said.kind == "not applicable" and not one.void
    }


def by_item(found: Sequence[Word], kind: str) -> dict[str, Json]:
    """What counts of a kind, by question; of several the one that was said last."""
    counting = [one for one in reversed(found) if one.said.kind == kind and not one.void]
    return {one.said.item: {**to_json(one.said), "at": to_json(one.at), "until": to_json(one.said.until_at)} for one in counting}


def heard(known: Known, answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """The answers, with what people attest joined to them."""
    attested = {one.said.item: one for one in reversed(words(known.service, known.ledger, known.now)) if one.said.kind == "attested" and not one.void}
    seen = {name: answers.get(BORNE_OUT_BY.get(name, name)) for name in catalogue().items}
    joined = {name: _joined(known, item, seen[name], attested.get(name)) for name, item in catalogue().items.items()}
    return {name: answer for name, answer in joined.items() if answer is not None}


def _joined(known: Known, item: Item, answer: Answer | None, word: Word | None) -> Answer | None:
    """What is seen comes first. A word beside it is the half that only people can give; a word alone counts half, and never against what was seen.

    It counts alone only while what would show it is attached: whoever takes a source away must not gain by it.
    """
    if word is None:
        return _unattested(known, item, answer)
    alone = _alone(known, word)
    if item.mode == "attested":
        return _borne_out(alone, item, answer)
    if answer is None:
        return alone if item.within(known.attached) and not _against(known, item) else None
    if item.mode == "automatic" or answer.said == "fail":
        return answer
    return replace(answer, observed=f"{answer.observed}; {alone.observed}", evidence=(*answer.evidence, *alone.evidence))


def _borne_out(alone: Answer, item: Item, shown: Answer | None) -> Answer:
    """A word that something seen bears out, as far as a person's word can be; else the word alone."""
    by = BORNE_OUT_BY[item.id]
    if shown is None or shown.said == "fail":
        return replace(alone, observed=f"{alone.observed}; nothing bears it out: {by} {'is not known' if shown is None else 'fails'}")
    return replace(alone, attested=False, observed=f"{alone.observed}; borne out by {by}", evidence=(*alone.evidence, *shown.evidence))


def _unattested(known: Known, item: Item, answer: Answer | None) -> Answer | None:
    if item.mode == "attested":
        return Answer("fail", known.seen_at, observed="nobody has attested it", evidence=known.configured("attest"))
    if item.mode == "attested in part" and answer is not None and answer.said == "pass":
        return replace(answer, said="partial", observed=f"{answer.observed}; nobody has attested the rest")
    return answer


def _alone(known: Known, word: Word) -> Answer:
    assert word.at is not None
    said = word.said
    observed = f"{said.by} on {word.at:%Y-%m-%d}, until {said.until_at:%Y-%m-%d}: {said.note}"
    link, seal = known.ledger.seals({"event": [word.event or 0]}).get(("event", word.event or 0), (None, ""))
    rests = Evidence("attestation", "config", "self", word.at, KIND, said.by, f"event {word.event}", seal, link)
    return Answer("pass", word.at, version=said.version, observed=observed, attested=True, evidence=(rests,))


def _against(known: Known, item: Item) -> bool:
    """Whether the last look that saw anything of this question found it bad, be it still watched or not."""
    checks = [name for name, check in listing("check").items() if item.id in check.promises.get("answers", ())]
    for check in checks:
        kept = known.ledger.findings(service=known.service.name, check=check, limit=100)
        last = next((one for one in kept if one.status in SEEING), None)
        if last is not None and last.status is Status.FAIL:
            return True
    return False


def earn(item: Item) -> str:
    """What a person can do for it who can answer for it."""
    return f"attest it, if you can answer for it: watchkeeper attest {item.id} SERVICE --by NAME --until DATE --note TEXT"


def told(found: Sequence[Word]) -> list[dict[str, Json]]:
    """As JSON values."""
    return [{**to_json(one.said), "at": to_json(one.at), "event": one.event, "configured": one.configured, "void": one.void} for one in found]
