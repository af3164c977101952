"""The MLServer router: what it refuses, from a speaker, and what it does to a real MLServer under load, which nobody here wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from agent import Absent, Done, Locator, Pending, Try, verbs
from agent.errors import AnswerError, CannotError, ConfigError, DataError, DeadlineError, UnreachableError
from agent.targets import _disk, connect
from agent.targets.mlserver import _kept, _rank
from tests import fraud
from tests.clients import asking
from tests.conftest import HOUSE
from tests.processes import start
from tests.servers import mlserver
from tests.servers.oip import REQUEST
from tests.test_mlserver import free_ports

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNTIME = """
import asyncio
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Times(MLModel):
    async def load(self):
        extra = self.settings.parameters.extra
        await asyncio.sleep(extra.get("takes", 0))
        if extra.get("breaks"):
            raise RuntimeError("its weights are gone")
        return True

    async def predict(self, payload):
        output = NumpyCodec.encode_output("y", NumpyCodec.decode_input(payload.inputs[0]) * self.settings.parameters.extra["factor"])
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
"""


def tried(before: Any) -> Try:
    return Try("run-1/2", 1, NOW + timedelta(seconds=10), before, 1, NOW)


def moved(one: Any, to: str) -> Any:
    """Through the action, as a run would: what stood, the effect, what is seen then."""
    before = one.point.before({"to": to})
    one.point.do({"to": to}, tried(before))
    return one.point.look({"to": to}, tried(before))


# From a speaker


@pytest.fixture(params=[False, True], ids=["alone", "together"])
def speaker(request: pytest.FixtureRequest) -> Iterator[mlserver.Speaker]:
    found = mlserver.Speaker(request.param)
    yield found
    found.stop()


def router(speaker: mlserver.Speaker, **more: Any) -> Any:
    return connect(Locator("fraud", "router", speaker.url, speaker.options, **{"within": timedelta(seconds=5), **more}))


def test_versions_below_the_one_pointed_at_stay_loaded_and_those_above_do_not():
    speaker = mlserver.Speaker(together=True)
    one = router(speaker)
    for to, live in (("3", ["1", "3"]), ("2", ["1", "2"]), ("1", ["1"])):
        assert isinstance(moved(one, to), Done)
        assert (speaker.live(), speaker.loaded) == (live, live)
    speaker.stop()


def test_a_load_that_fails_leaves_what_was_served_and_puts_the_files_back(speaker):
    one = router(speaker)
    moved(one, "3")
    stood, speaker.breaks = speaker.live(), ("2",)
    with pytest.raises(AnswerError, match=r"fraud.router: version 2 was not loaded, 3 was left, and the settings were put back: .*cannot load it"):
        one.point.do({"to": "2"}, tried("3"))
    assert (speaker.live(), one.served()) == (stood, {"3": 1.0})
    assert isinstance(one.point.look({"to": "2"}, tried("3")), Absent)


def test_settings_that_are_kept_nowhere_else_are_not_written_over(speaker):
    one = router(speaker)
    edited = Path(speaker.to.replace("{version}", "1"))
    edited.write_text(mlserver.settings("1", max_batch_size=8))
    moved_away = "1" if "{version}" in speaker.to else "2"
    with pytest.raises(CannotError, match="would be lost; keep a copy there first"):
        one.point.do({"to": moved_away}, tried("1"))
    assert "max_batch_size" in edited.read_text()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"parameters": null}', mlserver.settings("1"), '{"name": "other", "parameters": {"version": "2"}}']
)
def test_kept_settings_that_are_of_no_such_version_are_refused(speaker, text):
    (speaker.place / "settings" / "2.json").write_text(text)
    with pytest.raises(CannotError, match=r"2.json are no settings of version 2 of m, but of (none|1)"):
        router(speaker).point.do({"to": "2"}, tried("1"))
    assert (speaker.live(), speaker.loaded) == (["1"], ["1"])


@pytest.mark.parametrize("to", ["9", "../1", "", "*", "{version}"])
def test_a_version_without_kept_settings_is_told_with_those_there_are(speaker, to):
    with pytest.raises(CannotError, match=r"no settings of version .* there is 1, 2, 3"):
        router(speaker).point.do({"to": to}, tried("1"))


def test_a_load_that_nobody_saw_the_end_of_is_looked_at_until_it_is_ready_and_done_again_if_it_is_gone(speaker):
    one, slow = router(speaker), router(speaker, within=timedelta(milliseconds=300))
    speaker.hangs = True
    with pytest.raises(DeadlineError):
        slow.point.do({"to": "2"}, tried("1"))
    assert "2" in speaker.live()  # what is wanted stands: the load is under way
    waits = one.point.look({"to": "2"}, tried("1"))
    assert isinstance(waits, Pending) and waits.said == "MLServer is not ready to answer with 2 yet"
    speaker.hangs = False
    assert isinstance(one.point.look({"to": "2"}, tried("1")), Done)
    speaker.loaded = ["1"]  # it could not be loaded after all
    assert isinstance(one.point.look({"to": "2"}, tried("1")), Absent)
    assert isinstance(moved(one, "2"), Done)


def test_what_cannot_be_written_moves_nothing_and_leaves_nothing_half_done(monkeypatch):
    """A disk that is full after the first of two files."""
    speaker, synced, files = mlserver.Speaker(together=True), _disk.synced, []
    one = router(speaker)
    moved(one, "3")

    def full(path: Path) -> None:
        files.append(path)
        if len(files) == 3:
            raise OSError(28, "No space left on device")
        synced(path)

    monkeypatch.setattr(_disk, "synced", full)
    with pytest.raises(DataError, match="No space left on device"):
        one.point.do({"to": "2"}, tried("3"))
    assert (speaker.live(), speaker.loaded) == (["1", "3"], ["1", "3"])
    speaker.stop()


def test_an_agent_that_was_killed_before_the_load_finds_its_own_files_and_goes_on(speaker):
    """SIGKILL between the files and the load: what it left is what was wanted, and nothing was served but what stood."""
    program = """
