"""Every error Watchkeeper raises on purpose; each says what, where and the next move.

WatchkeeperError
  ConfigError            bad configuration; carries every problem found, exit code 2
  PluginError            a check, runbook or adapter is missing, broken or clashes
  TargetError            a target did not give what was asked of it
    UnreachableError       no connection: refused, reset, no route
      NameLookupError        the host name did not resolve (in time)
      UnconnectedError       nobody took the connection, so nothing was asked
    DeadlineError          the total deadline passed
    TrustError             TLS: expired, wrong host, unknown issuer
    DeniedError            401 or 403: this credential may not do that
    AnswerError            an answer came, but not one the protocol allows
      ServerError            the target itself says it is broken (HTTP 5xx)
    CannotError            the adapter cannot do this on this target
    BusyError              another load test has it at the moment
  DataError              a table cannot be read as declared (missing column, file, type)
  ArtefactError          a model file must not be opened: damaged, not what was registered, or able to do more than hold a model
  TrainingError          a trainer did not make what it says, or what was asked
  StoreError             the store could not take or give rows
    StoreBusyError         another process holds it
    StoreFullError         no room, or read-only
    LeadLostError          another process leads the store now; this one writes and does nothing more
    StoreSchemaError       made by a newer Watchkeeper, exit code 4
    StoreCorruptError      the file fails its integrity check, exit code 4
  WorkerError            a worker process died or spoke nonsense
  PlanError              a plan was refused while planning; nothing was done
  LeaseLostError         another agent holds the role this run was writing to
  CancelledError         the caller asked to stop
"""

from __future__ import annotations

from collections.abc import Sequence


class WatchkeeperError(Exception):
    """The root: catch this to catch everything raised on purpose."""

    exit_code = 3


class ConfigError(WatchkeeperError):
    """The configuration cannot be used; `problems` holds one line for each thing wrong."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class PluginError(WatchkeeperError):
    """A check, runbook or adapter is missing, does not import, or two packages claim its name."""

    exit_code = 2


class TargetError(WatchkeeperError):
    """A target did not give what was asked of it."""


class UnreachableError(TargetError):
    """No connection could be made, or it broke before an answer was complete."""


class NameLookupError(UnreachableError):
    """The host name did not resolve; says nothing about the model behind it."""


class UnconnectedError(UnreachableError):
    """No connection could be made: nothing was sent, and nothing can have come of it."""


class DeadlineError(TargetError):
    """The total time given to the whole exchange passed."""


class TrustError(TargetError):
    """The TLS certificate is expired, for another host, or from an unknown issuer."""


class DeniedError(TargetError):
    """The target refused this credential (401, 403)."""


class AnswerError(TargetError):
    """An answer came that the protocol does not allow: status, content type, JSON, size or shape.

    `status` is the HTTP status where there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ServerError(AnswerError):
    """The target itself says that it is broken (HTTP 5xx)."""


class CannotError(TargetError):
    """The adapter cannot do this on this target; refused while planning, never half done."""


class BusyError(TargetError):
    """Another load test has the target at the moment, or none can be kept from having it; this one was not begun."""


class DataError(WatchkeeperError):
    """A table cannot be read as it was declared: no such file or column, or another type."""


class ArtefactError(WatchkeeperError):
    """A model file must not be opened: it is damaged, is not what was registered, or could do more than hold a model."""


class TrainingError(WatchkeeperError):
    """A trainer did not make what its manifest says, or not what it was asked for."""


class StoreError(WatchkeeperError):
    """The store could not take or give rows."""


class StoreBusyError(StoreError):
    """Another process holds the store."""


class StoreFullError(StoreError):
    """No room is left for the store, or it is read-only."""


class LeadLostError(StoreError):
    """Another process leads the store since this one did not renew its lead in time; nothing is read, written or done any more."""


class StoreSchemaError(StoreError):
    """The store was made by a newer Watchkeeper."""

    exit_code = 4


class StoreCorruptError(StoreError):
    """The store fails its integrity check."""

    exit_code = 4


class WorkerError(WatchkeeperError):
    """A worker process died or spoke nonsense, or none was free in time; the job it had was not done."""


class PlanError(WatchkeeperError):
    """A plan was refused while planning; nothing was done."""


class LeaseLostError(WatchkeeperError):
    """Another agent now holds the role this run was writing to; the write was not made."""


class CancelledError(WatchkeeperError):
    """The caller asked to stop."""
