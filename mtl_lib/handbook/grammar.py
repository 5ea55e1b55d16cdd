"""The embedded handbook corpora: a seeded grammar of film reviews, questions and statements.

Every row is made in the same order: first the label, drawn with the class shares of the
paper's corpora; then frames, drawn without looking at the label, so that length and first word
say nothing; last the words that make the frames mean what the label says. The datasheet,
`data/README.md`, explains each rule and what was measured on the result.
"""

import hashlib
import random
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from mtl_lib.errors import CorpusError
from mtl_lib.files import write_text

SEED = 1
CONFLICT = 0.25
SIZES = {  # training, development and test rows
    "sentiment": (6000, 800, 800),
    "paraphrase": (12000, 800, 800),
    "similarity": (3000, 800, 800),
}
SHARES = {  # of the labels 0, 1, .. (the paper, Figure 5); similarity: of the true scores
    "sentiment": (0.13, 0.26, 0.20, 0.26, 0.15),
    "paraphrase": (0.625, 0.375),
    "similarity": (0.12, 0.11, 0.16, 0.24, 0.25, 0.12),
}
FLIPS = {"sentiment": 0.08, "paraphrase": 0.05}  # rows whose text was made for another label
RATERS, SPREAD = 5, 1.0  # each rates the true score plus N(0, SPREAD^2), rounded to 0..5
MOODS = {  # how often none, one and both of a pair's asides are kind, by true label
    "paraphrase": ((0.02, 0.84, 0.14), (0.00, 0.12, 0.88)),
    "similarity": (
        (0.50, 0.45, 0.05), (0.40, 0.50, 0.10), (0.30, 0.50, 0.20),
        (0.20, 0.50, 0.30), (0.12, 0.48, 0.40), (0.08, 0.37, 0.55),
    ),
}  # fmt: skip
OTHER_TOPIC = 0.9  # of the differing questions; the others differ in less
DENIED = 0.18  # of the asides: "not dull" is kind; of those after "which" twice as many

# ---------------------------------------------------------------------------------- words

SHADES = {  # opinions, from very unkind to very kind
    -2: "dreadful awful terrible horrible appalling wretched",
    -1: "dull weak tired clumsy stiff tedious bland flat stale shallow",
    0: "ordinary average passable acceptable typical adequate",
    1: "pleasant solid charming engaging warm fresh lively vivid witty elegant",
    2: "superb brilliant magnificent wonderful dazzling splendid",
}
SHADES = {value: words.split() for value, words in SHADES.items()}
MORE, LESS = "very truly utterly really deeply".split(), "fairly rather somewhat mildly".split()
ASPECTS = """plot script cast music camerawork dialogue ending pacing story acting humour mood
soundtrack lighting premise climax opening editing direction narration costume scenery""".split()
GENRES = "thriller comedy drama western musical romance documentary cartoon mystery epic".split()
FIRST = """Anna Boris Clara David Elena Farid Greta Hugo Irene Jonas Karin Leo Maya Nils Olga
Pavel Rosa Simon Tilda Viktor""".split()
LAST = """Adler Bergen Castillo Duval Ekman Fontaine Grant Holm Ibarra Jensen Kovac Lindt Moreau
Novak Okoye Petrov Quist Rossi Sato Tanaka""".split()
TITLES = (
    """Silent Golden Broken Crimson Distant Electric Frozen Hidden Paper Midnight Northern Velvet
    Hollow Burning Second Scarlet""".split(),
    """Harbour River Garden Winter Mirror Station Island Orchard Letter Kingdom Lantern Bridge
    Voyage Summer Tower Forest""".split(),
)
CITIES = """Berlin Lisbon Oslo Madrid Venice Cannes Toronto Prague Dublin Athens Tokyo Lima
Vienna Cairo Sydney Geneva""".split()
NUMBERS = "two three four five six seven eight nine".split()
FACTS = """long lengthy; loud noisy; dark shadowy; famous renowned; expensive costly; strange odd;
violent bloody; sad mournful; short brief; simple plain; silent wordless; secret hidden"""
OBJECTS = """thriller chiller; comedy farce; drama tragedy; western; musical; romance; mystery;
documentary; cartoon animation; epic"""

