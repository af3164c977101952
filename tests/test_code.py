"""code.*: a real git repository, a registry in a folder, a server that answers; what git and the files say is the oracle."""

from __future__ import annotations

import hashlib
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import Locator, Status
from agent.targets import connect
from agent.targets.folder import record
from checks import _code, code
from tests.repository import EVE, Repository
from tests.servers import oip

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LOCK = "numpy==2.1.0 --hash=sha256:" + "a" * 64 + "\nscipy==1.14.1 \\\n    --hash=sha256:" + "b" * 64 + "\n"
CARD = """# Fraud, version 1

## Intended use
Scoring of orders.
## Factors
Countries.
## Metrics
| accuracy | 0.981 |
| recall | 71.2 % |
## Evaluation data
Held out.
## Training data
2025.
## Ethical considerations
None known.
## Caveats
Drifts.
"""


class Desk:
    """A repository, and a registry whose one version was trained by a commit of it."""

    def __init__(self, folder: Path, server: Any) -> None:
        self.folder, self.server = folder, server
        self.code = Repository(folder / "code")
        self.code.commit({"README": "x"}, at=NOW - 60 * DAY)

    def served(self, commit: str | None, **lineage: Any) -> None:
        told = {**({"commit": commit} if commit else {}), **lineage}
        record(self.folder / "models", "1", {"w": b"w"}, lineage=told, now=NOW - DAY)

    @property
    def bound(self) -> tuple[Any, Any, Any]:
        return self.server, connect(Locator("fraud", "registry", f"folder:{self.folder}/models")), self.git

    @property
    def git(self) -> Any:
        return connect(Locator("fraud", "code", f"git:{self.folder}/code"))


@pytest.fixture(scope="module")
def server():
    speaker = oip.Speaker(loaded=("1",))
    with closing(connect(Locator("fraud", "server", speaker.url))) as made:
        yield made
    speaker.stop()


@pytest.fixture
def desk(tmp_path, server):
    return Desk(tmp_path, server)


def test_a_commit_was_reviewed_by_whoever_merged_it(desk):
    made, _ = desk.code.merge("weigh", {"train.py": "2"}, at=NOW - 2 * DAY)
    desk.served(made)
    said = code.reviewed(*desk.bound)
    assert said.status is Status.OK and said.reason.endswith("looked over by Eve")


@pytest.mark.parametrize(
    ("message", "merged_by", "status"),
    [
        ("Weigh it\n\nReviewed-by: Eve <eve@example.org>", None, Status.OK),
        ("Weigh it\n\nReviewed-by: Ada <ada@example.org>", None, Status.WARN),
        ("Weigh it\n\nReviewed-by: Ada Lovelace <ADA@example.org>", None, Status.WARN),
        ("Weigh it", None, Status.WARN),
        ("Weigh it", "Ada <ada@example.org>", Status.WARN),
        ("Weigh it", EVE, Status.OK),
    ],
)
def test_nobody_reviews_their_own_commit(desk, message, merged_by, status):
    if merged_by is None:
        made = desk.code.commit({"train.py": "2"}, message)
    else:
        made, _ = desk.code.merge("weigh", {"train.py": "2"}, message, by=merged_by)
    desk.served(made)
    assert code.reviewed(*desk.bound).status is status


def test_a_commit_that_is_missing_dirty_or_not_merged_fails(desk, tmp_path, server):
    desk.code.git("checkout", "-q", "-b", "mine")
    off = desk.code.commit({"train.py": "3"})
    desk.code.git("checkout", "-q", "main")
    on = desk.code.git("rev-parse", "HEAD")
    for place, (commit, more, words) in enumerate(
        [
            (None, {}, "does not record which commit"),
            ("0" * 40, {}, "does not hold"),
            ("--help", {}, "does not hold"),
            (off, {}, "is not on branch main"),
            (on, {"dirty": True}, "changes that nobody committed"),
        ]
    ):
        desk.folder = tmp_path / str(place)
        desk.served(commit, **more)
        said = code.reviewed(server, desk.bound[1], connect(Locator("fraud", "code", f"git:{tmp_path}/code")))
        assert said.status is Status.FAIL and words in said.reason


# The environment


def test_the_environment_is_pinned_with_hashes_and_the_same(desk):
    commit = desk.code.commit({"requirements.txt": LOCK})
    desk.served(commit, environment=hashlib.sha256(LOCK.encode()).hexdigest())
    assert code.pinned(*desk.bound).status is Status.OK
    desk.code.commit({"serve.txt": "numpy==2.1.3\nscipy==1.14.1\nuvicorn==0.30.0\n"})
    assert code.pinned(*desk.bound, serving="serve.txt").status is Status.WARN, "no hashes"
    desk.code.commit({"serve.txt": "numpy==2.2.0\nscipy==1.14.1\n"})
    said = code.pinned(*desk.bound, serving="serve.txt")
    assert said.status is Status.FAIL and "numpy 2.1.0 trained and 2.2.0 serves" in said.reason
    assert "there is no none.lock" in code.pinned(*desk.bound, lock="none.lock").reason


def test_an_environment_that_is_loose_or_another_fails(desk):
    commit = desk.code.commit({"requirements.txt": "numpy>=2\n", "other.txt": LOCK})
    desk.served(commit, environment="0" * 64)
    assert "not pinned to one version, such as numpy" in code.pinned(*desk.bound).reason
    assert "trained in another environment" in code.pinned(*desk.bound, lock="other.txt").reason


