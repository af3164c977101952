"""Strategies that give each task weights of its own, so that nothing can be forgotten; whoever asks must say which task a row is of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from agent.errors import ConfigError, TrainingError
from runbooks._learning import Part, under

FREE = -1  # owned by no task


class Packed(Part):
    """PackNet (Mallya and Lazebnik 2018): a task learns with the weights that no task before owns, gives most of them back, and owns the rest.

    After its epochs `prune` of the weights it may move, the smallest of each layer, are set to nothing for it, and the others are trained on for
    `settle_for` epochs. A task answers with the weights that were owned by its time. What has one dimension (biases) belongs to the first task.
    """

    told = True

    def __init__(self, prune: float, settle_for: int) -> None:
        self.prune, self.settle_for = prune, settle_for
        self.owner: dict[str, Any] = {}  # weight -> the place of the task that owns it, or FREE
        self.given: dict[str, Any] = {}  # what pruned weights were: the next task begins with them
        self.tasks: list[int] = []
        self._open: dict[str, Any] = {}

    def begin(self, net: Any, task: int, first: bool) -> None:
        if any("running" in name for name, _ in net.named_buffers()):
            raise ConfigError("packnet cannot keep running statistics apart, such as those of BatchNorm; use another norm, or strategy: progressive")
        if task in self.tasks:
            raise TrainingError(f"task {task} was learned before, and packnet has closed it; give the rows another task")
        if self.tasks and not any((owner == FREE).any() for owner in self.owner.values()):
            raise TrainingError(f"no weight is left for task {task}: {len(self.tasks)} tasks own them all; a higher `prune` leaves more")
        self.tasks.append(task)
        with torch.no_grad():
            for name, weights in net.named_parameters():
                self.owner.setdefault(name, torch.full_like(weights, FREE, dtype=torch.int16))
                weights.add_(self.given.pop(name, torch.zeros_like(weights)))
        self._reopen()

    def graded(self, net: Any) -> None:
        for name, weights in net.named_parameters():
            if weights.grad is not None:
                weights.grad.mul_(self._open[name])

    def more(self) -> Sequence[int]:
        return (self.settle_for,)

    def settle(self, net: Any, round: int) -> None:
        """After the first round: the largest of the free weights are this task's, the others are put aside."""
        if round:
            return
        with torch.no_grad():
            for name, weights in net.named_parameters():
                free = self.owner[name] == FREE
                mine = free & (_largest(weights, free, self.prune) if weights.ndim > 1 else True)
                self.owner[name][mine] = len(self.tasks) - 1
                self.given[name] = weights * (self.owner[name] == FREE)
                weights.sub_(self.given[name])
        self._reopen()

    def view(self, net: Any, task: int) -> Any:
        place = self._place(task)
        if place == len(self.tasks) - 1:  # the newest: all that is not put aside, and what is not yet owned
            return net
        made = copy.deepcopy(net)
        with torch.no_grad():
            for name, weights in made.named_parameters():
                weights.mul_((self.owner[name] <= place) & (self.owner[name] != FREE))
        return made

    def state(self) -> Mapping[str, Any]:
        kept = {f"owner.{name}": value for name, value in self.owner.items()} | {f"given.{name}": value for name, value in self.given.items()}
        return {**kept, "tasks": torch.tensor(self.tasks, dtype=torch.int64)}

    def restore(self, net: Any, state: Mapping[str, Any], tasks: Sequence[int]) -> None:
        self.owner, self.given, self.tasks = under(state, "owner."), under(state, "given."), state["tasks"].tolist()
        self._reopen()

    def _reopen(self) -> None:
        """Which weights the task that is being learned may move."""
        last = len(self.tasks) - 1
        settled = any((owner == last).any() for owner in self.owner.values())
        self._open = {name: (owner == (last if settled else FREE)) for name, owner in self.owner.items()}

    def _place(self, task: int) -> int:
        if task not in self.tasks:
            raise TrainingError(f"task {task} was never learned; there is {', '.join(map(str, self.tasks))}")
        return self.tasks.index(task)


