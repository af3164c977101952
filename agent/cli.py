"""The `watchkeeper` command. Nothing heavy is imported before a command is chosen, so that help and completion answer at once."""

from __future__ import annotations

from agent.commands import (
    acting,
    attesting,
    auditing,
    comparing,
    contracts,
    evaluating,
    learning,
    loading,
    looking,
    pinning,
    profiling,
    quantizing,
    recounting,
    replaying,
    setting_up,
    telling,
)
from agent.door import EXITS, main

# Importing a module of commands is what adds them.
__all__ = [
    "EXITS",
    "acting",
    "attesting",
    "auditing",
    "comparing",
    "contracts",
    "evaluating",
    "learning",
    "loading",
    "looking",
    "main",
    "pinning",
    "profiling",
    "quantizing",
    "recounting",
    "replaying",
    "setting_up",
    "telling",
]

if __name__ == "__main__":
    main(prog_name="watchkeeper")
