"""The documentation is held to the code: links lead somewhere, examples are valid, generated pages are fresh."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HOUSE
from tests.servers import plain

PAGES = sorted(
    [*HOUSE.glob("*.md"), *(HOUSE / "docs").rglob("*.md"), *(HOUSE / "examples").rglob("*.md"), HOUSE / "benchmarks" / "README.md"],
)
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def title(path: Path) -> str:
    return str(path.relative_to(HOUSE))


def blocks(*languages: str) -> list[Any]:
    """Every fenced block in one of the languages, as (page, line, text)."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match[1] in languages:
                line = text.count("\n", 0, match.start()) + 2
                found.append(pytest.param(page, line, match[2], id=f"{title(page)}:{line}"))
    return found


def anchors(page: Path) -> set[str]:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", head)).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{title(page)}: {link} leads nowhere"
        assert target.is_relative_to(HOUSE), f"{title(page)}: {link} leads out of the repository"
        assert not anchor or anchor in anchors(target), f"{title(page)}: no heading #{anchor} in {title(target)}"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_page_has_one_title(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1


if EXAMPLES := blocks("python"):

    @pytest.mark.parametrize(("page", "line", "text"), EXAMPLES)
    def test_every_python_example_parses(page: Path, line: int, text: str) -> None:
        ast.parse(text, f"{page}:{line}")


if EXAMPLES := blocks("json"):

    @pytest.mark.parametrize(("page", "line", "text"), EXAMPLES)
    def test_every_json_example_parses(page: Path, line: int, text: str) -> None:
        json.loads(text)


if EXAMPLES := blocks("yaml"):

    @pytest.mark.parametrize(("page", "line", "text"), EXAMPLES)
    def test_every_yaml_example_parses(page: Path, line: int, text: str) -> None:
        import yaml

        yaml.safe_load(text)


WHOLE = [block for block in blocks("yaml") if re.search(r"^services:", str(block.values[2]), re.MULTILINE)]
assert WHOLE, "no page shows a whole configuration"


@pytest.mark.parametrize(("page", "line", "text"), WHOLE)
def test_every_whole_configuration_in_the_docs_is_accepted(page: Path, line: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.cases import read
    from agent.config import load

    for name in re.findall(r"(?<!\$)\$\{([A-Z_][A-Z0-9_]*)\}", text):
        monkeypatch.setenv(name, "example-of-it")
    written = tmp_path / "watchkeeper.yaml"
    written.write_text(text, encoding="utf-8")
    (read if re.search(r"^tests:", text, re.MULTILINE) else load)(written)


def test_the_configuration_of_the_readme_watches_a_real_server_as_it_stands(tmp_path: Path) -> None:
    (text,) = [str(block.values[2]) for block in WHOLE if block.values[0] == HOUSE / "README.md"]
    server, written = plain.Speaker(), tmp_path / "watchkeeper.yaml"
    try:
        assert "http://127.0.0.1:8000" in text
        written.write_text(text.replace("http://127.0.0.1:8000", server.address), encoding="utf-8")
        command = [sys.executable, "-m", "agent.cli", "--config", str(written), "check", "--all", "--json"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=HOUSE)
    finally:
        server.stop()
    assert told.returncode == 0, told.stdout + told.stderr
    assert [one["status"] for one in json.loads(told.stdout)] == ["ok"] * text.count("check:")


def commands() -> Iterator[Any]:
    """Every `watchkeeper ...` line of a shell example, and inline `watchkeeper ...` code."""
    for block in blocks("sh", "console", "bash", "shell"):
        page, line, text = block.values
        assert isinstance(text, str)
        for row in text.splitlines():
            yield from _command(page, line, row.removeprefix("$ "))
    for page in PAGES:
        prose = FENCE.sub("", page.read_text(encoding="utf-8"))
        for code in re.findall(r"`(watchkeeper [^`\n]+)`", prose):
            yield from _command(page, 0, code)


def _command(page: Any, line: Any, row: str) -> Iterator[Any]:
    row = re.split(r"\s[|>&#]|\s\.\.\.", row)[0].strip()
    if row.startswith("watchkeeper "):
        yield pytest.param(row, id=f"{title(page)}:{line}:{row}")


@pytest.mark.parametrize("row", list(commands()))
def test_every_command_in_the_docs_exists_with_its_options(row: str) -> None:
    import click

    from agent.cli import main

    here: Any = main
    context = click.Context(here, info_name="watchkeeper")
    options = {"--help"}
    for word in shlex.split(row)[1:]:
        options |= {name for parameter in here.params for name in (*parameter.opts, *parameter.secondary_opts)}
        if word.startswith("-"):
            assert word.split("=")[0] in options, f"{row}: {context.command_path} has no option {word}"
        elif isinstance(here, click.Group) and (hasattr(here, "default") or re.fullmatch(r"[a-z][a-z-]*", word)):
            here = here.get_command(context, word) or here.get_command(context, getattr(here, "default", ""))
            assert here is not None, f"{row}: no command {word}"
            context = click.Context(here, info_name=word, parent=context)


def generator() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("generate", HOUSE / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_fresh() -> None:
    for place, text in generator().pages().items():
        assert place.exists(), f"{title(place)} is missing: run `make docs`"
        assert place.read_text(encoding="utf-8") == text, f"{title(place)} is stale: run `make docs`"


def test_every_benchmark_is_in_the_benchmarks_page() -> None:
    page = (HOUSE / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for path in (HOUSE / "benchmarks").glob("*.py"):
        assert path.name.startswith("_") or f"({path.name})" in page, f"benchmarks/README.md: add {path.stem} to its table"


def test_every_make_target_the_pages_name_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (HOUSE / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|^)make ([a-z-]+)(?=[\s`]|$)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, f"{title(page)}: there is no `make {target}`"


NAMED = re.compile(r"`tests/(test_\w+\.py)::(test_\w+)`")


@pytest.mark.parametrize("page", [page for page in PAGES if NAMED.search(page.read_text(encoding="utf-8"))], ids=title)
def test_every_test_a_page_names_exists(page: Path) -> None:
    for file, name in NAMED.findall(page.read_text(encoding="utf-8")):
        place = HOUSE / "tests" / file
        assert place.exists(), f"{title(page)}: there is no tests/{file}"
        found = {node.name for node in ast.walk(ast.parse(place.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)}
        assert name in found, f"{title(page)}: tests/{file} has no {name}"


def test_every_module_of_the_agent_has_its_place_in_the_house() -> None:
    page = (HOUSE / "docs" / "internals.md").read_text(encoding="utf-8")
    inside = [path for path in (HOUSE / "agent").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    missing = sorted(path.stem for path in inside if path.stem != "__init__" and f"`{path.stem}`" not in page)
    assert not missing, f"docs/internals.md: say why {', '.join(missing)} is there"


def test_every_action_of_the_platform_is_in_the_page_of_steps_with_its_args() -> None:
    from agent.actions import PLATFORM

    rows = {
        cells[1].strip("` "): cells
        for line in (HOUSE / "docs" / "runbooks" / "steps.md").read_text().splitlines()
        if len(cells := line.split("|")) > 4
    }
    own = (HOUSE / "docs" / "runbooks" / "your-own.md").read_text()
    for name, action in PLATFORM.items():
        if isinstance(action.takes, property):  # type: ignore[attr-defined] # a team's own steps, which say what they take step by step
            assert f"`{name}`" in own or f"`{name.partition('.')[0]}`" in own, name
            continue
        assert name in rows, f"docs/runbooks/steps.md says nothing of {name}"
        takes, gives = (set(re.findall(r"`(\w+)`", cells)) for cells in (rows[name][2], rows[name][4]))
        assert (takes, gives) == (set(action.takes), set(action.gives)), name  # type: ignore[attr-defined] # the classes say it, the protocol need not
