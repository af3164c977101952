"""The configuration: what is accepted and what it becomes, what is refused and how that is told, and that nothing else can come of any bytes."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config import Config, load, schema
from agent.errors import ConfigError
from agent.model import Locator
from tests.bad_configs import BAD, CHECKS, RUNBOOKS, WATCH
from tests.plugin_box import install

FULL = """\
team: risk
store: keep/watchkeeper.db
listen: 0.0.0.0:8420
token: ${WK_TOKEN}
heartbeat: {url: "https://beat.example/${WK_TOKEN}", every: 30s}
workers: ${WK_WORKERS:-3}
retention: {findings: 30d, rollups: 52w}
budget: {actions: 1, per: 2h}
freeze: [{from: "2026-12-24T18:00:00+01:00", to: 2026-12-27T08:00:00Z, why: holidays}]
notify:
  ack_within: 10m
  channels:
    alice: https://hooks.example/alice/s3cret
    ops: {url: slack+https://hooks.slack.com/services/T/B, auth: {bearer: "${file:ops.txt}"}, within: 3s}
services:
  fraud:
    owner: alice
    escalation: [ops]
    mode: {default: suggest, mend: auto}
    soak: 10m
    control: http://127.0.0.1:9/up
    causes: {errors: mend, drift: null}
    runbooks: {mend: {with: {pause: 5s}}}
    objectives: {availability: {target: 0.99, watch: brisk}}
    targets:
      server:
        url: oip+https://models.example/fraud
        auth: {look: {bearer: "${WK_TOKEN}"}, act: {basic: {user: wk, password: pa$$word}}}
        ca: certs/ca.pem
        within: 4s
      live: &log
        url: sqlite:log.db?table=predictions
        time: {column: at, tz: UTC, settle: 90s}
        id: request_id
        features: {json: inputs, size: 64}
        exclude: [{column: probe, equals: 1}, {column: path, prefix: /internal}, {column: tenant, in: [a, b]}]
      labels: {url: "parquet:labels/*.parquet", key: request_id, time: {column: at, unit: ms}, delay: 7d, latest: true}
    watches:
      - check: toy.ready
      - {check: toy.compare, every: 1h, bind: {reference: "@fraud-v1.live"}, needs: [toy.ready, "@fraud-v1.up"]}
      - {check: toy.slow, name: brisk, every: 5s, within: 2s, window: 1m, with: {path: /x, limit: 200ms, rows: "${WK_ROWS}", waits: {a: 1s}},
         confirm: {looks: 3}, clear: 1, severity: ticket, splay: false}
  fraud-v1:
    targets: {server: oip+http://127.0.0.1/m, live: {<<: *log, url: "sqlite:old.db?table=predictions"}}
    watches: [{check: toy.ready, name: up, confirm: {bad: 3, of: 4}}]
runbooks:
  reload:
    asks: Is it reloaded?
    cures: [latency]
    parameters: {to: {type: text}, pause: {type: duration, default: 1m}, tries: 3, share: 0.5, loud: false}
    steps:
      - {check: up, within: 5s, otherwise: stop}
      - http: {post: "http://h/${WK_TOKEN}", path: [a, {parameter: to}], query: {n: {parameter: tries}}, headers: {A: "b ${WK_TOKEN}"},
               json: {a: [1]}, expect: [200, 201], keep: {id: job.id}, look: {get: http://h/, expect: {state: up}}, undo: {delete: http://h/}}
        name: job
        why: the new one
      - command: {ensure: [./a, {from: job.id}], env: {T: "${WK_TOKEN}"}, inherit: [HOME], look: [./b], undo: [./c]}
      - sql: {target: live, do: "UPDATE a SET b = :b", with: {b: {parameter: to}}, rows: 1, look: SELECT 1, undo: DELETE FROM a}
      - {wait: {parameter: pause}, within: 2h}
      - {hold: {check: toy.slow, with: {path: {from: job.id}}, every: 5s}}
      - {notify: {text: done, channel: alice}}
      - {approve: {ask: is it good, by: [ada], two: true}}
      - {run: {runbook: mend, with: {pause: 2s}}}
"""


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Checks and a runbook of these tests, installed and discovered like anyone's."""
    place = tmp_path_factory.mktemp("plugins")
    with install(place, CHECKS) as box, install(place, RUNBOOKS, "runbook"):
        yield box


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with the environment the examples ask for."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"WK_TOKEN": "tok-0123456789", "WK_ROWS": "7", "SECRET": "hunter2-and-more", "SHORT": "pwd"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "ops.txt").write_text("ops-9876543210\n")
    return tmp_path


def read(text: str | bytes, name: str = "watchkeeper.yaml") -> Config:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return load(Path(name))


def refused(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [problem.replace("watchkeeper.yaml", "$", 1) for problem in caught.value.problems]


# What is refused, and how it is told


@pytest.mark.parametrize(("text", "told"), [pytest.param(text, told, id=name) for name, text, told in BAD])
def test_a_bad_configuration_is_told_where_what_and_the_next_move(text: str, told: list[str], here: Path, toys: str) -> None:
    found = refused(text)
    assert [line.replace(toys, "{box}").partition("; see ")[0].partition("; mend or remove")[0].replace(str(here), "{tmp}") for line in found] == told


def test_every_problem_is_told_at_once_and_in_the_order_of_the_text(here: Path) -> None:
    text = (
        WATCH + "      - {check: toy.redy, every: 10 s, sevrity: page}\n      - {check: toy.slow, with: {limt: 1}, needs: [x]}\nteem: a\nlisten: 7\n"
    )
    lines = refused(text)
    assert len(lines) == 8
    assert [int(line.split(":")[1]) for line in lines] == sorted(int(line.split(":")[1]) for line in lines)


def test_the_exit_code_of_a_bad_configuration_is_2(here: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read("- a")
    assert caught.value.exit_code == 2


def test_text_that_is_not_utf8_names_the_byte_the_line_and_the_offset(here: Path) -> None:
    assert refused(b"services:\n  a: {}\nteam: caf\xe9\n") == ["$:3:10: is not UTF-8: byte 0xe9 at offset 27; save the file as UTF-8"]
    assert refused("services: {}".encode("utf-16"))[0].startswith("$:1:1: is not UTF-8: byte 0xff at offset 0")


def test_a_byte_order_mark_and_windows_line_ends_are_fine(here: Path) -> None:
    assert read(b"\xef\xbb\xbfteam: a\r\nservices: {}\r\n").team == "a"


def test_a_file_of_ten_megabytes_is_refused_by_its_size(here: Path) -> None:
    began = time.process_time()
    assert refused(b"team: " + b"x" * 10_000_000) == [
        "$: has 10,000,006 bytes, and a configuration file may have 1,048,576; split it into a folder of files"
    ]
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "text",
    [
        "services:\n  a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"  a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        "services: {}\nb: &b {" + ",".join(f"k{i}: 1" for i in range(2000)) + "}\n" + "".join(f"x{i}: {{<<: *b}}\n" for i in range(9000)),
        "services:\n  a0: &a0 [x]\n" + "".join(f"  a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 5000)),
    ],
    ids=["billions of laughs", "merges of a large mapping", "a chain deeper than the stack"],
)
def test_a_bomb_of_aliases_is_refused_before_it_grows(text: str, here: Path) -> None:
    began = time.process_time()
    assert any("aliases make this grow" in line for line in refused(text))
    assert time.process_time() - began < 10


@pytest.mark.parametrize("mark", ["[", "{", "- ", "? ", "[a,", "a: {"])
def test_endless_nesting_is_refused_and_does_not_overflow_the_stack(mark: str, here: Path) -> None:
    assert any("nested more than 50 deep" in line for line in refused(mark * (1_000_000 // len(mark))))


def test_what_is_not_there_is_told(here: Path) -> None:
    (here / "empty").mkdir()
    for name, said in (("no.yaml", "no such file"), ("empty", "no *.yaml file in this folder")):
        with pytest.raises(ConfigError, match=said.replace("*", r"\*")):
            load(Path(name))


def test_a_thousand_mistakes_are_told_up_to_a_bound(here: Path) -> None:
    lines = refused("services: {}\n" + "".join(f"k{i}: 1\n" for i in range(1000)))
    assert len(lines) == 501
    assert lines[-1] == "... and 500 more"


def test_a_name_two_plugins_claim_stops_loading_and_names_both_owners(here: Path, toys: str) -> None:
    with install(here, {"toy": CHECKS["toy"]}) as other:
        (line,) = refused("services: {}")
    assert toys in line
    assert other in line


# Filling in


def test_variables_files_and_dollars_are_filled_in(here: Path) -> None:
    config = read(FULL)
    server = config.services["fraud"].targets["server"]
    assert config.token is not None
    assert config.token.get_secret_value() == "tok-0123456789"
    assert server.look is not None
    assert server.act is not None
    assert (dict(server.look.values), dict(server.act.values)) == ({"token": "tok-0123456789"}, {"user": "wk", "password": "pa$word"})
    channel = config.notify.channels["ops"].at
    assert channel.look is not None
    assert channel.look.values["token"] == "ops-9876543210", "the line break at the end of the file is not part of the secret"
    assert config.workers == 3
    assert config.services["fraud"].watches[2].parameters["rows"] == 7


def test_what_is_filled_in_cannot_become_yaml(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", "a\nlisten: 0.0.0.0:1")
    config = read("team: ${TEAM}\nservices: {}\n")
    assert (config.team, config.listen) == ("a\nlisten: 0.0.0.0:1", "127.0.0.1:8420")


def test_a_token_of_digits_stays_text(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIN", "0012345678")
    token = read("token: ${PIN}\nservices: {}\n").token
    assert token is not None
    assert token.get_secret_value() == "0012345678"


def test_no_secret_is_shown_by_anything_a_configuration_can_be_turned_into(here: Path) -> None:
    config = read(FULL)
    shown = [repr(config), str(config), json.dumps(config.describe()), repr(config.token), repr(config.notify), repr(config.heartbeat)]
    shown += [repr(watch) for _, watch in config.watches()]
    for secret in ("tok-0123456789", "ops-9876543210", "pa$word", "s3cret"):
        assert not any(secret in text for text in shown), secret


def test_a_secret_in_an_address_is_shown_as_it_is_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAME", "hunter2-and-more")
    config = read("services: {fraud: {targets: {server: 'oip+http://h/m?key=${SECRET}'}}}\nstore: sqlite://${SAME}\n")
    assert "hunter2" not in repr(config)
    assert config.describe()["services"]["fraud"]["targets"]["server"]["url"] == "oip+http://h/m?key=${SECRET}"
    assert config.describe()["store"] == "sqlite://${SAME}"
    targets = "{server: {url: 'opi+http://${SECRET}'}, router: {url: 'pointer+http://h/m', key: '${SAME}'}}"
    for text in ("listen: ${SECRET}\nworkers: ${SAME}\nservices: {}\n", f"services: {{fraud: {{targets: {targets}}}}}"):
        assert not any("hunter2" in line for line in refused(text))


def test_a_word_that_was_filled_in_is_described_as_itself(here: Path) -> None:
    text = "services:\n  a: {mode: '${NO_MODE:-suggest}', soak: 1m}\n  b: {mode: suggest, team: '${NO_TEAM:-}'}\n"
    services = read(text).describe()["services"]
    assert [services[name]["mode"] for name in "ab"] == ["suggest", "suggest"]
    assert services["a"]["soak"] == "1m"


def test_the_digest_is_of_the_text_and_not_of_the_secrets(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(FULL)
    monkeypatch.setenv("WK_TOKEN", "tok-another-one")
    assert read(FULL).digest == first.digest
    assert read(FULL + "# a word\n").digest != first.digest


# What it becomes


def test_a_service_becomes_what_was_written_with_every_default_filled_in(here: Path) -> None:
    config = read(FULL)
    fraud, old = config.services["fraud"], config.services["fraud-v1"]
    assert (fraud.team, fraud.owner, fraud.escalation, fraud.mode, dict(fraud.modes)) == ("risk", "alice", ("ops",), "suggest", {"mend": "auto"})
    assert (old.mode, old.owner, old.budget.actions, old.budget.per) == ("observe", None, 1, timedelta(hours=2))
    assert (dict(fraud.causes), dict(fraud.runbooks)) == ({"errors": "mend", "drift": None}, {"mend": {"pause": "5s"}})
    assert config.freeze[0].start == datetime(2026, 12, 24, 17, tzinfo=UTC)
    assert config.store == str(here / "keep" / "watchkeeper.db")


def test_a_watch_becomes_what_was_written_with_every_default_filled_in(here: Path) -> None:
    ready, compare, brisk = read(FULL).services["fraud"].watches
    assert (ready.name, ready.key, ready.every, ready.within) == ("toy.ready", "fraud/toy.ready", timedelta(minutes=1), timedelta(seconds=10))
    assert (ready.window, ready.confirm.looks, ready.confirm.bad, ready.clear, ready.severity, ready.splay) == (ready.every, 2, None, 2, "page", True)
    assert (compare.confirm.looks, compare.confirm.bad, compare.confirm.of) == (1, 2, 3), "statistics wait for 2 of 3"
    assert (brisk.name, brisk.within, brisk.window, brisk.clear) == ("brisk", timedelta(seconds=2), timedelta(minutes=1), 1)
    assert (brisk.severity, brisk.splay, brisk.confirm.looks) == ("ticket", False, 3)
    assert brisk.parameters == {"path": "/x", "limit": "200ms", "rows": 7, "waits": {"a": "1s"}}


def test_a_short_interval_shortens_what_a_look_may_take(here: Path) -> None:
    (watch,) = read(WATCH + "      - {check: toy.ready, every: 3s}\n").services["fraud"].watches
    assert watch.within == timedelta(seconds=3)


def test_a_target_becomes_a_locator(here: Path) -> None:
    targets = read(FULL).services["fraud"].targets
    server = targets["server"]
    assert (server.service, server.role, server.scheme, server.within) == ("fraud", "server", "oip", timedelta(seconds=4))
    assert (server.ca, server.folder, server.verify) == (str(here / "certs" / "ca.pem"), str(here), True)
    assert targets["live"].options["time"] == {"column": "at", "tz": "UTC", "settle": 90.0}, "durations of a table travel as seconds"
    assert targets["labels"].options["delay"] == 7 * 86400.0


def test_a_bind_looks_at_another_service(here: Path) -> None:
    config = read(FULL)
    bound = config.services["fraud"].watches[1].bind["reference"]
    assert isinstance(bound, Locator)
    assert bound is config.services["fraud-v1"].targets["live"]
    assert bound.address == "old.db?table=predictions"


def test_needs_name_watches_of_other_services_too(here: Path) -> None:
    watch = read(FULL).services["fraud"].watches[1]
    assert watch.needs == ("toy.ready", "@fraud-v1.up")
    assert watch.needed == ("fraud/toy.ready", "fraud-v1/up")


def test_the_party_of_a_service_is_its_owner_and_those_who_come_next(here: Path) -> None:
    config = read(FULL)
    assert config.party("fraud").channels == ("alice", "ops")
    assert (config.party("fraud-v1").owner, config.party("fraud-v1").channels) == (None, ())


def test_a_configuration_cannot_be_changed(here: Path) -> None:
    config = read(FULL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.team = "other"  # type: ignore[misc]


def test_no_watch_is_invented(here: Path) -> None:
    assert list(read("services: {fraud: {}}").watches()) == []


# A folder of files


def test_the_files_of_a_folder_are_one_configuration(here: Path) -> None:
    folder = here / "conf"
    folder.mkdir()
    (folder / "b.yml").write_text(WATCH + "      - check: toy.ready\n    owner: alice\n")
    (folder / "a.yaml").write_text("team: risk\nnotify: {channels: {alice: https://h/x}}\n")
    (folder / "c.yaml").write_text("notify: {channels: {ops: https://h/y}, ack_within: 5m}\nservices: {other: {team: b}}\n")
    (folder / ".hidden.yaml").write_text("- not read")
    (folder / "notes.txt").write_text("- not read")
    config = load(folder)
    assert (list(config.services), list(config.notify.channels)) == (["fraud", "other"], ["alice", "ops"])
    assert [config.services[name].team for name in config.services] == ["risk", "b"]
    assert config.services["fraud"].targets["server"].folder == str(folder)


def test_what_two_files_both_define_is_refused_naming_both(here: Path) -> None:
    folder = here / "conf"
    folder.mkdir()
    (folder / "a.yaml").write_text("team: a\nservices:\n  fraud: {}\nnotify: {channels: {x: https://h/x}}\n")
    (folder / "b.yaml").write_text("services:\n  fraud: {}\nteam: b\nnotify: {channels: {x: https://h/x}}\n")
    with pytest.raises(ConfigError) as caught:
        load(Path("conf"))
    assert caught.value.problems == (
        "conf/b.yaml:2:3 services.fraud: is already defined at conf/a.yaml:3; keep one of the two",
        "conf/b.yaml:3:1 team: is already defined at conf/a.yaml:1; keep one of the two",
        "conf/b.yaml:4:21 notify.channels.x: is already defined at conf/a.yaml:4; keep one of the two",
    )


def test_each_file_of_a_folder_that_cannot_be_read_is_named(here: Path) -> None:
    folder = here / "conf"
    folder.mkdir()
    for name, body in (("a.yaml", b"\xff"), ("b.yaml", b"a: ["), ("c.yaml", b"services: {}")):
        (folder / name).write_bytes(body)
    with pytest.raises(ConfigError) as caught:
        load(Path("conf"))
    assert [line.split(":")[0] for line in caught.value.problems] == ["conf/a.yaml", "conf/b.yaml"]


# The schema and the size


def test_the_schema_is_closed_and_knows_the_same_keys(here: Path) -> None:
    made = schema()
    assert json.loads(json.dumps(made)) == made
    assert made["additionalProperties"] is False
    assert set(made["properties"]) >= {
        "team",
        "store",
        "listen",
        "token",
        "heartbeat",
        "notify",
        "workers",
        "retention",
        "budget",
        "freeze",
        "runbooks",
        "services",
    }
    step = made["$defs"]["StepFile"]["properties"]
    assert set(step) >= {"http", "command", "sql", "wait", "check", "hold", "notify", "approve", "run", "name", "within", "otherwise", "why"}
    short, long, _ = step["http"]["anyOf"]
    assert short["additionalProperties"] is False and {"required": ["post"]} in short["oneOf"] and long["$ref"].endswith("/HttpStep")
    watch = made["$defs"]["WatchFile"]["properties"]
    assert set(watch) == {"check", "name", "every", "within", "window", "with", "bind", "needs", "confirm", "clear", "severity", "splay"}
    assert "description" in made["$defs"]["WatchFile"]
    assert watch["every"]["default"] == "1m", "defaults are written as a person would"
    assert made["properties"]["workers"]["anyOf"][0] == {"minimum": 1, "maximum": 256, "type": "integer"}
    assert re.match(watch["every"]["pattern"], "1h30m")
    assert not re.match(watch["every"]["pattern"], "10 minutes")


def test_ten_thousand_watches_load_in_a_few_seconds_of_cpu(here: Path) -> None:
    folder = here / "conf"
    folder.mkdir()
    for service in range(100):
        rows = "".join(f"      - {{check: toy.slow, name: w{i}, every: 10s, with: {{path: /x, limit: 200ms}}}}\n" for i in range(100))
        (folder / f"s{service}.yaml").write_text(WATCH.replace("fraud", f"s{service}") + rows)
    began = time.process_time()
    assert len(list(load(folder).watches())) == 10_000
    assert time.process_time() - began < 15, "measured: about 2 s of CPU"


# Anything at all


def outcome(text: bytes) -> None:
    began = time.process_time()
    try:
        assert isinstance(read(text), Config)
    except ConfigError as problem:
        assert problem.problems
        assert all(line.startswith("watchkeeper.yaml") for line in problem.problems)
    assert time.process_time() - began < 5


quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(st.binary(max_size=400))
def test_any_bytes_are_a_configuration_or_a_configuration_error(here: Path, text: bytes) -> None:
    outcome(text)


WORDS = ["services", "targets", "watches", "check", "url", "auth", "time", "with", "bind", "needs", "mode", "freeze", "from", "to"]
WORDS += ["notify", "channels", "${X}", "${WK_TOKEN}", "${file:/dev/zero}", "*", "&", "<<", "!", "toy.ready"]


@quick
@given(
    st.lists(
        st.sampled_from([*WORDS, ": ", "\n", "  ", "- ", "{", "}", "[", "]", ", ", "'", '"', "|", ">", "#", "$$", "1e9", "@a.b", "\t", "é", "?"]),
        max_size=60,
    )
)
def test_any_heap_of_its_words_is_a_configuration_or_a_configuration_error(here: Path, parts: list[str]) -> None:
    outcome("".join(parts).encode())


@quick
@given(st.data())
def test_any_change_of_a_valid_configuration_is_a_configuration_or_a_configuration_error(here: Path, data: st.DataObject) -> None:
    lines = FULL.encode().split(b"\n")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        row = lines[place]
        cut = data.draw(st.integers(0, len(row)))
        change = data.draw(st.sampled_from(["cut", "insert", "drop", "double", "swap"]))
        if change == "cut":
            lines[place] = row[:cut] + row[cut + 1 :]
        elif change == "insert":
            lines[place] = (
                row[:cut] + data.draw(st.binary(min_size=1, max_size=3) | st.sampled_from([b"[", b"{", b"null", b": ", b"- ", b"${"])) + row[cut:]
            )
        elif change == "drop":
            lines[place : place + 1] = []
            lines = lines or [b""]
        elif change == "double":
            lines.insert(place, row)
        else:
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[place], lines[other] = lines[other], lines[place]
    outcome(b"\n".join(lines))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["10s", "toy.ready", "oip+http://h/m", "@a.b", "observe"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@quick
@given(st.data())
def test_any_value_in_any_place_is_a_configuration_or_a_configuration_error(here: Path, data: st.DataObject) -> None:
    import yaml

    tree = yaml.safe_load(FULL)
    spot, holder = tree, (tree, "services")
    while isinstance(spot, (dict, list)) and spot and data.draw(st.booleans() | st.just(True)):
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        holder = (spot, data.draw(st.sampled_from(keys)))
        spot = spot[holder[1]]  # type: ignore[index]
    holder[0][holder[1]] = data.draw(VALUES)  # type: ignore[index]
    outcome(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))
