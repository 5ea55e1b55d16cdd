"""Completion of the `mtl` command in a shell."""

import argparse

import shtab


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script by which a shell completes the parser's commands and flags."""
    return shtab.complete(parser, shell)
