"""Whether a version that no user meets would answer them as well as the one they get."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import shorten
from typing import Any

from agent import Columns, Registry, Server, Verdict, Window, check, fail, nodata, ok
from agent.errors import ConfigError
from checks._recent import recent
from checks._shadow import Shadowed, asked, refuted

LONGEST = 300  # characters of what was wrong with one answer


@check(pillar="deployment", asks="Does a version that has no traffic answer the users' own requests as well as the one they get?", cause="answers")
def compare(
    server: Server,
    live: Columns,
    window: Window,
    memory: Shadowed | None,
    registry: Registry | None = None,
    *,
    baseline: str,
    candidate: str,
    lost: float = 0.01,
    apart: float | None = None,
    alpha: float = 0.01,
    rows: int = 200,
    request: dict[str, Any] | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-5,
) -> Verdict:
    """Sends the newest `rows` logged inputs of the window to both versions, as probes, and compares the answers; evidence adds up from look to look.

    Fails when `candidate` surely fails to answer more than the share `lost` of the requests that `baseline` answers well: refuses them, or answers
    with what cannot be read or is no finite number; is ok when surely fewer, and nodata (hold) in between. With `apart` the same is judged of
    answers that differ beyond atol + rtol * |what baseline says|; without it these are counted and told, since a new version is meant to differ.
    A wrong fail, and a wrong ok, have a chance of at most `alpha` however often it looks. `request` is where the inputs are put, else a golden one.
    """
    if baseline == candidate or not 0 < alpha < 1 or not all(0 < limit < 1 for limit in (lost, apart) if limit is not None):
        raise ConfigError(f"name two versions, and shares between 0 and 1: baseline {baseline}, candidate {candidate}, lost {lost}, apart {apart}")
    requests = recent(server, live.between(window.start, window.end), registry, rows, request)
    if isinstance(requests, Verdict):
        return requests
    seen = asked(server.at(baseline), server.at(candidate), requests, memory or Shadowed(), rtol, atol)
    return _told(seen, baseline, candidate, {"lost": lost, **({"apart": apart} if apart is not None else {})}, alpha)


def _told(seen: Shadowed, baseline: str, candidate: str, limits: dict[str, float], alpha: float) -> Verdict:
    hits = {"lost": seen.lost, "apart": seen.apart}
    parts = {name: seen.share(count, limits.get(name)) for name, count in hits.items()}
    notes = "".join(f"\n{line}" for line in _notes(seen, baseline, candidate))
    sure = {name: refuted(hits[name], seen.judged, limit, alpha) for name, limit in limits.items()}
    worse = [name for name, limit in limits.items() if sure[name] and hits[name] > limit * seen.judged]
    if worse:
        return fail(
            "; ".join(f"{_words(name, hits[name], seen, candidate)}, surely more than {limits[name]:.3g}" for name in worse) + notes,
            parts["lost"],
            parts=parts,
            memory=seen,
        )
    open_ = [name for name in limits if not sure[name]]
    said = [
        f"{_words(name, hits[name], seen, candidate)}, " + ("not sure yet" if name in open_ else f"surely less than {limits[name]:.3g}")
        for name in limits
    ]
    reason = ("hold: " if open_ else "") + "; ".join(said) + notes
    return (nodata if open_ else ok)(reason, parts["lost"], parts=parts, memory=seen)


def _words(name: str, hits: int, seen: Shadowed, candidate: str) -> str:
    did = "fails to answer" if name == "lost" else "answers otherwise"
    return f"version {candidate} {did} {hits:,} of {seen.judged:,} requests"


def _notes(seen: Shadowed, baseline: str, candidate: str) -> Iterator[str]:
    both = seen.judged - seen.lost
    if both:
        old, new = (total / both * 1000 for total in seen.seconds)
        yield f"{seen.apart:,} of {both:,} answers differ; they took {new:.3g} ms on average, those of {baseline} {old:.3g} ms, one request at a time"
    if seen.example:
        yield f"the first that it did not answer: {shorten(seen.example, LONGEST)}"
    if seen.unlike:
        yield f"the first that differs: {shorten(seen.unlike, LONGEST)}"
    if seen.gained:
        yield f"{seen.gained:,} requests that {baseline} fails to answer {candidate} answers"
    yield "asked again from the log: no user got these answers, and nothing is known of what was not logged"
