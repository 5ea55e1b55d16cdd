"""What a stranger may feed the handbook: one clear error, or a row left out and reported.

Each line of the tables is one malformed input and the words that its message must hold: where,
what, and what to do. Nothing may be written, and nothing that was there may change.
"""

import json
import os
import pickle
import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import small_encoder, small_model, small_tokenizer

from mtl_lib import cli, pretrained
from mtl_lib.errors import ConfigError, EncoderError, HandbookError
from mtl_lib.model import HeadConfig
from mtl_lib.pretrained import load_encoder, save_encoder
from mtl_lib.study.checkpoint import Checkpoint
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.rows import FIGURE_3
from mtl_lib.study.store import RunStore
from mtl_lib.study.submission import load_model


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Corpora: the sentiment development file, byte for byte, and what `mtl data check` says of it.

HEAD = b"id\tsentence\tsentiment\n"
GOOD = b"x1\tA fine film .\t3\n"

REFUSED = {
    "empty file": (b"", ["csv:1", "column 'id' is missing"]),
    "header only": (HEAD, ["no usable row", "fetch the file again"]),
    "blank lines only": (HEAD + b"\n \n\n", ["no usable row"]),
    "no header": (GOOD, ["csv:1", "column 'id' is missing"]),
    "no id column": (b"sentence\tsentiment\nFine .\t3\n", ["csv:1", "'id' is missing"]),
    "no sentence column": (b"id\tsentiment\nx1\t3\n", ["csv:1", "'sentence' is missing"]),
    "test file as development file": (b"id\tsentence\nx1\tFine .\n", ["is this a test file?"]),
    "pair file in its place": (
        b"id\tsentence1\tsentence2\tis_duplicate\nx1\tA ?\tB ?\t1\n",
        ["is this another kind of file?"],
    ),
    "column twice": (b"id\tid\tsentence\tsentiment\nx\ty\tFine .\t3\n", ["'id' is there 2 times"]),
    "upper-case header": (HEAD.upper() + GOOD, ["'id' is missing", "separated by tabs"]),
    "commas": ((HEAD + GOOD).replace(b"\t", b","), ["'id' is missing", "separated by tabs"]),
    "semicolons": ((HEAD + GOOD).replace(b"\t", b";"), ["separated by tabs"]),
    "spaces": ((HEAD + GOOD).replace(b"\t", b"    "), ["separated by tabs"]),
    "old Mac line ends": (
        (HEAD + GOOD).replace(b"\n", b"\r"),
        ["csv:1", "is missing", "not with carriage returns alone"],
    ),
    "Latin-1": (HEAD + "x1\tCafé .\t3\n".encode("latin-1"), ["csv:2: byte 0xe9 is not UTF-8"]),
    "Windows-1252": (HEAD + GOOD + "x2\t“So”\t3\n".encode("cp1252"), ["csv:3: byte 0x93"]),
    "UTF-16": ((HEAD + GOOD).decode().encode("utf-16"), ["byte 0xff is not UTF-8"]),
    "UTF-16 without mark": ((HEAD + GOOD).decode().encode("utf-16-le"), ["'id' is missing"]),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(20), ["byte 0x8b is not UTF-8"]),
    "zip": (b"PK\x03\x04" + bytes(20), ["'id' is missing"]),
    "NUL bytes": (bytes(100), ["csv:1", "'id' is missing"]),
    "HTML page": (b"<!doctype html>\n<title>404</title>\n", ["'id' is missing"]),
    "git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", ["'id' is missing"]),
    "quote open in the header": (b'"' + HEAD + GOOD, ["'id' is missing"]),
    "label as text": (HEAD + b"x1\tFine .\tgood\n", ["csv:2", "'sentiment'", "'good'", "0 to 4"]),
    "label too large": (HEAD + GOOD + b"x2\tFine .\t5\n", ["csv:3", "'5' is out of range"]),
    "label negative": (HEAD + b"x1\tFine .\t-1\n", ["csv:2", "'-1' is out of range"]),
    "class fractional": (HEAD + b"x1\tFine .\t2.5\n", ["'2.5' is not a whole number"]),
    "label NaN": (HEAD + b"x1\tFine .\tNaN\n", ["'NaN' is not a number", "remove the row"]),
    "label infinite": (HEAD + b"x1\tFine .\tinf\n", ["'inf' is out of range"]),
    "label overflows": (HEAD + b"x1\tFine .\t1e999\n", ["'1e999' is out of range"]),
    "label with underscore": (HEAD + b"x1\tFine .\t0_1\n", ["'0_1' is not a number"]),
    "label in other digits": (HEAD + "x1\tFine .\t٣\n".encode(), ["is not a number"]),
    "label with comma": (HEAD + b"x1\tFine .\t2,5\n", ["'2,5' is not a number"]),
    "label hexadecimal": (HEAD + b"x1\tFine .\t0x3\n", ["'0x3' is not a number"]),
    "label true": (HEAD + b"x1\tFine .\tTrue\n", ["'True' is not a number"]),
}

