"""Verifies an audit's bundle, with nothing but Python's standard library: python verify.py BUNDLE [--prometheus URL] [--anchor LINKS:HEAD].

Three verdicts: integrity (nothing inside was changed), completeness (nothing was cut off or slipped in, as far as somebody outside wrote it
down), and vantage (how much rests on what the agent does not own). Exit codes: 0 intact and anchored, 1 intact and not anchored, 2 the chain or what
it seals is broken, 3 a file is not what the manifest says, 4 it cannot be read. It needs Python 3.11 or newer.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

FORMAT = "watchkeeper-audit-bundle/1"
GENESIS = "0" * 64
HEAD = 13  # hexadecimal digits of a link that an anchor holds: 52 bits, which a number in Prometheus keeps exactly
LINKS, HEADS = "watchkeeper_evidence_links", "watchkeeper_evidence_head"
SLACK = timedelta(minutes=5)  # by which two clocks may differ
MOST_FILES, MOST_BYTES = 100_000, 2 * 2**30
MOST_ANSWER, WITHIN = 256 * 2**20, 60.0  # bytes and seconds of one answer of Prometheus
ANCHORED, LOOSE, BROKEN, MISMATCH, UNREADABLE = range(5)


class Unreadable(Exception):
    """What is to be verified, or an anchor of it, cannot be read."""


@dataclass(frozen=True)
class Anchor:
    """What somebody outside wrote down: so many links, and the first 52 bits of the last of them; when that was seen first and last, where known."""

    links: int
    head: int
    place: str
    first_at: datetime | None = None
    last_at: datetime | None = None


@dataclass
class Chain:
    """A chain that was walked: what is wrong with it, the link at each number that an anchor may ask for, and the longest time without a link."""

    start: int = 0
    length: int = 0
    links: dict[int, str] = field(default_factory=dict)
    times: list[tuple[int, str, datetime]] = field(default_factory=list)  # of events: their own time cannot be before they were written
    sealed: dict[tuple[str, int], tuple[str, datetime]] = field(default_factory=dict)  # the digest of each body, and the time its link bears
    problems: list[str] = field(default_factory=list)
    silence: timedelta = timedelta()


@dataclass
class Verdict:
    """The three verdicts. `loose`: so many links at the end are in no anchor; None: there is no anchor."""

    integrity: list[str] = field(default_factory=list)
    completeness: list[str] = field(default_factory=list)
    mismatch: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    links: int = 0
    anchors: int = 0
    loose: int | None = None
    independent: int | None = None  # None: not asked; a record alone rests on nothing
    own: int | None = None

    @property
    def code(self) -> int:
        if self.mismatch:
            return MISMATCH
        if self.integrity or self.completeness:
            return BROKEN
        return LOOSE if self.loose is None else ANCHORED

    def told(self) -> dict[str, Any]:
        """The verdict as plain values."""
        return {
            "integrity": {"holds": not (self.integrity or self.mismatch), "problems": [*self.mismatch, *self.integrity], "links": self.links},
            "completeness": {
                "holds": None if self.loose is None else not self.completeness,
                "problems": self.completeness,
                "anchors": self.anchors,
                "unanchored": self.loose,
            },
            "vantage": {"independent": self.independent, "own": self.own},
            "notes": self.notes,
        }


# The chain


def link(before: str, own: str) -> str:
    """The next link: sha256 over the one before and the digest of what is sealed."""
    return hashlib.sha256(f"{before}{own}".encode()).hexdigest()


def walk(rows: Iterable[Mapping[str, Any]], start: int = 0, before: str = GENESIS) -> Chain:
    """Follow a chain from the link before its first row; rows have seq, at, kind, ref, digest and link."""
    chain = Chain(start, start, {start: before})
    last: datetime | None = None
    for row in rows:
        seq, at = int(row["seq"]), row["at"]
        if seq != chain.length + 1:
            chain.problems.append(f"links {chain.length + 1} to {seq - 1} are missing" if seq > chain.length else f"link {seq} is there twice")
        if row["link"] != link(before, row["digest"]):
            chain.problems.append(f"link {seq} ({row['kind']} {row['ref']}) does not follow from what is before it")
        before, chain.length = row["link"], seq
        chain.links[seq], chain.sealed[row["kind"], int(row["ref"])] = before, (row["digest"], at)
        if row["kind"] == "event":
            chain.times.append((seq, f"event {row['ref']}", at))
        chain.silence, last = max(chain.silence, at - last if last else timedelta()), at
    return chain


def anchored(chain: Chain, anchors: Sequence[Anchor]) -> tuple[list[str], int | None]:
    """What the anchors say against a chain, and how many links at its end none of them holds; None without any."""
    if not anchors:
        return [], None
    problems = [said for one in anchors if (said := _against(chain, one))]
    seen = [(one.first_at, one.last_at, one.links) for one in anchors if one.first_at and one.last_at]
    held = [one.links for one in anchors if not _against(chain, one)]
    return [*problems, *_shrunk(sorted(seen)), *_dated(chain, seen)], chain.length - max(held, default=0)


def _against(chain: Chain, one: Anchor) -> str:
    seen = f"{one.place} saw {one.links} links" + (f" at {_at(one.last_at)}" if one.last_at else "")
    if one.links > chain.length:
        return f"{seen}, and there are {chain.length}: the end was cut off"
    if one.links in chain.links and int(chain.links[one.links][:HEAD], 16) != one.head:
        return f"{seen} that ended otherwise: link {one.links} or one before it was written anew"
    return ""


Seen = tuple[datetime, datetime, int]  # from when to when so many links were seen


def _shrunk(anchors: Sequence[Seen]) -> Iterator[str]:
    most = 0
    for first_at, _, links in anchors:
        if links < most:
            yield f"{links} links were seen at {_at(first_at)}, after {most} had been: an older record was put in its place"
        most = max(most, links)


def _dated(chain: Chain, anchors: Sequence[Seen]) -> Iterator[str]:
    """Events that say they are older than when the chain was last seen without them."""
    order, at, known = sorted(anchors, key=lambda one: one[2]), 0, datetime.min.replace(tzinfo=UTC)
    for seq, name, said in chain.times:
        while at < len(order) and order[at][2] < seq:
            known, at = max(known, order[at][1]), at + 1
        if said + SLACK < known:
            yield f"{name} (link {seq}) says it is of {_at(said)}, and was not there yet at {_at(known)}: it is dated back"


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


# Anchors in Prometheus


def prometheus(url: str, match: str = "", days: int = 30, now: datetime | None = None) -> list[Anchor]:
    """The anchors that a Prometheus has scraped in the last days. Unreadable: it does not answer, or several agents are scraped and none is named."""
    end, found = now or datetime.now(UTC), list[Anchor]()
    for day in range(days):
        at = end - timedelta(days=day)
        pairs = {name: _samples(url, f"{name}{{{match}}}[1d]", at) for name in (LINKS, HEADS)}
        found += _paired(pairs[LINKS], pairs[HEADS], url)
    series = {one.place for one in found}
    if len(series) > 1 and not match:
        raise Unreadable(
            f"{url} scrapes {len(series)} agents ({'; '.join(sorted(series)[:3])}); name one with --match, such as --match 'job=\"watchkeeper\"'"
        )
    return found


def _paired(links: Mapping[str, Mapping[float, float]], heads: Mapping[str, Mapping[float, float]], url: str) -> Iterator[Anchor]:
    shown = urllib.parse.urlsplit(url).hostname or url
    for series, samples in links.items():
        seen: dict[tuple[int, int], tuple[float, float]] = {}
        for at, n in samples.items():
            head = heads.get(series, {}).get(at)
            if head is not None and n > 0:
                first, last = seen.get((int(n), int(head)), (at, at))
                seen[int(n), int(head)] = (min(first, at), max(last, at))
        for (n, head), (first, last) in seen.items():
            yield Anchor(n, head, f"{shown} {series}".strip(), datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC))


def _samples(url: str, query: str, at: datetime) -> dict[str, dict[float, float]]:
    form = urllib.parse.urlencode({"query": query, "time": f"{at.timestamp():.3f}"}).encode()
    body = _asked(url, form)
    try:
        return {_series(one["metric"]): {float(t): float(value) for t, value in one["values"]} for one in body["data"]["result"]}
    except (KeyError, TypeError, ValueError) as problem:
        raise Unreadable(f"{url} does not answer as Prometheus does ({problem!r})") from problem


def _series(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()) if name != "__name__")


def _asked(url: str, form: bytes) -> Any:
    parts = urllib.parse.urlsplit(url)
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/api/v1/query", query="", fragment="").geturl()
    if parts.scheme not in ("http", "https"):
        raise Unreadable(f"{place} is no address of a Prometheus; write http://host:9090")
    asked = urllib.request.Request(place, form)  # noqa: S310 - the scheme was just looked at
    if parts.username:
        user = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        asked.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(asked, timeout=WITHIN) as reply:  # noqa: S310 - as above
            return json.loads(_bounded(reply, place))
    except (OSError, ValueError, RecursionError) as problem:
        raise Unreadable(f"{place} does not tell its anchors: {problem}") from problem


def _bounded(reply: Any, place: str) -> bytes:
    until, kept = time.monotonic() + WITHIN, io.BytesIO()
    while part := reply.read1(2**16):
        kept.write(part)
        if kept.tell() > MOST_ANSWER or time.monotonic() > until:
            raise Unreadable(f"{place} answers for longer than {WITHIN:g} s, or more than {MOST_ANSWER // 2**20} MB")
    return kept.getvalue()


# The bundle


def opened(place: Path) -> dict[str, bytes]:
    """The files of a bundle, packed or unpacked. Unreadable for what is none, and for names that lead out of it."""
    try:
        if place.is_dir():
            return {path.relative_to(place).as_posix(): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
        with tarfile.open(place, "r:gz") as packed:
            return dict(_members(packed))
    except (OSError, EOFError, tarfile.TarError, ValueError) as problem:
        raise Unreadable(f"{place} cannot be read as a bundle: {problem}") from problem


def _members(packed: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    names, size = set[str](), 0
    for one in packed:
        size += one.size
        parts = one.name.split("/")
        if not one.isreg() or one.name in names or one.name.startswith("/") or ".." in parts:
            raise Unreadable(f"the bundle holds {one.name!r:.80}, which is no plain file of its own")
        if len(names) >= MOST_FILES or size > MOST_BYTES:
            raise Unreadable(f"the bundle holds more than {MOST_FILES:,} files, or {MOST_BYTES // 2**30} GB")
        names.add(one.name)
        file = packed.extractfile(one)
        yield one.name, file.read() if file else b""


def verified(files: Mapping[str, bytes], anchors: Sequence[Anchor] = ()) -> Verdict:
    """What is to be said of a bundle's files.

    `anchors` are those of whoever asks, and only they show that it is complete. Those in the bundle are as its maker wrote them: they can speak
    against it, and not for it.
    """
    try:
        manifest, audit = json.loads(files["manifest.json"]), json.loads(files["audit.json"])
        rows = [{**row, "at": datetime.fromisoformat(row["at"])} for row in map(json.loads, files["chain.jsonl"].splitlines())]
        given = [_anchor(one) for one in json.loads(files["anchors.json"])]
        start = manifest["chain"]
        chain = walk(rows, int(start["after"]), str(start["link"]))
        verdict = Verdict(mismatch=list(_differing(manifest, files)), links=chain.length)
        verdict.integrity = [*chain.problems, *_sealed(files, chain), *_told(audit, chain)]
        seen = [one["vantage"] for service in audit["services"] for item in service["readiness"]["items"] for one in item["evidence"]]
        verdict.independent, verdict.own = seen.count("independent"), seen.count("self")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as problem:
        raise Unreadable(f"the bundle is not whole ({problem!r:.200})") from problem
    verdict.completeness, _ = anchored(chain, [*anchors, *given])
    verdict.loose, verdict.anchors = anchored(chain, anchors)[1], len(anchors)
    verdict.notes.append(f"the longest time without a link is {chain.silence}")
    if given and not anchors:
        verdict.notes.append(f"the bundle has {len(given)} anchors as its maker wrote them; hold it to your own")
    return verdict


def _anchor(one: Mapping[str, Any]) -> Anchor:
    first, last = (datetime.fromisoformat(one[word]) if one[word] else None for word in ("first_at", "last_at"))
    return Anchor(int(one["links"]), int(one["head"]), f"{one['place']}, as the bundle has it,", first, last)


def _differing(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Iterator[str]:
    if manifest["format"] != FORMAT:
        raise Unreadable(f"the bundle is of format {manifest['format']!r:.60}, and this reads {FORMAT}")
    named = manifest["files"]
    for name in sorted({*named, *files} - {"manifest.json"}):
        if name not in files or name not in named:
            yield f"{name} is {'missing' if name in named else 'not in the manifest'}"
        elif hashlib.sha256(files[name]).hexdigest() != named[name]:
            yield f"{name} is not what the manifest says"


def _sealed(files: Mapping[str, bytes], chain: Chain) -> Iterator[str]:
    """Bodies in the bundle that are not what the chain seals: evidence/finding-12.json, evidence/event-7.json."""
    for name, body in files.items():
        if name.startswith("evidence/"):
            kind, _, ref = name.removeprefix("evidence/").removesuffix(".json").partition("-")
            held, at = chain.sealed.get((kind, int(ref)), ("", None))
            if held != hashlib.sha256(body).hexdigest():
                yield f"{kind} {ref} is not what was sealed"
            elif datetime.fromisoformat(json.loads(body)["at" if kind == "event" else "looked_at"]) != at:
                yield f"the link of {kind} {ref} does not bear its time"


def _told(audit: Mapping[str, Any], chain: Chain) -> Iterator[str]:
    """Where the audit itself speaks of another chain, or rests on what is not in it."""
    said = audit["evidence"]
    if chain.links.get(said["links"]) != said["last_link"] or said["links"] != chain.length:
        yield f"the audit was made from a chain of {said['links']} links that ended in {said['last_link'][:16]}; this is another"
    if not said["verified"]:
        yield "the audit says itself that its chain did not hold"
    sealed = {held for held, _ in chain.sealed.values()}
    for service in audit["services"]:
        for item in service["readiness"]["items"]:
            for one in item["evidence"]:
                if one["link"] is not None and chain.start < one["link"] and one["digest"] not in sealed:
                    yield f"{service['service']}: {item['item']} rests on {one['locator']}, which is not in the chain as it says"


# As a program


def text(verdict: Verdict) -> str:
    """The verdicts for people."""
    told = verdict.told()
    integrity, completeness, vantage = told["integrity"], told["completeness"], told["vantage"]
    lines = [f"integrity     {'holds' if integrity['holds'] else 'BROKEN'}: {integrity['links']} links"]
    lines += [f"  {problem}" for problem in integrity["problems"][:20]]
    if completeness["holds"] is None:
        lines.append("completeness  cannot be told: there is no anchor, and a chain does not show what was cut off its end; give --prometheus URL")
    else:
        tail = f"{completeness['unanchored']} links at the end are in none of {completeness['anchors']} anchors"
        lines.append(f"completeness  {'holds' if completeness['holds'] else 'BROKEN'}: {tail}")
    lines += [f"  {problem}" for problem in completeness["problems"][:20]]
    if vantage["own"] is None:
        lines.append("vantage       is a matter of an audit: verify its bundle")
    else:
        lines.append(
            f"vantage       {vantage['independent']} pieces of evidence are of what the agent does not own, {vantage['own']} of its own record"
        )
    return "\n".join([*lines, *(f"note          {note}" for note in told["notes"]), ""])


def noted(word: str) -> Anchor:
    """An anchor that was written down by hand, LINKS:HEAD, the head being at least 13 digits of the last link."""
    links, _, head = word.partition(":")
    try:
        return Anchor(int(links), int(head[:HEAD].ljust(HEAD, "?"), 16), "what was written down")
    except ValueError as problem:
        raise Unreadable(f"{word!r:.80} is no anchor; write LINKS:HEAD, such as 812:5bf6e9f420310") from problem


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Verify an audit's bundle.", epilog="Exit codes: 0 anchored, 1 not anchored, 2 broken, 3 manifest, 4 unreadable."
    )
    parser.add_argument("bundle", type=Path, nargs="?", default=Path(__file__).parent)
    parser.add_argument("--prometheus", metavar="URL", help="where the agent's /metrics is scraped")
    parser.add_argument("--match", default="", help='which of the agents scraped there, such as job="watchkeeper"')
    parser.add_argument("--anchor", action="append", default=[], metavar="LINKS:HEAD", help="a length and last link that you wrote down")
    given = parser.parse_args(words)
    try:
        anchors = [noted(word) for word in given.anchor]
        anchors += prometheus(given.prometheus, given.match) if given.prometheus else []
        verdict = verified(opened(given.bundle), anchors)
    except Unreadable as problem:
        sys.stderr.write(f"{problem}\n")
        return UNREADABLE
    sys.stdout.write(text(verdict))
    return verdict.code


if __name__ == "__main__":
    sys.exit(main())
