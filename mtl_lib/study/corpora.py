"""The corpora of the paper: read, check and fetch folders in the layout of the class."""

import hashlib
import http.client
import math
import multiprocessing
import re
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from mtl_lib.data import Corpus, Example, PairExample, SentenceExample
from mtl_lib.errors import CorpusError, explain
from mtl_lib.files import replacing
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
FILES = {  # file name -> task, split and label column
    f"{stem}-{ending}.csv": (task, split, column)
    for stem, (task, column) in STEMS.items()
    for split, ending in SPLITS.items()
}

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
# Phrases of the Stanford Sentiment Treebank, with their sentiment.
PHRASES = "sst-train-phrases.tsv"
PHRASES_SHA256 = "1f91b3f6c21f88c99bdd858ae9fb837e6ec7aa4af7a03b5c0bcd8c772ef65ccf"
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer
DOWNLOAD_LIMIT = 64 * 2**20  # bytes; the largest original file is well below


SHOWN = 3  # rows left out that are named where a corpus is read


def load_corpus(directory: str | Path = "handbook", *, labels: bool = True) -> Corpus:
    """Read every corpus file of a folder, check it row by row, and say on stderr what is left out.

    The layout is that of the CS224N default project: tab-separated files with a header
    (`ids-sst-train.csv`, `quora-dev.csv`, `sts-test-student.csv`, ..), columns found by name. An
    extra column `tags` (separated by semicolons) is kept. How quotes are read stands in
    data/README.md.

    Args:
        directory: a folder, or "handbook" for the embedded corpora.
        labels: False reads every file as a test file is read: for predictions alone.

    Returns:
        The corpus. A malformed row (too few or too many fields, no id, sentence or label, an id
        for the second time or with a line break, a NUL character) is left out and reported in
        `skipped`. A row without label may have an empty sentence: it waits for a prediction.

    Raises:
        CorpusError: if the folder or a column is missing, a file cannot be read, or a label is
            not a number, out of range, or fractional where classes are expected. The message
            names file, line, column, value and remedy.
    """
    corpus = _read_folder(directory, labels)
    # A worker process reads what its parent has read, and need not say it again.
    if corpus.skipped and multiprocessing.parent_process() is None:
        rows = "row" if len(corpus.skipped) == 1 else "rows"
        print(
            f"{directory}: {len(corpus.skipped):,} malformed {rows} skipped; "
            f"`mtl data check {directory}` shows all",
            *corpus.skipped[:SHOWN],
            sep="\n  ",
            file=sys.stderr,
        )
    return corpus


def _read_folder(directory: str | Path, labels: bool = True) -> Corpus:
    folder = DATA / "handbook" if str(directory) == "handbook" else Path(directory).expanduser()
    instead = 'or take the embedded corpora: load_corpus("handbook"), `--data handbook`'
    if not folder.is_dir() and str(directory) == "handbook":
        raise CorpusError(f"{folder}: the embedded corpora are missing; install mtl-handbook again")
    if not folder.is_dir():
        raise CorpusError(
            f"{folder}: no such folder; run `mtl data fetch {directory}` to download the original "
            f"files there, {instead}"
        )
    embedded = folder.resolve() == (DATA / "handbook").resolve()
    name = "handbook" if embedded else folder.resolve().name
    if name == "handbook" and not embedded:  # only the embedded corpora are called so
        name = f"{folder.resolve().parent.name}-handbook"
    splits: dict[str, dict[str, list[Example]]] = {}
    files: dict[str, str] = {}
    skipped: list[str] = []
    altered: list[str] = []
    for file, (task, split, column) in FILES.items():
        path = folder / file
        if not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CorpusError(f"{path}: cannot be read: {explain(error)}") from error
        needed = labels and split != "test"
        examples, messages = _read_file(path, content, task, column if labels else "", needed)
        splits.setdefault(task.name, {})[split] = examples
        files[file] = hashlib.sha256(content).hexdigest()
        skipped += messages
        blob, expected = git_blob_id(content), ORIGINALS[file]
        if blob != expected:
            altered.append(
                f"{file} is not the original file "
                f"({len(examples):,} rows; git blob {blob}, expected {expected})"
            )
    if not files:
        raise CorpusError(
            f"{folder}: none of the corpus files is here ({', '.join(FILES)}); "
            f"run `mtl data fetch {directory}`, {instead}"
        )
    if embedded:
        altered = []  # the embedded corpora only borrow the file names
    elif len(altered) == len(files):
        altered = ["no file of this folder is an original file of the CS224N project"]
    return Corpus(name, splits, files, skipped, notes=altered, folder=folder.resolve())


