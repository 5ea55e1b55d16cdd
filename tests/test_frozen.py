"""A frozen encoder: its heads move, and it encodes a sentence once."""

import pytest
import torch
from small import small_encoder, small_model, small_splits
from test_model import vectors_by_hand
from test_trainer import make_trainer

from mtl_lib.bert import SENTENCE_VECTORS
from mtl_lib.model import HeadConfig
from mtl_lib.study.frozen import FrozenModel, Memory
from mtl_lib.tasks import TASKS


def frozen_model(kind: str = "pooler", dropout: float = 0.1) -> FrozenModel:
    heads = {task.name: HeadConfig((dropout,)) for task in TASKS}
    return FrozenModel(small_encoder(dropout=dropout), heads, kind)


def test_a_frozen_encoder_encodes_every_sentence_once():
    model, splits, seen = frozen_model(), small_splits(), []
    embed = model.encoder.embeddings.word_embeddings
    embed.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    trainer = make_trainer(model, splits, batch_size=4)
    trainer.fit(epochs=3)
    texts = {tuple(t.tolist()) for s in splits.values() for column in s.sentences for t in column}
    assert sum(seen) == len(texts)


def test_remembered_vectors_give_the_same_logits():
    model, plain = frozen_model(), small_model()
    plain.load_state_dict(model.state_dict())
    batch = small_splits()["paraphrase"].batch([0, 3, 5])
    expected = plain.eval()(batch)
    model.eval()
    torch.testing.assert_close(model(batch), expected)
    torch.testing.assert_close(model(batch), expected)


@pytest.mark.parametrize("kind", SENTENCE_VECTORS)
def test_a_frozen_encoder_remembers_vectors_of_the_models_kind(kind):
    model = frozen_model(kind, dropout=0.5).train()
    batch = small_splits()["paraphrase"].batch([0, 1, 2])
    expected = vectors_by_hand(model.encoder, batch, kind)
    for _ in range(2):  # computed, then remembered
        torch.testing.assert_close(model.vectors(batch), expected, rtol=1e-4, atol=1e-5)
    other = frozen_model(kind)
    Memory(other).load_state_dict(Memory(model).state_dict())
    assert torch.equal(other.vectors(batch), model.vectors(batch))


def test_vectors_that_were_never_computed_are_no_state():
    model = frozen_model()
    assert Memory(model).state_dict() == {}
    Memory(model).load_state_dict({})
    assert model.remembered() == {}
