"""The command trainer on real programs: once, whoever asks; found again after any kill; and what it hands in is not believed."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from agent import Locator
from agent.errors import ConfigError, TrainingError, UnreachableError
from agent.targets import _supervise, connect
from tests.learning import ended

GOOD = """
    (home / "model.onnx").write_bytes(b"weights")
    sha = hashlib.sha256(b"weights").hexdigest()
    (home / "manifest.json").write_text(json.dumps({"files": {"model.onnx": sha}, "data": {"train": spec["data"]["train"]["sha256"]}, "rows": 3}))
"""
SPEC = {"service": "fraud", "seed": 7, "parameters": {"epochs": 2}}
KEY = "run-1/2"


def trainer(folder: Path, body: str = GOOD, /, **options):
    """A trainer whose command runs these lines with `home` and `spec`, and notes that it was begun."""
    lines = "".join(f"{line[4:]}\n" for line in body.splitlines())
    (folder / "train.py").write_text(
        "import hashlib, json, os, signal, subprocess, sys, time\nfrom pathlib import Path\n"
        "home = Path(os.environ['WATCHKEEPER_JOB'])\nspec = json.loads((home / 'spec.json').read_text())\n"
        f"with open({str(folder / 'begun')!r}, 'a') as begun: begun.write(f'{{os.getpid()}}\\n')\n{lines}"
    )
    given = {"train": [sys.executable, "-S", "train.py"], **options}
    return connect(Locator("fraud", "trainer", "command:.", given, folder=str(folder)))


def spec(folder: Path, **more):
    pin = folder / "train.parquet"
    if not pin.exists():
        pin.write_bytes(b"rows")
    data = {"train": {"path": str(pin), "sha256": hashlib.sha256(b"rows").hexdigest(), "rows": 3}}
    return {**SPEC, "data": data, "champion": None, **more}


def home(folder: Path) -> Path:
    return folder / "jobs" / "run-1-2"


def done(folder: Path, made, **more):
    """Begin it, wait for its end, and say how it stands."""
    made.start(spec(folder, **more), KEY)
    ended(home(folder) / "lock")
    return made.status(KEY)


def begun(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "begun").read_text().split()]


def heard(folder: Path, what: str = "begun") -> None:
    """Wait until the command has opened the pipe for writing, and closed it again."""
    with (folder / what).open() as pipe:
        pipe.read()


@pytest.fixture
def pipe(tmp_path):
    """A pipe through which a command says that it has come so far."""
    os.mkfifo(tmp_path / "here")
    return "    open(spec['parameters']['here'], 'w').close()\n    time.sleep(60)\n", {"parameters": {"here": str(tmp_path / "here")}}


def test_it_trains_in_a_folder_of_its_own_and_hands_in_what_it_made(tmp_path):
    made = trainer(tmp_path)
    assert made.status(KEY).state == "absent"
    job = done(tmp_path, made)
    assert job.state == "succeeded", job.said
    found = made.result(KEY)
    assert (found.rows, found.seed, list(found.files)) == (3, 7, ["model.onnx"]) and found.folder == home(tmp_path)


def test_whoever_asks_however_often_it_is_begun_once(tmp_path):
    made = [trainer(tmp_path) for _ in range(4)]
    threads = [threading.Thread(target=one.start, args=(spec(tmp_path, seed=n), KEY)) for n, one in enumerate(made)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended(home(tmp_path) / "lock")
    assert len(begun(tmp_path)) == 1 and made[0].status(KEY).state == "succeeded"
    made[1].start(spec(tmp_path), KEY)
    assert len(begun(tmp_path)) == 1, "nor once more when it is over"
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["run-1-2"], "no draft is left lying about"


def test_it_sees_only_what_it_is_shown_of_our_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.setenv("SHOWN", "yes")
    body = "    (home / 'env.json').write_text(json.dumps(dict(os.environ)))\n" + GOOD
    assert done(tmp_path, trainer(tmp_path, body, inherit=["SHOWN"], env={"GIVEN": 1})).state == "succeeded"
    seen = json.loads((home(tmp_path) / "env.json").read_text())
    assert (seen.get("SHOWN"), seen.get("GIVEN"), "SECRET" in seen) == ("yes", "1", False)


def test_progress_is_told_while_it_runs_and_it_can_be_cancelled(tmp_path, pipe):
    body, more = pipe
    made = trainer(tmp_path, "    print(json.dumps({'done': 0.4, 'what': 'epoch 4'}), flush=True)\n" + body)
    made.start(spec(tmp_path, **more), KEY)
    heard(tmp_path, "here")
    while not (home(tmp_path) / "told.json").exists():
        pass
    job = made.status(KEY)
    assert (job.state, job.said) == ("running", "training, 40%: epoch 4")
    made.cancel(KEY)
    ended(home(tmp_path) / "lock")
    job = made.status(KEY)
    assert job.state == "failed" and "cancelled" in job.said


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    child = (
        "    child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n    (home / 'child').write_text(str(child.pid))\n"
    )
    made = trainer(tmp_path, f"{child}    time.sleep(60)\n", longest="1s")
    job = done(tmp_path, made)
    assert job.state == "failed" and "not done within 1 s" in job.said
    assert gone(int((home(tmp_path) / "child").read_text()))


def test_what_does_not_listen_is_killed(tmp_path, monkeypatch):
    body = "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    open(spec['parameters']['here'], 'w').close()\n    time.sleep(60)\n"
    os.mkfifo(tmp_path / "here")
    script = (tmp_path / "quick.py", Path(_supervise.__file__).read_text().replace("GRACE = 10.0", "GRACE = 0.2"))
    script[0].write_text(script[1])
    monkeypatch.setattr(_supervise, "__file__", str(script[0]))
    made = trainer(tmp_path, body)
    made.start(spec(tmp_path, parameters={"here": str(tmp_path / "here")}), KEY)
    heard(tmp_path, "here")
    made.cancel(KEY)
    ended(home(tmp_path) / "lock")
    assert made.status(KEY).state == "failed" and gone(begun(tmp_path)[0])


def gone(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_killed_with_its_supervisor_it_has_failed_and_nothing_of_it_is_left(tmp_path, pipe):
    body, more = pipe
    made = trainer(tmp_path, body)
    made.start(spec(tmp_path, **more), KEY)
    heard(tmp_path, "here")
    (child,) = begun(tmp_path)
    parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    watch = os.pidfd_open(child)
    os.kill(parent, signal.SIGKILL)
    assert select.select([watch], [], [], 30)[0], "the command outlived whoever would have seen its end"
    ended(home(tmp_path) / "lock")
    job = made.status(KEY)
    assert job.state == "failed" and "nobody saw how it ended" in job.said
    made.start(spec(tmp_path, **more), KEY)
    assert len(begun(tmp_path)) == 1, "a piece of work that ended unseen is not begun again under the same name"


def test_a_job_that_was_laid_out_and_not_begun_is_begun_by_whoever_comes_next(tmp_path):
    made = trainer(tmp_path)
    made._lay_out(home(tmp_path), spec(tmp_path))
    assert made.status(KEY).state == "absent"
    assert done(tmp_path, made).state == "succeeded"


def test_the_agent_may_be_killed_and_the_work_goes_on(tmp_path, pipe):
    """Another process begins it and is killed; this one finds it."""
    os.mkfifo(tmp_path / "go")
    body = f"    open(spec['parameters']['here'], 'w').close()\n    open({str(tmp_path / 'go')!r}).read()\n" + GOOD
    made = trainer(tmp_path, body)
    program = (
        f"import json, os, signal\nfrom agent import Locator\nfrom agent.targets import connect\n"
        f"at = Locator('fraud', 'trainer', 'command:.', {{'train': [{sys.executable!r}, '-S', 'train.py']}}, folder={str(tmp_path)!r})\n"
        f"connect(at).start(json.loads({json.dumps(spec(tmp_path, **pipe[1]))!r}), {KEY!r})\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    heard(tmp_path, "here")
    assert made.status(KEY).state == "running"
    (tmp_path / "go").write_text("")
    ended(home(tmp_path) / "lock")
    assert made.status(KEY).state == "succeeded" and made.result(KEY).rows == 3


def test_a_job_that_another_machine_began_is_lost_to_this_one(tmp_path):
    made = trainer(tmp_path)
    made._lay_out(home(tmp_path), spec(tmp_path))
    _supervise.written(home(tmp_path) / "began.json", {"host": "elsewhere 1", "at": 0})
    assert (made.status(KEY).state, "elsewhere" in made.status(KEY).said) == ("lost", True)
    _supervise.written(home(tmp_path) / "began.json", {"host": f"{os.uname().nodename} another-boot", "at": 0})
    assert made.status(KEY).state == "failed", "this machine was restarted meanwhile"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("    sys.exit(3)\n", "ended with exit status 3"),
        ("    print('no such column: age', file=sys.stderr)\n    sys.exit(1)\n", "no such column: age"),
        ("    os.kill(os.getpid(), signal.SIGSEGV)\n", "SIGSEGV"),
        (GOOD + "    sys.exit(1)\n", "exit status 1"),
    ],
)
def test_what_ends_badly_has_failed_whatever_it_left(tmp_path, body, told):
    job = done(tmp_path, trainer(tmp_path, body))
    assert job.state == "failed" and told in job.said


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("    pass\n", "manifest.json cannot be read"),
        ("    (home / 'manifest.json').write_text('{\"files\":')\n", "cannot be read"),
        (GOOD + "    (home / 'model.onnx').write_bytes(b'others')\n", "is not what the manifest says"),
        (GOOD.replace('spec["data"]["train"]["sha256"]', '"0" * 64'), "other data than was given"),
        (GOOD + "    (home / 'model.onnx').unlink(); (home / 'model.onnx').symlink_to('/etc/passwd')\n", "not in the trainer's folder"),
        (GOOD + "    os.link(home / 'model.onnx', home.parent / 'twin')\n", "is a link"),
        (GOOD + "    Path(spec['data']['train']['path']).write_bytes(b'poison')\n", "is not what it was"),
        (GOOD + "    Path(spec['data']['train']['path']).unlink()\n", "cannot be read any more"),
        (GOOD + "    Path(spec['champion']['files']['model.onnx']).write_bytes(b'worse')\n", "is not what it was"),
    ],
)
def test_what_is_handed_in_and_is_not_so_is_refused(tmp_path, body, told):
    champion = tmp_path / "served.onnx"
    champion.write_bytes(b"served")
    served = {"version": "1", "files": {"model.onnx": str(champion)}, "sha256": {"model.onnx": hashlib.sha256(b"served").hexdigest()}}
    made = trainer(tmp_path, body)
    assert done(tmp_path, made, champion=served).state == "succeeded"
    with pytest.raises(TrainingError, match=told):
        made.result(KEY)


def test_a_spec_that_the_trainer_wrote_over_is_found_out_by_the_plan(tmp_path):
    from datetime import UTC, datetime

    from agent import Failed, Try

    body = "    spec['data']['train']['sha256'] = 'f' * 64; spec['data'] = {}; (home / 'spec.json').write_text(json.dumps(spec))\n"
    made = trainer(tmp_path, body + GOOD.replace('{"train": spec["data"]["train"]["sha256"]}', "{}"))
    assert done(tmp_path, made).state == "succeeded" and made.result(KEY).data == {}
    now = datetime.now(UTC)
    seen = made.train.look(spec(tmp_path), Try(KEY, 0, now + timedelta(hours=1), None, 1, now))
    assert isinstance(seen, Failed) and "other data than this step gave" in seen.said


def test_a_log_without_end_takes_no_more_than_its_room_and_progress_is_still_heard(tmp_path):
    body = "    for n in range(5000): print('x' * 1000)\n    print(json.dumps({'done': 1, 'what': 'all'}))\n    print('y' * 500_000)\n" + GOOD
    made = trainer(tmp_path, body)
    assert done(tmp_path, made).state == "succeeded"
    assert sum(path.stat().st_size for path in home(tmp_path).glob("log*")) <= 2 * _supervise.MOST
    assert json.loads((home(tmp_path) / "told.json").read_text()) == {"done": 1, "what": "all"}


@pytest.mark.parametrize("line", ["{", "{}", "[]", '{"done": "half"}', '{"done": 0.5, "what": 7}', '{"done":' + " " * 70_000 + "1}", "\xff"])
def test_what_is_no_progress_is_printed_and_nothing_else(tmp_path, line):
    (tmp_path / "line").write_bytes(line.encode("latin-1"))
    body = f"    sys.stdout.buffer.write(open({str(tmp_path / 'line')!r}, 'rb').read() + b'\\n')\n" + GOOD
    assert done(tmp_path, trainer(tmp_path, body)).state == "succeeded"
    assert not (home(tmp_path) / "told.json").exists()


def test_a_command_that_is_not_there_has_failed_and_a_folder_that_cannot_be_made_is_said(tmp_path):
    made = trainer(tmp_path, train=["./no-such-program"])
    assert "cannot be run" in done(tmp_path, made).said
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError, match="could not be begun"):
        trainer(tmp_path, folder="file").start(spec(tmp_path), KEY)


@pytest.mark.parametrize("key", ["", "..", "../1", "a b", "x" * 200, "-rf"])
def test_what_names_no_piece_of_work_is_refused(tmp_path, key):
    with pytest.raises(TrainingError, match="names no piece of work"):
        trainer(tmp_path).start(spec(tmp_path), key)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"train": "python train.py"}, "list of words"),
        ({"train": []}, "list of words"),
        ({"longest": "soon"}, "no length of time"),
        ({"longest": 0}, "not above 0"),
        ({"strange": 1}, "no option 'strange'"),
        ({"env": []}, "write `inherit"),
    ],
)
def test_a_trainer_that_could_not_work_is_refused_before_anything_is_begun(tmp_path, options, told):
    with pytest.raises(ConfigError, match=told):
        trainer(tmp_path, **options)
