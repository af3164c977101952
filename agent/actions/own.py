"""Steps of a team's own: a request, a command, a statement. What came of a try is written down by the process that made it, right after it."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from agent.actions.lent import BEFORE
from agent.actions.looks import SOON
from agent.config import ServiceConfig
from agent.config.filled import Filling
from agent.config.shape import Shape
from agent.config.steps import Verb, wrong
from agent.errors import AnswerError, ConfigError, PlanError, WatchkeeperError
from agent.model import Absent, Done, Failed, Json, Look, Pending, Try, Unknown
from agent.store import Ledger
from agent.targets._shapes import pick
from agent.wire import deadline
from agent.world import World

KIND = "step.outcome"
MOST = 10_000  # outcomes of one run that are read
KEPT = 2**16  # bytes as JSON that a step may keep of an answer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a try came to, or what a look saw: yes, no, or nobody knows; in a sentence, and with the fields it gives."""

    done: bool | None
    said: str
    output: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Own:
    """A step that changes what only the team knows how to look at.

    With a `look` only that says whether it is done, and what was taken gets until the end of its time to show. Without one, what the process that
    tried wrote down says it; where nothing was written down, as after a crash in between, it may or may not have happened. Each such step stands
    for itself when a run is taken back: `undo` is done where the step was, or where it may be repeated and nobody knows.
    """

    verb: ClassVar[Verb]
    shape: ClassVar[type[Shape]]
    repeatable: ClassVar[bool] = False
    writes: ClassVar[bool] = True
    folds: ClassVar[bool] = False
    world: World
    service: ServiceConfig

    @property
    def takes(self) -> frozenset[str]:
        return self.verb.takes or frozenset()

    @property
    def gives(self) -> frozenset[str]:
        return self.verb.gives or frozenset()

    def wrong(self, args: Mapping[str, Json]) -> str:
        """What no world could make right in these args; empty when nothing is."""
        return wrong(self.shape, args)

    @abstractmethod
    def act(self, args: Mapping[str, Json], fill: Filling) -> Outcome:
        """Have the effect, and say what came of it: False only where it has certainly not happened. A WatchkeeperError is None."""

    @abstractmethod
    def see(self, args: Mapping[str, Json], fill: Filling) -> Outcome:
        """What the step's `look` shows: True when it is done, False when it certainly is not."""

    @abstractmethod
    def back(self, args: Mapping[str, Json]) -> Mapping[str, Json]:
        """The args of the step that `undo` means."""

    def before(self, args: Mapping[str, Json]) -> Json:
        if problem := self.wrong(args):
            raise PlanError(problem)
        return None

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        told = self._told(t)
        if args.get("look") is None:
            return self._by_record(told, t)
        seen = self._seen(args)
        there = not seen.done if args.get("gone") and seen.done is not None else seen.done
        if there:
            return Done(self._output(seen), seen.said)
        if there is None:
            return Unknown(seen.said)
        if told is None or told.done is None or t.leaving:
            return Absent(seen.said)
        if told.done:
            return Pending(SOON, f"{told.said}, and not to be seen yet: {seen.said}")
        return Absent(told.said) if self.repeatable else Failed(told.said)

    def _by_record(self, told: Outcome | None, t: Try) -> Look:
        if told is not None and told.done:
            return Done(self._output(told), told.said)
        if told is not None and told.done is False:
            return Absent(told.said) if self.repeatable or t.leaving else Failed(told.said)
        said = told.said if told else "nobody wrote down what came of it" if t.number or t.leaving else "not done yet"
        if t.leaving:
            return Done({}, said) if self.repeatable else Failed(f"{said}; it may or may not have happened")
        return Absent(said)  # the engine does not repeat what may not be repeated, and says that it may have happened

    def _seen(self, args: Mapping[str, Json]) -> Outcome:
        fill = Filling(self.world.config.folder)
        with deadline(BEFORE):
            return self._came(fill, lambda: self.see(args, fill), None)

    def _output(self, outcome: Outcome) -> Mapping[str, Json]:
        return {**dict.fromkeys(self.gives), **outcome.output}

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        fill = Filling(self.world.config.folder)
        with deadline(max(t.deadline - self.world.clock(), timedelta(milliseconds=50))):
            outcome = self._came(fill, lambda: self.act(args, fill), False)
        self.world.store.write(lambda ledger: self._note(ledger, outcome, t), durable=True)

    def undo(self, args: Mapping[str, Json], before: Json, output: Json) -> Mapping[str, Json] | None:
        if args.get("undo") is None:
            return None
        back = dict(self.back(args))
        if args.get("look") is not None and back.get("look") is None:
            back |= {"look": args["look"], "gone": True}
        return back

    def _came(self, fill: Filling, call: Callable[[], Outcome], unfit: bool | None) -> Outcome:
        """What a call came to, with nothing in it that was filled in; `unfit` where it could not even be made."""
        try:
            found = call()
        except ConfigError as problem:
            found = Outcome(unfit, str(problem), {})
        except (WatchkeeperError, ValueError, TypeError) as problem:  # what an earlier step gave may be anything
            found = Outcome(None, str(problem), {})
        return Outcome(found.done, fill.hidden(found.said), _hidden(found.output, fill))

    def _note(self, ledger: Ledger, outcome: Outcome, t: Try) -> None:
        body = {"step": t.step, "number": t.number, "done": outcome.done, "said": outcome.said, "output": outcome.output}
        ledger.record(self.world.clock(), KIND, f"{t.step}: {outcome.said}", service=self.service.name, run=t.run, body=body)

    def _told(self, t: Try) -> Outcome | None:
        """What was written down of this try; of the last one of the step, where it is about to be taken back."""
        step = t.step.removeprefix("undo ") if t.leaving else t.step
        with self.world.store.read() as ledger:
            bodies = [event.body for event in ledger.events(KIND, run=t.run, limit=MOST) if event.body.get("step") == step]
        body = next((body for body in bodies if t.leaving or body["number"] == t.number), None)
        return None if body is None else Outcome(body["done"], body["said"], body["output"])


def _hidden(value: Json, fill: Filling) -> Json:
    if isinstance(value, Mapping):
        return {fill.hidden(str(key)): _hidden(item, fill) for key, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item, fill) for item in value]
    return fill.hidden(value) if isinstance(value, str) else value


def kept(names: Mapping[str, str], body: Json, where: str) -> dict[str, Json]:
    """The fields of an answer that a step keeps, by name; AnswerError where it has not one of them, or they are too much for the record."""
    found = {name: pick(body, field, where) for name, field in names.items()}
    if (size := len(json.dumps(found))) > KEPT:
        raise AnswerError(f"{where}: what should be kept of the answer is {size:,} bytes as JSON, and may be {KEPT:,}")
    return found
