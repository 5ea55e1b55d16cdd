"""What a user chooses of a study: one class, from which the flags of every command follow."""

import argparse
from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields
from typing import Any

from mtl_lib.study.config import ExperimentConfig
from mtl_lib.study.profiles import (
    ALL_PROFILES,
    Profile,
    choose_rows,
    default_corpus,
    parse_seeds,
    profile_settings,
)
from mtl_lib.study.rows import ALL_ROWS


def _choice(default: Any, words: str, unset: str = "the profile's") -> Any:
    """A field with its help and what it means to leave it empty."""
    return field(default=default, metadata={"help": words, "unset": unset})


@dataclass(frozen=True)
class Settings:
    """Which runs of a study, and what differs from their profile; empty or 0 is what it says.

    A field is a flag of the command line (`max_steps`: --max-steps) and, in capitals, a parameter
    of the notebooks.
    """

    profile: str = _choice("quick", "encoder, corpora and protocol", "all")
    data: str = _choice("", "corpus folder, or handbook")
    encoder: str = _choice("", "name or folder of an encoder")
    rows: str = _choice("", "row ids, such as 3.1,3.2", "all")
    seeds: str = _choice("", "random seeds, such as 0,1,2", "0, of the whole study all")
    max_steps: int = _choice(0, "cap on the steps of a run")
    epochs: int = _choice(0, "passes over the shortest training set")
    jobs: int = _choice(0, "runs at a time", "as the cores allow")

    def protocol(self) -> Profile:
        """The profile as it is changed here.

        Raises:
            ConfigError: if there is no such profile.
        """
        return profile_settings(self.profile, self.encoder, self.max_steps, self.epochs)

    def corpus(self) -> str:
        """The corpus named here, else the profile's, as `load_corpus` takes it."""
        return self.data or default_corpus(self.protocol().corpus)

    def configs(self, rows: Iterable[str]) -> list[ExperimentConfig]:
        """The experiments: those of these rows that are chosen here, with each seed.

        Raises:
            ConfigError: if a row, the profile or a seed does not exist.
        """
        protocol = self.protocol()
        return [
            protocol.apply(ALL_ROWS[row], self.profile, seed)
            for row in choose_rows(rows, self.rows)
            for seed in parse_seeds(self.seeds)
        ]


def add_flags(
    parser: argparse.ArgumentParser,
    *names: str,
    profiles: Iterable[str] = ALL_PROFILES,
    **defaults: str,
) -> None:
    """Add the flags of some fields of `Settings`, in this order.

    Args:
        names: the fields.
        profiles: those to choose from.
        defaults: of this command, where they are not those of the class.
    """
    known: dict[str, Field] = {one.name: one for one in fields(Settings)}
    for name in names:
        metadata, default = known[name].metadata, defaults.get(name, known[name].default)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(known[name].default),
            default=default,
            choices=list(dict.fromkeys([default, *profiles])) if name == "profile" else None,
            help=f"{metadata['help']} (default: {default or metadata['unset']})",
        )


def chosen(options: argparse.Namespace) -> Settings:
    """The settings that a command was given by its flags."""
    names = {one.name for one in fields(Settings)}
    return Settings(**{name: value for name, value in vars(options).items() if name in names})
