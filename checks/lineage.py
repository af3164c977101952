"""Whether the served version can be traced to what it was made from, made again, and loaded without harm."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from agent import Code, Columns, Golden, Json, ModelVersion, Reading, Registry, Router, Server, Verdict, check, fail, nodata, ok, served, warn
from agent.errors import AnswerError
from checks import _lineage
from checks._answers import gaps

HEX = 64  # digits of a sha256


@check(pillar="training", asks="Can the exact training data of the served version be read back?", severity="ticket", answers=("DATA-04",))
def data(server: Server, registry: Registry, router: Router | None = None, reference: Columns | None = None, code: Code | None = None) -> Verdict:
    """Compares the digests of its training data that the served version's lineage records with those of the data as it is found today.

    `reference` is that data where it lies in local files: its sha256 is worked out anew. What DVC has pinned, in the recorded commit of `code`, is
    found in its cache or where it lies. Equal is ok; recorded and nowhere to be found warns; unequal, or not recorded, fails.
    """
    version = _lineage.registered(server, registry, router)
    if isinstance(version, Verdict):
        return version
    recorded = _lineage.data(version)
    if not recorded:
        return fail(f"version {version.version} does not record what it was trained on; pass lineage={{'data': {{NAME: sha256}}}} to record()")
    found = [_read_back(name, digest, version, reference, code) for name, digest in recorded.items()]
    reading = Reading(sum(one is True for one in found), len(found), n=len(found), unit="tables")
    if any(one is False for one in found):
        wrong = ", ".join(name for name, one in zip(recorded, found, strict=True) if one is False)
        return fail(f"the training data of version {version.version} is not what was recorded: {wrong}", reading)
    if not all(found):
        lost = ", ".join(name for name, one in zip(recorded, found, strict=True) if one is None)
        return warn(f"the training data of version {version.version} is recorded, and was not found to be digested anew: {lost}", reading)
    return ok(f"the training data of version {version.version} is what was recorded: {', '.join(recorded)}", reading)


def _read_back(name: str, digest: str, version: ModelVersion, reference: Columns | None, code: Code | None) -> bool | None:
    """Whether data is what was recorded; None where it was not found. Of several tables that are recorded, `reference` is the one that is bound."""
    if len(digest) == HEX:
        return bool(reference.digest() == digest) if reference is not None and "digest" in reference.can else None
    pins = code.data(_lineage.commit(version)) if code is not None else {}
    if name not in pins or code is None:
        return None
    return pins[name] == digest and code.holds(name, digest)


@check(pillar="training", asks="Does an unbroken chain lead from the endpoint to its sources?", severity="ticket", answers=("DATA-05",))
def chain(server: Server, registry: Registry, code: Code, router: Router | None = None) -> Verdict:
    """Walks from what is served to its version in the registry, its commit, its data, and where that came from; every link that is missing is told.

    One broken link warns, more fail. A version that nobody registered breaks all that would follow.
    """
    name = served(server, registry, router)
    if name is None:
        return nodata(_lineage.UNTOLD)
    version = registry.version(name)
    if version is None:
        return fail(f"version {name} is served and was never registered, so that nothing leads on from it", Reading(4, 0, n=4, unit="links"))
    commit, recorded = _lineage.commit(version), _lineage.data(version)
    pins = code.data(commit) if commit and code.commit(commit) else {}
    links = {
        f"the commit {commit or ''} of version {name}": commit is not None and code.commit(commit) is not None,
        f"the digest of the data of version {name}": bool(recorded),
        f"where the data of version {name} came from": bool(recorded) and all(_sourced(version, one, pins) for one in recorded),
        f"the digest of the artefact of version {name}": bool(version.files) or bool(version.digest),
    }
    broken = [words for words, whole in links.items() if not whole]
    reading = Reading(len(broken), 0, n=len(links), unit="links")
    if not broken:
        return ok(f"version {name} leads back to commit {str(commit)[:12]} and to {', '.join(recorded)}; {len(links)} links hold", reading)
    return (warn if len(broken) == 1 else fail)(f"{len(broken)} of {len(links)} links are missing: {'; '.join(broken)}", reading)


def _sourced(version: ModelVersion, name: str, pins: Mapping[str, str]) -> bool:
    sources = version.lineage.get("sources")
    return name in pins or (isinstance(sources, Mapping) and bool(sources.get(name)))


@check(pillar="training", asks="Has training been repeated from its pins with equal result?", severity="ticket", answers=("MODEL-03",))
def repeated(
    registry: Registry, server: Server | None = None, router: Router | None = None, *, rtol: float = 1e-3, atol: float = 1e-5, at_least: float = 0.99
) -> Verdict:
    """Compares two versions that were made from the same pins: what one records as `repeats` with the version named there, on their golden rows.

    The newest such pair counts. Other data, code or seed than the first had is no repetition, and fails; so does agreement on fewer than 95 % of the
    rows; fewer than `at_least` warns.
    """
    pairs = [(one, one.lineage["repeats"]) for one in reversed(registry.versions()) if isinstance(one.lineage.get("repeats"), str)]
    if not pairs:
        return fail("no version records that it repeats another; train one again and pass lineage={'repeats': VERSION} to record()")
    again, name = pairs[0]
    first = registry.version(name)
    if first is None:
        return fail(f"version {again.version} repeats version {name}, which the registry does not hold")
    if other := [key for key in ("data", "commit", "seed", "environment") if again.lineage.get(key) != first.lineage.get(key)]:
        return fail(f"version {again.version} is no repetition of {name}: {', '.join(other)} differ")
    rows = _shared(registry.golden(first.version), registry.golden(again.version))
    if not rows:
        return nodata(f"versions {name} and {again.version} have no golden request in common, so that nothing tells whether they agree")
    same = sum(not list(gaps(before, after, rtol, atol)) for before, after in rows)
    share, reading = same / len(rows), Reading(same / len(rows), at_least, n=len(rows))
    told = f"version {again.version}, made again from the pins of {name}, answers {same} of {len(rows)} golden rows alike"
    return ok(told, reading) if share >= at_least else warn(told, reading) if share >= 0.95 else fail(told, reading)


def _shared(one: Golden | None, other: Golden | None) -> list[tuple[Json, Json]]:
    """What both expect of the requests that both have."""
    if one is None or other is None:
        return []
    return [(row.expected, there.expected) for row in one.rows for there in other.rows if row.request == there.request]


@check(pillar="training", asks="Is the configuration the outcome of a recorded search?", severity="ticket", answers=("MODEL-06",))
def search(server: Server, registry: Registry, router: Router | None = None, *, runs: int = 10, top: int = 3) -> Verdict:
    """Reads the search that the served version's lineage records: {"knobs": [...], "runs": [{"parameters": {...}, "metric": number}, ...]}, the more
    the better, and the parameters of the version itself.

    ok: at least `runs`, every knob was varied, and what was chosen is among the best `top`. No search fails; anything between warns.
    """
    version = _lineage.registered(server, registry, router)
    if isinstance(version, Verdict):
        return version
    told, chosen = version.lineage.get("search") or {}, version.lineage.get("parameters")
    tried = _lineage.tried(told)
    if not tried:
        return fail(
            f"version {version.version} records no search of its configuration; pass lineage={{'search': ..., 'parameters': ...}} to record()"
        )
    knobs = [str(one) for one in told.get("knobs") or ()]
    still = [knob for knob in knobs if len({repr(one["parameters"].get(knob)) for one in tried}) < 2]
    ranked = sorted((one for one in tried if isfinite(one["metric"])), key=lambda one: -one["metric"])
    rank = next((place for place, one in enumerate(ranked, 1) if one["parameters"] == chosen), None)
    lacking = [
        *([f"{len(tried)} runs, and {runs} are wanted"] if len(tried) < runs else []),
        *([f"{', '.join(still)} never varied"] if still else ["no knob is declared"] if not knobs else []),
        *(["what was chosen is none of them"] if rank is None else [f"what was chosen is number {rank}"] if rank > top else []),
    ]
    reading = Reading(len(tried), runs, n=len(tried), unit="runs")
    if lacking:
        return warn(f"version {version.version} comes of a search that says too little: {'; '.join(lacking)}", reading)
    return ok(f"version {version.version} is number {rank} of {len(tried)} runs over {', '.join(knobs)}", reading)


@check(pillar="deployment", asks="Is the served artefact safe to load, and what was registered?", severity="ticket", answers=("DEPL-09",))
def artefacts(server: Server, registry: Registry, router: Router | None = None) -> Verdict:
    """Looks at the first bytes of every file of the served version: a format that runs code when it is loaded (pickle, and what holds one) fails,
    whatever its name; so does a file whose sha256 is not the recorded one. A registry that hands over no files warns. Nothing is loaded here.
    """
    version = _lineage.registered(server, registry, router)
    if isinstance(version, Verdict):
        return version
    reach = getattr(registry, "file", None)
    if reach is None or not version.files:
        return warn(f"the registry hands over no files of version {version.version}: what they would do when loaded is not known")
    wrong = []
    for name in version.files:
        try:
            if harm := _lineage.runs_code(reach(version.version, name)):
                wrong.append(f"{name} {harm}")
        except AnswerError as problem:
            wrong.append(str(problem))
    reading = Reading(len(wrong), 0, n=len(version.files), unit="files")
    if wrong:
        return fail(f"{len(wrong)} of {len(version.files)} files of version {version.version}: {'; '.join(wrong[:3])}", reading)
    return ok(f"the {len(version.files)} files of version {version.version} run nothing when loaded, and are what was recorded", reading)
