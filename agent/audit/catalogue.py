"""The fifty questions, read from one file of data and held to its schema."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from agent.errors import ConfigError

Criticality = Literal["blocker", "high", "medium", "low"]
Mode = Literal["automatic", "attested in part", "attested"]
Effort = Literal["S", "M", "L"]
SECTIONS = ("DATA", "MODEL", "DEPL", "MON", "TEAM")
SOURCES = ("server", "registry", "tables", "metrics", "code", "agent", "config")
ALWAYS = frozenset({"agent", "config"})  # attached wherever there is an agent
WEIGHTS: Mapping[Criticality, float] = {"blocker": 10.0, "high": 7.5, "medium": 5.0, "low": 2.5}
FAILURES = ("skew", "pipeline", "drift", "retraining", "rollback", "owner")
DEBTS = (
    "boundary erosion",
    "entanglement",
    "hidden feedback loops",
    "undeclared consumers",
    "data dependencies",
    "configuration",
    "changes in the world",
    "system anti-patterns",
)
OTHER_DEBTS = ("data testing", "reproducibility", "process management", "culture")
ML_TEST_SCORE = tuple(f"{section}{number}" for section in "DMIN" for number in range(1, 8))


@dataclass(frozen=True, slots=True)
class Item:
    """One question: what it asks, what answers it, what counts as what, how long an answer holds, and what it stands for."""

    id: str
    question: str
    criticality: Criticality
    mode: Mode
    needs: tuple[frozenset[str], ...]  # alternatives: any one of them attached will do
    evidence: str
    passes: str
    partial: str
    fails: str
    fresh: int  # days
    versioned: bool  # void once another version is served
    failures: tuple[str, ...]
    ml_test_score: tuple[str, ...]
    debt: tuple[str, ...]
    ai_act: tuple[str, ...]
    nist: tuple[str, ...]
    effort: Effort

    @property
    def section(self) -> str:
        return self.id.partition("-")[0]

    @property
    def weight(self) -> float:
        return WEIGHTS[self.criticality]

    def within(self, attached: frozenset[str]) -> bool:
        """Whether what is attached can answer it."""
        return any(need <= attached | ALWAYS for need in self.needs)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All questions by id, in their order, and the digest that says which catalogue a report was made by."""

    version: int
    items: Mapping[str, Item]
    digest: str


@cache
def catalogue() -> Catalogue:
    """The catalogue that comes with Watchkeeper."""
    return read(resources.files("agent.audit").joinpath("catalogue.toml").read_bytes())


def read(data: bytes) -> Catalogue:
    """A catalogue from its text; ConfigError names the item and the key that is wrong."""
    try:
        body = tomllib.loads(data.decode())
        items = {name: _item(name, one) for name, one in body["items"].items()}
        return Catalogue(int(body["version"]), items, hashlib.sha256(data).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ConfigError(f"the audit's catalogue cannot be read: {problem}") from problem


WORDS = {"passes": "pass", "fails": "fail"}  # what a field is called in the file, where Python has the word


def _item(name: str, body: Mapping[str, Any]) -> Item:
    wanted = {WORDS.get(f.name, f.name) for f in fields(Item)} - {"id"}
    if set(body) != wanted:
        raise ValueError(f"{name}: {', '.join(sorted(set(body) ^ wanted))} is missing or too much")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in body.items()}
    values["needs"] = tuple(frozenset(need) for need in body["needs"])
    given: dict[str, Any] = {f.name: values[WORDS.get(f.name, f.name)] for f in fields(Item) if f.name != "id"}
    item = Item(id=name, **given)
    for key, known in (("criticality", get_args(Criticality)), ("mode", get_args(Mode)), ("effort", get_args(Effort))):
        _among(name, key, (getattr(item, key),), known)
    _among(name, "section", (item.section,), SECTIONS)
    _among(name, "needs", (source for need in item.needs for source in need), SOURCES)
    _among(name, "failures", item.failures, FAILURES)
    _among(name, "ml_test_score", item.ml_test_score, ML_TEST_SCORE)
    _among(name, "debt", item.debt, DEBTS + OTHER_DEBTS)
    if not (isinstance(item.fresh, int) and item.fresh > 0 and item.needs):
        raise ValueError(f"{name}: fresh and needs must say something")
    return item


def _among(name: str, key: str, given: Any, known: tuple[str, ...]) -> None:
    for word in given:
        if word not in known:
            raise ValueError(f"{name}: {key} is '{word}', and there is {', '.join(known)}")
