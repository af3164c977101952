"""The way through an HTTP proxy, for targets whose configuration asks for one."""

from __future__ import annotations

import socket
from urllib.parse import SplitResult, unquote, urlsplit

from agent.credential import Headers, basic, shown
from agent.dial import Stream, explained
from agent.errors import ConfigError, UnreachableError


def chosen(option: object, scheme: str, host: str) -> SplitResult | None:
    """`option` is the URL of a proxy, or "environment" for what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say; None goes straight."""
    if option == "environment":
        from urllib.request import getproxies, proxy_bypass

        option = None if proxy_bypass(host) else getproxies().get(scheme)
    if not option:
        return None
    parts = urlsplit(str(option))
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"the proxy {shown(str(option))!r} cannot be used; write http://host:port, or environment")
    return parts


def credential(proxy: SplitResult) -> Headers:
    """What the proxy wants to see: the user and password in its URL."""
    return [(b"Proxy-Authorization", basic(unquote(proxy.username), unquote(proxy.password or "")))] if proxy.username else []


def tunnel(plain: socket.socket, proxy: SplitResult, host: str, port: int, end: float) -> None:
    """Asks the proxy for a way to host and port; from then on the socket speaks with that server. Closes it on any failure."""
    import httpcore

    stream, through = Stream(plain, end), f"{f'[{host}]' if ':' in host else host}:{port}".encode()
    where = httpcore.URL(scheme=b"http", host=(proxy.hostname or "").encode(), port=proxy.port, target=through)
    connection = httpcore.HTTP11Connection(where.origin, stream)  # type: ignore[arg-type]  # has all that is called of a NetworkStream
    try:
        answer = connection.handle_request(httpcore.Request("CONNECT", where, headers=[(b"Host", through), *credential(proxy)]))
        if answer.status != 200:
            raise UnreachableError(f"the proxy {proxy.hostname} refused the way to {through.decode()} ({answer.status}); check its rules")
    except (OSError, httpcore.ProtocolError) as error:
        plain.close()
        raise explained(error, stream) from error
    except BaseException:
        plain.close()
        raise
