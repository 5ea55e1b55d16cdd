"""Predictions in the format in which the class takes them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from mtl_lib.data import Corpus, TokenizedSplit, tokenize
from mtl_lib.errors import ConfigError, CorpusError, EncoderError
from mtl_lib.evaluation import predict, predicted_labels
from mtl_lib.files import write_text
from mtl_lib.methods.quantized import load_quantized
from mtl_lib.model import MultitaskModel
from mtl_lib.study.corpora import FILES, load_corpus

# Task -> its file, and the name of its column as the starter code spells it.
SUBMISSION = {
    "sentiment": ("sst-{split}-output.csv", "Predicted_Sentiment"),
    "paraphrase": ("para-{split}-output.csv", "Predicted_Is_Paraphrase"),
    "similarity": ("sts-{split}-output.csv", "Predicted_Similiary"),
    "cfimdb": ("cfimdb-{split}-output.csv", "Predicted_Sentiment"),
}
SHOWN = 10  # rows without a prediction that are named at once


def load_model(directory: str | Path) -> tuple[MultitaskModel, Tokenizer]:
    """A model that was saved with its tokenizer, as `mtl train` does, or in 8 bits, and that
    tokenizer.

    Raises:
        EncoderError: as `MultitaskModel.load`, or if there is no tokenizer.
    """
    model = load_quantized(directory)
    if model.tokenizer is None:
        raise EncoderError(f"{directory}: no tokenizer.json; save the model with its tokenizer")
    return model, model.tokenizer


def write_predictions(
    model: str | Path,
    data: Corpus | str | Path,
    split: str,
    out: str | Path,
    predictor: Callable[[MultitaskModel, TokenizedSplit], np.ndarray] = predict,
) -> list[Path]:
    """Predictions of a model in the class's submission format, one file per task.

    Written as the class's starter code writes them: a header `id \\t Predicted_...`, then
    `id , prediction` per row, in the order of the corpus file. Tasks of one's own go to
    `TASK-SPLIT-output.csv`. Sentences are cut where they were cut in training.

    Args:
        model: a folder written by `MultitaskModel.save`.
        data: a corpus, a folder of one, or "handbook". Labels are not looked at.
        split: "dev" or "test".
        out: the folder of the files.
        predictor: from the model and a split to logits `[N, C]`.

    Returns:
        The files written.

    Raises:
        ConfigError: if the corpus has no such split of any of the model's tasks.
        CorpusError: if a row of the split cannot be read: every id must get its prediction.
            Nothing is written then.
    """
    network, tokenizer = load_model(model)
    corpus = data if isinstance(data, Corpus) else load_corpus(data, labels=False)
    names = [name for name in network.heads if split in corpus.splits.get(name, {})]
    if not names:
        raise ConfigError(f"corpus {corpus.name!r} has no {split} split of {list(network.heads)}")
    files = [f for f, (task, part, _) in FILES.items() if task.name in names and part == split]
    lost = [line for line in corpus.skipped if line.split(":")[0] in files]
    if lost:
        more = f"; and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        raise CorpusError(
            f"{corpus.name}: {len(lost)} rows of the {split} split would get no prediction; "
            f"correct or remove them: {'; '.join(lost[:SHOWN])}{more}".replace("; row skipped", "")
        )
    # A folder of before the cut was kept: what the encoder knows.
    limit = None if tokenizer.truncation else network.encoder.config.max_position_embeddings
    texts = {}
    for name in names:
        task = network.tasks[name]
        examples = tokenize(corpus.splits[name][split], task, tokenizer, limit)
        labels = predicted_labels(task, predictor(network, examples))
        file, column = SUBMISSION.get(name, (f"{name}-{{split}}-output.csv", "Predicted_Label"))
        rows = (f"{key} , {label} \n" for key, label in zip(examples.ids, labels, strict=True))
        texts[Path(out) / file.format(split=split)] = f"id \t {column} \n" + "".join(rows)
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)
