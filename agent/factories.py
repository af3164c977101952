"""An operator's own functions by their names, and the torch modules that they make: from the configuration or the command line, never from a file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.artefacts import Artefact, weights
from agent.errors import ArtefactError, CannotError


def function(name: str) -> Callable[..., Any]:
    """The function `module:function`, imported from where the program runs. Whatever that raises is raised."""
    module, _, function = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:  # a factory lies beside the configuration
        sys.path.insert(0, here)
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def module(name: str, artefact: Artefact) -> Any:
    """The torch module that this factory makes, with the weights of an admitted file. ArtefactError where either does not fit."""
    try:
        import torch
    except ImportError as problem:
        raise CannotError("torch is not installed, and a factory makes a torch module; install watchkeeper[torch]") from problem
    try:
        made = function(name)()
        made.load_state_dict(_weights(artefact), strict=True)
    except Exception as problem:
        raise ArtefactError(f"{name} makes no module for {artefact.path} ({type(problem).__name__}: {str(problem)[:300]})") from problem
    if not isinstance(made, torch.nn.Module):
        raise ArtefactError(f"{name} makes a {type(made).__name__}, not a torch module")
    return made.eval()


def _weights(artefact: Artefact) -> Mapping[str, Any]:
    if artefact.format == "safetensors":
        from safetensors.torch import load_file

        return dict(load_file(artefact.path))
    return weights(artefact)
