"""Discovery's promises, with real packages and their real metadata in child processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import HOUSE

GOOD = """
from agent import Verdict, check, ok

@check(pillar="data", asks="Is it there?")
def {name}(server, *, limit: float = 0.5) -> Verdict:
    "Says ok."
    return ok("there")
"""


def distribution(place: Path, name: str, package: str, kind: str = "checks") -> Path:
    """A third party's installed package: a folder with `__init__.py`, and metadata with one entry-point line."""
    info = place / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[watchkeeper.{kind}]\n{package} = {package}\n")
    (place / package).mkdir()
    (place / package / "__init__.py").touch()
    return place / package


def child(program: str, *places: Path) -> subprocess.CompletedProcess[str]:
    """Run lines in a fresh Python that sees `places` before everything else."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    lines = "import json\nfrom agent.plugins import find, listing\n" + textwrap.dedent(program)
    return subprocess.run([sys.executable, "-P", "-c", lines], capture_output=True, text=True, env=env, cwd=places[0], timeout=60)


def said(program: str, *places: Path) -> object:
    done = child(program, *places)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_module_dropped_into_our_package_is_found_with_no_edit_and_no_reinstall(tmp_path: Path) -> None:
    for package in ("agent", "checks", "loadtests", "runbooks"):
        shutil.copytree(HOUSE / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "checks" / "dropped.py").write_text(GOOD.format(name="here"))
    found = said("p = find('check', 'dropped.here'); print(json.dumps([p.owner, p.path, p.load().__name__]))", tmp_path)
    assert found == ["watchkeeper", str(tmp_path / "checks" / "dropped.py"), "here"]


def test_a_module_added_while_the_process_runs_is_found(tmp_path: Path) -> None:
    folder = distribution(tmp_path, "acme", "acme_checks")
    program = f"""
        before = 'late.here' in listing('check')
        open({str(folder / "late.py")!r}, 'w').write({GOOD.format(name="here")!r})
        print(json.dumps([before, 'late.here' in listing('check')]))
    """
    assert said(program, tmp_path) == [False, True]


def test_a_third_party_s_package_is_found_like_ours(tmp_path: Path) -> None:
    folder = distribution(tmp_path, "acme", "acme_checks")
    (folder / "stock.py").write_text(GOOD.format(name="level") + GOOD.format(name="stock"))
    found = said("print(json.dumps({p.name: [p.owner, p.parameters[0].default] for p in listing('check').values() if p.owner == 'acme'}))", tmp_path)
    assert found == {"stock": ["acme", "0.5"], "stock.level": ["acme", "0.5"]}


def test_a_name_claimed_twice_stops_with_both_owners_named(tmp_path: Path) -> None:
    for name in ("acme", "zenith"):
        (distribution(tmp_path, name, f"{name}_checks") / "stock.py").write_text(GOOD.format(name="level"))
    done = child("listing('check')", tmp_path)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert "'stock.level'" in last
    assert "acme" in last
    assert "zenith" in last


def test_two_adapters_clash_on_role_and_scheme_not_on_file_name(tmp_path: Path) -> None:
    source = "from agent import adapter\n@adapter(role={role!r}, schemes=('carrier',))\nclass Pigeon:\n    'Flies.'\n"
    for name, role in (("acme", "server"), ("zenith", "router")):
        (distribution(tmp_path, name, f"{name}_targets", "adapters") / "pigeon.py").write_text(source.format(role=role))
    assert said("print(json.dumps([find('adapter', f'{r}:carrier').owner for r in ('server', 'router')]))", tmp_path) == ["acme", "zenith"]


BROKEN = {
    "syntax": "def level(:\n",
    "encoding": "# -*- coding: utf-8 -*-\nx = '\xff'\n",
    "import": "import no_such_module\n" + GOOD.format(name="level"),
    "promises": "ASKS = 'Why?'\n" + GOOD.format(name="level").replace('"Is it there?"', "ASKS"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plugin_is_an_error_only_where_it_is_used(tmp_path: Path, how: str) -> None:
    folder = distribution(tmp_path, "acme", "acme_checks")
    (folder / "sound.py").write_text(GOOD.format(name="level"))
    (folder / "torn.py").write_bytes(BROKEN[how].encode("latin-1"))
    assert said("print(json.dumps(find('check', 'sound.level').load().__name__))", tmp_path) == "level"
    done = child("next(p for p in listing('check').values() if p.module == 'acme_checks.torn').load()", tmp_path)
    last = done.stderr.splitlines()[-1]
    assert "PluginError" in last
    assert "acme" in last
    assert "torn.py" in last


def test_a_name_in_a_module_that_does_not_parse_is_answered_with_why(tmp_path: Path) -> None:
    (distribution(tmp_path, "acme", "acme_checks") / "torn.py").write_text("def level(:\n")
    done = child("find('check', 'torn.level').load()", tmp_path)
    assert "check 'torn' of acme cannot be used: its source does not parse" in done.stderr.splitlines()[-1]


def test_an_editor_s_lock_beside_a_plugin_is_passed_over(tmp_path: Path) -> None:
    folder = distribution(tmp_path, "acme", "acme_checks")
    (folder / ".#stock.py").symlink_to("somebody@desk.4711")
    assert said("print(json.dumps([p.name for p in listing('check').values() if p.owner == 'acme']))", tmp_path) == []


def test_a_wrong_name_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    (distribution(tmp_path, "acme", "acme_checks") / "stock.py").write_text(GOOD.format(name="level"))
    done = child("find('check', 'stock.levle')", tmp_path)
    assert "no check 'stock.levle'; did you mean 'stock.level'?" in done.stderr
