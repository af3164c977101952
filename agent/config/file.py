"""The shape of a whole configuration: its top level, and the runbooks it writes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from agent.config import steps
from agent.config.shape import AuditFile, Budget, Freeze, HeartbeatFile, NotifyFile, Retention, ServiceFile, Shape
from agent.config.words import Address, CauseName, Flag, ServiceName, Shorthand, SomeLength, Whole, named, text_as
from agent.model import Json


class ParameterFile(Shape):
    """What whoever starts a runbook may give; without a default it must be given."""

    type: Literal["text", "number", "integer", "boolean", "duration"]
    default: Json = None


def _typed(value: Json) -> Json:
    """A default by itself says of what type it is."""
    kinds = {bool: "boolean", int: "integer", float: "number", str: "text"}
    kind = next((word for made, word in kinds.items() if isinstance(value, made)), None)
    return {"type": kind, "default": value} if kind else value


_DEFAULT: Mapping[str, Json] = {"type": ["string", "number", "boolean"], "title": "Its default"}
ParameterName = Annotated[str, named(r"[a-z_][a-z0-9_]*", "small letters, digits and _")]
StepName = Annotated[str, named(r"[A-Za-z0-9][A-Za-z0-9_-]*", "letters, digits, - and _")]


class StepFile(Shape):
    """One action, in a short form or as role.verb of a target with its args; and what holds for every step."""

    model_config = ConfigDict(extra="allow")

    name: StepName | None = None
    within: Annotated[SomeLength, steps.Lending()] | None = None
    otherwise: Literal["undo", "stop", "go on"] = "undo"
    unseen: Literal["undo", "stop"] | None = None
    why: str = ""
    http: steps.Http | None = None
    command: steps.Command | None = None
    sql: steps.SqlStep | None = None
    wait: steps.Wait | None = None
    check: steps.Look | None = None
    hold: steps.HoldStep | None = None
    notify: steps.Notify | None = None
    approve: steps.Approve | None = None
    run: steps.Child | None = None


STEP_KEYS = frozenset(("name", "within", "otherwise", "unseen", "why"))


class PlanFile(Shape):
    """A runbook that is written out: its steps, one after the other."""

    asks: Annotated[str, Field(min_length=1)]
    cures: list[CauseName] = Field([])
    promotes: Flag = False
    parameters: dict[ParameterName, Annotated[ParameterFile, Shorthand(_typed, _DEFAULT)]] = Field({})
    steps: Annotated[list[StepFile], Field(min_length=1, max_length=200)]


class File(Shape):
    """watchkeeper.yaml"""

    team: str | None = None
    store: str = "watchkeeper.db"
    listen: Address = "127.0.0.1:8420"
    token: Annotated[str, Field(min_length=8)] | None = None
    heartbeat: Annotated[HeartbeatFile, text_as("url")] | None = None
    notify: NotifyFile = NotifyFile()
    workers: Annotated[Whole, Field(ge=1, le=256)] = 2
    retention: Retention = Retention()
    budget: Budget = Budget()
    audit: AuditFile | None = None
    freeze: list[Freeze] = Field([])
    runbooks: dict[ServiceName, PlanFile] = Field({})
    services: dict[ServiceName, ServiceFile]
