"""The model without torch: it computes what torch computes, and is asked in words."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pdoc.doc
import pytest
import torch

import mtl_lib
from mtl_lib import cli
from mtl_lib.__main__ import main
from mtl_lib.bert import BertConfig, BertModel, attention_scores, split_heads
from mtl_lib.data import PairExample, SentenceExample, tokenize
from mtl_lib.errors import ConfigError, CorpusError, EncoderError
from mtl_lib.evaluation import predict
from mtl_lib.methods.quantized import load_quantized, save_quantized
from mtl_lib.model import FEATURES, HeadConfig, MultitaskModel
from mtl_lib.paths import DATA, ROOT
from mtl_lib.pretrained import load_tokenizer
from mtl_lib.shipped import SENTIMENTS, load, numpy_bert, read_pairs
from mtl_lib.shipped.answers import FINAL
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY, Task

SIZES = BertConfig(
    418, 24, 2, 3, 48, max_position_embeddings=48, initializer_range=0.3, layer_norm_eps=1e-6
)
TEXTS = [
    "A warm and funny film.",
    "Dull.",
    "Nobody in it seems to know why they are there, and neither did I when the lights went on.",
    "It is neither good nor bad; the music is.",
    "Long, longer, longest.",
]
PAIRS = [
    ("How do I learn to swim?", "What is the best way to learn swimming?"),
    ("A dog runs across the field.", "It rains."),
    ("Yes.", "The ferry to the island was late again because of the storm in the night."),
]
COLUMNS = {SENTIMENT: [(text,) for text in TEXTS], PARAPHRASE: PAIRS, SIMILARITY: PAIRS}


def random_model(sentence_vector="pooler", features="concat", seed=0):
    """Every number drawn, biases and LayerNorms too, so that none can be left out unseen."""
    torch.manual_seed(seed)
    dropout, activation = ((0.0,), "relu") if features == "cosine" else ((0.1, 0.2), "leaky_relu")
    pair = HeadConfig(dropout, activation, features)
    heads = {
        SENTIMENT: HeadConfig((0.3, 0.1)),
        PARAPHRASE: HeadConfig((0.3,), features="all" if features == "together" else "concat"),
        SIMILARITY: pair,
    }
    model = MultitaskModel(BertModel(SIZES), heads, sentence_vector)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for parameter in model.heads.parameters():
            parameter.mul_(4)
    return model.eval()


def small_tokenizer():
    tokenizer = load_tokenizer(DATA / "models" / "tiny")
    tokenizer.enable_truncation(20)
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    save_quantized(random_model("mean", "together"), path, small_tokenizer())
    return path


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


def torch_logits(network, task, columns):
    kind = SentenceExample if task.sentences == 1 else PairExample
    examples = [kind(str(i), *texts, None) for i, texts in enumerate(columns)]
    return predict(network, tokenize(examples, task, small_tokenizer()))


def numpy_logits(shipped, columns):
    """By task; all tasks at once, as `Shipped.compare` asks two."""
    encode = shipped.tokenizer.encode
    examples = {
        task.name: [tuple(encode(text).ids for text in texts) for texts in rows]
        for task, rows in columns.items()
    }
    return shipped.model.logits(examples)


def assert_equal_to_torch(folder, columns=COLUMNS):
    network, logits = load_quantized(folder), numpy_logits(load(folder), columns)
    for task, rows in columns.items():
        ours = logits[task.name]
        assert ours.dtype == np.float32 and ours.std() > 0.01
        np.testing.assert_allclose(ours, torch_logits(network, task, rows), atol=1e-4)


# What it computes


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("sentence_vector", ["pooler", "mean", "cls", "cls+mean"])
def test_outputs_equal_those_of_torch_on_ragged_texts(tmp_path, sentence_vector, features):
    save_quantized(random_model(sentence_vector, features), tmp_path, small_tokenizer())
    assert_equal_to_torch(tmp_path)


def test_outputs_do_not_depend_on_how_texts_are_batched(folder, model, monkeypatch):
    whole = numpy_logits(model, COLUMNS)
    for tokens in (1, 30, 50):
        monkeypatch.setattr(numpy_bert, "BATCH_TOKENS", tokens)
        for task, logits in numpy_logits(model, COLUMNS).items():
            np.testing.assert_allclose(logits, whole[task], atol=1e-5)


def test_a_batch_holds_no_more_tokens_than_it_may(monkeypatch):
    monkeypatch.setattr(numpy_bert, "BATCH_TOKENS", 12)
    readings = [numpy_bert.Reading((1,) * length, length) for length in (20, 6, 5, 4, 3, 3, 2)]
    cut = [[len(one.ids) for one in batch] for batch in numpy_bert.batches(readings)]
    assert cut == [[20], [6, 5], [4, 3, 3], [2]]


def test_a_sequence_that_two_heads_read_is_encoded_once(model, monkeypatch):
    encoded = []
    vectors = model.model.vectors
    monkeypatch.setattr(
        model.model, "vectors", lambda batch: encoded.extend(batch) or vectors(batch)
    )
    pairs = [(PAIRS[0][0], PAIRS[0][1]), (PAIRS[0][0], PAIRS[1][1])]
    numpy_logits(model, {PARAPHRASE: pairs, SIMILARITY: pairs})
    assert len(encoded) == len(set(encoded)) == 2 + 3  # pairs, and sentences by themselves


def test_a_folder_that_was_saved_in_float32_is_read_as_well(tmp_path):
    network = random_model("pooler", "compare")
    network.save(tmp_path, small_tokenizer())
    logits = numpy_logits(load(tmp_path), COLUMNS)
    for task, rows in COLUMNS.items():
        expected = torch_logits(network, task, rows)
        np.testing.assert_allclose(logits[task.name], expected, atol=1e-4)


def test_the_gelu_is_the_exact_one_to_float32():
    x = np.linspace(-12, 12, 200_001, dtype=np.float32)
    exact = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(numpy_bert.gelu(x) - exact).max() < 1e-6


@pytest.mark.parametrize("text", [TEXTS[2], PAIRS[2]], ids=["text", "pair"])
def test_attention_is_the_softmax_that_torch_computes(folder, model, text):
    network, found = load_quantized(folder), []

    def remember(module, inputs):
        query, key = (split_heads(f(inputs[0]), module.heads) for f in (module.query, module.key))
        found.append(attention_scores(query, key).softmax(dim=-1)[0])

    for layer in network.encoder.encoder.layer:
        layer.attention.self.register_forward_pre_hook(remember)
    columns = [(text,)] if isinstance(text, str) else [text]
    torch_logits(network, SENTIMENT if isinstance(text, str) else SIMILARITY, columns)
    tokens, attention = model.attention(text)
    assert attention.shape == (2, 3, len(tokens), len(tokens))
    np.testing.assert_allclose(attention, torch.stack(found).numpy(), atol=1e-5)


def test_attention_names_its_tokens(model):
    assert model.attention("film film")[0][:2] == ["[CLS]", "film"]
    tokens, _ = model.attention(("film", "film"))
    assert tokens == ["[CLS]", "film", "[SEP]", "film", "[SEP]"]


# What it says


def test_sentiment_is_the_likeliest_class_with_the_softmax_of_all(folder, model):
    logits = torch.from_numpy(torch_logits(load_quantized(folder), SENTIMENT, COLUMNS[SENTIMENT]))
    for (label, shares), row in zip(model.sentiment(TEXTS), logits, strict=True):
        np.testing.assert_allclose(shares, row.softmax(0).numpy(), atol=1e-5)
        assert label == SENTIMENTS[row.argmax()]


def test_a_pair_has_the_mean_of_both_orders(folder, model):
    network = load_quantized(folder)
    turned = [(second, first) for first, second in PAIRS]
    means = {
        task: (torch_logits(network, task, PAIRS) + torch_logits(network, task, turned))[:, 0] / 2
        for task in (PARAPHRASE, SIMILARITY)
    }
    probabilities, scores = zip(*model.compare(PAIRS), strict=True)
    expected = torch.from_numpy(means[PARAPHRASE]).sigmoid().numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(scores, means[SIMILARITY].clip(0, 5), atol=1e-4)


def test_a_pair_and_its_turn_have_the_same_answer_where_one_order_has_not(folder, model):
    turned = [(second, first) for first, second in PAIRS]
    one = numpy_logits(model, {SIMILARITY: PAIRS})["similarity"]
    other = numpy_logits(model, {SIMILARITY: turned})["similarity"]
    assert np.abs(one - other).min() > 0.01
    np.testing.assert_allclose(model.compare(PAIRS), model.compare(turned), atol=1e-5)


def test_a_similarity_stays_within_0_and_5(tmp_path):
    network = random_model()
    network.heads["similarity"].linears[-1].bias.data.fill_(90.0)
    network.save(tmp_path, small_tokenizer())
    assert [score for _, score in load(tmp_path).compare(PAIRS)] == [5, 5, 5]


def test_answers_come_in_the_order_of_the_questions_over_many_chunks(model, monkeypatch):
    whole = model.compare(PAIRS)
    monkeypatch.setattr("mtl_lib.shipped.answers.CHUNK", 2)
    np.testing.assert_allclose(model.compare(PAIRS), whole, atol=1e-5)
    assert len(model.sentiment(TEXTS)) == len(TEXTS)
    assert model.compare([]) == []


def test_a_text_is_cut_where_the_tokenizer_was_saved_to_cut(model):
    tokens, _ = model.attention("film " * 100)
    assert len(tokens) == 20 and tokens[-1] == "[SEP]"


def test_the_padding_of_a_saved_tokenizer_is_not_read(tmp_path):
    tokenizer = small_tokenizer()
    tokenizer.enable_padding(length=20)
    save_quantized(random_model(), tmp_path, tokenizer)
    assert_equal_to_torch(tmp_path)
    assert "[PAD]" not in load(tmp_path).attention("film")[0]


def test_without_a_saved_cut_a_text_is_cut_at_what_the_encoder_knows(tmp_path):
    save_quantized(random_model(), tmp_path, load_tokenizer(DATA / "models" / "tiny"))
    path = tmp_path / "tokenizer.json"
    words = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(words | {"truncation": None}), encoding="utf-8")
    assert len(load(tmp_path).attention("film " * 100)[0]) == SIZES.max_position_embeddings


def test_a_pair_that_is_too_long_together_is_refused_with_the_limit(tmp_path):
    tokenizer = load_tokenizer(DATA / "models" / "tiny")
    tokenizer.enable_truncation(40)
    save_quantized(random_model("mean", "together"), tmp_path, tokenizer)
    with pytest.raises(EncoderError, match="79 tokens.*48 positions; shorten"):
        load(tmp_path).compare([("film " * 50, "film " * 50)])


def test_an_empty_text_is_refused(model):
    for ask in (lambda: model.sentiment(["fine", " "]), lambda: model.compare([("", "fine")])):
        with pytest.raises(ConfigError, match="a text is empty"):
            ask()


def test_a_model_without_the_head_says_which_it_has(tmp_path):
    network = MultitaskModel(BertModel(SIZES), {SIMILARITY: HeadConfig()})
    save_quantized(network, tmp_path, small_tokenizer())
    with pytest.raises(ConfigError, match=r"no head for sentiment \(it has: similarity\)"):
        load(tmp_path).sentiment(TEXTS)


# Damaged folders


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copied")


NAMES = ["config.json", "heads.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(EncoderError, match=name.replace(".", r"\.")):
        load(copied)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_with_the_folder_and_the_remedy(copied, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(EncoderError, match="copied.*save the model"):
        load(copied)


@pytest.mark.parametrize(
    ("sentence_vector", "file"), [("mean", "model.safetensors"), ("cls+mean", "heads.json")]
)
def test_files_of_two_models_do_not_fit(copied, tmp_path, sentence_vector, file):
    other = tmp_path / "other"
    sizes = BertConfig(418, 48, 2, 3, 96) if file.startswith("model") else SIZES
    save_quantized(
        MultitaskModel(BertModel(sizes), {SENTIMENT: HeadConfig((0.1,))}, sentence_vector), other
    )
    shutil.copy(other / file, copied / file)
    with pytest.raises(EncoderError, match="not of the same model"):
        load(copied)


def test_a_tokenizer_of_more_words_than_the_encoder_is_refused(copied):
    tokenizer = small_tokenizer()
    tokenizer.add_tokens(["handbook"])
    tokenizer.save(str(copied / "tokenizer.json"))
    with pytest.raises(EncoderError, match="419 tokens, but the encoder knows 418"):
        load(copied)


# Files of pairs


def written(tmp_path, content, name="pairs.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


READABLE = {
    "no header": "one,two\nthree,four\n",
    "the header of the answers": "first,second\none,two\nthree,four\n",
    "the header of the class": "id\tSentence1\tsentence2\n7\tone\ttwo\n8\tthree\tfour\n",
    "columns in another order": "second,first\ntwo,one\nfour,three\n",
    "the header of Quora": "id,question1,question2\n7,one,two\n8,three,four\n",
    "tabs": "one\ttwo\nthree\tfour\n",
    "a mark of the byte order": "\ufefffirst,second\none,two\nthree,four\n",
    "Windows' line ends": "one,two\r\nthree,four\r\n",
    "empty lines": "\none,two\n\n\nthree,four\n\n",
    "no line end": "one,two\nthree,four",
    "quotes": '"one","two"\n"three",four\n',
}


@pytest.mark.parametrize("content", READABLE.values(), ids=READABLE)
def test_pairs_are_read_from_a_file_with(tmp_path, content):
    assert read_pairs(written(tmp_path, content)) == [("one", "two"), ("three", "four")]


def test_a_quoted_text_holds_commas_quotes_and_line_breaks(tmp_path):
    path = written(tmp_path, '"Yes, ""indeed"".","two\nlines"\n')
    assert read_pairs(path) == [('Yes, "indeed".', "two\nlines")]


REFUSED = {
    "too many columns": ("one,two\nthree,four,five\n", "line 2: 3 columns, but .* has 2; .*quotes"),
    "too few columns": ("one,two\n\nthree\n", "line 3: 1 columns, but .* has 2"),
    "one column": ("one\ntwo\n", "line 1: one column; separate two texts by a comma or tab"),
    "an empty text": ("first,second\none, \n", "line 2: a text is empty"),
    "three columns without names": (
        "7,one,two\n8,three,four\n",
        "line 1: 3 columns, and no header",
    ),
    "nothing": ("", "no pairs in it"),
    "a header alone": ("first,second\n", "no pairs in it"),
    "Latin letters of 8 bits": (b"one,two\nthr\xe9e,four\n", "line 2: not UTF-8; save"),
    "an open quote": ('one,two\n"three,four\n', "line 2: unexpected end of data; double"),
    "words behind a quote": (
        'one,two\n"three" words,four\n',
        "line 2: .* expected after .*; double",
    ),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_is_refused_with_its_line_for(tmp_path, content, message):
    with pytest.raises(CorpusError, match=f"pairs.csv(, |: ){message}"):
        read_pairs(written(tmp_path, content))


# The command


def test_mtl_predict_prints_the_sentiment_of_each_text(folder, model, capsys):
    assert main(["predict", str(folder), "--text", TEXTS[0], f"--text={TEXTS[1]}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (first, shares), (second, _) = model.sentiment(TEXTS[:2])
    assert lines[::2] == [f"{first}: {TEXTS[0]}", f"{second}: {TEXTS[1]}"]
    expected = zip(SENTIMENTS, shares, strict=True)
    assert lines[1].strip() == ", ".join(f"{name} {share:.2f}" for name, share in expected)


def test_mtl_predict_prints_pairs_as_csv_that_it_can_read_again(folder, model, tmp_path, capsys):
    pairs = [*PAIRS, ('He said "no, never".', "He declined.")]
    path = tmp_path / "pairs.tsv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(pairs)
    assert main(["predict", "--pairs", str(path), str(folder)]) == 0
    printed = capsys.readouterr().out
    header, *rows = csv.reader(printed.splitlines())
    assert header == ["first", "second", "paraphrase", "similarity"]
    assert [(first, second) for first, second, *_ in rows] == pairs
    answers = [[float(number) for number in row[2:]] for row in rows]
    np.testing.assert_allclose(answers, model.compare(pairs), atol=1e-4)
    assert read_pairs(written(tmp_path, printed, "again.csv")) == pairs


def test_mtl_predict_writes_pairs_to_a_file_with_out(folder, tmp_path, capsys):
    path = written(tmp_path, "Größe,大小\n")
    out = tmp_path / "new" / "answers.csv"
    assert main(["predict", str(folder), "--pairs", str(path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == ""
    assert out.read_bytes().startswith("first,second,paraphrase,similarity\nGröße,大小,".encode())


@pytest.mark.parametrize("question", ["text", "pairs"])
def test_an_answer_imports_neither_torch_nor_pandas_nor_scipy(folder, tmp_path, question):
    asked = "Dull." if question == "text" else str(written(tmp_path, "one,two\n"))
    code = (
        "import json, sys; from mtl_lib.__main__ import main; status = main(sys.argv[1:]);"
        "print(json.dumps(list(sys.modules)), file=sys.stderr); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "predict", str(folder), f"--{question}", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert "numpy" in loaded and not loaded & {"torch", "pandas", "scipy", "sklearn", "tqdm"}
    assert not {"mtl_lib.cli", "mtl_lib.bert"} & set(json.loads(done.stderr))


def test_python_m_answers(folder):
    command = [sys.executable, "-m", "mtl_lib", "predict", str(folder), "--text", "Dull."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.split(":")[0] in SENTIMENTS, done.stderr


def test_the_whole_command_answers_alike_and_shows_the_options(folder, capsys):
    question = ["predict", str(folder), "--text", "Dull."]
    assert main(question) == cli.main(question) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == lines[2:]
    with pytest.raises(SystemExit):
        main(["predict", "--text", "Dull.", "--help"])
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--text", "--pairs", "--data", "--split", "--out"))


FAULTS = {
    "no model": (["nowhere", "--text", "Dull."], "nowhere: no config.json; give a folder"),
    "an empty text": (["MODEL", "--text", " "], "a text is empty"),
    "no such file": (["MODEL", "--pairs", "nowhere.csv"], "nowhere.csv: No such file"),
    "a folder for the pairs": (["MODEL", "--pairs", "p.csv", "--out", "."], "--out .: a folder"),
    "an answer to a text in a file": (["MODEL", "--text", "a", "--out", "b"], "leave --out out"),
    "a corpus as well": (["MODEL", "--text", "a", "--data", "there"], "--data and --split name"),
    "nothing to predict": ([], "or --text TEXT, or --pairs FILE"),
}


@pytest.mark.parametrize(("arguments", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_line_on_stderr(folder, arguments, message, capsys):
    given = [str(folder) if word == "MODEL" else word for word in arguments]
    assert main(["predict", *given]) == 1
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.startswith("mtl: ") and message in output.err


def test_a_text_and_a_file_are_not_asked_at_once(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--text", "a", "--pairs", "b"])
    assert stop.value.code == 2 and "not allowed with" in capsys.readouterr().err


def test_every_other_command_goes_to_the_whole_one(monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "main", lambda arguments: seen.append(arguments) or 7)
    given = [["train", "3.2"], ["predict", "folder"], ["predict", "--te", "a"], ["--text"], []]
    assert [main(arguments) for arguments in given] == [7] * 5 and seen == given


def test_the_model_is_the_shipped_one_by_default():
    assert FINAL == ROOT / "data" / "models" / "final"


# The front of the library


def test_importing_the_front_imports_no_torch():
    code = "import sys, mtl_lib, mtl_lib.shipped; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_public_name_is_found_listed_and_that_of_its_module():
    assert sorted(mtl_lib.__all__) == sorted(mtl_lib._HOME)
    assert set(mtl_lib.__all__) | {"__version__", "trainer"} <= set(dir(mtl_lib))
    everything = {}
    exec("from mtl_lib import *", everything)
    assert everything.keys() - {"__builtins__"} == set(mtl_lib.__all__)
    for name in mtl_lib.__all__:
        found = getattr(mtl_lib, name)
        assert found is everything[name]
        if isinstance(found, type):
            assert found.__name__ == name and found.__module__ == f"mtl_lib.{mtl_lib._HOME[name]}"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'mtl_lib' has no attribute 'Trainr'"):
        _ = mtl_lib.Trainr
    with pytest.raises(ImportError, match="Trainr"):
        exec("from mtl_lib import Trainr")


def test_the_reference_lists_every_public_name():
    """As `make docs` calls pdoc, which lists what is in the module."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-c 'from mtl_lib import *; from pdoc.__main__ import cli; cli()'" in recipe
    exec("from mtl_lib import *")
    assert {member.name for member in pdoc.doc.Module(mtl_lib).flattened_own_members} >= {
        *mtl_lib.__all__
    }


@pytest.mark.parametrize("text", ["caf\udce9", "\ud83d"])
def test_a_text_of_half_a_letter_is_refused_in_words(model, text):
    with pytest.raises(ConfigError, match="not UTF-8"):
        model.sentiment([text])


def test_one_text_in_place_of_a_list_is_refused(model):
    with pytest.raises(ConfigError, match="a list of texts"):
        model.sentiment("good")


def test_a_head_of_another_width_is_refused_not_read_as_shades(tmp_path):
    task = Task("sentiment", outputs=3)
    network = MultitaskModel(BertModel(SIZES), {task: HeadConfig()}, "mean")
    save_quantized(network, tmp_path, small_tokenizer())
    with pytest.raises(ConfigError, match="sentiment has 3 outputs, not 5"):
        load(tmp_path).sentiment(["good"])
