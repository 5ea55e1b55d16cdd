"""Read, validate, tokenise once, batch: from a corpus folder to tensors.

Shapes: N examples in a split, B examples in a batch, n sentences per example (1 or 2),
L tokens of the longest sentence in the batch.
"""

import csv
import hashlib
import http.client
import math
import os
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mtl_lib.errors import CorpusError, explain
from mtl_lib.paths import DATA
from mtl_lib.tasks import CFIMDB, PARAPHRASE, SENTIMENT, SIMILARITY, Task

# The layout of the class's starter repository: file stem -> task and its label column.
STEMS = {
    "ids-sst": (SENTIMENT, "sentiment"),
    "quora": (PARAPHRASE, "is_duplicate"),
    "sts": (SIMILARITY, "similarity"),
    "ids-cfimdb": (CFIMDB, "sentiment"),
}
SPLITS = {"train": "train", "dev": "dev", "test": "test-student"}  # split -> end of the stem

# The original files: https://github.com/gpoesia/minbert-default-final-project at this commit,
# each with the id under which git stores it (`git hash-object FILE`).
ORIGINAL_URL = (
    "https://raw.githubusercontent.com/gpoesia/minbert-default-final-project/"
    "7ac8260577fc12a86c7aaf38918056c30054ef39/data/"
)
ORIGINALS = {
    "ids-sst-train.csv": "9cb7333cb1dae49c2bd2a4b56a24882a6e8704b5",
    "ids-sst-dev.csv": "3171aa629a340809d2db4a50df8f6e5ec9420ab0",
    "ids-sst-test-student.csv": "bbd2313758825f86e24416d6aad64cd93370cf7a",
    "quora-train.csv": "a3b5546f6a0e65b60a328a5d294d1038f5bed1da",
    "quora-dev.csv": "de7cfa32428fd470b93f778fccc45a619e01336f",
    "quora-test-student.csv": "f257ef00558555afb50819578a58205732b16354",
    "sts-train.csv": "12b17760e7795fee35aeeabc290d5651de02622a",
    "sts-dev.csv": "9392860e584717976b8d817cc40c9e6ceeec27e0",
    "sts-test-student.csv": "25f0cf8fafdd1f82b9e2bb460c708af34341ce60",
    "ids-cfimdb-train.csv": "cd57bcbd2f7214ea6dd1783d3e885d324b1f478d",
    "ids-cfimdb-dev.csv": "8a0f5dcf3d40189b96c801a12cd79bf8003e61de",
    "ids-cfimdb-test-student.csv": "1e789c709b3ca0511f027a309b6d8bd21cde41b2",
}
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer
DOWNLOAD_LIMIT = 64 * 2**20  # bytes; the largest original file is well below
TOKENIZE_CHUNK = 4096  # sentences in the tokenizer at once, to bound its memory


@dataclass(frozen=True, slots=True)
class SentenceExample:
    """One sentence with a class index, or with None where the file has no labels."""

    id: str
    text: str
    label: int | None
    tags: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str]:
        return (self.text,)


@dataclass(frozen=True, slots=True)
class PairExample:
    """Two sentences with a 0/1 label (paraphrase), a score 0-5 (similarity), or None."""

    id: str
    first: str
    second: str
    label: int | float | None
    tags: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, str]:
        return (self.first, self.second)


Example = SentenceExample | PairExample


