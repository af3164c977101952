"""A run within a run: the child has a plan, a permission and an end of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from agent.actions.looks import Looking
from agent.errors import PlanError
from agent.model import Absent, Done, Failed, Json, Look, Pending, Try
from agent.store import Ledger
from agent.world import mode_of

AGAIN = timedelta(seconds=30)  # an answer wakes the run; this is for when that was lost


@dataclass(frozen=True, slots=True)
class Child(Looking):
    """`run.child {runbook, parameters}`: another runbook on the same service, waited for to its end.

    It is planned when the step is reached and asks for its own permission: by the mode of that runbook, but where a person began the parent, at least
    `approve`. Not an effect of its parent, which takes nothing of it back: a child that fails has taken back what it did.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"runbook", "parameters"})
    gives: ClassVar[frozenset[str]] = frozenset({"run", "said"})

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        with self.world.store.read() as ledger:
            child = ledger.child(t.key)
        if child is None:
            return Absent(f"{args['runbook']} was not asked for yet")
        if child.active:
            return Pending(AGAIN, f"run {child.id} ({child.runbook}) is {child.state}" + (f": {child.said}" if child.said else ""))
        said = f"run {child.id} ({child.runbook}) {child.state}: {child.said}"
        return Done({"run": child.id, "said": child.said}, said) if child.state == "succeeded" else Failed(said)

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        self.world.store.write(lambda ledger: self._want(ledger, args, t), durable=True)

    def _want(self, ledger: Ledger, args: Mapping[str, Json], t: Try) -> None:
        parent = ledger.run(t.run)
        assert parent is not None
        if not parent.active:  # it was called off or superseded meanwhile: nobody waits for a child
            return
        mode = mode_of(self.service, args["runbook"])
        run, new = ledger.want(
            runbook=args["runbook"],
            service=self.service.name,
            mode="approve" if parent.approvals and mode != "auto" else mode,
            by=parent.by,
            reason=f"{parent.runbook}, run {parent.id}",
            wanted_at=self.world.clock(),
            incident=parent.incident,
            parameters=dict(args.get("parameters") or {}),
            parent=t.key,
        )
        if not new and run.parent != t.key:
            raise PlanError(f"{run.runbook} is under way as run {run.id}, which this run did not ask for")
        ledger.record(self.world.clock(), "run.wanted", f"{run.runbook} wanted by run {parent.id}", service=run.service, run=run.id)
