"""One job of the torch trainer, from its spec to its manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agent import Json, asked, digest, hand_in
from agent.errors import ConfigError, TrainingError, WatchkeeperError
from runbooks import _continual_files as files
from runbooks import _continual_net as nets
from runbooks import _continual_rows as tables
from runbooks._continual_rows import Rows, by_task, chance, split
from runbooks._continual_settings import Settings, settings
from runbooks._learning import How, Learner, Lesson, Tell, under
from runbooks._strategies import TOLD, made
from runbooks._strategies_rehearsal import Rehearsal, said

TRAIN, BUFFER, OLD = "train", "buffer", "old"


@dataclass(frozen=True, slots=True)
class Given:
    """What a job starts from: each table's learned and held-out rows, what the net takes and gives, and what the champion left."""

    learned: Mapping[str, Rows]
    held: Mapping[str, Rows]
    takes: Sequence[str]
    classes: Sequence[str]
    buffer: tuple[Rows, Any] | None = None  # its rows, and the table they are from
    weights: Mapping[str, Any] | None = None  # None: there is nothing to start from
    kept: Mapping[str, Any] | None = None  # what its strategy kept
    told: Mapping[str, Json] | None = None  # strategy, features, classes, tasks

    @property
    def old(self) -> Sequence[str]:
        return sorted(name for name in self.learned if name != TRAIN)


def work(folder: Path, tell: Tell) -> None:
    """Do what the folder's spec asks and hand it in. TrainingError, ConfigError and ArtefactError say why it cannot be."""
    spec = asked(folder)
    wanted, seed, rule = settings(spec.get("parameters") or {}), int(spec.get("seed") or 0), digest(spec)
    same_each_time(wanted)
    with unhurt(wanted.factory):
        tell(0.0, "reading")
        given = read(spec, wanted, seed)
        learner, lessons = prepared(given, wanted, seed), planned(given)
        before = scores(learner, given) if learner.tasks else {}
        if wanted.resume and files.resume(folder, learner, rule):
            tell(learner.place.lesson / len(lessons), "going on where an earlier try ended")
        learner.learn(lessons, lambda: files.save(folder, learner, rule), tell)
        tell(1.0, "handing in")
        hand(folder, spec, given, learner, wanted, before)


def hand(folder: Path, spec: Mapping[str, Json], given: Given, learner: Learner, wanted: Settings, before: Mapping[str, float]) -> None:
    """The files, and last the manifest that names them."""
    after = scores(learner, given)
    tried = given.held[TRAIN] if len(given.held[TRAIN]) else given.learned[TRAIN]
    names, packages = files.left(folder, learner, wanted, given.takes, given.classes, tried)
    told = {**(spec.get("parameters") or {}), "classes": list(given.classes), "features": list(given.takes)}
    rows = sum(len(one) for one in (*given.learned.values(), *given.held.values()))
    kept = {"rows_kept": float(sum(len(part.kept) for part in learner.parts if isinstance(part, Rehearsal) and part.kept))}
    lost = {f"forgotten.{name}": before[f"accuracy.{name}"] - after[f"accuracy.{name}"] for name in given.old if f"accuracy.{name}" in before}
    metrics = {**after, **{f"before.{name}": value for name, value in before.items()}, **lost, **kept}
    hand_in(folder, spec, names, rows=rows, metrics=metrics, code=files.commit(Path.cwd()), environment=packages, parameters=told)
    (folder / files.CHECKPOINT).unlink(missing_ok=True)


def same_each_time(wanted: Settings) -> None:
    """The same spec gives the same bits on the same machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it CUDA's products differ from run to run
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(wanted.threads)


@contextmanager
def unhurt(factory: str) -> Iterator[None]:
    """What torch and the operator's own net raise, in words that say what to do."""
    try:
        yield
    except WatchkeeperError:
        raise
    except Exception as problem:
        said = f"{(str(problem).strip().splitlines() or ['no more is known'])[0][:200]}"
        if isinstance(problem, MemoryError | torch.OutOfMemoryError) or "allocate memory" in said:
            raise TrainingError(f"there is not enough memory ({said}); lower `batch`, or learn fewer rows") from problem
        raise TrainingError(f"{factory}: the net cannot learn these rows: {type(problem).__name__}: {said}") from problem


# From what it starts


