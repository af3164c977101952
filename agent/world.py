"""What every look and every run needs: the configuration made ready, the store, open connections, workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from agent import plugins
from agent.alone import lock_of
from agent.config import Config, ServiceConfig, WatchConfig
from agent.config.values import AUDIT, Confirm
from agent.errors import PluginError
from agent.incidents import Rules
from agent.model import UTC, Baseline, Load, Locator, Mode, Window, digest, to_json
from agent.perform import Connections
from agent.store import Store
from agent.workers import STOPPING, Pool


@dataclass(frozen=True, slots=True)
class Known:
    """The plugins a watch is made of."""

    checks: Mapping[str, plugins.Plugin]
    adapters: Mapping[str, plugins.Plugin]

    @classmethod
    def now(cls) -> Known:
        """As they are listed now."""
        return cls(plugins.listing("check"), plugins.listing("adapter"))


@dataclass(frozen=True, slots=True)
class Watched:
    """A watch of the configuration with everything about it that does not change from look to look."""

    key: str  # "service/watch", its name everywhere
    service: ServiceConfig
    watch: WatchConfig
    words: frozenset[str]  # what its check asks for by name
    heavy: bool
    cause: str
    severity: str  # of its fails: page or ticket
    rules: Rules
    locators: Mapping[str, Locator]
    rule: str  # digest of what makes two findings comparable: when it changes, memory starts afresh
    settle: timedelta
    baseline: Baseline | None = None  # what is pinned as its yardstick, where its check asks for one
    lock: str = ""  # that a load test holds while it runs against the server of its service
    load: Load | None = None  # of a load test: what it may do

    @classmethod
    def of(cls, service: ServiceConfig, watch: WatchConfig, known: Known, pinned: tuple[int, Baseline] | None = None) -> Watched:
        check = known.checks[watch.check]
        words = frozenset(need.name for need in check.needs)
        bindings = {**service.targets, **watch.bind}
        locators = {role: at for role, at in bindings.items() if role in words}
        exact = bool((check.promises.get("exact") and not check.loads) or check.sequential) and watch.confirm.bad is None
        rules = Rules(exact, watch.confirm.bad or 2, watch.confirm.of or 3, watch.clear)
        bound = {role: at.url for role, at in sorted(locators.items())}
        number, baseline = pinned if pinned and "baseline" in words else (None, None)
        compared = {"baseline": number} if number else {}
        rule = digest({"check": watch.check, "with": to_json(watch.parameters), "bound": bound, **compared})[:16]
        settle = max((_settle(at) for at in locators.values()), default=timedelta())
        cause = str(check.promises.get("cause", ""))
        heavy = check.heavy or any(_heavy(at, known.adapters) for at in locators.values())
        lock = lock_of(bindings["server"].url) if "server" in bindings else ""
        load = replace(service.load, lock=lock) if service.load and check.loads else None
        return cls(watch.key, service, watch, words, heavy, cause, watch.severity, rules, locators, rule, settle, baseline, lock, load)

    @classmethod
    def of_audit(cls, service: ServiceConfig) -> Watched:
        """The audit of a service as what its findings are judged by: bad after two in a row, and a ticket, for none of it is an outage."""
        every = service.audit.every if service.audit else timedelta(days=1)
        watch = WatchConfig(AUDIT, service.name, AUDIT, every, every, every, {}, {}, (), Confirm(1, 2, 2), 2, "ticket", False, None)
        return cls(watch.key, service, watch, frozenset(), False, AUDIT, watch.severity, Rules(bad=2, of=2), {}, AUDIT, timedelta())

    def window(self, due_at: datetime) -> Window:
        """The event time a look judges: it ends `settle` before the look is due, so that late rows have had their time."""
        end = due_at - self.settle
        return Window(end - self.watch.window, end)


def _heavy(at: Locator, adapters: Mapping[str, plugins.Plugin]) -> bool:
    """Whether its adapter computes here, as a query of a local database does."""
    found = adapters.get(f"{at.role}:{at.scheme}")
    return found is not None and found.heavy


def _settle(at: Locator) -> timedelta:
    stated = at.options.get("time") or {}
    found = stated.get("settle", timedelta()) if isinstance(stated, Mapping) else timedelta()
    return found if isinstance(found, timedelta) else timedelta(seconds=float(found))


@dataclass
class World:
    """The running whole: made once, and again from `config` when that is reloaded."""

    config: Config
    store: Store
    pool: Pool
    connections: Connections = field(default_factory=lambda: Connections(20_000))
    loads: Pool = field(default_factory=lambda: Pool(1, jobs=1, ahead=(), nice=0))  # load tests: what gives way, or shares, has no clock to trust
    again: Callable[[str], None] = lambda watch: None  # ask for another look of a watch, soon
    wake: Callable[[], None] = lambda: None  # there may be something to respond to, or to tell
    stopping: Callable[[], bool] = lambda: False  # what takes minutes should end with what it has
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    replays: bool = False  # the clock is set to times past: tables are read as they stood then
    served: dict[str, str] = field(default_factory=dict)  # service -> version last seen
    split: dict[str, bool] = field(default_factory=dict)  # service -> whether others had a part of its traffic then
    watched: dict[str, Watched] = field(default_factory=dict)
    audits: dict[str, Watched] = field(default_factory=dict)  # those that open incidents: judged as watches are, and scheduled apart

    def __post_init__(self) -> None:
        self.use(self.config)

    def use(self, config: Config) -> None:
        """Watch what this configuration says."""
        known = Known.now()
        with self.store.read() as ledger:
            pinned = ledger.baselines()
        self.config = config
        made = (Watched.of(service, watch, known, pinned.get(watch.key)) for service, watch in config.watches())
        self.watched = {w.key: w for w in made}
        audited = (Watched.of_audit(one) for one in config.services.values() if one.audit and one.audit.incident_on != "never")
        self.audits = {w.key: w for w in audited}

    def find(self, key: str) -> Watched:
        """The watch named "service/watch"; PluginError suggests the nearest."""
        if key not in self.watched:
            raise PluginError(f"no watch '{key}'{plugins.suggest(key, self.watched)}")
        return self.watched[key]

    def judges(self, key: str) -> bool:
        """Whether what goes by that name may be in an incident: a watch of the configuration, or an audit."""
        return key in self.watched or key in self.audits

    def alone(self, service: str) -> str | None:
        """The version that what is seen of a service now can be blamed on; None while several have a part of its traffic."""
        return None if self.split.get(service) else self.served.get(service)

    def of_service(self, service: str) -> Iterator[Watched]:
        return (w for w in self.watched.values() if w.service.name == service)

    def close(self) -> None:
        """End the workers and close what is open; the store is its maker's."""
        self.pool.close()
        self.loads.close(STOPPING)
        self.connections.close()

    def service(self, name: str) -> ServiceConfig:
        """The service of that name; PluginError suggests the nearest."""
        if name not in self.config.services:
            raise PluginError(f"no service '{name}'{plugins.suggest(name, self.config.services)}")
        return self.config.services[name]

    @property
    def channels(self) -> list[str]:
        """Every channel there is."""
        return list(self.config.notify.channels)

    def line(self, service: ServiceConfig | None) -> list[str]:
        """Who is told, in order: the owner, then the escalation; everybody when nobody with a channel owns it."""
        return (list(self.config.party(service.name).channels) if service else []) or self.channels

    def owned(self, service: ServiceConfig | None) -> bool:
        """Whether somebody with a channel answers for it."""
        return service is not None and bool(self.config.party(service.name).channels)

    @property
    def ack_within(self) -> timedelta:
        return self.config.notify.ack_within


def runbook_for(config: Config, service: ServiceConfig, cause: str) -> str | None:
    """The runbook for a cause: the service's own mapping first, else the first that says it cures it and has the targets it needs; those of the
    configuration before others."""
    if cause in service.causes:
        return service.causes[cause]
    books = config.runbooks().items()
    return next((name for name, known in books if cause in known.promises.get("cures", ()) and bound(known, service)), None)


def bound(known: plugins.Plugin, service: ServiceConfig) -> bool:
    """Whether the service has every target that a runbook needs."""
    return all(need.optional or need.name in service.targets for need in known.needs if need.name not in plugins.PLATFORM)


def mode_of(service: ServiceConfig, runbook: str) -> Mode:
    """The mode in which this runbook may act on this service."""
    return service.modes.get(runbook, service.mode)
