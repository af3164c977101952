"""Which watches should look now, so that the audit has something to go by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from agent import plugins
from agent.audit.known import SEEING
from agent.config import Config
from agent.store import Ledger


def due(config: Config, ledger: Ledger, services: Sequence[str], now: datetime) -> list[str]:
    """The watches that answer a question of the audit and have seen nothing within their interval; load tests are left to themselves."""
    checks = plugins.listing("check")
    asked = [watch for name in services for watch in config.services[name].watches if checks[watch.check].promises.get("answers")]
    quiet = [watch for watch in asked if not checks[watch.check].loads]
    last = {watch.key: ledger.signal(watch.key) for watch in quiet}
    return [watch.key for watch in quiet if (one := last[watch.key]) is None or one.status not in SEEING or now - one.looked_at > watch.every]
