"""The tiny encoder of the handbook: a vocabulary for a small corpus."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import normalizers, pre_tokenizers

from mtl_lib.bert import BertConfig
from mtl_lib.errors import EncoderError
from mtl_lib.pretrained import SPECIAL_TOKENS, TINY, wordpiece_tokenizer, write_tokenizer
from mtl_lib.pretrained.config import write_config


def build_vocabulary(sentences: Iterable[str], size: int) -> list[str]:
    """A small vocabulary for a small corpus: special tokens, characters, then whole words.

    Every character of the corpus is an entry, both at the start of a word and inside one, so that
    no word over the same letters becomes [UNK]. Words follow by frequency, ties in the order of
    the alphabet: equal corpora give equal vocabularies.

    Raises:
        EncoderError: if `size` leaves no room for a single word.
    """
    words: Counter[str] = Counter()
    normalizer = normalizers.BertNormalizer()
    splitter = pre_tokenizers.BertPreTokenizer()
    for sentence in sentences:
        pieces = splitter.pre_tokenize_str(normalizer.normalize_str(sentence))
        words.update(word for word, _ in pieces)
    characters = sorted({character for word in words for character in word})
    inside = sorted({character for word in words for character in word[1:]})
    entries = [*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in inside)]
    if len(entries) >= size:
        raise EncoderError(f"size {size}: {len(entries)} entries are taken before the first word")
    ranked = sorted((word for word in words if len(word) > 1), key=lambda w: (-words[w], w))
    return [*entries, *ranked[: size - len(entries)]]


def build_tiny(sentences: Iterable[str], directory: str | Path = TINY, size: int = 2000) -> None:
    """Write the configuration and the tokenizer of the `tiny` encoder from training sentences."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = wordpiece_tokenizer(build_vocabulary(sentences, size))
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
        # Large enough, at this width, for [CLS] to see the other tokens from the first step on.
        initializer_range=0.05,
    )
    write_config(config, folder / "config.json")
    write_tokenizer(tokenizer, folder / "tokenizer.json")
