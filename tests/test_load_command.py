"""`watchkeeper load` as people and CI use it: real processes, real loopback servers, and every way a run can end."""

import contextlib
import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.commands import _aimed, _live, _loaded
from tests.processes import until
from tests.servers.slow import Speaker
from tests.test_cli import WITHIN, program

REQUEST = '{"x": [1.0, 2.0]}'
QUICK = ("--rate", "40", "--for", "1s", "--warm", "0s", "--request", REQUEST)
EASY = ("--p50", "25s", "--burst", "50ms")  # holds on the busiest machine, whose generator may lag by a tenth of it; one second tells


@pytest.fixture
def server():
    made = Speaker()
    yield made
    made.stop()


def ran(*args, code, folder=None, **more):
    """The process that the command was, ended with this code and without a traceback."""
    done = subprocess.run(**program(*args, folder=folder), capture_output=True, timeout=WITHIN, stdin=subprocess.DEVNULL, **more)
    assert done.returncode == code, f"{args} ended with {done.returncode}, not {code}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def here(*args, code, folder=None):
    """The same in this process: numpy and scipy take a second of CPU to start."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.chdir(folder or "."):
            done = CliRunner().invoke(main, list(args), prog_name="watchkeeper")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.exit_code == code, f"{args} ended with {done.exit_code}, not {code}:\n{done.output}"
    return done


def refused(*args, input=None):
    """What is said to a command that sends nothing, run in this process."""
    done = CliRunner().invoke(main, list(args), prog_name="watchkeeper", input=input)
    assert done.exit_code == 2, done.output
    return done.output


def configured(folder, server, more=""):
    path = folder / "watchkeeper.yaml"
    path.write_text(f"services:\n  slow:\n{more}    targets:\n      server: {{url: '{server.url}', ready: /readyz}}\n")
    return path


# The ways a run ends


def on_a_terminal(*args, folder):
    """What the command wrote to stdout and drew on the terminal, and how it ended."""
    ours, theirs = pty.openpty()
    arguments = program(*args, folder=folder, TERM="xterm")
    process = subprocess.Popen(**arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    with io.FileIO(ours) as screen, contextlib.suppress(OSError):  # which is how a terminal says that nobody is left to write
        while part := screen.read(65536):
            seen += part
    said, _ = process.communicate(timeout=WITHIN)
    return said, seen.decode(), process.returncode


def test_a_server_that_holds_is_a_pass_with_every_file_that_was_asked_for(server, tmp_path):
    files = ("--html", "load.html", "--junit", "load.xml", "--csv", "load.csv", "--hdr", "load.hlog")
    said, seen, code = on_a_terminal("load", "run", server.url, *QUICK, *EASY, *files, "--yes", folder=tmp_path)
    assert code == 0, said + seen
    assert said.splitlines()[0].startswith("PASS  p50 is ")
    for word in ("valid for bursts up to 50ms", "wrote load.html", "wrote load.hlog", "generator lag", "p99.9", "still needed"):
        assert word in said, word
    for word in ("p50", "p99", "errors", "in flight", "s of 1"):
        assert word in seen, f"the terminal shows how it goes: {word}"
    assert (tmp_path / "load.html").read_bytes().startswith(b"<!DOCTYPE html>")
    (suite,) = ElementTree.parse(tmp_path / "load.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "0")
    assert "HISTFAAA" in (tmp_path / "load.hlog").read_text()
    assert len((tmp_path / "load.csv").read_text().splitlines()) == 2
    sent = [request for request in server.requests if request[1] == "/predict"]
    assert {json.dumps(json.loads(body)) for *_, body in sent} == {REQUEST}
    assert all("watchkeeper" in str(headers) for _, _, headers, _ in sent), "its requests carry the probe mark"


def test_a_server_that_does_not_hold_is_a_fail_and_stdout_is_nothing_but_json(server, tmp_path):
    server.break_every = 1
    configured(tmp_path, server, "    load: {rate: 100, longest: 1m, errors: 1.0}\n")
    done = here("load", "run", "slow", *QUICK, *EASY, "--json", code=1, folder=tmp_path)
    told = json.loads(done.stdout)
    assert (told["outcome"], told["status"], told["target"], told["answers"]["good"]) == ("fail", "fail", "slow", 0)
    assert told["answers"]["status"] == told["requests"] == told["limits"][0]["over"]
    assert "%" in done.stderr, "progress goes where no reader of JSON looks"


def test_a_run_too_short_to_tell_is_neither_and_says_how_much_longer(server):
    done = here("load", server.url, *QUICK, "--p99", "5s", "--yes", code=3)
    assert done.stdout.startswith("INCONCLUSIVE  p99 is ")
    longer = re.search(r"next: run it longer: --for (\d+)s", done.stdout)
    assert longer
    assert 300 <= int(longer[1]) <= 400, "299 bursts of a second without one slow request"


def test_a_server_that_is_not_there_is_no_verdict():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/predict"
    assert "no connection to 127.0.0.1" in here("load", url, *QUICK, *EASY, "--yes", code=3).stderr


def begun(server, *more):
    """The command, once the first requests are on their way."""
    args = ("load", server.url, "--rate", "40", "--for", "1h", "--warm", "0s", "--request", REQUEST, *EASY, "--yes", *more)
    pipe = subprocess.PIPE
    process = subprocess.Popen(**program(*args), stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, start_new_session=True)
    while not server.requests:
        assert process.poll() is None, process.communicate()
    return process


def children(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_called_off_it_drains_and_tells_what_it_saw(server):
    process = begun(server, "--json")
    (child,) = children(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C, which reaches everybody
    out, err = process.communicate(timeout=WITHIN)
    assert process.returncode == 3, err
    told = json.loads(out)
    assert (told["outcome"], told["answers"].get("good", 0) > 0) == ("aborted", True)
    assert told["aborted"]
    assert not alive(child)


def test_called_off_twice_it_ends_at_once_and_leaves_nobody_behind(server):
    process = begun(server)
    (child,) = children(process)
    os.kill(child, signal.SIGSTOP)  # it cannot drain, so the first alone would wait for it
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    assert process.returncode in (130, -signal.SIGTERM)
    assert not alive(child)
    process.communicate()


# Searching, and helping


def test_the_rate_that_a_server_bears_is_searched_up_to_a_ceiling(server, tmp_path):
    search = ("--from-rate", "20", "--to-rate", "40", "--step", "1s", "--warm", "0s", "--drain", "0s", "--request", REQUEST)
    said = here("load", "capacity", server.url, *search, *EASY, "--at-least", "30", "--yes", "--csv", "tried.csv", code=0, folder=tmp_path).stdout
    assert said.startswith("PASS  capacity >= 40 a second, the ceiling")
    assert "valid for bursts up to 50ms" in said
    assert [line.split(",")[0] for line in (tmp_path / "tried.csv").read_text().splitlines()[1:3]] == ["20.0", "40.0"]


def test_a_search_without_a_ceiling_is_refused(server):
    assert "ceiling" in refused("load", "capacity", server.url, "--from-rate", "20", "--request", REQUEST, *EASY, "--yes")


def test_a_worker_joins_a_run_and_does_its_part(server):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    worker = subprocess.Popen(**program("load", "worker", "--join", address), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told = json.loads(here("load", "run", server.url, *QUICK, *EASY, "--join-at", address, "--json", "--yes", code=0).stdout)
    said, _ = worker.communicate(timeout=WITHIN)
    assert (worker.returncode, said) == (0, f"did its part of the load test at {address}\n")
    assert told["answers"]["good"] == told["requests"] > 20


# What is refused before anything is sent


def test_a_url_in_no_configuration_is_asked_about_and_without_a_terminal_refused(server):
    assert "add --yes if it may be loaded" in refused("load", server.url, *QUICK, *EASY)
    assert not server.requests


def test_on_a_terminal_a_no_sends_nothing(server):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(**program("load", server.url, *QUICK, *EASY), stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(theirs)
    os.write(ours, b"n\n")
    _, err = process.communicate(timeout=WITHIN)
    os.close(ours)
    assert process.returncode == 3
    assert "40 requests a second for 1s will be sent to http://127.0.0.1" in err
    assert "nothing was sent" in err
    assert not server.requests


def test_a_service_that_does_not_say_what_it_bears_is_refused(server, tmp_path):
    said = refused("load", "run", "slow", *QUICK, *EASY, "-c", str(configured(tmp_path, server)))
    assert "slow has no `load:`" in said
    assert not server.requests


def test_the_ceilings_of_a_service_hold(server, tmp_path):
    path = configured(tmp_path, server, "    load: {rate: 10, longest: 500ms}\n")
    said = refused("load", "run", "slow", *QUICK, *EASY, "-c", str(path))
    assert "more than the 10" in said
    assert "more than the 500ms" in said
    assert not server.requests


WATCHED = "    load: {rate: 100, longest: 1m}\n    watches: [{check: serving.ready, every: 10s}]\n"


def posts(server):
    return [path for method, path, *_ in server.requests if method == "POST"]


def test_no_load_is_made_while_an_incident_of_the_service_is_open(server, tmp_path):
    path = str(configured(tmp_path, server, WATCHED))
    server.up = False
    here("check", "slow", "-c", path, code=1)
    server.up = True
    assert "no load test while incident 1 is open" in here("load", "slow", *QUICK, *EASY, "-c", path, code=3).output
    assert not posts(server)


def test_an_incident_that_opens_meanwhile_ends_the_run_with_what_there_is(server, tmp_path):
    path = str(configured(tmp_path, server, WATCHED))
    here("check", "slow", "-c", path, code=0)
    long = ("--rate", "40", "--for", "50s", "--warm", "0s", "--request", REQUEST)
    arguments = program("load", "slow", *long, *EASY, "--json", "-c", path)
    process = subprocess.Popen(**arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: posts(server), "requests are sent", seconds=60)
    server.up = False
    here("check", "slow", "-c", path, code=1)
    out, _ = process.communicate(timeout=WITHIN)
    told = json.loads(out)
    assert process.returncode == 3 and told["status"] == "skip"
    assert "it was asked to end early: incident 1 is open" in told["reason"]
    assert 0 < told["requests"] < 40 * 50


def test_an_unknown_service_suggests_the_nearest(server, tmp_path):
    path = configured(tmp_path, server, "    load: {rate: 10, longest: 500ms}\n")
    assert "did you mean 'slow'" in refused("load", "slwo", *QUICK, *EASY, "-c", str(path))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no limit is given"),
        (("--p99", "soon"), "soon"),
        ((*EASY, "--request", "{"), "this is no JSON"),
        ((*EASY, "--request", "1"), "an object or a list"),
        ((*EASY, "--header", "Bearer x"), "write 'NAME: VALUE'"),
        ((*EASY, "--header", "Authorization: ${NOT_SET_ANYWHERE}"), "not set"),
        ((*EASY, "--data", "not-there.jsonl"), "not-there.jsonl"),
        ((*EASY, "--confidence", "1"), "confidence"),
        ((*EASY, "--html", "no/such/folder/load.html"), "could not be written after the run"),
        ((*EASY, "--rate", "0"), "rate"),
        ((*EASY, "--arrivals", "spike"), "spike needs"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(server, args, said):
    assert said in refused("load", server.url, *QUICK, *args, "--yes")
    assert not [request for request in server.requests if request[1] == "/predict"]


def test_a_url_with_nothing_to_send_is_a_usage_error(server):
    assert "nothing to send" in refused("load", server.url, "--rate", "1", "--p99", "1s", "--yes")


def test_a_header_is_a_credential_that_no_value_of_it_is_printed(monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cret")
    known = _aimed.credential("Authorization: Bearer ${TOKEN}")
    assert known.values == {"name": "Authorization", "value": "Bearer s3cret"}
    assert "s3cret" not in repr(known)


# Comparing


def test_a_run_is_compared_with_one_before(server, tmp_path):
    args = ("load", "compare", server.url, *QUICK, "--for", "2s", "--cut", "100ms", "--floor-seconds", "1s", "--yes")
    first = here(*args, "--save", "before.csv", code=3, folder=tmp_path).stdout
    assert "--against before.csv compares a later run with this one" in first
    server.break_every = 3
    then = here(*args, "--against", "before.csv", "--json", code=1, folder=tmp_path)
    reason = json.loads(then.stdout)["reason"]
    assert reason.startswith("FAIL: ")
    assert "errors are 3" in reason


# What is seen meanwhile


def test_progress_reads_as_a_place_and_numbers():
    where, numbers = _live.said("12 s of 60: 1,200.5 a second, p50 3 ms, p99 12 ms, 0 errors, 3 in flight")
    assert where == "12 s of 60"
    assert dict(numbers) == {"a second": "1,200.5", "p50": "3 ms", "p99": "12 ms", "errors": "0", "in flight": "3"}
    assert _live.said("opening connections") == ("opening connections", ())


def test_no_server_s_words_move_the_cursor():
    told = {"status": "error", "reason": "bad \x1b[2J answer", "files": [], "saved": "", "outcome": "invalid"}
    assert "\x1b[2J" not in _loaded.loaded(told)


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "no answer"), (0.0, "0"), (0.00094, "940 µs"), (0.0123, "12.3 ms"), (0.9999, "1 s"), (125.0, "125 s")]
)
def test_a_latency_is_three_digits_and_a_unit(seconds, said):
    assert _loaded.length(seconds) == said
