"""Print what the datasheet, `data/README.md`, says of the embedded corpora.

`python scripts/measure_corpus.py` (under a minute) trains cheap models. With `neural` it trains the
neural rungs of the ladder and measures the gradient cosines instead (about six minutes).
"""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import sparse
from scipy.stats import pearsonr
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from mtl_lib.data import Corpus, Example, PairExample, SentenceExample, TokenizedSplit, tokenize
from mtl_lib.gradients import TaskGradients
from mtl_lib.handbook.grammar import (
    CONFLICT,
    FLIPS,
    SEED,
    SHARES,
    TASK_FILES,
    make_corpus,
    rating,
    word_overlap,
    write_corpus,
)
from mtl_lib.model import MultitaskModel
from mtl_lib.optim import AdamW
from mtl_lib.pretrained import load_encoder
from mtl_lib.study.corpora import also_in_train, load_corpus
from mtl_lib.study.profiles import PROFILES
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.weightings import WEIGHTINGS
from mtl_lib.tasks import BY_NAME
from mtl_lib.trainer import Trainer
from mtl_lib.weighting import cosines

STRENGTHS = (0.003, 0.03, 0.3)  # of logistic regression (C); the best on development counts
SHORTCUT = (0.03,)  # chosen beforehand: the best of several would be luck of about .01
PENALTIES = (10.0, 100.0)  # of ridge, likewise
RATE_FACTORS = (20, 50)  # on the paper's rate 1e-5: below and above the quick profile's 30
CONFLICTS = (0.0, CONFLICT, 1.0)
GRADIENT_ROWS = 1500  # training rows of each task behind a measured gradient
Features = Callable[[list[Example], list[Example]], tuple]  # train, dev -> two matrices


def labels(examples: list[Example]) -> np.ndarray:
    """Class labels `[N]`; scores are rounded half to even."""
    return np.rint([e.label for e in examples]).astype(int)


def majority(train: list[Example], dev: list[Example]) -> float:
    """Share of development labels that equal the commonest training label."""
    return float((labels(dev) == np.bincount(labels(train)).argmax()).mean())


def accuracy(
    train: list[Example], dev: list[Example], features: Features, strengths=STRENGTHS
) -> float:
    """Development accuracy of logistic regression, at the best of the strengths."""
    x, x_dev = features(train, dev)
    models = (LogisticRegression(C=c, max_iter=300).fit(x, labels(train)) for c in strengths)
    return max(float((m.predict(x_dev) == labels(dev)).mean()) for m in models)


def ranking(train: list[Example], dev: list[Example], features: Features) -> float:
    """Area under the development ROC curve of logistic regression, for 0/1 labels."""
    x, x_dev = features(train, dev)
    models = (LogisticRegression(C=c, max_iter=300).fit(x, labels(train)) for c in STRENGTHS)
    return max(float(roc_auc_score(labels(dev), m.decision_function(x_dev))) for m in models)


def correlation(train: list[Example], dev: list[Example], features: Features) -> float:
    """Development Pearson correlation of ridge regression, at the better of two penalties."""
    x, x_dev = features(train, dev)
    y, y_dev = (np.array([e.label for e in part], float) for part in (train, dev))
    models = (Ridge(alpha=a).fit(x, y) for a in PENALTIES)
    return max(float(pearsonr(m.predict(x_dev), y_dev)[0]) for m in models)


# ------------------------------------------------------------------------------ features


def bag_of_words(sides: Sequence[int], ngrams: int = 1) -> Features:
    """Counts of words (or up to `ngrams` words in a row), one block per sentence in `sides`."""

    def features(train, dev):
        blocks, blocks_dev = [], []
        for side in sides:
            vectorizer = CountVectorizer(token_pattern=r"\w+", ngram_range=(1, ngrams))
            blocks.append(vectorizer.fit_transform([e.sentences[side] for e in train]))
            blocks_dev.append(vectorizer.transform([e.sentences[side] for e in dev]))
        return sparse.hstack(blocks), sparse.hstack(blocks_dev)

    return features


def lengths(train, dev):
    """Words per sentence, with squares, product and difference, scaled."""

    def matrix(examples):
        n = np.array([[len(s.split()) for s in e.sentences] for e in examples], float)
        ends = n[:, :1], n[:, -1:]
        return np.hstack([n, n**2, ends[0] * ends[1], abs(ends[0] - ends[1])])

    x, x_dev = matrix(train), matrix(dev)
    scale = x.std(0) + 1e-9
    return x / scale, x_dev / scale