# The row alone is bad: it is left out, and said to be.
SKIPPED = {
    "too few fields": (b"x2\tFine .\n", "2 fields in place of 3"),
    "too many fields": (b"x2\tFine\t.\t3\n", "4 fields in place of 3"),
    "no id": (b"\tFine .\t3\n", "id is missing"),
    "no sentence": (b"x2\t\t3\n", "sentence is missing"),
    "white space for a sentence": (b"x2\t \xc2\xa0 \t3\n", "sentence is missing"),
    "no label": (b"x2\tFine .\t\n", "sentiment is missing"),
    "quotes over rows of their own": (b'x2\t"Fine .\nx3\tDull ."\t3\n', "2 fields in place of 3"),
    "quotes do not save a short row": (b'x2\t"Fine ""film"" ."\n', "2 fields in place of 3"),
    "line break in an id": (b'"x\n2"\tFine .\t3\n', "a line break is in the id"),
    "NUL inside": (b"x2\tFi\x00ne .\t3\n", "a NUL character is in it"),
    "id for the second time": (b"x1\tAnother film .\t3\n", "id x1 is there for the second time"),
}

READ = {
    "byte-order mark": b"\xef\xbb\xbf" + HEAD + GOOD,
    "CRLF": (HEAD + GOOD).replace(b"\n", b"\r\n"),
    "no line end at the end": (HEAD + GOOD).rstrip(b"\n"),
    "extra column": b"id\tsentence\textra\tsentiment\nx1\tA fine film .\t?\t3\n",
    "blank lines between": HEAD + b"\n" + GOOD + b"\n\n",
    "script in a sentence": HEAD + b"x1\t<script>alert(1)</script>\t3\n",
    "path in an id": HEAD + b"../../x1\tA fine film .\t3\n",
    "long sentence": HEAD + b"x1\t" + b"film " * 20_000 + b"\t3\n",
    "giant sentence": HEAD + b"x1\t" + b"a" * 200_000 + b"\t3\n",
    "stray quote": HEAD + b'x1\t"Fine .\t3\n',
    "quoted record over three lines": HEAD + b'x1\t"A\n\nfilm ."\t3\n',
    "carriage return inside": HEAD + b"x1\tFi\rne .\t3\n",
    "emoji and right-to-left": HEAD + "x1\t😀 \u202eمرحبا\t3\n".encode(),
}


def check(folder: Path, capsys) -> tuple[int, str, str]:
    before = contents(folder)
    status = cli.main(["data", "check", str(folder)])
    assert contents(folder) == before
    return status, *capsys.readouterr()


@pytest.mark.parametrize("name", REFUSED)
def test_a_corpus_file_is_refused_with_one_line(tmp_path, capsys, name):
    content, words = REFUSED[name]
    (tmp_path / "ids-sst-dev.csv").write_bytes(content)
    status, _, error = check(tmp_path, capsys)
    assert status == 1
    assert error.startswith("mtl: ") and error.count("\n") == 1
    assert "ids-sst-dev.csv" in error
    assert [word for word in words if word not in error] == []


