"""The proof of the record: bundles that anybody can check, anchors in a real Prometheus, and every way of tampering that we know of."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import _proof, audit, config, reach
from agent._ledger import link
from agent.audit import verify
from agent.audit.identifiers import found
from agent.audit.packing import bundle
from agent.audit.verify import Anchor
from agent.audit.verifying import anchors_of, of_record
from agent.errors import DataError, StoreCorruptError
from agent.metrics import Watching, exporter
from agent.model import digest
from agent.store import Store
from tests.conftest import need
from tests.test_audit_outputs import REST, report, told
from tests.test_cli import Desk
from tests.test_mlserver import free_ports

HOUR = timedelta(hours=1)


# Anchors, in a Prometheus that scrapes the agent's own metrics

SCRAPE = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - {{job_name: watchkeeper, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}
"""


@dataclass(frozen=True)
class Anchored:
    """A record, where it is, and what a Prometheus has seen of it while it was written; after that it was written on."""

    store: Path
    url: str
    anchors: list[Anchor]

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copy(self.store, folder / "copy.db"))


def write(store: Store, count: int, kind: str = "agent.start", at: datetime | None = None) -> None:
    for n in range(count):
        store.write(lambda ledger, n=n: ledger.record(at or datetime.now(UTC), kind, f"line {n}", service="fraud", body={"n": n}))


