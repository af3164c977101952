"""A package of plugins that exists for one test: real files, really installed beside the others and really discovered."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from uuid import uuid4

from agent import plugins


@contextmanager
def install(tmp_path: Path, modules: Mapping[str, str], kind: plugins.Kind = "check") -> Iterator[str]:
    """Install `modules` (name without .py -> source) as a distribution whose entry point promises plugins of `kind`; gives the package's name.

    On leaving, the path, the modules and what discovery remembers are as they were.
    """
    package = f"box_{uuid4().hex[:12]}"
    site = tmp_path / f"site-{package}"
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").write_text('"""Plugins of one test."""\n')
    for name, source in modules.items():
        (site / package / f"{name}.py").write_text(dedent(source))
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[watchkeeper.{kind}s]\n{package} = {package}\n")
    sys.path.append(str(site))
    _forget()
    try:
        yield package
    finally:
        sys.path.remove(str(site))
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]
        _forget()


def _forget() -> None:
    importlib.invalidate_caches()
    plugins._packages.cache_clear()
