"""Whether a new version that has part of the traffic should lose it, or may have all of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from agent import Columns, Verdict, Window, check, nodata
from agent.errors import ConfigError
from checks._arms import Arms
from checks._canary_told import Rules, told
from checks._labels import class_name
from checks._trial import MARGINS, Asked, Trial, begun, columns_of, looked

Metric = Literal["errors", "latency", "predictions", "quality"]
HARMS: list[Metric] = ["errors", "latency", "quality"]  # of which more is worse; other predictions may be better ones


@check(pillar="deployment", asks="Is the new version worse than the old one in the same minutes, or surely not?", cause="answers")
def compare(
    live: Columns,
    window: Window,
    memory: Trial | None,
    labels: Columns | None = None,
    *,
    baseline: str,
    candidate: str,
    status: str | None = None,
    error_from: float = 500.0,
    latency: str | None = None,
    slow_above: float | None = None,
    client: str | None = None,
    wrong_above: float | None = None,
    metrics: list[Metric] | None = None,
    margins: dict[Metric, float] | None = None,
    critical: list[Metric] | None = None,
    alpha: float = 0.01,
    rows_at_least: int = 200,
    stretch: timedelta = timedelta(seconds=5),
    before: timedelta = timedelta(hours=1),
) -> Verdict:
    """Fails when `candidate` is surely worse than `baseline` (roll back), is ok when it surely is not by more than `margins` (promote), and else is
    nodata: hold, with what is still needed.

    Compared are, in cells of the same minutes, the shares of errors (`status` from `error_from` on, or true), of slow answers (`latency` above
    `slow_above`, else above the baseline's usual 95 %), of each predicted class or cell of numbers, and of answers that labels show to be wrong
    (numbers: by more than `wrong_above`). `metrics` are those to judge: by default all whose columns there are. Evidence adds up from look to
    look, and may be looked at as often as one likes: each row is judged once, a wrong roll back happens in at most `alpha` of canaries that are
    no worse, however long they go on (Holm over the metrics), and a wrong promotion in at most `alpha` of those that are worse by a margin.
    Only `critical` metrics roll back (by default all but predictions); one that is not holds. Promotion needs every metric, and
    `rows_at_least` requests of either version. `client` counts clients instead of requests, and belongs where a client stays with its version.
    What is slow, and which predictions there are, is taken from the baseline's rows of `before` the first window. checks/_canary.py has the method.
    """
    judged = _judged(live, labels, status, latency, metrics)
    asked = Asked(
        Arms(baseline, candidate, live.declared["version"], client),
        judged,
        {**MARGINS, **{str(name): margin for name, margin in (margins or {}).items()}},
        stretch,
        before,
        status,
        error_from,
        latency,
        slow_above,
        _predicted(live),
        wrong_above,
    )
    rules = Rules(alpha, rows_at_least, tuple(HARMS if critical is None else critical))
    if wrong := _wrong(asked, rules):
        raise ConfigError(wrong)
    columns_of(live, [asked.arms.version, *asked.columns, client])
    trial = memory or begun(live, window, asked)
    if isinstance(trial, str):
        return nodata(f"hold: {trial}")
    if trial.until_at >= window.end and memory is None:
        return nodata("hold: what is usual was learnt from this window; what comes after it is judged", memory=trial)
    return told(looked(live, labels, window, trial, asked), window, asked, rules)


def _predicted(live: Columns) -> str | None:
    return live.declared.get("prediction") or live.declared.get("score")


def _judged(live: Columns, labels: Columns | None, status: str | None, latency: str | None, metrics: list[Metric] | None) -> tuple[Metric, ...]:
    """The metrics whose columns are known, or those that were asked for; ConfigError where one of these has none."""
    if not live.declared.get("version"):
        raise ConfigError("live declares no version, so two of them cannot be told apart; add `version: version` to targets.live")
    means: dict[Metric, tuple[bool, str]] = {
        "errors": (status is not None, "say which column is the `status`"),
        "latency": (latency is not None, "say which column is the `latency`"),
        "predictions": (_predicted(live) is not None, "declare the `prediction` or the `score` of live"),
        "quality": (labels is not None and bool(live.declared.get("prediction")), "bind labels, and declare the `prediction` of live"),
    }
    for name in metrics or ():
        if not means[name][0]:
            raise ConfigError(f"metrics: {name} cannot be judged; {means[name][1]}, or leave it out")
    found = tuple(name for name in means if (name in metrics if metrics is not None else means[name][0]))
    if not found:
        raise ConfigError("there is nothing to compare two versions by; say `status` or `latency`, or declare the prediction of live")
    return found


def _wrong(asked: Asked, rules: Rules) -> str:
    """What is wrong with the parameters, in words."""
    if not (asked.arms.baseline.strip() and asked.arms.candidate.strip()):
        return "baseline and candidate are the names of two versions, and one is empty"
    if class_name(asked.arms.baseline) == class_name(asked.arms.candidate):
        return f"baseline and candidate are both '{asked.arms.baseline}'; name two versions"
    if not 0 < rules.alpha <= 0.2:
        return f"alpha is {rules.alpha:g}; a chance to be wrong lies above 0 and is at most 0.2"
    for name, margin in asked.margins.items():
        if not 0 < margin < 1:
            return f"margins: {name} is {margin:g}; a difference of shares lies between 0 and 1"
    if asked.stretch < timedelta(seconds=0.1) or rules.rows_at_least < 1 or asked.before < timedelta(0):
        return "stretch is at least 100ms, rows_at_least at least 1, and before no less than nothing"
    return ""