import sys
from datetime import UTC, datetime, timedelta
from agent import Locator, Try
from agent.targets import connect, mlserver
mlserver.Wire.post = lambda *_, **__: (print("written", flush=True), sys.stdin.read())
now = datetime.now(UTC)
settings = {"from": sys.argv[2], "to": sys.argv[3]}
connect(Locator("fraud", "router", sys.argv[1], {"settings": settings})).point.do({"to": "2"}, Try("key", 1, now + timedelta(minutes=1), "1", 1, now))
"""
    settings = speaker.options["settings"]
    line = [sys.executable, "-c", program, speaker.url, settings["from"], settings["to"]]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HOUSE) as process:
        assert process.stdout.readline() == "written\n"
        process.kill()
    one = router(speaker)
    assert "2" in speaker.live() and one.served() == {"1": 1.0}
    assert isinstance(one.point.look({"to": "2"}, tried("1")), Absent)
    assert isinstance(moved(one, "2"), Done)


def test_a_place_that_is_no_file_moves_nothing(speaker):
    where = Path(speaker.to.replace("{version}", "2"))
    where.unlink(missing_ok=True)
    where.mkdir()
    with pytest.raises(UnreachableError, match="cannot be read"):
        router(speaker).point.do({"to": "2"}, tried("1"))
    assert speaker.loaded == ["1"]


def test_nothing_loaded_that_is_known_is_an_error_with_what_is_known(speaker):
    speaker.loaded = ["7"]
    with pytest.raises(AnswerError, match=r"holds no version of m that is known here \(3, 2, 1\)"):
        router(speaker).served()


def test_versions_are_ordered_as_mlserver_orders_them():
    assert sorted(["10", "9", "v2", "v10"], key=_rank) == ["9", "10", "v10", "v2"]
    assert sorted(["2", "1a"], key=_rank) == ["1a", "2"]  # as text, where one of two is no number


def test_kept_files_are_found_by_their_version_wherever_it_stands(tmp_path):
    (tmp_path / "a[1]").mkdir()
    for name in ("m-1.json", "m-2.json", "other.json"):
        (tmp_path / "a[1]" / name).write_text("")
    assert set(_kept(str(tmp_path / "a[1]" / "m-{version}.json"))) == {"1", "2"}
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
    (tmp_path / "1" / "m-1.json").write_text("")
    (tmp_path / "2" / "m-1.json").write_text("")
    assert set(_kept(str(tmp_path / "{version}" / "m-{version}.json"))) == {"1"}


@pytest.mark.parametrize("settings", [None, "x", {}, {"from": "a/{version}"}, {"from": "a", "to": "b"}, {"from": "{version}", "to": "b", "of": "c"}])
def test_a_router_that_could_not_work_is_refused_before_anything_is_sent(settings):
    with pytest.raises(ConfigError, match=r"fraud.router.settings: write \{from: settings/\{version\}.json"):
        connect(Locator("fraud", "router", "mlserver+http://host:8080/m", {"settings": settings} if settings is not None else {}))


# MLServer itself


class Box:
    """A real MLServer with three models whose version 1 doubles and 2 trebles: `alone` (one settings file), `together` (a folder a version),
    and `stated`, whose settings name their version in `versions` and not in `parameters`. `broken` is a version 3 that does not load."""

    def __init__(self, place: Path, url: str) -> None:
        self.place, self.url = place, url
        for model in ("alone", "together", "stated"):
            for version, extra in (("1", {"factor": 2}), ("2", {"factor": 3}), ("3", {"factor": 4, "breaks": True})):
                self.keep(model, version, **extra)
            path = self.live(model, "1")
            path.parent.mkdir(parents=True)
            path.write_text((place / "settings" / f"{model}-1.json").read_text())
            for version in ("2", "3") if model == "together" else ():
                self.live(model, version).parent.mkdir()

    def keep(self, model: str, version: str, **extra: Any) -> None:
        named = {"versions": [version], "parameters": {}} if model == "stated" else {"parameters": {"version": version}}
        named["parameters"]["extra"] = extra
        (self.place / "settings").mkdir(exist_ok=True)
        (self.place / "settings" / f"{model}-{version}.json").write_text(json.dumps({"name": model, "implementation": "runtime.Times", **named}))

    def live(self, model: str, version: str) -> Path:
        return self.place / "repository" / model / (version if model == "together" else "") / "model-settings.json"

    def router(self, model: str) -> Any:
        settings = {"from": f"settings/{model}-{{version}}.json", "to": str(self.live(model, "{version}"))}
        at = Locator("fraud", "router", f"mlserver+{self.url}/{model}", {"settings": settings}, folder=str(self.place), within=timedelta(seconds=30))
        return connect(at)

    def asking(self, model: str) -> Any:
        return asking(f"{self.url}/v2/models/{model}/infer", REQUEST, lambda body: body["outputs"][0]["data"][0])

    def post(self, path: str) -> Any:
        with urlopen(Request(self.url + path, b"{}", {"content-type": "application/json"}), timeout=30) as reply:
            return json.loads(reply.read() or b"null")


@pytest.fixture(scope="module")
def box(mlserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    place, ports = tmp_path_factory.mktemp("mlserver"), free_ports(3)
    (place / "runtime.py").write_text(RUNTIME)
    names = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    made = Box(place, f"http://127.0.0.1:{ports[0]}")
    (place / "repository" / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **names}))
    with start([mlserver, "start", place / "repository"], lambda _: ready(made.url), {"PYTHONPATH": str(place)}, place, 90):
        yield made


def ready(url: str) -> bool:
    try:
        return all(urlopen(f"{url}/v2/models/{model}/ready", timeout=5).status == 200 for model in ("alone", "together", "stated"))
    except OSError:
        return False


def there_and_back(box: Box, model: str, takes: float, times: int = 1) -> list[str]:
    """To version 2 and back to 1, each of which takes so long to load, under load; what was lost on the way there."""
    for version, factor in (("1", 2), ("2", 3)):
        box.keep(model, version, factor=factor, takes=takes)
    box.live(model, "1").write_text((box.place / "settings" / f"{model}-1.json").read_text())
    one, lost = box.router(model), []
    with box.asking(model) as seen:
        seen.more(2.0)
        for _ in range(times):
            assert isinstance(moved(one, "2"), Done)
            seen.more(3.0)
            lost += seen.lost[len(lost) :]
            assert isinstance(moved(one, "1"), Done)
            seen.more(2.0)
            assert seen.lost == lost, "the way back loses nothing"
    assert set(seen.answers) == {2.0, 3.0}
    return lost


@pytest.mark.parametrize("takes", [0, 0.5])
def test_settings_that_state_their_version_apart_lose_nothing_there_and_back(box, takes):
    assert there_and_back(box, "stated", takes, times=1 if takes else 4) == []


@pytest.mark.parametrize("model", ["alone", "together"])
def test_a_version_above_is_asked_before_it_is_loaded_and_the_way_back_loses_nothing(box, model):
    there_and_back(box, model, 0, times=3)
    lost = there_and_back(box, model, 0.5)
    assert lost and all(one.startswith("400 ") and "not ready yet" in one for one in lost)  # MLServer, as the documentation says


@pytest.mark.parametrize("model", ["alone", "together", "stated"])
def test_a_version_that_mlserver_cannot_load_leaves_the_one_that_was_served(box, model):
    one, files = box.router(model), {path: path.read_bytes() for path in box.place.glob("repository/**/model-settings.json")}
    with pytest.raises(AnswerError, match=r"version 3 was not loaded, 1 was left, and the settings were put back: .*500"):
        one.point.do({"to": "3"}, tried("1"))
    assert {path: path.read_bytes() for path in box.place.glob("repository/**/model-settings.json")} == files
    assert isinstance(one.point.look({"to": "3"}, tried("1")), Absent)
    with box.asking(model) as seen:
        seen.more(2.0)
    assert (seen.lost, set(seen.answers)) == ([], {2.0})


def test_what_somebody_else_had_mlserver_load_is_left_alone(box):
    one = box.router("alone")
    box.live("alone", "1").write_text((box.place / "settings" / "alone-2.json").read_text())
    box.post("/v2/repository/models/alone/load")
    with pytest.raises(AnswerError, match="no longer points at 1: somebody else moved it"):
        one.point.do({"to": "1"}, tried("1"))
    assert one.served() == {"2": 1.0}
    assert isinstance(moved(one, "1"), Done)


def test_mlserver_indexes_the_files_and_not_what_it_has_loaded_so_it_is_not_believed(box):
    server = connect(Locator("fraud", "server", f"oip+{box.url}/alone"))
    assert server.version() == "1"
    box.live("alone", "1").write_text((box.place / "settings" / "alone-2.json").read_text())
    rows = [(row["version"], row["state"]) for row in box.post("/v2/repository/index") if row["name"] == "alone"]
    assert rows == [("2", "READY")]  # and it answers with 1
    assert (box.router("alone").served(), server.version()) == ({"1": 1.0}, None)
    box.live("alone", "1").write_text((box.place / "settings" / "alone-1.json").read_text())
    server.close()


def test_a_rollback_runs_on_mlserver_alone_and_its_clients_lose_nothing(box, tmp_path):
    """Version 2 serves and 1 stays loaded below it: it is asked first, and then it has the traffic."""
    for version in ("1", "2"):
        box.keep("together", version, factor=2)
        box.live("together", version).write_text((box.place / "settings" / f"together-{version}.json").read_text())
    box.post("/v2/repository/models/together/load")
    path = fraud.write_config(tmp_path, box.url, patience="60s")
    settings = {"from": str(box.place / "settings" / "together-{version}.json"), "to": str(box.live("together", "{version}"))}
    router = json.dumps({"url": f"mlserver+{box.url}/together", "settings": settings})
    text = path.read_text().replace(f"oip+{box.url}/m", f"oip+{box.url}/together").replace(f"pointer+{box.url}", router)
    path.write_text(text)
    with fraud.at_work(path) as desk:
        verbs.good(desk.world, "fraud", "1", "ada")
        desk.see()
        with box.asking("together") as seen:
            seen.more(2.0)
            verbs.start(desk.world, "rollback", "fraud", {}, "ada")
            run = desk.respond()
            seen.more(2.0)
    assert run.state == "succeeded", run.said
    assert (seen.lost, box.router("together").served()) == ([], {"1": 1.0})
    assert [step.state for step in run.steps] == ["done"] * len(run.steps)
