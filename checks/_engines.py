"""Models as a profiler needs them: opened under a setting, asked a batch, and able to say what each operator took."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from agent import Artefact, bounded
from agent.errors import ArtefactError, CannotError, DataError

COLD, PROFILED = 3, 20  # runs that are passed over, and those whose operators are told
LENGTH = 16  # of axes that may have any, where rows are made up


@dataclass(frozen=True, slots=True)
class Setting:
    """How a runtime computes: threads within an operator, operators side by side, whether idle threads spin, how far the graph is rewritten."""

    threads: int = 1
    beside: int = 1
    spinning: bool = True
    level: str = "all"

    def told(self, base: Setting) -> str:
        """How it differs from `base`, in words."""
        parts = [f"{self.threads} thread{'s' if self.threads > 1 else ''}"] if self.threads != base.threads else []
        parts += [f"{self.beside} operators side by side"] if self.beside != base.beside else []
        parts += ["idle threads that sleep"] if self.spinning != base.spinning else []
        return ", ".join([*parts, *([f"graph optimisation {self.level}"] if self.level != base.level else [])]) or "as it is"


@dataclass(frozen=True, slots=True)
class Operators:
    """Microseconds by kind of operator and by operator, and those of a run as a whole: the middle ones of the profiled runs."""

    kinds: Mapping[str, float]
    nodes: Mapping[str, tuple[str, float]]
    whole: float

    @property
    def between(self) -> float:
        """What a run took besides: handing over, and waiting."""
        return max(0.0, self.whole - sum(self.kinds.values()))


class Engine(Protocol):
    """A model under one runtime."""

    runtime: str
    fixed: int | None  # the only batch it takes, where there is but one

    def made_up(self, rows: int) -> Mapping[str, Any]:
        """Rows of the kinds that it takes, always the same."""
        ...

    def taken(self, columns: Mapping[str, Any], features: Sequence[str]) -> Mapping[str, Any]:
        """These rows as what it takes. DataError where they do not fit."""
        ...

    def settings(self, base: Setting) -> Sequence[Setting]:
        """Other ways to compute that may be faster."""
        ...

    def opened(self, setting: Setting) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
        """What answers a batch. ArtefactError where it cannot be opened."""
        ...

    def operators(self, setting: Setting, fed: Mapping[str, Any], scratch: Path) -> Operators:
        """Where the time of a few runs went."""
        ...


def threads() -> Sequence[int]:
    """Numbers of threads worth trying here: one, doubled, up to the processors that this process may use."""
    most = len(os.sched_getaffinity(0))
    return sorted({1, most, *(2**n for n in range(1, 6) if 2**n < most)})


def tiled(fed: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    """So many rows, the same ones again where there are too few."""
    import numpy as np

    have = len(next(iter(fed.values())))
    return {name: value[np.arange(size) % have] for name, value in fed.items()}


def side_by_side(columns: Mapping[str, Any], features: Sequence[str]) -> Any:
    """The features in their order, all columns where none are named, as numbers of shape [rows, features]. DataError where they are none."""
    import numpy as np

    names = list(features) or list(columns)
    if missing := [name for name in names if name not in columns]:
        raise DataError(f"the rows have no column '{missing[0]}'; there is {', '.join(columns)}")
    try:
        return np.stack([np.asarray(columns[name], dtype=np.float64) for name in names], axis=1)
    except (TypeError, ValueError) as problem:
        raise DataError("the model takes numbers side by side, and a column holds text; name the columns with features") from problem


class Onnx:
    """An admitted graph under onnxruntime's CPU provider."""

    runtime = "onnxruntime"

    def __init__(self, artefact: Artefact, memory: int) -> None:
        try:
            import onnxruntime  # noqa: F401
        except ImportError as problem:
            raise CannotError("onnxruntime is not installed; install watchkeeper[onnx]") from problem
        self._path, self._memory = artefact.path, memory
        self._inputs = self._session(Setting()).get_inputs()
        if not self._inputs:
            raise DataError(f"{self._path} takes nothing, so there is nothing to ask it")
        firsts = {one.shape[0] for one in self._inputs if one.shape and isinstance(one.shape[0], int) and one.shape[0] > 0}
        self.fixed = next(iter(firsts), None)

    def made_up(self, rows: int) -> Mapping[str, Any]:
        return {one.name: _random(one, rows) for one in self._inputs}

    def taken(self, columns: Mapping[str, Any], features: Sequence[str]) -> Mapping[str, Any]:
        from checks._onnx import UnlikeError, feed

        named = dict(columns)
        if len(self._inputs) == 1 and self._inputs[0].name not in named:
            named = {self._inputs[0].name: side_by_side(columns, features)}
        try:
            fed = feed(self._inputs, {name: value.tolist() if hasattr(value, "tolist") else value for name, value in named.items()})
        except UnlikeError as problem:
            raise DataError(str(problem).replace("the request has", "the rows have")) from problem
        if fed is None:
            raise DataError(f"the rows do not fit the graph, which takes {', '.join(f'{one.name}: {one.type} {one.shape}' for one in self._inputs)}")
        return fed

    def settings(self, base: Setting) -> Sequence[Setting]:
        many = [replace(base, threads=count) for count in threads() if count != base.threads]
        sleepy = [replace(one, spinning=False) for one in (base, *many) if one.threads > 1]
        return [*many, *sleepy, *([replace(base, beside=2)] if len(threads()) > 1 else []), replace(base, level="basic")]

    def opened(self, setting: Setting) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
        session = self._session(setting)
        return lambda fed: self._asked(session, fed)

    def operators(self, setting: Setting, fed: Mapping[str, Any], scratch: Path) -> Operators:
        session = self._session(setting, scratch / "profile")
        for _ in range(COLD + PROFILED):
            self._asked(session, fed)
        path = Path(session.end_profiling())
        try:
            return read(json.loads(path.read_text(encoding="utf-8")), COLD)
        finally:
            path.unlink(missing_ok=True)

    def _session(self, setting: Setting, profile: Path | None = None) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, setting.beside
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if setting.beside > 1 else ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{setting.level.upper()}")
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if setting.spinning else "0")
        options.add_session_config_entry("session.force_spinning_stop", "1")  # after a run: it would take processors from the session timed next
        options.log_severity_level = 4  # what goes wrong is raised
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        try:
            with bounded(self._memory):
                return ort.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])
        except Exception as problem:
            if _starved(problem):
                raise ArtefactError(f"{self._path} does not load in {self._memory:,} bytes; allow it more memory") from problem
            raise ArtefactError(f"{self._path} is no graph that this runtime can run ({str(problem)[:300]})") from problem

    def _asked(self, session: Any, fed: Mapping[str, Any]) -> Sequence[Any]:
        try:
            with bounded(self._memory):
                return list(session.run(None, dict(fed)))
        except Exception as problem:
            if _starved(problem):
                raise DataError(f"the graph does not run in {self._memory:,} bytes; allow it more memory, or smaller batches") from problem
            raise DataError(f"the graph fails on these rows: {str(problem)[:300]}") from problem


