"""The failures of a game day: how each is made, which watch should find it, and what should put it right."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from examples.digits.stage import Stage
from examples.digits.story import SERVICE, Story


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure. `found_by`: the watch that should find it, within that many seconds; `cure`: the runbook that should put it right by itself.

    Where none should, the agent must leave the service as it is. `mend` is what a person then does at the source.
    """

    name: str
    what: str
    found_by: str
    make: Callable[[Story], None]
    mend: Callable[[Story], None]
    cure: str = ""
    within: float = 30


def failures() -> tuple[Failure, ...]:
    """All that can be made, in the order in which they are."""
    return (
        Failure(
            "bad deploy",
            "version 3 is released with the file of another version",
            "serving.parity",
            _wrong_file,
            _right_file,
            cure="rollback",
        ),
        Failure(
            "training-serving skew",
            "version 2 is released with server code that has lost the normalisation step",
            "serving.parity",
            lambda story: _deploy(story, "2"),
            lambda story: None,
            cure="rollback",
        ),
        _upstream("schema change", "short", "sends images without their last column", "data.contract"),
        _upstream("null burst", "nulls", "sends every third pixel as null", "data.contract"),
        _upstream("late data", "silent", "sends nothing any more", "data.contract", within=40),
        _upstream("drift", "dim", "sends images half as bright, each pixel within its range", "drift.compare", within=90),
        Failure(
            "owner gone",
            "the configuration names nobody who answers for the service",
            "service.owner",
            lambda story: _configure(story, owned=False),
            lambda story: _configure(story, owned=True),
            within=90,
        ),
        Failure(
            "non-reproducible training",
            "training puts its rows in a random order that nobody wrote down, and version 1 is trained again from its pins",
            "lineage.repeated",
            lambda story: _repeat(story, "--unseeded"),
            lambda story: _repeat(story),
            within=90,
        ),
    )


def trained_again(stage: Stage, *how: str) -> None:
    """Has version 1 trained once more and registered as a repetition; BrokenOffError where that fails."""
    training = stage.python("training again", "examples.digits.again", "--models", stage.folder / "models" / "digits", *how)
    training.process.wait(120)
    stage.done(training)


def _repeat(story: Story, *how: str) -> None:
    story.narrator.tell("operator", f"trains version 1 once more{', in a random order' if how else ' with its seed'}, and registers the repetition")
    trained_again(story.stage, *how)


def _upstream(name: str, mode: str, what: str, found_by: str, within: float = 30) -> Failure:
    return Failure(
        name,
        f"the upstream {what}",
        found_by,
        lambda story: story.send(mode, what),
        lambda story: story.send("good", "sends good images again"),
        "",
        within,
    )


def _deploy(story: Story, version: str) -> None:
    story.narrator.tell("operator", story.server.deploy(version))


def _model(story: Story, version: str) -> Path:
    return story.stage.folder / "models" / "digits" / version / "model.onnx"


def _wrong_file(story: Story) -> None:
    shutil.copy(_model(story, "3"), _model(story, "3").with_suffix(".right"))
    shutil.copy(_model(story, "0"), _model(story, "3"))
    _deploy(story, "3")


def _right_file(story: Story) -> None:
    _model(story, "3").with_suffix(".right").replace(_model(story, "3"))


def _configure(story: Story, owned: bool) -> None:
    """Writes the configuration with or without an owner, and has the agent read it."""
    text = story.config.read_text(encoding="utf-8")
    lines = "    owner: ada\n    escalation: [vision-oncall]\n"
    if owned:
        text = text.replace(f"  {SERVICE}:\n", f"  {SERVICE}:\n{lines}", 1)
    else:
        assert lines in text
        text = text.replace(lines, "", 1)
    story.config.write_text(text, encoding="utf-8")
    story.narrator.tell(
        "operator", f"{'names' if owned else 'names nobody as'} the owner of {SERVICE}, and has the agent read its configuration again"
    )
    story.watcher.process.send_signal(signal.SIGHUP)
