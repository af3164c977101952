"""Two versions in one log: their rows, cut into cells of the same minutes, and counted there by request or by client."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from agent import Columns, Window
from agent.errors import DataError
from checks._hits import Hits
from checks._labels import class_name

EACH = 10  # rows of either version that fill a cell
LONGEST = 60  # stretches after which a cell ends though it is not full
MOST = 5_000_000  # rows of one look
STRETCHES = 1_000_000  # of one look
CLIENTS = 40_000  # clients a metric remembers, at 5 bytes of memory each


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the two versions in the order of time: event times, whether each is the candidate's, and columns by what they say.

    `columns` are numbers (NaN where there is none) or texts (None); `clients` hashes, or None where rows are counted one by one.
    """

    at: Any
    candidate: Any
    columns: Mapping[str, Any]
    clients: Any = None
    others: int = 0  # rows of other versions

    def __len__(self) -> int:
        return len(self.at)

    def pick(self, keep: Any) -> Rows:
        """Some of the rows."""
        clients = None if self.clients is None else self.clients[keep]
        return Rows(self.at[keep], self.candidate[keep], {name: one[keep] for name, one in self.columns.items()}, clients, self.others)


@dataclass(frozen=True, slots=True)
class Arms:
    """What the two versions are called, and the columns that tell them, and their clients, apart."""

    baseline: str
    candidate: str
    version: str
    client: str | None = None


def read(table: Columns, arms: Arms, names: Sequence[str]) -> Rows:
    """The rows of a table that belong to either version; DataError where it holds more than a look can take."""
    import numpy as np

    time = table.declared["time"]["column"]
    said = [arms.version, *([arms.client] if arms.client else [])]
    whole = [name for name in said if table.kinds()[name] == "integer"]  # as text: beyond 2^53 too they stay apart
    parts: list[dict[str, Any]] = []
    count = others = 0
    for chunk in table.chunks(list(dict.fromkeys([time, *said, *names])), spelled=whole):
        which = _which(chunk[arms.version], arms)
        parts.append({name: values[which >= 0] for name, values in chunk.items()} | {"": which[which >= 0]})
        count, others = count + len(parts[-1][""]), others + int((which < 0).sum())
        if count > MOST:
            raise DataError(f"more than {MOST:,} rows of {arms.baseline} and {arms.candidate} in one look; look more often")
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    return arranged(columns, columns.get(time, ()), columns.get("", ()), columns.get(arms.client) if arms.client else None, others)


def arranged(columns: Mapping[str, Any], at: Any, candidate: Any, clients: Any, others: int = 0) -> Rows:
    """The Rows of columns of one length, in the order of time."""
    import numpy as np

    at = np.asarray(at, dtype=float)
    hashed = None if clients is None else np.fromiter(map(_client, clients, range(len(at))), np.int64, len(at))
    rows = Rows(at, np.asarray(candidate, dtype=np.int64) == 1, columns, hashed, others)
    return rows.pick(np.argsort(at, kind="stable"))


def _which(versions: Any, arms: Arms) -> Any:
    """0 for the baseline's rows, 1 for the candidate's, -1 for all others."""
    import numpy as np

    known = {class_name(arms.baseline): 0, class_name(arms.candidate): 1}
    seen = {value: known.get(class_name(value), -1) for value in set(versions.tolist()) if value is not None}
    return np.fromiter((seen.get(value, -1) for value in versions.tolist()), np.int64, len(versions))


def _client(value: Any, place: int) -> int:
    """32 bits of a client's name; a row without one is a client of its own. Two that meet by mistake cost a row, whichever arm it is in."""
    text = f"\0{place}" if value is None or value != value else class_name(value)
    return zlib.crc32(text.encode("utf-8", "replace"))


# Cells


