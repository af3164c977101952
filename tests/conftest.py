"""What tests share: the real services some of them speak to, which skip at a desk and fail in CI when they are missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HOUSE = Path(__file__).resolve().parent.parent
PROGRAMS = {  # service -> (names its program goes by, how to get it)
    "nginx": (("nginx",), "apt install nginx-light"),
    "prometheus": (("prometheus",), "apt install prometheus"),
    "promtool": (("promtool",), "apt install prometheus"),
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "apt install chromium"),
    "faketime": (("faketime",), "apt install faketime"),
    "river": (("river",), "make peers"),
    "mlserver": (("mlserver",), "make peers"),
}


def peers() -> Path:
    """Where `make peers` keeps the environments of servers nobody here wrote."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("WATCHKEEPER_PEERS") or cache / "watchkeeper" / "peers")


def need(service: str) -> Path:
    """The program of a real service. Not installed: skips with the line that installs it, or fails where CI is set."""
    names, remedy = PROGRAMS[service]
    places = os.pathsep.join([str(peers() / service / "bin"), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = next((program for name in names if (program := shutil.which(name, path=places))), None)
    if found:
        return Path(found)
    missing = f"needs {service}, which is not installed: {remedy}"
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def nginx() -> Path:
    """The nginx program."""
    return need("nginx")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's own linter of metrics and rules."""
    return need("promtool")


@pytest.fixture(scope="session")
def chromium() -> Path:
    """A real browser."""
    return need("chromium")


@pytest.fixture(scope="session")
def mlserver() -> Path:
    """The `mlserver` program, in its own virtual environment: `mlserver.parent / "python"` can import it."""
    return need("mlserver")


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Prometheus that has scraped a real exporter; see tests/prometheus.py."""
    from tests.prometheus import monitored

    with monitored(need("prometheus"), tmp_path_factory.mktemp("prometheus")) as found:
        yield found
