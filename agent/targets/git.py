"""A repository of code on this machine: `git:PATH`, read by the git command, and what DVC has pinned in it, read as text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from agent import UTC, Commit, Locator, adapter
from agent.errors import AnswerError, ConfigError, UnreachableError
from agent.targets import _programs, _shapes
from agent.wire import remaining

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/@+-]{0,199}")  # of a commit, a branch or a tag: never an option
FIELDS = "%H%x00%aN <%aE>%x00%cN <%cE>%x00%cI%x00%P%x00%s%x00%(trailers:key=Reviewed-by,key=Approved-by,key=Acked-by,valueonly,separator=%x01)"
QUIET = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-optional-locks", "--no-pager")  # nothing of the repository is run
LARGEST = 8 * 2**20  # bytes of a file that is read, and of what git says
MOST = 5000  # commits that are read
PIN = re.compile(r"^\s*(?:-\s+)?(md5|path)\s*:\s*['\"]?(.+?)['\"]?\s*$")


@adapter(role="code", schemes=("git",))
class Git:
    """`git:.` is a checkout, with its `.git`, or a bare clone. `branch`: the one that counts (main). Nothing is fetched: keep it up to date yourself.

    What is in it is data: none of its hooks, filters or monitors is run, and a name that looks like an option is none.
    """

    can: frozenset[str] = frozenset()

    def __init__(self, at: Locator) -> None:
        self._at, given = at, _shapes.options(at, ("branch",))
        self._where, self._folder = f"{at.service}.{at.role}", Path(at.folder, at.address.removeprefix("git://") or ".")
        self.branch = str(given.get("branch", "main"))
        if not NAME.fullmatch(self.branch):
            raise ConfigError(f"{self._where}.branch: {self.branch!r:.80} names no branch")
        self._env = {**_programs.environment([], {}, self._where), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}

    def commit(self, name: str) -> Commit | None:
        """One commit; None if the repository has none of that name."""
        found = self._id(name)
        return None if found is None else self._logged(["--no-walk", found])[0]

    def merged(self, name: str) -> Commit | None:
        """The commit by which another came onto the branch (itself where it was made there); None if it is not on it."""
        found, head = self._id(name), self._head()
        if found is None or self._run(["merge-base", "--is-ancestor", found, head], fails=1) is None:
            return None
        line = self._logged(["--first-parent", "--ancestry-path", f"{found}..{head}"])
        after = line[-1] if line else None
        straight = after is None or found in after.parents[:1]
        return self.commit(found) if straight else after

    def commits(self, since: datetime) -> Sequence[Commit]:
        """Those on the branch that are not older, newest first."""
        return [one for one in self._logged([f"--since={since.astimezone(UTC).isoformat()}", self._head()]) if one.at >= since]

    def read(self, path: str, at: str | None = None) -> bytes | None:
        """A file as of a commit, or of the branch; None if it is not there. AnswerError where it is too large to be read."""
        found = self._head() if at is None else self._id(at)
        if found is None or path.startswith(("/", "-")) or "\0" in path:
            return None
        kind = self._run(["cat-file", "-t", f"{found}:{path}"], fails=128)
        if kind is None or kind.strip() != "blob":
            return None
        if int(self._run(["cat-file", "-s", f"{found}:{path}"]) or 0) > LARGEST:
            raise AnswerError(f"{self._where}: {path} has more than {LARGEST:,} bytes; point at the file that is meant")
        return (self._run(["cat-file", "blob", f"{found}:{path}"]) or "").encode()

    def changed(self, paths: Sequence[str]) -> Sequence[str]:
        """The files among these (or all) that lie there otherwise than the branch has them; what git ignores is none of them."""
        rows = (self._run(["ls-tree", "-r", "-z", self._head(), "--", *paths]) or "").split("\0")
        tracked = [(*row.partition("\t")[0].split(), row.partition("\t")[2]) for row in rows if row]
        differ = {name for mode, kind, blob, name in tracked if kind == "blob" and _blob(self._folder / name, mode, len(blob)) != blob}
        new = (self._run(["ls-files", "--others", "--exclude-standard", "-z", "--", *paths]) or "").split("\0")
        return sorted(differ | {name for name in new if name})

    def data(self, at: str | None = None) -> Mapping[str, str]:
        """What DVC has pinned as of a commit, or of the branch: path -> md5, from the .dvc files and dvc.lock."""
        found = self._head() if at is None else self._id(at)
        if found is None:
            return {}
        names = (self._run(["ls-tree", "-r", "-z", "--name-only", found]) or "").split("\0")
        pins: dict[str, str] = {}
        for name in names:
            if name.endswith(".dvc") or name.rpartition("/")[2] == "dvc.lock":
                text = (self.read(name, found) or b"").decode("utf-8", "replace")
                pins |= {str(Path(name).parent / path): md5 for path, md5 in _pins(text)}
        return pins

    def holds(self, path: str, md5: str) -> bool | None:
        """Whether data of DVC can be read back as it was pinned, from its cache or where it lies; None where it is neither place."""
        places = [self._folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:], self._folder / ".dvc/cache" / md5[:2] / md5[2:], self._folder / path]
        there = [place for place in places if place.is_file()]
        return any(_md5(place) == md5 for place in there) if there else None

    def close(self) -> None:
        """Nothing is kept open."""

    # Git

    def _head(self) -> str:
        found = self._id(self.branch)
        if found is None:
            raise AnswerError(f"{self._where}: {self._folder} has no branch '{self.branch}'; set `branch:` to the one that is deployed")
        return found

    def _id(self, name: str) -> str | None:
        if not NAME.fullmatch(name) or ".." in name:
            return None
        found = self._run(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"], fails=1)
        return None if found is None else found.strip() or None

    def _logged(self, what: Sequence[str]) -> list[Commit]:
        lines = (self._run(["log", "-z", f"--max-count={MOST}", f"--format={FIELDS}", *what]) or "").split("\0")
        return [_commit(lines[at : at + 7]) for at in range(0, len(lines) - 6, 7)]

    def _run(self, words: Sequence[str], fails: int = 0) -> str | None:
        """What git printed; None where it ended with `fails`, which says no."""
        said = self._ran(words)
        if said.code and said.code == fails:
            return None
        if said.code:
            raise UnreachableError(f"{self._where}: git {words[0]} in {self._folder}: {said.told}; bind a checkout that the agent's user may read")
        return said.out

    def _ran(self, words: Sequence[str]) -> _programs.Ran:
        left = remaining()
        within = self._at.within.total_seconds() if left is None else min(left, self._at.within.total_seconds())
        return _programs.run(["git", *QUIET, *words], self._folder, self._env, within, self._where, LARGEST)


def _commit(fields: Sequence[str]) -> Commit:
    name, author, committer, at, parents, subject, reviewers = fields
    said = tuple(one.strip() for one in reviewers.split("\x01") if one.strip())
    return Commit(name.strip(), author, committer, datetime.fromisoformat(at).astimezone(UTC), tuple(parents.split()), said, subject)


def _pins(text: str) -> list[tuple[str, str]]:
    """(path, md5) of each output in a DVC file: the two keys stand in one item, in either order."""
    found: list[tuple[str, str]] = []
    item: dict[str, str] = {}
    for line in text.splitlines():
        if line.lstrip().startswith("- "):
            item = {}
        if (match := PIN.match(line)) is not None:
            item[match[1]] = match[2]
            if set(item) == {"md5", "path"}:
                found.append((item["path"], item["md5"]))
    return found


def _blob(path: Path, mode: str, digits: int) -> str | None:
    """The id that git would give to a file as it lies there, unfiltered; None where it is gone."""
    try:
        body = str(path.readlink()).encode() if mode == "120000" else path.read_bytes()
    except OSError:
        return None
    return hashlib.new("sha1" if digits == 40 else "sha256", b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