@dataclass(frozen=True)
class Corpus:
    """The examples of one folder.

    Attributes:
        name: "handbook", or the folder's name.
        splits: `splits[task name]["train" | "dev" | "test"]`, examples in file order; a file
            that the folder does not hold is a key that is not there.
        files: file name -> SHA-256 of its bytes.
        skipped: one message for each malformed row, with file and line.
        notes: what a reader of any result must know, such as a file that is not the original.
    """

    name: str
    splits: dict[str, dict[str, list[Example]]]
    files: dict[str, str]
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any byte of any file."""
        listing = "".join(f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(listing.encode()).hexdigest()[:12]


def load_corpus(directory: str | Path = "handbook") -> Corpus:
    """Read every corpus file of a folder and check it row by row.

    The layout is that of the CS224N default project: tab-separated files with a header
    (`ids-sst-train.csv`, `quora-dev.csv`, `sts-test-student.csv`, ..), columns found by name,
    fields quoted as the `csv` module does, one row a line. An extra column `tags` (separated by
    semicolons) is kept.

    Args:
        directory: a folder, or "handbook" for the embedded corpora.

    Returns:
        The corpus. A malformed row (too few or too many fields, no id, sentence or label, an id
        for the second time, a NUL character) is left out and reported in `skipped`.

    Raises:
        CorpusError: if the folder or a column is missing, a file cannot be read, or a label is
            not a number, out of range, or fractional where classes are expected. The message
            names file, line, column, value and remedy.
    """
    folder = DATA / "handbook" if str(directory) == "handbook" else Path(directory).expanduser()
    if not folder.is_dir():
        raise CorpusError(
            f"{folder}: no such folder; run `mtl data fetch {directory}` to download the original "
            "files there, or use DATA=handbook for the embedded corpora"
        )
    embedded = folder.resolve() == (DATA / "handbook").resolve()
    name = "handbook" if embedded else folder.resolve().name
    if name == "handbook" and not embedded:  # only the embedded corpora are called so
        name = f"{folder.resolve().parent.name}-handbook"
    splits: dict[str, dict[str, list[Example]]] = {}
    files: dict[str, str] = {}
    skipped: list[str] = []
    altered: list[str] = []
    for stem, (task, column) in STEMS.items():
        for split, ending in SPLITS.items():
            path = folder / f"{stem}-{ending}.csv"
            if not path.is_file():
                continue
            try:
                content = path.read_bytes()
            except OSError as error:
                raise CorpusError(f"{path}: cannot be read: {explain(error)}") from error
            examples, messages = _read_file(path, content, task, column, labelled=split != "test")
            splits.setdefault(task.name, {})[split] = examples
            files[path.name] = hashlib.sha256(content).hexdigest()
            skipped += messages
            blob, expected = git_blob_id(content), ORIGINALS[path.name]
            if blob != expected:
                altered.append(
                    f"{path.name} is not the original file "
                    f"({len(examples):,} rows; git blob {blob}, expected {expected})"
                )
    if not files:
        raise CorpusError(
            f"{folder}: none of the corpus files is here ({', '.join(ORIGINALS)}); "
            f"run `mtl data fetch {directory}`, or use DATA=handbook for the embedded corpora"
        )
    if embedded:
        altered = []  # the embedded corpora only borrow the file names
    elif len(altered) == len(files):
        altered = ["no file of this folder is an original file of the CS224N project"]
    return Corpus(name, splits, files, skipped, altered)


def training_sentences(corpus: Corpus) -> list[str]:
    """Every sentence of every training split, in file order: what a vocabulary may be built on."""
    return [
        sentence
        for splits in corpus.splits.values()
        for example in splits.get("train", [])
        for sentence in example.sentences
    ]


def _read_file(
    path: Path, content: bytes, task: Task, column: str, labelled: bool
) -> tuple[list[Example], list[str]]:
    """The examples of one file, and a message for each row left out."""
    try:
        # Not splitlines(): sentences hold characters that Unicode counts as line ends.
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{path}:{line}: byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error
    header = _fields(lines[0])
    texts = ["sentence"] if task.sentences == 1 else ["sentence1", "sentence2"]
    needed = ["id", *texts]
    if labelled or column in header:
        needed.append(column)
    for name in needed:
        if header.count(name) > 1:
            raise CorpusError(
                f"{path}:1: column {name!r} is there {header.count(name)} times; keep one"
            )
        if name not in header:
            hint = "is this a test file?" if name == column else "is this another kind of file?"
            raise CorpusError(
                f"{path}:1: column {name!r} is missing (found: {', '.join(filter(None, header))}); "
                f"{hint} The first line must name {', '.join(needed)}, separated by tabs"
            )
    kind = SentenceExample if task.sentences == 1 else PairExample
    examples: list[Example] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = _fields(line)
        row = dict(zip(header, fields, strict=False))
        missing = [name for name in needed if not row.get(name)]
        if len(fields) != len(header):
            fault = f"{len(fields)} fields in place of {len(header)}"
        elif missing:
            fault = f"{missing[0]} is missing"
        elif "\0" in line:
            fault = "a NUL character is in it"
        elif row["id"] in seen:
            fault = f"id {row['id']} is there for the second time"
        else:
            seen.add(row["id"])
            label = None
            if column in row:
                label = _read_label(row[column], task, f"{path}:{number}", column)
            tags = tuple(filter(None, row.get("tags", "").split(";")))
            examples.append(kind(row["id"], *(row[name] for name in texts), label, tags))
            continue
        skipped.append(f"{path.name}:{number}: {fault}; row skipped")
    if not examples:
        raise CorpusError(f"{path}: no usable row ({len(skipped)} malformed); fetch the file again")
    return examples, skipped


def _fields(line: str) -> list[str]:
    """The fields of one line, none where `csv` cannot read it.

    One line at a time, so that a stray quote spoils one row and not the rest of the file.
    """
    try:
        return [text.strip() for text in next(csv.reader([line], delimiter="\t"), [])]
    except csv.Error:
        return []


def _read_label(text: str, task: Task, place: str, column: str) -> int | float:
    """A label as a number: float for scores, whole otherwise ("1.0" is a class, 1.5 is not)."""
    remedy = f"correct it to a number from 0 to {task.max_label}, or remove the row"
    # float() alone would also take "0_1" and the digits of other scripts.
    plain = re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?|[-+]?inf", text)
    try:
        value = float(text) if plain else math.nan
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise CorpusError(f"{place}: column {column!r}: {text!r} is not a number; {remedy}")
    if not 0 <= value <= task.max_label:
        raise CorpusError(f"{place}: column {column!r}: {text!r} is out of range; {remedy}")
    if task.kind == "score":
        return value
    if value != int(value):
        raise CorpusError(
            f"{place}: column {column!r}: {text!r} is not a whole number, but {task.name} has "
            f"classes 0 to {task.max_label}; {remedy}"
        )
    return int(value)


def git_blob_id(content: bytes) -> str:
    """The id under which git stores these bytes, as `git hash-object` prints it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def check_corpus(directory: str | Path) -> str:
    """Say in plain lines what a folder holds: rows, label shares, malformed rows, file origins.

    Raises:
        CorpusError: as `load_corpus`.
    """
    corpus = load_corpus(directory)
    report = [f"{corpus.name} (fingerprint {corpus.fingerprint})"]
    for stem, (task, _) in STEMS.items():
        for split, ending in SPLITS.items():
            name = f"{stem}-{ending}.csv"
            if name not in corpus.files:
                report.append(f"  {name:<28} missing")
                continue
            examples = corpus.splits[task.name][split]
            # round() goes half to even, as the per-class tables do.
            counts = Counter(round(e.label) for e in examples if e.label is not None)
            shares = "  ".join(
                f"{label}: {count / len(examples):.1%}" for label, count in sorted(counts.items())
            )
            bad = sum(message.startswith(f"{name}:") for message in corpus.skipped)
            report.append(
                f"  {name:<28} {len(examples):>7,} rows  {bad} skipped  {shares or 'no labels'}"
            )
            if split != "train" and (shared := _also_in_train(corpus, task.name, split)):
                report.append(f"  {'':<28} {shared:>7,} of them stand in the training file as well")
    report += [f"skipped: {message}" for message in corpus.skipped]
    report += [f"note: {note}" for note in corpus.notes]
    if corpus.name != "handbook" and not corpus.notes:
        report.append("every file here is an original file of the CS224N project")
    return "\n".join(report)


