"""How a proxy's servers share traffic: whole weights for the shares that are wanted."""

from __future__ import annotations

from collections.abc import Mapping

from agent import Json
from agent.errors import CannotError, ConfigError

HEAVIEST = 256  # the largest weight that every proxy takes
NEAR = 0.005  # weights are whole numbers: how far a share may be from what was asked


def asked(to: Json) -> Mapping[str, float]:
    """The shares that an aim means: a version, which gets all, or {version: share}."""
    return {str(version): float(share) for version, share in to.items()} if isinstance(to, Mapping) else {str(to): 1.0}


def aim(weights: Mapping[str, float]) -> Json:
    """The aim that the weights of versions come to: the only version with any, or the shares of several."""
    total = sum(weights.values())
    shares = {version: round(weight / total, 4) for version, weight in weights.items() if weight}
    return next(iter(shares)) if len(shares) == 1 else shares


def weights(shares: Mapping[str, float], servers: Mapping[str, int]) -> Mapping[str, int]:
    """The whole weight of each server of a version with which the shares come nearest to what was asked: 1 % against 99 % is 1 against 99."""
    total = sum(shares.values())
    if not total > 0 or min(shares.values()) < 0:
        raise CannotError(f"no shares of traffic: {dict(shares)}; they must be 0 or more, and one above 0")
    each = {version: shares.get(version, 0.0) / total / count for version, count in servers.items() if count}
    top = max(each.values())

    def made(heaviest: int) -> dict[str, int]:
        return {version: max(1, round(share / top * heaviest)) if share else 0 for version, share in each.items()}

    def off(weights: Mapping[str, int]) -> float:
        whole = sum(weight * servers[version] for version, weight in weights.items())
        return max(abs(weight * servers[version] / whole - shares.get(version, 0.0) / total) for version, weight in weights.items())

    return min((made(heaviest) for heaviest in (100, *range(1, HEAVIEST + 1))), key=off)


def same(one: Json, other: Json) -> bool:
    """Whether two aims are the same, to what whole weights can say."""
    first, second = asked(one), asked(other)
    return all(abs(first.get(version, 0.0) - second.get(version, 0.0)) <= NEAR for version in {*first, *second})


def versions(given: Json, where: str) -> Mapping[str, tuple[str, ...]]:
    """The option `versions`: version -> names or addresses of its servers; none when it was not given."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"{where}.versions: write {{version: server}}, or a list of servers, not {given!r:.80}")
    return {str(version): tuple(map(str, names)) if isinstance(names, list) else (str(names),) for version, names in given.items()}