def serving(body: Callable[[], bytes]) -> ThreadingHTTPServer:
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = body()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def until_seen(url: str, links: int) -> None:
    """Wait until Prometheus has scraped a chain of that length."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            if any(one.links >= links for one in verify.prometheus(url, days=1)):
                return
        except verify.Unreadable:
            pass
        time.sleep(0.1)
    raise AssertionError(f"Prometheus never saw {links} links")


@pytest.fixture(scope="module")
def anchored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anchored]:
    folder = tmp_path_factory.mktemp("anchored")
    (own,) = free_ports(1)
    with closing(Store.open(folder / "record.db").start()) as store:
        write(store, 12)
        server = serving(exporter(Watching(store, lambda: datetime.now(UTC))))
        (folder / "prometheus.yml").write_text(SCRAPE.format(port=server.server_address[1]))
        words = [need("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        with (folder / "log").open("w") as log:
            running = subprocess.Popen([*map(str, words), f"--web.listen-address=127.0.0.1:{own}"], stdout=log, stderr=log)
        try:
            until_seen(f"http://127.0.0.1:{own}", 12)
            write(store, 8)
            until_seen(f"http://127.0.0.1:{own}", 20)
            server.shutdown()
            write(store, 3)
            store.write(lambda ledger: None, durable=True)
            with store.read() as ledger:
                ledger.conn.exec_driver_sql("SELECT 1")
            store.backup(folder / "whole.db")
            yield Anchored(folder / "whole.db", f"http://127.0.0.1:{own}", anchors_of(f"http://127.0.0.1:{own}", "", ()))
        finally:
            running.kill()
            running.wait(20)
            server.server_close()


def judged(place: Path, anchors: Any = ()) -> verify.Verdict:
    with closing(Store.open(place)) as store, store.read() as ledger:
        return of_record(ledger, anchors)


def test_an_untouched_record_holds_and_the_end_that_nobody_has_seen_is_counted(anchored: Anchored) -> None:
    assert {one.links for one in anchored.anchors} >= {12, 20}
    verdict = judged(anchored.store, anchored.anchors)
    assert (verdict.code, verdict.integrity, verdict.completeness, verdict.loose) == (verify.ANCHORED, [], [], 3)
    assert judged(anchored.store).code == verify.LOOSE
    assert "cannot be told" in verify.text(judged(anchored.store))


def edit(conn: sqlite3.Connection) -> None:
    conn.execute("UPDATE event SET what = 'nothing' WHERE id = 5")


def delete(conn: sqlite3.Connection) -> None:
    conn.execute("DELETE FROM evidence WHERE seq = 7")


def swap(conn: sqlite3.Connection) -> None:
    rows = conn.execute("SELECT seq, ref, digest, link FROM evidence WHERE seq IN (10, 11) ORDER BY seq").fetchall()
    for (seq, *_), (_, *other) in zip(rows, rows[::-1], strict=True):
        conn.execute("UPDATE evidence SET ref = ?, digest = ?, link = ? WHERE seq = ?", (*other, seq))


def cut(conn: sqlite3.Connection) -> None:
    """The end, and the counters that would tell."""
    conn.execute("DELETE FROM evidence WHERE seq > 15")
    conn.execute("DELETE FROM event WHERE id > 15")
    conn.execute("UPDATE sqlite_sequence SET seq = 15")


def chained(conn: sqlite3.Connection, since: int) -> None:
    """The links from there on, made anew so that each follows from the one before."""
    (before,) = conn.execute("SELECT link FROM evidence WHERE seq = ?", (since - 1,)).fetchone()
    for seq, ref in conn.execute("SELECT seq, ref FROM evidence WHERE seq >= ? ORDER BY seq", (since,)).fetchall():
        own = digest(_body(conn, ref))
        before = link(before, own)
        conn.execute("UPDATE evidence SET digest = ?, link = ? WHERE seq = ?", (own, before, seq))


def _body(conn: sqlite3.Connection, ref: int) -> dict[str, Any]:
    names = [row[1] for row in conn.execute("PRAGMA table_info(event)")]
    row = dict(zip(names, conn.execute("SELECT * FROM event WHERE id = ?", (ref,)).fetchone(), strict=True))
    return {
        **{k: v for k, v in row.items() if k != "id"},
        "at": datetime.fromisoformat(row["at"]).replace(tzinfo=UTC),
        "body": json.loads(row["body"]),
    }


def rewrite(conn: sqlite3.Connection) -> None:
    """What was said, and every link after it, so that the chain holds."""
    edit(conn)
    chained(conn, 5)


def replace_all(conn: sqlite3.Connection) -> None:
    """Another chain, shorter and whole, from its beginning."""
    cut(conn)
    conn.execute("UPDATE event SET what = 'all is well'")
    (own,) = [digest(_body(conn, 1))]
    conn.execute("UPDATE evidence SET digest = ?, link = ? WHERE seq = 1", (own, link("0" * 64, own)))
    chained(conn, 2)


def dated_back(conn: sqlite3.Connection) -> None:
    """An attestation of a month ago, written now, sealed as it should be."""
    month = (datetime.now(UTC) - timedelta(days=30)).replace(tzinfo=None).isoformat(" ")
    last, ref = conn.execute("SELECT max(seq), max(ref) FROM evidence").fetchone()
    conn.execute("INSERT INTO event (id, at, kind, what, body) VALUES (?, ?, 'attest', 'TEAM-09', '{}')", (ref + 1, month))
    conn.execute("INSERT INTO evidence (seq, at, kind, ref, digest, link) VALUES (?, ?, 'event', ?, '', '')", (last + 1, month, ref + 1))
    chained(conn, last + 1)


def misdated(conn: sqlite3.Connection) -> None:
    conn.execute("UPDATE evidence SET at = datetime(at, '-40 days') WHERE seq = 9")


@pytest.mark.parametrize(
    ("tamper", "alone", "said"),
    [
        (edit, verify.BROKEN, "event 5 is not what was sealed"),
        (delete, verify.BROKEN, "evidence 7 to 7 is missing"),
        (swap, verify.BROKEN, "evidence 10 (event 11"),
        (misdated, verify.BROKEN, "link 9 does not bear the time"),
        (cut, verify.LOOSE, "saw 20 links"),
        (rewrite, verify.LOOSE, "that ended otherwise: link 12 or one before it was written anew"),
        (replace_all, verify.LOOSE, "the end was cut off"),
        (dated_back, verify.LOOSE, "it is dated back"),
    ],
)
def test_every_way_to_change_the_record_is_found(anchored: Anchored, tmp_path: Path, tamper: Any, alone: int, said: str) -> None:
    place = anchored.copy(tmp_path)
    with closing(sqlite3.connect(place)) as conn:
        tamper(conn)
        conn.commit()
    assert judged(place).code == alone, "what a chain alone can tell"
    verdict = judged(place, anchored.anchors)
    assert verdict.code == verify.BROKEN
    assert any(said in problem for problem in [*verdict.integrity, *verdict.completeness]), verify.text(verdict)


@pytest.mark.parametrize("change", ["at = 'soon'", "link = x'00ff'", "digest = NULL", "ref = 'x'"])
def test_what_is_not_of_the_kind_the_agent_writes_is_damage_and_no_crash(anchored: Anchored, tmp_path: Path, change: str) -> None:
    place = anchored.copy(tmp_path)
    with closing(sqlite3.connect(place)) as conn:
        conn.execute("PRAGMA ignore_check_constraints = 1")
        conn.execute("PRAGMA writable_schema = 1")
        conn.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'evidence'")
        conn.commit()
    with closing(sqlite3.connect(place)) as conn:
        conn.execute(f"UPDATE evidence SET {change} WHERE seq = 4")
        conn.commit()
    try:
        assert judged(place, anchored.anchors).code == verify.BROKEN
    except StoreCorruptError as problem:
        assert "cannot be read" in str(problem)


def test_a_configuration_that_was_edited_behind_the_agent_is_found(desk: Desk, tmp_path: Path) -> None:
    made = config.load(desk.path)
    with closing(Store.open(tmp_path / "a.db").start()) as store:
        store.write(lambda ledger: ledger.record(datetime.now(UTC), "change.config", "changed", body={"digest": made.digest}))
        edited = tmp_path / "edited.yaml"
        edited.write_text(desk.path.read_text().replace("soak: 1s", "soak: 2s").replace("folder:models", f"folder:{desk.folder}/models"))
        with store.read() as ledger:
            assert of_record(ledger, (), made).integrity == []
            assert "it was edited" in of_record(ledger, (), config.load(edited)).integrity[0]


def test_the_command_ends_by_the_one_table_and_prints_no_password(anchored: Anchored, tmp_path: Path, desk: Desk) -> None:
    port = anchored.url.rpartition(":")[2]
    said = desk("audit", "verify", anchored.store, "--prometheus", f"http://eve:hunter2@127.0.0.1:{port}")
    assert "integrity     holds: 23 links" in said and "completeness  holds: 3 links at the end" in said and "hunter2" not in said
    assert desk.json("audit", "verify", anchored.store, code=3)["completeness"]["holds"] is None
    place = anchored.copy(tmp_path)
    with closing(sqlite3.connect(place)) as conn:
        cut(conn)
        conn.commit()
    assert "BROKEN" in desk("audit", "verify", place, "--prometheus", anchored.url, code=4)
    assert "does not tell its anchors" in desk("audit", "verify", place, "--prometheus", "http://127.0.0.1:9", code=3)
    assert "no address" in desk("audit", "verify", place, "--prometheus", "file:///etc/passwd", code=3)
    assert "there is no" in desk("audit", "verify", tmp_path / "gone.tar.gz", code=2)
    (tmp_path / "text.db").write_text("no store")
    assert "neither a bundle nor a store" in desk("audit", "verify", tmp_path / "text.db", code=4)
    with closing(sqlite3.connect(tmp_path / "other.db")) as conn:
        conn.execute("CREATE TABLE mine (x)")
    assert "no store of Watchkeeper" in desk("audit", "verify", tmp_path / "other.db", code=4)
    assert desk.json("audit", "verify", code=3)["integrity"]["holds"] is True


def test_several_agents_are_not_taken_for_one(anchored: Anchored) -> None:
    assert verify.prometheus(anchored.url, 'job="watchkeeper"', 1) and verify.prometheus(anchored.url, 'job="other"', 1) == []
    body = {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {"job": job}, "values": [[1.0, "3"]]} for job in "ab"]}}

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(verify.Unreadable, match=r"scrapes 2 agents .*job=a.*job=b"):
            verify.prometheus(f"http://127.0.0.1:{server.server_address[1]}", days=1)
    finally:
        server.shutdown()
        server.server_close()


# Bundles


@pytest.fixture(scope="module")
def packed(desk: Desk) -> bytes:
    """The bundle of the service, with an answer that rests on an event and on a finding."""
    made = config.load(desk.path)
    with reach.reading(made) as ledger:
        body = audit.collect(made, ledger, ["fraud"], datetime.now(UTC) - HOUR, datetime.now(UTC))
        rows = {row["kind"]: row for row in ledger.chain()}
        item = body["services"][0]["readiness"]["items"][0]
        item["evidence"] = [
            {**json.loads(json.dumps(REST.__dict__ if hasattr(REST, "__dict__") else {})), **_rest(kind, row)} for kind, row in rows.items()
        ]
        first = bundle(made, ledger, body)
        assert first == bundle(made, ledger, body), "the same record gives the same bytes"
        os.environ["TZ"] = "Pacific/Auckland"
        try:
            time.tzset()
            assert first == bundle(made, ledger, body), "wherever it is made"
        finally:
            del os.environ["TZ"]
            time.tzset()
        return first


def _rest(kind: str, row: Any) -> dict[str, Any]:
    seen = {"kind": kind, "source": "agent", "vantage": "self", "at": row["at"].isoformat(), "collector": "c", "query": ""}
    return {**seen, "locator": f"{kind} {row['ref']}", "digest": row["digest"], "link": row["seq"]}


def unpacked(body: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr] # all are files


def sealed_again(files: dict[str, bytes]) -> dict[str, bytes]:
    """With a manifest that says what the files are now."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {name: hashlib.sha256(body).hexdigest() for name, body in files.items() if name != "manifest.json"}
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def head(files: dict[str, bytes]) -> tuple[int, str]:
    last = json.loads(files["chain.jsonl"].splitlines()[-1])
    return last["seq"], last["link"]


