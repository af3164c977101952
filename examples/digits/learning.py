"""The story of the demo that learns: digits are turned, a retraining that forgot is blocked, one that rehearsed is served, and nothing is lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from examples.digits.learned import FIRST, NAIVE, REPLAY
from examples.digits.served import Digits
from examples.digits.split import bad
from examples.digits.stage import HOUSE
from examples.digits.story import RATE, SERVICE, MissedError, Story

NEXT = str(int(FIRST) + 1)
SEEN = 60  # answers that tell how users fare


class Pupil(Digits):
    """The example's own server with the version that learned upright digits, under a watch with a trainer."""

    versions, serves, follows = FIRST, FIRST, True
    config = HOUSE / "examples" / "digits" / "learning.yaml"

    def configure(self) -> dict[str, str]:
        return {**super().configure(), "DIGITS_PYTHON": sys.executable}


class Learning(Story):
    """`python -m examples.digits.demo --learn` plays it."""

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("start", self.begin),
            ("turned images", self.turned_images),
            ("a candidate that forgot", self.forgot),
            ("a candidate that rehearsed", self.rehearsed),
            ("nothing is forgotten", self.nothing_forgotten),
            ("audit", self.audit),
        ]

    def turned_images(self) -> None:
        """The upstream turns its images; users get wrong answers, and the agent sees that the images drift."""
        self.until("the first looks are all ok", self.all_ok, 60)
        self._fare(f"version {FIRST} reads upright images", lambda share: share < 0.1)
        self.send("turned", "sends its images turned by a quarter; each pixel is within its range")
        self.until("an incident opens over drift.compare", lambda: self.agent.incident("drift.compare"), 90)
        self._fare(f"version {FIRST} has never seen one of these", lambda share: share > 0.5)

    def forgot(self) -> None:
        """Retrained on turned images alone, it has forgotten the upright ones; the gate says so."""
        run = self._retrained(NAIVE, "ada labels turned images, and has the net learn them, and nothing else", lambda run: bool(run["ended_at"]))
        if run["state"] != "stopped" or "BLOCK" not in run["said"]:
            raise MissedError(f"the gate should have blocked it; instead the run is {run['state']}: {run['said']}")
        self._still(FIRST)

    def rehearsed(self) -> None:
        """Retrained with what it had kept of the upright images, it is promoted, registered, rolled out and served."""
        run = self._retrained(REPLAY, "the same, with 400 rows that it kept of what it learned before", lambda run: self._awaited(run["id"]))
        child = self._awaited(run["id"])
        if not child:
            raise MissedError(f"its rollout should wait for a person; instead the run is {run['state']}: {run['said']}")
        self.narrator.tell("operator", f"allows version {NEXT}, which the server has loaded beside version {FIRST}, to serve")
        self.wk("runbook", "approve", str(child["id"]))
        self.until("the retraining has come to its end", lambda: self._run(run["id"])["ended_at"], 90)
        if (over := self._run(run["id"]))["state"] != "succeeded":
            raise MissedError(f"version {NEXT} should be served; instead the run is {over['state']}: {over['said']}")
        self._still(NEXT)

    def nothing_forgotten(self) -> None:
        """Turned images are read now, and so are upright ones still."""
        self._fare("turned images", lambda share: share < 0.15)
        self.send("good", "sends its images upright again")
        self._fare("upright images, which it has not forgotten", lambda share: share < 0.15)

    # Their parts

    def _train(self) -> None:
        models = self.stage.folder / "models"
        if not (models / "stream.jsonl").exists():
            self.narrator.tell("operator", "teaches a small torch net the upright digits, and registers it")
            training = self.stage.python("training", "examples.digits.learned", "--to", models)
            self.until("the training ends", lambda: self.stage.done(training), 120)

    def all_ok(self) -> bool:
        return all(one["status"] == "ok" for one in self.agent.state()["watches"])

    def _retrained(self, how: Mapping[str, Any], what: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """A retraining that the operator asks for, once it has come so far."""
        before = max((run["id"] for run in self._runs()), default=0)
        self.narrator.tell("operator", f"{what}: $ watchkeeper runbook run retrain {SERVICE} --param parameters={{strategy: {how['strategy']}, ...}}")
        words = ("runbook", "run", "retrain", SERVICE, "--param", f"parameters={json.dumps(how)}", "--by", "ada")
        self.stage.python("retraining", "agent.cli", "--config", self.config, *words, fine=(0, 1))
        found = self.until("the run is planned", lambda: [run for run in self._runs() if run["id"] > before and run["runbook"] == "retrain"], 60)
        self.until("the candidate is judged", lambda: holds(self._run(found[0]["id"])) or self._run(found[0]["id"])["ended_at"], 120)
        return self._run(found[0]["id"])

    def _runs(self) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.agent.get(f"/api/runs?service={SERVICE}&limit=50")
        return runs

    def _run(self, number: int) -> dict[str, Any]:
        return next(run for run in self._runs() if run["id"] == number)

    def _awaited(self, parent: int) -> dict[str, Any]:
        """The rollout that the retraining wants, and that a person has to allow."""
        return next((run for run in self._runs() if run["id"] > parent and run["state"] == "awaiting"), {})

    def _still(self, version: str) -> None:
        if (served := self.server.served()) != version:
            raise MissedError(f"version {version} should serve; version {served} does")
        self.narrator.tell("operator", f"version {version} serves")

    def _fare(self, what: str, right: Callable[[float], bool]) -> None:
        """Tell how users fare with the images from now on; MissedError where that is not as it should be."""
        begun = len(self.answers.all) + int(RATE)
        self.until("users have had answers", lambda: len(self.answers.all) >= begun + SEEN, 60)
        wrong = sum(map(bad, self.answers.all[begun : begun + SEEN]))
        self.narrator.tell("users", f"{wrong} wrong answers of {SEEN}: {what}")
        if not right(wrong / SEEN):
            raise MissedError(f"{wrong} of {SEEN} answers are wrong: {what}")
