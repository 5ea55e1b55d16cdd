"""Pairs read as one sequence, by either engine: against tokenizers' own pairs and transformers."""

from dataclasses import replace

import pytest
import torch
from small import SMALL, small_corpus, small_data, small_encoder, small_tokenizer
from tokenizers import Tokenizer
from tokenizers.processors import BertProcessing, TemplateProcessing
from torch.nn.utils.rnn import pad_sequence

from mtl_lib.bert import SENTENCE_VECTORS, BertModel
from mtl_lib.data import PairExample, TokenizedSplit, tokenize
from mtl_lib.errors import ConfigError, EncoderError
from mtl_lib.model import Head, HeadConfig, MultitaskModel
from mtl_lib.optim import AdamW
from mtl_lib.study.terms import smoothness_term
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY
from mtl_lib.trainer import ENGINES, Trainer

TOGETHER = ("together", "all")


def model_of(features, kind="pooler", dropout=0.0, dtype=torch.float64) -> MultitaskModel:
    pair = HeadConfig((dropout,), features=features)
    heads = {SENTIMENT: HeadConfig((dropout,)), PARAPHRASE: pair, SIMILARITY: pair}
    return MultitaskModel(small_encoder(dropout=dropout), heads, kind).to(dtype)


def berts_tokenizer() -> Tokenizer:
    tokenizer = small_tokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def only_sep_behind() -> Tokenizer:
    tokenizer = small_tokenizer()
    tokenizer.post_processor = TemplateProcessing(
        "$A [SEP]", "$A [SEP] $B:1 [SEP]:1", [("[SEP]", 3)]
    )
    return tokenizer


def splits() -> dict[str, TokenizedSplit]:
    corpus = small_corpus()
    return {
        task.name: tokenize(corpus.splits[task.name]["train"], task, berts_tokenizer(), 16)
        for task in (SENTIMENT, PARAPHRASE, SIMILARITY)
    }


@pytest.mark.parametrize("make", [berts_tokenizer, only_sep_behind, small_tokenizer])
def test_a_pair_together_is_what_the_tokenizer_makes_of_it(make):
    """Of one that puts nothing before a sentence no word is taken for [CLS]."""
    tokenizer = make()
    texts = [("good film", "a bad dull film"), ("", "bad"), ("the actor was not fine", "good bad")]
    pairs = tokenizer.encode_batch(texts)
    examples = [PairExample(str(n), *pair, 0) for n, pair in enumerate(texts)]
    batch = tokenize(examples, PARAPHRASE, tokenizer).take([0, 1, 2]).batch([0, 1, 2]).together()
    for row, pair in enumerate(pairs):
        length = len(pair.ids)
        assert batch.input_ids[row, :length].tolist() == pair.ids
        assert batch.token_type_ids[row, :length].tolist() == pair.type_ids
        assert batch.attention_mask[row].sum() == length
        assert not batch.input_ids[row, length:].any()


def test_together_and_apart_stand_one_below_the_other():
    apart = splits()["paraphrase"].batch([0, 1, 2])
    both = apart.together(apart=True)
    assert len(both.input_ids) == 9
    length = apart.input_ids.shape[1]
    assert torch.equal(both.input_ids[3:, :length], apart.input_ids)
    assert torch.equal(both.attention_mask[3:].sum(dim=1), apart.attention_mask.sum(dim=1))
    assert not both.token_type_ids[3:].any()


