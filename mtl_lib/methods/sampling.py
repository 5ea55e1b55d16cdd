"""Which tasks take part in a step, where not all of them do: `Trainer(..., sampler=...)`.

A sampler is a pure function of the steps taken so far. Random ones draw from (seed, step) alone, so
that a run that goes on from a checkpoint draws the same tasks without a state of theirs.
"""

import random
from collections.abc import Callable, Collection, Mapping

from mtl_lib.errors import ConfigError
from mtl_lib.trainer import Sampler


def round_robin(names: Collection[str]) -> Sampler:
    """One task a step, each in its turn.

    Raises:
        ConfigError: if there is no name.
    """
    tasks = _distinct(names)
    return lambda step: [tasks[step % len(tasks)]]


def proportional(sizes: Mapping[str, int], power: float = 1.0, seed: int = 0) -> Sampler:
    """One task a step, drawn with a probability proportional to N ** power.

    A power of 1 gives every example the same chance, 0.5 is the square root, 0 gives every task
    the same chance.

    Args:
        sizes: N of each task, its training examples.

    Raises:
        ConfigError: if there is no task, or a size is below 1.
    """
    return _drawing(sizes, lambda step: power, seed)


def annealed(
    sizes: Mapping[str, int], total_steps: int, start: float = 1.0, end: float = 0.2, seed: int = 0
) -> Sampler:
    """`proportional` with a power that moves linearly from `start` to `end`: large tasks teach
    first, and in the end all tasks do (Stickland and Murray, 2019).

    Theirs is 1 - 0.8 (e - 1) / (E - 1) in epoch e of E; here it moves step by step, and stays at
    `end` after `total_steps`.

    Raises:
        ConfigError: as in `proportional`, or if `total_steps` is below 2.
    """
    if total_steps < 2:
        raise ConfigError(f"total_steps = {total_steps}: from start to end it takes 2 or more")

    def power(step: int) -> float:
        return start + (end - start) * min(step / (total_steps - 1), 1.0)

    return _drawing(sizes, power, seed)


def _drawing(sizes: Mapping[str, int], power: Callable[[int], float], seed: int) -> Sampler:
    names = _distinct(sizes)
    if unfit := [name for name, size in sizes.items() if size < 1]:
        raise ConfigError(f"{unfit[0]} has the size {sizes[unfit[0]]}: it must be above 0")

    def sampler(step: int) -> list[str]:
        shares = [size ** power(step) for size in sizes.values()]
        return random.Random(f"{seed} {step}").choices(names, shares)

    return sampler


def _distinct(names: Collection[str]) -> list[str]:
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"tasks {list(names)}: give one name or more, each once")
    return list(names)


# From the training examples of each task, the steps of the whole run and a seed to a sampler.
SAMPLERS: dict[str, Callable[[Mapping[str, int], int, int], Sampler]] = {
    "round-robin": lambda sizes, total_steps, seed: round_robin(sizes),
    "proportional": lambda sizes, total_steps, seed: proportional(sizes, seed=seed),
    "sqrt": lambda sizes, total_steps, seed: proportional(sizes, 0.5, seed),
    "annealed": lambda sizes, total_steps, seed: annealed(sizes, max(total_steps, 2), seed=seed),
}
