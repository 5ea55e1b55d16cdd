"""Examples by id: the sentences behind a stored prediction, read from the reader's own corpus."""

import sys
from collections.abc import Iterable
from pathlib import Path

from mtl_lib.data import Corpus, Example
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.profiles import default_corpus


def show_examples(ids: str | Iterable[str], corpus: Corpus | str | Path = "") -> None:
    """Print examples in the order of their ids: task, split, true label, tags and sentences.

    Plain text, with control characters spelled out, never HTML. Runs are stored without sentences,
    so this is how a reader sees what a model got wrong. The sentences of the real corpora are not
    ours to copy: call it live, and keep its output out of notebooks that you pass on.

    Args:
        ids: one id or several.
        corpus: a loaded corpus, a folder, or "handbook"; by default the real corpora
            where `mtl data fetch` has put them, else the embedded ones.

    Raises:
        CorpusError: if the folder holds no corpus.
    """
    if not isinstance(corpus, Corpus):
        corpus = load_corpus(corpus or default_corpus("cs224n"))
    wanted = [ids] if isinstance(ids, str) else list(ids)
    found = _by_id(corpus, set(wanted))
    for key in wanted:
        for task, split, example in found.get(key, []):
            label = "unknown" if example.label is None else example.label
            label = f"{label:g}" if isinstance(label, int | float) else _plain(str(label))
            tags = f"; {', '.join(map(_plain, example.tags))}" if example.tags else ""
            print(f"{_plain(key)}  {task}, {split}; true label {label}{tags}")
            for sentence in example.sentences:
                print(f"    {_plain(sentence)}")
        if key not in found:
            print(f"{_plain(key)}  not in corpus {corpus.name!r}")


def _by_id(corpus: Corpus, wanted: set[str]) -> dict[str, list[tuple[str, str, Example]]]:
    """Task, split and example of each id; an id may stand in several files."""
    found: dict[str, list[tuple[str, str, Example]]] = {}
    for task, splits in corpus.splits.items():
        for split, examples in splits.items():
            for example in examples:
                if example.id in wanted:
                    found.setdefault(example.id, []).append((task, split, example))
    return found


def _plain(text: str) -> str:
    """The text with whatever is not printable spelled out, so that it cannot act on a terminal, and
    whatever the terminal's encoding lacks."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