@pytest.mark.parametrize("name", SKIPPED)
def test_a_bad_row_is_left_out_and_reported(tmp_path, capsys, name):
    row, fault = SKIPPED[name]
    (tmp_path / "ids-sst-dev.csv").write_bytes(HEAD + GOOD + row + b"x9\tLast .\t0\n")
    status, report, _ = check(tmp_path, capsys)
    assert status == 0
    said = f"ids-sst-dev.csv:3: {fault}; row skipped"
    assert f"skipped: {said}" in report
    examples = load_corpus(tmp_path).splits["sentiment"]["dev"]
    assert said in capsys.readouterr().err
    assert [example.id for example in examples if example.id != "x3"] == ["x1", "x9"]


@pytest.mark.parametrize("name", READ)
def test_an_unusual_corpus_file_is_read(tmp_path, capsys, name):
    (tmp_path / "ids-sst-dev.csv").write_bytes(READ[name])
    status, report, _ = check(tmp_path, capsys)
    assert status == 0 and "1 rows  0 skipped" in report


@pytest.mark.parametrize("first", ["Who ?\tWho is it ?", "Who is it ?\tWho ?"])
def test_a_pair_in_training_and_development_file_is_reported(tmp_path, capsys, first):
    head = "id\tsentence1\tsentence2\tis_duplicate\n"
    (tmp_path / "quora-train.csv").write_text(head + "x1\tWho ?\tWho is it ?\t1\n")
    (tmp_path / "quora-dev.csv").write_text(head + f"x2\t{first}\t1\nx3\tA ?\tB ?\t0\n")
    status, report, _ = check(tmp_path, capsys)
    assert status == 0 and "1 of them stand in the training file as well" in report


@pytest.mark.parametrize("kind", ["nowhere", "a file", "empty"])
def test_a_folder_without_corpora_says_what_to_do(tmp_path, capsys, kind):
    folder = tmp_path / "corpus"
    if kind == "a file":
        folder.write_text("x")
    elif kind == "empty":
        folder.mkdir()
    assert cli.main(["data", "check", str(folder)]) == 1
    assert "mtl data fetch" in capsys.readouterr().err


# Encoders


def spoil_weights(change):
    def spoil(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return spoil


def spoil_config(**changes):
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        config = {name: value for name, value in config.items() if value is not ...}
        (folder / "config.json").write_text(json.dumps(config))

    return spoil


def put(name: str, content: bytes | None):
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)

    return spoil


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def in_turn(*spoils):
    def spoil(folder: Path) -> None:
        for each in spoils:
            each(folder)

    return spoil


class Bomb:
    def __reduce__(self):
        return os.system, ("touch executed",)


