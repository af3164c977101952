"""What tests share: the real services some of them speak to, which skip at a desk and fail in CI when they are missing."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import logs
from tests.cluster import RUNNING, Cluster

HOUSE = Path(__file__).resolve().parent.parent
PROGRAMS = {  # service -> (names its program goes by, how to get it)
    "nginx": (("nginx",), "apt install nginx-light"),
    "haproxy": (("haproxy",), "apt install haproxy"),
    "prometheus": (("prometheus",), "apt install prometheus"),
    "promtool": (("promtool",), "apt install prometheus"),
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "apt install chromium"),
    "faketime": (("faketime",), "apt install faketime"),
    "river": (("river",), "make peers"),
    "dvc": (("dvc",), "make peers"),
    "mlserver": (("mlserver",), "make peers"),
    "feast": (("feast",), "make peers"),
    "mlflow": (("mlflow",), "make peers"),
    "triton": (("pytriton",), "make peers"),
    "kubectl": (("kubectl",), "get it from your Kubernetes' own release"),
    "kmock": (("kmock",), "make peers"),
    "torchserve": (("torchserve",), "make peers"),
    "bentoml": (("bentoml",), "make peers"),
    "redis": (("redis-server",), "apt install redis-server"),
    "postgres": (("initdb",), "apt install postgresql"),
    "spark": (("spark-submit",), "make peers"),
    "java": (("java",), "apt install openjdk-17-jre-headless"),
}
LIBRARIES = {"torch": "make test EXTRAS=torch", "jsonschema": "make test"}


def peers() -> Path:
    """Where `make peers` keeps the environments of servers nobody here wrote."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("WATCHKEEPER_PEERS") or cache / "watchkeeper" / "peers")


def need(service: str) -> Path:
    """The program of a real service. Not installed: skips with the line that installs it, or fails where CI is set."""
    names, remedy = PROGRAMS[service]
    versions = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)  # Debian keeps what belongs to one version off the PATH
    places = os.pathsep.join([str(peers() / service / "bin"), *versions, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = next((program for name in names if (program := shutil.which(name, path=places))), None)
    if found:
        return Path(found)
    missing = f"needs {service}, which is not installed: {remedy}"
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def library(name: str) -> Any:
    """An optional library. Not installed: the whole file is skipped with the line that installs it, or fails where CI is set."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing = f"needs {name}, which is not installed: {LIBRARIES[name]}"
        if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing, allow_module_level=True)


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
def feast() -> Path:
    """The `feast` program, in its own virtual environment: `feast.parent / "python"` can import it."""
    return need("feast")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A private PostgreSQL with a database of its own."""
    cluster = Cluster(need("postgres").parent)
    RUNNING.append(cluster)
    try:
        yield cluster
    finally:
        RUNNING.remove(cluster)
        cluster.stop()


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Prometheus that has scraped a real exporter; see tests/prometheus.py."""
    from tests.prometheus import monitored

    with monitored(need("prometheus"), tmp_path_factory.mktemp("prometheus")) as found:
        yield found


@pytest.fixture(params=logs.FORMATS)
def form(request: pytest.FixtureRequest) -> str:
    """Every format and engine a table is read from in turn; `tests.logs.write` writes the same rows in each."""
    if request.param == "postgresql":
        request.getfixturevalue("postgres")
    return str(request.param)


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service that was drilled, went bad and was rolled back by hand, and its audit in every format, `a.json` and so on; only to be read."""
    from tests.fraud import Fraud
    from tests.test_cli import Inside

    with closing(Fraud()) as server:
        made = Inside(tmp_path_factory.mktemp("audit"), server)
        made("check", "--all")
        for version in ("1", "2"):
            made("good", "fraud", version)
        made("drill", "rollback", "fraud")
        server.served, server.factors["2"] = "2", 3.0
        made("check", "fraud", "serving.parity", code=1)
        made("runbook", "approve", 2, "--by", "grace")
        made("ack", 1, "--by", "grace")
        names = ("a.json", "a.html", "a.md", "a.sarif", "a.xml", "a.svg", "a.csv")
        made("audit", "run", "fraud", *(word for name in names for word in ("--out", made.folder / name)))
        yield made