def _also_in_train(corpus: Corpus, task_name: str, split: str) -> int:
    """Examples of a split whose sentences, in either order, are those of a training example."""
    splits = corpus.splits[task_name]
    train = {frozenset(example.sentences) for example in splits.get("train", [])}
    return sum(frozenset(example.sentences) in train for example in splits[split])


def fetch_corpus(directory: str | Path) -> None:
    """Download the original corpus files of the CS224N project and verify each of them.

    SST and the STS Benchmark are for research with citation (STS Benchmark scores CC BY-SA 4.0);
    the Quora pairs are under Quora's terms, non-commercial. Files already there and original are
    kept; a download that stops half-way leaves only whole, verified files.

    Raises:
        CorpusError: if a file of the same name is there and is not the original (it is never
            overwritten), or a download fails or does not have the expected git blob id.
    """
    folder = Path(directory).expanduser()
    wanted = []
    for name, blob in ORIGINALS.items():
        path = folder / name
        if not path.exists():
            wanted.append(name)
        elif git_blob_id(path.read_bytes()) != blob:
            raise CorpusError(
                f"{path}: exists and is not the original file; move it away or name another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        content = _download(ORIGINAL_URL + name)
        blob = git_blob_id(content)
        if blob != ORIGINALS[name]:
            raise CorpusError(
                f"{ORIGINAL_URL}{name}: git blob {blob}, expected {ORIGINALS[name]}; nothing was "
                "written; try again, or get the file from the class's starter repository"
            )
        temporary = folder / f".{name}.part"
        temporary.write_bytes(content)
        os.replace(temporary, folder / name)


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response:
            if not response.geturl().startswith("https://"):
                raise CorpusError(f"{url}: redirected to {response.geturl()}, which is not https")
            content = response.read(DOWNLOAD_LIMIT + 1)
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(
            f"{url}: {error}; check the connection and run the command again (finished files are "
            "kept), or use DATA=handbook for the embedded corpora"
        ) from error
    if len(content) > DOWNLOAD_LIMIT:
        raise CorpusError(f"{url}: larger than {DOWNLOAD_LIMIT:,} bytes; not the expected file")
    return content


@dataclass
class Batch:
    """Examples of one task, padded to the longest sentence among them.

    Both sentences of a pair go through the encoder together: rows 0..B-1 are the first
    sentences, rows B..2B-1 the second.

    Attributes:
        input_ids: token ids, 0 where padded, int64 `[n*B, L]`.
        attention_mask: 1 on tokens, 0 on padding, int64 `[n*B, L]`.
        labels: `[B]`, or None for a split without labels.
    """

    task: Task
    ids: list[str]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`."""
        labels = None if self.labels is None else self.labels.to(device)
        return Batch(
            self.task,
            self.ids,
            self.input_ids.to(device),
            self.attention_mask.to(device),
            labels,
        )


@dataclass
class TokenizedSplit:
    """One split of one task, tokenised once.

    Attributes:
        ids: the examples' ids, N of them, in file order.
        labels: int64 `[N]` for classes, float32 `[N]` otherwise; None without labels.
        sentences: `task.sentences` lists of N int64 tensors `[length]`, [CLS] to [SEP].
        lengths: tokens of each example's longest sentence, int64 `[N]`.
    """

    task: Task
    ids: list[str]
    labels: Tensor | None
    sentences: list[list[Tensor]]
    lengths: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lengths = [[len(tokens) for tokens in column] for column in self.sentences]
        self.lengths = torch.tensor(lengths).amax(dim=0)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Sequence[int] | Tensor) -> Batch:
        """The examples at `indices`, in that order, padded together."""
        indices = torch.as_tensor(indices).tolist()
        rows = [column[i] for column in self.sentences for i in indices]
        input_ids = pad_sequence(rows, batch_first=True)
        # From the lengths, not from input_ids != 0: a text may spell out "[PAD]".
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(input_ids.shape[1]) < lengths[:, None]
        labels = None if self.labels is None else self.labels[indices]
        return Batch(self.task, [self.ids[i] for i in indices], input_ids, mask.long(), labels)

    def take(self, indices: Sequence[int] | Tensor) -> "TokenizedSplit":
        """A smaller split with the examples at `indices`, in that order."""
        indices = torch.as_tensor(indices).tolist()
        labels = None if self.labels is None else self.labels[indices]
        sentences = [[column[i] for i in indices] for column in self.sentences]
        return TokenizedSplit(self.task, [self.ids[i] for i in indices], labels, sentences)


def tokenize(
    examples: Sequence[Example], task: Task, tokenizer: Tokenizer, max_length: int
) -> TokenizedSplit:
    """Turn the sentences of a split into token ids, each sentence on its own.

    Args:
        examples: at least one example of `task`, all with labels or all without.
        tokenizer: a WordPiece tokenizer with [CLS] and [SEP] and [PAD] at 0; padding and
            truncation set on it have no effect here and are left as they are.
        max_length: tokens to keep of a sentence, [CLS] and [SEP] included; the end is cut off.

    Raises:
        ValueError: if there are no examples, labels are partly missing, or `max_length` < 3.
    """
    if not examples or max_length < 3:
        raise ValueError(f"{len(examples)} examples, max_length {max_length}: need 1 and 3 or more")
    values = [example.label for example in examples]
    if None in values:
        if any(value is not None for value in values):
            raise ValueError(f"{task.name}: some examples have labels and some have none")
        labels = None
    else:
        dtype = torch.int64 if task.kind == "classes" else torch.float32
        labels = torch.tensor(values, dtype=dtype)
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    sentences = [
        _encode([example.sentences[i] for example in examples], plain, max_length)
        for i in range(task.sentences)
    ]
    return TokenizedSplit(task, [example.id for example in examples], labels, sentences)


def _encode(texts: list[str], tokenizer: Tokenizer, max_length: int) -> list[Tensor]:
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    encoded = []
    for start in range(0, len(texts), TOKENIZE_CHUNK):
        chunk = texts[start : start + TOKENIZE_CHUNK]
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
            encoded.append(torch.tensor([first, *encoding.ids[: max_length - 2], last]))
    return encoded


class BatchStream(Iterator[Batch]):
    """Endless shuffled batches of exactly `batch_size` examples.

    Each pass over the split is a new permutation, drawn from a generator of the stream's own; a
    batch may begin in one pass and end in the next, so no example is ever left out. Equal seeds
    give equal batches, and `state_dict` continues a stream exactly where it stood.
    """

    def __init__(self, split: TokenizedSplit, batch_size: int, seed: int):
        self.split = split
        self.batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._next_pass()

    def _next_pass(self) -> None:
        self._before = self._generator.get_state()  # enough to draw this permutation again
        self._order = torch.randperm(len(self.split), generator=self._generator)
        self._position = 0

    def __next__(self) -> Batch:
        parts, missing = [], self.batch_size
        while missing:
            if self._position == len(self._order):
                self._next_pass()
            part = self._order[self._position : self._position + missing]
            self._position += len(part)
            missing -= len(part)
            parts.append(part)
        return self.split.batch(torch.cat(parts))

    def state_dict(self) -> dict:
        """Where the stream stands: the generator before this pass, and the place in it."""
        return {"generator": self._before, "position": self._position, "size": len(self.split)}

    def load_state_dict(self, state: dict) -> None:
        """Stand where `state_dict` was taken.

        Raises:
            ValueError: if the state belongs to a split of another size.
        """
        if state["size"] != len(self.split):
            raise ValueError(f"state of {state['size']} examples, split of {len(self.split)}")
        self._generator.set_state(state["generator"])
        self._next_pass()
        self._position = state["position"]


def sorted_batches(split: TokenizedSplit, batch_size: int) -> Iterator[tuple[Tensor, Batch]]:
    """Every example once, in batches of like length, for evaluation.

    Longest first, so that a batch too large for the memory fails at once. Write each result to
    the place that `indices` names, and the file's order comes back:
    `logits[indices] = model(batch)`.

    Yields:
        `(indices [B], batch)`; the last batch may be smaller than `batch_size`.
    """
    order = torch.argsort(split.lengths, descending=True, stable=True)
    for indices in order.split(batch_size):
        yield indices, split.batch(indices)
