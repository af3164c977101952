"""A Feast feature server as an online store: what it says about each value is read from the value and its event time, never from its status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from agent import Fetched, Json, Locator, adapter
from agent.errors import AnswerError, ConfigError
from agent.targets import _shapes
from agent.targets._sql import nearest
from agent.wire import Wire

OPTIONS = ("service", "features", "full_names", "batch")
PATH = "get-online-features"
NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # how protobuf writes a timestamp that nobody set
MOST = 1000  # entities in one request


@adapter(role="online", schemes=("feast",))
class Feast:
    """`feast+http://host:6566`, with `service: NAME` or `features: [view:feature, ...]`; `full_names: true` calls them view__feature.

    `batch` is how many entities go into one request (100). With Redis behind it Feast calls an entity it never had PRESENT, null, of 1970: so a
    null of 1970 is not present, whatever its status, and a value of 1970 has no event time.
    """

    can: frozenset[str] = frozenset({"times"})

    def __init__(self, at: Locator) -> None:
        given = _shapes.options(at, OPTIONS)
        self._whose = f"{at.service}.{at.role}"
        self._service, self._full, self._batch = given.get("service"), given.get("full_names", False), given.get("batch", 100)
        self._refs = self._references(given.get("features"))
        if (self._service is None) == (given.get("features") is None):
            raise ConfigError(f"{self._whose}: needs either `service: NAME` (a feature service) or `features: [view:feature, ...]`")
        if not isinstance(self._full, bool):
            raise ConfigError(f"{self._whose}.full_names: is true or false, not {self._full!r}")
        if isinstance(self._batch, bool) or not isinstance(self._batch, int) or not 1 <= self._batch <= MOST:
            raise ConfigError(f"{self._whose}.batch: is a whole number from 1 to {MOST}, not {self._batch!r}")
        self._wire = Wire(at)

    def ready(self) -> bool:
        """Whether `/health` answers; 503 says no."""
        try:
            self._wire.get("health")
        except AnswerError as problem:
            if problem.status == 503:
                return False
            raise
        return True

    def features(self, names: Sequence[str], entities: Sequence[Mapping[str, Json]]) -> Sequence[Mapping[str, Fetched]]:
        """Asked in batches, one after another, each within the target's `within`; see OnlineStore."""
        asked = self._asked(names)
        found: list[Mapping[str, Fetched]] = []
        for start in range(0, len(entities), self._batch):
            found += self._ask(asked, names, entities[start : start + self._batch])
        return found

    def close(self) -> None:
        """Closes the connections."""
        self._wire.close()

    def _references(self, given: Json) -> dict[str, str]:
        """The name each feature has in an answer -> how it is asked for."""
        if given is None:
            return {}
        well = isinstance(given, (list, tuple)) and given and all(isinstance(one, str) and all(one.partition(":")) for one in given)
        if not well:
            raise ConfigError(f"{self._whose}.features: is a list of view:feature, such as [driver_stats:trips], not {given!r:.80}")
        named = {self._name(one): one for one in given}
        if len(named) < len(set(given)):
            raise ConfigError(f"{self._whose}.features: two views have a feature of one name; set full_names: true, which calls them view__feature")
        return named

    def _name(self, reference: str) -> str:
        view, _, name = reference.partition(":")
        return f"{view.partition('@')[0]}__{name}" if self._full else name

    def _asked(self, names: Sequence[str]) -> Mapping[str, Json]:
        if self._service is not None:
            return {"feature_service": self._service, "full_feature_names": self._full}
        _known(names, self._refs, "`features` of the target")
        return {"features": [self._refs[name] for name in names or self._refs], "full_feature_names": self._full}

    def _ask(self, asked: Mapping[str, Json], names: Sequence[str], entities: Sequence[Mapping[str, Json]]) -> list[Mapping[str, Fetched]]:
        columns = {key: [entity[key] for entity in entities] for key in entities[0]}
        given = _columns(self._wire.request(**_shapes.posting(PATH, {**asked, "entities": columns})).json(), len(entities))
        there = {name: column for name, column in given.items() if name not in columns}
        _known(names, there, f"the feature service '{self._service}'" if self._service else "the answer")
        return [{name: there[name][place] for name in names or there} for place in range(len(entities))]


def _known(names: Sequence[str], there: Mapping[str, object], where: str) -> None:
    for name in names:
        if name not in there:
            raise AnswerError(f"{where} gives no feature '{name}'{nearest(name, there)}")


def _columns(body: Json, count: int) -> dict[str, list[Fetched]]:
    """Feature name -> what it is for each entity. A body of another shape, or with more or fewer entities than were asked, is an AnswerError."""
    try:
        names, results = body["metadata"]["feature_names"], body["results"]
        found = {str(name): list(_column(result, count)) for name, result in zip(names, results, strict=True)}
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise AnswerError(
            f"{PATH}: the answer is not what Feast's feature server gives for {count} entities ({type(problem).__name__}: {problem})"
        ) from None
    return found


def _column(result: Mapping[str, Json], count: int) -> Iterator[Fetched]:
    values, times = result["values"], result.get("event_timestamps") or [None] * count
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"{len(values)} values")
    for value, text in zip(values, times, strict=True):
        event_at = _moment(text)
        yield Fetched(value, event_at, value is not None or event_at is not None)


def _moment(text: Json) -> datetime | None:
    """An event time; None for null, and for 1970, which nobody meant."""
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at if at > NEVER else None
