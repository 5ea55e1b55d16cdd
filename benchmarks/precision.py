"""What products in bfloat16 do to the metrics: row 3.2 of the quick profile, over seeds.

The same runs, once in float32 and once in bfloat16, differ by rounding alone. If their mean
difference is small against the spread over seeds, the precision does not decide a result. A round
is a seed; two at least, and the threads are the profile's.
"""

import tempfile
from dataclasses import replace
from statistics import mean, stdev

import torch
from common import options, print_table, store

from mtl_lib.fast import has_fast_bfloat16
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.profiles import PROFILES
from mtl_lib.study.rows import ROWS
from mtl_lib.study.run import run_experiment
from mtl_lib.study.store import RunStore
from mtl_lib.tasks import BY_NAME


def main() -> None:
    seeds = range(max(2, options(__doc__, rounds=5).rounds))
    torch.set_num_threads(PROFILES["quick"].threads)
    if not has_fast_bfloat16(torch.device("cpu")):
        print("This CPU has no instructions for bfloat16: nothing to compare.")
        return
    corpus = load_corpus("handbook")
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        for low in (False, True):
            for seed in seeds:
                config = PROFILES["quick"].apply(ROWS["3.2"], "quick", seed)
                run = run_experiment(replace(config, bfloat16=low), corpus, RunStore(folder))
                for task, values in run.metrics["last"]["dev"].items():
                    scores.setdefault((task, low), []).append(values[BY_NAME[task].metric])
    rows = []
    for task in BY_NAME:
        if (task, True) in scores:
            exact, rounded = scores[task, False], scores[task, True]
            changes = [b - a for a, b in zip(exact, rounded, strict=True)]
            rows.append(
                {
                    "task": task,
                    "float32": round(mean(exact), 3),
                    "bfloat16": round(mean(rounded), 3),
                    "spread over seeds": round(stdev(exact), 3),
                    "mean change": round(mean(changes), 4),
                    "spread of the change": round(stdev(changes), 4),
                }
            )
    title = f"row 3.2, quick profile, {len(seeds)} seeds, last epoch, development sets"
    print_table(rows, title)
    store("precision", {title: rows})


if __name__ == "__main__":
    main()
