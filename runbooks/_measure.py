"""One job's measurements: the variants made, asked and timed beside the graph they come from."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import DataError, WatchkeeperError
from agent.stats import interleaved
from runbooks._choose import PLAIN, Measured
from runbooks._feeds import Feed, Rows, batch, feeds
from runbooks._graph import Graph, prepare
from runbooks._layers import Layer, layers, named
from runbooks._quality import Kind, Quality, compare, kind_of, unsound
from runbooks._runtime import Answers, answers, asked, opened, taken
from runbooks._settings import Settings
from runbooks._variants import Variant, quiet, sensible

SAME = 60.0  # dB: a prepared graph must answer like the original, but for the order of sums
SMALL = 16  # rows of a calibration run: all that flows through the graph is kept meanwhile


@dataclass(frozen=True, slots=True)
class Found:
    """All that was seen in one job. `broken` are variants that could not be made or asked, by name with the reason."""

    plain: Measured
    variants: Sequence[Measured]
    why: Mapping[str, str]
    broken: Mapping[str, str]
    untried: Mapping[str, str]
    layers: Sequence[Layer]
    memory: Mapping[str, int | None]
    kind: Kind
    rows: tuple[int, int]  # that calibrated, that were compared


@dataclass
class Measuring:
    """Makes and measures the variants of one graph, in a folder of its own."""

    graph: Graph
    given: Settings
    scratch: Path
    tell: Callable[[float, str], None]
    _sessions: dict[str, Any] = field(default_factory=dict)
    _files: dict[str, Path] = field(default_factory=dict)

    def take(self, calibration: Rows, calibrating: Sequence[int], evaluation: Rows, evaluating: Sequence[int]) -> None:
        """The rows that it works with. DataError where they do not fit the graph, or the graph itself does not answer them with numbers."""
        self._open(PLAIN, self.graph.path)
        inputs, size = self._sessions[PLAIN].get_inputs(), self.graph.batch
        self._fed = list(feeds(inputs, evaluation, evaluating, exactly=size))
        self._calibration = list(feeds(inputs, calibration, calibrating, SMALL, size))
        if not self._fed or not self._calibration:
            raise DataError(f"the graph takes exactly {size} rows at once, and there are fewer")
        places = [place for one in self._fed for place in one.places]
        self._truth = None if evaluation.truth is None else evaluation.truth[places]
        self._batches = {size: batch(inputs, evaluation, evaluating, size) for size in ((size,) if size else self.given.batches)}
        self._rows = (sum(len(one.places) for one in self._calibration), len(places))
        self._plain = self._answers(PLAIN)
        if bad := unsound(self._plain):
            raise DataError(f"{self.graph.path} itself answers {bad} of {len(places)} rows with something that is no number; nothing can be compared")
        self._kind = kind_of(self._plain, classes=bool(self.given.classes) or self._truth is not None)

    def all(self) -> Found:
        """Makes every variant that is sensible, and measures all of them beside each other."""
        self.tell(0.05, "finding what suffers most")
        source = self._prepared()
        try:
            found = layers(source, self._calibration, self.given.memory)
        except WatchkeeperError:
            found = []  # a graph that cannot be taken apart is quantized as a whole
        tried, untried = sensible(self.graph, found, self._calibration, self.given.device)
        qualities, broken = {PLAIN: self._quality(PLAIN)}, dict[str, str]()
        for n, one in enumerate(tried):
            self.tell(0.1 + 0.4 * n / len(tried), f"making {one.name}")
            try:
                qualities[one.name] = self._made(one, source)
            except WatchkeeperError as problem:
                broken[one.name] = str(problem)
        plain, *variants = self._timed(qualities)
        self.tell(0.9, "measuring memory")
        return Found(plain, variants, {one.name: one.why for one in tried}, broken, untried, found, self._memory(), self._kind, self._rows)

    def path(self, name: str) -> Path:
        """The file of a variant."""
        return self._files[name]

    # One after the other

    def _open(self, name: str, path: Path) -> None:
        self._sessions[name] = opened(path, self.given.threads, self.given.memory, self.given.device)
        self._files[name] = path

    def _answers(self, name: str) -> Answers:
        return answers(self._sessions[name], self._fed, self.given.memory, self.given.output)

    def _quality(self, name: str) -> Quality:
        theirs = self._plain if name == PLAIN else self._answers(name)
        return compare(self._plain, theirs, self._kind, self._truth, self.given.classes)

    def _prepared(self) -> Path:
        """The graph as quantizers like it, or, where that would answer otherwise or cannot be made, as it is; each node with a name."""
        import onnx

        path = self.scratch / "prepared.onnx"
        try:
            with quiet():
                prepare(self.graph, path)
            self._open("prepared", path)
            if compare(self._plain, self._answers("prepared"), self._kind).fidelity < SAME:
                raise DataError("the prepared graph answers otherwise")
        except Exception:  # noqa: BLE001 - the preparation is a convenience, and what it raises is onnxruntime's own
            onnx.save(onnx.load(str(self.graph.path)), str(path))
        self._sessions.pop("prepared", None)
        self._files.pop("prepared", None)
        model = onnx.load(str(path))
        if any(not node.name for node in model.graph.node):
            onnx.save(named(model), str(path))
        return path

    def _made(self, one: Variant, source: Path) -> Quality:
        """A variant's file, and how it answers. DataError says why there is none, or none that answers."""
        path = self.scratch / f"{len(self._files)}.onnx"
        try:
            one.make(source, path)  # without a bound on memory: beyond one, protobuf ends the process instead of raising anything
        except MemoryError as problem:
            raise DataError("memory ran out while it was made") from problem
        except Exception as problem:
            raise DataError(f"it cannot be made ({type(problem).__name__}: {str(problem)[:200]})") from problem
        try:
            self._open(one.name, path)
            return self._quality(one.name)
        except WatchkeeperError:
            self._sessions.pop(one.name, None)
            self._files.pop(one.name, None)
            raise

    # Beside each other

    def _timed(self, qualities: Mapping[str, Quality]) -> list[Measured]:
        times: dict[int, dict[str, list[float]]] = {}
        for n, (size, one) in enumerate(self._batches.items()):
            self.tell(0.5 + 0.4 * n / len(self._batches), f"timing {len(qualities)} at batch {size}")
            runs = {name: self._run(name, one) for name in qualities}
            times[size] = interleaved(runs, self.given.rounds, self.given.seconds)
        sizes = {name: self.graph.size if name == PLAIN else _bytes(self._files[name]) for name in qualities}
        return [Measured(name, sizes[name], {size: times[size][name] for size in times}, quality) for name, quality in qualities.items()]

    def _run(self, name: str, one: Feed) -> Callable[[], object]:
        session, fed = self._sessions[name], dict(one.values)
        asked(session, one, self.given.memory)
        return lambda: session.run(None, fed)

    def _memory(self) -> dict[str, int | None]:
        """Of each at its largest batch, in a process of its own; not where strings cannot be written down."""
        import numpy as np

        largest = self._batches[max(self._batches)].values
        if any(value.dtype.kind == "O" for value in largest.values()):
            return dict.fromkeys(self._sessions)
        kept = self.scratch / "batch.npz"
        np.savez(kept, **largest)
        return {name: taken(self._files[name], kept, self.given.threads, self.given.device) for name in self._sessions}


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def machine() -> str:
    """What the times were taken on, in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
