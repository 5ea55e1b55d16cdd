"""What the shipped model is asked: texts, pairs, and files of pairs."""

import argparse
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from tokenizers import Tokenizer

from mtl_lib.errors import ConfigError, CorpusError, EncoderError
from mtl_lib.files import write_text
from mtl_lib.paths import DATA
from mtl_lib.shipped.numpy_bert import NumpyModel, Reading

FINAL = DATA / "models" / "final"
SENTIMENTS = ("very negative", "negative", "neutral", "positive", "very positive")
# Names of the columns of a pair.
HEADERS = (("first", "second"), ("sentence1", "sentence2"), ("question1", "question2"))
CHUNK = 512  # texts or pairs at once, which bounds the memory


class Shipped:
    """A model and its tokenizer, to be asked in words; made by `load`."""

    def __init__(self, model: NumpyModel, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer

    def sentiment(self, texts: Iterable[str]) -> list[tuple[str, ndarray]]:
        """For each text the likeliest of `SENTIMENTS` and the probabilities `[5]` of all.

        Raises:
            ConfigError: if a text is empty, or the model has no such head.
            EncoderError: if the encoder knows too few positions for a text.
        """
        if isinstance(texts, str):
            raise ConfigError("sentiment takes a list of texts, not one text")
        self._require(sentiment=len(SENTIMENTS))
        answers = []
        for chunk in chunks(texts):
            logits = self.model.logits({"sentiment": [(ids,) for ids in self._ids(chunk)]})
            for row in logits["sentiment"]:
                exponentials = np.exp(row - row.max())
                answers.append((SENTIMENTS[row.argmax()], exponentials / exponentials.sum()))
        return answers

    def compare(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[float, float]]:
        """For each pair the probability that one says what the other says, and how similar the two
        are, from 0 to 5.

        An encoder that reads a pair as one sequence need not say the same of (a, b) and (b, a), but
        both questions have the same answer: each pair is read in both orders, and what the heads
        give, before the sigmoid and the cut to 0..5, is averaged.

        Raises:
            ConfigError, EncoderError: as `sentiment`.
        """
        self._require(paraphrase=1, similarity=1)
        answers: list[tuple[float, float]] = []
        for chunk in chunks(pairs):
            first, second = (self._ids(column) for column in zip(*chunk, strict=True))
            both = list(zip(first + second, second + first, strict=True))  # each in both orders
            logits = self.model.logits({"paraphrase": both, "similarity": both})
            means = {task: x.reshape(2, -1).mean(axis=0) for task, x in logits.items()}
            probabilities = np.exp(-np.logaddexp(0, -means["paraphrase"]))  # the sigmoid
            scores = means["similarity"].clip(0, 5)
            answers += zip(probabilities.tolist(), scores.tolist(), strict=True)
        return answers

    def attention(self, text: str | tuple[str, str]) -> tuple[list[str], ndarray]:
        """Tokens, L of them, of a text, or of a pair read as one sequence, and the attention of
        every layer and head, queries by keys: `[layers, heads, L, L]`.

        Raises:
            ConfigError, EncoderError: as `sentiment`.
        """
        first, *second = self._ids([text] if isinstance(text, str) else text)
        ids = (*first, *(token for one in second for token in one[1:]))  # one [CLS]
        tokens = [str(self.tokenizer.id_to_token(token)) for token in ids]
        return tokens, self.model.attention(Reading(ids, len(first)))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
            raise ConfigError("a text is not UTF-8; write it anew in a terminal set to UTF-8")
        if not all(text.strip() for text in texts):
            raise ConfigError("a text is empty: there is nothing to say of it; give it words")
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]

    def _require(self, **outputs: int) -> None:
        for task, wanted in outputs.items():
            if task not in self.model.heads:
                has = ", ".join(self.model.heads)
                raise ConfigError(
                    f"this model has no head for {task} (it has: {has}); take another"
                )
            last = len(self.model.heads[task]["dropout"]) - 1
            found = len(self.model.weights[f"heads.{task}.linears.{last}.bias"])
            if found != wanted:
                raise ConfigError(f"this model's {task} has {found} outputs, not {wanted}")


