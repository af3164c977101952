"""Telling people, and asking them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar

from agent.actions.looks import Looking
from agent.errors import PlanError
from agent.model import Absent, Done, Failed, Json, Look, Pending, Run, Try, speakable
from agent.plugins import suggest
from agent.store import Ledger

AGAIN = timedelta(seconds=30)  # an answer wakes the run; this is for when that was lost
LONGEST = 2000  # characters of what is told


class Send(Looking):
    """`notify.send {text, channel}`: a letter, to the owner of the service where no channel is named. Sent at least once, under one key."""

    __slots__ = ()
    takes: ClassVar[frozenset[str]] = frozenset({"text", "channel"})
    gives: ClassVar[frozenset[str]] = frozenset({"channels"})

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        channels = self._channels(args)
        with self.world.store.read() as ledger:
            written = all(ledger.posted(t.key, channel) for channel in channels)
        return Done({"channels": channels}, f"told {' and '.join(channels)}") if written else Absent("not written yet")

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        text = speakable(str(args["text"]))[:LONGEST]
        self.world.store.write(lambda ledger: self._post(ledger, self._channels(args), text, t), durable=True)

    def _channels(self, args: Mapping[str, Json]) -> list[str]:
        name = args.get("channel")
        if name is not None and name not in self.world.channels:
            raise PlanError(f"there is no channel '{name}'{suggest(str(name), self.world.channels)}")
        found = [str(name)] if name is not None else self.world.line(self.service)[:1]
        if not found:
            raise PlanError("there is nobody to tell: no channel is configured")
        return found

    def _post(self, ledger: Ledger, channels: list[str], text: str, t: Try) -> None:
        now, name = self.world.clock(), self.service.name
        body = {"service": name, "run": t.run, "what": t.step, "severity": "ticket", "state": "told", "title": text, "text": text, "at": now}
        for channel in channels:
            ledger.post(t.key, channel, f"[{name}] {text}", body, now)


class Approve(Send):
    """`person.approve {ask, by, two}`: a named person says yes to this step (`watchkeeper runbook approve RUN --by NAME`), or nothing goes on.

    `by` are the names that count, everybody's when it is left out; `two`: two different people must. The step fails when its time is over.
    """

    __slots__ = ()
    takes: ClassVar[frozenset[str]] = frozenset({"ask", "by", "two"})
    gives: ClassVar[frozenset[str]] = frozenset({"by"})

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        with self.world.store.read() as ledger:
            run, asked = ledger.run(t.run), all(ledger.posted(t.key, channel) for channel in self.world.line(self.service)[:1])
        assert run is not None
        names, wanted = _names(run, t.step, args.get("by")), 2 if args.get("two") else 1
        if len(names) >= wanted:
            return Done({"by": names}, f"approved by {' and '.join(names)}")
        if not run.active:
            return Failed("the run is over")
        said = f"waits for {'another' if names else 'a'} person: {args['ask']}; watchkeeper runbook approve {t.run} --by NAME"
        return Pending(min(AGAIN, t.deadline - self.world.clock()), said) if asked else Absent(said)

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        text = f"run {t.run} of {self.service.name} asks: {args['ask']}; watchkeeper runbook approve {t.run} --by NAME"
        self.world.store.write(lambda ledger: self._post(ledger, self.world.line(self.service)[:1], speakable(text)[:LONGEST], t), durable=True)


def _names(run: Run, step: str, among: Json) -> list[str]:
    given = dict.fromkeys(one.by for one in run.approvals if one.step == step)
    return [name for name in given if not among or name in among]
