"""What a bag of words reaches without any network: the floors under each task's scores.

A floor for each kind of head. Additive words see what one linear layer over [u; v] can see: either
sentence's words, and nothing that depends on both. Comparing words see what the two sentences share
and where they differ, as heads that compare can. A single sentence has one floor for both kinds.
Below them lies the constant answer. A row whose score lies below the floor of its heads has not
learned what counting words gives away. Beside them, a floor with a network: an encoder that nothing
here has trained.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.naive_bayes import MultinomialNB

from mtl_lib.data import Corpus, tokenize
from mtl_lib.evaluation import metrics, predict
from mtl_lib.files import write_text
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.paths import RESULTS
from mtl_lib.pretrained import load_encoder
from mtl_lib.study.by_label import constant_loss, per_class_report
from mtl_lib.tasks import BY_NAME, PARAPHRASE, SENTIMENT, SIMILARITY

FLOORS = RESULTS / "floors"
KINDS = ("additive", "comparing")

_BAYES = "naive Bayes, words and pairs of words"
METHODS = {
    SENTIMENT.name: {"additive": _BAYES, "comparing": _BAYES},
    PARAPHRASE.name: {
        "additive": "TF-IDF of either sentence, ridge",
        "comparing": "TF-IDF interaction, ridge",
    },
    SIMILARITY.name: {
        "additive": "TF-IDF of either sentence, ridge",
        "comparing": "TF-IDF cosine",
    },
}


def floor_logits(task_name: str, train: list, dev: list, kind: str = "comparing") -> np.ndarray:
    """Development outputs of the task's bag of words, in the form of a head's logits, `[N, C]`.

    Args:
        train, dev: labelled examples of the corpus.
        kind: one of `KINDS`.
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
    if task_name == SIMILARITY.name and kind == "comparing":
        first, second = _pairs(words, dev)
        cosine = np.asarray(first.multiply(second).sum(axis=1))  # [N, 1]
        return (SIMILARITY.max_label * cosine).astype(np.float32)
    features, alpha = (_interaction, 1.0) if kind == "comparing" else (_either, 10.0)
    seen, asked = features(words, train), features(words, dev)
    if task_name == SIMILARITY.name:
        predicted = Ridge(alpha, solver="sparse_cg").fit(seen, labels).predict(asked)
    else:
        ridge = RidgeClassifier(alpha, solver="sparse_cg").fit(seen, labels)
        predicted = ridge.decision_function(asked)
    return predicted[:, None].astype(np.float32)


def floor_scores(corpus: Corpus) -> dict:
    """Scores of the bags of words and of a constant answer on a corpus's development sets.

    Returns:
        Corpus name and fingerprint, and for each task: the training loss of the best constant
        answer (`constant_loss`), the accuracy of always answering the most frequent label (none
        for similarity: a constant has no correlation), and for each kind of head the method, its
        `metrics` and its accuracy by true label. Numbers only, no sentence.
    """
    tasks = {}
    for name, methods in METHODS.items():
        task, splits = BY_NAME[name], corpus.splits[name]
        known, labels = (
            np.array([example.label for example in splits[split]]) for split in ("train", "dev")
        )
        tasks[name] = {
            "train_examples": len(known),
            "dev_examples": len(labels),
            "constant_loss": constant_loss(task, known),
        }
        if task.metric == "accuracy":
            answer = np.bincount(known.astype(int)).argmax()
            tasks[name]["constant"] = float(np.mean(labels == answer))
        for kind, method in methods.items():
            logits = floor_logits(name, splits["train"], splits["dev"], kind)
            tasks[name][kind] = {
                "method": method,
                "dev": metrics(task, logits, labels),
                "by_label": per_class_report(task, logits, labels)["accuracy"].round(6).tolist(),
            }
    return {
        "corpus": corpus.name,
        "fingerprint": corpus.fingerprint,
        "notes": corpus.notes,
        "tasks": tasks,
    }