def load(folder: str | Path = FINAL) -> Shipped:
    """The model of a folder that `save_quantized` or `mtl train` wrote; by default the shipped one.

    Texts are cut where the tokenizer was saved to cut, else at what the encoder knows.

    Raises:
        EncoderError: if a file is missing or damaged, or the files do not fit each other.
    """
    path = Path(folder) / "tokenizer.json"
    model = NumpyModel(folder)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers package raises nothing narrower
        raise EncoderError(
            f"{path}: no tokenizer ({error}); save the model with its own"
        ) from error
    if tokenizer.get_vocab_size() > model.vocabulary:
        raise EncoderError(
            f"{path}: {tokenizer.get_vocab_size():,} tokens, but the encoder knows "
            f"{model.vocabulary:,}; save the model with its own"
        )
    tokenizer.no_padding()
    if not tokenizer.truncation:
        tokenizer.enable_truncation(model.positions)
    return Shipped(model, tokenizer)


def chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """Cut rows into lists of `CHUNK`; the last may be shorter."""
    rows = list(rows)
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def read_pairs(path: str | Path) -> list[tuple[str, str]]:
    """The pairs of a file in UTF-8, one a line, separated by tabs if its first line holds one, else
    by commas.

    If the first line names two columns `first` and `second`, `sentence1` and `sentence2` or
    `question1` and `question2`, it is a header, and they are the pair; else it is a pair like the
    others. Empty lines are passed over.

    Raises:
        CorpusError: if the file is not UTF-8, a row has not as many columns as the first, a text is
            empty, or there is no pair at all; with file and line.
        OSError: if it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")  # spreadsheets begin with a mark of the byte order
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error
    separator = "\t" if "\t" in text.partition("\n")[0] else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    pairs, columns, width = [], (0, 1), 0
    try:
        for row in filter(None, rows):
            place = f"{path}, line {rows.line_num}"
            if not width:
                width, names = len(row), [name.strip().lower() for name in row]
                if width < 2:
                    raise CorpusError(f"{place}: one column; separate two texts by a comma or tab")
                if header := [pair for pair in HEADERS if {*pair} <= {*names}]:
                    columns = (names.index(header[0][0]), names.index(header[0][1]))
                    continue
                if width > 2:
                    raise CorpusError(
                        f"{place}: {width} columns, and no header that names two of them "
                        f"{' and '.join(HEADERS[0])}; add one, or keep the two texts only"
                    )
            if len(row) != width:
                raise CorpusError(
                    f"{place}: {len(row)} columns, but the first line has {width}; put a text that "
                    "holds a comma, tab or line break in double quotes"
                )
            pair = (row[columns[0]], row[columns[1]])
            if not all(sentence.strip() for sentence in pair):
                raise CorpusError(f"{place}: a text is empty; fill it in, or remove the line")
            pairs.append(pair)
    except csv.Error as error:
        remedy = "shorten it" if "limit" in str(error) else "double the quotes in a quoted text"
        raise CorpusError(f"{path}, line {rows.line_num}: {error}; {remedy}") from error
    if not pairs:
        raise CorpusError(f"{path}: no pairs in it; give two columns of texts, one pair a line")
    return pairs


def add_questions(parser: argparse.ArgumentParser) -> None:
    """The options of `mtl predict` that ask in words."""
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--text", action="append", metavar="TEXT", help="its sentiment; may be given several times"
    )
    asked.add_argument(
        "--pairs", metavar="FILE", help="CSV of two columns: is it a paraphrase, how similar is it"
    )


def answer(options: argparse.Namespace) -> None:
    """Print what was asked by `--text`; write what was asked by `--pairs`, as CSV.

    Raises:
        HandbookError: as `load`, `read_pairs` and the methods of `Shipped`.
    """
    model = load(options.model or FINAL)
    if options.text:
        if options.out:
            raise ConfigError(f"--out {options.out}: --text is printed; leave --out out")
        for text, (label, probabilities) in zip(
            options.text, model.sentiment(options.text), strict=True
        ):
            shares = zip(SENTIMENTS, probabilities, strict=True)
            print(f"{label}: {text}")
            print("   ", ", ".join(f"{name} {share:.2f}" for name, share in shares))
        return
    if options.out and Path(options.out).is_dir():
        raise ConfigError(f"--out {options.out}: a folder; give the file that the answers go to")
    pairs = read_pairs(options.pairs)
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["first", "second", "paraphrase", "similarity"])
    for pair, (paraphrase, similarity) in zip(pairs, model.compare(pairs), strict=True):
        writer.writerow([*pair, f"{paraphrase:.4f}", f"{similarity:.4f}"])
    if options.out:
        write_text(options.out, table.getvalue())
    else:
        print(table.getvalue(), end="")
