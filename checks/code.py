"""Whether the code behind the served version is what was reviewed, tested, locked and deployed, and what its model card says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

from agent import Code, Commit, ModelVersion, Reading, Registry, Router, Server, Verdict, check, fail, nodata, ok, spell, warn
from checks import _code, _lineage


def _made_by(server: Server, registry: Registry, router: Router | None, code: Code) -> tuple[ModelVersion, Commit] | Verdict:
    """The served version and the commit that trained it, or what to say where there is none of them."""
    version = _lineage.registered(server, registry, router)
    if isinstance(version, Verdict):
        return version
    name = _lineage.commit(version)
    if name is None:
        return fail(f"version {version.version} does not record which commit it was trained by; pass lineage={{'commit': ...}} to record()")
    found = code.commit(name)
    if found is None:
        return fail(f"version {version.version} was trained by commit {name}, which the repository does not hold")
    return version, found


@check(pillar="training", asks="Was the exact training code reviewed and merged?", severity="ticket", answers=("MODEL-02",))
def reviewed(server: Server, registry: Registry, code: Code, router: Router | None = None) -> Verdict:
    """The commit that trained the served version must be clean, on the branch that counts, and looked over by somebody who did not write it: who
    merged it, or who is named in its Reviewed-by, Approved-by or Acked-by. On the branch, and nobody else named: that warns. Dirty, missing, not
    merged: fails.
    """
    made = _made_by(server, registry, router, code)
    if isinstance(made, Verdict):
        return made
    version, commit = made
    if version.lineage.get("dirty"):
        return fail(f"version {version.version} was trained from commit {commit.id[:12]} with changes that nobody committed")
    merge = code.merged(commit.id)
    if merge is None:
        return fail(f"commit {commit.id[:12]}, which trained version {version.version}, is not on branch {code.branch}")
    others = _code.others(commit, merge)
    told = f"commit {commit.id[:12]} of {commit.author.partition(' <')[0]} trained version {version.version} and is on {code.branch}"
    if not others:
        return warn(f"{told}; that somebody else looked it over is not written down")
    return ok(f"{told}, looked over by {' and '.join(others)}")


@check(pillar="training", asks="Is the environment pinned, and the same in training and serving?", severity="ticket", answers=("MODEL-04",))
def pinned(
    server: Server, registry: Registry, code: Code, router: Router | None = None, *, lock: str = "requirements.txt", serving: str | None = None
) -> Verdict:
    """Reads the `lock` that the served version was trained with, as of its commit, and that of what `serving`s it (the same, where none is named) as
    of the branch. Each package must be pinned to one version, and be the same in both down to the minor version, else it fails; without hashes it
    warns. A sha256 of the lock that the lineage records as `environment` must be that of the lock.
    """
    made = _made_by(server, registry, router, code)
    if isinstance(made, Verdict):
        return made
    version, commit = made
    text, there = code.read(lock, commit.id), code.read(serving or lock)
    for name, body in ((lock, text), (serving or lock, there)):
        if body is None:
            return fail(f"there is no {name} in commit {commit.id[:12]} or on {code.branch}: nothing says what was installed")
    trained, serves = _code.packages(text or b""), _code.packages(there or b"")
    loose = [name for name, one in {**serves, **trained}.items() if one is None]
    recorded = version.lineage.get("environment")
    wrong = [
        *([f"{len(loose)} packages are not pinned to one version, such as {loose[0]}"] if loose else []),
        *([f"{lock} locks nothing"] if not trained else []),
        *([f"version {version.version} was trained in another environment than {lock} says"] if _code.differs(recorded, text or b"") else []),
        *_code.apart(trained, serves),
    ]
    reading = Reading(len(wrong), 0, n=len(trained), unit="packages")
    if wrong:
        return fail("; ".join(wrong), reading)
    if not (_code.hashed(text or b"") and _code.hashed(there or b"")):
        return warn(f"the {len(trained)} packages of version {version.version} are pinned, and have no hashes", reading)
    return ok(f"the {len(trained)} packages of version {version.version} are pinned with their hashes, and the same where it serves", reading)


@check(pillar="deployment", asks="Were its tests green on the served commit?", severity="ticket", answers=("DEPL-02",))
def tested(
    server: Server,
    registry: Registry,
    code: Code,
    router: Router | None = None,
    *,
    results: str = "results/{commit}.xml",
    kinds: Mapping[str, str] = {"features": "*feature*", "model": "*model*", "end_to_end": "*end_to_end*"},
) -> Verdict:
    """Reads the JUnit file of the commit that trained the served version, where CI left it: `results`, a path on the branch with {commit} in it.

    `kinds` are patterns that the class names of three kinds of tests match. All three there and green is ok; two warn, and so do the results of an
    ancestor, at most ten commits back; fewer, or a red one, fail.
    """
    made = _made_by(server, registry, router, code)
    if isinstance(made, Verdict):
        return made
    version, commit = made
    found, back = _code.results(code, commit, results)
    if found is None:
        return fail(f"there are no results of the tests of commit {commit.id[:12]} at {results}")
    counts = _code.by_kind(found, kinds)
    red = [kind for kind, (_, bad) in counts.items() if bad]
    green = [kind for kind, (n, bad) in counts.items() if n and not bad]
    reading = Reading(len(green), 3, n=sum(n for n, _ in counts.values()), unit="kinds of tests")
    told = f"of commit {commit.id[:12]}" if not back else f"of an ancestor of commit {commit.id[:12]}, {back} back"
    words = ", ".join(f"{kind} {n - bad} of {n}" for kind, (n, bad) in counts.items())
    if red or len(green) < 2:
        return fail(f"the tests {told}, which trained version {version.version}: {words}", reading)
    return (ok if len(green) == len(counts) and not back else warn)(f"the tests {told} are green: {words}", reading)


@check(pillar="deployment", asks="Is what runs what the repository says, and changed only by those who may?", severity="ticket", answers=("DEPL-10",))
def deployed(code: Code, now: datetime, server: Server | None = None, *, files: Sequence[str] = (), actors: Sequence[str] = ()) -> Verdict:
    """The checkout that is deployed from must have `files` (all, where none are named) as the branch has them, and whoever committed to the branch in
    30 days must be among `actors`, by name or address. A difference with a commit of a day at hand warns; any other, or an unknown actor, fails.
    """
    changed, recent = list(code.changed(files)), list(code.commits(now - timedelta(days=30)))
    strangers = sorted({one.author for one in recent if not _code.known(one.author, actors)})
    reading = Reading(len(changed), 0, n=len(recent), unit="files")
    if strangers:
        return fail(f"{', '.join(strangers[:3])} changed {code.branch} in 30 days and may not, as far as `actors` says", reading)
    if changed:
        fresh = any(now - one.at <= timedelta(days=1) for one in recent)
        told = f"{len(changed)} files are deployed otherwise than {code.branch} has them: {', '.join(changed[:3])}"
        return warn(f"{told}; it was changed within a day", reading) if fresh else fail(told, reading)
    return ok(f"what is deployed is {code.branch}, changed in 30 days by {len({one.author for one in recent})} people who may", reading)


@check(pillar="training", asks="How long does a change take from its commit to being registered?", severity="ticket", answers=("TEAM-06",))
def lead_time(
    registry: Registry, code: Code, now: datetime, *, limit: timedelta = timedelta(days=14), last: timedelta = timedelta(days=90)
) -> Verdict:
    """The median, over the versions registered in `last`, of the time from the commit that trained each to its registration: above `limit` warns,
    above twice that fails.
    """
    recent = [one for one in registry.versions() if one.registered_at >= now - last]
    took = [one.registered_at - commit.at for one in recent if (commit := _commit(code, registry, one)) is not None]
    if not took:
        return nodata(f"none of {len(recent)} versions of {spell(last)} records a commit that the repository holds")
    middle = timedelta(seconds=median(one.total_seconds() for one in took))
    told = f"{spell(middle)} from commit to registration, the median of {len(took)} versions of {spell(last)}"
    reading = Reading(middle.total_seconds(), limit.total_seconds(), n=len(took), unit="s")
    return ok(told, reading) if middle <= limit else warn(told, reading) if middle <= 2 * limit else fail(told, reading)


def _commit(code: Code, registry: Registry, version: ModelVersion) -> Commit | None:
    """A registry may list versions without what their runs say, so that each is asked for by itself."""
    whole = registry.version(version.version) or version
    name = _lineage.commit(whole)
    return code.commit(name) if name else None


@check(pillar="deployment", asks="Does the model card describe the served version, with true numbers?", severity="ticket", answers=("TEAM-08",))
def card(
    server: Server,
    registry: Registry,
    code: Code,
    router: Router | None = None,
    *,
    path: str = "MODEL_CARD.md",
    sections: Sequence[str] = _code.SECTIONS,
    within: float = 0.005,
) -> Verdict:
    """Reads the card on the branch: it must have all `sections` (Mitchell et al. 2019), name the served version, and give each metric of its lineage
    with the recorded value, to `within`. A card of an earlier registered version warns; none, a missing section, or another number fails.
    """
    version = _lineage.registered(server, registry, router)
    if isinstance(version, Verdict):
        return version
    body = code.read(path)
    if body is None:
        return fail(f"there is no {path} on {code.branch}: nobody says what the model is for")
    text = body.decode("utf-8", "replace")
    lacking = [one for one in sections if not _code.headed(text, one)]
    if lacking:
        return fail(f"{path} has no section {', '.join(lacking)}", Reading(len(lacking), 0, n=len(sections), unit="sections"))
    if not _code.names(text, version.version):
        earlier = [one.version for one in registry.versions() if _code.names(text, one.version)]
        told = f"{path} does not name version {version.version}, which serves"
        return warn(f"{told}, but {', '.join(earlier)}") if earlier else fail(told)
    wrong = _code.untrue(text, version.lineage.get("metrics"), within)
    if wrong:
        return fail(f"{path} and the record of version {version.version} differ: {'; '.join(wrong)}", Reading(len(wrong), 0, unit="numbers"))
    return ok(f"{path} describes version {version.version}, with all {len(sections)} sections and the numbers of its record")