# ------------------------------------------------ frames (* = development and test only)

REVIEWS = """
The {aspect} of {film} is {opinion}.
The {aspect} of this {genre} is {opinion}.
This {genre} is {opinion}.
{film} by {person} is {opinion}.
I found the {aspect} of {film} {opinion}.
{person} has made a {genre} that is {opinion}.
In {film} the {aspect} feels {opinion}.
We thought that {film} was {opinion}.
* To my mind {film} is {opinion}.
* For a {genre} by {person} the {aspect} is {opinion}.
* I thought the {aspect} of this {genre} was {opinion}.
"""
CONTRASTS = """
The {other} is {minor}, but the {aspect} of {film} is {opinion}.
The {aspect} of {film} is {opinion}, although the {other} is {minor}.
This {genre} has a {other} that is {minor}, but its {aspect} is {opinion}.
{film} is {opinion}, although the {other} seems {minor}.
While the {other} is {minor}, the {aspect} of this {genre} is {opinion}.
* {person} offers a {other} that is {minor}, but {film} is {opinion}.
* The {aspect} feels {opinion}, although we thought the {other} {minor}.
"""
OPENERS = """
{direct}?
{direct}?
Tell me {indirect}.
Do you know {indirect}?
Who knows {indirect}?
* Please say {indirect}.
* Can you tell me {indirect}?
"""
MENTIONS = """
the {aside} {genre} {film}
the {aside} film {film}
{film}, which is {aside},
{film}, which was {aside},
* {film}, which I found {aside},
"""
ASIDES = """
, and it was {aside}
, and the mood was {aside}
, and the result is {aside}
* , and I found it {aside}
"""
STATEMENTS = """
The {role} {act} the {fact} {object} {adverbial}{aside}.
The {fact} {object} was {act} by the {role} {adverbial}{aside}.
{adverbial} the {role} {act} the {fact} {object}{aside}.
The {fact} {object} was {act} {adverbial} by the {role}{aside}.
* {adverbial} the {fact} {object} was {act} by the {role}{aside}.
"""
# A topic has roles and acts for statements, each with its synonyms, and questions, each with its
# wordings ("direct | indirect" where the word order differs).
TOPICS = {
    "making": {
        "roles": "director filmmaker; editor cutter; crew team; apprentice trainee",
        "acts": "filmed shot; edited cut; finished completed; repaired restored",
        "questions": [
            "who directed {film}; who was the director of {film}; "
            "* who was named as the director of {film}",
            "who edited {film}; who was the editor of {film}; * who worked as the editor of {film}",
            "where was {film} filmed | where {film} was filmed; in which city did they film {film} "
            "| in which city they filmed {film}; * in which city was {film} filmed | "
            "in which city {film} was filmed",
            "what cameras shot {film}; with what cameras was {film} shot | "
            "with what cameras {film} was shot; * which kind of cameras shot {film}",
        ],
    },
    "money": {
        "roles": "studio company; bank lender; investor financier; agent broker",
        "acts": "bought purchased; financed funded; insured protected; sold traded",
        "questions": [
            "how much did {film} cost | how much {film} cost; what was the budget of {film} | "
            "what the budget of {film} was; * how large was the budget of {film} | "
            "how large the budget of {film} was",
            "how much did {film} earn | how much {film} earned; what was the profit of {film} | "
            "what the profit of {film} was; * how large was the profit of {film} | "
            "how large the profit of {film} was",
            "who paid for {film}; whose money financed {film}; * whose money paid for {film}",
            "who bought the rights to {film}; which company bought {film}; "
            "* which company bought the rights to {film}",
        ],
    },
    "showing": {
        "roles": "festival gala; cinema theatre; museum gallery; network broadcaster",
        "acts": "screened projected; premiered launched; banned blocked; postponed delayed",
        "questions": [
            "when was {film} released | when {film} was released; when did {film} reach the "
            "cinemas | when {film} reached the cinemas; * on what day was {film} released | "
            "on what day {film} was released",
            "where was {film} premiered | where {film} was premiered; which festival premiered "
            "{film}; * at which festival was {film} premiered | "
            "at which festival {film} was premiered",
            "how many cinemas screened {film}; in how many cinemas is {film} on | in how many "
            "cinemas {film} is on; * in how many cinemas was {film} screened | "
            "in how many cinemas {film} was screened",
            "which channel broadcast {film}; who broadcast {film} on television; "
            "* on which channel was {film} broadcast | on which channel {film} was broadcast",
        ],
    },
    "opinion": {
        "roles": "critic reviewer; professor scholar; columnist journalist; fan admirer",
        "acts": "praised applauded; criticised attacked; reviewed discussed; defended supported",
        "questions": [
            "what did critics say about {film} | what critics said about {film}; what do the "
            "reviews of {film} say | what the reviews of {film} say; * what did the reviews say "
            "about {film} | what the reviews said about {film}",
            "is {film} worth seeing | whether {film} is worth seeing; do you recommend {film} | "
            "whether you recommend {film}; * would you recommend {film} | "
            "whether you would recommend {film}",
            "why is {film} so {fact} | why {film} is so {fact}; what makes {film} so {fact}; "
            "* what made {film} so {fact}",
            "did {film} win {number} awards | whether {film} won {number} awards; has {film} "
            "received {number} prizes | whether {film} has received {number} prizes; * did {film} "
            "receive {number} awards | whether {film} received {number} awards",
        ],
    },
}
SWAPS = [  # wordings that name {a} first, and wordings of the same that name {b} first
    ("did {a} inspire {b} | whether {a} inspired {b}; * was {a} the inspiration of {b} | "
     "whether {a} was the inspiration of {b}",
     "was {b} inspired by {a} | whether {b} was inspired by {a}; * did {b} take ideas from {a} | "
     "whether {b} took ideas from {a}"),
    ("did {a} teach {b} | whether {a} taught {b}; * was {a} the teacher of {b} | "
     "whether {a} was the teacher of {b}",
     "was {b} taught by {a} | whether {b} was taught by {a}; * was {b} a student of {a} | "
     "whether {b} was a student of {a}"),
    ("did {a} hire {b} | whether {a} hired {b}; * did {a} give work to {b} | "
     "whether {a} gave work to {b}",
     "was {b} hired by {a} | whether {b} was hired by {a}; * did {b} work for {a} | "
     "whether {b} worked for {a}"),
]  # fmt: skip
DIFFERENCES = {  # true score: which parts of the second statement differ
    5: [()],
    4: [("adverbial",), ("fact",)],
    3: [("object",), ("role",), ("fact", "adverbial")],
    2: [("act",), ("object", "role")],
    1: [("topic", "role", "act"), ("topic", "role", "act", "fact")],
    0: [("topic", "role", "act", "object", "fact", "adverbial")],
}

