"""Whether the tests of drift do what they promise on this service's own data: quiet where nothing moved, and heard where something did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent import Columns, Reading, Verdict, check, fail, nodata, ok, warn
from agent.stats import clopper_pearson
from checks._columns import wanted
from checks._comparison import How, Side, compared, judged
from checks._gaps import reach
from checks._held import Held

FLOOR, FLOOR_NULLS, FALSE_DISCOVERY = 0.1, 0.02, 0.05  # what drift.compare is given by default
ONE_SIDED = 0.90  # a two-sided level that leaves 5 % on each side


@check(pillar="monitoring", asks="Are the tests of drift as good as they promise on this data?", severity="ticket", answers=("MON-03",))
def drift(
    reference: Columns,
    tell: Callable[[float, str], None] = lambda done, what: None,
    *,
    columns: list[str] | None = None,
    shift: float = 0.75,
    rows: int = 500,
    trials: int = 60,
    power: float = 0.9,
    false_alarms: float = 0.05,
    seed: int = 7,
) -> Verdict:
    """Splits the reference at random `trials` times into `rows` rows and all others, and lets drift.compare judge the one by the other: as they are,
    where it should be quiet, and with the numbers of one column moved by `shift` of its standard deviations, where it should not.

    ok: by exact one-sided 95 % bounds false alarms come in at most `false_alarms` of the splits, and shifts are found in at least `power`. Surely
    otherwise fails; trials too few to tell warn (60 are just enough: 0 of 59 bounds 5 %, by Clopper and Pearson 1934).
    """
    held = _read(reference, columns)
    if held is None or held.rows() < 2 * rows:
        n = 0 if held is None else held.rows()
        return nodata(f"{n} reference rows with numbers; {2 * rows} are needed to draw {rows} at a time", Reading(n, 2 * rows, unit="rows"))
    quiet, heard, names = 0, 0, list(held.cells)
    for trial in range(trials):
        some, rest = held.split(rows, seed + trial)
        quiet += _calls(some, rest, names)
        moved = some.moved(names[trial % len(names)], shift)
        heard += _calls(moved, rest, names)
        tell((trial + 1) / trials, f"split {trial + 1}")
    alarms, found = clopper_pearson(quiet, trials, ONE_SIDED), clopper_pearson(heard, trials, ONE_SIDED)
    parts = {
        "false alarms": Reading(quiet / trials, false_alarms, alarms, trials),
        "power": Reading(heard / trials, power, found, trials),
    }
    told = (
        f"drift.compare calls {quiet} of {trials} random splits of the reference (surely at most {alarms[1]:.1%}), and {heard} of {trials} shifts of "
        f"{shift:g} standard deviations (surely at least {found[0]:.1%})"
    )
    if alarms[0] > false_alarms or found[1] < power:
        return fail(f"{told}: worse than {false_alarms:.0%} and {power:.0%}", parts["power"], parts=parts)
    sure = alarms[1] <= false_alarms and found[0] >= power
    return ok(told, parts["power"], parts=parts) if sure else warn(f"{told}: too few trials, or too close, to be sure", parts["power"], parts=parts)


def _calls(live: Held, reference: Held, names: Sequence[str]) -> bool:
    """Whether drift.compare would call a drift, with what it is given by default."""
    now, then = Side(live, live.kinds(), live.rows()), Side(reference, reference.kinds(), reference.rows())
    found = [part for name in names for part in compared(name, now, then, How(FLOOR, FLOOR, FLOOR_NULLS, 1, (), False))]
    return bool(judged(found, FALSE_DISCOVERY, FLOOR + reach(now.rows, then.rows)).drifted)


def _read(reference: Columns, columns: list[str] | None) -> Held | None:
    """The numbers of the reference, which are what can be shifted."""
    import numpy as np

    kinds = reference.kinds()
    names = [name for name in wanted(reference, kinds, kinds, columns) if kinds.get(name) in ("number", "integer")]
    parts: list[Any] = [dict(chunk) for chunk in reference.chunks(names)] if names else []
    cells = {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in names} if parts else {}
    varied = {name: values for name, values in cells.items() if np.nanstd(values) > 0}
    return Held(varied) if varied else None
