"""Tables that Spark reads, counted there: `spark:logs/predictions` (a folder of Parquet) or `spark:?table=ml.predictions` (of its catalog)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

from agent import Kind, Locator, adapter
from agent.errors import ConfigError, DataError, DeadlineError, PluginError, UnreachableError
from agent.targets._counted import Counted, CountedSource
from agent.targets._dialect import SPARK
from agent.targets._sql import Stored, Where, path_of
from agent.wire import remaining

FORMATS = ("parquet", "orc", "delta", "csv", "json")
NAMES: Mapping[str, Kind] = {
    **dict.fromkeys(("tinyint", "smallint", "int", "bigint"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "number"),
    **dict.fromkeys(("string", "varchar", "char"), "text"),
    **dict.fromkeys(("timestamp", "timestamp_ntz", "date"), "time"),
    "boolean": "boolean",
    "binary": "bytes",
}
SETTINGS = {"spark.sql.session.timeZone": "UTC", "spark.sql.parser.escapedStringLiterals": "false"}


@adapter(role="table", schemes=("spark",))
class Spark(Counted):
    """A folder of files (`?format=`, else parquet) or a table of the catalog, in the session that Spark's own configuration makes."""

    def __init__(self, at: Locator) -> None:
        super().__init__(SparkSource(at), at.options)


class SparkSource(CountedSource):
    """A session of this process, made when first needed; a new look sees files that came since."""

    dialect = SPARK

    def __init__(self, at: Locator) -> None:
        path, _, query = path_of(at).partition("?")
        asked = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
        self._table, self._format = asked.pop("table", ""), asked.pop("format", "parquet")
        self.place = f"spark:{path}" + (f"?{query}" if query else "")
        if asked or self._format not in FORMATS or bool(path) == bool(self._table):
            formats = ", ".join(FORMATS)
            raise ConfigError(
                f"{at.service}.{at.role}: {self.place} names no table; write a folder, with ?format= ({formats}), or ?table=, and no more"
            )
        self._path = path if ":" in path else str(Path(at.folder) / path)
        self._at, self._view = at, f"watchkeeper_{uuid4().hex}"
        self._session: Any = None

    def close(self) -> None:
        """Let go of the view; the session is the process's, and dear to start."""
        if self._session is not None:
            self._session.catalog.dropTempView(self._view)
        self._session = None

    def relation(self) -> str:
        """The rows as they were when their columns were asked for."""
        return self._view

    def stored(self, where: Where | None) -> Mapping[str, Stored]:
        """The columns of the table."""
        with self._asking() as session:
            if self._table:
                frame = session.table(".".join(map(SPARK.name, self._table.split("."))))
            else:
                frame = session.read.format(self._format).load(self._path)
            frame.createOrReplaceTempView(self._view)
            return {field.name: _stored(field.dataType.simpleString()) for field in frame.schema.fields}

    def ask(self, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        """The rows that each statement answers."""
        with self._asking() as session:
            return [self._collected(session, statement) for statement in statements]

    def _collected(self, session: Any, statement: str) -> list[tuple[Any, ...]]:
        rows = [tuple(row) for row in session.sql(statement).collect()]
        if remaining() == 0:  # what was not under way at the deadline could not be cancelled
            raise self._late()
        return rows

    def _late(self) -> DeadlineError:
        return DeadlineError(f"{self.place} was not counted in time; look at less, or give the watch longer")

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        """The session; its jobs are cancelled at the deadline around the caller."""
        errors, py4j = self._driver()
        try:
            with self._in_time():
                yield self._opened()
        except (errors.PySparkException, py4j.Py4JJavaError) as problem:
            if remaining() == 0:
                raise self._late() from problem
            if "JAVA_GATEWAY" in str(problem):
                raise PluginError(f"{self.place} needs Java, 17 or newer, which did not start; install it or set JAVA_HOME") from problem
            raise DataError(f"{self.place} cannot be read: {_said(problem)}") from problem
        except (py4j.Py4JError, OSError) as problem:
            self._session = None
            raise UnreachableError(f"{self.place}: Spark is gone ({_said(problem)})") from problem

    def _driver(self) -> tuple[Any, Any]:
        try:
            return import_module("pyspark.errors"), import_module("py4j.protocol")
        except ImportError as problem:
            raise PluginError(f"{self.place} needs pyspark, which is not installed: pip install 'watchkeeper[spark]'") from problem

    def _opened(self) -> Any:
        if self._session is None:
            make = import_module("pyspark.sql").SparkSession.builder.appName("watchkeeper")
            for name, value in {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}.items():
                make = make.config(name, value)
            self._session = make.getOrCreate().newSession()
            for name, value in SETTINGS.items():
                self._session.conf.set(name, value)
        return self._session

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        left = remaining()
        if left is None:
            yield
            return
        timer = threading.Timer(left, self._cancelled)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cancelled(self) -> None:
        if (session := self._session) is not None:
            session.sparkContext.cancelAllJobs()


def _said(problem: BaseException) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (lines[0] if lines else type(problem).__name__)[:300]


def _stored(kind: str) -> Stored:
    if kind.startswith("array<"):
        return Stored("list", of=_kind(kind[6:-1]))
    return Stored(_kind(kind), naive=kind in ("timestamp_ntz", "date"))


def _kind(name: str) -> Kind:
    return NAMES.get(name.partition("(")[0], "other")
