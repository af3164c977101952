"""The `watchkeeper` command. Nothing heavy is imported before a command is chosen, so that help and completion answer at once."""

from __future__ import annotations

from agent.commands import acting, contracts, looking, setting_up, telling
from agent.door import EXITS, main

__all__ = ["EXITS", "acting", "contracts", "looking", "main", "setting_up", "telling"]  # importing a module of commands is what adds them

if __name__ == "__main__":
    main(prog_name="watchkeeper")
