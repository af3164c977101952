"""What tests of ways to give traffic to a new version share: a router that splits it, a check that says what a file says, a registry that records."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import config, plugins
from agent.targets.folder import record
from tests.fraud import GOLDEN, Desk, fraud
from tests.plugin_box import install

SPLIT = """
    from agent import adapter
    from agent.targets.pointer import Pointer

    @adapter(role="router", schemes=("split",))
    class Split(Pointer):
        \"\"\"A pointer that may be the shares of several versions.\"\"\"

        can = frozenset({"switch", "weights", "load", "unload"})

        def served(self):
            aim = self._version()
            return aim if isinstance(aim, dict) else {aim: 1.0}

        def _version(self):
            return self._state()["version"]
"""
KEPT = """
    from agent import Swap, adapter
    from agent.errors import UnreachableError
    from agent.targets.folder import Folder

    @adapter(role="registry", schemes=("kept",))
    class Kept(Folder):
        \"\"\"A folder that also keeps which version is in force; not while there is a file `away`.\"\"\"

        can = Folder.can | {"record"}

        @property
        def record(self):
            return Swap(self._force, self._keep)

        def _force(self):
            if (self.root / "away").exists():
                raise UnreachableError("the registry is away")
            file = self.root / "force"
            return file.read_text() if file.exists() else None

        def _keep(self, to, expected):
            if self._force() == expected:
                (self.root / "force").write_text(to)
"""
JUDGE = """
    import json
    from dataclasses import dataclass
    from pathlib import Path
    from agent import Reading, Verdict, Window, check, fail, nodata, ok

    @dataclass(frozen=True)
    class Seen:
        looks: int

    @check(pillar="deployment", asks="What does the file of the test say?")
    def compare(
        window: Window, memory: Seen | None, *, baseline: str, candidate: str, alpha: float, margins: dict[str, float], file: str
    ) -> Verdict:
        \"\"\"Says for each share (by the margin it allows) what the file of the test says.\"\"\"
        seen = Seen((memory.looks if memory else 0) + 1)
        said = json.loads(Path(file).read_text())
        word = said.get(f"{margins['errors']:g}", said["else"])
        return {"hold": nodata, "good": ok, "bad": fail}[word](f"{word}: {candidate} beside {baseline}, look {seen.looks}", memory=seen)
"""


@contextmanager
def plugged(folder: Path, modules: Mapping[str, str], kind: plugins.Kind = "check") -> Iterator[None]:
    """Those plugins, in this process and in what it starts."""
    with install(folder, modules, kind) as package, pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(folder / f"site-{package}"), prepend=os.pathsep)
        yield


@contextmanager
def splitting(folder: Path, **given: Any) -> Iterator[Desk]:
    """The fraud service behind a router that splits; version 3 is registered last, is loaded, and answers as it should."""
    with plugged(folder, {"split": SPLIT, "kept": KEPT}, "adapter"), plugged(folder, {"judged": JUDGE}), fraud(folder, **given) as desk:
        record(folder / "models", "3", {"weights.bin": folder / "weights.bin"}, golden=GOLDEN)
        desk.server.loaded, desk.server.factors["3"] = ("1", "2", "3"), 2.0
        path = folder / "watchkeeper.yaml"
        path.write_text(path.read_text().replace("router: pointer+", "router: split+").replace("folder:models", "kept:models"))
        desk.world.use(config.load(path))
        yield desk