def phrases(corpus: Corpus) -> list[SentenceExample]:
    """The treebank's own labels of phrases in the training sentences, none of which is a sentence
    of any split: more than the class gives, and so named wherever it is used.

    Read from `PHRASES` in the corpus's folder, or in a folder `extra` beside it: a header, then
    phrase, tab and label.

    Raises:
        CorpusError: if the file is missing or another one.
    """
    home = corpus.folder or Path()
    found = [path for path in (home / PHRASES, home.parent / "extra" / PHRASES) if path.is_file()]
    if not corpus.folder or not found:
        raise CorpusError(
            f"{corpus.folder or corpus.name}: no {PHRASES}, which this row learns from; put it "
            "there, or into a folder `extra` beside it"
        )
    content = found[0].read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != PHRASES_SHA256:
        raise CorpusError(f"{found[0]}: SHA-256 {digest}, expected {PHRASES_SHA256}")
    _, *rows = (line.rsplit("\t", 1) for line in content.decode("utf-8").splitlines())
    return [
        SentenceExample(f"phrase-{number}", text, int(label))
        for number, (text, label) in enumerate(rows)
    ]


def training_sentences(corpus: Corpus) -> list[str]:
    """Every sentence of every training split, in file order: what a vocabulary may be built on."""
    return [
        sentence
        for splits in corpus.splits.values()
        for example in splits.get("train", [])
        for sentence in example.sentences
    ]


def _read_file(
    path: Path, content: bytes, task: Task, column: str, needed: bool
) -> tuple[list[Example], list[str]]:
    """The examples of one file, and a message for each row left out.

    Args:
        column: the label's; "" leaves labels alone, even where they are there.
        needed: whether every row must have a label and words in its sentences.
    """
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{path}:{line}: byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error
    (_, header), *rows = _rows(text)
    texts = ["sentence"] if task.sentences == 1 else ["sentence1", "sentence2"]
    labelled = needed or column in filter(None, header)
    names = ["id", *texts, column] if labelled else ["id", *texts]
    for name in names:
        if header.count(name) > 1:
            raise CorpusError(
                f"{path}:1: column {name!r} is there {header.count(name)} times; keep one"
            )
        if name not in header:
            found = ", ".join(filter(None, header))[:80]
            hint = "is this a test file?" if name == column else "is this another kind of file?"
            if "\r" in found:
                hint = "end its lines with line feeds, not with carriage returns alone."
            raise CorpusError(
                f"{path}:1: column {name!r} is missing (found: {found!r}); {hint} The first line "
                f"must name {', '.join(names)}, separated by tabs"
            )
    filled = names if needed else [name for name in names if name not in texts]
    kind: Callable[..., Example] = SentenceExample if task.sentences == 1 else PairExample
    examples: list[Example] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for number, fields in rows:
        if not any(fields):
            continue
        row = dict(zip(header, fields, strict=False))
        missing = [name for name in filled if not row.get(name)]
        if len(fields) != len(header):
            fault = f"{len(fields)} fields in place of {len(header)}"
        elif missing:
            fault = f"{missing[0]} is missing"
        elif any("\0" in field for field in fields):
            fault = "a NUL character is in it"
        elif len(row["id"].splitlines()) > 1:
            fault = "a line break is in the id"
        elif row["id"] in seen:
            fault = f"id {row['id']} is there for the second time"
        else:
            seen.add(row["id"])
            label = None
            if labelled:
                label = _read_label(row[column], task, f"{path}:{number}", column)
            tags = tuple(filter(None, row.get("tags", "").split(";")))
            examples.append(kind(row["id"], *(row[name] for name in texts), label, tags))
            continue
        skipped.append(f"{path.name}:{number}: {fault}; row skipped")
    if not examples:
        raise CorpusError(f"{path}: no usable row ({len(skipped)} malformed); fetch the file again")
    return examples, skipped


