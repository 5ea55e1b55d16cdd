"""Read, validate, tokenise once, batch: from a corpus folder to tensors.

Shapes: N examples in a split, B examples in a batch, n sentences per example (1 or 2),
L tokens of the longest sentence in the batch.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mtl_lib.tasks import Task

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
