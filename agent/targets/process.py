"""What runs a server, restarted by a team's own command: `systemctl`, `docker`, `kubectl rollout restart`, a supervisor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from agent import Absent, Done, Json, Locator, Look, Pending, Try, adapter
from agent.errors import AnswerError, ConfigError, ServerError
from agent.targets import _programs, _shapes
from agent.wire import remaining

OPTIONS = ("restart", "started", "ready", "env", "inherit")
AGAIN = timedelta(milliseconds=200)  # between looks at a server that is starting


@adapter(role="process", schemes=("command",))
class Process:
    """`command:FOLDER`, where the commands are run: `.` is the folder of the configuration.

    `restart`: the command that restarts the server. `started`: one that prints what is another after each start, such as a time or a number of a
    process: only that proves a restart. `ready`: one that ends with 0 when the server is up again; without it another start is enough. All are
    lists of words; no shell is asked. `env` and `inherit` as for a router's command.
    """

    can: frozenset[str] = frozenset()

    def __init__(self, at: Locator) -> None:
        self._at, self._where, given = at, f"{at.service}.{at.role}", _shapes.options(at, OPTIONS)
        if at.look is not None or at.act is not None:
            raise ConfigError(f"{self._where}: a command takes no credential; give it what it needs by `env:` or `inherit:`")
        self._folder = Path(at.folder, at.address or ".")
        self._again, self._started = (_programs.words(given.get(option), f"{self._where}.{option}") for option in ("restart", "started"))
        self._up = _programs.words(given["ready"], f"{self._where}.ready") if "ready" in given else None
        self._env = _programs.environment(given.get("inherit", []), given.get("env", {}), self._where)

    @property
    def restart(self) -> Restart:
        """Restarts it, once: it is done when it has started anew and is ready."""
        return Restart(self)

    def started(self) -> str:
        """What `started` prints; AnswerError when that is nothing."""
        said = self._said(self._started).strip()
        if not said:
            raise AnswerError(f"{self._where}.started: {self._started[0]} printed nothing, so a restart could not be told; is the server running?")
        return said

    def ready(self) -> bool:
        """Whether it is up, as far as `ready` can tell."""
        return self._up is None or self._run(self._up).code == 0

    def again(self) -> None:
        """Runs `restart`."""
        self._said(self._again)

    def close(self) -> None:
        """Nothing is kept open."""

    def _said(self, words: Sequence[str]) -> str:
        ran = self._run(words)
        if ran.code:
            raise ServerError(f"{self._where}: {words[0]} ended with exit status {ran.code}: {ran.told}", 500)
        return ran.out

    def _run(self, words: Sequence[str]) -> _programs.Ran:
        left = remaining()
        return _programs.run(words, self._folder, self._env, self._at.within.total_seconds() if left is None else left, self._where)


@dataclass(frozen=True, slots=True)
class Restart:
    """The action that restarts a server. It cannot be taken back, and is not repeated: a second one would cut short what the first began."""

    process: Process
    writes: bool = True
    repeatable: bool = False
    lasts: bool = True
    takes: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset({"from", "to"})

    def before(self, args: Mapping[str, Json]) -> Json:
        return self.process.started()

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        now = self.process.started()
        if now == t.before:
            return Pending(AGAIN, "it has not started anew yet") if t.number else Absent("it was not restarted")
        if not self.process.ready():
            return Pending(AGAIN, "it has started anew, and is not ready yet")
        return Done({"from": t.before, "to": now}, f"it was restarted, and is ready ({now[:80]})")

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        self.process.again()

    def undo(self, args: Mapping[str, Json], before: Json, output: Json) -> Mapping[str, Json] | None:
        return None
