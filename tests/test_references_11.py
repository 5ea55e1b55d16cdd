"""The references of chapter 11's exercises, each against an independent source."""

import math
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from itertools import product

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.spatial.distance import cdist

from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.study.paper import PAPER_SCORES

SEEDS = range(10)


def reference(name):
    return EXERCISES[name].reference


def prints(count: int, size: int, digits: int) -> set[str]:
    """How a share may be printed: a half is rounded up by some, and down by others."""
    unit = Decimal(1).scaleb(-digits)
    share = Decimal(count) / Decimal(size)  # 28 digits
    return {str(share.quantize(unit, way)) for way in (ROUND_HALF_UP, ROUND_HALF_DOWN)}


@pytest.mark.parametrize("digits", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 7, 12, 40, 99, 200, 2000])
def test_a_count_is_possible_if_printing_its_share_gives_the_accuracy(size, digits):
    printed = {}
    for count in range(size + 1):
        for text in prints(count, size, digits):
            printed.setdefault(text, []).append(count)
    steps = range(10**digits + 1)
    for accuracy in steps if len(steps) * size < 50_000 else (*steps[:60], *steps[-500:]):
        text = str(Decimal(accuracy).scaleb(-digits))
        found = reference("possible_counts")(float(text), size, digits)
        assert found == printed.get(text, []), (text, size)


def test_no_three_digit_accuracy_is_impossible_from_a_thousand_examples_on():
    found = [reference("possible_counts")(n / 1000, 1101) for n in range(1001)]
    assert all(found)
    assert not all(reference("possible_counts")(n / 1000, 99) for n in range(1001))


@pytest.mark.parametrize("digits", [1, 2, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_range_of_a_table_is_what_a_linear_program_finds(seed, digits):
    generator = np.random.default_rng(seed)
    accuracy = generator.uniform(size=5).round(digits)
    accuracy[0], accuracy[1] = 0, 1
    counts = generator.integers(1, 300, size=5)
    half = 0.5 * 10**-digits
    bounds = [(max(a - half, 0), min(a + half, 1)) for a in accuracy]
    share = counts / counts.sum()
    ends = [sign * optimize.linprog(sign * share, bounds=bounds).fun for sign in (1, -1)]
    found = reference("overall_range")(accuracy, counts, digits)
    np.testing.assert_allclose(found, ends, atol=1e-9)


def test_every_table_of_whole_counts_lies_within_its_range():
    counts = np.array([6, 9, 4])
    for right in product(*(range(n + 1) for n in counts)):
        shares = np.array(right) / counts
        low, high = reference("overall_range")(shares.round(2), counts, 2)
        assert low - 1e-12 <= sum(right) / counts.sum() <= high + 1e-12


@pytest.mark.parametrize(
    ("spreads", "unit"), [([0.01], 0.02), ([0.004, 0.012], 0.02), ([0.3, 0.2, 0.5, 0.0], 0.5)]
)
def test_the_chance_of_a_tie_is_how_often_two_drawn_runs_agree(spreads, unit):
    generator, draws = np.random.default_rng(0), 400_000
    runs = generator.normal(scale=spreads, size=(2, draws, len(spreads)))
    agree = (np.abs(runs[0] - runs[1]) < unit / 2).all(axis=1).mean()
    error = math.sqrt(agree * (1 - agree) / draws)
    assert reference("tie_chance")(np.array(spreads), unit) == pytest.approx(agree, abs=4 * error)


def test_a_small_chance_of_a_tie_is_height_times_width_of_the_bell():
    spreads = np.array([0.02, 0.05, 0.1])
    heights = stats.norm.pdf(0, scale=math.sqrt(2) * spreads)
    found = reference("tie_chance")(spreads)
    assert found == pytest.approx(np.prod(0.001 * heights), rel=1e-3)


@pytest.mark.parametrize("digits", [1, 2, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_constant_answer_is_one_that_prints_so_on_every_split(seed, digits):
    generator = np.random.default_rng(seed)
    counts = {name: generator.integers(1, 60, size=4).tolist() for name in ("train", "dev")}
    for label in range(4):
        published = {}
        for name, of_split in counts.items():
            text = sorted(prints(of_split[label], sum(of_split), digits))[seed % 2 - 1]
            published[name] = float(text)
        fitting = [
            other
            for other in range(4)
            if all(
                f"{published[name]:.{digits}f}" in prints(n[other], sum(n), digits)
                for name, n in counts.items()
            )
        ]
        found = reference("constant_answer")(counts, published, digits)
        assert found == fitting[0] <= label
    assert reference("constant_answer")(counts, {"train": 0.999, "dev": 0.999}, 3) is None


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_at_its_ends_one_run_differs_from_the_others_with_p_5_percent(seeds):
    scores = np.random.default_rng(seeds).normal(0.4, 0.02, size=seeds)
    for end in reference("prediction_interval")(scores):
        assert stats.ttest_ind([end], scores).pvalue == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_a_further_run_lands_in_its_interval_19_times_in_20(seeds):
    generator, draws = np.random.default_rng(0), 4000
    hits = 0
    for _ in range(draws):
        *scores, further = generator.normal(size=seeds + 1)
        low, high = reference("prediction_interval")(scores)
        hits += low <= further <= high
    assert hits / draws == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / draws))


@pytest.mark.parametrize("scores", [[], [0.4]])
def test_fewer_than_two_seeds_have_no_interval(scores):
    with pytest.raises(ValueError, match="two at least"):
        reference("prediction_interval")(scores)


@pytest.mark.parametrize("row", PAPER_SCORES.index)
def test_the_nearest_epoch_is_the_one_of_scipy_s_distances(row):
    generator = np.random.default_rng(0)
    trajectory = generator.uniform(size=(10, 6))
    trajectory[3, 5] = np.nan
    published = PAPER_SCORES.loc[row].drop("name").to_numpy(float)
    whole = np.delete(trajectory, 3, axis=0)
    far = cdist(whole, published[None])[:, 0] / math.sqrt(6)
    epoch, distance = reference("nearest_epoch")(trajectory, published)
    assert distance == pytest.approx(far.min())
    assert epoch == [1, 2, 3, 5, 6, 7, 8, 9, 10][far.argmin()]


def test_the_two_answers_are_those_of_every_point_of_the_two_intervals():
    grid = np.linspace(-0.05, 0.05, 21).round(6)
    for low, high in product(grid, grid):
        if low > high:
            continue
        points = np.linspace(low, high, 11)
        small, positive = (points < 0.01).all(), (points > 0).all()
        gain = "no gain" if small else "gain" if positive else "open"
        run = (low - 0.01, high + 0.01)
        for published in grid:
            at_once = min(max(published, run[0]), run[1]) == published
            found = reference("two_answers")((low, high), run, published)
            assert found == (gain, "inside" if at_once else "outside")
        assert reference("two_answers")((low, high), run, math.nan) == (gain, "not printed")
