"""What the torch trainer leaves in its folder: a checkpoint after each epoch, and in the end weights, the graph, the buffer and what was learned."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from agent import Json, admit, duration
from agent.errors import ArtefactError, TrainingError
from runbooks._continual_graph import golden, graph
from runbooks._continual_rows import Rows
from runbooks._continual_settings import Settings
from runbooks._learning import Learner, Place
from runbooks._strategies_rehearsal import Kept, Rehearsal

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS, LEARNED, GRAPH, BUFFER, PACKAGES = "model.safetensors", "learned.safetensors", "model.onnx", "buffer.parquet", "environment.txt"
GOLDEN = "golden.json"


def put(path: Path, body: bytes) -> None:
    """All of a file at once, or nothing of it. TrainingError where there is no room."""
    draft = path.with_name(f".{path.name}")
    try:
        with draft.open("wb") as stream:
            stream.write(body)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as problem:
        draft.unlink(missing_ok=True)
        raise TrainingError(f"{path} cannot be written ({problem.strerror}): {len(body):,} bytes; make room and start again") from problem


def tensors(path: Path) -> tuple[dict[str, Any], Mapping[str, Json]]:
    """The tensors of a file, and what was said with them."""
    from safetensors import safe_open

    admit(path)
    with safe_open(str(path), "pt") as found:
        said = json.loads((found.metadata() or {}).get("said", "{}"))
        return {name: found.get_tensor(name) for name in found.keys()}, said  # noqa: SIM118 - it is no mapping


def packed(named: Mapping[str, Any], said: Mapping[str, Json]) -> bytes:
    from safetensors.torch import save

    body: bytes = save({name: value.detach().to("cpu").contiguous().clone() for name, value in named.items()}, {"said": json.dumps(said)})
    return body


# On the way


def save(folder: Path, learner: Learner, rule: str) -> None:
    """Where learning stands; `rule` says of which job."""
    said = {"rule": rule, "place": asdict(learner.place), "tasks": learner.tasks}
    put(folder / CHECKPOINT, packed(learner.state(), said))


def resume(folder: Path, learner: Learner, rule: str) -> bool:
    """Go on where an earlier try of the same job was when it ended; whether there was one."""
    path = folder / CHECKPOINT
    if not path.exists():
        return False
    try:
        named, said = tensors(path)
    except (ArtefactError, ValueError):
        return False  # written whole or not at all, so somebody else's; from the start is always right
    if said.get("rule") != rule:
        return False
    learner.restore({name: value.to(learner.device) for name, value in named.items()}, said["tasks"], Place(**said["place"]))
    return True


# At the end


def left(folder: Path, learner: Learner, asked: Settings, takes: Sequence[str], known: Sequence[str], tried: Rows) -> tuple[list[str], str]:
    """Write all that is handed in; the names of the files, and the sha256 of the environment."""
    said = {"strategy": asked.strategy, "features": list(takes), "classes": list(known), "tasks": learner.tasks}
    learned = {name: value for name, value in learner.state().items() if name.startswith("part.")}
    kept = next((part for part in learner.parts if isinstance(part, Rehearsal)), None)
    rest = {name: value for name, value in learned.items() if kept is None or not name.startswith(f"part.{learner.parts.index(kept)}.")}
    put(folder / WEIGHTS, packed(learner.net.state_dict(), said))
    put(folder / LEARNED, packed(rest or {"nothing": torch.zeros(1)}, said))
    put(folder / GRAPH, graph(learner, tried, [*takes, *([asked.task] if learner.told and asked.task else [])], known))
    lines = environment()
    put(folder / PACKAGES, lines)
    names = [WEIGHTS, LEARNED, GRAPH, PACKAGES]
    if asked.golden:
        put(folder / GOLDEN, golden(learner, tried, known, asked.golden))
        names.append(GOLDEN)
    if kept is not None and kept.kept:
        put(folder / BUFFER, buffer(kept.kept, asked, takes, known))
        names.append(BUFFER)
    return names, hashlib.sha256(lines).hexdigest()


def environment() -> bytes:
    """Python and every package that is installed, a line each."""
    found = {f"{one.metadata['Name']}=={one.version}" for one in metadata.distributions() if one.metadata["Name"]}
    return "\n".join([f"python=={sys.version.split()[0]}", *sorted(found, key=str.lower), ""]).encode()


def commit(folder: Path) -> str | None:
    """The commit of the code in a folder, and whether it was changed since; None where git knows nothing of it."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=30)  # noqa: S603,S607 - git's own name
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    return f"{head}, with changes" if head and git("status", "--porcelain") else head


# The buffer as a table


def buffer(kept: Kept, asked: Settings, takes: Sequence[str], known: Sequence[str]) -> bytes:
    """The rows that are kept, as Parquet: features, label, task and time as they came, the lot each drew, and the scores of each."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(kept.x[:, place].cpu().numpy()) for place, name in enumerate(takes)}
    columns[asked.label] = pa.array([known[place] for place in kept.y.tolist()])
    if asked.task is not None and kept.task is not None:
        columns[asked.task] = pa.array(kept.task.cpu().numpy())
    if asked.time is not None and kept.at is not None:
        columns[asked.time] = pa.array(kept.at.cpu().numpy()).cast(pa.timestamp("us", "UTC"))
    columns["lot"] = pa.array(kept.lot.cpu().numpy())
    columns["scores"] = pa.array(list(kept.logits.cpu().numpy()), pa.list_(pa.float32()))
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def kept_rows(rows: Rows, found: Any, random: torch.Generator, said: Callable[[Any], Any]) -> Kept:
    """A buffer from a table: ours as it was left, any other with lots drawn and scores asked anew."""
    import numpy as np

    lot = torch.rand(len(rows), generator=random, dtype=torch.float64)
    if "lot" in found.column_names:
        lot = torch.from_numpy(found["lot"].to_numpy().astype(np.float64))
    logits = said(rows.x)
    if "scores" in found.column_names:
        logits = torch.from_numpy(np.array(found["scores"].to_pylist(), dtype=np.float32)).to(logits.device)
    return Kept(rows.x, rows.y, lot.to(rows.y.device), logits, rows.task, rows.at)


def fresh(kept: Kept, train: Rows, keep: str | None) -> Kept:
    """Without the rows that are older than they may be kept, counted back from the newest of the new rows."""
    if keep is None or kept.at is None:
        return kept
    oldest = int(train.at.max()) - int(duration(keep) / timedelta(microseconds=1))
    return kept.at_places(kept.at >= oldest)