def _largest(weights: Any, free: Any, prune: float) -> Any:
    """Those of the free weights that stay when the smallest share of them goes; of equals the first go."""
    size = weights.abs().masked_fill(~free, -1.0).flatten()
    order = torch.argsort(size, stable=True)
    many = int(free.sum())
    stay = torch.zeros_like(size, dtype=torch.bool)
    stay[order[len(size) - many + int(many * prune) :]] = True
    return stay.view_as(weights)


class Columns(torch.nn.Module):  # type: ignore[misc,unused-ignore]  # nothing of torch is known to the type checker where torch is missing
    """Columns of layers side by side, the newest of which also hears, at each linear layer but the first, what the earlier ones heard there."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        super().__init__()
        self.factory = factory
        self.columns: Any = torch.nn.ModuleList()
        self.sides: Any = torch.nn.ModuleList()

    def add(self) -> None:
        """One more column; the earlier ones stay as they are from now on."""
        made = self.factory()
        if not isinstance(made, torch.nn.Sequential):
            raise ConfigError(f"progressive needs a torch.nn.Sequential of layers from the factory, and got {type(made).__name__}")
        self.requires_grad_(False)
        heard = [layer for layer in made if isinstance(layer, torch.nn.Linear)][1:]
        lateral = [torch.nn.ModuleList(_silent(layer) for _ in self.columns) for layer in heard]
        self.columns.append(made.to(_where(self)))
        self.sides.append(torch.nn.ModuleList(lateral).to(_where(self)))

    def forward(self, x: Any, upto: int | None = None) -> Any:
        many = len(self.columns) if upto is None else upto
        flows, number = [x] * many, -1
        for place, layer in enumerate(self.columns[0]):
            linear = isinstance(layer, torch.nn.Linear)
            number += linear
            flows = [
                self.columns[n][place](flows[n])
                + (sum(side(flows[m]) for m, side in enumerate(self.sides[n][number - 1])) if linear and number and n else 0)
                for n in range(many)
            ]
        return flows[-1]


def _silent(layer: Any) -> Any:
    """A side connection that says nothing at first."""
    made = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
    torch.nn.init.zeros_(made.weight)
    return made


def _where(net: Any) -> Any:
    return next((weights.device for weights in net.parameters()), torch.device("cpu"))


class Upto(torch.nn.Module):  # type: ignore[misc,unused-ignore]  # as above
    """The answers of columns as they were when the first so many were all."""

    def __init__(self, columns: Columns, many: int) -> None:
        super().__init__()
        self.columns, self.many = columns, many

    def forward(self, x: Any) -> Any:
        return self.columns(x, self.many)


class Progressive(Part):
    """Progressive networks (Rusu et al. 2016), with linear side connections: a column of its own for each task, hearing those before, which stand."""

    told = True

    def __init__(self) -> None:
        self.tasks: list[int] = []

    def begin(self, net: Any, task: int, first: bool) -> None:
        if task in self.tasks:
            raise TrainingError(f"task {task} was learned before, and its column stands; give the rows another task")
        self.tasks.append(task)
        net.add()

    def view(self, net: Any, task: int) -> Any:
        if task not in self.tasks:
            raise TrainingError(f"task {task} was never learned; there is {', '.join(map(str, self.tasks))}")
        return Upto(net, self.tasks.index(task) + 1)

    def restore(self, net: Any, state: Mapping[str, Any], tasks: Sequence[int]) -> None:
        self.tasks = list(tasks)
        while len(net.columns) < len(self.tasks):
            net.add()


class Switch(torch.nn.Module):  # type: ignore[misc,unused-ignore]  # as above
    """One graph for all tasks: the last number of a row says which. A task that was never learned is answered with no number at all."""

    def __init__(self, views: Mapping[int, Any]) -> None:
        super().__init__()
        self.views = torch.nn.ModuleList(views.values())
        self.register_buffer("tasks", torch.tensor(list(views), dtype=torch.float32))

    def forward(self, x: Any) -> Any:
        known = x[:, -1:] == self.tasks
        found = torch.stack([view(x[:, :-1]) for view in self.views], 1)
        place = known.to(torch.int64).argmax(1)[:, None, None].expand(-1, 1, found.shape[2])
        return torch.where(known.any(1, keepdim=True), found.gather(1, place)[:, 0], torch.full_like(found[:, 0], float("nan")))
