"""A model of torch, or of any code that answers arrays: its weights in a file, run in a process of its own on the rows of a table."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from math import prod
from pathlib import Path
from typing import IO, Any

from agent import Artefact, Locator, Predicted, adapter, admit
from agent.errors import ArtefactError, CannotError, ConfigError, DataError, DeadlineError, WatchkeeperError
from agent.targets import _models, _programs, _shapes
from agent.wire import remaining

OPTIONS = (*_models.OPTIONS, "factory", "shape", "sha256", "memory", "trust", "inherit")
MEMORY = 4 * 2**30  # bytes that loading and running it may take
LONGEST = 600.0  # seconds that loading, or one run, may take where no deadline is nearer
HEAD = 2**16  # bytes that describe an answer
TYPES = frozenset({"<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8"})


@adapter(role="model", schemes=("safetensors", "torch"), heavy=True)
class Torch:
    """`safetensors:models/7/weights.safetensors` or `torch:models/7/weights.pt`, with `factory: module:function`, found beside the configuration or
    installed. A factory that needs no argument makes a torch module, into which the weights are loaded; one that takes the weights, arrays by name,
    gives what is called with rows. `torch:` also runs TorchScript and exported programs (.pt2), with `trust: true` and `sha256`, and no factory.

    `features`, `classes`, `output` as of `onnx`; `shape`: of one row, [1, 28, 28], where it is not a list of features; `sha256`: of the file that was
    registered; `memory`: bytes it may take; `inherit`: names of our environment that the process sees beside PATH, HOME, LANG and TZ.
    """

    can: frozenset[str] = frozenset({"scores"})

    def __init__(self, at: Locator) -> None:
        given, self._where = _shapes.options(at, OPTIONS), f"{at.service}.{at.role}"
        self._path, self._folder = Path(at.folder, at.address), Path(at.folder).resolve()
        self._shape, self._safe = _models.Shape.of(at), at.scheme == "safetensors"
        self._sha256, self._trust, self._factory = given.get("sha256"), given.get("trust") is True, given.get("factory")
        self._memory, self._row = int(given.get("memory") or MEMORY), given.get("shape") or [None]
        self._env = _programs.environment(given.get("inherit") or [], {}, self._where)
        self._process: subprocess.Popen[bytes] | None = None
        self._judged()

    def _judged(self) -> None:
        if self._factory is not None and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", str(self._factory)):
            raise ConfigError(f"{self._where}.factory: write module:function, not {self._factory!r:.80}")
        if self._trust and not self._sha256:
            raise ConfigError(f"{self._where}.trust: a file is trusted by its sha256; write `sha256:` beside it")
        if self._factory is None and (self._safe or not self._trust):
            raise ConfigError(f"{self._where}: weights alone are no model; write `factory: module:function`, which makes what they belong to")
        if not isinstance(self._row, list):
            raise ConfigError(f"{self._where}.shape: write the sizes of a row, such as [1, 28, 28], not {self._row!r:.80}")

    @property
    def name(self) -> str:
        """The folder it lies in, as registries name their versions, and the first digits of its sha256."""
        return _models.called(self._path, self._admitted.sha256)

    def predict(self, rows: Mapping[str, Any]) -> Predicted:
        """One answer a row. DataError where a column is missing or is text, where the model fails, dies, or answers with what is no number."""
        return _models.predicted(rows, self._part)

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    @cached_property
    def _admitted(self) -> Artefact:
        found = admit(self._path, sha256=self._sha256, trusted=self._trust, largest=self._memory)
        means = found.format if found.format in ("safetensors", "onnx") else "torch"
        if means != ("safetensors" if self._safe else "torch"):
            raise ArtefactError(f"{self._path} is of another format than was said; write {means}:{self._path} if it is meant to be one")
        if found.format == "torch" and self._factory is None:
            raise ArtefactError(f"{self._path} holds weights, and no model; write `factory: module:function`, which makes what they belong to")
        return found

    def _part(self, rows: Mapping[str, Any], length: int) -> Predicted:
        import numpy as np

        columns = [self._shape.cast(column, np.float32, "rows") for column in self._shape.columns(rows)]
        fed = np.ascontiguousarray(self._shape.shaped(np.stack(columns, axis=1), length, self._row, "rows"))
        process = self._started()
        head = json.dumps({"shape": list(fed.shape)}).encode() + b"\n"
        return self._shape.read(self._exchanged(process, head, fed.tobytes()), length)

    # The process

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            found, house = self._admitted, str(Path(__file__).parents[2])
            words = [sys.executable, "-P", "-m", "agent.targets._torch"]
            env = {**self._env, "PYTHONPATH": house, "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)  # noqa: S603 - ours
            job = {"path": str(found.path), "sha256": found.sha256, "trust": self._trust, "folder": str(self._folder)}
            job |= {"factory": self._factory, "memory": self._memory}
            try:
                self._exchanged(self._process, json.dumps(job).encode() + b"\n")
            except WatchkeeperError:
                self.close()
                raise
        return self._process

    def _exchanged(self, process: subprocess.Popen[bytes], *parts: bytes) -> Mapping[str, Any]:
        assert process.stdin and process.stdout
        with self._timely(process) as timer:
            try:
                for part in parts:
                    process.stdin.write(part)
                process.stdin.flush()
                return dict(self._heard(process.stdout))
            except (OSError, EOFError, ValueError, KeyError, TypeError) as problem:
                raise self._died(process, timer.finished.is_set()) from problem

    def _heard(self, said: IO[bytes]) -> Iterator[tuple[str, Any]]:
        import numpy as np

        line = said.readline(HEAD)
        if not line.endswith(b"\n"):
            raise EOFError
        head = json.loads(line)
        if "refused" in head:
            raise ArtefactError(head["refused"])
        if "error" in head:
            raise DataError(f"{self._where}: {self._path} fails: {head['error']}")
        for one in head["outputs"]:
            size = prod(one["shape"]) * np.dtype(one["type"]).itemsize
            if one["type"] not in TYPES or not 0 <= size <= self._memory:
                raise ValueError(one)
            body = said.read(size)
            if len(body) != size:
                raise EOFError
            yield str(one["name"]), np.frombuffer(body, dtype=one["type"]).reshape(one["shape"])

    @contextmanager
    def _timely(self, process: subprocess.Popen[bytes]) -> Iterator[threading.Timer]:
        """Kill it when the time is over: whoever waits for it then sees it die."""
        left = remaining()
        timer = threading.Timer(LONGEST if left is None else min(left, LONGEST), process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield timer
        finally:
            timer.cancel()

    def _died(self, process: subprocess.Popen[bytes], over: bool) -> Exception:
        process.kill()
        code = process.wait()
        self.close()
        if over:
            return DeadlineError(f"{self._where}: {self._path} was not done in time, and its process was killed")
        how = f"exit status {code}" if code >= 0 else signal.Signals(-code).name
        return CannotError(f"{self._where}: the process of {self._path} died or spoke nonsense ({how}); is `memory` enough for it?")
