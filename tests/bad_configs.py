"""Configurations that are wrong, and every line that each of them is answered with; `$` stands for the file's name."""

# ruff: noqa: E501 - a line that is told is quoted whole

SERVICE = "services:\n  fraud:\n"
WATCH = SERVICE + "    targets:\n      server: oip+http://h/m\n    watches:\n"

CHECKS = {
    "toy": """
        from datetime import timedelta
        from typing import TYPE_CHECKING, Literal
        from agent import Server, Verdict, check, ok
        if TYPE_CHECKING:
            from agent import Table

        @check(pillar="monitoring", asks="Is it ready?", exact=True)
        def ready(server: Server) -> Verdict:
            return ok("it is")

        @check(pillar="monitoring", asks="Do the two tables agree?")
        def compare(live: "Table", reference: "Table", labels: "Table | None" = None) -> Verdict:
            return ok("they do")

        @check(pillar="monitoring", asks="Is it slow?")
        def slow(server: Server, *, path: str, limit: timedelta = timedelta(seconds=1), rows: int = 5, share: float = 0.5,
                 strict: bool = False, method: Literal["ks", "chi2"] = "ks", columns: tuple[str, ...] = (),
                 waits: "dict[str, timedelta] | None" = None) -> Verdict:
            return ok("it is not")
    """,
    "snapped": """
        from agent import Server, Verdict, check, ok
        raise RuntimeError("no licence")

        @check(pillar="monitoring", asks="Does it import?")
        def quickly(server: Server) -> Verdict:
            return ok("no")
    """,
    "torn": "def torn(:\n",
}
RUNBOOKS = {
    "mend": """
        from datetime import timedelta
        from agent import Router, runbook

        @runbook(asks="How is it mended?", cures=("errors",))
        def mend(router: Router, *, pause: timedelta = timedelta(seconds=1)):
            return ()
    """,
}

PLANS = "services: {fraud: {targets: {server: oip+http://h/m}, watches: [{check: toy.ready}]}}\nrunbooks:\n"
OWN = PLANS + "  own:\n    asks: Is it?\n    steps:\n"