def untouched_scores(corpus: Corpus, encoder: str) -> dict[str, float]:
    """Headline metrics, for the tasks of pairs, of an encoder that nothing here has trained: the
    cosine of the means of either sentence's tokens. For paraphrase it needs a threshold: the one
    that does best on 4,000 training pairs.

    Returns:
        Accuracy of paraphrase and Pearson's r of similarity on the development sets, by task name.
    """
    bert, tokenizer = load_encoder(encoder)
    head = HeadConfig((0.0,), features="cosine")
    model = MultitaskModel(bert, {SIMILARITY: head}, sentence_vector="mean")
    cosines, labels = {}, {}
    for task, split in ((SIMILARITY, "dev"), (PARAPHRASE, "train"), (PARAPHRASE, "dev")):
        # Questions too are read for the one head there is.
        pairs = tokenize(corpus.splits[task.name][split], SIMILARITY, tokenizer)
        pairs = pairs.sample(4000 if split == "train" else None)
        cosines[task, split] = predict(model, pairs)[:, 0]
        labels[task, split] = pairs.labels.numpy()
    seen, right = cosines[PARAPHRASE, "train"], labels[PARAPHRASE, "train"]
    threshold = max(np.unique(seen), key=lambda least: np.mean((seen >= least) == right))
    same = cosines[PARAPHRASE, "dev"] >= threshold
    return {
        PARAPHRASE.name: float(np.mean(same == labels[PARAPHRASE, "dev"])),
        SIMILARITY.name: float(
            np.corrcoef(cosines[SIMILARITY, "dev"], labels[SIMILARITY, "dev"])[0, 1]
        ),
    }


def write_floors(corpus: Corpus, directory: str | Path = FLOORS, encoder: str = "") -> Path:
    """Store `floor_scores` as CORPUS.json and return its path; with an encoder's name also its
    `untouched_scores`, as "untouched NAME"."""
    path, floors = Path(directory) / f"{corpus.name}.json", floor_scores(corpus)
    for task_name, score in (untouched_scores(corpus, encoder) if encoder else {}).items():
        floors["tasks"][task_name][f"untouched {encoder}"] = score
    write_text(path, json.dumps(floors, indent=1) + "\n")
    return path


def read_floors(
    corpus_name: str, fingerprint: str = "", directory: str | Path = FLOORS
) -> dict | None:
    """The stored floors of a corpus, or None; those of other files than the fingerprint's are
    none."""
    path = Path(directory) / f"{corpus_name}.json"
    if not path.exists():
        return None
    floors = json.loads(path.read_text(encoding="utf-8"))
    return floors if fingerprint in ("", floors["fingerprint"]) else None


def floor_kind(head: dict) -> str:
    """The kind of floor of a head, from its configuration as a run has it: what it can see.

    One linear layer over [u; v] adds; with a hidden layer between, a head can compare.
    """
    adds = head.get("features", "concat") == "concat" and len(head["dropout"]) == 1
    return "additive" if adds else "comparing"


def floor_score(floors: dict, task_name: str, kind: str) -> float:
    """The headline metric of a floor on the development set."""
    return floors["tasks"][task_name][kind]["dev"][BY_NAME[task_name].metric]


def floors_sentence(floors: dict) -> str:
    """The floors in one sentence, in the order sentiment, paraphrase, similarity."""

    def scores(score: Callable[[str], float | None]) -> str:
        found = map(score, floors["tasks"])
        return " / ".join("–" if value is None else f"{value:.3f}" for value in found)

    words = {
        kind: scores(lambda name, kind=kind: floor_score(floors, name, kind)) for kind in KINDS
    }
    constant = scores(lambda name: floors["tasks"][name].get("constant"))
    return (
        f"Words alone reach {words['additive']} ({' / '.join(floors['tasks'])}) as additive heads "
        f"see a pair, {words['comparing']} compared; the most frequent label {constant}."
    )


def _pairs(words: TfidfVectorizer, examples: list) -> tuple:
    """TF-IDF vectors of the first and of the second sentences, sparse."""
    return tuple(
        words.transform([getattr(e, place) for e in examples]) for place in ("first", "second")
    )


def _either(words: TfidfVectorizer, examples: list) -> csr_matrix:
    """The words of the first and of the second sentence, side by side: additive."""
    return hstack(_pairs(words, examples)).tocsr()


def _interaction(words: TfidfVectorizer, examples: list) -> csr_matrix:
    """What two vectors share, word by word, where they differ, and their cosine."""
    first, second = _pairs(words, examples)
    shared = first.multiply(second)
    return hstack([shared, abs(first - second), shared.sum(axis=1)]).tocsr()
