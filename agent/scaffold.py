"""What a runbook of one's own starts from: a plan in YAML or a small package, valid as it stands, with everything else as comments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from agent.errors import ConfigError

YAML = """\
# A runbook of your own. It stands in the configuration: in this file of a configuration folder, or copied into watchkeeper.yaml.
#   watchkeeper {config}runbook run {name} SERVICE --dry-run     what it would do
#   watchkeeper {config}runbook run {name} SERVICE               does it; asking for it is its approval
# Every mistake is told at once by `watchkeeper {config}validate`. docs/runbooks/your-own.md tells all that a step can say.
runbooks:
  {name}:
    asks: Is it as it was before?           # the question that it answers
    # cures: [errors]                       # then it is wanted by itself for that cause, and does what the mode of the service lets it
    parameters:                             # what whoever starts it may give: --param pause=5s
      pause: {{type: duration, default: 1s}}
      # version: {{type: text}}               # without a default it must be given
    steps:                                  # one after the other; the first that fails has those before it taken back, newest first
      - command: [echo, hello]              # words, no shell; never run twice. {{ensure: [...]}} may be run again
        name: hello
        why: what people read in the plan before they say yes
      - wait: {{parameter: pause}}
      - command: {{ensure: [echo, {{from: hello.printed}}, again]}}
      # - check: serving.ready              # a watch of the service must be ok
      # - http:                             # PUT and DELETE may be repeated, POST and PATCH are sent once
      #     post: https://serving.example.com/reload
      #     json: {{model: fraud}}
      #     headers: {{Authorization: "Bearer ${{RELOAD_TOKEN}}"}}   # filled in when it is sent: the plan shows it as it is written here
      #     look: {{get: https://serving.example.com/model, expect: {{state: ready}}}}   # only this says that it is done
      #     undo: {{delete: https://serving.example.com/reload}}
      # - sql: {{target: live, do: "UPDATE flags SET on_hold = 1 WHERE model = :model", with: {{model: fraud}}, rows: 1}}
      # - approve: is it good?              # a named person says yes, or everything is taken back
      # - router.point: {{to: {{parameter: version}}}}   # any verb of a target
      # - notify: it is done
"""

PYTHON = '''\
"""A runbook of our own."""

from __future__ import annotations

from datetime import timedelta

from agent import Ref, Step, runbook


@runbook(asks="Is it as it was before?")  # cures=("errors",) has it wanted by itself for that cause, in the mode of the service
def {name}(service: str, *, pause: timedelta = timedelta(seconds=1)) -> tuple[Step, ...]:
    """Says hello, waits, and says it again.

    `pause` is how long it waits. Positional names say what is needed: `router: Router` would be the service's router, `good: Sequence[str]` the
    versions known to be good. What follows the `*` can be given: --param pause=5s, or under services.SERVICE.runbooks.{name}.with.
    """
    soon = timedelta(seconds=30)
    return (
        Step("hello", "command.run", {{"argv": ["echo", "hello", service]}}, soon, why="what people read in the plan before they say yes"),
        Step("wait", "clock.wait", {{"length": pause.total_seconds()}}, pause + soon),
        Step("again", "command.ensure", {{"argv": ["echo", Ref("hello", "printed")]}}, soon),
        # Step("flip", "router.point", {{"to": version}}, soon, "undo", "send all traffic there"),
        # Step("look", "check.ok", {{"watch": "serving.ready"}}, soon),
    )
'''

PROJECT = """\
[project]
name = "{package}"
version = "0.1"
dependencies = ["watchkeeper"]

[project.entry-points."watchkeeper.runbooks"]
{package} = "{package}"                 # every module of this package may hold runbooks; a new one is found without a reinstall

[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[tool.setuptools]
packages = ["{package}"]
"""


def plan(name: str, out: Path, config: str) -> list[Path]:
    """Write the plan in YAML to a file; ConfigError when there is one. `config` is what its commands say of the configuration."""
    return _written({out: YAML.format(name=_judged(name, r"[A-Za-z0-9][A-Za-z0-9_-]*", "letters, digits, - and _"), config=config)})


def package(name: str, out: Path) -> list[Path]:
    """Write the module, into a package that is there (a folder with `__init__.py`) or with a small one around it; ConfigError when one is there."""
    name = _judged(name, r"[a-z_][a-z0-9_]*", "small letters, digits and _, as a function is called")
    text = PYTHON.format(name=name)
    if (out / "__init__.py").exists():
        return _written({out / f"{name}.py": text})
    inner = f"{name}_runbooks"
    files = {
        out / "pyproject.toml": PROJECT.format(package=inner),
        out / inner / "__init__.py": '"""Runbooks of our own."""\n',
        out / inner / f"{name}.py": text,
    }
    return _written(files)


def _judged(name: str, pattern: str, says: str) -> str:
    if not re.fullmatch(pattern, name) or len(name) > 100:
        raise ConfigError(f"'{name[:60]}' cannot be the name of a runbook; use {says}")
    return name


def _written(files: Mapping[Path, str]) -> list[Path]:
    """All of them or none."""
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} exists already and was left as it is; name another place with --out")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as problem:
        raise ConfigError(f"{path} cannot be written ({problem.strerror}); name another place with --out") from problem
    return list(files)
