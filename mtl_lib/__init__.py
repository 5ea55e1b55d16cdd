"""Multi-task learning with BERT: one shared encoder, one small head per task.

Read the library in this order, an evening in all:

    tasks.py         what a task is: loss, metric, prediction
    data.py          examples, corpora, batches
    bert.py          the whole encoder
    model.py         encoder and heads
    optim.py         the AdamW step
    gradients.py     one gradient per task
    weighting.py     from those to one: the plain sum, gradient surgery
    evaluation.py    metrics
    trainer.py       the loop that all of these meet in

Beside it `pretrained/` (encoders by name or folder, with their tokenizers), `fast/` (the same
numbers, faster), `methods/` (what can be added to the loop: penalties, smoothness, weightings,
samplers, averages), `parallel/` (a run in several processes) and `shipped/` (the finished model,
asked without torch); above it `study/` (the paper's rows, run and compared), `handbook/` (exercises
and notebooks) and `cli.py` (the `mtl` command). Imports go down only.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtl_lib.bert import BertConfig, BertModel
    from mtl_lib.data import Batch, Corpus, PairExample, SentenceExample, TokenizedSplit, tokenize
    from mtl_lib.errors import HandbookError
    from mtl_lib.evaluation import evaluate, metrics, predict, predicted_labels
    from mtl_lib.gradients import TaskGradients
    from mtl_lib.methods.averaging import BestEpoch
    from mtl_lib.methods.rates import linear_warmup
    from mtl_lib.methods.regularizers import SmoothnessRegularizer, lp_penalty
    from mtl_lib.model import Head, HeadConfig, MultitaskModel
    from mtl_lib.optim import AdamW
    from mtl_lib.pretrained import load_encoder, load_tokenizer
    from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY, Task
    from mtl_lib.trainer import Callback, Fit, Trainer
    from mtl_lib.weighting import pcgrad_weights, sum_weights

try:
    __version__ = version("mtl-handbook")
except PackageNotFoundError:  # read from a folder that was never installed
    __version__ = "unknown"

__all__ = [
    "AdamW", "Batch", "BertConfig", "BertModel", "BestEpoch", "Callback", "Corpus", "Fit",
    "HandbookError", "Head", "HeadConfig", "MultitaskModel", "PARAPHRASE", "PairExample",
    "SENTIMENT", "SIMILARITY", "SentenceExample", "SmoothnessRegularizer", "Task", "TaskGradients",
    "TokenizedSplit", "Trainer", "evaluate", "linear_warmup", "load_encoder", "load_tokenizer",
    "lp_penalty", "metrics", "pcgrad_weights", "predict", "predicted_labels", "sum_weights",
    "tokenize",
]  # fmt: skip

# A module is imported when a name of it is first asked for: with torch, which `shipped` answers
# without, that takes seconds.
_MODULES = {
    "bert": "BertConfig BertModel",
    "data": "Batch Corpus PairExample SentenceExample TokenizedSplit tokenize",
    "errors": "HandbookError",
    "evaluation": "evaluate metrics predict predicted_labels",
    "gradients": "TaskGradients",
    "methods.averaging": "BestEpoch",
    "methods.rates": "linear_warmup",
    "methods.regularizers": "SmoothnessRegularizer lp_penalty",
    "model": "Head HeadConfig MultitaskModel",
    "optim": "AdamW",
    "pretrained": "load_encoder load_tokenizer",
    "tasks": "PARAPHRASE SENTIMENT SIMILARITY Task",
    "trainer": "Callback Fit Trainer",
    "weighting": "pcgrad_weights sum_weights",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

if not TYPE_CHECKING:  # a type checker reads the imports above

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for name in _MODULES if "." not in name), *__all__})
