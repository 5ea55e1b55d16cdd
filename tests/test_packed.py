from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small import SMALL

from mtl_lib.bert import SENTENCE_VECTORS, BertModel
from mtl_lib.fast import packed
from mtl_lib.fast.packed import Pack, sentence_vectors


def encoder(dtype=torch.float64, dropout=0.0) -> BertModel:
    torch.manual_seed(0)
    config = replace(
        SMALL,
        vocab_size=50,
        num_hidden_layers=3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
    )
    return BertModel(config).to(dtype)


def ragged(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return torch.randint(1, 50, mask.shape, generator=generator) * mask, mask


def gradients(model, vectors):
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(vectors.shape, generator=generator, dtype=vectors.dtype)
    model.zero_grad()
    F.mse_loss(vectors, target).backward()
    # The pooler has no gradient where its output is not the sentence vector.
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("lengths", [[3, 9, 17, 1, 5], [4, 4, 4], [1, 1], [20]])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("worth", [1, 8000])  # with a group for each length, and with one group
@pytest.mark.parametrize("kind", SENTENCE_VECTORS)
def test_packed_vectors_and_gradients_equal_the_teaching_path(
    lengths, dtype, tolerance, training, worth, kind, monkeypatch
):
    monkeypatch.setitem(packed._WORTH_A_GROUP, "cpu", worth)
    model = encoder(dtype).train(training)
    ids, mask = ragged(lengths)
    slow = model(ids, mask).sentence_vector(kind, mask)
    fast = sentence_vectors(model, ids, mask, kind)
    torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    expected, found = gradients(model, slow), gradients(model, fast)
    assert (found - expected).norm() <= tolerance * expected.norm()


def test_the_mean_leaves_the_padding_out():
    model = encoder().eval()
    ids, mask = ragged([5, 12])
    output = model(ids, mask)
    by_hand = output.last_hidden_state[0, :5].mean(dim=0)
    torch.testing.assert_close(output.sentence_vector("mean", mask)[0], by_hand)
    torch.testing.assert_close(sentence_vectors(model, ids, mask, "mean")[0], by_hand)


def test_an_unknown_sentence_vector_is_refused_by_both_paths():
    model = encoder()
    ids, mask = ragged([5])
    with pytest.raises(ValueError, match="'max'"):
        model(ids, mask).sentence_vector("max", mask)
    with pytest.raises(ValueError, match="'max'"):
        sentence_vectors(model, ids, mask, "max")


def test_other_sentences_of_the_batch_do_not_change_a_vector():
    model = encoder()
    ids, mask = ragged([5, 12, 3])
    alone = sentence_vectors(model, ids[2:, :3], mask[2:, :3])
    torch.testing.assert_close(sentence_vectors(model, ids, mask)[2:], alone)


@pytest.mark.parametrize("mask", [[0, 0, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0]])
def test_padding_elsewhere_than_at_the_end_and_sentences_of_it_alone_are_refused(mask):
    ids, other = torch.full((2, 4), 7), [1, 1, 1, 1]
    with pytest.raises(ValueError, match="one token or more, and then its padding"):
        sentence_vectors(encoder(), ids, torch.tensor([other, mask]))


def shapes(pack):
    return [tuple(mask.shape) for mask in pack.masks]


def test_sentences_of_like_length_attend_together_where_that_saves_enough(monkeypatch):
    batches = [ragged([3, 24, 4]), ragged([2, 23, 3])]
    assert shapes(Pack.of(batches)) == [(6, 24)]
    monkeypatch.setitem(packed._WORTH_A_GROUP, "cpu", 500)
    assert shapes(Pack.of(batches)) == [(4, 4), (2, 24)]


def test_no_group_is_cut_for_a_gpu_where_calls_are_what_costs():
    padded = ragged([100, *[2] * 99])
    assert shapes(Pack.of([padded])) == [(99, 2), (1, 100)]
    assert shapes(Pack.of([padded], "meta")) == [(100, 100)]  # any device but the CPU


@pytest.mark.parametrize("training", [True, False])
def test_groups_of_one_sentence_change_no_vector(monkeypatch, training):
    model, padded = encoder().train(training), ragged([9, 3, 17, 1, 5, 4])
    expected = sentence_vectors(model, *padded)
    monkeypatch.setitem(packed._WORTH_A_GROUP, "cpu", 1)
    assert len(Pack.of([padded]).masks) == 6
    torch.testing.assert_close(sentence_vectors(model, *padded), expected)


def test_every_token_has_its_own_cell_in_the_row_of_its_sentence(monkeypatch):
    monkeypatch.setitem(packed._WORTH_A_GROUP, "cpu", 1)
    batches = [ragged([9, 3, 17]), ragged([1, 5, 4, 5], seed=1)]
    pack = Pack.of(batches)
    grid = torch.zeros(sum(mask.numel() for mask in pack.masks), dtype=torch.long)
    grid[pack.cells] = pack.words[pack.spelled]
    sentences = [ids[mask > 0] for padded in batches for ids, mask in zip(*padded, strict=True)]
    grids = grid.split([mask.numel() for mask in pack.masks])
    rows = [row for m, g in zip(pack.masks, grids, strict=True) for row in g.view(m.shape)]
    for sentence, row in zip(pack.order.tolist(), rows, strict=True):
        assert torch.equal(row[row > 0], sentences[sentence])


def test_dropout_acts_in_train_mode_only():
    model = encoder(dropout=0.5)
    ids, mask = ragged([5, 12, 3])
    model.eval()
    assert torch.equal(sentence_vectors(model, ids, mask), sentence_vectors(model, ids, mask))
    model.train()
    assert not torch.equal(sentence_vectors(model, ids, mask), sentence_vectors(model, ids, mask))


def test_dropout_has_the_spread_of_the_teaching_path():
    """Same mean and standard deviation over many draws: no dropout is missing or doubled."""
    model = encoder(dropout=0.2).train()
    ids, mask = ragged([6, 10])
    ids, mask = ids.repeat(500, 1), mask.repeat(500, 1)
    with torch.no_grad():
        slow = model(ids, mask).pooler_output.view(500, 2, -1)
        fast = sentence_vectors(model, ids, mask).view(500, 2, -1)
    error = slow.std(0) / 500**0.5
    assert ((slow.mean(0) - fast.mean(0)).abs() / error).mean() < 1.5
    assert (fast.std(0) / slow.std(0)).mean().item() == pytest.approx(1, abs=0.05)


def test_layers_may_have_different_numbers_of_heads():
    model = encoder()
    model.encoder.layer[0].attention.self.heads *= 2
    ids, mask = ragged([5, 12, 3])
    slow = model(ids, mask).pooler_output
    torch.testing.assert_close(sentence_vectors(model, ids, mask), slow, rtol=1e-9, atol=1e-9)


def test_a_dropout_of_one_switches_its_part_off():
    model = encoder().train()
    model.encoder.layer[0].output.dropout.p = 1.0
    ids, mask = ragged([5, 12, 3])
    slow = model(ids, mask).pooler_output
    torch.testing.assert_close(sentence_vectors(model, ids, mask), slow, rtol=1e-9, atol=1e-9)
