"""`git:`: a real repository, read by the git command; the oracle is git itself."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import Locator
from agent.errors import AnswerError, ConfigError, DeadlineError, UnreachableError
from agent.targets import connect
from agent.wire import deadline
from tests.repository import ADA, EVE, Repository

THEN = datetime(2026, 2, 3, 12, tzinfo=UTC)


@pytest.fixture
def there(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "code")
    made.commit({"train.py": "print(1)\n"}, "Begin", at=THEN - timedelta(days=2))
    return made


def opened(there: Repository, **options: str):
    return connect(Locator("fraud", "code", f"git:{there.folder}", options))


def test_a_commit_says_who_wrote_it_and_who_looked_it_over(there):
    made = there.commit({"a": "a"}, "Weigh it\n\nReviewed-by: Eve <eve@example.org>\nApproved-by: Bob <bob@example.org>", at=THEN)
    found = opened(there).commit(made[:10])
    assert (found.id, found.author, found.committer, found.at, found.subject) == (made, ADA, ADA, THEN, "Weigh it")
    assert found.reviewers == ("Eve <eve@example.org>", "Bob <bob@example.org>") and len(found.parents) == 1
    assert opened(there).commit("0" * 40) is None


def test_a_commit_is_on_the_branch_by_a_merge_or_by_itself_or_not(there):
    first = there.git("rev-parse", "HEAD")
    made, merge = there.merge("weigh", {"b": "b"}, at=THEN)
    straight = there.commit({"c": "c"}, at=THEN)
    there.git("checkout", "-q", "-b", "other")
    off = there.commit({"d": "d"}, at=THEN)
    code = opened(there)
    assert [code.merged(one).id for one in (first, made, merge, straight)] == [first, merge, merge, straight]
    assert code.merged(merge).committer == EVE
    assert code.merged(off) is None and code.merged("never") is None
    assert {one.id for one in code.commits(THEN - timedelta(days=9))} == set(there.git("rev-list", "main").split())


def test_a_file_is_read_as_of_a_commit_and_nothing_leads_out_of_it(there):
    first = there.git("rev-parse", "HEAD")
    there.commit({"train.py": "print(2)\n", "deep/é.txt": "ü\n"}, at=THEN)
    code = opened(there)
    assert code.read("train.py") == b"print(2)\n" and code.read("train.py", first) == b"print(1)\n"
    assert code.read("deep/é.txt") == "ü\n".encode() and code.read("deep/é.txt", first) is None
    for odd in ("/etc/passwd", "../code/train.py", "--help", "", "deep", "train.py\0"):
        assert code.read(odd) is None
    for odd in ("--help", "HEAD..main", "-1", "a b", "", "HEAD^{/x}"):
        assert code.commit(odd) is None


def test_what_lies_there_otherwise_than_the_branch_has_it_is_told(there):
    there.commit({"deploy/a.yaml": "a: 1\n", "b.txt": "b"}, at=THEN)
    code = opened(there)
    assert code.changed([]) == []
    (there.folder / "deploy/a.yaml").write_text("a: 2\n")
    (there.folder / "b.txt").unlink()
    (there.folder / "deploy/new.yaml").write_text("n")
    assert code.changed([]) == ["b.txt", "deploy/a.yaml", "deploy/new.yaml"]
    assert code.changed(["deploy"]) == ["deploy/a.yaml", "deploy/new.yaml"] and code.changed(["train.py"]) == []


def test_nothing_of_the_repository_is_run(there, tmp_path):
    mark = tmp_path / "ran"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    script.chmod(0o755)
    for key in ("core.fsmonitor", "diff.external", "filter.x.clean", "core.pager", "core.sshCommand"):
        there.git("config", key, str(script))
    there.commit({".gitattributes": "* filter=x diff=x\n"}, at=THEN)
    mark.unlink(missing_ok=True)
    (there.folder / "train.py").write_text("changed")
    code = opened(there)
    assert code.changed([]) == ["train.py"] and code.read("train.py") and code.commits(THEN - timedelta(days=9))
    assert not mark.exists()


def test_what_dvc_has_pinned_can_be_read_back_or_not(there):
    first = there.git("rev-parse", "HEAD")
    body = b"x,y\n1,2\n"
    md5 = hashlib.md5(body).hexdigest()
    there.commit(there.pin("data/train.csv", body), at=THEN)
    code = opened(there)
    assert code.data() == {"data/train.csv": md5} and code.data(first) == {}
    assert code.holds("data/train.csv", md5) is True
    (there.folder / "data/train.csv").write_bytes(b"other")
    assert code.holds("data/train.csv", md5) is False
    cached = there.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(body)
    assert code.holds("data/train.csv", md5) is True
    assert code.holds("data/none.csv", "0" * 32) is None


def test_a_lock_of_dvc_is_read_too(there):
    lock = "schema: '2.0'\nstages:\n  fit:\n    cmd: python train.py\n    outs:\n    - path: m.onnx\n      hash: md5\n      md5: " + "a" * 32 + "\n"
    there.commit({"dvc.lock": lock}, at=THEN)
    assert opened(there).data() == {"m.onnx": "a" * 32}


def test_what_is_no_repository_or_has_no_such_branch_is_said_so(there, tmp_path):
    with pytest.raises(UnreachableError, match="not a git repository"):
        connect(Locator("fraud", "code", f"git:{tmp_path}")).commits(THEN)
    with pytest.raises(UnreachableError, match="cannot be run"):
        connect(Locator("fraud", "code", f"git:{tmp_path}/none")).commits(THEN)
    with pytest.raises(AnswerError, match="no branch 'prod'"):
        opened(there, branch="prod").commits(THEN)
    with pytest.raises(ConfigError, match="names no branch"):
        opened(there, branch="--upload-pack=x")


def test_a_file_that_is_too_large_is_not_read_and_a_deadline_holds(there, monkeypatch):
    from agent.targets import git

    there.commit({"large": "x" * 100}, at=THEN)
    monkeypatch.setattr(git, "LARGEST", 99)
    with pytest.raises(AnswerError, match="more than 99 bytes"):
        opened(there).read("large")
    monkeypatch.setattr(git, "LARGEST", 8 * 2**20)
    with pytest.raises(DeadlineError), deadline(timedelta(seconds=0)):
        opened(there).read("train.py")
