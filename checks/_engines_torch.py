"""A torch module as a profiler needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import DataError
from checks._engines import COLD, PROFILED, Operators, Setting, middle, side_by_side, threads

RUN = "watchkeeper: a run"  # in torch's profile


class Torch:
    """A torch module in eager mode on the CPU."""

    runtime = "torch"
    fixed: int | None = None

    def __init__(self, module: Any) -> None:
        import inspect

        self._module = module
        self._names = [one.name for one in inspect.signature(module.forward).parameters.values() if one.default is one.empty and one.kind in (0, 1)]

    def made_up(self, rows: int) -> Mapping[str, Any]:
        raise DataError("a torch module does not say what it takes; give it rows")

    def taken(self, columns: Mapping[str, Any], features: Sequence[str]) -> Mapping[str, Any]:
        import numpy as np

        if len(self._names) == 1 and self._names[0] not in columns:
            named = {self._names[0]: side_by_side(columns, features)}
        elif lacking := [name for name in self._names if name not in columns]:
            raise DataError(f"the module takes '{lacking[0]}', and the rows have no such column; there is {', '.join(columns)}")
        else:
            named = {name: np.asarray(list(columns[name])) for name in self._names}
        if any(value.dtype.kind not in "fiub" for value in named.values()):
            raise DataError("the module takes numbers, and a column holds text or lists of several lengths")
        return {name: value.astype(np.float32 if value.dtype.kind == "f" else np.int64) for name, value in named.items()}

    def settings(self, base: Setting) -> Sequence[Setting]:
        return [replace(base, threads=count) for count in threads() if count != base.threads]

    def opened(self, setting: Setting) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
        import torch

        def run(fed: Mapping[str, Any]) -> Sequence[Any]:
            torch.set_num_threads(setting.threads)
            try:
                with torch.inference_mode():
                    found = self._module(*(torch.from_numpy(fed[name]) for name in self._names))
            except Exception as problem:
                raise DataError(f"the module fails on these rows: {type(problem).__name__}: {str(problem)[:300]}") from problem
            return [one.numpy() for one in (found if isinstance(found, tuple | list) else (found,))]

        return run

    def operators(self, setting: Setting, fed: Mapping[str, Any], scratch: Path) -> Operators:
        from torch.profiler import ProfilerActivity, profile, record_function

        run = self.opened(setting)
        for _ in range(COLD):
            run(fed)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for _ in range(PROFILED):
                with record_function(RUN):
                    run(fed)
        runs = [(one.time_range.start, one.time_range.elapsed_us()) for one in seen.events() if one.name == RUN]
        named = [(one.time_range.start, one.name.removeprefix("aten::"), one.self_cpu_time_total) for one in seen.events() if one.name != RUN]
        return middle(sorted(runs), ((begin, name, name, own) for begin, name, own in named))