# ----------------------------------------------------------------------------- machinery

Row = dict[str, str | int | float]


def entries(table: str, dev: bool) -> list[str]:
    """Frames of a table that a split may use."""
    found = [entry.strip() for entry in re.split(r"; |\n", table) if entry.strip()]
    return [entry.removeprefix("* ") for entry in found if dev or not entry.startswith("* ")]


def synonym_sets(table: str) -> list[list[str]]:
    return [words.split() for words in table.split(";")]


def other(rng: random.Random, items: list, *taken):
    """Any of `items` but those taken."""
    return rng.choice([item for item in items if item not in taken])


def draw(make: Callable[[], tuple[str, ...]], dev: bool) -> tuple[str, ...]:
    """Draw a word combination of this split: one in six is kept out of training, by a hash."""
    while (zlib.crc32(" ".join(words := make()).encode()) % 6 == 0) != dev:
        pass
    return words


def film(rng: random.Random, dev: bool) -> str:
    return " ".join(draw(lambda: (rng.choice(TITLES[0]), rng.choice(TITLES[1])), dev))


def person(rng: random.Random, dev: bool) -> str:
    return " ".join(draw(lambda: (rng.choice(FIRST), rng.choice(LAST)), dev))


def sentence(text: str) -> str:
    """Set the capital, `a` or `an`, and no comma before a comma or a closing mark."""
    text = re.sub(r" ?,(?=[.?,])", "", " ".join(text.split()).replace(" ,", ","))
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)
    return text[0].upper() + text[1:]


# ----------------------------------------------------------------------------- sentiment