def test_a_bundle_holds_what_it_takes_and_tells_nothing_of_the_machine(packed: bytes) -> None:
    files = unpacked(packed)
    assert set(files) > {"manifest.json", "audit.json", "audit.html", "schema.json", "catalogue.toml", "config.json", "chain.jsonl", "verify.py"}
    held = sum(name.startswith("evidence/") for name in files)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert {(one.mtime, one.uid, one.uname, one.mode) for one in tar} == {(0, 0, "", 0o644)}
    verdict = verify.verified(files)
    assert verdict.code == verify.LOOSE and verdict.own >= held > 1, verdict


def run_alone(folder: Path, *words: str) -> tuple[int, str]:
    """verify.py by itself: no package of ours or of anybody can be imported."""
    done = subprocess.run([sys.executable, "-I", "-S", folder / "verify.py", *words], capture_output=True, text=True, cwd=folder.parent)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_the_script_in_the_bundle_needs_only_python_and_has_an_exit_code_for_each_end(packed: bytes, tmp_path: Path) -> None:
    files, place = unpacked(packed), tmp_path / "bundle"

    def laid(files: dict[str, bytes]) -> None:
        shutil.rmtree(place, ignore_errors=True)
        for name, body in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(body)

    laid(files)
    links, last = head(files)
    assert run_alone(place)[0] == 1
    code, said = run_alone(place, "--anchor", f"{links}:{last}")
    assert code == 0 and "completeness  holds: 0 links" in said
    assert run_alone(place, "--anchor", f"{links}:{last[::-1]}")[0] == 2
    assert run_alone(place, "--anchor", f"{links + 1}:{last}")[0] == 2
    laid({**files, "audit.json": files["audit.json"].replace(b"UNVERIFIED", b"READY")})
    assert run_alone(place)[0] == 3
    event = next(name for name in files if name.startswith("evidence/event") and b"fraud" in files[name])
    laid(sealed_again({**files, event: files[event].replace(b"fraud", b"trade")}))
    code, said = run_alone(place)
    assert code == 2 and "is not what was sealed" in said
    (place / "chain.jsonl").unlink()
    assert run_alone(place)[0] == 4
    (tmp_path / "bundle.tar.gz").write_bytes(packed)
    assert run_alone(place, str(tmp_path / "bundle.tar.gz"))[0] == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_byte_of_a_bundle_can_be_another_unseen(packed: bytes, data: st.DataObject) -> None:
    files = unpacked(packed)
    name = data.draw(st.sampled_from(sorted(files)))
    at, bits = data.draw(st.integers(0, max(len(files[name]) - 1, 0))), data.draw(st.integers(1, 255))
    if not files[name] or name == "manifest.json":
        return
    changed = bytearray(files[name])
    changed[at] ^= bits
    with suppress(verify.Unreadable):
        assert verify.verified({**files, name: bytes(changed)}).code in (verify.MISMATCH, verify.BROKEN)
    if name.startswith("evidence/"):
        with suppress(verify.Unreadable):
            assert verify.verified(sealed_again({**files, name: bytes(changed)})).code == verify.BROKEN, "a manifest that was made anew does not help"


