"""Whether a record or a bundle holds: the same three verdicts for both, and the anchors to hold them to."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from agent import _proof
from agent.audit import verify
from agent.audit.verify import Anchor, Unreadable, Verdict
from agent.config import Config
from agent.errors import ConfigError, StoreCorruptError, UnreachableError
from agent.store import Ledger

EXITS = {verify.ANCHORED: 0, verify.LOOSE: 3, verify.BROKEN: 4, verify.MISMATCH: 4, verify.UNREADABLE: 4}  # in the one table of all commands


def of_bundle(place: Path, anchors: Sequence[Anchor]) -> Verdict:
    """The verdicts on a bundle, as its own verify.py gives them. StoreCorruptError: it cannot be read."""
    try:
        return verify.verified(verify.opened(place), anchors)
    except Unreadable as problem:
        raise StoreCorruptError(str(problem)) from problem


def of_record(ledger: Ledger, anchors: Sequence[Anchor], config: Config | None = None) -> Verdict:
    """The verdicts on the store itself. With the configuration: whether that is the one the agent last wrote down to have used.

    StoreCorruptError: something in it is not even of the kind that the agent writes.
    """
    try:
        return _of_record(ledger, anchors, config)
    except (ValueError, TypeError, KeyError, LookupError, AttributeError) as problem:
        raise StoreCorruptError(f"the record cannot be read: a row of it is not of the kind that the agent writes ({problem!r:.200})") from problem


def _of_record(ledger: Ledger, anchors: Sequence[Anchor], config: Config | None) -> Verdict:
    chain = verify.walk(ledger.chain(), *ledger.chain_start())
    verdict = Verdict(links=chain.length, anchors=len(anchors))
    verdict.integrity = [*_proof.broken(ledger), *ledger.misdated(), *_edited(ledger, config)]
    verdict.completeness, verdict.loose = verify.anchored(chain, anchors)
    verdict.notes.append(f"the longest time without a link is {chain.silence}")
    return verdict


def _edited(ledger: Ledger, config: Config | None) -> list[str]:
    sealed = next((event for event in ledger.events("change.config", limit=1)), None)
    if config is None or sealed is None or sealed.body.get("digest") == config.digest:
        return []
    at = f"{sealed.at:%Y-%m-%d %H:%M:%S}Z"
    return [f"the configuration is not the one that the agent wrote down at {at}: it was edited, and the agent has not taken that up"]


def must_be_record(place: Path) -> None:
    """StoreCorruptError for a file that is no store: opening one for reading must not make it one."""
    try:
        with closing(sqlite3.connect(f"{place.resolve().as_uri()}?mode=ro", uri=True)) as conn:
            named = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as problem:
        raise StoreCorruptError(f"{place} is neither a bundle nor a store: {problem}") from problem
    if not {"evidence", "event", "finding"} <= named:
        raise StoreCorruptError(f"{place} is a database, and no store of Watchkeeper")


def anchors_of(url: str | None, match: str, noted: Sequence[str]) -> list[Anchor]:
    """The anchors in a Prometheus, and those that somebody wrote down. UnreachableError: it tells none. ConfigError: what is written is none."""
    try:
        written = [*map(verify.noted, noted)]
    except Unreadable as problem:
        raise ConfigError(str(problem)) from problem
    try:
        return [*(verify.prometheus(url, match) if url else ()), *written]
    except Unreadable as problem:
        raise UnreachableError(str(problem)) from problem
