"""The operator's own net: named in the configuration, imported from where the trainer runs, and held to the rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from agent import function
from agent.errors import ConfigError

WHERE = "parameters.factory"


def factory(name: str) -> Callable[[], Any]:
    """What gives an untrained net each time it is called. ConfigError where it is not there, and where it gives no net."""
    try:
        found = function(name)
    except ModuleNotFoundError as problem:
        raise ConfigError(f"{WHERE}: there is no module '{problem.name}' (looked from {Path.cwd()})") from problem
    except AttributeError as problem:
        raise ConfigError(f"{WHERE}: {problem}") from problem
    except Exception as problem:
        raise ConfigError(f"{WHERE}: {name.partition(':')[0]} cannot be imported: {_said(problem)}") from problem

    def made() -> Any:
        try:
            net = found()
        except Exception as problem:
            raise ConfigError(f"{WHERE}: {name} raised {_said(problem)}") from problem
        if not isinstance(net, torch.nn.Module):
            raise ConfigError(f"{WHERE}: {name} gave {type(net).__name__}, and must give a torch.nn.Module")
        return net

    return made


def fits(make: Callable[[], Any], x: Any, classes: int) -> None:
    """ConfigError where the net does not take such rows, or has no output for each class."""
    net = make().eval()
    try:
        with torch.no_grad():
            shape = tuple(net(x).shape)
    except Exception as problem:
        raise ConfigError(f"{WHERE}: the net does not take {x.shape[1]} features side by side: {_said(problem)}") from problem
    if len(shape) != 2 or shape[1] < classes:
        raise ConfigError(f"{WHERE}: the net gives {list(shape[1:])} for a row, and there are {classes} classes to tell apart")


def device(wanted: str) -> torch.device:
    """Where it learns; ConfigError where that is not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("parameters.device: there is no CUDA device here; write cpu, or auto")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _said(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {(str(problem).strip().splitlines() or [''])[0][:200]}"
