"""Multi-task learning with BERT: one shared encoder, one small head per task.

Read the library in this order, an evening in all:

    tasks.py         what a task is: loss, metric, prediction
    data.py          examples, corpora, batches
    bert.py          the whole encoder
    model.py         encoder and heads
    optim.py         the AdamW step
    gradients.py     one gradient per task
    weighting.py     from those to one: the plain sum, gradient surgery
    regularizers.py  norms and smoothness
    evaluation.py    metrics
    trainer.py       the loop that all of these meet in

Beside it `pretrained/` (encoders by name or folder, with their tokenizers) and `fast/` (the same
numbers, faster); above it `study/` (the paper's rows, run and
compared), `handbook/` (exercises and notebooks) and `cli.py` (the `mtl` command). Imports go down
only.
"""

from importlib.metadata import PackageNotFoundError, version

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.data import Batch, Corpus, PairExample, SentenceExample, TokenizedSplit, tokenize
from mtl_lib.errors import HandbookError
from mtl_lib.evaluation import evaluate, metrics, predict
from mtl_lib.gradients import TaskGradients
from mtl_lib.model import Head, HeadConfig, MultitaskModel
from mtl_lib.optim import AdamW, linear_warmup
from mtl_lib.pretrained import load_encoder, load_tokenizer
from mtl_lib.regularizers import SmoothnessRegularizer, lp_penalty
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY, Task
from mtl_lib.trainer import Callback, Fit, Trainer
from mtl_lib.weighting import pcgrad_weights, sum_weights

try:
    __version__ = version("mtl-handbook")
except PackageNotFoundError:  # read from a folder that was never installed
    __version__ = "unknown"

__all__ = [
    "AdamW", "Batch", "BertConfig", "BertModel", "Callback", "Corpus", "Fit", "HandbookError",
    "Head", "HeadConfig", "MultitaskModel", "PARAPHRASE", "PairExample", "SENTIMENT", "SIMILARITY",
    "SentenceExample", "SmoothnessRegularizer", "Task", "TaskGradients", "TokenizedSplit",
    "Trainer", "evaluate", "linear_warmup", "load_encoder", "load_tokenizer", "lp_penalty",
    "metrics", "pcgrad_weights", "predict", "sum_weights", "tokenize",
]  # fmt: skip
