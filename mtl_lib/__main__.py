"""The `mtl` command, also as `python -m mtl_lib`.

What `mtl predict` is asked in words is answered here, within two seconds; every other command, its
help and its errors are in `mtl_lib.cli`, whose import of torch alone takes longer.
"""

import argparse
import io
import os
import sys

from mtl_lib.errors import HandbookError, explain


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status. Expected faults are one line on stderr."""
    options = _question(sys.argv[1:] if arguments is None else arguments)
    if options is None:
        from mtl_lib.cli import main as command

        return command(arguments)
    from mtl_lib.shipped.answers import answer

    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack letters of a text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        answer(options)
        return 0
    except HandbookError as error:
        fault = " ".join(str(error).splitlines())
    except OSError as error:
        fault = f"{error.filename or 'output'}: {explain(error)}"
    except KeyboardInterrupt:
        print("mtl: stopped", file=sys.stderr)
        return 130
    print("mtl:", fault, file=sys.stderr)
    return 1


def _question(given: list[str]) -> argparse.Namespace | None:
    """The options of a `mtl predict --text` or `--pairs`; None of any other command."""
    if given[:1] != ["predict"] or not any(
        word.startswith(("--text", "--pairs")) for word in given
    ):
        return None
    # On a busy machine threads wait for each other longer than products this small take.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from mtl_lib.shipped.answers import add_questions

    parser = argparse.ArgumentParser(prog="mtl predict", add_help=False, allow_abbrev=False)
    parser.add_argument("model", nargs="?")
    add_questions(parser)
    parser.add_argument("--out", metavar="FILE")
    options, others = parser.parse_known_args(given[1:])
    return None if others or not (options.text or options.pairs) else options


if __name__ == "__main__":  # a worker process imports this module under another name
    sys.exit(main())
