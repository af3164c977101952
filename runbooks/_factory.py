"""The operator's own function by its name, as the trainers of ours are told it: `module:function`, from the configuration and never from a file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def factory(name: str) -> Callable[..., Any]:
    """The function, imported from where the program runs. Whatever that raises is raised."""
    module, _, function = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:  # a factory lies beside the configuration
        sys.path.insert(0, here)
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