@pytest.mark.parametrize("kind", SENTENCE_VECTORS)
def test_a_pair_together_has_the_vector_of_transformers(kind):
    from transformers import BertConfig, BertModel

    model = model_of("together", kind).eval()
    sizes = {n: v for n, v in vars(SMALL).items() if n != "layer_norm_eps"}
    reference = BertModel(BertConfig(**sizes, attn_implementation="eager")).double().eval()
    reference.load_state_dict(model.encoder.state_dict(), strict=False)
    batch = splits()["similarity"].batch([4, 1, 7])
    lengths = batch.attention_mask.sum(dim=1)
    for row, vector in enumerate(model.vectors(batch)):
        first, second = batch.input_ids[row, : lengths[row]], batch.input_ids[3 + row]
        ids = torch.cat([first, second[1 : lengths[3 + row]]])
        types = (torch.arange(len(ids)) >= len(first)).long()
        output = reference(ids[None], torch.ones_like(ids)[None], types[None])
        tokens = output.last_hidden_state[0]
        expected = {"pooler": output.pooler_output[0], "cls": tokens[0], "mean": tokens.mean(dim=0)}
        expected["cls+mean"] = torch.cat([expected["cls"], expected["mean"]])
        torch.testing.assert_close(vector, expected[kind], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", SENTENCE_VECTORS)
@pytest.mark.parametrize("features", TOGETHER)
def test_both_engines_take_the_same_steps_on_pairs_read_together(features, kind):
    weights = []
    for engine in ENGINES:
        model = model_of(features, kind)
        optimizer = AdamW(model.parameters(), lr=1e-2)
        trainer = Trainer(model, small_data(), optimizer=optimizer, batch_size=4, engine=engine)
        losses = [trainer.step()[0] for _ in range(4)]
        weights.append((losses, model.state_dict()))
    (plain, slow), (fast, quick) = weights
    assert all(
        plain[i][t] == pytest.approx(fast[i][t], rel=1e-9) for i in range(4) for t in fast[i]
    )
    for name, value in slow.items():
        torch.testing.assert_close(quick[name], value, rtol=1e-6, atol=1e-9)


def test_the_second_segments_embedding_is_trained():
    model = model_of("together")
    before = model.encoder.embeddings.token_type_embeddings.weight.detach().clone()
    Trainer(model, small_data(), batch_size=4, engine="fast").step()
    moved = model.encoder.embeddings.token_type_embeddings.weight - before
    assert moved.abs().amax(dim=1).gt(0).all()


def test_a_head_that_sees_all_is_given_the_pair_and_both_sentences():
    model = model_of("all").eval()
    batch = splits()["paraphrase"].batch([0, 5])
    p, u, v = model.vectors(batch).chunk(3)
    apart = model.encode(batch.input_ids, batch.attention_mask).chunk(2)
    torch.testing.assert_close(torch.stack([u, v]), torch.stack(apart))
    (linear,) = model.heads["paraphrase"].linears
    expected = linear(torch.cat([p, u, v, (u - v).abs(), u * v], dim=1))
    torch.testing.assert_close(model(batch), expected)


def test_a_module_of_ones_own_may_read_pairs_together():
    head = torch.nn.Linear(SMALL.hidden_size, 1)
    head.features = "together"
    model = MultitaskModel(small_encoder(), {PARAPHRASE: head}).eval()
    batch = splits()["paraphrase"].batch([0, 1])
    together = batch.together()
    vectors = model.encoder(
        together.input_ids, together.attention_mask, together.token_type_ids
    ).pooler_output
    torch.testing.assert_close(model(batch), head(vectors))


def test_an_encoder_of_ones_own_is_given_the_segments():
    class Encoder(torch.nn.Module):
        hidden_size = 3

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))

        def encode(self, ids, mask, types):
            first, second = ((mask * (types == side)).sum(dim=1) for side in (0, 1))
            return torch.stack([first, second, ids.sum(dim=1)], dim=1) * self.scale

    model = MultitaskModel(Encoder(), {PARAPHRASE: HeadConfig((0.0,), features="together")})
    batch = splits()["paraphrase"].batch([0, 1, 2])
    lengths = batch.attention_mask.sum(dim=1)
    expected = torch.stack([lengths[:3], lengths[3:] - 1], dim=1).float()
    torch.testing.assert_close(model.vectors(batch)[:, :2], expected)


def test_smoothness_reads_the_pair_as_its_head_does():
    model = model_of("together", dtype=torch.float32)
    batch = splits()["similarity"].batch([0, 1, 2])
    term = smoothness_term(1.0, torch.Generator().manual_seed(0))(model, batch)
    term.backward()
    assert term > 0
    assert model.encoder.embeddings.token_type_embeddings.weight.grad[1].any()


def test_a_saved_model_still_reads_pairs_together(tmp_path):
    model = model_of("all", "cls+mean", dtype=torch.float32).eval()
    model.save(tmp_path)
    again = MultitaskModel.load(tmp_path)
    batch = splits()["similarity"].batch([0, 1, 2])
    assert torch.equal(again(batch), model(batch))


@pytest.mark.parametrize("features", TOGETHER)
def test_a_single_sentence_cannot_be_read_together(features):
    with pytest.raises(ConfigError, match="no head of this task"):
        Head(SENTIMENT, 8, HeadConfig(features=features))


def test_pairs_longer_than_the_encoder_knows_positions_are_refused():
    data = splits()
    split = data["paraphrase"]
    split.sentences[0][3] = pad_sequence([torch.full((20,), 5)])[:, 0]
    split.sentences[1][3] = torch.full((14,), 5)
    split.__post_init__()
    Trainer(model_of("concat"), data, batch_size=4)
    with pytest.raises(ConfigError, match="paraphrase: a train pair has 33 tokens"):
        Trainer(model_of("together"), data, batch_size=4)


def test_a_head_that_reads_pairs_together_is_refused_where_there_are_none():
    head = torch.nn.Linear(SMALL.hidden_size, 5)
    head.features = "together"
    with pytest.raises(ConfigError, match="sentiment: its head reads pairs together, but its"):
        MultitaskModel(small_encoder(), {SENTIMENT: head})


def test_an_encoder_of_one_segment_is_refused():
    encoder = BertModel(replace(SMALL, type_vocab_size=1))
    with pytest.raises(ConfigError, match="one segment only"):
        MultitaskModel(encoder, {PARAPHRASE: HeadConfig(features="all")})


def test_an_encoder_of_ones_own_without_segments_is_refused():
    class Encoder(torch.nn.Module):
        hidden_size = 3

        def encode(self, ids, mask):
            return mask[:, :1] * torch.ones(3)

    with pytest.raises(ConfigError, match="takes no token_type_ids"):
        MultitaskModel(Encoder(), {PARAPHRASE: HeadConfig(features="together")})


@pytest.mark.parametrize("fast", [False, True])
def test_too_long_a_pair_is_refused_on_either_path(fast):
    model = model_of("together", dtype=torch.float32).eval()
    model.fast = fast
    split = splits()["paraphrase"]
    split.sentences[0][0], split.sentences[1][0] = torch.full((20,), 5), torch.full((14,), 5)
    with pytest.raises(EncoderError, match="33 tokens"):
        model(split.batch([0]))