def first_words(train, dev):
    """The first word of each sentence, and the pair of them."""

    def tokens(example):
        first = [s.split()[0].lower() for s in example.sentences]
        return [f"{side}:{word}" for side, word in enumerate(first)] + ["+".join(first)]

    vectorizer = CountVectorizer(analyzer=tokens)
    return vectorizer.fit_transform(train), vectorizer.transform(dev)


def compared_words(train, dev):
    """Counts of words in both sentences, in one, and in the other: words that are compared."""
    vectorizer = CountVectorizer(token_pattern=r"\w+")
    vectorizer.fit([s for e in train for s in e.sentences])

    def matrix(examples):
        u, v = (vectorizer.transform([e.sentences[side] for e in examples]) for side in (0, 1))
        return sparse.hstack([u, v, u.minimum(v), abs(u - v)])

    return matrix(train), matrix(dev)


def overlap(train, dev):
    """Shared words over all words of the two sentences."""
    return tuple(np.array([[word_overlap(*e.sentences)] for e in x]) for x in (train, dev))


def shortcuts(sentences: int) -> dict[str, Features]:
    """What a classifier must not be able to use."""
    found = {"length": lengths, "first word": first_words}
    if sentences == 2:
        found |= {"first sentence": bag_of_words([0]), "second sentence": bag_of_words([1])}
    return found


# ------------------------------------------------------------------------------ ceilings


def ceiling(task: str, rows: int = 200_000) -> float:
    """Best score reachable from the text, by simulating the label noise.

    Returns:
        The accuracy of the likeliest label for each text's meaning; for similarity the Pearson
        correlation of the mean rating that each true score gets with the ratings themselves.
    """
    rng = random.Random(0)
    meanings = rng.choices(range(len(SHARES[task])), SHARES[task], k=rows)
    if task == "similarity":
        ratings = np.array([rating(rng, score) for score in meanings])
        mean = [ratings[np.equal(meanings, s)].mean() for s in range(len(SHARES[task]))]
        return float(pearsonr(np.take(mean, meanings), ratings)[0])
    top = len(SHARES[task]) - 1
    pairs = Counter()  # label drawn first, as in grammar.py; then the meaning of the text
    for label in meanings:
        meaning = label
        if rng.random() < FLIPS[task]:
            meaning = 1 - label if top == 1 else min(top, max(0, label + rng.choice([-1, 1])))
        pairs[meaning, label] += 1
    best = (max(pairs[m, y] for y in range(top + 1)) for m in range(top + 1))
    return sum(best) / rows


# -------------------------------------------------------------------------------- report


def composition(corpus: Corpus, task: str) -> None:
    splits = corpus.splits[task]
    for split in ("train", "dev"):
        counts = np.bincount(labels(splits[split]))
        print(f"  {split}: {len(splits[split])} rows, shares", np.round(counts / sum(counts), 3))
    print(f"  test: {len(splits['test'])} rows, no labels")
    for split in ("train", "dev"):
        tags = Counter(tag for e in splits[split] for tag in e.tags)
        print(f"  tags in {split}:", ", ".join(f"{t} {n}" for t, n in sorted(tags.items())))
    print("  development rows in training:", also_in_train(corpus, task, "dev"))
    print("  test rows in training:", also_in_train(corpus, task, "test"))


def new_rows(task: str, rows: int = 4000) -> list[Example]:
    """Development rows of another seed: enough of them to tell a shortcut from luck."""
    (_, made, _) = make_corpus(seed=SEED + 1, sizes={task: (0, rows, 0)}).values()
    texts = [[row[name] for name in row if name.startswith("sentence")] for row in made]
    column = TASK_FILES[task][1]
    kind = SentenceExample if task == "sentiment" else PairExample
    return [kind(row["id"], *s, row[column]) for row, s in zip(made, texts, strict=True)]