def cells(rows: Rows, span: Window, stretch: timedelta) -> list[tuple[int, int, datetime]]:
    """Where each whole cell of the span begins and ends among the rows, and until when it goes.

    Time is cut into stretches that are the same for everybody; a cell is as many of them as it takes until either version has EACH rows, at
    most LONGEST. What is left behind the last is read again when more has come: so cells do not depend on when it is looked.
    """
    import numpy as np

    step = stretch // timedelta(microseconds=1)
    first, last = (round(when.timestamp() * 1e6) // step for when in (span.start, span.end))
    if last <= first:
        return []
    if last - first > STRETCHES:
        raise DataError(f"{last - first:,} stretches since {span.start:%Y-%m-%d %H:%M:%S}Z, {STRETCHES:,} are looked through; take a longer stretch")
    ends = np.arange(first + 1, last + 1, dtype=np.float64) * step / 1e6
    places = np.searchsorted(rows.at, ends, side="left")
    ours = np.concatenate([[0], np.cumsum(rows.candidate)])
    found: list[tuple[int, int, datetime]] = []
    began, since = 0, 0
    for number, place in enumerate(places.tolist()):
        theirs = int(ours[place] - ours[began])
        if min(theirs, place - began - theirs) >= EACH or number + 1 - since >= LONGEST:
            found.append((began, place, datetime.fromtimestamp((first + number + 1) * step / 1e6, UTC)))
            began, since = place, number + 1
    return found


# Counting


def counted(rows: Rows, hits: Hits, bounds: Sequence[tuple[int, int, datetime]], left: str = "") -> tuple[Any, str]:
    """(cells, streams, 4) of n_b, x_b, n_c, x_c, and which clients are counted to the end now.

    A client counts once a cell, and no more once it was a hit (or, `once`, was seen). The clients at risk in each arm, and their first events,
    are what the safe logrank test is made of (ter Schure, Pérez-Ortiz, Ly and Grünwald, arXiv 2011.06931): whoever fails a hundred times says
    no more than that it fails.
    """
    import numpy as np

    out = np.zeros((len(bounds), len(hits.streams), 4))
    risk = None if rows.clients is None else Risk(rows.clients, left)
    for number, (began, ended, _) in enumerate(bounds):
        places = began + np.flatnonzero(hits.known[began:ended])
        arm, hit = rows.candidate[places], hits.hit[:, places]
        if risk is not None:
            arm, hit = risk.units(places, arm, hit, hits.once)
        for side in (0, 1):
            of = arm == bool(side)
            out[number, :, 2 * side] = of.sum()
            out[number, :, 2 * side + 1] = hit[:, of].sum(axis=1)
    return out, left if risk is None else risk.text()


class Risk:
    """The clients of some rows, and which of them a metric has counted to the end, now or (`left`) before."""

    def __init__(self, clients: Any, left: str) -> None:
        import numpy as np

        self._before = remembered(left)
        self._clients, self._of = np.unique(clients, return_inverse=True)
        self._done = np.isin(self._clients, self._before)
        self._room = CLIENTS - len(self._before)

    def units(self, places: Any, arm: Any, hit: Any, once: bool) -> tuple[Any, Any]:
        """The arm and the hits of each client at risk; of one that is in both arms, in each. None when no more can be remembered."""
        import numpy as np

        if self._room <= 0:
            return arm[:0], hit[:, :0]
        of = self._of[places]
        at_risk = ~self._done[of]
        of, arm, hit = of[at_risk], arm[at_risk], hit[:, at_risk]
        units, first, unit = np.unique(of * 2 + arm, return_index=True, return_inverse=True)
        told = hit[:, first]
        if not once:
            told = np.stack([np.bincount(unit.ravel(), row, len(units)) > 0 for row in hit])
        over = np.unique((units // 2)[told.any(axis=0) | once])
        self._done[over], self._room = True, self._room - len(over)
        return arm[first], told

    def text(self) -> str:
        import numpy as np

        known = np.union1d(self._before, self._clients[self._done])[:CLIENTS]
        return base64.b64encode(known.astype("<u4").tobytes()).decode()


def shared(rows: Rows, bounds: Sequence[tuple[int, int, datetime]]) -> tuple[int, int]:
    """Cell by cell, the clients of the candidate that were in the other arm too, and all of them."""
    import numpy as np

    both = alone = 0
    for began, ended, _ in bounds if rows.clients is not None else ():
        of, who = rows.candidate[began:ended], rows.clients[began:ended]
        ours = np.unique(who[of])
        both, alone = both + int(np.isin(ours, who[~of]).sum()), alone + len(ours)
    return both, alone


def remembered(left: str) -> Any:
    """The clients that were counted to the end."""
    import numpy as np

    return np.frombuffer(base64.b64decode(left), "<u4").astype(np.int64)


def swapped(counts: Any) -> Any:
    """The same cells with the arms exchanged: "less" is "more" seen from the other side."""
    return counts[..., [2, 3, 0, 1]]
