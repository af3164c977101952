"""An audit with everything it takes to check it, in one file that is the same every time it is made from the same record."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from agent.audit import verify
from agent.audit.canonical import canonical, digest
from agent.audit.identifiers import found
from agent.audit.pages import page
from agent.audit.schema import schema
from agent.config import Config
from agent.errors import DataError
from agent.model import Json, to_json
from agent.store import Ledger

DIGESTS = ("chain.jsonl", "anchors.json", "verify.py")  # files of ours that hold digests, whose digits pass for card numbers by chance
MOST = 20  # places of an identifier that are told


def bundle(config: Config, ledger: Ledger, report: Mapping[str, Json], anchors: Sequence[verify.Anchor] = ()) -> bytes:
    """The bundle of a report that was made from this snapshot. DataError names each place where an identifier would leave with it."""
    files = dict(_files(config, ledger, report, anchors))
    leaks = list(found({name: body for name, body in files.items() if name not in DIGESTS}, _people(config, report)))
    if leaks:
        more = [f"and in {len(leaks) - MOST} more places"] if len(leaks) > MOST else []
        raise DataError("\n".join(["the bundle would tell of people, and is not written:", *leaks[:MOST], *more]))
    after, before = ledger.chain_start()
    manifest = {
        "format": verify.FORMAT,
        "as_of": report["as_of"],
        "services": [one["service"] for one in report["services"]],
        "audit": digest(report),
        "chain": {"after": after, "link": before},
        "files": {name: hashlib.sha256(body).hexdigest() for name, body in files.items()},
        "verify": "python verify.py --prometheus URL, in the unpacked folder",
    }
    return _packed({"manifest.json": canonical(manifest), **files})


def _files(config: Config, ledger: Ledger, report: Mapping[str, Json], anchors: Sequence[verify.Anchor]) -> Iterator[tuple[str, bytes]]:
    yield "audit.json", canonical(report)
    yield "audit.html", page(report).encode("utf-8", "replace")
    yield "schema.json", schema()
    yield "catalogue.toml", resources.files("agent.audit").joinpath("catalogue.toml").read_bytes()
    yield "verify.py", resources.files("agent.audit").joinpath("verify.py").read_bytes()
    yield "config.json", canonical(_config(config, [one["service"] for one in report["services"]]))
    yield "accepted.json", canonical(_accepted(report))
    yield "anchors.json", canonical([to_json(one) for one in anchors])
    rows = list(ledger.chain())
    yield "chain.jsonl", b"".join(_line(row) for row in rows)
    links = {one["link"] for item in _items(report) for one in item["evidence"]}
    yield from _bodies(ledger, [(row["kind"], row["ref"]) for row in rows if row["seq"] in links])


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(to_json(dict(row)), sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _config(config: Config, services: Collection[str]) -> dict[str, Json]:
    """The configuration in force, defaults filled in, secrets as they are written; of the services only those that are audited."""
    told = config.describe()
    return {**told, "services": {name: one for name, one in told["services"].items() if name in services}, "digest": config.digest}


def _items(report: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    return ({**item, "service": one["service"]} for one in report["services"] for item in one["readiness"]["items"])


def _accepted(report: Mapping[str, Json]) -> list[dict[str, Json]]:
    """What people stand for: attestations and waivers, by service and question."""
    words = ("service", "item", "attestation", "waiver")
    return [{word: item[word] for word in words} for item in _items(report) if item["attestation"] or item["waiver"]]


def _bodies(ledger: Ledger, sealed: Sequence[tuple[str, int]]) -> Iterator[tuple[str, bytes]]:
    """What the answers rest on and the chain seals, each exactly as it was sealed, so that its own sha256 is that of its link."""
    for kind, ref in sealed:
        body = ledger.sealed(kind, ref)
        if body is not None:
            text = json.dumps(to_json(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            yield f"evidence/{kind}-{ref}.json", text.encode("utf-8", "surrogatepass")


def _people(config: Config, report: Mapping[str, Json]) -> set[str]:
    """Who may be named: those who answer for a service, and those who acted on it and were written down for that."""
    named = {name for one in config.services.values() for name in (one.owner, *one.escalation) if name} | set(config.notify.channels)
    acted = {run["by"] for one in report["services"] for run in one["runs"]}
    acted |= {incident["acknowledged_by"] for one in report["services"] for incident in one["incidents"]}
    return named | {name for name in acted if name}


def _packed(files: Mapping[str, bytes]) -> bytes:
    """A tar of files in the order of their names, with no time, owner or machine in it, compressed likewise."""
    out = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", mtime=0, filename="", compresslevel=6) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(files):
            about = tarfile.TarInfo(f"{name}")
            about.size, about.mode = len(files[name]), 0o644
            tar.addfile(about, io.BytesIO(files[name]))
    return out.getvalue()
