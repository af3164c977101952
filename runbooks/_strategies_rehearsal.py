"""Strategies that keep some rows of the past and learn them again beside the new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch.nn import functional

from runbooks._continual_rows import Rows
from runbooks._learning import ROWS, Part

Balance = Literal["stream", "class"]


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows that are kept: besides their columns the lot each drew when it was first seen, and what the net said of it then."""

    x: Any
    y: Any
    lot: Any
    logits: Any
    task: Any = None
    at: Any = None

    def __len__(self) -> int:
        return len(self.y)

    def at_places(self, places: Any) -> Kept:
        return Kept(*(None if (column := getattr(self, one.name)) is None else column[places] for one in fields(self)))


def sample(kept: Kept, most: int, balance: Balance) -> Kept:
    """The rows with the lowest lots: of a stream every row has the same chance to be among them, and it does not matter in which parts it came.

    This is reservoir sampling (Vitter 1985) by the lowest of random keys, which also merges. By class the lowest lots of each class are kept, as
    many of one as of another as far as there are any: the class-balanced reservoir of Chrysakis and Moens (2020).
    """
    order = torch.argsort(kept.lot)
    if balance == "class":
        labels = kept.y[order]
        rank = torch.zeros_like(labels)
        for label in labels.unique():
            rank[labels == label] = torch.arange(int((labels == label).sum()), device=labels.device)
        order = order[torch.argsort(rank, stable=True)]
    return kept.at_places(order[:most].sort().values)


class Rehearsal(Part):
    """Batches of new rows are learned together with as many of the buffer (experience replay; Chaudhry et al. 2019 on how little suffices)."""

    def __init__(self, size: int, balance: Balance) -> None:
        self.size, self.balance = size, balance
        self.kept: Kept | None = None

    def loss(self, net: Any, x: Any, y: Any, random: torch.Generator) -> Any:
        if not self.kept:
            return None
        places = self._drawn(len(y), random)
        return functional.cross_entropy(net(torch.cat((x, self.kept.x[places]))), torch.cat((y, self.kept.y[places])))

    def learned(self, net: Any, rows: Rows, random: torch.Generator) -> None:
        """The rows draw lots, and those with the lowest stay."""
        lot = torch.rand(len(rows), generator=random, dtype=torch.float64).to(rows.y.device)
        self.add(Kept(rows.x, rows.y, lot, said(net, rows.x), rows.task, rows.at))

    def add(self, more: Kept) -> None:
        """Take more rows in, and keep as many as there is room for."""
        both = [one for one in (self.kept, more) if one]
        columns = [[getattr(part, one.name) for part in both] for one in fields(Kept)]
        whole = Kept(*(None if any(column is None for column in each) else torch.cat(each) for each in columns))
        self.kept = sample(whole, self.size, self.balance)

    def state(self) -> Mapping[str, Any]:
        return {one.name: column for one in fields(Kept) if self.kept and (column := getattr(self.kept, one.name)) is not None}

    def restore(self, net: Any, state: Mapping[str, Any], tasks: Sequence[int]) -> None:
        self.kept = Kept(**state) if state else None

    def _drawn(self, many: int, random: torch.Generator) -> Any:
        assert self.kept is not None
        return torch.randint(len(self.kept), (many,), generator=random).to(self.kept.y.device)


class Dark(Rehearsal):
    """Dark experience replay (DER++, Buzzega et al. 2020): kept rows are held to what the net said of them, and others of them to their labels."""

    def __init__(self, size: int, balance: Balance, alpha: float, beta: float) -> None:
        super().__init__(size, balance)
        self.alpha, self.beta = alpha, beta

    def loss(self, net: Any, x: Any, y: Any, random: torch.Generator) -> Any:
        if not self.kept:
            return None
        n, said, told = len(y), self._drawn(len(y), random), self._drawn(len(y), random)
        new, dark, known = net(torch.cat((x, self.kept.x[said], self.kept.x[told]))).split(n)
        loss = functional.cross_entropy(new, y) + self.beta * functional.cross_entropy(known, self.kept.y[told])
        return loss + self.alpha * functional.mse_loss(dark, self.kept.logits[said])


def said(net: Any, x: Any) -> Any:
    """The net's scores of rows, as it is."""
    with torch.no_grad():
        return torch.cat([net(part) for part in x.split(ROWS)])
