"""A service with everything attached and everything looked at, for the audit: real files, a real git repository, real servers, a real store."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent import Reading, Verdict, config, ok
from agent.audit.answers import answers
from agent.audit.attested import take_up
from agent.audit.catalogue import catalogue
from agent.audit.known import Known
from agent.audit.scoring import Answer, Score, score
from agent.model import Approval, Plan, StepRow, Window
from agent.observe import fold, found
from agent.perform import perform
from agent.store import Ledger, Store
from agent.targets.folder import record
from agent.workers import Pool
from agent.world import World
from tests.repository import Repository
from tests.servers.prometheus import Speaker as Metrics
from tests.test_hostile import Careful

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
VERSION = "2"
LOCK = "numpy==2.1.0 --hash=sha256:" + "a" * 64 + "\n"
SECTIONS = ("Intended use", "Factors", "Metrics", "Evaluation data", "Training data", "Ethical considerations", "Caveats")
CARD = f"# Fraud, version {VERSION}\n" + "".join(f"## {name}\nAs it is. {'accuracy 0.95' if name == 'Metrics' else ''}\n" for name in SECTIONS)
CLASSES = ("features", "model_spec", "end_to_end")
RULES = "{x0: {low: 0, high: 1000, nulls: 0}, x1: {low: -1000, high: 1000}, country: {categories: [de, it]}, id: {unique: true}}"
UP = 'up{job="fraud"}'
SPAN = 28 * 86400
FAMILIES = ("requests", "errors", "latency", "predictions", "nulls", "version")
CALLERS = "sum by (client) (increase(requests_total[$window]))"
TRAINED = "trainer.train"

CONFIG = """
store: store.db
heartbeat: {{url: "http://127.0.0.1:9/beat", every: 1m}}
notify: {{channels: {{ada: "http://127.0.0.1:9/ada", eve: "http://127.0.0.1:9/eve"}}}}
services:
  fraud:
    owner: ada
    escalation: [eve]
    mode: {{default: observe, quarantine: auto, rollback: approve}}
    causes: {{drift: rollback, data: quarantine}}
    load: {{rate: 300, longest: 20m}}
    targets:
      server: oip+{server}/m
      router: pointer+{server}
      registry: folder:models
      code: git:code
      metrics: prometheus+{metrics}/prom
      data: link:features/current
      live:
        url: csv:log.csv
        time: {{column: at, tz: UTC}}
        id: id
        version: version
        features: {{json: inputs, size: 2, prefix: x}}
        prediction: prediction
      reference: {{url: "csv:train.csv", id: id, features: [x0, x1], prediction: prediction}}
      labels: {{url: "csv:labels.csv", key: id, label: y, time: {{column: known, tz: UTC}}}}
    objectives:
      availability: {{target: 0.9, watch: serving.ready}}
      latency: {{target: 0.9, watch: sla.latency}}
      freshness: {{target: 0.9, watch: data.contract}}
      quality: {{target: 0.9, watch: quality.accuracy}}
    attest:
      - {{item: TEAM-09, by: eve, until: 2026-06-01, note: card payments in Europe; high risk; a person looks at every refusal}}
      - {{item: TEAM-10, by: eve, until: 2026-06-01, note: on-call may switch it off; the manual queue takes over}}
    watches:
      - {{check: serving.ready, every: 1d}}
      - {{check: serving.parity, every: 1d}}
      - {{check: data.contract, every: 1d, window: 1d, with: {{columns: {rules}, freshness: 2d, volume: 1}}}}
      - {{check: injection.faults, every: 1d, window: 1d, with: {{columns: {rules}}}}}
      - {{check: lineage.data, every: 1d}}
      - {{check: lineage.chain, every: 1d}}
      - {{check: skew.logged, every: 1d, window: 1d}}
      - {{check: importance.features, every: 1d, window: 1d, with: {{rows: 6, request: {request}}}}}
      - {{check: privacy.identifiers, every: 1d, with: {{classes: {{"*": internal}}}}}}
      - {{check: influence.holdout, every: 1d, window: 1d, with: {{column: coin, outcome: paid}}}}
      - {{check: code.reviewed, every: 1d}}
      - {{check: lineage.repeated, every: 1d}}
      - {{check: code.pinned, every: 1d}}
      - {{check: baselines.simple, every: 1d, bind: {{candidate: "onnx:m.onnx", guard: "csv:guard.csv"}}, with: {{label: y}}}}
      - {{check: lineage.search, every: 1d}}
      - {{check: quality.accuracy, every: 1d, window: 1d, with: {{at_least: 0.8, slices: [country]}}}}
      - {{check: groups.disparity, every: 1d, window: 1d, with: {{group: country, positive: "2"}}}}
      - {{check: hostile.inputs, every: 1d, with: {{cases: 40, request: {request}}}}}
      - {{check: forgetting.eval, every: 1d, within: 10m, bind: {{candidate: "onnx:m.onnx", old: "csv:old.csv"}}, with: {{label: y}}}}
      - {{check: code.tested, every: 1d}}
      - {{check: sla.latency, every: 1d, within: 10m, with: {{rate: 200, duration: 6m, limits: {{p99: 100ms}}}}}}
      - {{check: hostile.degraded, every: 1d, with: {{without: the store of features, request: {request}, requests: 2, limit: 60s}}}}
      - {{check: lineage.artefacts, every: 1d}}
      - {{check: code.deployed, every: 1d, with: {{actors: ["ada@example.org", "eve@example.org"]}}}}
      - {{check: scraped.families, every: 1d, with: {{up: '{up}', queries: {families}}}}}
      - {{check: traced.predictions, every: 1d, with: {{rows: 6, request: {request}}}}}
      - {{check: drift.compare, every: 1d, window: 1d}}
      - {{check: selftest.drift, every: 1d}}
      - {{check: drift.predictions, every: 1d, window: 1d}}
      - {{check: code.lead_time, every: 1d}}
      - {{check: scraped.consumers, every: 1d, with: {{query: "{callers}", declared: [shop]}}}}
      - {{check: code.card, every: 1d}}
      - {{check: budget.burn, every: 1d}}