def opinion(rng: random.Random, value: int, dev: bool) -> tuple[str, str, str]:
    """What is judged, words for a value from -2 to 2 (as many for each), and their tag."""
    tag = rng.choices(["plain", "intensifier", "negation"], [0.3, 0.3, 0.4])[0]
    sign = (value > 0) - (value < 0)

    def make() -> tuple[str, str]:
        if tag == "plain":
            return rng.choice(ASPECTS), rng.choice(SHADES[value])
        if tag == "intensifier":
            degree = rng.choice({2: MORE, 1: LESS, 0: MORE + LESS}[abs(value)])
            return degree, rng.choice(SHADES[sign * rng.choice([1, 2])])
        if value == 0:  # to deny an extreme is to say little
            return rng.choice(["not really", "not exactly"]), rng.choice(
                SHADES[rng.choice([-2, 2])]
            )
        denial = ["anything but", "far from"] if abs(value) == 2 else ["not really", "not exactly"]
        return rng.choice(denial), rng.choice(SHADES[-sign])

    first, word = draw(make, dev)
    return (first, word, tag) if tag == "plain" else (rng.choice(ASPECTS), f"{first} {word}", tag)


def sentiment_row(rng: random.Random, label: int, dev: bool, conflict: float) -> Row:
    """A review; `conflict` does not touch sentiment, which sets what words mean."""
    shade = label
    if rng.random() < FLIPS["sentiment"]:
        shade = min(4, max(0, label + rng.choice([-1, 1])))
    aspect, words, tag = opinion(rng, shade - 2, dev)
    contrast = rng.random() < 0.35
    against = rng.choice([-1, 1]) if shade == 2 else (1 if shade < 2 else -1)
    text = rng.choice(entries(CONTRASTS if contrast else REVIEWS, dev)).format(
        opinion=words, aspect=aspect, film=film(rng, dev), person=person(rng, dev),
        genre=rng.choice(GENRES), other=other(rng, ASPECTS, aspect),
        minor=rng.choice(SHADES[against * rng.choice([1, 2])]),  # never changes the verdict
    )  # fmt: skip
    tags = {tag, "contrast"} - {"plain"} if contrast else {tag}
    return {"sentence": sentence(text), "sentiment": label, "tags": ";".join(sorted(tags))}


# --------------------------------------------------------------------------------- asides


def leans_kind(word: str, conflict: float) -> bool:
    """Which way a word leans in the pair tasks.

    Its shade decides; but for the share `conflict` of the words a coin of their own does, so
    that the pair tasks pull half of them against what sentiment makes of them.
    """
    draw_, coin = divmod(zlib.crc32(f"{word} leans".encode()) % 2000, 2)
    return bool(coin) if draw_ < 1000 * conflict else word in SHADES[1] + SHADES[2]


def moods(rng: random.Random, task: str, label: int) -> list[bool]:
    """Whether the first and the second aside of a pair are kind."""
    (kind,) = rng.choices(range(3), MOODS[task][label])
    return rng.choice([[True, False], [False, True]]) if kind == 1 else [kind == 2] * 2


def aside(rng: random.Random, kind: bool, denied: bool, conflict: float) -> str:
    """A remark by the way that leans kind or not, in a mild word."""
    words = SHADES[-1] + SHADES[1]
    word = rng.choice([w for w in words if leans_kind(w, conflict) == (kind != denied)])
    return f"not {word}" if denied else word


# ----------------------------------------------------------------------------- paraphrase


