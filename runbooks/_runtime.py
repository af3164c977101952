"""Opens a graph and asks it: its answers on rows, and in a process of its own (`python -m runbooks._runtime`) the memory that takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import bounded
from agent.errors import ArtefactError, DataError
from runbooks._feeds import Feed

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
RUNS = 3
PATIENCE = 300.0  # seconds for a process that opens a graph and runs it three times


@dataclass(frozen=True, slots=True)
class Answers:
    """What a graph says of rows, run by run: its labels where it names any, and the numbers of each row side by side, the last axis so wide."""

    labels: Any | None
    vectors: tuple[Any, ...]
    width: int


def opened(path: Path, threads: int, memory: int, device: str = "cpu") -> Any:
    """The graph, ready to run. ArtefactError where the runtime cannot run it, or not in so many bytes (which binds a CPU only)."""
    import onnxruntime

    provider = PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise ArtefactError(f"onnxruntime has no {provider} here; install the onnxruntime that brings it, or measure on another device")
    if device != "cpu":
        onnxruntime.preload_dlls()  # CUDA's libraries, where pip put them
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        with bounded(memory) if device == "cpu" else nullcontext():
            session = onnxruntime.InferenceSession(path, options, providers=[provider])
    except MemoryError as problem:
        raise ArtefactError(f"{path} does not load in {memory:,} bytes; allow it more memory") from problem
    except Exception as problem:
        raise ArtefactError(f"{path} cannot be run here ({_first(problem)}{_hint(problem, memory)})") from problem
    if provider not in session.get_providers():  # onnxruntime says nothing of it, and takes the CPU
        raise ArtefactError(f"onnxruntime's {provider} does not start here; install the CUDA it was built for, or measure on another device")
    return session


def answers(session: Any, fed: Sequence[Feed], memory: int, output: str | None = None) -> Answers:
    """Its answers on each run. DataError where it fails on them."""
    import numpy as np

    runs = [asked(session, one, memory) for one in fed]
    names = [one.name for one in session.get_outputs()]
    if output is not None and output not in names:
        raise DataError(f"the graph gives no '{output}'; there is {', '.join(names)}")
    place = names.index(output) if output else _table(runs[0])
    named = next((n for n, value in enumerate(runs[0]) if output is None and _names(value)), None)
    labels = None if named is None else np.concatenate([np.asarray(run[named]).reshape(-1) for run in runs])
    found = [_numbers(run[place]) for run in runs]
    width = found[0].shape[-1] if found[0].ndim > 1 else 1
    return Answers(labels, tuple(value.reshape(len(one.places), -1) for value, one in zip(found, fed, strict=True)), width)


def asked(session: Any, one: Feed, memory: int) -> Any:
    """One run's outputs."""
    try:
        with bounded(memory) if session.get_providers()[0] == PROVIDERS["cpu"] else nullcontext():
            return session.run(None, dict(one.values))
    except MemoryError as problem:
        raise DataError(f"the graph does not run in {memory:,} bytes; allow it more memory, or smaller batches") from problem
    except Exception as problem:
        raise DataError(f"the graph fails on these rows ({_first(problem)}{_hint(problem, memory)})") from problem


def _table(outputs: Sequence[Any]) -> int:
    """The first output that holds numbers of some size for each row, else the first one."""
    return next((n for n, value in enumerate(outputs) if isinstance(value, list) or (value.ndim > 1 and value.dtype.kind == "f")), 0)


def _names(value: Any) -> bool:
    return not isinstance(value, list) and value.ndim == 1 and value.dtype.kind in "iuOUS"


def _numbers(value: Any) -> Any:
    """As 64-bit numbers; a list of {class: score} is how scikit-learn's converters write scores."""
    import numpy as np

    if isinstance(value, list):
        return np.array([list(row.values()) for row in value], dtype=np.float64)
    if value.dtype.kind not in "fiub":
        raise DataError("the graph answers with text alone; name the output to compare with `output`")
    return value.astype(np.float64)


def _first(problem: Exception) -> str:
    return str(problem).splitlines()[0][:240] if str(problem) else type(problem).__name__


def _hint(problem: Exception, memory: int) -> str:
    words = str(problem).lower()
    return f"; it may take {memory:,} bytes" if "alloc" in words or "memory" in words else ""


# Memory


def taken(path: Path, feed: Path, threads: int, device: str = "cpu") -> int | None:
    """Bytes that loading the graph and running it takes at most, seen in a process of its own; None where that did not come to an end.

    On CUDA what the device has less of by the end, which is exact where nobody else takes or gives any meanwhile.
    """
    told = json.dumps({"path": str(path), "feed": str(feed), "threads": threads, "device": device})
    try:
        done = subprocess.run(  # noqa: S603 - ours
            [sys.executable, "-P", "-m", "runbooks._runtime", told], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return int(json.loads(done.stdout)["bytes"]) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, OSError, ValueError, KeyError):
        return None


def main() -> None:
    """What `taken` asks for."""
    import numpy as np
    import onnxruntime  # noqa: F401 - loaded before it is looked how much there is

    told = json.loads(sys.argv[1])
    with np.load(told["feed"], allow_pickle=False) as held:
        fed = {name: held[name] for name in held.files}
    used = _on_the_device if told["device"] == "cuda" else _resident
    before = used("VmRSS")
    session = opened(Path(told["path"]), told["threads"], sys.maxsize // 4, told["device"])
    for _ in range(RUNS):
        session.run(None, fed)
    sys.stdout.write(json.dumps({"bytes": max(0, used("VmHWM") - before)}) + "\n")


def _resident(word: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))


def _on_the_device(_: str) -> int:
    """Bytes of the first CUDA device that are taken, by whomever; asked of the driver, in the context that the runtime will use."""
    import ctypes

    driver = ctypes.CDLL("libcuda.so.1")
    device, context, free, all_of_it = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        or driver.cuCtxSetCurrent(context)
        or driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(all_of_it))
    )
    if failed:
        raise OSError(f"the CUDA driver answers with error {failed}")
    return all_of_it.value - free.value


if __name__ == "__main__":
    main()
