"""How a net learns one task after the other: epochs over rows, with what a strategy adds; after each it can be taken up again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from agent.errors import TrainingError
from runbooks._continual_rows import Rows, chance

ROWS = 1024  # that are answered at once
Saved = Callable[[], None]
Tell = Callable[[float, str], None]


class Part:
    """What a strategy does beside following the gradient. Every hook does nothing, unless a part has something to do there."""

    told = False  # whether an answer needs to be told the task

    def begin(self, net: Any, task: int, first: bool) -> None:
        """A task begins; the first where the net has learned nothing yet."""

    def loss(self, net: Any, x: Any, y: Any, random: torch.Generator) -> Any:
        """What is made small instead of the cross entropy of the batch; None for nothing else."""
        return None

    def graded(self, net: Any) -> None:
        """The gradients are there, and the step is not made yet."""

    def stepped(self, net: Any, rate: float) -> None:
        """A step was made."""

    def more(self) -> Sequence[int]:
        """Epochs of each further round over the same task."""
        return ()

    def settle(self, net: Any, round: int) -> None:
        """A round is over."""

    def learned(self, net: Any, rows: Rows, random: torch.Generator) -> None:
        """A task is over; these are the rows it was learned from."""

    def view(self, net: Any, task: int) -> Any:
        """What answers for a task, as it stands now."""
        return net

    def state(self) -> Mapping[str, Any]:
        """Tensors by name: all it must not forget."""
        return {}

    def restore(self, net: Any, state: Mapping[str, Any], tasks: Sequence[int]) -> None:
        """Take up what `state` gave, when these tasks had begun."""


@dataclass(frozen=True, slots=True)
class How:
    """The settings that all strategies share."""

    epochs: int = 10
    batch: int = 32
    lr: float = 0.05
    optimizer: str = "sgd"
    momentum: float = 0.0
    patience: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Lesson:
    """One task to be learned, and the held-out rows of everything that should be known after it."""

    task: int
    rows: Rows
    held: Sequence[tuple[int, Rows]] = ()  # with the task of each
    name: str = "new rows"


@dataclass(frozen=True, slots=True)
class Place:
    """Where learning stands, always between two epochs."""

    lesson: int = 0
    round: int = 0
    epoch: int = 0
    best: float | None = None  # held-out loss
    waited: int = 0  # epochs since


class Learner:
    """A net, what its strategy keeps, and where it stands. `learn` can be called on a restored one, and goes on as if nothing had happened.

    Every epoch draws from random numbers of its own, so that no state of chance need be kept.
    """

    def __init__(self, net: Any, parts: Sequence[Part], how: How, device: Any = "cpu") -> None:
        self.net, self.parts, self.how, self.device = net.to(device), tuple(parts), how, device
        self.tasks: list[int] = []
        self.place = Place()
        self.optimizer: Any = None  # of the round that is under way
        self.best: Any = None  # the net's state after its best epoch

    def learn(self, lessons: Sequence[Lesson], saved: Saved = lambda: None, tell: Tell = lambda done, what: None) -> None:
        """Learn what is left of the lessons; `saved` is called after each epoch. TrainingError where the loss is no number any more."""
        for number in range(self.place.lesson, len(lessons)):
            self._lesson(lessons, saved, tell)
            self.place = Place(number + 1)

    def _lesson(self, lessons: Sequence[Lesson], saved: Saved, tell: Tell) -> None:
        lesson = lessons[self.place.lesson]
        if (self.place.round, self.place.epoch) == (0, 0):
            torch.manual_seed(chance(self.how.seed, "begin", self.place.lesson).initial_seed())
            for part in self.parts:
                part.begin(self.net, lesson.task, first=not self.tasks)
            self.tasks += [] if lesson.task in self.tasks else [lesson.task]
        rows, rounds = lesson.rows.to(self.device), self.rounds()
        while self.place.round < len(rounds):
            self._round(lesson, rows, rounds, len(lessons), saved, tell)
            for part in self.parts:
                part.settle(self.net, self.place.round)
            self.place, self.optimizer, self.best = Place(self.place.lesson, self.place.round + 1), None, None
        self.remember(rows, "lesson", self.place.lesson)

    def rounds(self) -> Sequence[int]:
        """Epochs of each round of a lesson."""
        return [self.how.epochs, *(epochs for part in self.parts for epochs in part.more())]

    def remember(self, rows: Rows, *place: object) -> None:
        """Let the strategy keep what it wants of rows that the net knows by now."""
        self.net.eval()
        for part in self.parts:
            part.learned(self.net, rows, chance(self.how.seed, "learned", *place))

    def _round(self, lesson: Lesson, rows: Rows, rounds: Sequence[int], many: int, saved: Saved, tell: Tell) -> None:
        self.optimizer = self.optimizer or self._optimizer()
        while self.place.epoch < rounds[self.place.round] and (self.how.patience is None or self.place.waited < self.how.patience):
            loss = self._epoch(rows)
            self.place = replace(self.place, epoch=self.place.epoch + 1)
            self._judge(lesson)
            saved()
            done = (sum(rounds[: self.place.round]) + self.place.epoch) / sum(rounds)
            tell((self.place.lesson + done) / many, f"{lesson.name}: epoch {self.place.epoch} of {rounds[self.place.round]}, loss {loss:.4f}")
        if self.best is not None:
            self.net.load_state_dict(self.best)

    def _epoch(self, rows: Rows) -> float:
        place, parts, step = (self.place.lesson, self.place.round, self.place.epoch), self.parts, self.optimizer
        random = chance(self.how.seed, "epoch", *place)
        torch.manual_seed(random.initial_seed())  # for what the net itself draws, such as dropout
        order = torch.randperm(len(rows), generator=random).to(self.device)
        total, batches = torch.zeros((), device=self.device), 0
        wanted = step.param_groups[0]["params"]
        self.net.train()
        for x, y in zip(rows.x[order].split(self.how.batch), rows.y[order].split(self.how.batch), strict=True):
            loss = self._loss(x, y, random)
            for weights in wanted:
                weights.grad = None  # what zero_grad does, without its bookkeeping for profilers
            loss.backward()
            for part in parts:
                part.graded(self.net)
            step.step()
            for part in parts:
                part.stepped(self.net, self.how.lr)
            total += loss.detach()
            batches += 1
        return self._finite(float(total) / batches)

    def _loss(self, x: Any, y: Any, random: torch.Generator) -> Any:
        for part in self.parts:
            if (loss := part.loss(self.net, x, y, random)) is not None:
                return loss
        return functional.cross_entropy(self.net(x), y)

    def _finite(self, loss: float) -> float:
        if not loss - loss == 0:
            raise TrainingError(
                f"the loss is {loss} in epoch {self.place.epoch + 1}: learning ran away; lower lr ({self.how.lr:g}), or scale the features"
            )
        return loss

    def _optimizer(self) -> Any:
        wanted = [weights for weights in self.net.parameters() if weights.requires_grad]
        if self.how.optimizer == "adam":
            return torch.optim.Adam(wanted, lr=self.how.lr)
        return torch.optim.SGD(wanted, lr=self.how.lr, momentum=self.how.momentum, foreach=True)

    # What is held out

    def _judge(self, lesson: Lesson) -> None:
        """Remember the net of the best epoch, where learning may end early; every table counts alike, however many rows it holds."""
        if self.how.patience is None:
            return
        loss = sum(self.measure(rows, task)[1] for task, rows in lesson.held) / max(len(lesson.held), 1)
        if self.place.best is None or loss < self.place.best:
            self.place = replace(self.place, best=loss, waited=0)
            self.best = copy.deepcopy(self.net.state_dict())
        else:
            self.place = replace(self.place, waited=self.place.waited + 1)

    def measure(self, rows: Rows, task: int) -> tuple[float, float]:
        """Accuracy and mean cross entropy on rows of a task; (NaN, NaN) where there is none."""
        right, loss = 0, 0.0
        for x, y in zip(rows.x.split(ROWS), rows.y.split(ROWS), strict=True):
            found = self.answer(x, task)
            right += int((found.argmax(1) == y.to(self.device)).sum())
            loss += float(functional.cross_entropy(found, y.to(self.device), reduction="sum"))
        return (right / len(rows), loss / len(rows)) if len(rows) else (float("nan"), float("nan"))

    def answer(self, x: Any, task: int) -> Any:
        """The scores of rows that are of one task."""
        with torch.no_grad():
            scores: Any = self.view(task).eval()(x.to(self.device))
        return scores

    @property
    def told(self) -> bool:
        """Whether whoever asks must say the task."""
        return any(part.told for part in self.parts)

    def view(self, task: int) -> Any:
        """What answers for a task: the net itself, unless the strategy has one for each."""
        for part in self.parts:
            if part.told:
                return part.view(self.net, task)
        return self.net

    # As it stands

    def state(self) -> dict[str, Any]:
        """All of it as tensors by name; `place` and `tasks` are not among them."""
        named = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        named |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        named |= {f"optimizer.{name}": value for name, value in _flat(self.optimizer)}
        return named | {f"part.{n}.{name}": value for n, part in enumerate(self.parts) for name, value in part.state().items()}

    def restore(self, named: Mapping[str, Any], tasks: Sequence[int], place: Place) -> None:
        """Take up what `state` gave."""
        self.tasks, self.place = list(tasks), place
        for n, part in enumerate(self.parts):
            part.restore(self.net, under(named, f"part.{n}."), tasks)
        self.net.load_state_dict(under(named, "net."))
        self.best = under(named, "best.") or None
        self.optimizer = self._optimizer()
        _unflat(self.optimizer, under(named, "optimizer."))


def under(named: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What stands under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


def _flat(optimizer: Any) -> Iterator[tuple[str, Any]]:
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"] if optimizer is not None else {}
    for place, kept in state.items():
        for name, value in kept.items():
            if value is not None:
                yield f"{place}.{name}", torch.as_tensor(value)


def _unflat(optimizer: Any, named: Mapping[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in named.items():
        place, _, kept = name.partition(".")
        state.setdefault(int(place), {})[kept] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