def test_an_audit_of_another_chain_is_not_taken_for_this_one(packed: bytes) -> None:
    files = unpacked(packed)
    rows = files["chain.jsonl"].splitlines(keepends=True)
    verdict = verify.verified(sealed_again({**files, "chain.jsonl": b"".join(rows[:-1])}))
    assert verdict.code == verify.BROKEN and any("this is another" in one for one in verdict.integrity)


def tarred(*members: tuple[str, bytes, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, kind, body in members:
            about = tarfile.TarInfo(name)
            about.type, about.size = kind, len(body)
            tar.addfile(about, io.BytesIO(body))
    return out.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x1f\x8b junk",
        gzip.compress(b"no tar at all"),
        tarred(("../audit.json", tarfile.REGTYPE, b"{}")),
        tarred(("/etc/passwd", tarfile.REGTYPE, b"x")),
        tarred(("audit.json", tarfile.SYMTYPE, b"")),
        tarred(("a", tarfile.REGTYPE, b"x"), ("a", tarfile.REGTYPE, b"y")),
        tarred(("manifest.json", tarfile.REGTYPE, b"{}")),
        tarred(("manifest.json", tarfile.REGTYPE, b"[" * 100_000)),
    ],
)
def test_what_is_no_bundle_is_unreadable_and_nothing_else(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "b.tar.gz").write_bytes(body)
    assert verify.main([str(tmp_path / "b.tar.gz")]) == verify.UNREADABLE


