"""Writes the files beside it, with whylogs 1.6.4, numpy 1.26.4 and pandas 2.3.3: two tables of 150 and 200 rows, the profiles of them, profiles of
20,000 rows whose sketches had to throw away, one of odd columns; and in told.json what whylogs and scipy say of all these."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import whylogs as why
from scipy.stats import ks_2samp
from whylogs.core.metrics import MetricConfig
from whylogs.core.resolvers import STANDARD_RESOLVER, DeclarativeResolver
from whylogs.core.schema import DatasetSchema

HERE = Path(sys.argv[1])
random = np.random.default_rng(7)
whole, few = MetricConfig(hll_lg_k=4), MetricConfig(large_kll_k=False, kll_k=64, fi_lg_max_k=5, hll_lg_k=4)


def table(rows, shift, german):
    return pd.DataFrame(
        {
            "amount": random.normal(50 + shift, 10, rows).round(2),
            "age": np.where(random.random(rows) < 0.1, np.nan, random.integers(18, 80, rows)),
            "visits": random.poisson(3, rows),
            "country": random.choice(["DE", "FR", "PL"], rows, p=[german, 0.9 - german, 0.1]),
            "known": random.random(rows) < 0.7,
        }
    )


def large(rows, shift):
    return pd.DataFrame(
        {"amount": random.normal(50 + shift, 10, rows), "name": [f"u{n}" for n in random.integers(0, 500, rows)], "code": random.integers(0, 9, rows)}
    )


def profiled(rows, name, config=whole):
    schema = DatasetSchema(resolvers=DeclarativeResolver(STANDARD_RESOLVER, default_config=config), default_configs=config)
    profile = why.log(rows, schema=schema).profile()
    profile.set_dataset_timestamp(datetime(2026, 11, 26, tzinfo=UTC))
    profile.view().write(str(HERE / f"{name}.bin"))
    told = profile.view().to_pandas().astype(object)
    return {column: {k: v for k, v in one.items() if isinstance(v, (int, float)) and v == v} for column, one in told.to_dict("index").items()}


then, now, many_then, many_now = table(200, 0, 0.6), table(150, 8, 0.2), large(20_000, 0), large(20_000, 3)
then.to_csv(HERE / "then.csv", index=False)
now.to_csv(HERE / "now.csv", index=False)
odd = pd.DataFrame(
    {"none": [None] * 3, "day": pd.to_datetime(["2020-01-01"] * 3), "mixed": [1, "a", None], "list": [[1, 2]] * 3, "infinite": [np.inf, 1, -np.inf]}
)
told = {name: profiled(rows, name) for name, rows in {"then": then, "now": now, "odd": odd}.items()}
told |= {name: profiled(rows, name, few) for name, rows in {"many_then": many_then, "many_now": many_now}.items()}
told["one"] = profiled(pd.DataFrame({"amount": [3.5]}), "one")
told["distances"] = {name: ks_2samp(many_now[name], many_then[name]).statistic for name in ("amount", "code")}
(HERE / "told.json").write_text(json.dumps(told) + "\n")
