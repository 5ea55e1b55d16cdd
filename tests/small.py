"""A model, a tokenizer and splits small enough to train in a blink, for the tests."""

import random
from dataclasses import replace

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.data import Corpus, PairExample, SentenceExample, TokenizedSplit, tokenize
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY

WORDS = ["good", "bad", "fine", "dull", "film", "actor", "scene", "the", "a", "is", "was", "not"]


def small_tokenizer() -> Tokenizer:
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


SMALL = BertConfig(
    vocab_size=16,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
)


def small_encoder(seed: int = 0, dropout: float = 0.1, dtype=torch.float32) -> BertModel:
    torch.manual_seed(seed)
    config = replace(SMALL, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return BertModel(config).to(dtype)


def small_model(seed: int = 0, dropout: float = 0.1, dtype=torch.float32) -> MultitaskModel:
    """Encoder and three heads; every dropout has the same rate."""
    encoder = small_encoder(seed, dropout, dtype)
    heads = {t.name: HeadConfig((dropout,)) for t in (SENTIMENT, PARAPHRASE, SIMILARITY)}
    return MultitaskModel(encoder, heads).to(dtype)


def small_corpus(size: int = 24, seed: int = 0) -> Corpus:
    """Random words; the label depends on them, so that training can succeed."""
    rng = random.Random(seed)

    def sentence() -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 9)))

    def sentiment(i: int) -> SentenceExample:
        text = sentence()
        return SentenceExample(f"s{i}", text, min(4, text.count("o")))

    def paraphrase(i: int) -> PairExample:
        first, label = sentence(), rng.randint(0, 1)
        return PairExample(f"p{i}", first, first if label else sentence(), label)

    def similarity(i: int) -> PairExample:
        first, second = sentence(), sentence()
        shared = len(set(first.split()) & set(second.split()))
        return PairExample(f"t{i}", first, second, float(min(5, shared)))

    makers = {"sentiment": sentiment, "paraphrase": paraphrase, "similarity": similarity}
    splits = {
        task: {split: [make(i) for i in range(size)] for split in ("train", "dev")}
        for task, make in makers.items()
    }
    return Corpus("small", splits, {"random-words": str(seed)}, [], [])


def small_splits(size: int = 24, seed: int = 0, split: str = "train") -> dict[str, TokenizedSplit]:
    corpus, tokenizer = small_corpus(size, seed), small_tokenizer()
    return {
        task.name: tokenize(corpus.splits[task.name][split], task, tokenizer, 16)
        for task in (SENTIMENT, PARAPHRASE, SIMILARITY)
    }


def small_data(size: int = 24, seed: int = 0) -> dict[str, dict[str, TokenizedSplit]]:
    """What a trainer trains on and is evaluated on; the development sets have other examples."""
    train, dev = small_splits(size, seed), small_splits(size, seed + 1, "dev")
    return {name: {"train": train[name], "dev": dev[name]} for name in train}
