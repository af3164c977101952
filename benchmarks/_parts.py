"""Benchmarks of several parts: all of them, or those that are named on the command line."""

from collections.abc import Callable, Mapping, Sequence


def parts(among: Mapping[str, Callable[[], None]], chosen: Sequence[str]) -> None:
    """Run those parts that are chosen, in their order; all when none is."""
    for name, part in among.items():
        if not chosen or name in chosen:
            part()