BAD = [  # name, text, lines
    ("an_unknown_key", "teem: ml\nservices: {}\n", ["$:1:1 teem: unknown key; did you mean 'team'?"]),
    (
        "an_unknown_key_far_from_all",
        "zzz: 1\nservices: {}\n",
        [
            "$:1:1 zzz: unknown key; there is audit, budget, freeze, heartbeat, listen, notify, retention, runbooks, services, store, team, token, workers"
        ],
    ),
    (
        "a_key_that_begins_with_an_angle",
        "<<x: ml\nservices: {}\n",
        [
            "$:1:1 <<x: unknown key; there is audit, budget, freeze, heartbeat, listen, notify, retention, runbooks, services, store, team, token, workers"
        ],
    ),
    ("services_missing", "team: ml\n", ["$:1:1: needs `services`"]),
    ("services_as_a_list", "services: []\n", ["$:1:11 services: must be a mapping, not a list"]),
    ("a_service_that_is_nothing", SERVICE + "", ["$:2:9 services.fraud: must be a mapping, not nothing"]),
    (
        "a_service_name_with_a_space",
        "services:\n  my fraud: {}\n",
        ["$:2:3 services.my fraud: 'my fraud' cannot be a name; use letters, digits, - and _"],
    ),
    (
        "a_service_name_with_a_dot",
        "services:\n  my.fraud: {}\n",
        ["$:2:3 services.my.fraud: 'my.fraud' cannot be a name; use letters, digits, - and _"],
    ),
    ("a_key_twice", "team: a\nservices: {}\nteam: b\n", ["$:3:1 team: is already defined at watchkeeper.yaml:1; keep one of the two"]),
    ("a_service_twice", "services:\n  a: {}\n  a: {}\n", ["$:3:3 services.a: is already defined at watchkeeper.yaml:2; keep one of the two"]),
    ("a_key_that_is_a_list", "services: {}\n? [a, b]\n: c\n", ["$:2:3: a key must be a word"]),
    ("a_number_where_text_belongs", "team: 7\nservices: {}\n", ["$:1:7 team: must be text, not the number 7"]),
    ("text_where_a_number_belongs", "workers: two\nservices: {}\n", ["$:1:10 workers: must be a whole number, not the text 'two'"]),
    ("a_fraction_of_a_worker", "workers: 1.5\nservices: {}\n", ["$:1:10 workers: must be a whole number, not the number 1.5"]),
    ("no_workers", "workers: 0\nservices: {}\n", ["$:1:10 workers: must be at least 1, not the number 0"]),
    (
        "yes_is_not_true",
        SERVICE + "    targets: {server: {url: 'oip+http://h/m', verify: yes}}\n",
        ["$:3:55 services.fraud.targets.server.verify: must be true or false, not the text 'yes'"],
    ),
    (
        "a_bad_duration",
        SERVICE + "    soak: 10 minutes\n",
        ["$:3:11 services.fraud.soak: no duration '10 minutes'; write a number with a unit, such as 250ms, 10s, 5m, 1h30m or 90d"],
    ),
    (
        "a_number_as_duration",
        SERVICE + "    soak: 10\n",
        ["$:3:11 services.fraud.soak: must be a duration such as 250ms, 10s, 5m, 1h30m or 90d, not the number 10"],
    ),
    (
        "an_endless_duration",
        "retention: {findings: 99999999999999999d}\nservices: {}\n",
        ["$:1:23 retention.findings: '99999999999999999d' is more than a hundred years"],
    ),
    (
        "a_duration_of_a_million_digits",
        f"retention: {{findings: '{'9' * 900_000}d'}}\nservices: {{}}\n",
        [
            "$:1:23 retention.findings: must be a duration such as 250ms, 10s, 5m, 1h30m or 90d, not the text '999999999999999999999999999999999999999999999999999999999...'"
        ],
    ),
    ("retention_of_no_time", "retention: {rollups: 0s}\nservices: {}\n", ["$:1:22 retention.rollups: must be more than 0s"]),
    (
        "listening_to_the_world_without_a_token",
        "listen: 0.0.0.0:8420\nservices: {}\n",
        ["$:1:9 listen: can be reached from other machines, which takes a token; add `token: ${WATCHKEEPER_TOKEN}` or listen on 127.0.0.1"],
    ),
    (
        "listening_to_a_name_without_a_token",
        "listen: box.example:8420\nservices: {}\n",
        ["$:1:9 listen: can be reached from other machines, which takes a token; add `token: ${WATCHKEEPER_TOKEN}` or listen on 127.0.0.1"],
    ),
    ("an_address_without_a_port", "listen: 127.0.0.1\nservices: {}\n", ["$:1:9 listen: must be host:port, such as 127.0.0.1:8420, not '127.0.0.1'"]),
    (
        "a_port_too_high",
        "listen: 127.0.0.1:99999\nservices: {}\n",
        ["$:1:9 listen: must be host:port, such as 127.0.0.1:8420, not '127.0.0.1:99999'"],
    ),
    ("a_short_token", "token: abc\nservices: {}\n", ["$:1:8 token: must have at least 8 characters"]),
    (
        "a_heartbeat_that_is_no_url",
        "heartbeat: {url: beat.example}\nservices: {}\n",
        ["$:1:18 heartbeat.url: must be a URL that begins with http:// or https://, not 'beat.example'"],
    ),
    (
        "a_channel_of_another_scheme",
        "notify: {channels: {alice: ftp://h/x}}\nservices: {}\n",
        ["$:1:28 notify.channels.alice: must be a URL that begins with http:// or https:// or slack+http:// or slack+https://, not 'ftp://h/x'"],
    ),
    (
        "a_channel_without_a_host",
        "notify: {channels: {alice: 'https:///x'}}\nservices: {}\n",
        ["$:1:28 notify.channels.alice: must be a URL that begins with http:// or https:// or slack+http:// or slack+https://, not 'https:///x'"],
    ),
    (
        "an_owner_nobody_can_reach",
        "notify: {channels: {alice: https://h/x}}\nservices:\n  fraud:\n    owner: alicia\n",
        ["$:4:12 services.fraud.owner: no channel 'alicia'; did you mean 'alice'?"],
    ),
    ("an_owner_without_any_channel", SERVICE + "    owner: alice\n", ["$:3:12 services.fraud.owner: no channel 'alice'; add it to notify.channels"]),
    (
        "an_escalation_nobody_can_reach",
        "notify: {channels: {alice: https://h/x}}\nservices:\n  fraud:\n    escalation: [alice, ops]\n",
        ["$:4:25 services.fraud.escalation[1]: no channel 'ops'; there is alice"],
    ),
    (
        "a_mode_that_is_no_mode",
        SERVICE + "    mode: automatic\n",
        ["$:3:11 services.fraud.mode: must be 'observe', 'suggest', 'approve' or 'auto', not the text 'automatic'; did you mean 'auto'?"],
    ),
    (
        "a_mode_for_no_runbook",
        SERVICE + "    mode: {default: observe, mendd: auto}\n",
        ["$:3:30 services.fraud.mode.mendd: no runbook 'mendd'; did you mean 'mend'?"],
    ),
    (
        "a_cause_that_is_no_cause",
        SERVICE + "    causes: {latencies: mend}\n",
        ["$:3:14 services.fraud.causes.latencies: no cause 'latencies'; did you mean 'latency'?"],
    ),
    (
        "a_cause_with_no_runbook",
        SERVICE + "    causes: {latency: mendd}\n",
        ["$:3:23 services.fraud.causes.latency: no runbook 'mendd'; did you mean 'mend'?"],
    ),
    (
        "a_runbook_that_is_none",
        SERVICE + "    runbooks: {mendd: {}}\n",
        ["$:3:16 services.fraud.runbooks.mendd: no runbook 'mendd'; did you mean 'mend'?"],
    ),
    (
        "a_runbook_with_an_unknown_parameter",
        SERVICE + "    runbooks: {mend: {with: {wait: 3s}}}\n",
        ["$:3:30 services.fraud.runbooks.mend.with.wait: mend has no parameter 'wait'; there is pause"],
    ),
    (
        "a_freeze_without_a_zone",
        "freeze: [{from: 2026-12-24T18:00:00, to: 2026-12-27T08:00:00Z}]\nservices: {}\n",
        ["$:1:17 freeze[0].from: '2026-12-24T18:00:00' has no time zone; write '2026-12-24T18:00:00Z' for UTC"],
    ),
    (
        "a_freeze_of_a_day",
        "freeze: [{from: 2026-12-24, to: 2026-12-27T08:00:00Z}]\nservices: {}\n",
        ["$:1:17 freeze[0].from: '2026-12-24' needs a time and a zone"],
    ),
    (
        "a_freeze_that_ends_before_it_begins",
        "freeze: [{from: 2026-12-28T00:00:00Z, to: 2026-12-27T08:00:00Z}]\nservices: {}\n",
        ["$:1:43 freeze[0].to: must be later than `from`"],
    ),
    (
        "objectives_as_a_list",
        SERVICE + "    objectives: [{p99: 300ms}]\n",
        ["$:3:17 services.fraud.objectives: must be a mapping, not a list"],
    ),
    (
        "an_objective_nobody_can_keep",
        WATCH + "      - {check: toy.ready}\n    objectives: {availability: {target: 1, watch: toy.ready}}\n",
        ["$:7:41 services.fraud.objectives.availability.target: must be at most 0.999999, not the number 1"],
    ),
    (
        "objectives_that_nothing_judges",
        "retention: {rollups: 30d}\n"
        + WATCH
        + "      - {check: toy.ready}\n    objectives: {availabilty: {target: 0.9, watch: toy.ready}, quality: {target: 0.9, watch: toy.redy, over: 60d}}\n",
        [
            "$:8:18 services.fraud.objectives.availabilty: unknown key; did you mean 'availability'?",
            "$:8:94 services.fraud.objectives.quality.watch: no watch 'toy.redy'; did you mean 'toy.ready'?",
            "$:8:110 services.fraud.objectives.quality.over: must be at most retention.rollups (30d): what is older is not remembered",
        ],
    ),
    (
        "an_objective_of_an_hour",
        WATCH + "      - {check: toy.ready}\n    objectives: {availability: {target: 0.9, watch: toy.ready, over: 1h}}\n",
        ["$:7:70 services.fraud.objectives.availability.over: must be at least 1d, or a burn could not be told from a spent budget"],
    ),
    ("a_target_without_a_url", SERVICE + "    targets: {server: {verify: true}}\n", ["$:3:23 services.fraud.targets.server: needs `url`"]),
    (
        "a_target_with_no_scheme",
        SERVICE + "    targets: {server: '//h/x'}\n",
        ["$:3:23 services.fraud.targets.server: '//h/x' is not a URL; begin with a scheme, such as https://host/path"],
    ),
    (
        "a_target_of_an_unknown_scheme",
        SERVICE + "    targets: {server: oipp+http://h/x}\n",
        ["$:3:23 services.fraud.targets.server: no adapter speaks 'oipp' to a server; did you mean 'oip'?"],
    ),
    (
        "a_table_of_an_unknown_scheme",
        SERVICE + "    targets: {reference: parket:x.parquet}\n",
        ["$:3:26 services.fraud.targets.reference: no adapter speaks 'parket' to a table; did you mean 'parquet'?"],
    ),
    (
        "a_role_nobody_speaks_to",
        SERVICE + "    targets: {sever: oip+http://h/x}\n",
        ["$:3:15 services.fraud.targets.sever: no adapter speaks to a sever; did you mean 'server'?"],
    ),
    (
        "a_password_in_a_url",
        SERVICE + "    targets: {server: 'oip+http://u:hunter22@h/x'}\n",
        ["$:3:23 services.fraud.targets.server: a password does not belong in a URL, which is shown and logged; write it under `auth`"],
    ),
    (
        "a_target_that_is_nothing",
        "services:\n  fraud:\n    targets:\n      server:\n",
        ["$:4:14 services.fraud.targets.server: needs a URL; write one, or remove the role"],
    ),
    (
        "a_link_among_the_targets",
        SERVICE + "    targets: {reference: '@other.live'}\n",
        ["$:3:26 services.fraud.targets.reference: `@service.role` is understood under a watch's `bind`; write the URL here"],
    ),
    (
        "an_option_no_adapter_knows",
        SERVICE + "    targets: {server: {url: 'oip+http://h/m', verfy: false}}\n",
        ["$:3:47 services.fraud.targets.server.verfy: unknown key; did you mean 'verify'?"],
    ),
    (
        "an_option_no_table_knows",
        SERVICE + "    targets: {live: {url: 'parquet:x', tyme: {}}}\n",
        ["$:3:40 services.fraud.targets.live.tyme: unknown key; did you mean 'time'?"],
    ),
    (
        "two_credentials_at_once",
        SERVICE + "    targets: {server: {url: 'oip+http://h/m', auth: {bearer: x, header: {name: A, value: b}}}}\n",
        ["$:3:53 services.fraud.targets.server.auth: needs exactly one of bearer, basic, header, oauth2 and mtls"],
    ),
    (
        "no_credential_under_look",
        SERVICE + "    targets: {server: {url: 'oip+http://h/m', auth: {look: {}}}}\n",
        ["$:3:60 services.fraud.targets.server.auth.look: needs exactly one of bearer, basic, header, oauth2 and mtls"],
    ),
    (
        "half_a_credential",
        SERVICE + "    targets: {server: {url: 'oip+http://h/m', auth: {act: {basic: {user: u}}}}}\n",
        ["$:3:67 services.fraud.targets.server.auth.act.basic: needs `password`"],
    ),
    (
        "an_unknown_credential",
        SERVICE + "    targets: {server: {url: 'oip+http://h/m', auth: {beerer: x}}}\n",
        ["$:3:62 services.fraud.targets.server.auth.beerer: unknown key; did you mean 'bearer'?"],
    ),
    (
        "a_time_without_tz",
        SERVICE + "    targets: {live: {url: 'parquet:x', time: {column: at}}}\n",
        [
            "$:3:46 services.fraud.targets.live.time: time needs tz; write `tz: UTC`, or the zone the times were written in, or the unit of epoch numbers (s, ms, us, ns)"
        ],
    ),
    (
        "a_label_time_without_tz",
        SERVICE + "    targets: {labels: {url: 'parquet:x', key: id, time: {column: at, unit: iso}}}\n",
        [
            "$:3:57 services.fraud.targets.labels.time: time needs tz; write `tz: UTC`, or the zone the times were written in, or the unit of epoch numbers (s, ms, us, ns)"
        ],
    ),
    (
        "a_zone_that_is_nowhere",
        SERVICE + "    targets: {live: {url: 'parquet:x', time: {column: at, tz: Europe/Berlim}}}\n",
        ["$:3:63 services.fraud.targets.live.time.tz: no time zone 'Europe/Berlim'; did you mean 'Europe/Berlin'?"],
    ),
    (
        "a_unit_that_is_none",
        SERVICE + "    targets: {live: {url: 'parquet:x', time: {column: at, unit: min}}}\n",
        ["$:3:65 services.fraud.targets.live.time.unit: must be 'iso', 's', 'ms', 'us' or 'ns', not the text 'min'"],
    ),
    (
        "features_without_names",
        SERVICE + "    targets: {live: {url: 'parquet:x', features: {json: inputs}}}\n",
        ["$:3:50 services.fraud.targets.live.features: features need either `names` or `size`"],
    ),
    (
        "an_exclusion_of_nothing",
        SERVICE + "    targets: {live: {url: 'parquet:x', exclude: [{column: probe}]}}\n",
        ["$:3:50 services.fraud.targets.live.exclude[0]: needs exactly one of equals, prefix and in"],
    ),
    (
        "a_check_that_is_none",
        WATCH + "      - check: toy.redy\n",
        ["$:6:16 services.fraud.watches[0].check: no check 'toy.redy'; did you mean 'toy.ready'?"],
    ),
    ("a_watch_without_a_check", WATCH + "      - every: 3s\n", ["$:6:9 services.fraud.watches[0]: needs `check`"]),
    ("a_watch_that_is_a_word", WATCH + "      - toy.ready\n", ["$:6:9 services.fraud.watches[0]: must be a mapping, not the text 'toy.ready'"]),
    ("a_watch_too_often", WATCH + "      - {check: toy.ready, every: 500ms}\n", ["$:6:35 services.fraud.watches[0].every: must be at least 1s"]),
    (
        "a_look_longer_than_its_interval",
        WATCH + "      - {check: toy.ready, every: 5s, within: 6s}\n",
        ["$:6:47 services.fraud.watches[0].within: must be at most `every`, or one look would run into the next; shorten it or look less often"],
    ),
    (
        "two_watches_of_one_name",
        WATCH + "      - check: toy.ready\n      - {check: toy.ready, every: 5s}\n",
        ["$:7:9 services.fraud.watches[1]: a watch 'toy.ready' is already defined at watchkeeper.yaml:6; give one of them a `name`"],
    ),
    (
        "a_severity_that_is_none",
        WATCH + "      - {check: toy.ready, severity: pager}\n",
        ["$:6:38 services.fraud.watches[0].severity: must be 'page' or 'ticket', not the text 'pager'; did you mean 'page'?"],
    ),
    (
        "confirmed_both_ways",
        WATCH + "      - {check: toy.ready, confirm: {looks: 2, bad: 1, of: 2}}\n",
        ["$:6:37 services.fraud.watches[0].confirm: needs either `looks`, or `bad` and `of`"],
    ),
    (
        "confirmed_never",
        WATCH + "      - {check: toy.ready, confirm: {bad: 4, of: 3}}\n",
        ["$:6:37 services.fraud.watches[0].confirm: 4 bad of 3 can never be; `bad` is at most `of`"],
    ),
    (
        "a_role_that_is_not_bound",
        WATCH + "      - {check: toy.compare}\n",
        [
            "$:6:17 services.fraud.watches[0].check: toy.compare needs 'live'; add services.fraud.targets.live or bind it",
            "$:6:17 services.fraud.watches[0].check: toy.compare needs 'reference'; add services.fraud.targets.reference or bind it",
        ],
    ),
    (
        "a_role_the_check_does_not_ask_for",
        WATCH + "      - {check: toy.ready, bind: {sever: oip+http://h/m}}\n",
        ["$:6:35 services.fraud.watches[0].bind.sever: toy.ready does not ask for 'sever'; did you mean 'server'?"],
    ),
    (
        "a_link_to_no_service",
        WATCH + "      - {check: toy.ready, bind: {server: '@frod.server'}}\n",
        ["$:6:43 services.fraud.watches[0].bind.server: no service 'frod'; did you mean 'fraud'?"],
    ),
    (
        "a_link_to_no_target",
        WATCH + "      - {check: toy.ready, bind: {server: '@fraud.servers'}}\n",
        ["$:6:43 services.fraud.watches[0].bind.server: service 'fraud' has no target 'servers'; did you mean 'server'?"],
    ),
    (
        "a_need_that_is_no_watch",
        WATCH + "      - {check: toy.ready, needs: [toy.redy]}\n",
        ["$:6:36 services.fraud.watches[0].needs[0]: service 'fraud' has no watch 'toy.redy'; did you mean 'toy.ready'?"],
    ),
    (
        "a_need_in_no_service",
        WATCH + "      - {check: toy.ready, needs: ['@frod.toy.ready']}\n",
        ["$:6:36 services.fraud.watches[0].needs[0]: no service 'frod' with watches; did you mean 'fraud'?"],
    ),
    (
        "needs_in_a_circle",
        WATCH
        + "      - {check: toy.ready, name: a, needs: [b]}\n      - {check: toy.ready, name: b, needs: ['@fraud.c']}\n      - {check: toy.ready, name: c, needs: [a]}\n",
        ["$:8:45 services.fraud.watches[2].needs[0]: needs go in a circle: fraud.a -> fraud.b -> fraud.c -> fraud.a; remove one of them"],
    ),
    (
        "a_watch_that_needs_itself",
        WATCH + "      - {check: toy.ready, needs: [toy.ready]}\n",
        ["$:6:36 services.fraud.watches[0].needs[0]: needs go in a circle: fraud.toy.ready -> fraud.toy.ready; remove one of them"],
    ),
    (
        "a_parameter_that_is_none",
        WATCH + "      - {check: toy.slow, with: {limt: 1s, path: /}}\n",
        ["$:6:34 services.fraud.watches[0].with.limt: toy.slow has no parameter 'limt'; did you mean 'limit'?"],
    ),
    (
        "a_parameter_of_the_wrong_kind",
        WATCH + "      - {check: toy.slow, with: {limit: 3, path: 4, rows: 2.5, share: high, strict: 1, method: kss, columns: [a, 1]}}\n",
        [
            "$:6:41 services.fraud.watches[0].with.limit: must be a duration such as 250ms, 10s, 5m, 1h30m or 90d, not the number 3",
            "$:6:50 services.fraud.watches[0].with.path: must be text, not the number 4",
            "$:6:59 services.fraud.watches[0].with.rows: must be a whole number, not the number 2.5",
            "$:6:71 services.fraud.watches[0].with.share: must be a number, not the text 'high'",
            "$:6:85 services.fraud.watches[0].with.strict: must be true or false, not the number 1",
            "$:6:96 services.fraud.watches[0].with.method: must be 'ks' or 'chi2', not the text 'kss'; did you mean 'ks'?",
            "$:6:114 services.fraud.watches[0].with.columns[1]: must be text, not the number 1",
        ],
    ),
    ("a_parameter_left_out", WATCH + "      - {check: toy.slow}\n", ["$:6:9 services.fraud.watches[0]: toy.slow needs with.path"]),
    (
        "a_parameter_for_a_check_without_any",
        WATCH + "      - {check: toy.ready, with: {limit: 3}}\n",
        ["$:6:35 services.fraud.watches[0].with.limit: toy.ready has no parameter 'limit'; it has none"],
    ),
    (
        "a_check_that_does_not_import",
        WATCH + "      - check: snapped.quickly\n",
        ["$:6:16 services.fraud.watches[0].check: check 'snapped.quickly' of {box} does not import: RuntimeError: no licence"],
    ),
    (
        "a_check_whose_source_does_not_parse",
        WATCH + "      - check: torn\n",
        [
            "$:6:16 services.fraud.watches[0].check: check 'torn' of {box} cannot be used: its source does not parse (invalid syntax (<unknown>, line 1))"
        ],
    ),
    (
        "an_unset_variable",
        "team: ${WATCHKEEPER_UNSET}\nservices: {}\n",
        ["$:1:7 team: the environment has no WATCHKEEPER_UNSET; set it, or write ${WATCHKEEPER_UNSET:-default}"],
    ),
    ("a_variable_without_an_end", "team: ${WATCHKEEPER_UNSET\nservices: {}\n", ["$:1:7 team: `${` has no `}`; write `$$` for a dollar sign"]),
    (
        "a_variable_that_is_no_name",
        "team: ${1 + 1}\nservices: {}\n",
        ["$:1:7 team: '${1 + 1}' is not ${NAME}, ${NAME:-default} or ${file:path}; write `$$` for a dollar sign"],
    ),
    (
        "a_secret_file_that_is_missing",
        "token: ${file:no.txt}\nservices: {}\n",
        ["$:1:8 token: there is no file 'no.txt' in {tmp}; write the secret into it"],
    ),
    (
        "a_secret_that_shows_in_no_message",
        "token: ${SHORT}\nlisten: ${SECRET}\nheartbeat: ${SECRET}\nservices: {}\n",
        [
            "$:1:8 token: must have at least 8 characters",
            "$:2:9 listen: must be host:port, such as 127.0.0.1:8420, not '${SECRET}'",
            "$:3:12 heartbeat: must be a URL that begins with http:// or https://, not '${SECRET}'",
        ],
    ),
    (
        "a_tag",
        "team: !!python/name:os.system x\nservices: {}\n",
        ["$:1:7 team: the tag 'tag:yaml.org,2002:python/name:os.system' means nothing here; remove it"],
    ),
    ("a_tab", "services:\n\tfraud: {}\n", ["$:2:1: is not YAML: found character that cannot start any token; indent with spaces, not tabs"]),
    ("an_empty_file", "", ["$:1:1: is empty; a configuration has at least `services:`"]),
    ("a_file_of_comments", "# soon\n", ["$:1:1: is empty; a configuration has at least `services:`"]),
    ("a_list_at_the_top", "- a\n", ["$:1:1: is a list; a configuration is a mapping with `services:`"]),
    ("a_word_at_the_top", "hello\n", ["$:1:1: is a single value; a configuration is a mapping with `services:`"]),
    ("two_documents", "services: {}\n---\nservices: {}\n", ["$:2:1: a second document (`---`) starts here; put it into a file of its own"]),
    ("broken_yaml", "services: {fraud: [}\n", ["$:1:20: is not YAML: did not find expected node content (while parsing a flow node)"]),
    ("an_alias_of_nothing", "services: *s\n", ["$:1:11: the alias *s has no anchor &s before it"]),
    ("an_alias_of_itself", "services: &s {fraud: *s}\n", ["$:1:22: the alias *s stands inside what it names"]),
    ("too_deep", f"services: {'[' * 60}{']' * 60}\n", ["$:1:61: is nested more than 50 deep"]),
    ("merging_a_word", "services: {<<: x}\n", ["$:1:12 services: `<<` takes an alias of a mapping (or a list of them) that has no `<<` itself"]),
    # Runbooks that are written out
    (
        "a_step_that_does_nothing_one_that_does_two_things_and_one_that_nobody_knows",
        OWN + "      - {name: a}\n      - {wait: 1s, notify: done}\n      - {wiat: 1s}\n",
        [
            "$:6:9 runbooks.own.steps[0]: does nothing; it needs one of http, command, sql, wait, check, hold, notify, approve, run, or a role.verb of a target",
            "$:7:20 runbooks.own.steps[1].notify: 'wait' and 'notify' are two steps; begin a new one with `- notify:`",
            "$:8:10 runbooks.own.steps[2].wiat: no such action; did you mean 'wait'?",
        ],
    ),
    (
        "a_reference_forwards_one_to_nothing_and_one_to_what_may_be_passed_over",
        OWN
        + "      - {notify: {text: {from: later.status}}}\n"
        + "      - {http: {post: 'http://h/'}, name: later, otherwise: go on}\n"
        + "      - {notify: {text: [{from: later.statsu}]}, name: b}\n"
        + "      - {approve: {ask: {from: later.status}}}\n"
        + "      - {command: [a, {from: later}]}\n",
        [
            "$:6:25 runbooks.own.steps[0].notify.text: step 'notify-1' takes text from 'later', which is not an earlier step",
            "$:8:25 runbooks.own.steps[2].notify.text: must be text, not a list",
            "$:8:25 runbooks.own.steps[2].notify.text: step 'b' takes text from 'later.statsu', which it does not give; did you mean 'status'?",
            "$:9:25 runbooks.own.steps[3].approve.ask: step 'approve' takes ask from 'later', which gives nothing when it is passed over; let it `undo` or `stop` otherwise",
            "$:10:23 runbooks.own.steps[4].command[1]: 'later' is not step.field, such as flip.from",
        ],
    ),
    (
        "parameters_that_are_none",
        PLANS
        + "  own:\n    asks: Is it?\n    parameters: {a: {type: tekst}, b: {type: duration, default: soon}, C: 1, d: '${SECRET}'}\n"
        + "    steps:\n      - {wait: {parameter: e}}\n",
        [
            "$:5:28 runbooks.own.parameters.a.type: must be 'text', 'number', 'integer', 'boolean' or 'duration', not the text 'tekst'; did you mean 'text'?",
            "$:5:65 runbooks.own.parameters.b.default: no duration 'soon'; write a number with a unit, such as 250ms, 10s, 5m, 1h30m or 90d",
            "$:5:72 runbooks.own.parameters.C: 'C' cannot be a name; use small letters, digits and _",
            "$:5:81 runbooks.own.parameters.d: the plan would show what '${SECRET}' stands for; write it in `url`, `headers` or `env` of a step, which fill it in when they act",
            "$:7:16 runbooks.own.steps[0].wait: there is no parameter 'e'; there is C, a, b, d",
        ],
    ),
    (
        "secrets_where_a_plan_would_show_them",
        OWN
        + "      - {http: {post: 'http://h/${SECRET}', headers: {A: '${SECRET}'}, json: {url: '${SECRET}'}}}\n"
        + "      - {command: {run: [a, '${SECRET}'], env: {A: '${SECRET}'}}}\n"
        + "      - {notify: 'it is ${SECRET}'}\n"
        + "      - {router.point: {to: '${SECRET}'}}\n",
        [
            "$:6:84 runbooks.own.steps[0].http.json.url: the plan would show what '${SECRET}' stands for; write it in `url`, `headers` or `env` of a step, which fill it in when they act",
            "$:7:29 runbooks.own.steps[1].command.run[1]: the plan would show what '${SECRET}' stands for; write it in `url`, `headers` or `env` of a step, which fill it in when they act",
            "$:8:18 runbooks.own.steps[2].notify: the plan would show what 'it is ${SECRET}' stands for; write it in `url`, `headers` or `env` of a step, which fill it in when they act",
            "$:9:10 runbooks.own.steps[3].router.point: no service has a router; there is server",
            "$:9:29 runbooks.own.steps[3].router.point.to: the plan would show what '${SECRET}' stands for; write it in `url`, `headers` or `env` of a step, which fill it in when they act",
        ],
    ),
    (
        "requests_commands_and_statements_that_could_never_work",
        OWN
        + "      - {http: {post: 'ftp://h/', json: 1, body: x}}\n"
        + "      - {http: {put: 'http://h/', headers: {A: {from: a.b}}, pth: [a], look: {post: 'http://h/'}}}\n"
        + "      - {command: ls | wc}\n"
        + "      - {command: {run: []}}\n"
        + "      - {command: [sleep, 0.5, true], name: c}\n"
        + "      - {http: {post: 'http://h/', expect: many, look: {get: 'http://h/', expect: [x]}}, name: d}\n"
        + "      - {sql: {target: server, do: 'UPDATE a SET b = :c'}}\n"
        + "      - {sql: {target: serve, do: COMMIT, look: DELETE FROM x}}\n",
        [
            "$:6:16 runbooks.own.steps[0].http: must be a URL that begins with http:// or https://, not 'ftp://h/'",
            "$:7:48 runbooks.own.steps[1].http.headers.A: must be text, not a mapping",
            "$:7:62 runbooks.own.steps[1].http.pth: unknown key; did you mean 'path'?",
            "$:7:78 runbooks.own.steps[1].http.look: needs a URL under get",
            "$:8:19 runbooks.own.steps[2].command: write the command as a list of words, such as [./reload.sh, now]; no shell is asked",
            "$:9:19 runbooks.own.steps[3].command: needs at least 1, and has 0",
            "$:10:27 runbooks.own.steps[4].command[1]: must be text or a whole number (true, null, 0.5 and the like need quotes), not the number 0.5",
            "$:10:32 runbooks.own.steps[4].command[2]: must be text or a whole number (true, null, 0.5 and the like need quotes), not true",
            "$:11:44 runbooks.own.steps[5].http.expect: must be a status such as 200, or a list of them, not the text 'many'",
            "$:11:83 runbooks.own.steps[5].http.look.expect: must be a status such as 200, or a list of them, or fields and their values, not a list",
            "$:12:15 runbooks.own.steps[6].sql: `do` asks for :c, which `with` does not give",
            "$:13:15 runbooks.own.steps[7].sql: `do` cannot begin with COMMIT; it is one statement, in a transaction of its own",
            "$:13:24 runbooks.own.steps[7].sql.target: no service has a target 'serve'; did you mean 'server'?",
        ],
    ),
    (
        "what_only_the_services_can_tell",
        OWN.replace("oip+http://h/m", "oip+http://h/m, router: pointer+http://h")
        + "      - {router.pint: {to: 1}}\n"
        + "      - {router.point: {too: 1}}\n"
        + "      - {check: toy.redy}\n"
        + "      - {hold: {check: toy.slow, with: {rows: x}}}\n"
        + "      - {run: {runbook: mend, with: {puse: 1s}}}\n",
        [
            "$:6:10 runbooks.own.steps[0].router.pint: no router here (pointer) can 'pint'; did you mean 'point'?",
            "$:7:25 runbooks.own.steps[1].router.point.too: step 'point': router.point takes no 'too'; did you mean 'to'?",
            "$:8:17 runbooks.own.steps[2].check: no service has a watch 'toy.redy'; did you mean 'toy.ready'?",
            "$:9:40 runbooks.own.steps[3].hold.with: toy.slow needs with.path",
            "$:9:47 runbooks.own.steps[3].hold.with.rows: must be a whole number, not the text 'x'",
            "$:10:38 runbooks.own.steps[4].run.with.puse: mend has no parameter 'puse'; did you mean 'pause'?",
        ],
    ),
]