def test_the_command_packs_and_checks_and_says_how_many_anchors_it_took(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "fraud.tar.gz"
    assert "0 anchors" in desk("audit", "bundle", "fraud", "--out", out)
    assert desk.json("audit", "verify", out, code=3)["integrity"] == {"holds": True, "problems": [], "links": head(unpacked(out.read_bytes()))[0]}
    links, last = head(unpacked(out.read_bytes()))
    desk("audit", "bundle", "fraud", "--out", out, "--anchor", f"{links}:{last[:13]}")
    assert "hold it to your own" in desk("audit", "verify", out, code=3), "what the maker of a bundle puts into it proves nothing for it"
    files = unpacked(out.read_bytes())
    other = json.loads(files["anchors.json"])[0] | {"links": links + 5}
    lying = verify.verified(sealed_again({**files, "anchors.json": json.dumps([other]).encode()}))
    assert lying.code == verify.BROKEN and "as the bundle has it" in lying.completeness[0]
    assert desk.json("audit", "verify", out, "--anchor", f"{links}:{last}")["completeness"]["unanchored"] == 0
    assert "no anchor" in desk("audit", "verify", out, "--anchor", "last week", code=2)


# What must not leave the house


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("write to joe.bloggs+x@example.co.uk now", "an e-mail address"),
        ("4111 1111 1111 1111", "a card number"),
        ('"card": 5555555555554444,', "a card number"),
        ("GB82 WEST 1234 5698 7654 32", "an account number"),
        ("DE89370400440532013000", "an account number"),
        ("ssn 078-05-1120.", "a social security number"),
    ],
)
def test_identifiers_are_found_and_never_repeated(line: str, kind: str) -> None:
    (said,) = found({"a.json": f"first\n{line}\n".encode()})
    assert said == f"a.json, line 2: {kind}"


