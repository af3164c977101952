"""How long a bad version was served, split into what each part of it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Split:
    """Times are seconds since 1970. Bad answers are those that were wrong or refused, from the deployment to the end of the incident."""

    bad: int
    answers: int
    deployed: float  # the deployment began
    first_bad: float  # the first of them was asked
    found: float  # the finding that failed
    decided: float  # the run was allowed to begin
    tried: float  # the flip was first tried
    flipped: float  # the flip was seen done
    last_bad: float  # the last of them was answered

    @property
    def parts(self) -> Mapping[str, float]:
        """detect + decide + flip + drain = first bad answer to last bad answer, unless the last one came before the flip was seen done."""
        return {
            "detect": self.found - self.first_bad,
            "decide": self.tried - self.found,
            "flip": self.flipped - self.tried,
            "drain": max(0.0, self.last_bad - self.flipped),
        }

    @property
    def words(self) -> str:
        spelt = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.parts.items())
        return f"{self.bad} bad answers of {self.answers}, first to last {self.last_bad - self.first_bad:.2f} s: {spelt}"


BARS = "▁▂▃▄▅▆▇█"
SHOWN = 30  # seconds that a pulse looks back


def pulse(answers: Sequence[Mapping[str, Any]], now: float) -> str:
    """The answers of the last second in words, and how many of each second's were bad as a line of bars, oldest first."""
    good, wrong = [0] * SHOWN, [0] * SHOWN
    for one in answers[-SHOWN * 40 :]:
        age = int(now - moment(one["answered_at"]))
        if 0 <= age < SHOWN:
            (wrong if bad(one) else good)[-1 - age] += 1
    bars = "".join(BARS[min(7, 7 * w // max(1, w + g))] for g, w in zip(good, wrong, strict=True))
    return f"answers a second: {good[-2]} good, {wrong[-2]} bad {bars}"


def bad(answer: Mapping[str, Any]) -> bool:
    """Whether users got something other than the right digit."""
    return answer["status"] != 200 or bool(answer["wrong"])


def split(answers: Sequence[Mapping[str, Any]], deployed: float, incident: Mapping[str, Any], watch: str) -> Split | None:
    """From what the users wrote down and what the agent did; None when there was no bad answer, or no flip."""
    since = [one for one in answers if moment(one["at"]) >= deployed]
    wrong = [one for one in since if bad(one)]
    began = [moment(event["at"]) for event in incident["events"] if event["kind"] == "run.began"]
    tried = [moment(event["at"]) for event in incident["events"] if event["kind"] == "step" and event["what"].startswith("flip: trying")]
    flips = [moment(step["ended_at"]) for run in incident["runs"] for step in run["steps"] if step["name"] == "flip" and step["state"] == "done"]
    found = [moment(member["since_at"]) for member in incident["members"] if member["watch"] == watch]
    if not (wrong and began and tried and flips and found):
        return None
    first, last = min(moment(one["at"]) for one in wrong), max(moment(one["answered_at"]) for one in wrong)
    return Split(len(wrong), len(since), deployed, first, found[0], began[0], tried[0], flips[0], last)


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
