"""How much each weight matters to what a net answers: the diagonal of the Fisher information, exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional


def fisher(net: Any, x: Any) -> Mapping[str, Any]:
    """By parameter: the mean over the rows of the squared gradient of the log probability, expected over the net's own answers (not the labels).

    That is the Fisher information proper; squares of a batch's mean gradient, which are quicker, are another thing (van de Ven 2025, The Computation
    of the Fisher Information in EWC, compares them). Where all weights are those of linear layers on plain rows, the squares of every row come out
    of one backward pass a class, because a row's gradient is an outer product: sum of (delta a')^2 = (delta^2)'(a^2). Else row by row.
    """
    was = net.training
    net.eval()
    try:
        seen = _watched(net, x)
        return _linear(net, *seen) if seen is not None else _each(net, x)
    finally:
        net.train(was)


def _watched(net: Any, x: Any) -> tuple[Any, list[tuple[str, Any, Any]]] | None:
    """The log probabilities, and of each linear layer its name, what went in and what came out; None where the short way does not hold."""
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, torch.nn.Linear)}
    if sum(len(list(layer.parameters())) for layer in layers.values()) != len(list(net.parameters())):
        return None
    calls: list[tuple[str, Any, Any]] = []
    hooks = [layer.register_forward_hook(lambda _, given, out, name=name: calls.append((name, given[0], out))) for name, layer in layers.items()]
    try:
        logs = functional.log_softmax(net(x), 1)
    finally:
        for hook in hooks:
            hook.remove()
    plain = all(given.ndim == 2 and len(given) == len(x) for _, given, _ in calls)
    return (logs, calls) if plain and len(calls) == len({name for name, *_ in calls}) else None


def _linear(net: Any, logs: Any, calls: list[tuple[str, Any, Any]]) -> Mapping[str, Any]:
    found = {name: torch.zeros_like(value) for name, value in net.named_parameters()}
    squares = {name: given.detach() ** 2 for name, given, _ in calls}
    chances = logs.detach().exp()
    for label in range(logs.shape[1]):
        slopes = torch.autograd.grad(logs[:, label].sum(), [out for *_, out in calls], retain_graph=True, allow_unused=True)
        for (name, *_), slope in zip(calls, slopes, strict=True):
            if slope is not None:
                weighted = chances[:, label, None] * slope**2 / len(logs)
                _add(found, f"{name}.weight", weighted.T @ squares[name])
                _add(found, f"{name}.bias", weighted.sum(0))
    return found


def _add(found: dict[str, Any], name: str, more: Any) -> None:
    if name in found:
        found[name] += more


def _each(net: Any, x: Any) -> Mapping[str, Any]:
    named = dict(net.named_parameters())
    found = {name: torch.zeros_like(value) for name, value in named.items()}
    for row in x.split(1):
        logs = functional.log_softmax(net(row), 1)[0]
        for log in logs:
            slopes = torch.autograd.grad(log, list(named.values()), retain_graph=True, allow_unused=True)
            for name, slope in zip(named, slopes, strict=True):
                if slope is not None:
                    found[name] += float(log.detach().exp()) * slope**2 / len(x)
    return found