# A field in quotes, those within it doubled, or one that begins with no quote; and what ends it.
_FIELD = re.compile(r'(?:"([^"]*+(?:""[^"]*+)*+)"|((?:[^"\t\n][^\t\n]*)?))([\t\n])')


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row's first line, counted from 1, and its fields, without white space around them.

    Quotes are text unless a `csv` writer set them: somewhere in the file quotes must enclose a
    column's name, or a field that could not stand without them (it holds a quote, a tab or a line
    break). Even then a row whose quotes enclose no fields keeps them.
    """
    text += "\n"
    width = text[: text.index("\n")].count("\t") + 1
    rows, written_by_csv, start, number = [], False, 0, 1
    while start < len(text):
        # Not splitlines(): sentences hold characters that Unicode counts as line ends.
        end = text.index("\n", start) + 1
        plain = text[start : end - 1].split("\t")
        fields = plain
        if '"' in text[start:end] and (enclosed := _enclosed(text, start, width)):
            fields, end, needed = enclosed
            written_by_csv |= needed or number == 1
        rows.append((number, plain, fields))
        number += text.count("\n", start, end)
        start = end
    for number, plain, fields in rows:
        yield number, [field.strip() for field in (fields if written_by_csv else plain)]


def _enclosed(text: str, start: int, width: int) -> tuple[list[str], int, bool] | None:
    """The row at `start` by the rules of `csv`: its fields, its end, and whether a field needs its
    quotes; None where no field has quotes or the row does not come out with `width` fields.

    A field that runs over lines must not hold tabs as well: two stray quotes would make one row of
    all that is between them.
    """
    fields, quoted, end = [], [], start
    while len(fields) < width and (match := _FIELD.match(text, end)):
        inside, bare, stop = match.groups()
        if inside is not None:
            quoted.append(inside.replace('""', '"'))
        fields.append(bare if inside is None else quoted[-1])
        end = match.end()
        if stop == "\n":
            break
    else:
        return None
    stray = any("\n" in field and "\t" in field for field in quoted)
    if not quoted or stray or len(fields) != width:
        return None
    return fields, end, any(set(field) & set('"\t\n') for field in quoted)


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
    corpus = _read_folder(directory)
    report = [f"{corpus.name} (fingerprint {corpus.fingerprint})"]
    for name, (task, split, _) in FILES.items():
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
        if split != "train" and (shared := also_in_train(corpus, task.name, split)):
            report.append(f"  {'':<28} {shared:>7,} of them stand in the training file as well")
    report += [f"skipped: {message}" for message in corpus.skipped]
    report += [f"note: {note}" for note in corpus.notes]
    if corpus.name != "handbook" and not corpus.notes:
        report.append("every file here is an original file of the CS224N project")
    return "\n".join(report)


def also_in_train(corpus: Corpus, task_name: str, split: str) -> int:
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
        print(f"fetching {ORIGINAL_URL}{name}", flush=True)
        content = _download(ORIGINAL_URL + name)
        blob = git_blob_id(content)
        if blob != ORIGINALS[name]:
            raise CorpusError(
                f"{ORIGINAL_URL}{name}: git blob {blob}, expected {ORIGINALS[name]}; nothing was "
                "written; try again, or get the file from the class's starter repository"
            )
        with replacing(folder / name) as unfinished:
            unfinished.write_bytes(content)


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response:
            if not response.geturl().startswith("https://"):
                raise CorpusError(f"{url}: redirected to {response.geturl()}, which is not https")
            content = response.read(DOWNLOAD_LIMIT + 1)
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(
            f"{url}: {error}; check the connection and run the command again (finished files are "
            'kept), or take the embedded corpora: load_corpus("handbook"), `--data handbook`'
        ) from error
    if len(content) > DOWNLOAD_LIMIT:
        raise CorpusError(f"{url}: larger than {DOWNLOAD_LIMIT:,} bytes; not the expected file")
    return content