WORD = "embeddings.word_embeddings.weight"
NAN = torch.full((16, 16), float("nan"))
HUGE_HEADER = struct.pack("<Q", 2**60) + b"{}"
SIZES = "config.json: not the config.json"
ENCODER_FAULTS = {
    "no config": (put("config.json", None), "config.json: .*No such file"),
    "empty config": (put("config.json", b""), SIZES),
    "config is a list": (put("config.json", b"[]"), SIZES),
    "config is cut": (put("config.json", b'{"vocab_size": 16,'), SIZES),
    "config is no text": (put("config.json", b"\xff\xfe\x00"), SIZES),
    "size missing": (spoil_config(hidden_size=...), "hidden_size missing"),
    "size as text": (spoil_config(hidden_size="16"), "hidden_size is '16'"),
    "size negative": (spoil_config(num_hidden_layers=-1), "num_hidden_layers is -1"),
    "size fractional": (spoil_config(intermediate_size=1.5), "intermediate_size is 1.5"),
    "heads do not divide": (spoil_config(num_attention_heads=3), "does not divide"),
    "another activation": (spoil_config(hidden_act="swish"), "'swish'; only 'gelu'"),
    "dropout of one": (spoil_config(hidden_dropout_prob=1.0), "hidden_dropout_prob is 1.0"),
    "giant vocabulary": (spoil_config(vocab_size=10**13), "config.json: no encoder can be made"),
    "another vocabulary size": (spoil_config(vocab_size=17), "of another shape: .*17, 16"),
    "vocabulary below the tokenizer": (spoil_config(vocab_size=15), "16 entries, .* vocab_size 15"),
    "no weights": (put("model.safetensors", None), "model.safetensors: no such file"),
    "empty weights": (put("model.safetensors", b""), "model.safetensors: "),
    "truncated weights": (truncated, "model.safetensors: "),
    "pickle in disguise": (put("model.safetensors", pickle.dumps(Bomb())), "model.safetensors: "),
    "zip in disguise": (put("model.safetensors", b"PK\x03\x04" * 9), "model.safetensors: "),
    "giant header": (put("model.safetensors", HUGE_HEADER), "model.safetensors: "),
    "pickle alone": (
        in_turn(put("model.safetensors", None), put("pytorch_model.bin", pickle.dumps(Bomb()))),
        "a pickle, which can run any code",
    ),
    "tensor missing": (spoil_weights(lambda s: s.pop("pooler.dense.bias")), "missing: pooler"),
    "tensor left over": (spoil_weights(lambda s: s.update(more=NAN)), "left over: more"),
    "tensor of another shape": (
        spoil_weights(lambda s: s.update({"pooler.dense.bias": torch.zeros(3)})),
        r"of another shape: pooler.dense.bias \(3,\), expected \(16,\)",
    ),
    "NaN in a tensor": (spoil_weights(lambda s: s.update({WORD: NAN})), f"not finite: {WORD}"),
    "no tokenizer": (put("tokenizer.json", None), "neither tokenizer.json nor vocab.txt"),
    "tokenizer is cut": (put("tokenizer.json", b'{"version": '), "tokenizer.json: not a tokenizer"),
    "tokenizer is no text": (put("tokenizer.json", b"\xff"), "tokenizer.json: not a tokenizer"),
    "vocabulary without special tokens": (
        in_turn(put("tokenizer.json", None), put("vocab.txt", b"a\nb\n")),
        "vocab.txt: not the vocabulary",
    ),
    "vocabulary in Latin-1": (
        in_turn(put("tokenizer.json", None), put("vocab.txt", b"[PAD]\n\xe9\n")),
        "vocab.txt: .*can't decode",
    ),
    "tokenizer settings are cut": (
        in_turn(
            put("tokenizer.json", None),
            put("vocab.txt", b"[PAD]\n"),
            put("tokenizer_config.json", b"{"),
        ),
        "tokenizer_config.json: not a JSON object",
    ),
}


