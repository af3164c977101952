"""Dialling under one deadline: a name looked up, TCP connected, TLS shaken hands, each with the time that is left."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from agent.errors import (
    AnswerError,
    ConfigError,
    DeadlineError,
    NameLookupError,
    TargetError,
    TrustError,
    UnconnectedError,
    UnreachableError,
    WatchkeeperError,
)

if TYPE_CHECKING:
    import ssl

Address: TypeAlias = tuple[Any, ...]  # as socket.getaddrinfo gives them
Ask: TypeAlias = Callable[[str, int], Sequence[Address]]


def left(end: float) -> float:
    """Seconds until the monotonic moment `end`; TimeoutError once it has passed."""
    seconds = end - monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def system(host: str, port: int) -> Sequence[Address]:
    """Asks the operating system's resolver; may hang for as long as that one does."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Resolver:
    """Looks names up in at most `size` daemon threads of its own.

    The system's resolver cannot be interrupted: a name that hangs holds one thread, however many exchanges wait for it,
    and each of them leaves at its own deadline. IP addresses never wait for a thread.
    """

    def __init__(self, ask: Ask = system, size: int = 32) -> None:
        self._ask, self._size = ask, size
        self._slots = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, int], Future[Sequence[Address]]] = {}

    def addresses(self, host: str, port: int, end: float) -> Sequence[Address]:
        """The addresses of a name, before `end`; NameLookupError otherwise."""
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            answer = self._asking(host, port, end)
        try:
            return answer.result(max(end - monotonic(), 0))
        except (OSError, UnicodeError) as error:
            if isinstance(error, TimeoutError) and not answer.done():
                raise NameLookupError(f"the name {host} was not looked up in time: the resolver does not answer; check this machine's DNS") from None
            raise NameLookupError(f"the name {host} does not resolve ({_reason(error)}); check its spelling and this machine's DNS") from error

    def _asking(self, host: str, port: int, end: float) -> Future[Sequence[Address]]:
        with self._lock:
            if (host, port) in self._asked:
                return self._asked[host, port]
        if not self._slots.acquire(timeout=max(end - monotonic(), 0)):
            raise NameLookupError(
                f"the name {host} was not looked up: resolver busy, {self._size} other names do not resolve; check this machine's DNS"
            )
        with self._lock:
            if (host, port) in self._asked:  # another thread asked while this one waited for its slot
                self._slots.release()
                return self._asked[host, port]
            answer = self._asked[host, port] = Future()
        threading.Thread(target=self._look, args=(host, port, answer), name=f"resolve {host}", daemon=True).start()
        return answer

    def _look(self, host: str, port: int, answer: Future[Sequence[Address]]) -> None:
        try:
            found, problem = self._ask(host, port), None
        except Exception as error:  # noqa: BLE001  whatever a resolver raises is told to those who wait
            found, problem = (), error
        with self._lock:
            del self._asked[host, port]
        self._slots.release()
        if problem is None:
            answer.set_result(found)
        else:
            answer.set_exception(problem)


NAMES = Resolver()


class Trust(NamedTuple):
    """What a TLS connection believes (`verify`, `ca` file) and shows (`cert` and `key` files)."""

    verify: bool = True
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """One SSLContext for the whole process per Trust, made anew when one of its files changes: certificates are renewed while we run."""
        try:
            return _context(self, tuple(Path(name).stat().st_mtime_ns for name in self[1:] if isinstance(name, str)))
        except OSError as error:  # an unreadable PEM is an ssl.SSLError, which is an OSError
            files = ", ".join(str(name) for name in self[1:] if name)
            raise ConfigError(
                f"TLS cannot be set up from {files or 'the CA certificates of this machine'} ({_reason(error)}); check these files"
            ) from error


@lru_cache(maxsize=256)
def _context(trust: Trust, _stamps: tuple[int, ...]) -> ssl.SSLContext:
    import ssl

    paths = ssl.get_default_verify_paths()
    ca = trust.ca
    if ca is None and not paths.cafile and not paths.capath:  # a slim container without a certificate store
        import certifi

        ca = certifi.where()
    context = ssl.create_default_context(cafile=ca)
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if trust.cert:
        context.load_cert_chain(trust.cert, trust.key, password=lambda: "")  # without this OpenSSL would ask a terminal
    return context