def ladder(corpus: Corpus, task: str) -> None:
    train, dev = corpus.splits[task]["train"], corpus.splits[task]["dev"]
    pair, scored = task != "sentiment", task == "similarity"
    score = correlation if scored else accuracy
    floor = majority(train, dev)
    sides = [0, 1] if pair else [0]
    print(f"  majority (rounded labels) {floor:.3f}" if scored else f"  majority {floor:.3f}")
    print(f"  bag of words {score(train, dev, bag_of_words(sides)):.3f}")
    if pair:
        print(f"  word overlap {score(train, dev, overlap):.3f}")
        print(f"  compared words {score(train, dev, compared_words):.3f}")
    else:
        print(f"  up to three words in a row {score(train, dev, bag_of_words(sides, 3)):.3f}")
    print(f"  ceiling {ceiling(task):.3f}")
    fresh = new_rows(task)
    for name, features in shortcuts(len(sides)).items():
        gains = (accuracy(train, rows, features, SHORTCUT) - majority(train, rows)
                 for rows in (dev, fresh))  # fmt: skip
        print(f"  {name} alone, on majority: {next(gains):+.3f}, new rows {next(gains):+.3f}")
    for side in sides if pair else ():
        measure, unit = (correlation, "Pearson") if scored else (ranking, "area under ROC")
        value = measure(train, dev, bag_of_words([side]))
        print(f"  sentence {side + 1} alone ranks: {unit} {value:.3f}")


# ------------------------------------------------------------------------- neural rungs


def train_row(
    corpus: Corpus, row: str, factor: float
) -> tuple[MultitaskModel, dict[str, TokenizedSplit], dict]:
    """Train a row under the quick profile, at its rate times `factor`.

    Returns:
        The model, the tokenised training splits, and the development metrics of the best epoch.
    """
    config = PROFILES["quick"].apply(ALL_ROWS[row], "quick")
    torch.manual_seed(config.seed)
    encoder, tokenizer = load_encoder(config.encoder)
    length = config.max_length
    train, dev = (
        {t: tokenize(of[s], BY_NAME[t], tokenizer, length) for t, of in corpus.splits.items()}
        for s in ("train", "dev")
    )
    model = MultitaskModel(encoder, dict(config.heads))
    trainer = Trainer(
        model,
        {task: {"train": train[task], "dev": dev[task]} for task in train},
        optimizer=AdamW(model.parameters(), lr=ALL_ROWS[row].lr * factor),
        weighting=WEIGHTINGS[config.weighting](len(config.heads)),
        batch_size=config.batch_size,
        seed=config.seed,
        engine="fast",
    )
    fit = trainer.fit(config.epochs, train_sample=config.train_sample)
    return model, train, fit.best["dev"]


def gradient_cosines(model: MultitaskModel, train: dict[str, TokenizedSplit]) -> list[float]:
    """Cosines of the tasks' gradients over GRADIENT_ROWS rows each, without dropout.

    Returns:
        Those of sentiment and paraphrase, sentiment and similarity, paraphrase and similarity.
    """
    model.eval()
    gradients = TaskGradients(model.shared_parameters())
    for task, split in train.items():
        model.zero_grad()
        for indices in torch.arange(GRADIENT_ROWS).split(100):
            batch = split.batch(indices)
            BY_NAME[task].loss(model(batch), batch.labels, None).backward()
        gradients.collect()
    cosine = cosines(gradients.gram())
    return [cosine[i, j].item() for i, j in ((0, 1), (0, 2), (1, 2))]


def neural(corpus: Corpus) -> None:
    torch.set_num_threads(1)
    for factor in RATE_FACTORS:
        for row in ("3.1", "compare"):
            _, _, best = train_row(corpus, row, factor)
            scores = (f"{t} {m[BY_NAME[t].metric]:.3f}" for t, m in best.items())
            print(f"row {row}, rate x {factor}:", *scores, flush=True)
    for conflict in CONFLICTS:
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(folder, conflict=conflict)
            model, train, _ = train_row(load_corpus(folder), "3.1", RATE_FACTORS[-1])
        values = (f"{value:+.3f}" for value in gradient_cosines(model, train))
        print(f"conflict {conflict}: gradient cosines", *values, flush=True)


def main() -> None:
    corpus = load_corpus("handbook")
    if sys.argv[1:] == ["neural"]:
        neural(corpus)
        return
    print("corpus", corpus.fingerprint)
    texts = [s for t in corpus.splits.values() for e in t["train"] for s in e.sentences]
    vocabulary = CountVectorizer(token_pattern=r"\w+").fit(texts).vocabulary_
    print(f"{len(set(texts))} different training sentences, {len(vocabulary)} different words")
    for task in corpus.splits:
        print(task)
        composition(corpus, task)
        ladder(corpus, task)


if __name__ == "__main__":
    main()
