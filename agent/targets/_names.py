"""The order of versions that have nothing but names."""

from __future__ import annotations

import re


def natural(name: str) -> list[tuple[int, str]]:
    """Names in the order in which people count: v9 before v10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]
