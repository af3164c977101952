"""Whether the server stands hostile inputs, and what it answers without what it depends on. All of it is asked as probes, and within bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from agent import NOT_NOW, Json, Reading, Registry, Server, Verdict, check, fail, golden_rows, nodata, ok, spell, warn
from agent.errors import AnswerError, ServerError
from agent.stats import quantile
from checks import _hostile
from checks._answers import finite, gaps
from checks._recent import RECORD

STAYED = "still answers a good request"


@check(pillar="deployment", asks="Does the server survive hostile and edge inputs?", severity="ticket", answers=("MODEL-09",))
def inputs(
    server: Server,
    registry: Registry | None = None,
    tell: Callable[[float, str], None] = lambda done, what: None,
    *,
    request: Json = None,
    cases: int = 500,
    largest: int = 65536,
    misfiled: float = 0.01,
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> Verdict:
    """Asks `cases` requests, each a golden one (or `request`) with something wrong in it: NaN and infinite, missing and extra, of another type, too
    large (lists of at most `largest` values), empty, on the edge of its range. A clean no (4xx) and an answer in numbers are both well; 5xx, a broken
    connection, an answer too late or with a number that is none fails. A request with something missing that is answered all the same is misfiled:
    more than `misfiled` of them fail. At last a good request must still be answered, and a batch as its rows one by one. One request at a time, none
    repeated.
    """
    asked = [request] if request is not None else [row.request for row in golden_rows(server, registry)]
    if not asked:
        return nodata(f"no request to spoil: set `with: {{request: ...}}`, or {RECORD}")
    before = server.infer(asked[0]).body
    faults, filed, told = [], 0, list(_hostile.spoilt(asked, cases, largest))
    for place, one in enumerate(told):
        said = _answered(server, one.request)
        faults += [f"{one.name}: {said}"] if isinstance(said, str) else []
        filed += one.must_refuse and said is True
        tell((place + 1) / len(told), one.name)
    faults += _afterwards(server, asked, before, rtol, atol)
    reading = Reading(len(faults), 0, n=len(told), unit="requests")
    kinds = len({one.name for one in told})
    if faults:
        return fail(f"{len(faults)} of {len(told)} hostile requests of {kinds} kinds did harm; first: {faults[0][:300]}", reading)
    if filed > misfiled * len(told):
        return fail(f"{filed} of {len(told)} requests that lack what the model needs were answered as if they had it", reading)
    told_of = f"{len(told)} hostile requests of {kinds} kinds were refused cleanly or answered in numbers, and it {STAYED}"
    return warn(f"{told_of}; {filed} lacked something and were answered", reading) if filed else ok(told_of, reading)


def _answered(server: Server, request: Json) -> bool | str:
    """Whether it was answered well (True) or refused cleanly (False), or what harm it did."""
    try:
        answer = server.infer(request)
    except ServerError as problem:
        return str(problem)
    except AnswerError as problem:
        if problem.status in NOT_NOW or (problem.status is not None and 400 <= problem.status < 500):
            return False
        return str(problem)
    except ValueError:  # what cannot even be written as JSON is refused here
        return False
    return True if finite(answer.body) else "a number in the answer is NaN, infinite or null"


def _afterwards(server: Server, asked: Sequence[Json], before: Json, rtol: float, atol: float) -> list[str]:
    """What is wrong with a good request, and with a batch of them, once all that is over."""
    after = server.infer(asked[0]).body
    wrong = [f"afterwards it answers a good request otherwise: '{gap.output}' {gap.what}" for gap in gaps(before, after, rtol, atol)]
    batch = _hostile.together(asked[:8])
    if batch is None:
        return wrong
    try:
        whole = server.infer(batch).body
    except AnswerError as problem:
        return wrong if problem.status is not None and 400 <= problem.status < 500 else [*wrong, f"a batch: {problem}"]
    single = [server.infer(one).body for one in asked[:8]]
    return wrong + [f"a batch is answered otherwise than its rows: {said}" for said in _hostile.unlike(single, whole, rtol, atol)][:1]


@check(pillar="deployment", asks="What does the server answer when a dependency is dead?", severity="ticket", answers=("DEPL-08",))
def degraded(
    server: Server,
    registry: Registry | None = None,
    *,
    without: str,
    request: Json = None,
    limit: timedelta = timedelta(seconds=1),
    requests: int = 20,
) -> Verdict:
    """Asks an instance that somebody has cut off from what it depends on (bind `server` to it; `without` names what is missing): a fallback in
    numbers within `limit` at the 95th percentile is ok, a slow one or a clean 503 warns, anything else is an outage. Never bind it to what users are
    served by.
    """
    asked = [request] if request is not None else [row.request for row in golden_rows(server, registry)]
    if not asked:
        return nodata(f"no request to ask: set `with: {{request: ...}}`, or {RECORD}")
    took, refused = [], 0
    for place in range(max(requests, 1)):
        try:
            answer = server.infer(asked[place % len(asked)])
        except AnswerError as problem:
            if problem.status != 503:
                return fail(f"without {without} it does not answer: {problem}", Reading(place, requests, unit="requests"))
            refused += 1
            continue
        if not finite(answer.body):
            return fail(f"without {without} a number in its answer is NaN, infinite or null", Reading(place, requests, unit="requests"))
        took.append(answer.seconds)
    slow = quantile(sorted(took), 0.95) if took else None
    reading = Reading(slow, limit.total_seconds(), n=len(took), unit="s")
    if refused:
        return warn(f"without {without} it says 503 to {refused} of {requests} requests, and has no fallback for them", reading)
    told = f"without {without} it answers all {requests} requests, 95 % of them within {spell(timedelta(seconds=slow or 0.0))}"
    return ok(told, reading) if (slow or 0.0) <= limit.total_seconds() else warn(f"{told}, above {spell(limit)}", reading)
