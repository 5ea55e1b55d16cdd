"""Profiles: how much of the paper's protocol is run, on what, and what is changed in it."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mtl_lib.errors import ConfigError
from mtl_lib.paths import FETCHED
from mtl_lib.pretrained import ENCODERS, at_hand
from mtl_lib.study.config import ExperimentConfig
from mtl_lib.study.rows import (
    ALL_ROWS,
    ALONE,
    BENCH,
    FINISHED,
    FORENSIC,
    LADDER,
    ROWS,
    ROWS_OF_QUICK,
    SINGLE_TASK,
    WITHOUT,
)


@dataclass(frozen=True)
class Profile:
    """How much of the paper's protocol is run, on what, and what is changed in it.

    Attributes:
        encoder: name of an encoder.
        corpus: "handbook", or "cs224n" for the real corpora in data/cs224n where present.
        epochs, max_steps, max_length, train_sample, dev_sample, bfloat16: see `ExperimentConfig`.
        lr_factor: multiplies every row's rate: shorter training needs larger steps.
        instrument: other fields of `ExperimentConfig` that the profile sets; a row's `without`
            names one that stays at its default.
        threads: CPU threads of one run; fixed, since it decides the last bits.
        seconds: measured time of a run on busy cores, for the estimate before a study.
        rows: what its study consists of.
    """

    encoder: str
    corpus: str
    epochs: int
    lr_factor: float = 1.0
    max_steps: int | None = None
    max_length: int = 512
    train_sample: int | None = None
    dev_sample: int | None = None
    bfloat16: bool = False
    instrument: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 2
    seconds: float = 0.0
    rows: tuple[str, ...] = tuple(ALL_ROWS)

    def apply(self, config: ExperimentConfig, name: str, seed: int = 0) -> ExperimentConfig:
        """The row under this profile."""
        kept = {key: value for key, value in self.instrument.items() if key != config.without}
        if kept.get("schedule") is None:
            kept.pop("warmup", None)  # a part of the schedule
        return replace(
            config,
            **kept,
            profile=name,
            seed=seed,
            encoder=self.encoder,
            lr=config.lr * self.lr_factor,
            lr_factor=self.lr_factor,
            epochs=self.epochs,
            max_steps=self.max_steps,
            max_length=self.max_length,
            train_sample=self.train_sample,
            dev_sample=self.dev_sample,
            bfloat16=self.bfloat16,
        )


# On the real corpora; the paper's ten epochs take an hour of a quiet core, more of a shared one.
_REAL = Profile(
    "bert-base-uncased", "cs224n", epochs=10, train_sample=1000, dev_sample=4000, bfloat16=True,
    threads=1,
)  # fmt: skip
# Mean pooling, heads with a rate of their own, and what lets training come to an end.
_INSTRUMENT = {
    "sentence_vector": "mean", "head_lr": 1e-3, "label_mean_bias": True,
    "schedule": "linear", "warmup": 0.1, "clip": 1.0,
}  # fmt: skip
_FINALE = {"sentence_vector": "cls+mean", "head_lr": 1e-3, "label_mean_bias": True, "clip": 1.0}
PROFILES = {
    "quick": Profile(
        "tiny-pretrained", "handbook", epochs=2, lr_factor=30, max_length=64, train_sample=800,
        threads=1, seconds=32, rows=tuple(ROWS_OF_QUICK),
    ),
    # The protocol as printed: rates, batch size, epochs, pooler, no schedule.
    "paper": replace(_REAL, seconds=4500, rows=tuple(ROWS | SINGLE_TASK | FORENSIC)),
    # The same rows where training is not the bottleneck. The rate's mean over the schedule is 1e-5.
    "converged": replace(
        _REAL, epochs=4, lr_factor=2, seconds=2300, instrument=_INSTRUMENT,
        rows=(
            "3.1", "3.2", "3.6", "3.7", "3.8", "3.9", "3.10", *ALONE, "compare", "compare-surgery",
            *WITHOUT,
        ),
    ),
}  # fmt: skip
# Chapters 12 and 13: rows of their own.
FURTHER = {
    # All weightings on the embedded corpora, and some of them in one epoch of `converged`.
    "bench": Profile(
        "tiny-pretrained", "handbook", epochs=1, lr_factor=60, max_length=64, train_sample=50,
        instrument=_INSTRUMENT, threads=1, seconds=40, rows=tuple(BENCH),
    ),
    "bench-real": replace(
        _REAL, epochs=1, lr_factor=2, seconds=500, instrument=_INSTRUMENT, rows=tuple(BENCH)
    ),
    # From words to a model worth having: each rung at the same budget, the last one to its end.
    "ladder": replace(
        _REAL, epochs=1, max_length=128, dev_sample=None, seconds=1200,
        instrument=_FINALE | {"steps": 2000}, rows=tuple(LADDER),
    ),
    "final": replace(
        _REAL, epochs=1, max_length=128, dev_sample=None, seconds=7000,
        instrument=_FINALE | {"steps": 12000}, rows=tuple(FINISHED),
    ),
}  # fmt: skip
ALL_PROFILES = PROFILES | FURTHER


def profile_settings(name: str, encoder: str = "", max_steps: int = 0, epochs: int = 0) -> Profile:
    """A profile that trains, with another encoder, epochs or cap on the steps where given.

    A pretrained encoder of the profile's that was never fetched gives way to `minilm-l6`.

    Raises:
        ConfigError: if there is no such profile.
    """
    if name not in ALL_PROFILES:
        raise ConfigError(f"profile {name!r}: choose from {', '.join(['stored', *ALL_PROFILES])}")
    if encoder and encoder not in ENCODERS:  # one folder, one name in the runs' keys
        encoder = str(Path(encoder).expanduser().resolve())
    if (
        not encoder
        and ALL_PROFILES[name].encoder == "bert-base-uncased"
        and not at_hand("bert-base-uncased")
    ):
        encoder = "minilm-l6"
    profile = ALL_PROFILES[name]
    return replace(
        profile,
        encoder=encoder or profile.encoder,
        max_steps=max_steps or profile.max_steps,
        epochs=epochs or profile.epochs,
    )


def choose_rows(rows: Iterable[str], only: str = "") -> list[str]:
    """Row ids that exist, in their order; `only` keeps some, comma-separated.

    Raises:
        ConfigError: naming the ids that do not exist.
    """
    rows = list(rows)
    wanted = [row.strip() for row in only.split(",") if row.strip()]
    if unknown := [row for row in [*rows, *wanted] if row not in ALL_ROWS]:
        known = [row for row in ALL_ROWS if not row.startswith("bench-")]  # chapter 13's: dozens
        raise ConfigError(f"unknown row {', '.join(unknown)}: choose from {', '.join(known)}")
    return [row for row in rows if row in wanted] if wanted else rows


def parse_seeds(seeds: str) -> list[int]:
    """ "0,1,2" to [0, 1, 2]; empty is [0].

    Raises:
        ConfigError: if one is no whole number.
    """
    try:
        return list(dict.fromkeys(map(int, seeds.split(",")))) if seeds else [0]
    except ValueError:
        raise ConfigError(f"seeds {seeds!r}: give whole numbers, such as 0,1,2") from None


def default_corpus(name: str) -> str:
    """The profile's corpus: the real one in data/cs224n where present, else the embedded one."""
    return str(FETCHED) if name == "cs224n" and FETCHED.is_dir() else "handbook"


def jobs_at_a_time(jobs: int, threads: int = 1) -> int:
    """How many runs train at a time: `jobs`, or as many as the cores allow if it is 0.

    Args:
        threads: CPU threads of each run.

    Raises:
        ConfigError: if `jobs` is below 0.
    """
    if jobs < 0:
        raise ConfigError(f"jobs = {jobs}: give how many runs at a time, 0 for as the cores allow")
    return jobs or max(1, (os.cpu_count() or 1) // threads)