"""

# What checks of long standing said: they have tests of their own, and need models and traffic
SAID: dict[str, Verdict] = {
    "skew.logged": ok("well", parts={"x0": Reading(0.0, 0.01, n=1000)}),
    "baselines.simple": ok("better than the usual label and the one before"),
    "quality.accuracy": ok("well", Reading(0.95, 0.8, n=500), parts={"slice.country=de": Reading(0.9, 0.8)}),
    "forgetting.eval": ok("PROMOTE"),
    "sla.latency": ok("in time"),
    "drift.compare": ok("as it was", Reading(0.01, 0.1, n=5000)),
    "selftest.drift": ok("as good as promised", parts={"power": Reading(1.0, 0.9), "false alarms": Reading(0.0, 0.05)}),
    "drift.predictions": ok("as they were"),
    "budget.burn": ok("no budget burns"),
}


class Server(Careful):
    """Model `m`, which adds its two inputs up; `named` is the version that it serves."""

    def _infer(self, version: str, body: Any) -> tuple[int, Any]:
        told = self.mood(body) if self.mood else None
        status, said = told or super()._infer(version, body)
        if status == 200 and told is None:
            data = body["inputs"][0]["data"]
            sums = [data[place] + data[place + 1] for place in range(0, len(data), 2)]
            said = {"model_name": "m", "model_version": version, "outputs": [{"name": "y", "datatype": "FP32", "shape": [len(sums)], "data": sums}]}
        return status, said


REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
GOLDEN = [(REQUEST, {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [3.0]}]})]


@dataclass
class Desk:
    """One copy of the service: its folder, its servers, its store as of `NOW`; what is changed here changes nothing elsewhere."""

    folder: Path
    world: World
    server: Server
    metrics: Metrics

    @property
    def code(self) -> Repository:
        made = object.__new__(Repository)
        made.folder = self.folder / "code"
        return made

    def write(self, work: Callable[[Ledger], object]) -> None:
        self.world.store.write(work)

    def look(self, check: str) -> Verdict:
        """The real check, on what is there now."""
        if check in SAID:
            return SAID[check]
        w = self.world.find(f"fraud/{check}")
        job = {"check": check, "locators": w.locators, "parameters": w.watch.parameters, "window": Window(NOW - DAY, NOW), "now": NOW}
        return perform(job)

    def saw(self, check: str, verdict: Verdict, at: datetime = NOW) -> None:
        self.write(lambda ledger: self.fold(ledger, check, verdict, at))

    def fold(self, ledger: Ledger, check: str, verdict: Verdict, at: datetime) -> None:
        w = self.world.find(f"fraud/{check}")
        fold(self.world, ledger, w, found(w, Window(at - w.watch.window, at), at, verdict, VERSION, 0.01), verdict)

    def again(self, *checks: str) -> None:
        """Look again, a minute later."""
        for check in checks:
            self.saw(check, self.look(check), NOW + timedelta(minutes=1))

    def answers(self, at: datetime = NOW + timedelta(minutes=2)) -> Mapping[str, Answer]:
        with self.world.store.read() as ledger:
            return answers(catalogue(), Known(self.world.config, ledger, self.world.config.services["fraud"], at))

    def scored(self, at: datetime = NOW + timedelta(minutes=2), **more: Answer) -> Score:
        return score(catalogue(), {**self.answers(at), **more}, at, VERSION)

    # The record

    def ran(self, runbook: str, at: datetime, *steps: tuple[str, str], state: str = "succeeded", seconds: float = 20.0, **more: Any) -> None:
        """A run with these steps, (action, how it ended); approved by whoever `by` says."""
        by = more.pop("by", "ada")

        def do(ledger: Ledger) -> None:
            seen = {action: "1" for action, _ in steps if action.partition(".")[0] not in ("check", "person", "trainer")}
            plan = Plan(runbook, "fraud", "because", (), seen, (), at, at + HOUR)
            run, _ = ledger.want(
                runbook=runbook,
                service="fraud",
                mode="approve",
                by=by,
                reason="because",
                wanted_at=at,
                approvals=(Approval("eve", at), Approval("ada", at)),
                **more,
            )
            end = at + timedelta(seconds=seconds)
            for n, (action, ended) in enumerate(steps, 1):
                ledger.save_step(run.id, StepRow(n, f"step {n}", action, ended, tries=1, intended_at=at, ended_at=end))  # type: ignore[arg-type] # how it ended
            ledger.save_run(replace(run, state=state, plan=plan, ended_at=end))
            ledger.record(end, f"run.{state}", f"{runbook} {state}", service="fraud", run=run.id)

        self.write(do)

    def page(
        self,
        at: datetime,
        by: str | None = "ada",
        after: timedelta = timedelta(minutes=5),
        letter: bool = True,
        reviewed: bool = True,
        member: str = "",
    ) -> None:
        from agent.model import Member

        def do(ledger: Ledger) -> None:
            made = ledger.add_incident("fraud", "page", "it is bad", at)
            ledger.save_incident(
                replace(
                    made,
                    state="resolved",
                    acknowledged_by=by,
                    acknowledged_at=at + after if by else None,
                    resolved_at=at + HOUR,
                    changed_at=at + HOUR,
                )
            )
            if member:
                ledger.put_member(made.id, Member(f"fraud/{member}", member, at - HOUR, "bad", "data"))
            ledger.record(at, "incident.opened", "it is bad", service="fraud", incident=made.id)
            ledger.post(f"incident-{made.id}/opened", "ada", "it is bad", {}, at)
            (ledger.letter_sent if letter else lambda key, to: ledger.letter_dropped(key, to, "no such host"))(f"incident-{made.id}/opened", "ada")
            if reviewed:
                ledger.record(at + DAY, "incident.reviewed", "reviewed by ada", service="fraud", incident=made.id)

        self.write(do)


# How it is made


def rows(now: datetime = NOW) -> Iterator[dict[str, Any]]:
    """A day of 240 predictions, and some of half a year ago."""
    for place in range(250):
        at = now - DAY + timedelta(minutes=5 * place) if place < 240 else now - 190 * DAY + timedelta(minutes=place)
        yield {
            "at": at.isoformat(),
            "id": f"i{place}",
            "version": VERSION,
            "inputs": f"[{place % 10}.0, {place % 7}.0]",
            "prediction": place % 10 + place % 7,
            "country": ("de", "it")[place // 10 % 2],
            "coin": int(place % 5 == 0),
            "paid": place % 3,
        }


def table(path: Path, lines: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(lines[0]))
        out.writeheader()
        out.writerows(lines)


def repository(folder: Path) -> tuple[Repository, str]:
    """Reviewed, merged, tested, locked, with a card; and the commit that trained."""
    code = Repository(folder / "code")
    code.commit({"requirements.txt": LOCK, "MODEL_CARD.md": CARD}, at=NOW - 50 * DAY)
    commit, _ = code.merge("weigh", {"train.py": "print(2)"}, at=NOW - 3 * DAY)
    cases = "".join(f'<testcase classname="tests.test_{name}" name="t"/>' for name in CLASSES)
    code.commit({f"results/{commit}.xml": f"<testsuite>{cases}</testsuite>"}, at=NOW - 3 * DAY)
    return code, commit


def lineage(folder: Path, commit: str) -> dict[str, Any]:
    tried = [{"parameters": {"lr": place}, "metric": 1.0 - place} for place in range(12)]
    return {
        "commit": commit,
        "data": {"train.csv": hashlib.sha256((folder / "train.csv").read_bytes()).hexdigest()},
        "sources": {"train.csv": "the warehouse, orders of 2025"},
        "environment": hashlib.sha256(LOCK.encode()).hexdigest(),
        "seed": 1,
        "search": {"knobs": ["lr"], "runs": tried},
        "parameters": {"lr": 0},
        "metrics": {"accuracy": 0.95},
    }


def register(folder: Path, told: Mapping[str, Any]) -> None:
    shutil.rmtree(folder / "models", ignore_errors=True)
    record(folder / "models", "1", {"model.onnx": b"\x08\x09"}, golden=GOLDEN, now=NOW - 40 * DAY)
    record(folder / "models", VERSION, {"model.onnx": b"\x08\x09"}, golden=GOLDEN, lineage=told, now=NOW - 2 * DAY)
    record(folder / "models", f"{VERSION}-again", {"model.onnx": b"\x08\x09"}, golden=GOLDEN, lineage={**told, "repeats": VERSION}, now=NOW - DAY)


def scraped(metrics: Metrics) -> None:
    """What Prometheus has of the service."""
    metrics.vectors |= {f"avg_over_time({UP}[{SPAN}000ms])": [({}, "1")], UP: [({}, "1")], f"{UP} offset {SPAN * 95 // 100}s": [({}, "1")]}
    metrics.vectors |= {f"count({name})": [({}, "12")] for name in FAMILIES}
    metrics.vectors[CALLERS.replace("$window", f"{SPAN}000ms")] = [({"client": "shop"}, "900")]


def written(folder: Path, server: Server, metrics: Metrics) -> None:
    """Everything but the store."""
    folder.mkdir(parents=True)
    table(folder / "log.csv", list(rows()))
    table(folder / "train.csv", [{"id": f"t{n}", "x0": n % 10, "x1": n % 7, "prediction": n % 10 + n % 7} for n in range(300)])
    (folder / "features").mkdir()
    (folder / "features" / "1").mkdir()
    (folder / "features" / "current").symlink_to("1")
    _, commit = repository(folder)
    register(folder, lineage(folder, commit))
    scraped(metrics)
    text = CONFIG.format(
        server=server.address,
        metrics=metrics.address,
        rules=RULES,
        up=UP,
        callers=CALLERS,
        request=json.dumps(REQUEST),
        families=json.dumps({name: f"count({name})" for name in FAMILIES}),
    )
    (folder / "watchkeeper.yaml").write_text(text)


def lived(desk: Desk) -> None:
    """A year of record, of which 28 days were looked at: what the audit reads of the past."""
    verdicts = {watch.check: desk.look(watch.check) for watch in desk.world.config.services["fraud"].watches}

    def do(ledger: Ledger) -> None:
        ledger.record(NOW - 365 * DAY, "agent.start", "watching")
        with_digests = {"1": "aa", VERSION: "bb", f"{VERSION}-again": "cc"}
        schema = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": []}
        ledger.serve("fraud", VERSION, NOW - 20 * DAY)
        ledger.set("seen/fraud", {"registry": with_digests, "schema": schema}, NOW, "watchkeeper")
        ledger.record(NOW - 20 * DAY - HOUR, "change.weights", "split", service="fraud", body={"from": {"1": 1}, "to": {"1": 0.9, VERSION: 0.1}})
        for days in range(28, -1, -1):
            for check, verdict in verdicts.items():
                desk.fold(ledger, check, verdict, NOW - days * DAY)
        take_up(ledger, desk.world.config, NOW - HOUR)
        ledger.pin("fraud/drift.compare", Window(NOW - 2 * DAY, NOW - DAY), "ada", "a good day", NOW - HOUR)

    desk.write(do)
    flip, look = ("router.point", "done"), ("check.passes", "done")
    desk.ran("bluegreen", NOW - 20 * DAY, look, flip)
    desk.write(
        lambda ledger: ledger.record(
            NOW - 20 * DAY + timedelta(seconds=9), "change.version", "2 serves", service="fraud", body={"from": "1", "to": VERSION}
        )
    )
    desk.ran("bluegreen", NOW - 21 * DAY, ("check.passes", "failed"), state="stopped")
    desk.ran("rollback", NOW - 10 * DAY, look, flip, ("check.serves", "done"), drill=True)
    desk.ran("quarantine", NOW - 9 * DAY, ("data.point", "done"), drill=True)
    desk.ran("retrain", NOW - 8 * DAY, (TRAINED, "done"), ("person.approve", "done"), by="watchkeeper", trigger="fraud/drift.compare")
    for days in range(12):
        desk.page(NOW - (20 + days) * DAY, by=("ada", "eve")[days % 2])
    desk.page(NOW - 15 * DAY, member="data.contract")


@contextmanager
def opened(folder: Path, server: Server, metrics: Metrics, pool: Pool) -> Iterator[Desk]:
    read = config.load(folder / "watchkeeper.yaml")
    with closing(Store.open(read.store).start()) as store:
        world = World(read, store, pool)
        world.clock = lambda: NOW + timedelta(minutes=1)
        yield Desk(folder, world, server, metrics)


@contextmanager
def servers() -> Iterator[tuple[Server, Metrics, Pool]]:
    server, metrics = Server(), Metrics()
    server.served, server.loaded = VERSION, (VERSION,)
    with closing(Pool(1)) as pool:
        try:
            yield server, metrics, pool
        finally:
            server.stop()
            metrics.stop()


def copied(master: Path, to: Path) -> Path:
    """A copy of the service's folder, store and all."""
    shutil.copytree(master, to, symlinks=True)
    return to
