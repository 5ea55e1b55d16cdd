"""Samplers: which tasks a step takes, with the shares of their formulas and without a state."""

import random

import pytest
from small import small_model, small_splits

from mtl_lib.errors import ConfigError
from mtl_lib.methods.sampling import SAMPLERS, annealed, proportional, round_robin
from mtl_lib.trainer import Trainer

SIZES = {"small": 100, "middle": 400, "large": 10_000}
DRAWS = 20_000


def shares(sampler, steps):
    """Observed share of each task over some steps."""
    drawn = [sampler(step) for step in steps]
    assert all(len(names) == 1 for names in drawn)
    return {name: drawn.count([name]) / len(drawn) for name in SIZES}


def expected(power):
    total = sum(size**power for size in SIZES.values())
    return {name: size**power / total for name, size in SIZES.items()}


def near(values):
    # four standard deviations of a share of one half
    return pytest.approx(values, abs=4 * (0.25 / DRAWS) ** 0.5)


def test_round_robin_gives_each_task_its_turn():
    sampler = round_robin(["a", "b"])
    assert [sampler(step) for step in range(5)] == [["a"], ["b"], ["a"], ["b"], ["a"]]


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0, -1.0])
def test_tasks_are_drawn_in_proportion_to_a_power_of_their_sizes(power):
    assert shares(proportional(SIZES, power), range(DRAWS)) == near(expected(power))


@pytest.mark.parametrize("name, power", [("proportional", 1.0), ("sqrt", 0.5)])
def test_the_table_has_the_powers_of_its_names(name, power):
    sampler = SAMPLERS[name](SIZES, 100, 3)
    named = proportional(SIZES, power, seed=3)
    assert [sampler(step) for step in range(200)] == [named(step) for step in range(200)]


def test_every_sampler_of_the_table_names_known_tasks():
    for make in SAMPLERS.values():
        for step in range(50):
            names = make(SIZES, 40, 0)(step)
            assert names and set(names) <= set(SIZES)


@pytest.mark.parametrize("place, power", [(0, 1.0), (4, 0.6), (8, 0.2), (20, 0.2)])
def test_the_power_falls_linearly_as_in_stickland_and_murray(place, power):
    # 1 - 0.8 (e - 1) / (E - 1) in "epoch" e = place + 1 of E = 9; every seed is one more draw.
    drawn = [annealed(SIZES, 9, seed=seed)(place) for seed in range(5000)]
    observed = {name: drawn.count([name]) / len(drawn) for name in SIZES}
    assert observed == pytest.approx(expected(power), abs=0.03)


def test_a_draw_is_a_function_of_seed_and_step_alone():
    first, again = (proportional(SIZES, 0.0, seed=1) for _ in range(2))
    forward = [first(step) for step in range(100)]
    assert [again(step) for step in reversed(range(100))] == forward[::-1]


def test_other_seeds_draw_other_tasks():
    draws = {tuple(proportional(SIZES, 0.0, seed)(s)[0] for s in range(20)) for seed in range(10)}
    assert len(draws) == 10


def test_a_draw_leaves_the_global_generators_as_they_are():
    before = random.getstate()
    proportional(SIZES)(0)
    assert random.getstate() == before


def test_a_trainer_takes_the_tasks_of_a_sampler():
    trainer = Trainer(
        small_model(), small_splits(), sampler=round_robin(["similarity", "sentiment"])
    )
    taken = [trainer.step() for _ in range(3)]
    assert [list(losses) for losses, _ in taken] == [["similarity"], ["sentiment"], ["similarity"]]
    assert taken[0][1].shape == (1, 1)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: round_robin([]), "give one name or more"),
        (lambda: round_robin(["a", "a"]), "each once"),
        (lambda: proportional({}), "give one name or more"),
        (lambda: proportional({"a": 0}), "a has the size 0"),
        (lambda: annealed({"a": 1}, 1), "total_steps = 1"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