@pytest.fixture(scope="module")
def sound_encoder(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(folder, small_encoder(), small_tokenizer())
    return contents(folder)


@pytest.mark.parametrize("name", ENCODER_FAULTS)
def test_an_encoder_is_refused_with_file_and_reason(tmp_path, sound_encoder, monkeypatch, name):
    spoil, words = ENCODER_FAULTS[name]
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "encoder"
    folder.mkdir()
    for file, content in sound_encoder.items():
        (folder / file).write_bytes(content)
    load_encoder(folder)  # sound so far
    spoil(folder)
    before = contents(tmp_path)
    with pytest.raises(EncoderError, match=words):
        load_encoder(folder)
    assert contents(tmp_path) == before  # the pickle has not been executed


def test_an_unknown_encoder_lists_the_known_ones():
    with pytest.raises(EncoderError, match="neither an encoder's name .tiny, .* nor a folder"):
        load_encoder("../../etc/nothing")


def test_a_cached_encoder_with_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_CACHE", str(tmp_path))
    (tmp_path / "minilm-l6").mkdir()
    (tmp_path / "minilm-l6" / "config.json").write_text("{}")
    with pytest.raises(EncoderError, match="SHA-256 is .*, expected .*; remove .*minilm-l6"):
        pretrained.fetch_encoder("minilm-l6")


MODEL_FAULTS = {
    "no heads": (put("heads.json", None), "no heads.json; give a folder written by `save`"),
    "heads are cut": (put("heads.json", b"{"), "heads.json: not a model's heads"),
    "heads are a list": (put("heads.json", b"[]"), "heads.json: not a model's heads"),
    "head of an unknown task": (
        put("heads.json", b'{"ner": {}}'),
        "heads.json: not a model's heads",
    ),
    "unknown option of a head": (
        put("heads.json", b'{"sentiment": {"layers": 2}}'),
        "heads.json: not a model's heads",
    ),
    "another head": (put("heads.json", b'{"sentiment": {}}'), "model.safetensors does not fit"),
    "model is a pickle": (put("model.safetensors", pickle.dumps(Bomb())), "does not fit"),
    "tokenizer of a model is cut": (put("tokenizer.json", b"{"), "not a tokenizer"),
}


@pytest.mark.parametrize("name", MODEL_FAULTS)
def test_a_model_is_refused_with_file_and_reason(tmp_path, capsys, name):
    spoil, words = MODEL_FAULTS[name]
    small_model().save(tmp_path / "model", small_tokenizer())
    spoil(tmp_path / "model")
    with pytest.raises(EncoderError, match=words):
        load_model(tmp_path / "model")
    assert cli.main(["predict", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


# Configuration

COMMANDS = {
    "unknown row": (["sweep", "--rows", "3.1, 3.99,"], 1, "unknown row 3.99: choose from 3.1"),
    "row that is a path": (["sweep", "--rows", "../3.1"], 1, "unknown row ../3.1"),
    "row to train": (["train", "9.9"], 1, "unknown row 9.9"),
    "unknown profile": (["sweep", "--profile", "fast"], 2, "invalid choice: 'fast'"),
    "unknown command": (["swep"], 2, "invalid choice: 'swep'"),
    "unknown option": (["sweep", "--row", "3.1", "--colour", "red"], 2, "unrecognized arguments"),
    "seed as text": (["sweep", "--seeds", "1,x"], 1, "seeds '1,x': give whole numbers"),
    "seed fractional": (["sweep", "--seeds", "1.5"], 1, "seeds '1.5'"),
    "seed negative": (["sweep", "--seeds=-1"], 1, "seed = -1: "),
    "seed too large": (["sweep", "--seeds", "9" * 30], 1, "seed = " + "9" * 30),
    "steps negative": (["sweep", "--max-steps=-5"], 1, "max_steps = -5: it must be "),
    "steps as text": (["sweep", "--max-steps", "few"], 2, "invalid int value: 'few'"),
    "jobs negative": (["sweep", "--jobs=-2"], 1, "jobs = -2"),
    "no such corpus": (["sweep", "--data", "nowhere"], 1, "nowhere: no such folder"),
    "no such encoder": (["sweep", "--encoder", "nothing"], 1, "nothing: neither an encoder's name"),
    "no such model": (["predict", "nothing"], 1, "nothing: no heads.json"),
    "encoder to fetch": (["encoder", "fetch", "gpt"], 2, "invalid choice: 'gpt'"),
    "parameter unknown": (["reproduce", "-p", "COLOUR=red"], 1, "unknown parameter COLOUR"),
    "parameter without value": (["reproduce", "-p", "COLOUR"], 2, "'COLOUR' is not NAME=VALUE"),
    "reproduce a row": (["reproduce", "--rows", "9"], 1, "unknown row 9"),
    "reproduce a corpus": (["reproduce", "--data", "nowhere"], 1, "data 'nowhere': no such folder"),
    "notebook unknown": (["notebooks", "99"], 1, "99: choose from 00_"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_refused_by_parameter_and_value(tmp_path, monkeypatch, capsys, name):
    arguments, expected, words = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "sweep":
        arguments = [*arguments, "--store", str(tmp_path / "runs")]
    try:
        status = cli.main(arguments)
    except SystemExit as stop:  # argparse's own way
        status = stop.code
    assert status == expected
    assert words in capsys.readouterr().err
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": float("nan")}, "lr = nan"),
        ({"lr": float("inf")}, "lr = inf"),
        ({"lr": -1e-5}, "lr = -1e-05"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"epochs": 0}, "epochs = 0"),
        ({"max_steps": 0}, "max_steps = 0"),
        ({"max_length": 2}, "max_length = 2"),
        ({"train_sample": -1}, "train_sample = -1"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"smoothness": float("nan")}, "smoothness = nan"),
        ({"penalty": 3.0}, r"penalty .*3\.0: choose "),
        ({"seed": -1}, "seed = -1"),
        ({"weighting": "mgda2"}, "weighting 'mgda2': choose from"),
        ({"heads": {"ner": HeadConfig()}}, "unknown tasks ..ner"),
        ({"row": "../../3.1"}, "row '../../3.1': it names a folder"),
        ({"row": ""}, "row ''"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_an_impossible_value_is_refused_by_name(change, words):
    with pytest.raises(ConfigError, match=words):
        replace(FIGURE_3["3.1"], **change)


@pytest.mark.parametrize("dropout", [(), (1.0,), (-0.1,), (float("nan"),)])
def test_an_impossible_head_is_refused(dropout):
    with pytest.raises(ConfigError, match="one rate in"):
        HeadConfig(dropout)


@pytest.mark.parametrize("seconds", ["soon", "-1", "nan", ""])
def test_impossible_seconds_between_checkpoints_are_refused(tmp_path, monkeypatch, seconds):
    monkeypatch.setenv("MTL_CHECKPOINT_SECONDS", seconds)
    with pytest.raises(ConfigError, match=f"MTL_CHECKPOINT_SECONDS={seconds}: give a number"):
        Checkpoint(tmp_path)


def test_the_tables_hold_eighty_malformed_inputs():
    tables = REFUSED, SKIPPED, ENCODER_FAULTS, MODEL_FAULTS, COMMANDS
    assert sum(map(len, tables)) >= 80


# Generated files: whatever the bytes, a clean result or a declared error. MTL_FUZZ=20000 makes
# twenty thousand of them.

FILES = int(os.environ.get("MTL_FUZZ", 400))
PIECES = [
    b"\t", b"\n", b"\r", b"\r\n", b'"', b'""', b"'", b"\0", b",", b";", b"\xff", b"\xef\xbb\xbf",
    b" ", b"id", b"sentence", b"sentiment", b"3", b"-1", b"nan", b"1e9", b"{", b"}", b"[]", b":",
    b"null", b"\x80\x04", b"PK\x03\x04", "\u2028".encode(), "٣".encode(), b"<script>", b"a" * 3000,
]  # fmt: skip


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to six random changes."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(content) + 1)
        stop = min(len(content), start + rng.choice([0, 1, 1, 8, 200]))
        change = rng.randrange(5)
        if change == 0:
            content[start:stop] = b""
        elif change == 1:
            content[start:start] = rng.choice(PIECES)
        elif change == 2:
            content[start:stop] = rng.randbytes(stop - start)
        elif change == 3:
            content[start:start] = content[start:stop]
        else:
            del content[start:]
    return bytes(content)


def corpus_file(folder: Path) -> None:
    (folder / "ids-sst-dev.csv").write_bytes(HEAD + GOOD + b'x2\t"""So"" , he said"\t0\n' * 3)


def encoder_folder(folder: Path) -> None:
    save_encoder(folder, small_encoder(), small_tokenizer())


def model_folder(folder: Path) -> None:
    small_model().save(folder, small_tokenizer())


def run_folder(folder: Path) -> None:
    from test_store import make_run

    RunStore(folder).put(make_run(key="k"))


def checkpoint_folder(folder: Path) -> None:
    Checkpoint(folder).save({"steps": 3, "weights": {"a": torch.arange(4.0)}})


READERS = {
    "corpus": (corpus_file, load_corpus, 0.6),
    "encoder": (encoder_folder, load_encoder, 0.1),
    "model": (model_folder, load_model, 0.1),
    "run": (run_folder, lambda folder: RunStore(folder).get("k"), 0.1),
    "checkpoint": (checkpoint_folder, lambda folder: Checkpoint(folder).load(), 0.1),
}


@pytest.mark.parametrize("kind", READERS)
def test_any_bytes_give_a_clean_result_or_a_declared_error(tmp_path, kind, capsys):
    make, read, share = READERS[kind]
    make(tmp_path)
    sound, outcomes = contents(tmp_path), {"read": 0, "refused": 0}
    for seed in range(int(FILES * share)):
        rng = random.Random(f"{kind} {seed}")  # the number in a failure's message makes it again
        name = rng.choice([name for name in sound if not name.endswith(".lock")])
        changed = mutated(sound[name], rng)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(changed)
        try:
            read(tmp_path)
            outcomes["read"] += 1
        except HandbookError as error:
            assert str(error)
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{kind} {seed}, {name}: {error!r}") from error
        for path, content in sound.items():  # what was set aside is there, and the sound one again
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(content)
        capsys.readouterr()
    assert min(outcomes.values()) > 0 or kind in ("run", "checkpoint")
