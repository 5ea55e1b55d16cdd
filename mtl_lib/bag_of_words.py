"""What a bag of words reaches without any network: the floor under each task's scores.

Sentiment: multinomial naive Bayes on words and pairs of words. Paraphrase: ridge regression on what
two TF-IDF vectors share and where they differ. Similarity: the cosine of two TF-IDF vectors, with
nothing trained but the words' weights. The first is what a task gives away by its vocabulary; the
other two compare the pair, which one linear layer over [u; v] cannot.
"""

import json
import os
from pathlib import Path

import numpy as np
from scipy.sparse import hstack
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import RidgeClassifier
from sklearn.naive_bayes import MultinomialNB

from mtl_lib.data import Corpus
from mtl_lib.evaluation import metrics
from mtl_lib.paths import RESULTS
from mtl_lib.tasks import BY_NAME, PARAPHRASE, SENTIMENT, SIMILARITY

FLOORS = RESULTS / "floors"

METHODS = {
    SENTIMENT.name: "naive Bayes, words and pairs of words",
    PARAPHRASE.name: "TF-IDF interaction, ridge",
    SIMILARITY.name: "TF-IDF cosine",
}


def floor_logits(task_name: str, train: list, dev: list) -> np.ndarray:
    """Development outputs of the task's bag of words, in the form of a head's logits, `[N, C]`.

    Args:
        train, dev: labelled examples of the corpus.
    """
    labels = np.array([example.label for example in train])
    if task_name == SENTIMENT.name:
        words = CountVectorizer(ngram_range=(1, 2))
        model = MultinomialNB().fit(words.fit_transform([e.text for e in train]), labels)
        logits = np.full((len(dev), SENTIMENT.outputs), -np.inf)
        joint = model.predict_joint_log_proba(words.transform([e.text for e in dev]))
        logits[:, model.classes_.astype(int)] = joint
        return logits.astype(np.float32)
    words = TfidfVectorizer().fit([text for e in train for text in (e.first, e.second)])
    if task_name == SIMILARITY.name:
        first, second = _pairs(words, dev)
        cosine = np.asarray(first.multiply(second).sum(axis=1))  # [N, 1]
        return (SIMILARITY.max_label * cosine).astype(np.float32)
    model = RidgeClassifier(solver="sparse_cg").fit(_interaction(words, train), labels)
    return model.decision_function(_interaction(words, dev))[:, None].astype(np.float32)


def floor_scores(corpus: Corpus) -> dict:
    """Scores of the bag of words and of a constant answer on a corpus's development sets.

    Returns:
        Corpus name and fingerprint, and for each task: method, examples, `metrics` of the method
        and the accuracy of always answering the most frequent label (none for similarity: a
        constant has no correlation). Numbers only, no sentence.
    """
    tasks = {}
    for name, method in METHODS.items():
        splits = corpus.splits[name]
        labels = np.array([example.label for example in splits["dev"]])
        logits = floor_logits(name, splits["train"], splits["dev"])
        tasks[name] = {
            "method": method,
            "train_examples": len(splits["train"]),
            "dev_examples": len(labels),
            "dev": metrics(BY_NAME[name], logits, labels),
        }
        if BY_NAME[name].metric == "accuracy":
            known = np.bincount([int(example.label) for example in splits["train"]])
            tasks[name]["constant"] = float(np.mean(labels == known.argmax()))
    return {
        "corpus": corpus.name,
        "fingerprint": corpus.fingerprint,
        "notes": corpus.notes,
        "tasks": tasks,
    }


def write_floors(corpus: Corpus, directory: str | Path = FLOORS) -> Path:
    """Store `floor_scores` as CORPUS.json and return its path."""
    path = Path(directory) / f"{corpus.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(floor_scores(corpus), indent=1) + "\n")
    os.replace(unfinished, path)
    return path


def read_floors(corpus_name: str, directory: str | Path = FLOORS) -> dict | None:
    """The stored floors of a corpus, or None."""
    path = Path(directory) / f"{corpus_name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _pairs(words: TfidfVectorizer, examples: list) -> tuple:
    """TF-IDF vectors of the first and of the second sentences, sparse."""
    return tuple(
        words.transform([getattr(e, place) for e in examples]) for place in ("first", "second")
    )


def _interaction(words: TfidfVectorizer, examples: list):
    """What two vectors share, word by word, where they differ, and their cosine."""
    first, second = _pairs(words, examples)
    shared = first.multiply(second)
    return hstack([shared, abs(first - second), shared.sum(axis=1)]).tocsr()