class Stream:
    """A socket whose every read and write ends by `end`; counts what went each way. The shape httpcore expects of a network stream."""

    __slots__ = ("cut", "end", "got", "sent", "socket")

    def __init__(self, connected: socket.socket, end: float) -> None:
        self.socket = connected
        self.begin(end)

    def begin(self, end: float) -> None:
        """A new exchange over the same socket."""
        self.end, self.sent, self.got, self.cut = end, 0, 0, False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.socket.settimeout(left(self.end))
        data = self.socket.recv(max_bytes)
        self.got += len(data)
        self.cut = not data
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)
        try:
            while rest:
                self.socket.settimeout(left(self.end))
                count = self.socket.send(rest)
                self.sent += count
                rest = rest[count:]
        except TimeoutError:
            raise
        except OSError as error:  # the server may have answered before it closed: httpcore then reads that answer
            import httpcore

            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self.socket.close()

    def readable(self) -> bool:
        """On an idle connection: the server has closed it, or said something nobody asked for."""
        try:
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True


def dial(host: str, port: int, end: float, names: Resolver = NAMES) -> socket.socket:
    """A connected TCP socket before `end`. Each address gets an equal share of the time left, so that a black hole leaves some for the next."""
    addresses = names.addresses(host, port, end)
    problem: TargetError = NameLookupError(f"the name {host} has no address; check its DNS records")
    for position, (family, kind, protocol, _, address) in enumerate(addresses):
        try:
            return _connected(socket.socket(family, kind, protocol), address, left(end) / (len(addresses) - position))
        except TimeoutError:
            problem = DeadlineError(f"no connection to {address[0]} port {port} was made in time; check the address and firewalls on the way")
        except OSError as error:
            problem = UnconnectedError(f"no connection to {address[0]} port {port} ({_reason(error)}); check that the server runs and listens there")
    raise problem


def _connected(fresh: socket.socket, address: Address, seconds: float) -> socket.socket:
    try:
        fresh.settimeout(seconds)
        fresh.connect(address)
        fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        fresh.close()
        raise
    return fresh


def secure(plain: socket.socket, host: str, trust: Trust, end: float) -> socket.socket:
    """TLS over a connected socket, the handshake over before `end`; the socket is closed on any failure."""
    import ssl

    try:
        context = trust.context()
        plain.settimeout(left(end))
        return context.wrap_socket(plain, server_hostname=host)
    except TimeoutError:
        plain.close()
        raise DeadlineError(f"the TLS handshake with {host} was not over in time") from None
    except BaseException as error:
        plain.close()
        if isinstance(error, ssl.SSLError):
            raise _distrust(host, error) from error
        if isinstance(error, OSError):
            raise UnreachableError(f"the connection broke during the TLS handshake with {host} ({_reason(error)})") from error
        raise


def explained(error: Exception, stream: Stream) -> WatchkeeperError:
    """What a failure in the middle of an exchange means: too slow, broken off, or not HTTP."""
    import ssl

    heard = f"{stream.got:,} bytes of an answer had come" if stream.got else "no answer had come"
    if isinstance(error, ssl.SSLError):
        return _distrust("the server", error)
    if isinstance(error, TimeoutError):
        return DeadlineError(f"the time was over and {heard}; look at the server's load, or give it longer with `within`")
    if isinstance(error, OSError) or stream.cut:
        return UnreachableError(f"the server closed the connection when {heard} ({_reason(error)}); look at its log")
    if stream.got:
        return AnswerError(f"the answer is not HTTP as it should be ({_reason(error)}); check that this port speaks HTTP")
    return ConfigError(
        "the address, a header or the credential of this request holds a character that HTTP does not allow; check them for line breaks"
    )


def _distrust(host: str, error: ssl.SSLError) -> TargetError:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return TrustError(f"the certificate of {host} is not trusted ({error.verify_message}); renew it, or name its issuer with `ca`")
    if isinstance(error, ssl.SSLEOFError):
        return UnreachableError(f"{host} closed the connection during the TLS handshake")
    return TrustError(f"TLS with {host} failed ({_reason(error)}); check that this port speaks TLS and accepts this client's certificate")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
