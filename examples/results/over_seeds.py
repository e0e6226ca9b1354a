# SPDX-License-Identifier: Apache-2.0
"""Each model's AUC and UAUC over runs that differ in their seed alone; makes demo_nyc_seeds.json:

for seed in 0 1 2 3; do python -m longclock.train --seed $seed --out build/seed$seed; done
python examples/results/over_seeds.py build/seed?/results.json > examples/results/demo_nyc_seeds.json
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def over_seeds(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of every model as lists in the order of the runs, with mean and deviation."""
    configs = [dict(run["config"]) for run in runs]
    seeds = [config.pop("seed") for config in configs]
    data = [run["data"]["digest"] for run in runs]
    same = (configs, data, [run["versions"] for run in runs], [list(run["models"]) for run in runs])
    if any(values.count(values[0]) < len(runs) for values in same):
        raise ValueError("the runs must differ in their seed alone")
    models: dict[str, Any] = {}
    for name, model in runs[0]["models"].items():
        auc, uauc = ([run["models"][name][key] for run in runs] for key in ("auc", "uauc"))
        models[name] = {
            "title": model["title"],
            "auc": [round(value, 6) for value in auc],
            "uauc": [round(value, 6) for value in uauc],
            "auc_mean": round(statistics.mean(auc), 6),
            "auc_std": round(statistics.stdev(auc), 6),
        }
    first = {key: runs[0][key] for key in ("versions", "threads")}
    return {"data": data[0], "config": configs[0], "seeds": seeds, **first, "models": models}


if __name__ == "__main__":
    found = over_seeds([json.loads(Path(path).read_text()) for path in sys.argv[1:]])
    print(json.dumps(found, indent=1))
