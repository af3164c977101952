"""What the torch trainer may be told: the parameters of its job, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent import Json, duration
from agent.errors import ConfigError

Share = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """The parameters of a job; everything but `factory` and `label` has a default."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    factory: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]  # module:function, which gives an untrained torch.nn.Module
    label: str
    features: tuple[str, ...] = ()  # in the order the net takes them; all other columns where it is left out
    classes: tuple[str, ...] = ()  # what the net's outputs are of, in their order
    task: str | None = None  # a column of whole numbers that tells distinct tasks apart
    time: str | None = None  # a column that says when a row came about
    strategy: str = "replay"
    settings: Mapping[str, Any] = Field(default_factory=dict, alias="with")  # of the strategy
    epochs: Annotated[int, Field(ge=1)] = 10
    batch: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0)] = 0.05
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: Share = 0.0
    held_out: Share = 0.1  # of each table: not learned, but measured on
    golden: Annotated[int, Field(ge=0, le=256)] = 20  # held-out rows that are handed in with the net's answers
    patience: Annotated[int, Field(ge=1)] | None = None  # epochs without a better held-out loss before a task is taken to be learned
    keep: str | None = None  # how long the buffer keeps a row, counted back from the newest row, by `time`
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    threads: Annotated[int, Field(ge=1)] = 1
    resume: bool = True


def settings(given: Mapping[str, Json]) -> Settings:
    """The parameters as they are used; ConfigError with a line for everything that is wrong."""
    try:
        found = Settings.model_validate(_tuples(given))
    except ValidationError as problem:
        raise ConfigError([f"parameters.{_place(one['loc'])}: {_said(one)}" for one in problem.errors()]) from problem
    wrong = [] if found.patience is None or found.held_out else ["parameters.patience: nothing is held out to be patient about; give held_out"]
    if found.keep is not None:
        wrong += [] if found.time else ["parameters.keep: say with `time` which column tells how old a row is"]
        try:
            duration(found.keep)
        except ValueError as problem:
            wrong.append(f"parameters.keep: {problem}")
    if wrong:
        raise ConfigError(wrong)
    return found


def _tuples(given: Mapping[str, Json]) -> dict[str, Any]:
    """JSON knows lists only."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(map(str, loc))


def _said(one: Any) -> str:
    if one["type"] == "extra_forbidden":
        from difflib import get_close_matches

        near = get_close_matches(str(one["loc"][-1]), [*Settings.model_fields, "with"], 1)
        return "unknown parameter" + (f"; did you mean '{near[0]}'?" if near else "")
    return f"{one['msg'][0].lower()}{one['msg'][1:]}"