def _starved(problem: Exception) -> bool:
    """Whether memory was too little; the runtime has a word of its own for it."""
    return isinstance(problem, MemoryError) or "alloc" in str(problem).lower()


def read(events: Sequence[Mapping[str, Any]], cold: int = 0) -> Operators:
    """What onnxruntime's profile holds: an event for each kernel, and one for each run, of which the first `cold` are passed over."""
    runs = [(event["ts"], event["dur"]) for event in events if event.get("cat") == "Session" and event["name"] == "model_run"]
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    return middle(sorted(runs)[cold:], _alone(kernels))


def _alone(kernels: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, str, str, float]]:
    """When each kernel began, its operator and kind, and its own microseconds: without those of kernels inside it, as a loop has them."""
    rising = sorted(kernels, key=lambda one: (one["tid"], one["ts"], -one["dur"]))
    own, around = [float(one["dur"]) for one in rising], list[int]()
    for place, one in enumerate(rising):
        while around and not _within(one, rising[around[-1]]):
            around.pop()
        if around:
            own[around[-1]] -= one["dur"]
        around.append(place)
    for one, took in zip(rising, own, strict=True):
        yield one["ts"], one["name"].removesuffix("_kernel_time"), str(one["args"].get("op_name", "?")), max(0.0, took)


def _within(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """By its beginning alone: whole microseconds make an end look later than that of what it lies in."""
    return bool(one["tid"] == other["tid"] and one["ts"] < other["ts"] + other["dur"])


def middle(runs: Sequence[tuple[float, float]], kernels: Iterable[tuple[float, str, str, float]]) -> Operators:
    """Each operator's middle time over the runs (beginning, microseconds): one that was held up for milliseconds in one of them takes no more by it.

    What began before the first run is left out.
    """
    begun, kinds, took = [begin for begin, _ in runs], dict[str, str](), dict[str, list[float]]()
    for begin, node, kind, own in kernels:
        if (place := bisect_right(begun, begin) - 1) >= 0:
            kinds[node] = kind
            took.setdefault(node, [0.0] * len(runs))[place] += own
    nodes = {node: (kinds[node], median(each)) for node, each in took.items()}
    of = {kind: sum(own for other, own in nodes.values() if other == kind) for kind in dict.fromkeys(kinds.values())}
    return Operators(of, nodes, max(median(whole for _, whole in runs), sum(of.values())))


def _random(one: Any, rows: int) -> Any:
    """Normal numbers, whole ones from 0 to 1, or a letter, in the shape of one input."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = [rows, *(size if isinstance(size, int) and size > 0 else LENGTH for size in one.shape[1:])]
    word = one.type.removeprefix("tensor(").removesuffix(")")
    if word == "string":
        return np.full(shape, "a", dtype=object)
    kind = np.dtype({"float": "float32", "double": "float64"}.get(word, word))
    return rng.normal(size=shape).astype(kind) if kind.kind == "f" else rng.integers(0, 2, size=shape).astype(kind)
