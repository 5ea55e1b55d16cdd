"""Examples, tokenised once and batched: from sentences to tensors.

Shapes: N examples in a split, B examples in a batch, n sentences per example (1 or 2),
L tokens of the longest sentence in the batch.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mtl_lib.errors import CorpusError
from mtl_lib.tasks import BY_NAME, Task

_NAMED = ("id", "label", "tags")  # columns of a corpus made in memory that are no sentences
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
    """Labelled examples of several tasks, by task and split.

    Attributes:
        name: "handbook", a folder's name, or what its maker calls it.
        splits: `splits[task name]["train" | "dev" | "test"]`, examples in their order; a split
            that the corpus does not hold is a key that is not there.
        files: file name -> SHA-256 of its bytes, where it was read from files.
        skipped: one message for each malformed row, with file and line.
        notes: what a reader of any result must know, such as a file that is not the original.
        tasks: the task of each name; those of `tasks.BY_NAME` need not be given.
        folder: where its files are, if it was read from files.

    Raises:
        CorpusError: if the task of a name is not known.
    """

    name: str
    splits: dict[str, dict[str, list[Example]]]
    files: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    folder: Path | None = None

    def __post_init__(self) -> None:
        known = BY_NAME | self.tasks
        if unknown := [name for name in self.splits if name not in known]:
            raise CorpusError(f"{self.name}: no task is called {unknown[0]!r}; give it in `tasks`")
        object.__setattr__(self, "tasks", {name: known[name] for name in self.splits})

    @classmethod
    def from_examples(
        cls, examples: Mapping[Task, Mapping[str, Iterable[Any]]], name: str = "memory"
    ) -> "Corpus":
        """A corpus made in memory: `{task: {"train": rows, "dev": rows}}`.

        Args:
            examples: for each task its splits. A split is a DataFrame or an iterable of rows: a
                mapping with `label`, perhaps `id` and `tags`, and the sentences under any other
                names, in their order; or a tuple `(sentence, label)`, `(first, second, label)`; or
                a `SentenceExample` or `PairExample`. Without labels `label` is None; a mapping may
                leave it out.
            name: what results call it.

        Raises:
            CorpusError: naming task, split and row, if it has not the task's number of sentences,
                its label is none of the task's, or its id is there twice; if a split is empty.
        """
        splits = {
            task.name: {split: _examples(task, split, rows) for split, rows in of_task.items()}
            for task, of_task in examples.items()
        }
        if len(splits) < len(examples):
            raise CorpusError(f"two tasks have one name: {[task.name for task in examples]}")
        return cls(name, splits, tasks={task.name: task for task in examples})

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any byte of any file, or, of a corpus made in
        memory, with any example."""
        listing = "".join(f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        if not self.files:
            own = [(t.loss.function, t.metric, t.prediction) for t in self.tasks.values()]
            names = [[getattr(f, "__qualname__", None) for f in of_task] for of_task in own]
            tasks = [task.as_dict() for task in self.tasks.values()]
            listing = repr((tasks, names, self.splits))
        return hashlib.sha256(listing.encode()).hexdigest()[:12]

    def tokenized(self, tokenizer: Tokenizer, max_length: int | None = None) -> "TokenizedCorpus":
        """All splits, tokenised once (`tokenize`): what a trainer trains on."""
        tokenizer = _cutting(tokenizer, max_length)  # as a saved model will keep it
        tokenized = TokenizedCorpus({}, tokenizer)
        for name, of_task in self.splits.items():
            task = self.tasks[name]
            tokenized[name] = {s: tokenize(rows, task, tokenizer) for s, rows in of_task.items()}
        return tokenized


def _examples(task: Task, split: str, rows: Any) -> list[Example]:
    """The examples of one split of a corpus made in memory, each row checked."""
    if hasattr(rows, "iterrows"):  # a DataFrame
        rows = rows.to_dict("records")
    kind: Any = SentenceExample if task.sentences == 1 else PairExample
    found: dict[str, Example] = {}
    columns: list[Any] = []  # of the first dictionary: the order of the sentences
    for number, row in enumerate(rows):
        place = f"{task.name}, {split}, row {number}"
        if isinstance(row, SentenceExample | PairExample):
            named = {"id": row.id, "label": row.label, "tags": row.tags}
            row, order = named | dict(enumerate(row.sentences)), list(range(task.sentences))
        elif isinstance(row, tuple | list) and row:
            order = list(range(len(row) - 1))
            row = dict(zip((*order, "label"), row, strict=True))
        elif isinstance(row, Mapping):
            order = columns = columns or [key for key in row if key not in _NAMED]
            row = dict(row)
        else:
            raise CorpusError(f"{place}: {row!r} is no row; give a tuple or a dictionary")
        key, label = row.pop("id", None), row.pop("label", None)
        key = f"{split}-{number}" if key is None else str(key)
        label = label.tolist() if hasattr(label, "tolist") else label  # of NumPy or torch
        tags, texts = row.pop("tags", ()), [row[column] for column in order if column in row]
        tags = (tags,) if isinstance(tags, str) else tuple(tags)
        whole = len(texts) == len(row) == task.sentences
        if not whole or not all(isinstance(text, str) for text in texts):
            wanted = f"{task.sentences} text{'s' * (task.sentences - 1)}"
            raise CorpusError(f"{place}: {wanted} expected beside `label` and `id`, found {row}")
        if label is not None:
            label = _checked_label(task, label, place)
        if key in found:
            raise CorpusError(f"{place}: id {key!r} is there for the second time")
        found[key] = kind(key, *texts, label, tags)
    if not found:
        raise CorpusError(f"{task.name}, {split}: no rows; leave the split out")
    if len({example.label is None for example in found.values()}) > 1:
        raise CorpusError(f"{task.name}, {split}: some rows have labels and some have none")
    return list(found.values())


def _checked_label(task: Task, label: Any, place: str) -> Any:
    """A label that the task's loss can take; one of an own loss is as it is."""
    if task.kind == "own":
        return label
    low, high = (-math.inf, math.inf) if task.max_label is None else (0, task.max_label)
    fine = isinstance(label, int | float) and math.isfinite(label) and low <= label <= high
    if not fine or (task.kind != "score" and label != int(label)):
        takes = f"{task.name} takes {low} to {high}, or no `label` at all"
        raise CorpusError(f"{place}: label {label!r}; {takes}")
    return float(label) if task.kind == "score" else int(label)


class TokenizedCorpus(dict[str, dict[str, "TokenizedSplit"]]):
    """Tokenised splits by task and split, and the tokenizer that made them."""

    def __init__(self, splits: dict[str, dict[str, "TokenizedSplit"]], tokenizer: Tokenizer):
        super().__init__(splits)
        self.tokenizer = tokenizer


@dataclass
class Batch:
    """Examples of one task, padded to the longest sentence among them.

    Both sentences of a pair go through the encoder together: rows 0..B-1 are the first
    sentences, rows B..2B-1 the second.

    Attributes:
        input_ids: token ids, 0 where padded, int64 `[n*B, L]`.
        attention_mask: 1 on tokens, 0 on padding, int64 `[n*B, L]`.
        labels: `[B]`, of an own loss `[B, ..]`, or None for a split without labels.
        token_type_ids: segment of each token, 0 or 1, int64 `[n*B, L]`; None: all 0.
        has_cls: whether each sentence begins with a special token, [CLS].
        rows: of a part of a larger batch, which of its rows these are, `[n*B]`, and its shape.
    """

    task: Task
    ids: list[str]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor | None
    token_type_ids: Tensor | None = None
    has_cls: bool = True
    rows: tuple[Tensor, torch.Size] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`."""
        moved: Any = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def together(self, apart: bool = False) -> "Batch":
        """Each pair as one sequence, `[CLS] first [SEP] second [SEP]`, told apart by its segments
        (Devlin et al., 2019, section 3.1): rows `[B, L]`; with `apart`, the first and the second
        sentences stand below as well, `[3B, L]`."""
        lengths = self.attention_mask.sum(dim=1).tolist()
        rows = [row[:length] for row, length in zip(self.input_ids, lengths, strict=True)]
        first, second = rows[: len(self)], rows[len(self) :]
        second = [row[int(self.has_cls) :] for row in second]  # a pair has one [CLS]
        pairs = [torch.cat(pair) for pair in zip(first, second, strict=True)]
        segments = [torch.zeros_like(pair) for pair in pairs]
        for segment, row in zip(segments, first, strict=True):
            segment[len(row) :] = 1
        below = rows if apart else []
        input_ids, mask = _padded(pairs + below)
        types = pad_sequence(segments + [torch.zeros_like(row) for row in below], True)
        return Batch(self.task, self.ids, input_ids, mask, self.labels, types, self.has_cls)


@dataclass
class TokenizedSplit:
    """One split of one task, tokenised once.

    Attributes:
        ids: the examples' ids, N of them, in file order.
        labels: int64 `[N]` for classes, else float32; of an own loss either, `[N, ..]`; or None.
        sentences: `task.sentences` lists of N int64 tensors `[length]`, [CLS] to [SEP].
        has_cls: whether each of them begins with a special token, [CLS].
        lengths: tokens of each example's longest sentence, int64 `[N]`.
    """

    task: Task
    ids: list[str]
    labels: Tensor | None
    sentences: list[list[Tensor]]
    has_cls: bool = True
    lengths: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lengths = [[len(tokens) for tokens in column] for column in self.sentences]
        self.lengths = torch.tensor(lengths).amax(dim=0)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Sequence[int] | Tensor) -> Batch:
        """The examples at `indices`, in that order, padded together; see `take`."""
        part = self.take(indices)
        rows = [row for column in part.sentences for row in column]
        return Batch(self.task, part.ids, *_padded(rows), part.labels, has_cls=self.has_cls)

    def take(self, indices: Sequence[int] | Tensor) -> "TokenizedSplit":
        """A smaller split with the examples at `indices`, in that order; of N booleans, those where
        they are true.

        Raises:
            ValueError: if there are other than N booleans.
        """
        places = torch.as_tensor(indices)
        if places.dtype == torch.bool:
            if places.shape != (len(self),):
                raise ValueError(f"a mask {[*places.shape]} for a split of {len(self)} examples")
            places = places.nonzero().flatten()
        chosen = places.tolist()
        labels = None if self.labels is None else self.labels[chosen]
        sentences = [[column[i] for i in chosen] for column in self.sentences]
        ids = [self.ids[i] for i in chosen]
        return TokenizedSplit(self.task, ids, labels, sentences, self.has_cls)

    def sample(self, size: int | None) -> "TokenizedSplit":
        """A fixed sample of this many examples, the same every time; the split itself if None."""
        if size is None or size >= len(self):
            return self
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        return self.take(order[:size])


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, `[S, L]`, of S sentences."""
    input_ids = pad_sequence(list(rows), batch_first=True)
    # From the lengths, not from input_ids != 0: a text may spell out "[PAD]".
    lengths = torch.tensor([len(row) for row in rows], device=input_ids.device)
    mask = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths[:, None]
    return input_ids, mask.long()


def tokenize(
    examples: Sequence[Example], task: Task, tokenizer: Tokenizer, max_length: int | None = None
) -> TokenizedSplit:
    """Turn the sentences of a split into token ids, each sentence on its own.

    Args:
        examples: at least one example of `task`, all with labels or all without.
        tokenizer: of the `tokenizers` package, with special tokens of its own ([CLS] and [SEP]);
            or one of transformers' fast ones, which wrap such a one. Its settings stay as they are.
        max_length: tokens to keep of a sentence, special ones included; the end is cut off. By
            default what the tokenizer is set to truncate to: what its encoder knows.

    Raises:
        ValueError: if there are no examples, labels are partly missing, or `max_length` < 3.
    """
    if not examples:
        raise ValueError(f"{task.name}: 0 examples to tokenise")
    plain = _cutting(tokenizer, max_length)
    texts = [[example.sentences[i] for example in examples] for i in range(task.sentences)]
    sentences = [_encode(column, plain) for column in texts]
    ids, labels = [example.id for example in examples], _labels(examples, task)
    return TokenizedSplit(task, ids, labels, sentences, _has_cls(texts[0], plain))


def _cutting(tokenizer: Tokenizer, max_length: int | None) -> Tokenizer:
    """A copy without padding that cuts at `max_length`, or else where the tokenizer does."""
    plain = Tokenizer.from_str(getattr(tokenizer, "backend_tokenizer", tokenizer).to_str())
    if max_length is None and plain.truncation:
        max_length = plain.truncation["max_length"]
    plain.no_padding()
    if max_length is not None:
        if max_length < 3:
            raise ValueError(f"max_length {max_length}: a sentence needs 3 tokens or more")
        plain.enable_truncation(max_length)
    return plain


def _encode(texts: list[str], tokenizer: Tokenizer) -> list[Tensor]:
    chunks = (texts[i : i + TOKENIZE_CHUNK] for i in range(0, len(texts), TOKENIZE_CHUNK))
    found = (e.ids for chunk in chunks for e in tokenizer.encode_batch_fast(chunk))
    return [torch.tensor(ids, dtype=torch.long) for ids in found]


def _has_cls(texts: list[str], tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer begins a text with a special token: seen at the first with a word."""
    masks = (tokenizer.encode(text).special_tokens_mask for text in texts)
    return next((mask[0] == 1 for mask in masks if 0 in mask), True)


def _labels(examples: Sequence[Example], task: Task) -> Tensor | None:
    """Labels in the type that the loss takes: int64 for classes, float32 for others; those of an
    own loss whole or not as they are."""
    values = [example.label for example in examples]
    if None in values:
        if any(value is not None for value in values):
            raise ValueError(f"{task.name}: some examples have labels and some have none")
        return None
    if task.kind == "own":
        labels = torch.tensor(values)
        return labels.float() if labels.is_floating_point() else labels.long()
    return torch.tensor(values, dtype=torch.int64 if task.kind == "classes" else torch.float32)


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

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: the generator before this pass, and the place in it."""
        return {"generator": self._before, "position": self._position, "size": len(self.split)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
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
