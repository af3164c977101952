"""Reads what other tools' drift reports say about each column: Evidently's three forms, and the scores that whylogs computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

from agent import Json
from agent.errors import DataError

# Evidently's methods by what their score is, under the name a report has when the method was chosen and the one it has when it was not.
DISTANCES = {
    "ed": "Energy-distance",
    "hellinger": "Hellinger distance",
    "jensenshannon": "Jensen-Shannon distance",
    "kl_div": "Kullback-Leibler divergence",
    "psi": "PSI",
    "wasserstein": "Wasserstein distance (normed)",
}
P_VALUES = {
    "TVD": "Total-Variation-Distance",
    "anderson": "Anderson-Darling",
    "chisquare": "chi-square p_value",
    "cramer_von_mises": "Cramer-von Mises",
    "empirical_mmd": "empirical_mmd",
    "es": "Epps-Singleton",
    "fisher_exact": "Fisher's Exact test",
    "g_test": "g_test",
    "ks": "K-S p_value",
    "mannw": "Mann-Whitney U-rank test",
    "t_test": "t_test",
    "z": "Z-test p_value",
}
LARGE_IS_DRIFT, SMALL_IS_DRIFT = ({*names, *names.values()} for names in (DISTANCES, P_VALUES))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a report: its score, the threshold beside it, how it was made, and whether the tool called it drifted (None: it did not say)."""

    name: str
    score: float | None
    threshold: float | None
    how: str
    drifted: bool | None
    perhaps: bool = False  # whylogs' POSSIBLE_DRIFT


@dataclass(frozen=True, slots=True)
class Report:
    """The columns, and from which share of drifted ones the tool calls the whole data set drifted."""

    columns: tuple[Column, ...]
    share: float | None = None


def evidently(body: Json) -> Report:
    """What Evidently's JSON says: `Report` of 0.7, or `Report` and `TestSuite` of the API before it. DataError when it holds no drift result."""
    metrics, tests = (_list(body, key) for key in ("metrics", "tests"))
    called = {_map(one, "metric_config").get("metric_id"): one.get("status") for one in tests}
    found = [*_new(metrics, called), *_old(metrics), *_tested(tests)]
    columns = {(one.name, one.how): one for one in sorted(found, key=lambda one: one.drifted is True)}  # the last one stays: the worst
    if not columns:
        raise DataError("it holds no drift of any column: save a report with DataDriftPreset or ValueDrift")
    shares = [_number(_map(one, "config").get("drift_share", _map(one, "result").get("drift_share"))) for one in metrics]
    shares += [_number(_map(_map(one, "parameters"), "condition").get("lt")) for one in tests if one.get("name") == "Share of Drifted Columns"]
    return Report(tuple(columns.values()), next((share for share in shares if share is not None), None))


def _new(metrics: list[Mapping[str, Json]], called: Mapping[Json, Json]) -> Iterator[Column]:
    for one in metrics:
        config = _map(one, "config")
        if str(config.get("type", "")).endswith(":ValueDrift"):
            score, threshold, how = _number(one.get("value")), _number(config.get("threshold")), str(config.get("method", ""))
            status = called.get(one.get("id"))
            drifted = status == "FAIL" if status in ("FAIL", "SUCCESS") else _called(score, threshold, how)
            yield Column(str(config.get("column")), score, threshold, how, drifted if score is not None else None)


def _called(score: float | None, threshold: float | None, how: str) -> bool | None:
    """As Evidently calls it. Its methods differ on a score that is exactly the threshold, and there this follows its defaults, KS and Wasserstein."""
    if score is None or threshold is None:
        return None
    return score >= threshold if how in LARGE_IS_DRIFT else score <= threshold if how in SMALL_IS_DRIFT else None


def _old(metrics: list[Mapping[str, Json]]) -> Iterator[Column]:
    for one in metrics:
        result = _map(one, "result")
        each = [result] if one.get("metric") == "ColumnDriftMetric" else _map(result, "drift_by_columns").values()
        for column in each:
            if isinstance(column, Mapping) and "drift_score" in column:
                names = ("column_name", "drift_score", "stattest_threshold", "stattest_name", "drift_detected")
                yield _column(*(column.get(name) for name in names))


def _tested(tests: list[Mapping[str, Json]]) -> Iterator[Column]:
    for one in tests:
        given = _map(one, "parameters")
        each = {str(given.get("column_name")): given} if "column_name" in given and "detected" in given else _map(given, "features")
        for name, column in each.items():
            if isinstance(column, Mapping) and "detected" in column:
                yield _column(name, *(column.get(word) for word in ("score", "threshold", "stattest", "detected")))


def _column(name: Json, score: Json, threshold: Json, how: Json, detected: Json) -> Column:
    known = _number(score)
    return Column(str(name), known, _number(threshold), str(how), detected if isinstance(detected, bool) and known is not None else None)


def whylogs(body: Json) -> Report:
    """What `calculate_drift_scores` of whylogs says, written with json.dump. DataError when it is something else."""
    columns = tuple(_scored(str(name), one) for name, one in body.items() if one is None or _is_score(one)) if isinstance(body, Mapping) else ()
    if not any(one.how for one in columns):
        raise DataError("it holds no drift scores: write json.dump(calculate_drift_scores(target, reference, with_thresholds=True))")
    return Report(columns)


def _is_score(one: Json) -> bool:
    return isinstance(one, Mapping) and "algorithm" in one


def _scored(name: str, one: Mapping[str, Json] | None) -> Column:
    if one is None:  # whylogs' word for a column that one of the profiles lacks, or that has no distribution
        return Column(name, None, None, "", None)
    p, category = _number(one.get("pvalue")), str(one.get("drift_category", ""))
    score = p if p is not None else _number(one.get("statistic"))
    span = _map(one, "thresholds").get("DRIFT")
    edge = (span[1] if p is not None else span[0]) if isinstance(span, list) and len(span) == 2 else None
    drifted = {"DRIFT": True, "NO_DRIFT": False, "POSSIBLE_DRIFT": False}.get(category) if score is not None else None
    how = f"{one['algorithm']}{' p-value' if p is not None else ''}"
    return Column(name, score, _number(edge), how, drifted, category == "POSSIBLE_DRIFT")


def _list(body: Json, key: str) -> list[Mapping[str, Json]]:
    found = body.get(key) if isinstance(body, Mapping) else None
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _map(body: Json, key: str) -> Mapping[str, Json]:
    found = body.get(key) if isinstance(body, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) else None
