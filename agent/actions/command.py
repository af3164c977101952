"""A command: a list of words, no shell, an environment of its own; one that may be repeated, and one that may not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from agent.actions.own import Outcome, Own, kept
from agent.config.filled import Filling
from agent.config.shape import Shape
from agent.config.steps import COMMAND, CommandStep, Verb
from agent.errors import AnswerError, UnreachableError
from agent.model import Json
from agent.targets import _programs
from agent.wire import remaining

PRINTED = 500  # characters of what it printed that are kept
ABSENT = 1  # how a look says that it is certainly not done


class Command(Own):
    """`{argv, env, inherit, keep, look, undo}`: run in the folder of the configuration, and killed with all it started when the step's time is over.

    Exit status 0 says it was done and 75 that nothing was; any other says nothing of how far it came. `keep`: dotted fields of the JSON it prints.
    """

    __slots__ = ()
    verb: ClassVar[Verb] = COMMAND
    shape: ClassVar[type[Shape]] = CommandStep

    def act(self, args: Mapping[str, Json], fill: Filling) -> Outcome:
        try:
            ran = self._ran(args, args["argv"], fill)
        except UnreachableError as problem:  # it could not be started
            return Outcome(False, str(problem), {})
        said = f"{args['argv'][0]} ended with exit status {ran.code}" + (f": {ran.told}" if ran.told else "")
        if ran.code:
            return Outcome(False, said, {}) if ran.code == _programs.MOVED else Outcome(None, said, {})
        return Outcome(True, said, self._given({} if args.get("look") else args.get("keep") or {}, ran))

    def see(self, args: Mapping[str, Json], fill: Filling) -> Outcome:
        ran = self._ran(args, args["look"], fill)
        said = f"{args['look'][0]} ended with exit status {ran.code}" + (f": {ran.told}" if ran.told else "")
        done = {0: True, ABSENT: False}.get(ran.code)
        return Outcome(done, said, self._given((args.get("keep") or {}) if done and not args.get("gone") else {}, ran))

    def back(self, args: Mapping[str, Json]) -> Mapping[str, Json]:
        return {"argv": args["undo"], **{key: args[key] for key in ("env", "inherit") if key in args}}

    def _ran(self, args: Mapping[str, Json], argv: Json, fill: Filling) -> _programs.Ran:
        where = f"{self.service.name}, {argv[0]}"
        extra = {name: fill(str(text)) for name, text in (args.get("env") or {}).items()}
        env = _programs.environment(args.get("inherit") or [], extra, where)
        return _programs.run(_programs.words(argv, where), fill.folder, env, remaining() or 0.0, where)

    def _given(self, names: Mapping[str, str], ran: _programs.Ran) -> Mapping[str, Json]:
        given = {"printed": ran.out.strip()[:PRINTED]}
        if not names:
            return given
        try:
            return {**given, **kept(names, json.loads(ran.out), "what it printed")}
        except ValueError as problem:
            raise AnswerError(f"what it printed is no JSON ({problem}), and {', '.join(names)} should be kept of it") from problem


class Once(Command):
    """`command.run`: never run twice."""

    __slots__ = ()


class Ensure(Command):
    """`command.ensure`: a command that may be run again, as what it does is the same however often."""

    __slots__ = ()
    repeatable: ClassVar[bool] = True
