"""The online path judged by the offline one: each online value by the offline row of its own time, and late ones told from wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from agent import Columns, Fetched, Json, Kind
from checks._join import Past, valued
from checks._skew import Near, Seen, read, wrong

BACK = 100  # older rows of an entity that a value without an event time is looked for in


@dataclass(frozen=True, slots=True)
class Paths:
    """The offline rows of the entities asked for, and what it takes to judge an online value by them."""

    past: Past
    hashes: Sequence[str]
    now: float
    lag: float
    max_age: timedelta | None

    def compare(self, name: str, given: Sequence[Fetched], rows: Columns, kind: Kind, near: Near) -> Seen:
        """Each entity's online value judged by the offline row of its own time."""
        values = self._values(name, given, rows)
        seen = Seen(name)
        for who, one in enumerate(given):
            self._judge(seen, who, Fetched(read(one.value, kind), one.event_at, one.present), values, near)
        return seen

    def _values(self, name: str, given: Sequence[Fetched], rows: Columns) -> Mapping[int, Json]:
        """The offline values that may be needed, by place: one pass over the column."""
        needed = (place for who, one in enumerate(given) for place in self._needed(who, one))
        return valued(rows, name, needed, self.past.rows)

    def _needed(self, who: int, one: Fetched) -> Iterator[int]:
        if one.present and one.event_at is None:
            yield from self.past.places[who][-BACK:]
        elif (place := self.past.before(who, _until(one) if one.event_at else self.now - self.lag)) is not None:
            yield place

    def _judge(self, seen: Seen, who: int, one: Fetched, values: Mapping[int, Json], near: Near) -> None:
        if not one.present:
            self._absent(seen, who, values)
        elif one.event_at is None:
            self._undated(seen, who, one.value, values, near)
        else:
            self._dated(seen, who, one, values, near)

    def _absent(self, seen: Seen, who: int, values: Mapping[int, Json]) -> None:
        """Missing, unless offline has nothing that should be online by now either."""
        due = self.past.before(who, self.now - self.lag)
        if due is None:
            seen.untold += 1
        else:
            seen.add(None if values[due] is None else "missing", values[due], None, self.hashes[who])

    def _dated(self, seen: Seen, who: int, one: Fetched, values: Mapping[int, Json], near: Near) -> None:
        until = _until(one)
        assert one.event_at is not None
        place, due = self.past.before(who, until), self.past.before(who, self.now - self.lag)
        is_late = due is not None and self.past.when(who, due) > until
        if due is not None and is_late:
            seen.late += 1
            seen.behind = max(seen.behind, self.past.when(who, due) - one.event_at.timestamp())
        seen.dated += 1
        if place is None:
            self._beyond(seen, who, one, until, is_late)
            return
        cause = wrong(values[place], one.value, near)
        newer = until - self.past.when(who, place) >= 1 and place == self.past.places[who][-1]
        if cause and newer:
            seen.ahead += 1
        else:
            seen.add(cause, values[place], one.value, self.hashes[who])

    def _beyond(self, seen: Seen, who: int, one: Fetched, until: float, is_late: bool) -> None:
        """No offline row is as old: too old for training, late and told as that, or unknown offline."""
        if self.max_age is not None and not is_late and one.value is not None and until < self.now - self.max_age.total_seconds():
            seen.add("expired", None, one.value, self.hashes[who])
        else:
            seen.untold += 1

    def _undated(self, seen: Seen, who: int, value: Json, values: Mapping[int, Json], near: Near) -> None:
        """Right if some row that may be online now has it; late if an older one has; else wrong."""
        places = self.past.places[who][-BACK:]
        if not places:
            seen.untold += 1
            return
        due = self.past.before(who, self.now - self.lag)
        same = [place for place in places if wrong(values[place], value, near) is None]
        first = places.index(due) if due in places else 0
        seen.dated += 1
        if same and not set(same) & set(places[first:]):
            seen.late += 1
            seen.behind = max(seen.behind, self.past.when(who, places[first]) - self.past.when(who, same[-1]))
        expected = values[same[-1] if same else places[-1]]
        seen.add(wrong(expected, value, near), expected, value, self.hashes[who])


def _until(one: Fetched) -> float:
    """The event time; a whole second stands for all of it, since some stores drop the fraction."""
    assert one.event_at is not None
    at = one.event_at.timestamp()
    return at if one.event_at.microsecond else at + 0.999999
