"""A real git repository for tests: commits by whom, when, reviewed by whom; and data that DVC has pinned."""

from __future__ import annotations

import hashlib
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

ADA, EVE = "Ada <ada@example.org>", "Eve <eve@example.org>"


class Repository:
    """A checkout on branch main. Each act is a real git command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str, at: datetime | None = None, author: str = ADA, committer: str = ADA) -> str:
        stamp = (at or datetime(2026, 2, 1, tzinfo=UTC)).isoformat()
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": author.partition(" <")[0],
            "GIT_AUTHOR_EMAIL": author.partition("<")[2].rstrip(">"),
            "GIT_COMMITTER_NAME": committer.partition(" <")[0],
            "GIT_COMMITTER_EMAIL": committer.partition("<")[2].rstrip(">"),
            "GIT_AUTHOR_DATE": stamp,
            "GIT_COMMITTER_DATE": stamp,
        }
        done = subprocess.run(["git", *words], cwd=self.folder, env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"git {words}: {done.stderr}"
        return done.stdout.strip()

    def commit(self, files: dict[str, str | bytes], say: str = "Change it", **more: object) -> str:
        """Write these files, commit them, and give the commit's id."""
        for name, body in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body if isinstance(body, bytes) else body.encode())
            self.git("add", name)
        self.git("commit", "-q", "--allow-empty", "-m", say, **more)  # type: ignore[arg-type] # at, author, committer
        return self.git("rev-parse", "HEAD")

    def merge(self, branch: str, files: dict[str, str | bytes], say: str = "Change it", by: str = EVE, **more: object) -> tuple[str, str]:
        """A commit on a branch of its own, merged by somebody: (the commit, the merge)."""
        self.git("checkout", "-q", "-b", branch)
        made = self.commit(files, say, **more)
        self.git("checkout", "-q", "main")
        self.git("merge", "-q", "--no-ff", "-m", f"Merge {branch}", branch, author=by, committer=by)
        return made, self.git("rev-parse", "HEAD")

    def pin(self, name: str, body: bytes) -> dict[str, str | bytes]:
        """The .dvc file of data that lies beside it, as `dvc add` writes it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        (self.folder / ".git" / "info" / "exclude").write_text(f"{name}\n")
        return {f"{name}.dvc": f"outs:\n- md5: {md5}\n  size: {len(body)}\n  hash: md5\n  path: {Path(name).name}\n"}
