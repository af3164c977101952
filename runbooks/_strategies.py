"""The strategies by their names: plain functions, whose keyword-only parameters are what can be set, as with a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, validate_call

from agent.errors import ConfigError
from runbooks._learning import Part
from runbooks._strategies_anchored import Anchors, Distilled
from runbooks._strategies_apart import Columns, Packed, Progressive
from runbooks._strategies_rehearsal import Balance, Dark, Rehearsal

Parts = tuple[Part, ...]
Size = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Fade = Annotated[float, Field(ge=0, le=1)]


def naive() -> Parts:
    """Nothing is done against forgetting: what every other strategy is measured by."""
    return ()


def replay(*, buffer: Size = 1000, balance: Balance = "stream") -> Parts:
    """As many rows of the buffer are learned again beside each batch."""
    return (Rehearsal(buffer, balance),)


def dark(*, buffer: Size = 1000, balance: Balance = "stream", alpha: Weight = 0.5, beta: Weight = 0.5) -> Parts:
    """Replay that also holds the net to what it said of those rows."""
    return (Dark(buffer, balance, alpha, beta),)


def ewc(*, strength: Weight = 100.0, decay: Fade = 1.0, rows: Size = 500) -> Parts:
    """No rows are kept; weights that mattered are held where they were."""
    return (Anchors(strength, decay, rows),)


def ewc_replay(*, buffer: Size = 1000, balance: Balance = "stream", strength: Weight = 10.0, decay: Fade = 1.0, rows: Size = 500) -> Parts:
    """Both: rows of the buffer, and weights that are held."""
    return (*replay(buffer=buffer, balance=balance), *ewc(strength=strength, decay=decay, rows=rows))


def lwf(*, strength: Weight = 1.0, temperature: Annotated[float, Field(gt=0)] = 2.0) -> Parts:
    """No rows are kept; on the new ones the net must still say what it said of them before."""
    return (Distilled(strength, temperature),)


def packnet(*, prune: Share = 0.6, settle_for: Size = 3) -> Parts:
    """Weights of its own for each task, in one net."""
    return (Packed(prune, settle_for),)


def progressive() -> Parts:
    """A column of its own for each task, beside those before."""
    return (Progressive(),)


STRATEGIES: Mapping[str, Callable[..., Parts]] = {
    "naive": naive,
    "replay": replay,
    "der++": dark,
    "ewc": ewc,
    "ewc+replay": ewc_replay,
    "lwf": lwf,
    "packnet": packnet,
    "progressive": progressive,
}
TOLD = frozenset({"packnet", "progressive"})  # those that must be told the task of a row
REHEARSE = frozenset({"replay", "der++", "ewc+replay"})  # those that keep rows


def parts(name: str, given: Mapping[str, Any]) -> Parts:
    """A strategy, as it is set. ConfigError for one that there is not, and for every setting that is wrong."""
    if name not in STRATEGIES:
        raise ConfigError(f"parameters.strategy: there is no strategy {name!r}; there is {', '.join(STRATEGIES)}")
    try:
        return validate_call(config=ConfigDict(strict=True))(STRATEGIES[name])(**given)
    except ValidationError as problem:
        raise ConfigError([f"parameters.with.{'.'.join(map(str, one['loc']))}: {_said(name, one)}" for one in problem.errors()]) from problem


def _said(name: str, one: Any) -> str:
    return f"{name} has no such setting" if "unexpected" in one["type"] else f"{one['msg'][0].lower()}{one['msg'][1:]}"


@dataclass(frozen=True, slots=True)
class Made:
    """A net that has learned nothing, and the parts of the strategy that will teach it."""

    net: Any
    parts: Parts


def made(name: str, given: Mapping[str, Any], factory: Callable[[], Any]) -> Made:
    """The strategy and the net it teaches; progressive makes a column for each task by itself."""
    return Made(Columns(factory) if name == "progressive" else factory(), parts(name, given))
