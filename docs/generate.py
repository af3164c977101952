"""`make docs`: writes the pages that are made from the code, and the list of pages in README.md; a test fails when they are stale."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent import plugins

DOCS = Path(__file__).resolve().parent
HOUSE = DOCS.parent
MADE = "<!-- Made by `make docs`; edits here are lost. -->\n"
LIST = re.compile(r"(?<=<!-- pages -->\n).*(?=<!-- end of pages -->)", re.DOTALL)


def pages() -> Mapping[Path, str]:
    """Every generated page and what it must say now."""
    made = {DOCS / "plugins.md": _plugins()}
    if (HOUSE / "agent" / "cli.py").exists():
        made[DOCS / "cli.md"] = _commands()
    index = DOCS / "README.md"
    made[index] = LIST.sub(lambda _: "".join(_index(made)), index.read_text(encoding="utf-8"))
    return made


def _index(made: Mapping[Path, str]) -> Iterator[str]:
    """One line a page: its title and its first sentence."""
    for path in sorted({*DOCS.rglob("*.md"), *made} - {DOCS / "README.md"}, key=lambda p: (len(p.parts), p)):
        text = made.get(path) or path.read_text(encoding="utf-8")
        title = next((line[2:] for line in text.splitlines() if line.startswith("# ")), path.stem)
        first = re.split(r"(?<=[.!?])\s", _opening(text), maxsplit=1)[0].rstrip(":")
        yield f"- [{title}]({path.relative_to(DOCS).as_posix()})" + (f": {first}\n" if first else "\n")


def _opening(text: str) -> str:
    """The first paragraph of prose after the title, on one line."""
    bare = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    body = bare.partition("\n# ")[2] or bare.removeprefix("# ")
    blocks = [block for block in body.partition("\n")[2].split("\n\n") if re.match(r"\s*[\w`*\"(]", block)]
    return " ".join(blocks[0].split()) if blocks else ""


def _plugins() -> str:
    parts = [MADE, "# Plugins\n\nEvery check, runbook and adapter that comes with Watchkeeper, as `watchkeeper plugins` lists them. "]
    parts.append("Others' packages are found in the same way.\n")
    for kind in ("check", "runbook"):
        parts += [f"\n## {kind.capitalize()}s\n\n| name | asks | needs | parameters |\n|---|---|---|---|\n", *map(_row, _ours(kind))]
    parts.append("\n## Adapters\n\n| role | scheme | speaks to |\n|---|---|---|\n")
    for one in _ours("adapter"):
        schemes = ", ".join(f"`{scheme}`" for scheme in one.promises.get("schemes", ()))
        parts.append(f"| {one.promises.get('role', '')} | {schemes} | {_cell(one.doc.splitlines()[0] if one.doc else '')} |\n")
    return "".join(parts)


def _ours(kind: Any) -> list[plugins.Plugin]:
    """Ours, each once: an adapter is listed under each of its schemes."""
    found = {(p.module, p.attribute): p for p in plugins.listing(kind).values() if p.owner == "watchkeeper" and not p.broken}
    return sorted(found.values(), key=lambda p: (str(p.promises.get("role", "")), p.name))


def _row(one: plugins.Plugin) -> str:
    page = DOCS / f"{one.kind}s" / f"{one.module.rsplit('.', 1)[1]}.md"
    name = f"[`{one.name}`]({page.relative_to(DOCS).as_posix()})" if page.exists() else f"`{one.name}`"
    needs = ", ".join(need.name + ("?" if need.optional else "") for need in one.needs)
    settings = ", ".join(f"`{p.name}" + (f" = {p.default}`" if p.default is not None else "`") for p in one.parameters)
    return f"| {name} | {_cell(str(one.promises.get('asks', '')))} | {needs} | {_cell(settings)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _commands() -> str:
    """Every command with its help, as `--help` prints it."""
    import click

    from agent.cli import main

    assert isinstance(main, click.Command)
    parts = [MADE, "# Commands\n\nWhat `watchkeeper COMMAND --help` says, command by command.\n"]
    door = click.Context(main, **main.context_settings)  # whose names of --help every command takes over
    for words, command in _walk(door, main):
        command._help_option = None  # click keeps the first it made, whichever names that one had
        with click.Context(command, parent=door, info_name=words, terminal_width=100, max_content_width=100) as context:
            parts.append(f"\n## {words}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "".join(parts)


def _walk(context: Any, command: Any, words: str = "watchkeeper") -> Iterator[tuple[str, Any]]:
    yield words, command
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        if (inner := command.get_command(context, name)) is not None and not inner.hidden:
            yield from _walk(context, inner, f"{words} {name}")


if __name__ == "__main__":
    for place, text in pages().items():
        place.write_text(text, encoding="utf-8")
