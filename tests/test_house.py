"""Holds the house to its promises: who may import whom, what every plugin carries with it, and that no machine's paths leak in."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

import agent
from agent import errors, plugins

HOUSE = Path(__file__).resolve().parent.parent

# A module of agent/ imports only what stands before it: left to right, top to bottom. "" is the front door, `agent` itself.
FLOORS = (
    (
        "errors",
        "model",
        "plugins",
        "artefacts",
        "factories",
        "training",
        "asking",
        "",
        "stats",
        "alone",
        "reply",
        "dial",
        "credential",
        "proxy",
        "wire",
        "targets",
    ),
    (
        "fitting",
        "config",
        "_rows",
        "migrations",
        "_ledger",
        "_proof",
        "lock",
        "store",
        "lead",
        "metrics",
        "notify",
        "rebuild",
        "perform",
        "pinning",
        "_worker",
        "workers",
        "listing",
        "knock",
        "starter",
        "scaffold",
        "logs",
    ),
    (
        "incidents",
        "objectives",
        "world",
        "changes",
        "judge",
        "look",
        "observe",
        "drills",
        "permit",
        "standing",
        "audit",
        "bundle",
        "actions",
        "planning",
        "respond",
        "watch",
        "verbs",
        "preview",
        "runs",
        "account",
        "ladder",
        "curve",
        "review",
    ),
    (
        "slots",
        "scheduler",
        "replay",
        "limits",
        "backtest",
        "series",
        "cases",
        "rehearse",
        "web",
        "daemon",
        "reach",
        "hands",
        "show",
        "replayed",
        "door",
        "commands",
        "cli",
    ),
)
ORDER = [name for floor in FLOORS for name in floor]
PLUGIN_PACKAGES = ("checks", "loadtests", "runbooks")
LEAVES = {"agent", "agent.stats", "agent.errors"}
HEAVY = {"numpy", "scipy", "pandas", "pyarrow", "duckdb", "ibis", "torch", "onnx", "onnxruntime", "sklearn", "locust", "matplotlib"}
DOOR_STAYS_LIGHT = HEAVY | {"pydantic", "sqlmodel", "sqlalchemy", "alembic", "fastapi", "starlette", "uvicorn", "httpx", "apscheduler", "jinja2"}

Import = tuple[str, int, bool]  # module, line, whether it happens when the file is imported


def sources(package: str) -> list[Path]:
    return sorted(path for path in (HOUSE / package).rglob("*.py") if "versions" not in path.parts)


def dotted(path: Path) -> str:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def inside(name: str) -> str:
    """agent.targets.oip -> targets; agent -> "", the front door."""
    return [*name.split("."), ""][1]


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, inside functions and behind TYPE_CHECKING too, and import_module("a literal")."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node, early in _walk(tree, True):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, early) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full, not relative"
            yield from ((_meant(node.module or "", alias.name), node.lineno, early) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__"):
            yield from ((a.value, node.lineno, early) for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def _walk(node: ast.AST, early: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        lazy = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield child, early
        yield from _walk(child, early and not lazy)


def _meant(module: str, name: str) -> str:
    """`from agent import wire` means agent.wire; `from agent import Verdict` means the front door."""
    full = f"{module}.{name}"
    place = HOUSE.joinpath(*full.split("."))
    return full if place.with_suffix(".py").exists() or (place / "__init__.py").exists() else module


def test_an_import_hidden_in_a_function_is_seen(tmp_path: Path) -> None:
    hidden = tmp_path / "sly.py"
    hidden.write_text("import os\ndef f():\n    from agent import cli\n    import_module('agent.store')\n")
    assert [(name.split(".")[0], early) for name, _, early in imports(hidden)] == [("os", True), ("agent", False), ("agent", False)]


# Import order


@pytest.mark.parametrize("path", sources("agent"), ids=dotted)
def test_a_module_of_the_agent_imports_only_what_stands_before_it(path: Path) -> None:
    mine = _place(dotted(path), path)
    for name, line, _ in imports(path):
        top = name.split(".")[0]
        assert top not in (*PLUGIN_PACKAGES, "examples", "tests", "benchmarks"), f"{path}:{line}: the platform knows no plugin by name: {name}"
        if top == "agent":
            theirs = _place(name, path)
            same = theirs == mine and mine != ORDER.index("")  # files of one folder, such as agent/web/, may know each other
            assert theirs < mine or same, f"{path}:{line}: {name} stands after {dotted(path)}; see FLOORS in {Path(__file__).name}"


def _place(name: str, path: Path) -> int:
    part = inside(name)
    assert part in ORDER, f"{path}: agent.{part} has no place in the import order; give it one in FLOORS of {Path(__file__).name}"
    return ORDER.index(part)


def test_no_import_closes_a_circle() -> None:
    known = {dotted(path): path for package in ("agent", *PLUGIN_PACKAGES) for path in sources(package)}
    leads = {name: sorted({to for to, _, _ in imports(path) if to in known and to != name}) for name, path in known.items()}
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for to in leads[name]:
                walk(to, (*way, name))
            done.add(name)

    for name in known:
        walk(name, ())


@pytest.mark.parametrize("path", [p for p in sources("agent") if inside(dotted(p)) in FLOORS[0]], ids=dotted)
def test_the_ground_floor_needs_only_the_standard_library_to_be_imported(path: Path) -> None:
    for name, line, early in imports(path):
        top = name.split(".")[0]
        assert not early or top == "agent" or top in sys.stdlib_module_names, f"{path}:{line}: import {name} inside the function that needs it"


def plugin_files() -> list[Path]:
    return [p for package in (*PLUGIN_PACKAGES, "agent/targets") for p in sources(package) if p.name != "__init__.py"]


@pytest.mark.parametrize("path", plugin_files(), ids=dotted)
def test_a_plugin_knows_only_the_leaves_of_the_front_door(path: Path) -> None:
    package = dotted(path.parent)
    allowed = LEAVES | ({"agent.wire"} if package == "agent.targets" else set())
    for name, line, _ in imports(path):
        ours = name.split(".")[0] in ("agent", *PLUGIN_PACKAGES, "examples", "tests")
        core = name.startswith(f"{package}._")  # its own package's numeric core
        assert not ours or core or name in allowed, f"{path}:{line}: a plugin may import {', '.join(sorted(allowed))}; not {name}"


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_importing_every_plugin_of_a_kind_brings_in_nothing_heavy(kind: plugins.Kind) -> None:
    modules = sorted({plugin.module for plugin in plugins.listing(kind).values() if plugin.owner == "watchkeeper"})
    came = loaded_by("".join(f"import {module}\n" for module in modules))
    assert not came & HEAVY, f"import {came & HEAVY} inside the functions that need them"


def loaded_by(program: str) -> set[str]:
    """The top-level modules a fresh Python has loaded after running a few lines."""
    tail = "\nimport sys\nprint('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program + tail], capture_output=True, text=True, cwd=HOUSE, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_listing_plugins_imports_none_of_them() -> None:
    came = loaded_by("import agent.plugins\nfor kind in agent.plugins.KINDS: agent.plugins.listing(kind)")
    assert not came & (DOOR_STAYS_LIGHT | set(PLUGIN_PACKAGES))


if (HOUSE / "agent" / "cli.py").exists():

    def test_help_imports_nothing_heavy() -> None:
        program = "import agent.cli\ntry: agent.cli.main(['--help'])\nexcept SystemExit as end: assert not end.code"
        assert not loaded_by(program) & DOOR_STAYS_LIGHT


# The words


def test_the_front_door_names_exactly_what_it_offers() -> None:
    homes = [node for node in ast.walk(ast.parse(Path(agent.__file__).read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    there = {alias.name: node.module for node in homes for alias in node.names if str(node.module).startswith("agent.")}
    assert set(agent.__all__) == set(there)
    for name, home in there.items():
        assert getattr(agent, name) is getattr(importlib.import_module(str(home)), name)
    assert not hasattr(agent, "json") and not hasattr(agent, "anything_else")
    loaded_by("import agent.cli, sys\nassert 'agent.model' not in sys.modules, 'a command that prints its help pays for no word'")
    kind = {name: (not name.isupper(), not name[0].isupper(), name) for name in agent.__all__}
    assert agent.__all__ == sorted(agent.__all__, key=kind.__getitem__), "constants, then classes, then functions, each in order"


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"^( *)([A-Z]\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    parents: dict[int, str] = {}
    tree = {}
    for indent, name in drawn:
        depth = len(indent) // 2
        parents[depth] = name
        tree[name] = parents.get(depth - 1, "Exception")
    real = {name: thing.__base__.__name__ for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, Exception)}
    assert tree == real


# What every plugin carries with it


def ours(kind: plugins.Kind) -> list[plugins.Plugin]:
    return sorted({p.path + p.attribute: p for p in plugins.listing(kind).values() if p.owner == "watchkeeper"}.values(), key=lambda p: p.name)


def named(plugin: plugins.Plugin) -> str:
    return f"{plugin.kind}:{plugin.name}"


@pytest.mark.parametrize("plugin", [p for kind in plugins.KINDS for p in ours(kind)], ids=named)
def test_every_plugin_says_what_it_is_for_and_has_a_test_file(plugin: plugins.Plugin) -> None:
    assert not plugin.broken, plugin.broken
    assert plugin.doc, f"{plugin.path}:{plugin.line}: no docstring"
    assert plugin.kind == "adapter" or str(plugin.promises.get("asks", "")).endswith("?"), f"{plugin.path}:{plugin.line}: `asks` is a question"
    tests = [*(HOUSE / "tests").glob(f"test_{stem(plugin)}.py"), *(HOUSE / "tests").glob(f"test_{stem(plugin)}_*.py")]
    if plugin.kind != "adapter":  # adapters share one contract suite
        assert tests, f"{plugin.name}: write tests/test_{stem(plugin)}.py"


def stem(plugin: plugins.Plugin) -> str:
    return plugin.module.rsplit(".", 1)[1]


@pytest.mark.parametrize("plugin", [*ours("check"), *ours("runbook")], ids=named)
def test_every_check_and_runbook_is_documented_with_all_its_parameters(plugin: plugins.Plugin) -> None:
    page = HOUSE / "docs" / f"{plugin.kind}s" / f"{stem(plugin)}.md"
    assert page.exists(), f"{plugin.name}: write {page.relative_to(HOUSE)}"
    text = page.read_text(encoding="utf-8")
    missing = [word for word in (plugin.name, *(p.name for p in plugin.parameters)) if not re.search(rf"\b{re.escape(word)}\b", text)]
    assert not missing, f"{page.relative_to(HOUSE)} does not mention {', '.join(missing)}"


@pytest.mark.parametrize("plugin", ours("adapter"), ids=named)
def test_every_adapter_is_documented_under_each_of_its_schemes(plugin: plugins.Plugin) -> None:
    pages = [page.read_text(encoding="utf-8") for name in ("targets", "tables") if (page := HOUSE / "docs" / f"{name}.md").exists()]
    for scheme in plugin.promises["schemes"]:
        assert any(re.search(rf"\b{re.escape(scheme)}\b", text) for text in pages), f"docs/targets.md or docs/tables.md: say how {scheme} is used"


# What is packed when somebody installs it


def test_every_file_of_the_packages_is_packed() -> None:
    packed = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    for path in committed():
        top, *rest = path.relative_to(HOUSE).parts
        if top in ("agent", *PLUGIN_PACKAGES) and rest:
            assert (path.parent / "__init__.py").exists(), f"{path.parent.relative_to(HOUSE)} has no __init__.py and would not be installed"
            inner = PurePosixPath(*rest)
            known = path.suffix == ".py" or any(inner.match(glob) for glob in packed.get(top, ()))
            assert known, f"{inner} would not be installed: name it in [tool.setuptools.package-data]"


# Nothing of anyone's machine

FOREIGN = re.compile(
    "|".join(
        (
            r"(?<![\w./~-])/(?:" + "work|root|" + r"tmp)(?=/|[\"'`\s)]|$)",
            r"(?:pypi|files\.python" + r"hosted|anaconda|download\.pytorch)\.org",
            r"--(?:extra-)?index" + r"-url|--find" + r"-links",
        )
    )
)


def committed() -> list[Path]:
    """Files that are, or may be, committed."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=HOUSE, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so what belongs to the repository is not known")
    return [path for name in listed.stdout.split("\0") if name and (path := HOUSE / name).is_file()]


def test_no_file_names_a_machine_s_folders_or_a_package_host() -> None:
    for path in committed():
        data = path.read_bytes()
        if b"\0" in data[:8192] or path.name == "LICENSE":
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            found = FOREIGN.search(line)
            assert found is None, f"{path.relative_to(HOUSE)}:{number}: {found.group()!r} belongs to one machine"


def test_nothing_in_a_package_is_called_like_a_module_beside_it() -> None:
    """Importing the module would put it in the other's place, for whoever asks the package afterwards."""
    for init in HOUSE.glob("*/**/__init__.py"):
        if init.relative_to(HOUSE).parts[0] not in ("agent", "checks", "loadtests", "runbooks", "tests", "examples", "benchmarks"):
            continue
        beside = {path.stem for path in init.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
        defined = {node.name for node in ast.parse(init.read_text()).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert not defined & beside, f"{init.relative_to(HOUSE)}: {defined & beside}"