def read(spec: Mapping[str, Json], wanted: Settings, seed: int) -> Given:
    """Every table, verified, and the champion's files by their names."""
    data = spec.get("data") or {}
    if TRAIN not in data:
        raise ConfigError("the job has no table 'train': there is nothing to learn")
    if odd := [name for name in data if name not in (TRAIN, BUFFER) and not name.startswith(OLD)]:
        raise ConfigError(f"the job has a table '{odd[0]}'; a trainer takes 'train', 'buffer', and what was learned before as 'old...'")
    left = {name: Path(str(path)) for name, path in ((spec.get("champion") or {}).get("files") or {}).items()}
    weights, told = files.tensors(left[files.WEIGHTS]) if files.WEIGHTS in left else (None, {})
    kept, _ = files.tensors(left[files.LEARNED]) if files.LEARNED in left else (None, {})
    found = {name: tables.table(name, Path(str(one["path"])), str(one["sha256"])) for name, one in data.items()}
    if BUFFER not in found and files.BUFFER in left:
        found[BUFFER] = tables.table(BUFFER, left[files.BUFFER], None)
    takes, known = tables.features(found, wanted), tables.classes(found, wanted, told.get("classes") or ())
    rows = {name: tables.rows(name, one, wanted, takes, known) for name, one in found.items()}
    halves = {name: split(one, wanted.held_out, chance(seed, "held out", name)) for name, one in rows.items() if name != BUFFER}
    learned, held = ({name: half[side] for name, half in halves.items()} for side in (0, 1))
    return Given(learned, held, takes, known, (rows[BUFFER], found[BUFFER]) if BUFFER in rows else None, weights, kept, told)


def prepared(given: Given, wanted: Settings, seed: int) -> Learner:
    """A learner that knows what the champion knows."""
    if wanted.strategy in TOLD and wanted.task is None:
        raise ConfigError(f"parameters.task: {wanted.strategy} must be told the task of a row: name the column that says it")
    make = nets.factory(wanted.factory)
    nets.fits(make, given.learned[TRAIN].x[:2], len(given.classes))
    torch.manual_seed(chance(seed, "weights").initial_seed())
    start = made(wanted.strategy, wanted.settings, make)
    how = How(wanted.epochs, wanted.batch, wanted.lr, wanted.optimizer, wanted.momentum, wanted.patience, seed)
    learner = Learner(start.net, start.parts, how, nets.device(wanted.device))
    if given.weights is not None:
        taught(learner, given, wanted)
    remembered(learner, given, wanted, seed)
    return learner


def taught(learner: Learner, given: Given, wanted: Settings) -> None:
    """Give it the champion's weights, and what its strategy kept where that is the same."""
    assert given.weights is not None
    told = given.told or {}
    before, same = told.get("strategy"), told.get("strategy") == wanted.strategy
    if not same and {before, wanted.strategy} & TOLD:
        raise ConfigError(f"parameters.strategy: {wanted.strategy} cannot go on from a champion that was taught by {before or 'others'}")
    if told and list(told["features"]) != list(given.takes):
        raise ConfigError(f"the champion takes {', '.join(told['features'])}, and these rows give {', '.join(given.takes)}; name its `features`")
    learner.tasks = list(told.get("tasks") or [0])
    for n, part in enumerate(learner.parts):
        kept = under(given.kept or {}, f"part.{n}.") if same else {}
        part.restore(learner.net, {name: value.to(learner.device) for name, value in kept.items()}, learner.tasks)
    try:
        learner.net.load_state_dict(given.weights)
    except RuntimeError as problem:
        said = str(problem).splitlines()[-1].strip()[:200]
        raise ConfigError(f"parameters.factory: the champion's weights do not fit {wanted.factory}: {said}") from problem


def remembered(learner: Learner, given: Given, wanted: Settings, seed: int) -> None:
    """What the strategy remembers from before: the buffer, and for what it has no memory of yet the old rows, as if it had just learned them."""
    learner.net.eval()
    if given.buffer is not None:
        rows, table = given.buffer
        for part in learner.parts:
            if isinstance(part, Rehearsal):
                kept = files.kept_rows(rows.to(learner.device), table, chance(seed, "buffer"), lambda x: said(learner.net, x))
                part.add(files.fresh(kept, given.learned[TRAIN], wanted.keep))
    if learner.tasks:
        blank = [part for part in learner.parts if not part.state()]
        for name in given.old:
            for part in blank:
                part.learned(learner.net, given.learned[name].to(learner.device), chance(seed, "old", name))


def planned(given: Given) -> list[Lesson]:
    """The tasks to be learned, in their order: without a champion the old rows come first."""
    known: list[tuple[int, Rows]] = []
    lessons: list[Lesson] = []
    for name in (*given.old, TRAIN):
        held = by_task(given.held[name]) if len(given.held[name]) else {}
        for task, rows in by_task(given.learned[name]).items():
            known += [(task, held[task])] if task in held else []
            if name == TRAIN or given.weights is None:
                lessons.append(Lesson(task, rows, tuple(known), name))
    return lessons


def scores(learner: Learner, given: Given) -> dict[str, float]:
    """Accuracy and loss on the held-out rows of each table, as far as their tasks were learned."""
    found = {}
    for name, rows in given.held.items():
        parts = [(task, part) for task, part in by_task(rows).items() if not learner.told or task in learner.tasks] if len(rows) else []
        many = sum(len(part) for _, part in parts)
        for place, word in enumerate(("accuracy", "loss")) if many else ():
            found[f"{word}.{name}"] = sum(learner.measure(part, task)[place] * len(part) for task, part in parts) / many
    return found
