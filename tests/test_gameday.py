"""A game day as people start it: real failures in a real stack, read from the agent's record, and nothing left of it."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import pytest

from agent import Locator, Status
from agent.targets.folder import Folder, record
from checks.lineage import repeated
from examples.digits.again import again
from examples.digits.failures import failures
from examples.digits.gameday import FAIL, PASS, Outcome, _wrong, report, table
from examples.digits.train import GOLDEN_ROWS, answer, graph, images, lineage, request, trained
from tests.test_demo import Place, place  # noqa: F401 - a fixture

GAMEDAY = (sys.executable, "-m", "examples.digits.gameday")


@pytest.mark.timeout(600)
def test_two_failures_are_found_put_right_and_told(place: Place) -> None:  # noqa: F811
    out = place.folder / "day.md"
    with place.start("--only", "bad deploy", "--only", "null burst", "--json", "--out", out, command=GAMEDAY) as running:
        said, _ = running.communicate(timeout=500)
    found = {one["name"]: one for one in json.loads(said)}
    assert running.returncode == 0, said
    deploy, nulls = found["bad deploy"], found["null burst"]
    assert (deploy["outcome"], deploy["found_by"]) == (PASS, "serving.parity") and "rollback" in deploy["recovered_by"]
    assert (
        "watchkeeper" in deploy["recovered_by"] and deploy["found_after"] > 0 and deploy["recovered_after"] > 0
    )  # the last bad answer may come before the look
    assert (nulls["outcome"], nulls["found_by"]) == (PASS, "data.contract") and "a person" in nulls["recovered_by"]
    assert 0 < nulls["lost"] <= nulls["answers"]
    text = out.read_text()
    assert "2 PASS, 0 FAIL" in text and re.search(r"s: .*version 3 serves instead of 1", text)
    assert place.left() == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_it_is_ended_in_the_middle(place: Place, how: signal.Signals) -> None:  # noqa: F811
    with place.start("--plain", command=GAMEDAY) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if "trains four versions" in line:
                break
        running.send_signal(how)
        running.stdout.read()
        assert running.wait(60) == 130
    assert place.left() == [] and list((place.folder / "temporary files").iterdir()) == []


def test_training_in_an_order_that_nobody_wrote_down_is_found_and_with_a_seed_it_is_well(tmp_path: Path) -> None:
    """What the game day does to the registry and its watch then sees; the whole of it is `watchkeeper gameday`."""
    data, models = images(), tmp_path / "digits"
    made = trained(data, len(data.pixels), 1)
    golden = [(request(pixels), answer(made, pixels)) for pixels in data.held_out[:GOLDEN_ROWS]]
    record(models, "1", {"model.onnx": graph(made)}, golden=golden, lineage=lineage(data, made, len(data.pixels), 1, "0" * 64))
    registry = Folder(Locator("digits", "registry", "folder:digits", folder=str(tmp_path)))
    assert repeated(registry).status is Status.FAIL, "nobody has trained again"
    for unseeded, status in ((False, Status.OK), (True, Status.FAIL), (False, Status.OK)):
        name, said = again(models, "1", unseeded), repeated(registry)
        assert said.status is status and f"version {name}, made again from the pins of 1" in said.reason


def test_the_report_tells_each_failure_and_breaks_no_table() -> None:
    found = [
        Outcome("one", PASS, "a thing", "serving.parity", 1.234, "rollback (run 2), by watchkeeper", 2.5, 3, 90, "", ((0.5, "a|b\nc"),)),
        Outcome("two", FAIL, said="nobody noticed"),
        Outcome("three", FAIL),
    ]
    text, lines = report(found), table(found).splitlines()
    assert "1 PASS, 2 FAIL." in text and "- 0.5 s: a\\|b c" in text
    assert "| one | PASS | serving.parity | 1.2 s | rollback (run 2), by watchkeeper | 2.5 s | 3 of 90 |" in text
    assert len({row.count(" | ") for row in text.splitlines() if row.startswith("| ")}) == 1
    assert lines[-1] == "  two: nobody noticed"


ROLLED, DECLINED, ASKS = ({"runbook": "rollback", "state": state} for state in ("succeeded", "stopped", "awaiting"))


@pytest.mark.parametrize(
    ("name", "runs", "now", "said"),
    [
        ("bad deploy", [ROLLED], "1", ""),
        ("bad deploy", [], "1", "nothing was done"),
        ("bad deploy", [DECLINED], "3", "nothing was done"),
        ("bad deploy", [ROLLED, ROLLED], "1", "once"),
        ("bad deploy", [ROLLED], "3", "version 3 serves; version 1 should"),
        ("null burst", [], "1", ""),
        ("null burst", [DECLINED, ASKS], "1", ""),
        ("null burst", [DECLINED, ROLLED], "0", "rollback was carried out, which could not help"),
        ("drift", [ROLLED], "1", "could not help"),
        ("non-reproducible training", [], "1", ""),
        ("non-reproducible training", [ROLLED], "1", "could not help"),
    ],
)
def test_the_wrong_thing_done_or_nothing_done_does_not_pass(name: str, runs: list[dict[str, str]], now: str, said: str) -> None:
    one = next(one for one in failures() if one.name == name)
    wrong = _wrong(one, runs, "1", now)
    assert (wrong == "") == (said == "") and said in wrong
