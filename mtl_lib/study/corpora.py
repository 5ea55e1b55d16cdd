"""The corpora of the paper: read, check and fetch folders in the layout of the class."""

import csv
import hashlib
import http.client
import math
import os
import re
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from mtl_lib.data import Corpus, Example, PairExample, SentenceExample
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