@pytest.mark.parametrize(
    ("text", "packages"),
    [
        (LOCK, {"numpy": "2.1.0", "scipy": "1.14.1"}),
        ("# a comment\n-r other.txt\n--no-binary x\n\nA_b.C[extra]==1.0 ; python_version > '3'\n", {"a-b-c": "1.0"}),
        ('version = 1\n[[package]]\nname = "NumPy"\nversion = "2.1.0"\n\n[[package]]\nname = "x"\nversion = "1"\n', {"numpy": "2.1.0", "x": "1"}),
        ("numpy~=2.1\nscipy\n", {"numpy": None, "scipy": None}),
        ("", {}),
        ("\udcff\0\n", {}),
    ],
)
def test_locks_are_read_as_pip_and_uv_write_them(text, packages):
    assert _code.packages(text.encode("utf-8", "replace")) == packages


# Tests


def junit(*cases: str) -> str:
    return f'<?xml version="1.0"?>\n<testsuite>{"".join(cases)}</testsuite>'


def case(classname: str, inside: str = "") -> str:
    return (
        f'<testcase classname="{classname}" name="test_it" time="0.1">{inside}</testcase>'
        if inside
        else f'<testcase classname="{classname}" name="t"/>'
    )


GREEN = (case("tests.test_features"), case("tests.test_model_spec"), case("tests.test_end_to_end"))


@pytest.mark.parametrize(
    ("cases", "status"),
    [
        (GREEN, Status.OK),
        (GREEN[:2], Status.WARN),
        (GREEN[:1], Status.FAIL),
        ((*GREEN, case("tests.test_features", "<failure>no</failure>")), Status.FAIL),
        ((*GREEN[:2], case("tests.test_end_to_end", "<skipped/>")), Status.WARN),
        ((*GREEN, case("tests.test_other", "<error/>")), Status.OK),
        (("<testcase <testcase",), Status.FAIL),
        ((), Status.FAIL),
    ],
)
def test_the_tests_of_the_served_commit_are_green_or_not(desk, cases, status):
    commit = desk.code.commit({"train.py": "2"})
    desk.code.commit({f"results/{commit}.xml": junit(*cases)})
    desk.served(commit)
    assert code.tested(*desk.bound).status is status


def test_the_results_of_an_ancestor_are_half_and_none_fail(desk):
    before = desk.code.commit({"train.py": "2"})
    commit = desk.code.commit({"train.py": "3"})
    desk.served(commit)
    assert "no results of the tests" in code.tested(*desk.bound).reason
    desk.code.commit({f"results/{before}.xml": junit(*GREEN)})
    said = code.tested(*desk.bound)
    assert said.status is Status.WARN and "an ancestor" in said.reason and "1 back" in said.reason


def test_a_megabyte_of_broken_results_is_read_in_no_time():
    assert _code.by_kind(b"<testcase " * 100_000, {"features": "*"}) == {"features": (0, 0)}


# What is deployed, how long it took, and what its card says


def test_what_is_deployed_is_what_the_branch_says_or_not(desk):
    desk.code.commit({"deploy.yaml": "a: 1\n"}, at=NOW - 5 * DAY)
    assert code.deployed(desk.git, NOW, files=["deploy.yaml"], actors=["ada@example.org"]).status is Status.OK
    assert code.deployed(desk.git, NOW, actors=["Ada", "Eve"]).status is Status.OK
    strange = code.deployed(desk.git, NOW, actors=["eve@example.org"])
    assert strange.status is Status.FAIL and "Ada <ada@example.org> changed main" in strange.reason
    (desk.folder / "code/deploy.yaml").write_text("a: 2\n")
    assert code.deployed(desk.git, NOW, actors=["Ada"]).status is Status.FAIL
    assert code.deployed(desk.git, NOW - 4 * DAY - timedelta(hours=1), actors=["Ada"]).status is Status.WARN
    assert code.deployed(desk.git, NOW, files=["README"], actors=["Ada"]).status is Status.OK


@pytest.mark.parametrize(("days", "status"), [(1, Status.OK), (13, Status.OK), (20, Status.WARN), (40, Status.FAIL)])
def test_a_change_takes_so_long_to_be_registered(desk, days, status):
    desk.served(desk.code.commit({"train.py": "2"}, at=NOW - DAY - days * DAY))
    said = code.lead_time(desk.bound[1], desk.git, NOW)
    assert said.status is status and said.reading.observed == days * 86400
    assert code.lead_time(desk.bound[1], desk.git, NOW + 200 * DAY).status is Status.NODATA


def test_a_card_describes_the_served_version_with_true_numbers(desk):
    desk.served(desk.code.git("rev-parse", "HEAD"), metrics={"accuracy": 0.981, "recall": 0.712, "rows": True})
    assert "no MODEL_CARD.md" in code.card(*desk.bound).reason
    for text, status, words in (
        (CARD, Status.OK, "all 7 sections"),
        (CARD.replace("0.981", "0.995"), Status.FAIL, "accuracy is 0.981, and it says 0.995"),
        (CARD.replace("| recall | 71.2 % |", ""), Status.FAIL, "it gives no recall"),
        (CARD.replace("## Caveats", "## Notes"), Status.FAIL, "no section caveats"),
        (CARD.replace("version 1", "version 12"), Status.FAIL, "does not name version 1"),
    ):
        desk.code.commit({"MODEL_CARD.md": text})
        said = code.card(*desk.bound)
        assert said.status is status and words in said.reason, said.reason
    record(desk.folder / "models", "0", {"w": b"w"}, now=NOW - 2 * DAY)
    desk.code.commit({"MODEL_CARD.md": CARD.replace("version 1", "version 0")})
    assert code.card(*desk.bound).status is Status.WARN
