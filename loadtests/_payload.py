"""The bytes of every different request, made before the run: while it goes on, nothing is composed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from agent import PROBE_HEADER
from agent.errors import ConfigError
from loadtests._spec import Traffic

READS = ("GET", "HEAD", "OPTIONS")  # methods without a body, which may be asked again
MOST_BYTES = 256 * 2**20  # of all different requests together
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5: no line end, or a value could add a header of its own
OURS = ("host", "content-length", "transfer-encoding", "connection", PROBE_HEADER.lower())


def payload(traffic: Traffic) -> Sequence[bytes]:
    """Whole requests, one for each line of `requests`. ConfigError: a line that is no request, by number; a URL, method or header that cannot be."""
    method, path = traffic.method.upper(), address(traffic.url)[2]
    if not TOKEN.fullmatch(method):
        raise ConfigError(f"method {traffic.method!r} is not an HTTP method")
    said = _said(traffic)
    found: list[bytes] = []
    size = 0
    for number, (body, own) in _lines(Path(traffic.requests)):
        head = f"{method} {_target(own, number, traffic.requests) if own else path} HTTP/1.1\r\n{said}"
        if body or method not in READS:
            head += f"Content-Length: {len(body)}\r\n"
        found.append(head.encode("latin-1") + b"\r\n" + body)
        size += len(found[-1])
        if size > MOST_BYTES:
            raise ConfigError(f"{traffic.requests}:{number}: the requests are more than {MOST_BYTES >> 20} MiB together; give fewer different ones")
    if not found:
        raise ConfigError(f'{traffic.requests}: there is no request in it; write {{"body": "..."}} on each line')
    return found


def address(url: str) -> tuple[bool, tuple[str, int], str]:
    """Whether a URL means TLS, its host and port, and what is asked for there; ConfigError for what is no HTTP address."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(f"the load's URL {url.partition('?')[0]!r} is not an HTTP address; write http://host:port/path or https://...")
    if "@" in parts.netloc:
        raise ConfigError("the load's URL holds a credential, and URLs are printed; give it as a header")
    host = parts.hostname or ""
    asked = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{quote(parts.query, safe='/?%:@!$&()*+,;=~-._')}" if parts.query else "")
    return parts.scheme == "https", (host if host.isascii() else host.encode("idna").decode(), port), asked


def _said(traffic: Traffic) -> str:
    """The headers that every request has."""
    safe, (host, port), _ = address(traffic.url)
    named = (f"[{host}]" if ":" in host else host) + ("" if port == (443 if safe else 80) else f":{port}")
    lines = [f"Host: {named}", f"{PROBE_HEADER}: watchkeeper"]
    lines += [_header(name, value) for name, value in traffic.headers.items() if name.lower() not in OURS]
    if traffic.method.upper() not in READS and "content-type" not in map(str.lower, traffic.headers):
        lines.append("Content-Type: application/json")
    return "".join(f"{line}\r\n" for line in lines)


def _header(name: str, value: str) -> str:
    if not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
        raise ConfigError(f"header {name!r} has a name or value that HTTP does not allow (is there a line end in it?)")
    return f"{name}: {value}"


def _lines(path: Path) -> Sequence[tuple[int, tuple[bytes, str]]]:
    found: list[tuple[int, tuple[bytes, str]]] = []
    size = 0
    try:
        with path.open("rb") as lines:
            while line := lines.readline(MOST_BYTES + 1):
                size += len(line)
                number = len(found) + 1
                if size > MOST_BYTES:
                    raise ConfigError(f"{path}:{number}: the requests are more than {MOST_BYTES >> 20} MiB together; give fewer different ones")
                found.append((number, _request(line, f"{path}:{number}")))
    except OSError as problem:
        raise ConfigError(f"{path}: the file of requests cannot be read: {problem.strerror}") from problem
    return found


def _request(line: bytes, where: str) -> tuple[bytes, str]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f'{where}: the line is not JSON ({str(problem)[:80]}); write {{"body": "..."}}') from None
    if not isinstance(said, Mapping) or not isinstance(said.get("body"), str) or not isinstance(said.get("path", ""), str):
        raise ConfigError(f'{where}: a request is written {{"body": "text"}} or {{"body": "text", "path": "/..."}}')
    if unknown := sorted(said.keys() - {"body", "path"}):
        raise ConfigError(f"{where}: a request has a body and a path, and not {', '.join(map(repr, unknown))}")
    return said["body"].encode("utf-8", "surrogatepass"), said.get("path", "")


def _target(path: str, number: int, file: str) -> str:
    if not path.startswith("/") or re.search(r"[\x00-\x20\x7f]", path):
        raise ConfigError(f"{file}:{number}: path {path[:80]!r} must begin with / and hold no blank")
    return quote(path, safe="/?%:@!$&'()*+,;=~-._")
