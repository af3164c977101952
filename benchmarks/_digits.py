"""Two protocols of learning one task after the other, on scikit-learn's digits: the same rows, net and seeds for whoever is measured.

`permuted`: five tasks, all ten digits with the pixels in another order each time. `split`: five tasks of two digits. One head of ten in both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

HIDDEN, RATE, BATCH, EPOCHS, TASKS, BUFFER = 256, 0.05, 32, 10, 5, 200
PROTOCOLS = ("permuted", "split")
Task = tuple[Any, Any, Any, Any]  # x and y to learn, x and y to measure on


def tasks(protocol: str, seed: int, tuning: bool = False) -> list[Task]:
    """70 % of the digits are learned and 30 % measured on, drawn by the seed. Tuning sees the 70 % only: four fifths learned, one measured on."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, random = (x / 16).astype(np.float32), np.random.default_rng(1000 + seed)
    order = random.permutation(len(x))
    learned, measured = np.split(order, [int(0.7 * len(x))])
    if tuning:
        learned, measured = np.split(learned, [int(0.8 * len(learned))])
    return [_task(x, y, learned, measured, change) for change in _changes(protocol, y, random)]


def _changes(protocol: str, y: Any, random: Any) -> list[Any]:
    """Of each task: the order of its pixels, and which rows are of it."""
    everything = np.ones(len(y), bool)
    if protocol == "permuted":
        return [(np.arange(64) if k == 0 else random.permutation(64), everything) for k in range(TASKS)]
    return [(np.arange(64), np.isin(y, (2 * k, 2 * k + 1))) for k in range(TASKS)]


def _task(x: Any, y: Any, learned: Any, measured: Any, change: Any) -> Task:
    pixels, mine = change
    one, other = learned[mine[learned]], measured[mine[measured]]
    return (*_tensors(x[one][:, pixels], y[one]), *_tensors(x[other][:, pixels], y[other]))


def _tensors(x: Any, y: Any) -> tuple[Any, Any]:
    return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64))


def net(seed: int) -> Any:
    """64-256-256-10, with the same first weights for a seed."""
    from torch import nn

    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


def share(scores: Any, y: Any) -> float:
    """Accuracy."""
    return float((scores.argmax(1) == y).float().mean())


def summary(matrix: list[list[float]]) -> dict[str, float]:
    """Mean accuracy after the last task, and forgetting after Chaudhry et al. 2018, of accuracies by task learned and task asked."""
    table = np.array(matrix)
    lost = table[:-1, :-1].max(axis=0) - table[-1, :-1]
    return {"accuracy": float(table[-1].mean()), "forgetting": float(lost.mean())}