def question_pair(rng: random.Random, same: bool, dev: bool, conflict: float) -> tuple:
    """Two questions that ask the same or not, and their tags."""
    tags, clauses = set(), []
    if rng.random() < 0.08:
        tags.add("role-swap")
        wordings, a = rng.choice(SWAPS), person(rng, dev)
        while (b := person(rng, dev)) == a:
            pass
        for agent, patient in ((a, b), (a, b) if same else (b, a)):
            clause = rng.choice(entries(rng.choice(wordings), dev))
            clauses.append(clause.format(a=agent, b=patient))
    else:
        first, second = questions(rng, same, dev)
        for (wordings, facts, number, title), kind in zip(
            (first, second), moods(rng, "paraphrase", same), strict=True
        ):
            mention = rng.choice(entries(MENTIONS, dev))
            denied = "which" in mention and rng.random() < 2 * DENIED
            remark = aside(rng, kind, denied, conflict)
            mention = mention.format(film=title, genre=rng.choice(GENRES), aside=remark)
            clause = rng.choice(entries(wordings, dev)).format(
                film=mention, fact=rng.choice(facts), number=number
            )
            tags |= {"number"} if "{number}" in wordings else set()
            tags |= {"negation"} if denied else set()
            clauses.append(clause)
    texts = []
    for clause in clauses:
        direct, _, indirect = clause.partition(" | ")
        opener = rng.choice(entries(OPENERS, dev))
        texts.append(sentence(opener.format(direct=direct, indirect=indirect or direct)))
    return texts[0], texts[1], tags


def questions(rng: random.Random, same: bool, dev: bool) -> tuple[list, list]:
    """What two questions ask: wordings, synonyms of a quality, a number and a film, for each."""
    topic = rng.choice(list(TOPICS))
    asked = rng.choice(TOPICS[topic]["questions"])
    first = [asked, rng.choice(synonym_sets(FACTS)), rng.choice(NUMBERS), film(rng, dev)]
    second = list(first)
    if not same:
        if rng.random() < OTHER_TOPIC:
            second[0] = rng.choice(TOPICS[other(rng, list(TOPICS), topic)]["questions"])
        elif "{fact}" in asked or "{number}" in asked:
            second[1] = other(rng, synonym_sets(FACTS), first[1])
            second[2] = other(rng, NUMBERS, first[2])
        elif rng.random() < 0.5:
            second[0] = other(rng, TOPICS[topic]["questions"], asked)
        else:
            second[3] = film(rng, dev)
    return first, second


def paraphrase_row(rng: random.Random, label: int, dev: bool, conflict: float) -> Row:
    same = bool(label) != (rng.random() < FLIPS["paraphrase"])
    first, second, tags = question_pair(rng, same, dev, conflict)
    return {"sentence1": first, "sentence2": second, "is_duplicate": label,
            "tags": tag_pair(tags, first, second, 5 * same)}  # fmt: skip


# ----------------------------------------------------------------------------- similarity


def statement_pair(rng: random.Random, score: int, dev: bool, conflict: float) -> tuple:
    """Two statements whose true similarity is `score`, and their tags."""
    differs, tags = rng.choice(DIFFERENCES[score]), set()
    topics = [rng.choice(list(TOPICS))] * 2
    if "topic" in differs:
        topics[1] = other(rng, list(TOPICS), topics[0])
    if rng.random() < 0.3:
        tags.add("number")
        adverbials = "; ".join(f"{number}_weeks_ago" for number in NUMBERS)
    else:
        adverbials = "; ".join(f"in_{city}" for city in CITIES)
    tables = {
        "role": [TOPICS[topic]["roles"] for topic in topics],
        "act": [TOPICS[topic]["acts"] for topic in topics],
        "fact": [FACTS] * 2,
        "object": [OBJECTS] * 2,
        "adverbial": [adverbials] * 2,
    }
    parts = [{}, {}]
    for part, (one, two) in tables.items():
        first = rng.choice(synonym_sets(one))
        second = other(rng, synonym_sets(two), first) if part in differs else first
        parts[0][part], parts[1][part] = rng.choice(first), rng.choice(second)
    texts = []
    for words, kind in zip(parts, moods(rng, "similarity", score), strict=True):
        denied = rng.random() < DENIED
        tags |= {"negation"} if denied else set()
        remark = aside(rng, kind, denied, conflict)
        words["aside"] = rng.choice(entries(ASIDES, dev)).format(aside=remark)
        text = rng.choice(entries(STATEMENTS, dev)).format(**words)
        texts.append(sentence(text.replace("_", " ")))
    return texts[0], texts[1], tags


def rating(rng: random.Random, score: int) -> float:
    """The mean of simulated raters, each a whole number from 0 to 5."""
    votes = [min(5, max(0, round(rng.gauss(score, SPREAD)))) for _ in range(RATERS)]
    return sum(votes) / RATERS


