"""Put everything that tells of an incident into one file, before it is gone."""

from __future__ import annotations

from datetime import timedelta

from agent import Columns, Step, runbook


@runbook(asks="What was known when it happened, in one file that can be checked?")
def snapshot(live: Columns | None = None, *, to: str = "snapshots", rows: int = 0, patience: timedelta = timedelta(minutes=1)) -> tuple[Step, ...]:
    """Writes a ZIP file into the folder `to` (which starts where the configuration lies): the service's incident, findings with their files, events,
    runs, configuration without secrets, versions, shares of traffic, and the SHA-256 of each part. It changes nothing.

    `rows` of the newest live rows go in as well, at most 1,000, without what the table excludes: none unless asked for, for they may be about people.
    `patience` is how long each step may take.
    """
    sample = {"check": "sample", "with": {"rows": rows}, "every": "10s"}
    newest = Step("rows", "check.hold", sample, patience, "go on", f"the {rows} newest rows, which may be about people")
    return (
        *([newest] if live is not None and rows else []),
        Step("write", "incident.bundle", {"to": to}, patience, "stop", f"one file, in {to}"),
    )
