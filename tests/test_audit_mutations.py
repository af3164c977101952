"""The audit of the audit: a good service that is READY, a seed that is not, one fault for each question, and what is withdrawn or grows old."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import Reading, Verdict, fail, ok
from agent.audit.attested import withdraw, words
from agent.audit.catalogue import FAILURES, SECTIONS, SOURCES, catalogue
from agent.audit.scoring import Score, ml_test_score, score, verdict
from tests import audited
from tests.audited import DAY, HOUR, NOW, VERSION, Desk

ITEMS = catalogue().items
LATER = NOW + timedelta(minutes=2)


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with audited.servers() as made:
        yield made


@pytest.fixture(scope="module")
def master(running: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The good service, its store closed, ready to be copied."""
    folder = tmp_path_factory.mktemp("audit") / "good"
    server, metrics, pool = running
    audited.written(folder, server, metrics)
    with audited.opened(folder, server, metrics, pool) as desk:
        audited.lived(desk)
    return folder


@contextmanager
def at_a_desk(master: Path, running: Any, folder: Path) -> Iterator[Desk]:
    """A copy of the good service, whose servers are as they were when it is left."""
    server, metrics, pool = running
    kept = dict(metrics.vectors)
    with audited.opened(audited.copied(master, folder / "copy"), server, metrics, pool) as made:
        yield made
    server.mood, server.served, server.loaded, server.up = None, VERSION, (VERSION,), True
    metrics.vectors = kept