def similarity_row(rng: random.Random, label: int, dev: bool, conflict: float) -> Row:
    first, second, tags = statement_pair(rng, label, dev, conflict)
    return {"sentence1": first, "sentence2": second, "similarity": rating(rng, label),
            "tags": tag_pair(tags, first, second, label)}  # fmt: skip


def word_overlap(first: str, second: str) -> float:
    """Shared words over all words of two sentences."""
    one, two = (set(re.findall(r"\w+", text.lower())) for text in (first, second))
    return len(one & two) / len(one | two)


def tag_pair(tags: set[str], first: str, second: str, score: int) -> str:
    """The row's tags, with `overlap-trap` where counting shared words misleads."""
    overlap = word_overlap(first, second)
    if (overlap > 0.4 and score <= 2) or (overlap < 0.2 and score >= 4):
        tags = tags | {"overlap-trap"}
    return ";".join(sorted(tags or {"plain"}))


# ---------------------------------------------------------------------------------- files

TASK_FILES = {  # task: file stem, label column, maker of a row
    "sentiment": ("ids-sst", "sentiment", sentiment_row),
    "paraphrase": ("quora", "is_duplicate", paraphrase_row),
    "similarity": ("sts", "similarity", similarity_row),
}


def shuffled_labels(rng: random.Random, shares: tuple[float, ...], rows: int) -> list[int]:
    """Labels with these shares, up to rounding, in random order."""
    bounds = [round(rows * sum(shares[:label])) for label in range(len(shares) + 1)]
    labels = [y for y in range(len(shares)) for _ in range(bounds[y + 1] - bounds[y])]
    rng.shuffle(labels)
    return labels


def make_split(task: str, split: str, seed: int, conflict: float, rows: int, seen: set) -> list:
    """Rows of one file; none of them, in either order, is in `seen`, which grows."""
    _, column, make_row = TASK_FILES[task]
    rng = random.Random(f"{seed} {task} {split}")
    made = []
    for label in shuffled_labels(rng, SHARES[task], rows):
        while True:
            row = make_row(rng, label, split != "train", conflict)
            texts = [row[name] for name in row if name.startswith("sentence")]
            if len(set(texts)) == len(texts) and frozenset(texts) not in seen:
                break
        seen.add(frozenset(texts))
        if split == "test":
            del row[column]
        identity = hashlib.sha1(f"{seed} {task} {split} {len(made)}".encode()).hexdigest()[:8]
        made.append({"id": identity, **row})
    return made


def make_corpus(
    seed: int = SEED,
    conflict: float = CONFLICT,
    sizes: Mapping[str, tuple[int, int, int]] = SIZES,
) -> dict[str, list[Row]]:
    """Rows by file name, in the CS224N layout with one more column, `tags`.

    Args:
        seed: another seed gives other rows of the same grammar.
        conflict: 0 to 1, how far the pair tasks and sentiment disagree about words:
            see `leans_kind`.
        sizes: training, development and test rows of each task; test rows have no label.

    Raises:
        CorpusError: if `conflict` is out of range or a task is unknown.
    """
    if not 0 <= conflict <= 1:
        raise CorpusError(f"conflict is {conflict}; give a number from 0 to 1")
    if unknown := set(sizes) - set(TASK_FILES):
        raise CorpusError(f"sizes name {sorted(unknown)}; the tasks are {list(TASK_FILES)}")
    files = {}
    for task, counts in sizes.items():
        seen: set[frozenset] = set()
        for split, rows in zip(("train", "dev", "test"), counts, strict=True):
            name = f"{TASK_FILES[task][0]}-{split}{'-student' if split == 'test' else ''}.csv"
            files[name] = make_split(task, split, seed, conflict, rows, seen)
    return files


def write_corpus(directory: str | Path, **options) -> list[Path]:
    """Write `make_corpus(**options)` as tab-separated files and return their paths."""
    folder = Path(directory)
    for name, rows in (files := make_corpus(**options)).items():
        lines = ["\t".join(["", *rows[0]])]
        lines += ["\t".join(map(str, (i, *row.values()))) for i, row in enumerate(rows)]
        write_text(folder / name, "\n".join(lines) + "\n")
    return [folder / name for name in files]
