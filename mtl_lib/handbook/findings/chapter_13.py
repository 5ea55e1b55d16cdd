"""What chapter 13 found: fair rules, what they show on toys, and what our bench can say."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from mtl_lib.handbook.checks.chapter_13 import dominated
from mtl_lib.handbook.findings import Finding, with_interval
from mtl_lib.study.bench import FIXED, Bench, family
from mtl_lib.study.paper import TASK_ORDER
from mtl_lib.study.uncertainty import AVERAGE, seed_interval


def _three_settings(points: pd.DataFrame) -> np.ndarray:
    """What fixed weights score that have three tries, `[choices]`: of every three of their settings
    the one that is best on the other seeds speaks for a seed."""
    settings = points[[family(name) == FIXED for name in points["weighting"]]]
    table = settings.pivot(index=["weighting", "rate"], columns="seed", values=AVERAGE).to_numpy()
    others = table.sum(axis=1, keepdims=True) - table  # [settings, seeds]
    seeds = np.arange(table.shape[1])
    return np.array(
        [
            table[three, :][others[three, :].argmax(axis=0), seeds].mean()
            for three in map(list, combinations(range(len(table)), 3))
        ]
    )


def _bench() -> Mapping[str, Any]:
    found = Bench.read("bench")
    table = found.table.set_index("weighting")
    fixed = table.index[table["best fixed"]][0]
    methods = table[table["family"] != FIXED]
    low, high = methods[f"{AVERAGE} low"], methods[f"{AVERAGE} high"]
    nearest = methods[AVERAGE].idxmax()
    names = ("gain", "low", "high")
    gain, from_, to = (methods.loc[nearest, f"{AVERAGE} {name}"] for name in names)
    chosen = found.points[found.points["chosen"]]
    scores = chosen.pivot(index="seed", columns="weighting", values=AVERAGE)
    over_sum = {n: seed_interval((scores[n] - scores["sum"]).to_list()) for n in scores}
    above = [n for n in methods.index if over_sum[n][0] > 0]
    ahead = (scores.sub(scores["sum"], axis=0) > 0).all()  # on every seed
    three = _three_settings(found.points)
    shares = np.array([(score > three).mean() for score in methods[AVERAGE]])
    most = methods[shares > 0.5]
    tuned = table.loc[table["family"] == FIXED, AVERAGE]
    places = table[list(TASK_ORDER)]
    lost = [
        dominated(np.vstack([places.loc[n], places[table["family"] == FIXED]]))[0]
        for n in methods.index
    ]
    return {
        "methods": len(methods),
        "seeds": len(scores),
        "fixed": fixed,
        "score": table.loc[fixed, AVERAGE],
        "nearest": nearest,
        "interval": with_interval(gain, from_, to),
        "beat": int((low > 0).sum()),
        "below": int((high < 0).sum()),
        "above": len(above),
        "surely_above": sum(over_sum[n][1] > 0 for n in above),
        "of_fixed": with_interval(*over_sum[fixed]),
        "of_random": with_interval(*over_sum["random"]),
        "fixed_surely": over_sum[fixed][1] > 0,
        "random_surely": over_sum["random"][2] < 0,
        "on_every_seed": ", ".join(
            f"{n} {with_interval(*over_sum[n])}" for n in methods.index if ahead[n]
        ),
        "ahead": int(ahead[methods.index].sum()),
        "settings": len(found.points[found.points["weighting"].isin(tuned.index)]) // len(scores),
        "most": len(most),
        "share": shares[shares > 0.5].min(),
        "weights": len(tuned),
        "weights_below": int((tuned < most[AVERAGE].min()).sum()),
        "dominated": int(np.sum(lost)),
        "free": int(len(lost) - np.sum(lost)),
        "single": len(methods) * len(TASK_ORDER),
        "above_single": sum(int((methods[f"{task} low"] > 0).sum()) for task in TASK_ORDER),
        "similarity": ", ".join(methods.index[methods["similarity low"] > 0]),
        "on_similarity": methods.loc[methods["similarity low"] > 0, "similarity"].max(),
        "sum_similarity": table.loc["sum", "similarity"],
    }


def _real() -> Mapping[str, Any]:
    found = Bench.read("bench-real")
    table = found.table.set_index("weighting")
    methods = table[table["family"] != FIXED]
    scores = found.points.pivot(index="seed", columns="weighting", values=AVERAGE)
    value, low, high = seed_interval((scores["pcgrad"] - scores["sum"]).to_list())
    gains = methods[[f"{AVERAGE} {name}" for name in ("gain", "low", "high")]]
    return {
        "steps": found.facts["steps"],
        "surgery": f"{value:+.4f} [{low:+.4f}, {high:+.4f}]",
        "surgery_value": value,
        "surgery_low": low,
        "surgery_high": high,
        "methods": len(methods),
        "fixed": table.index[table["best fixed"]][0],
        "score": table.loc[table["best fixed"], AVERAGE].iloc[0],
        "beat": int((methods[f"{AVERAGE} low"] > 0).sum()),
        "below": int((methods[f"{AVERAGE} high"] < 0).sum()),
        "surgery_similarity": with_interval(
            *methods.loc["pcgrad", [f"similarity {name}" for name in ("gain", "low", "high")]]
        ),
        "surgery_similarity_low": methods.loc["pcgrad", "similarity low"],
        "of_surgery": methods.loc["pcgrad", "similarity"],
        "sum_similarity_real": table.loc["sum", "similarity"],
        "surgery_paraphrase": -methods.loc["pcgrad", "paraphrase gain"],
        "surgery_paraphrase_high": methods.loc["pcgrad", "paraphrase high"],
        "others": ", ".join(
            f"{name} {with_interval(*numbers)}"
            for name, numbers in zip(gains.index, gains.to_numpy(), strict=True)
        ),
    }


FINDINGS = (
    Finding(
        "**Where losses are bowls, every method ends where some fixed weights end.** On our page "
        "of two bowls, MGDA, surgery and CAGrad all arrive at points that fixed weights reach as "
        "well. Where the front bends outwards, fixed weights fall into a corner and MGDA need not."
    ),
    Finding(
        "**Equal methods show a lead under unequal rules.** Give eight equal methods five rates "
        "each and the baseline one, report the best, and the table has a winner. With one grid "
        "for all, the methods' mean lead is gone; with other runs to report than to choose, so is "
        "what the scores promise too much. The best of the eight still leads, by luck alone."
    ),
    Finding(
        "**What the paper said.** It compares surgery with the plain sum, at one rate, one seed "
        "and weights of one. Fixed weights, a grid of rates and seeds that report are what would "
        "turn that into evidence."
    ),
    Finding(
        "**On our small corpora no method beat the best fixed weights on average.** {methods} "
        "methods with three rates each, {seeds} seeds, `tiny-pretrained` on the embedded corpora: "
        "on average over the tasks all {below} lie below weights of 4 for sentiment, 4 for "
        "paraphrase and 1 for similarity ({score:.3f}), each with an interval below zero. Nearest "
        "comes {nearest}, {interval}. On a single task one of the {single} intervals lies above "
        "zero ({similarity} on similarity, {on_similarity:.3f}); of so many, chance alone puts "
        "about one there, and that task has the least weight in 4-4-1: the plain sum reaches "
        "{sum_similarity:.3f}. By their means {dominated} of the {methods} methods are dominated "
        "by fixed weights and {free} are not: whether a method reaches a place that weights do "
        "not, these runs do not decide.",
        _bench,
        lambda v: (
            v["beat"] == 0
            and v["below"] == v["methods"]
            and v["fixed"] == "static-4-4-1"
            and v["similarity"] == "gradvac"
            and v["above_single"] == 1
            and v["sum_similarity"] > v["on_similarity"]
            and v["dominated"] < v["free"]
        ),
    ),
    Finding(
        "**With as few tries, most methods are ahead.** Fixed weights had {settings} tries where "
        "a method has three. Of all choices of three of their settings (the best of the three on "
        "the other seeds speaks for a seed) {most} of the {methods} methods beat {share:.0%} or "
        "more; and they lie above {weights_below} of the {weights} fixed weights, each with its "
        "three rates. So a method spares a search, and does not match what a whole search finds.",
        _bench,
        lambda v: (
            v["settings"] == 21
            and v["most"] >= v["methods"] - 2
            and v["share"] > 0.7
            and v["weights_below"] == v["weights"] - 2
        ),
    ),
    Finding(
        "**With the plain sum as only rival the same runs tell another story.** {above} of the "
        "{methods} methods have a higher mean than the sum, though none with an interval (over "
        "the seeds alone) above zero. Two lie above it on every seed: {on_every_seed}. But all "
        "are held against the same {seeds} runs of the sum, and rise and fall together. The best "
        "fixed weights gain {of_fixed} over it. Random weights lose: {of_random}.",
        _bench,
        lambda v: (
            v["surely_above"] == 0 and v["ahead"] == 2 and v["fixed_surely"] and v["random_surely"]
        ),
    ),
    Finding(
        "**On the real corpora, in one epoch at one rate, surgery does no more than the plain sum "
        "on average.** {steps} steps from `minilm-l6`, one rate, seeds 0, 1, 2: on average "
        "surgery minus the sum is {surgery}, the interval over the seeds. Of {methods} methods "
        "none beats on average the fixed weights that won on the small corpora ({fixed}: "
        "{score:.3f}), and none lies surely below: {others}. On similarity surgery lies above "
        "them ({surgery_similarity}), where the plain sum does as well ({sum_similarity_real:.3f} "
        "against {of_surgery:.3f}); on paraphrase it lies below them, by "
        "{surgery_paraphrase:.3f}. (That encoder has seen Quora's pairs before, and our Quora "
        "training file is a substitute.)",
        _real,
        lambda v: (
            v["beat"] == v["below"] == 0
            and v["fixed"] == "static-4-4-1"
            and abs(v["surgery_value"]) < 0.001
            and v["surgery_low"] < 0 < v["surgery_high"]
            and v["surgery_similarity_low"] > 0 > v["surgery_paraphrase_high"]
            and v["sum_similarity_real"] > v["of_surgery"]
        ),
    ),
)