@pytest.fixture
def desk(master: Path, running: Any, tmp_path: Path) -> Iterator[Desk]:
    with at_a_desk(master, running, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def good(master: Path, running: Any, tmp_path_factory: pytest.TempPathFactory) -> Score:
    server, metrics, pool = running
    with audited.opened(audited.copied(master, tmp_path_factory.mktemp("good") / "copy"), server, metrics, pool) as desk:
        return desk.scored()


# The good service


def test_the_good_service_is_ready(good: Score):
    answered = {name: one.answer for name, one in good.scored.items() if one.answer is not None}
    assert answered.keys() == ITEMS.keys() and not any(answer.said == "fail" for answer in answered.values())
    assert not any(answer.attested for answer in answered.values()), "what people said is borne out"
    seen = [name for name, answer in answered.items() if any(one.kind != "attestation" for one in answer.evidence)]
    assert len(seen) >= 44
    assert verdict(good)[0] == "READY" and good.level >= "R4" and good.coverage >= 0.9


def test_every_answer_says_what_it_rests_on(desk: Desk):
    with desk.world.store.read() as ledger:
        links = {row["seq"]: row["digest"] for row in ledger._all(audited_chain())}
    for name, answer in desk.answers().items():
        assert answer.evidence, name
        for one in answer.evidence:
            assert one.at <= LATER and one.collector and len(one.digest) == 64, (name, one)
            assert one.kind == "config" or links[one.link] == one.digest, (name, one)
            assert one.vantage == ("independent" if one.source not in ("agent", "config") else "self")
    by_source = {one.source for answer in desk.answers().values() for one in answer.evidence}
    assert by_source == {"server", "registry", "tables", "metrics", "code", "agent", "config"}


def audited_chain() -> Any:
    from sqlalchemy import select

    from agent._ledger import EVIDENCE

    return select(EVIDENCE.c.seq, EVIDENCE.c.digest)


# One fault for each question


@dataclass(frozen=True)
class Mutation:
    """What is broken, and which checks look again at what they read of it. `also`: questions that it is known to take with it, and why."""

    do: Callable[[Desk], None]
    again: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    why: str = ""


CODE = ("lineage.chain", "code.reviewed", "code.pinned", "code.tested", "code.deployed", "code.lead_time", "code.card")
REGISTRY = (
    "lineage.data",
    "lineage.chain",
    "lineage.repeated",
    "lineage.search",
    "lineage.artefacts",
    "code.reviewed",
    "code.pinned",
    "code.tested",
    "code.lead_time",
    "code.card",
)
TABLES = (
    "data.contract",
    "injection.faults",
    "privacy.identifiers",
    "influence.holdout",
    "groups.disparity",
    "traced.predictions",
    "importance.features",
)
SERVER = ("serving.ready", "serving.parity", "hostile.inputs", "hostile.degraded", "importance.features", "traced.predictions")
METRICS = ("scraped.families", "scraped.consumers")


def said(check: str, verdict: Verdict) -> Callable[[Desk], None]:
    """A check of long standing says otherwise: what it looks at is broken in its own tests."""
    return lambda desk: desk.saw(check, verdict, NOW + timedelta(minutes=1))


def registered(**lineage: Any) -> Callable[[Desk], None]:
    """The served version was made otherwise."""

    def do(desk: Desk) -> None:
        told = audited.lineage(desk.folder, desk.code.git("log", "--format=%H", "--no-merges", "-1", "--grep=Change it", "main^1"))
        audited.register(desk.folder, {key: value for key, value in {**made_by(desk), **lineage}.items() if value is not None} if told else {})

    return do


def made_by(desk: Desk) -> dict[str, Any]:
    import json

    return dict(json.loads((desk.folder / "models" / VERSION / "manifest.json").read_text())["lineage"])


def logged(alter: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Callable[[Desk], None]:
    """The rows of the log are otherwise."""
    return lambda desk: audited.table(desk.folder / "log.csv", [row for one in audited.rows() if (row := alter(one)) is not None])


def committed(files: dict[str, str], **more: Any) -> Callable[[Desk], None]:
    return lambda desk: desk.code.commit(dict(files), "Change it", at=NOW - DAY, **more) and None


def stored(work: Callable[[Any], object]) -> Callable[[Desk], None]:
    return lambda desk: desk.write(work)


def configured(old: str, new: str) -> Callable[[Desk], None]:
    """The configuration says otherwise."""

    def do(desk: Desk) -> None:
        from agent import config

        path = desk.folder / "watchkeeper.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        desk.world.use(config.load(path))

    return do


def unreviewed(desk: Desk) -> None:
    """The commit that trained was merged by the one who wrote it."""
    desk.code.git("checkout", "-q", "-b", "alone")
    commit = desk.code.commit({"train.py": "print(3)"}, at=NOW - 3 * DAY)
    desk.code.git("checkout", "-q", "main")
    desk.code.git("merge", "-q", "--no-ff", "-m", "Merge alone", "alone")
    cases = "".join(f'<testcase classname="tests.test_{name}" name="t"/>' for name in audited.CLASSES)
    desk.code.commit({f"results/{commit}.xml": f"<testsuite>{cases}</testsuite>"}, at=NOW - 3 * DAY)
    audited.register(desk.folder, {**made_by(desk), "commit": commit})


def red(desk: Desk) -> None:
    (name,) = desk.code.git("ls-files", "results").split()
    desk.code.commit({name: '<testsuite><testcase classname="tests.test_features"><failure/></testcase></testsuite>'}, at=NOW - DAY)


def pickled(desk: Desk) -> None:
    from agent.targets.folder import record

    told = made_by(desk)
    shutil.rmtree(desk.folder / "models" / VERSION)
    record(desk.folder / "models", VERSION, {"model.pkl": pickle.dumps([1], 4)}, golden=audited.GOLDEN, lineage=told, now=NOW - 2 * DAY)


def other_answers(desk: Desk) -> None:
    """What was trained again answers otherwise."""
    from agent.targets.folder import record

    told = {**made_by(desk), "repeats": VERSION}
    shutil.rmtree(desk.folder / "models" / f"{VERSION}-again")
    record(
        desk.folder / "models",
        f"{VERSION}-again",
        {"m": b"m"},
        golden=[(audited.REQUEST, {"outputs": [{"name": "y", "data": [9.0], "datatype": "FP32", "shape": [1]}]})],
        lineage=told,
        now=NOW - DAY,
    )


def fragile(desk: Desk) -> None:
    """The server falls over what it does not expect."""
    desk.server.mood = lambda body: (500, {"error": "boom"}) if not isinstance(body, dict) or "surplus" in body else None


def blind_to_first(desk: Desk) -> None:
    """The served model leans on one of its two inputs only."""
    out = [{"name": "y", "datatype": "FP32", "shape": [1], "data": [3.0]}]
    desk.server.mood = lambda body: (200, {"model_version": VERSION, "outputs": out})


def took_over(desk: Desk) -> None:
    """A version took over that no gate had seen."""
    desk.write(lambda ledger: ledger.record(NOW - DAY, "change.version", "2 serves", service="fraud", body={"from": "1", "to": VERSION}))


def deteriorating(desk: Desk) -> None:
    """Quality falls day by day, and is below its limit before the version is a month old."""

    def do(ledger: Any) -> None:
        ledger.forget_signal("fraud/quality.accuracy")
        for days in range(19, -1, -1):
            quality = replace(audited.SAID["quality.accuracy"], reading=Reading(0.76 + 0.004 * days, 0.8, n=500))
            desk.fold(ledger, "quality.accuracy", quality, NOW - days * DAY - HOUR / 2)

    desk.write(do)


def late(desk: Desk) -> None:
    """The rows came late twice in a month, and in time again."""

    def do(ledger: Any) -> None:
        for second, told in enumerate((*[fail("late", parts={"freshness": Reading(9.0, 1.0)})] * 2, ok("240 rows keep the contract")), 1):
            desk.fold(ledger, "data.contract", told, NOW + timedelta(seconds=second))

    desk.write(do)


def uncorroborated(desk: Desk) -> None:
    """A page that a broken contract opened came days after the first bad look."""
    from agent.model import Member

    slow = Member("fraud/data.contract", "data.contract", NOW - 18 * DAY, "bad", "data")
    desk.write(lambda ledger: [ledger.put_member(one.id, slow) for one in ledger.incidents() if one.members])


def nobody_came(desk: Desk) -> None:
    for days in range(2):
        desk.page(NOW - (2 + days) * DAY, after=timedelta(hours=3))


def one_pair_of_hands(desk: Desk) -> None:
    """Of who approved rollbacks and retraining one is left."""
    from agent.model import Approval

    def do(ledger: Any) -> None:
        for run in ledger.runs(limit=50):
            ledger.save_run(replace(run, approvals=(Approval("ada", run.wanted_at),)))
        for one in ledger.incidents(limit=50):
            ledger.save_incident(replace(one, acknowledged_by="ada"))
        ledger.add_silence("fraud/none", NOW - HOUR, NOW, "eve", "so that she is seen to act")

    desk.write(do)


def taken_back(item: str) -> Callable[[Desk], None]:
    """What a person said of it is withdrawn."""

    def do(desk: Desk) -> None:
        def write(ledger: Any) -> None:
            service = desk.world.config.services["fraud"]
            withdraw(ledger, "fraud", [one for one in words(service, ledger, NOW) if one.said.item == item], "eve", NOW)

        desk.write(write)

    return do


MUTATIONS: dict[str, Mutation] = {
    "DATA-01": Mutation(
        logged(lambda row: {**row, "inputs": "[-5.0, 1.0]", "prediction": -4}),
        TABLES,
        also=("DATA-02", "DATA-08", "MON-09", "TEAM-09"),
        why="rows that break their contract, all alike, show neither that faults in them are noticed nor which feature matters, and bear nothing out",
    ),
    "DATA-02": Mutation(configured("quarantine: auto", "quarantine: observe")),
    "DATA-03": Mutation(late),
    "DATA-04": Mutation(
        lambda desk: audited.table(desk.folder / "train.csv", [{"id": "t", "x0": 1, "x1": 1, "prediction": 2}]), ("lineage.data", "lineage.chain")
    ),
    "DATA-05": Mutation(registered(sources=None), REGISTRY),
    "DATA-06": Mutation(said("skew.logged", fail("wrong", parts={"x0": Reading(0.5, 0.01, n=1000)}))),
    "DATA-07": Mutation(lambda desk: desk.write(lambda ledger: ledger.unpin("fraud/drift.compare", NOW))),
    "DATA-08": Mutation(blind_to_first, ("importance.features",)),
    "DATA-09": Mutation(logged(lambda row: {**row, "id": f"{row['id']}@example.org"}), TABLES),
    "DATA-10": Mutation(logged(lambda row: {**row, "coin": 0}), TABLES),
    "MODEL-01": Mutation(said("serving.parity", fail("answers otherwise than recorded"))),
    "MODEL-02": Mutation(unreviewed, (*REGISTRY, *CODE)),
    "MODEL-03": Mutation(other_answers, REGISTRY),
    "MODEL-04": Mutation(committed({"requirements.txt": audited.LOCK.replace("2.1.0", "2.2.0")}), CODE),
    "MODEL-05": Mutation(said("baselines.simple", fail("no better than the usual label"))),
    "MODEL-06": Mutation(registered(search=None), REGISTRY),
    "MODEL-07": Mutation(
        said("quality.accuracy", replace(audited.SAID["quality.accuracy"], status=fail("").status)),
        also=("MON-05",),
        why="the one check of quality says both",
    ),
    "MODEL-08": Mutation(
        logged(lambda row: {**row, "prediction": 2 if row["country"] == "de" else row["prediction"]}),
        TABLES,
        also=("MON-02",),
        why="the log says what was not answered",
    ),
    "MODEL-09": Mutation(fragile, SERVER),
    "MODEL-10": Mutation(said("forgetting.eval", fail("BLOCK"))),
    "DEPL-01": Mutation(lambda desk: desk.write(lambda ledger: ledger.forget_signal("fraud/serving.ready"))),
    "DEPL-02": Mutation(red, CODE),
    "DEPL-03": Mutation(took_over),
    "DEPL-04": Mutation(lambda desk: _forget(desk, "change.weights")),
    "DEPL-05": Mutation(
        lambda desk: desk.ran("rollback", NOW - HOUR, ("router.point", "done"), state="stuck", drill=True),
        also=("TEAM-03",),
        why="the last run of a runbook that alerts lead to",
    ),
    "DEPL-06": Mutation(said("sla.latency", fail("too late"))),
    "DEPL-07": Mutation(lambda desk: desk.ran("retrain", NOW - HOUR, (audited.TRAINED, "done"), *[("person.approve", "done")] * 5, by="ada")),
    "DEPL-08": Mutation(
        lambda desk: setattr(desk.server, "mood", lambda body: (500, {})), ("hostile.degraded",), also=("TEAM-10",), why="TEAM-10 is borne out by it"
    ),
    "DEPL-09": Mutation(pickled, REGISTRY),
    "DEPL-10": Mutation(lambda desk: (desk.folder / "code" / "train.py").write_text("print(9)") and None, CODE),
    "MON-01": Mutation(lambda desk: desk.metrics.vectors.update({audited.UP: [({}, "0")]}), METRICS),
    "MON-02": Mutation(logged(lambda row: {**row, "prediction": row["prediction"] + 100}), ("traced.predictions",)),
    "MON-03": Mutation(said("selftest.drift", fail("deaf", parts={"power": Reading(0.1), "false alarms": Reading(0.5)}))),
    "MON-04": Mutation(lambda desk: desk.write(lambda ledger: ledger.forget_signal("fraud/drift.predictions"))),
    "MON-05": Mutation(said("quality.accuracy", fail("bad", Reading(0.7, 0.8, n=500))), also=("MODEL-07",), why="the one check of quality says both"),
    "MON-06": Mutation(deteriorating),
    "MON-07": Mutation(lambda desk: desk.page(NOW - HOUR, by=None, letter=False)),
    "MON-08": Mutation(configured("      quality: {target: 0.9, watch: quality.accuracy}\n", "")),
    "MON-09": Mutation(uncorroborated),
    "MON-10": Mutation(configured('heartbeat: {url: "http://127.0.0.1:9/beat", every: 1m}', "")),
    "TEAM-01": Mutation(configured("escalation: [eve]", "escalation: []")),
    "TEAM-02": Mutation(nobody_came, also=("MON-07",), why="an alert that nobody answers in time did not reach anybody"),
    "TEAM-03": Mutation(configured("causes: {drift: rollback, data: quarantine}", "causes: {drift: null, data: quarantine}")),
    "TEAM-04": Mutation(one_pair_of_hands),
    "TEAM-05": Mutation(lambda desk: [desk.page(NOW - (40 + days) * DAY, reviewed=False) for days in range(2)] and None),
    "TEAM-06": Mutation(
        lambda desk: audited.register(desk.folder, {**made_by(desk), "commit": desk.code.git("rev-list", "--max-parents=0", "main")}),
        ("code.lead_time",),
    ),
    "TEAM-07": Mutation(
        lambda desk: desk.metrics.vectors.update({audited.CALLERS.replace("$window", f"{audited.SPAN}000ms"): [({"client": "nobody"}, "5")]}), METRICS
    ),
    "TEAM-08": Mutation(committed({"MODEL_CARD.md": audited.CARD.replace("0.95", "0.99")}), CODE),
    "TEAM-09": Mutation(taken_back("TEAM-09")),
    "TEAM-10": Mutation(taken_back("TEAM-10")),
}


def _forget(desk: Desk, kind: str) -> None:
    """The record holds no such event: as it would be, had it not happened."""
    from sqlalchemy import delete

    from agent._ledger import EVENT

    desk.write(lambda ledger: ledger.conn.execute(delete(EVENT).where(EVENT.c.kind == kind)))


def changed(before: Score, after: Score) -> set[str]:
    return {name for name in ITEMS if after.scored[name].points < before.scored[name].points}


@pytest.fixture(scope="module")
def flipped(master: Path, running: Any, good: Score, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """For each fault the questions that are worth less with it, and what they say then."""
    return {item: broken(mutation, master, running, good, tmp_path_factory.mktemp(item)) for item, mutation in MUTATIONS.items()}


def broken(mutation: Mutation, master: Path, running: Any, good: Score, folder: Path) -> dict[str, str]:
    with at_a_desk(master, running, folder) as desk:
        mutation.do(desk)
        desk.again(*mutation.again)
        after = desk.scored()
    return {name: after.scored[name].why for name in changed(good, after)}


def own(item: str, told: Mapping[str, str]) -> bool:
    """Whether a fault takes its own question, and no other but those that are written down."""
    return item in told and set(told) - {item} <= set(MUTATIONS[item].also)


@pytest.mark.parametrize("item", ITEMS)
def test_a_fault_fails_its_own_question_and_no_other(item: str, flipped: dict[str, dict[str, str]]):
    assert own(item, flipped[item]), flipped[item]


def test_of_fifty_faults_at_least_forty_eight_take_their_own_question_and_no_other(flipped: dict[str, dict[str, str]]):
    assert MUTATIONS.keys() == ITEMS.keys() and len(MUTATIONS) == 50
    assert sum(own(item, told) for item, told in flipped.items()) >= 48
    assert sum(not mutation.also for mutation in MUTATIONS.values()) >= 43 and all(bool(one.also) == bool(one.why) for one in MUTATIONS.values())


# The seed: schema changed, nothing versioned, deployed by hand, the owner gone

SEED = """
store: store.db
services:
  fraud:
    targets:
      server: oip+{server}/m
      registry: folder:models
      code: git:code
      live:
        url: csv:log.csv
        time: {{column: at, tz: UTC}}
        id: id
        version: version
        features: {{json: inputs, size: 2, prefix: x}}
        prediction: prediction
      reference: "csv:train.csv"
    watches:
      - {{check: data.contract, every: 1d, window: 1d, with: {{columns: {{x0: {{low: 0, high: 1000}}, region: {{type: text}}}}}}}}
      - {{check: skew.logged, every: 1d, window: 1d}}
      - {{check: serving.parity, every: 1d}}
      - {{check: lineage.data, every: 1d}}
      - {{check: lineage.chain, every: 1d}}
      - {{check: lineage.repeated, every: 1d}}
      - {{check: code.reviewed, every: 1d}}
      - {{check: code.deployed, every: 1d, with: {{actors: [eve@example.org]}}}}
"""


def test_the_seed_is_at_the_bottom_and_all_six_failures_are_named(running: Any, tmp_path: Path):
    from tests.repository import Repository

    server, metrics, pool = running
    folder = tmp_path / "seed"
    folder.mkdir()
    audited.table(folder / "log.csv", list(audited.rows()))
    audited.table(folder / "train.csv", [{"id": "t", "x0": 1}])
    Repository(folder / "code").commit({"train.py": "print(1)"}, at=NOW - DAY)
    audited.register(folder, {})
    shutil.rmtree(folder / "models" / VERSION)
    (folder / "watchkeeper.yaml").write_text(SEED.format(server=server.address))
    with audited.opened(folder, server, metrics, pool) as desk:
        skewed = fail("wrong", parts={"x0": Reading(0.5, 0.01, n=1000)})
        for watch in desk.world.config.services["fraud"].watches:
            desk.saw(watch.check, skewed if watch.check == "skew.logged" else desk.look(watch.check))
        desk.write(lambda ledger: ledger.record(NOW - 90 * DAY, "agent.start", "watching"))
        desk.write(lambda ledger: ledger.serve("fraud", VERSION, NOW - DAY))
        desk.write(lambda ledger: ledger.record(NOW - DAY, "change.version", "2 serves", service="fraud", body={"from": "1", "to": VERSION}))
        found = desk.scored()
    failed = {name for name, one in found.scored.items() if one.state == "fail"}
    assert found.level in ("R0", "R1") and verdict(found)[0] in ("NOT-READY", "UNVERIFIED")
    assert {"DATA-01", "DATA-04", "DATA-06", "DEPL-03", "DEPL-05", "DEPL-10", "MODEL-03", "MON-04", "TEAM-01"} <= failed
    assert {failure for name in failed for failure in ITEMS[name].failures} == set(FAILURES)


# What grows old, and what is withdrawn


def test_every_answer_turns_stale_at_its_limit_and_not_before(good: Score):
    """Of the answers as they were given: each by the moment that its own evidence is of."""
    held = {name: one.answer for name, one in good.scored.items() if one.answer is not None}
    for name, answer in held.items():
        fresh, second = timedelta(days=ITEMS[name].fresh), timedelta(seconds=1)
        states = [score(catalogue(), held, answer.at + age, VERSION).scored[name].state for age in (fresh, fresh + second, 2 * fresh + second)]
        assert states == [answer.said, "stale", "unknown"], name


def test_another_version_voids_every_answer_that_is_about_one(good: Score):
    held = {name: one.answer for name, one in good.scored.items() if one.answer is not None}
    assert {name for name, item in ITEMS.items() if item.versioned} - {name for name, one in held.items() if one.version == VERSION} == set()
    after = score(catalogue(), held, LATER, "3")
    assert {name for name in held if after.scored[name].state == "unknown"} == {name for name, item in ITEMS.items() if item.versioned}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sets(st.sampled_from(SOURCES)), st.sets(st.sampled_from(sorted(ITEMS))))
def test_withdrawing_any_source_or_answer_never_makes_it_better(good: Score, sources: set[str], lost: set[str]):
    """Two ways to lose sight: what rests on a source goes with it, and any answers may go."""
    held = {name: one.answer for name, one in good.scored.items() if one.answer is not None}
    left = {name: answer for name, answer in held.items() if name not in lost and not {one.source for one in answer.evidence} & sources}
    after = score(catalogue(), left, LATER, VERSION)
    order = ("UNVERIFIED", "NOT-READY", "CONDITIONAL", "READY")
    assert after.final <= good.final and after.level <= good.level and after.coverage <= good.coverage
    assert all(after.sections[section] <= good.sections[section] for section in SECTIONS)
    assert order.index(verdict(after)[0]) <= order.index(verdict(good)[0]) and ml_test_score(after)[0] <= ml_test_score(good)[0]


@pytest.mark.parametrize("role", ["registry", "code", "metrics", "live", "labels"])
def test_a_target_that_is_no_longer_bound_makes_nothing_better(role: str, desk: Desk, good: Score):
    """The configuration itself: what was seen through the target may still be known, and is not asked where nothing is attached."""
    service = desk.world.config.services["fraud"]
    bound = {name: at for name, at in service.targets.items() if name != role}
    desk.world.config = replace(desk.world.config, services={"fraud": replace(service, targets=bound)})
    after = desk.scored()
    assert {name for name in ITEMS if after.scored[name].points > good.scored[name].points} == set()
    assert after.final <= good.final and after.coverage <= good.coverage


def test_what_the_example_is_audited_by_is_its_own_watch_and_more():
    from tests.conftest import HOUSE

    plain, audit = ((HOUSE / "examples/digits" / name).read_text() for name in ("watchkeeper.yaml", "audit.yaml"))
    assert audit.startswith(plain.rstrip("\n")), "one is the other with more watches"
    assert "lineage.data" in audit and "lineage.data" not in plain


def test_what_has_seen_nothing_lately_is_looked_at_and_no_load_is_made(desk: Desk):
    from agent.audit import due

    with desk.world.store.read() as ledger:
        assert due(desk.world.config, ledger, ["fraud"], NOW) == []
        later = due(desk.world.config, ledger, ["fraud"], NOW + 2 * DAY)
    assert "fraud/lineage.data" in later and "fraud/sla.latency" not in later