@pytest.mark.parametrize(
    "line",
    [
        "ada@example.com",
        "4111 1111 1111 1112",
        "0.4111111111111111",
        "GB82 WEST 1234 5698 7654 33",
        "2026-11-27T08:00:00+00:00",
        "a" * 64,
        "5bf6e9f4203101b9411111111111111100000000000000000000000000000000",
        "000-12-3456",
    ],
)
def test_what_only_looks_like_an_identifier_is_none(line: str) -> None:
    assert list(found({"a.json": line.encode()}, {"ada@example.com"})) == []


def test_a_bundle_that_would_tell_of_people_is_not_made(desk: Desk) -> None:
    made = config.load(desk.path)
    with reach.reading(made) as ledger:
        leaking = report(told({}))
        leaking["looking"]["events"] = [{"at": leaking["as_of"], "kind": "agent", "what": "wrote to joe@example.org", "service": None, "run": None}]
        with pytest.raises(DataError, match=r"is not written:\n(?:.*\n)*?audit.json, line \d+: an e-mail address") as caught:
            bundle(made, ledger, leaking)
        assert "joe" not in str(caught.value)


# Whatever is put in the place of whatever is held, in any column of any row that is sealed

ANYTHING = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(), st.binary(), st.sampled_from(["{}", "null", " {}", "1.0"])
)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed")
    with closing(Store.open(folder / "record.db").start()) as store:
        write(store, 4, at=datetime(2026, 3, 1, tzinfo=UTC))
        told = {"watch": "s/w", "service": "s", "check": "c", "status": "ok", "reason": "naïve \n \x00", "rule": "r", "version": None}
        for n in range(4):
            at = datetime(2026, 3, 1, 0, n, 0, n, tzinfo=UTC)
            more = {"start_at": at, "end_at": at, "looked_at": at, "reading": None if n else {"observed": 1.0}, "parts": {}, "seq": n, "seconds": 1.0}
            store.write(lambda ledger, more=more: ledger.keep({}, **told, **more))
        store.backup(folder / "whole.db")
    return folder / "whole.db"


def meant(kind: str, raw: Any) -> Any:
    """What a raw value stands for: JSON and times may be spelt in more than one way."""
    with suppress(ValueError, TypeError):
        if kind == "JSON":
            return json.loads("null" if raw is None else raw)
        if kind == "DATETIME":
            return datetime.fromisoformat(raw).replace(tzinfo=UTC)
    return type(raw), raw


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["event", "finding"]), st.integers(1, 4), st.data())
def test_whatever_else_stands_in_a_sealed_row_is_told(sealed: Path, kind: str, number: int, data: st.DataObject) -> None:
    with closing(Store.open(sealed)) as store, store.read() as ledger:
        conn = ledger.conn.connection.driver_connection
        assert list(_proof.broken(ledger)) == []
        columns = {name: how for _, name, how, *_ in conn.execute(f"PRAGMA table_info({kind})") if name != "id"}
        column = data.draw(st.sampled_from(sorted(columns)))
        before = conn.execute(f'SELECT "{column}" FROM {kind} WHERE id = ?', (number,)).fetchone()[0]
        conn.execute("PRAGMA query_only = OFF")
        conn.execute("SAVEPOINT tampering")
        try:
            with suppress(sqlite3.IntegrityError, UnicodeEncodeError):
                conn.execute(f'UPDATE {kind} SET "{column}" = ? WHERE id = ?', (data.draw(ANYTHING), number))
            after = conn.execute(f'SELECT "{column}" FROM {kind} WHERE id = ?', (number,)).fetchone()[0]
            same = meant(columns[column], before) == meant(columns[column], after)
            assert (list(_proof.broken(ledger)) == []) is same, (column, before, after)
        finally:
            conn.execute("ROLLBACK TO tampering")
