"""One of the fifty questions explained: how it is answered, what is known of it, and how to earn more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.audit import attested
from agent.audit.answers import RULES
from agent.audit.catalogue import Item, catalogue
from agent.audit.known import Known
from agent.audit.readiness import scored_now, told, wanted
from agent.errors import ConfigError
from agent.model import Json, to_json
from agent.plugins import suggest


def explained(name: str, services: Sequence[Known]) -> dict[str, Json]:
    """One question: how it is answered, what counts as what, what is known of it in each service now, and how to earn more. ConfigError: no such."""
    item = catalogue().items.get(name.upper())
    if item is None:
        raise ConfigError(f"no question '{name}'{suggest(name.upper(), catalogue().items)}; there are DATA-01 to TEAM-10, ten a section")
    one = RULES.get(item.id)
    return {
        **{key: to_json(getattr(item, key)) for key in ("id", "question", "criticality", "mode", "evidence", "fresh", "versioned", "failures")},
        "counts": {"pass": item.passes, "partial": item.partial, "fail": item.fails},
        "needs": [sorted(need) for need in item.needs],
        "rule": one.reads if one else None,
        "not_seen": one.lacks if one else None,
        "earn": _earn(item),
        "now": [_now(item, known) for known in services],
    }


def _earn(item: Item) -> str:
    if item.id in RULES:
        return RULES[item.id].earn
    if item.mode == "attested":
        return attested.earn(item)
    return f"no rule answers it yet, so that it stays unknown; what would is: {item.evidence}"


def _now(item: Item, known: Known) -> dict[str, Json]:
    attach = None if item.within(known.attached) else wanted(item)
    found = scored_now(known).scored[item.id]
    rests = [] if found.answer is None else [to_json(one) for one in found.answer.evidence]
    return {"service": known.service.name, **told(found), "attach": attach, "evidence": rests}


def explanation(about: Mapping[str, Json]) -> str:
    """One question for a terminal."""
    holds = f"{about['fresh']} days" + (", and until another version is served" if about["versioned"] else "")
    lines = [f"{about['id']} ({about['criticality']}): {about['question']}", ""]
    lines += [f"rule      {about['rule'] or 'none yet: it stays unknown'}", *([f"not seen  {about['not_seen']}"] if about["not_seen"] else [])]
    lines += [f"{word:9} {about['counts'][word]}" for word in ("pass", "partial", "fail")] + [f"holds     {holds}", ""]
    for one in about["now"]:
        attach = f"; attach {one['attach']}" if one["attach"] else ""
        lines.append(f"{one['service']}: {one['state']}, {one['points']:g} of 1: {one['why']}{attach}")
        lines += [f"  {line}" for line in rests(one["evidence"])]
    return "\n".join([*lines, "", f"To earn it: {about['earn']}", ""])


def rests(evidence: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    """What an answer rests on, a line each."""
    for one in evidence:
        linked = "" if one["link"] is None else f", link {one['link']}"
        yield f"{one['locator']} ({one['source']}, {one['vantage']}) by {one['collector']} at {one['at']}, sha256 {one['digest'][:16]}{linked}"
