"""Numbers in Prometheus, or in what speaks its HTTP API: Thanos, Mimir, VictoriaMetrics, Cortex."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlencode

from agent import Json, Locator, Sample, Samples, Window, adapter, duration
from agent.errors import AnswerError, ConfigError, DeadlineError, DeniedError, ServerError, TargetError
from agent.targets import _shapes
from agent.wire import Reply, Wire, remaining

PLACEHOLDER = re.compile(r"\$window\b")
QUERY_PATH = "api/v1/query"
SEEN = 0.9  # of the time there is: the server gives up before we do, and then says so


@adapter(role="metrics", schemes=("prometheus",))
class Prometheus:
    """`prometheus+http://host:9090`, with a path prefix where there is one, and these options, all of which may be left out:

    `up`: the selector of the service's own scrape, such as up{job="fraud"}, which makes this target a control look. `interval`: how often it
    is scraped (1m). `tenant`: sent as X-Scope-OrgID. In a query `$window` is the window's length, as in rate(x[$window]).
    """

    smallest = "vector(1)"

    def __init__(self, at: Locator) -> None:
        self._at, given = at, _shapes.options(at, ("up", "interval", "tenant"))
        self._up, self._fresh = str(given.get("up") or ""), 2 * _seconds(at, given.get("interval", "1m"))
        self._said = {"Content-Type": "application/x-www-form-urlencoded"}
        if given.get("tenant"):
            self._said["X-Scope-OrgID"] = str(given["tenant"])
        self.can: frozenset[str] = frozenset({"control"} if self._up else ())
        self._wire = Wire(at)

    def query(self, text: str, window: Window) -> Samples:
        """An instant query at the window's end. AnswerError in the server's own words for what it does not take, ServerError where it is broken,
        DeadlineError where either side ran out of time."""
        length = round(window.length.total_seconds() * 1000)
        return self._asked({"query": PLACEHOLDER.sub(f"{length}ms", text), "time": f"{window.end.timestamp():.3f}"})

    def sighted(self) -> str:
        """The service's own scrape failing, or any other target scraped well, within two intervals by the server's own clock."""
        if not self._up:
            return ""
        if self._counted(f"({self._up}) == 0"):
            return f"Prometheus cannot scrape {self._up} either"
        others = self._counted(f"(up == 1) unless ({self._up})", "up")
        return f"Prometheus sees {others} other target{'' if others == 1 else 's'}" if others else ""

    def close(self) -> None:
        """Closes the connections."""
        self._wire.close()

    def _counted(self, expression: str, scraped: str = "") -> int:
        fresh = f"time() - timestamp({scraped or self._up}) <= {self._fresh:g}"
        found = self._asked({"query": f"count(({expression}) and ({fresh}))"}).series
        return int(found[0].value) if found else 0

    def _asked(self, form: Mapping[str, str]) -> Samples:
        left = remaining()
        within = self._at.within.total_seconds() if left is None else min(left, self._at.within.total_seconds())
        sent = urlencode({**form, "timeout": f"{max(1, round(within * SEEN * 1000))}ms"}).encode()
        reply = self._wire.post(QUERY_PATH, content=sent, headers=self._said, anyway=True)
        if not 200 <= reply.status < 300:
            raise _refused(reply)
        body = reply.json()
        if not isinstance(body, Mapping) or body.get("status") != "success" or not isinstance(body.get("data"), Mapping):
            raise AnswerError(f"{reply.url}: no answer of the Prometheus API: {reply.excerpt()!r}; check the path prefix", reply.status)
        warnings = body.get("warnings") or ()
        return Samples(_series(body["data"], reply.url), tuple(map(str, warnings)) if isinstance(warnings, list) else ())


def _seconds(at: Locator, given: Json) -> float:
    try:
        length = duration(given) if isinstance(given, str) else timedelta(seconds=given)
    except (ValueError, TypeError) as problem:
        raise ConfigError(f"{at.service}.{at.role}.interval: write how often it is scraped, such as 15s, not {given!r}") from problem
    return length.total_seconds()


def _series(data: Mapping[str, Json], where: str) -> tuple[Sample, ...]:
    """The samples of an instant vector or a scalar; every other shape is refused with what to write instead."""
    kind, result = data.get("resultType"), data.get("result")
    if kind == "matrix":
        raise AnswerError(f"{where}: the query gives ranges, not numbers; put a function around it, such as rate(...) or last_over_time(...)")
    if kind == "scalar":
        return (Sample({}, _number(result, where)),)
    if kind != "vector" or not isinstance(result, list):
        raise AnswerError(f"{where}: the query gives {kind!r:.40}, not numbers by series")
    return tuple(_sample(one, where) for one in result)


def _sample(one: Json, where: str) -> Sample:
    if isinstance(one, Mapping) and "histogram" in one:
        raise AnswerError(f"{where}: the query gives native histograms, not numbers; put histogram_quantile(0.99, ...) around it")
    if not isinstance(one, Mapping) or not isinstance(labels := one.get("metric"), Mapping):
        raise AnswerError(f"{where}: a series needs metric and value, and one is {one!r:.120}")
    return Sample({str(name): str(value) for name, value in labels.items()}, _number(one.get("value"), where))


def _number(pair: Json, where: str) -> float:
    """The number of [time, "text"]; it travels as text so that NaN and the infinities can."""
    try:
        _, text = pair
        if not isinstance(text, str):
            raise TypeError
        return float(text)
    except (TypeError, ValueError) as problem:
        raise AnswerError(f'{where}: a value should be [time, "number"], and one is {pair!r:.80}') from problem


def _refused(reply: Reply) -> TargetError:
    """What another status than 2xx means, in the server's own words where it has some."""
    kind, words = _words(reply)
    said = f"{reply.url}: {reply.status}, {words}"
    if reply.status in (401, 403):
        return DeniedError(f"{said}; check what this credential is allowed to do")
    if kind in ("timeout", "canceled"):
        return DeadlineError(f"{said}; the query costs too much: shorten its ranges, or record it as a rule")
    if reply.status >= 500:
        return ServerError(said, reply.status)
    if reply.status in (400, 422):
        return AnswerError(f"{said}; mend the query", reply.status)
    return AnswerError(f"{said}; check the URL and its path prefix", reply.status)


def _words(reply: Reply) -> tuple[str, str]:
    try:
        body = json.loads(reply.body)
        return str(body["errorType"]), str(body["error"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", repr(reply.excerpt())
