"""The embedded handbook corpora: a seeded grammar of film reviews, questions and statements.

Every row is made in the same order: first the label, drawn with the class shares of the
paper's corpora; then a frame, drawn without looking at the label, so that length and first
word say nothing; last the words that make the frame mean what the label says. The
datasheet, `data/README.md`, explains each rule and what was measured on the result.
"""

import hashlib
import os
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mtl_lib.errors import CorpusError

SEED = 1
CONFLICT = 0.5
SIZES = {  # training, development and test rows
    "sentiment": (6000, 800, 800),
    "paraphrase": (12000, 800, 800),
    "similarity": (3000, 800, 800),
}
SHARES = {  # of the labels 0, 1, .. (the paper, Figure 5)
    "sentiment": (0.13, 0.26, 0.20, 0.26, 0.15),
    "paraphrase": (0.625, 0.375),
    "similarity": (0.115, 0.115, 0.17, 0.235, 0.25, 0.115),
}
SENTIMENT_FLIPS = 0.08  # rows whose text has the shade next to the label
PARAPHRASE_FLIPS = 0.05  # rows whose text is made for the other label
RATERS, RATER_SPREAD = 5, 1.0  # standard deviation of one rater around the true score
KIND_ASIDE = {"paraphrase": (0.48, 0.80), "similarity": (0.26, 0.34, 0.42, 0.54, 0.66, 0.74)}
# ^ how often an aside is kind, by label: the only thing one sentence alone gives away

# ---------------------------------------------------------------------------------- words

SHADES = {  # words by strength: -2 very unkind, .., 2 very kind
    -2: "dreadful awful terrible horrible appalling abysmal atrocious wretched",
    -1: "dull weak tired clumsy stiff tedious uneven forgettable thin lifeless",
    0: "ordinary average passable acceptable conventional standard typical adequate",
    1: "pleasant solid charming decent likeable enjoyable engaging warm amusing fresh",
    2: "superb brilliant magnificent wonderful outstanding dazzling splendid masterly",
}
SHADES = {value: words.split() for value, words in SHADES.items()}
CONCEPTS = {  # one meaning, said kindly or unkindly
    "slow": ("calm unhurried", "slow sluggish"),
    "cheap": ("modest thrifty", "cheap shabby"),
    "loud": ("lively spirited", "loud noisy"),
    "odd": ("original unusual", "odd weird"),
    "long": ("grand sweeping", "long endless"),
    "dark": ("moody shadowy", "gloomy dreary"),
    "simple": ("simple clear", "obvious simplistic"),
    "young": ("playful youthful", "childish immature"),
    "soft": ("tender heartfelt", "sentimental soppy"),
    "bold": ("bold daring", "brash reckless"),
    "old": ("classic timeless", "dated stale"),
    "hard": ("intense gripping", "brutal violent"),
    "full": ("rich layered", "cluttered muddled"),
    "grave": ("earnest serious", "preachy solemn"),
    "quiet": ("subtle restrained", "bland flat"),
    "bright": ("vivid colourful", "garish gaudy"),
    "quick": ("brisk nimble", "rushed hasty"),
    "smart": ("clever witty", "smug glib"),
}
CONCEPTS = {name: tuple(w.split() for w in words) for name, words in CONCEPTS.items()}
MORE, LESS = "very truly utterly really deeply".split(), "fairly rather somewhat mildly".split()
ASPECTS = """plot script cast music camerawork dialogue ending pacing story acting humour mood
soundtrack lighting premise climax opening editing direction narration""".split()
GENRES = "thriller comedy drama western musical romance documentary cartoon".split()
FIRST = "Anna Boris Clara David Elena Farid Greta Hugo Irene Jonas Karin Leo Maya Nils".split()
LAST = "Adler Bergen Castillo Duval Ekman Fontaine Grant Holm Ibarra Jensen Kovac Lindt".split()
TITLES = (
    "Silent Golden Broken Crimson Distant Electric Frozen Hidden Paper Midnight Northern Velvet",
    "Harbour River Garden Winter Mirror Station Island Orchard Letter Kingdom Lantern Bridge",
)
TITLES = tuple(words.split() for words in TITLES)
CITIES = "Berlin Lisbon Oslo Madrid Venice Cannes Toronto Prague Dublin Athens Tokyo Lima".split()
NUMBERS = "two three four five six seven eight nine".split()

# ------------------------------------------------------------- frames (* = held out for dev)

REVIEW_FRAMES = """
The {aspect} of {film} is {judgement}.
The {aspect} of this {genre} is {judgement}.
This {genre} by {person} is {judgement} from start to finish.
{film} is {judgement}, and so is the work of {person}.
I found the {aspect} of {film} {judgement}.
{person} has made a {genre} that is {judgement}.
In {film} the {aspect} feels {judgement}.
Most of the {aspect} in this {genre} seems {judgement}.
For a {genre} the {aspect} is {judgement}.
We thought that {film} was {judgement}.
* To my mind {film} is {judgement}.
* The {aspect} that {person} brings to this {genre} is {judgement}.
* {person} gives {film} a feeling that is {judgement}.
* Seen again, the {aspect} of {film} looks {judgement}.
"""
CONTRAST_FRAMES = """
The {minor_aspect} is {minor}, but the {aspect} of {film} is {judgement}.
The {aspect} of {film} is {judgement}, although the {minor_aspect} is {minor}.
This {genre} has a {minor_aspect} that is {minor}, yet its {aspect} is {judgement}.
{film} is {judgement}, even if the {minor_aspect} seems {minor}.
While the {minor_aspect} is {minor}, the {aspect} of this {genre} is {judgement}.
* {person} offers a {minor_aspect} that is {minor}, but {film} is {judgement}.
* The {aspect} feels {judgement} despite a {minor_aspect} that is {minor}.
"""
OPENERS = """
{q}?
{q}?
{q}?
Do you know {i}?
Can anyone tell me {i}?
I would like to know {i}.
Does anybody remember {i}?
Please tell me {i}.
* Could someone say {i}?
* I have been wondering {i}.
"""
MENTIONS = """
the {aside} {genre} {film}
{film}, which is {aside},
{film}, a {genre} that is {aside},
that {aside} film {film}
{film}
* {film}, so {aside} as a {genre},
"""
# Questions in sets whose members are easily confused; "direct|indirect" where they differ.
QUESTIONS = {
    "people": {
        "director": "who directed {f}; who was the director of {f}; which director made {f}; "
        "* who sat in the director's chair for {f}",
        "writer": "who wrote {f}; who was the writer of {f}; which author scripted {f}; "
        "* whose pen was behind {f}",
        "composer": "who composed the music of {f}; who was the composer for {f}; "
        "which musician scored {f}; * whose melodies do we hear in {f}|whose melodies are in {f}",
        "producer": "who produced {f}; who was the producer of {f}; which producer paid for {f}; "
        "* whose money was behind {f}",
    },
    "money": {
        "cost": "how much did {f} cost|how much {f} cost; what was the budget of {f}|"
        "what the budget of {f} was; how expensive was {f}|how expensive {f} was; "
        "* how much was spent on {f}",
        "earned": "how much did {f} earn|how much {f} earned; what were the earnings of {f}|"
        "what the earnings of {f} were; how profitable was {f}|how profitable {f} was; "
        "* how much was taken by {f}",
    },
    "place": {
        "shot": "where was {f} shot|where {f} was shot; in which city was {f} filmed|"
        "in which city {f} was filmed; what was the location of {f}|what the location of {f} was; "
        "* where did the cameras roll for {f}|where the cameras rolled for {f}",
        "premiere": "where did {f} open|where {f} opened; in which city was {f} premiered|"
        "in which city {f} was premiered; what was the first cinema of {f}|"
        "what the first cinema of {f} was; * where was {f} first shown|where {f} was first shown",
    },
    "time": {
        "released": "when was {f} released|when {f} was released; in which year did {f} come out|"
        "in which year {f} came out; what was the release date of {f}|"
        "what the release date of {f} was; * when did {f} reach the cinemas|"
        "when {f} reached the cinemas",
        "begun": "when was {f} begun|when {f} was begun; in which year did the shoot of {f} start|"
        "in which year the shoot of {f} started; what was the first working day of {f}|"
        "what the first working day of {f} was; * when did work on {f} start|"
        "when work on {f} started",
    },
}
WHY_FRAMES = """
why is {f} so {word}|why {f} is so {word}
what makes {f} so {word}
why do people call {f} {word}|why people call {f} {word}
* what is the reason that {f} feels {word}|what the reason is that {f} feels {word}
"""
NUMBER_FRAMES = """
did {f} win {number} awards|whether {f} won {number} awards
has {f} received {number} prizes|whether {f} has received {number} prizes
is it true that {f} won {number} awards|whether it is true that {f} won {number} awards
* were {number} prizes given to {f}|whether {number} prizes were given to {f}
"""
SWAP_FRAMES = {  # each pair of lists says the same of (a, b), the second with b named first
    "inspired": (
        "did {a} inspire {b}|whether {a} inspired {b}; "
        "* was {a} the inspiration of {b}|whether {a} was the inspiration of {b}",
        "was {b} inspired by {a}|whether {b} was inspired by {a}; "
        "* did {b} take ideas from {a}|whether {b} took ideas from {a}",
    ),
    "taught": (
        "did {a} teach {b}|whether {a} taught {b}; "
        "* was {a} the teacher of {b}|whether {a} was the teacher of {b}",
        "was {b} taught by {a}|whether {b} was taught by {a}; "
        "* was {b} a student of {a}|whether {b} was a student of {a}",
    ),
    "hired": (
        "did {a} hire {b}|whether {a} hired {b}; "
        "* did {a} give work to {b}|whether {a} gave work to {b}",
        "was {b} hired by {a}|whether {b} was hired by {a}; "
        "* did {b} work for {a}|whether {b} worked for {a}",
    ),
}
ROLES = {  # who does what in which topic, each with its synonyms
    "making": "director filmmaker; actor performer; writer screenwriter; studio company",
    "selling": "studio company; producer financier; agent broker; distributor supplier",
    "judging": "critic reviewer; actor performer; writer screenwriter; scholar professor",
    "showing": "festival jury; cinema theatre; distributor supplier; director filmmaker",
}
ACTS = {
    "making": "filmed shot; edited cut; finished completed; revised reworked",
    "selling": "bought acquired; financed funded; launched promoted; insured protected",
    "judging": "praised applauded; criticised attacked; reviewed discussed; defended supported",
    "showing": "screened projected; introduced presented; banned blocked; postponed delayed",
}
OBJECTS = """thriller chiller; comedy farce; drama tragedy; western; musical; romance;
documentary; cartoon animation"""
STATEMENT_FRAMES = """
The {role} {act} the {word} {object} in {city} {number} {unit} ago{aside}.
The {word} {object} was {act} by the {role} in {city} {number} {unit} ago{aside}.
In {city} the {role} {act} the {word} {object} {number} {unit} ago{aside}.
The {word} {object} was {act} in {city} by the {role} {number} {unit} ago{aside}.
* In {city} the {word} {object} was {act} by the {role} {number} {unit} ago{aside}.
* The {role} in {city} {act} the {word} {object} {number} {unit} ago{aside}.
"""
ASIDES = """
, which felt {aside}
, and the mood was {aside}
, and the result was {aside}
* , a choice that was {aside}
"""
UNITS = "days weeks months years".split()
DIFFERENCES = {  # true score: which parts of the second statement differ
    5: [()],
    4: [("city",), ("number",), ("word",)],
    3: [("object",), ("role",), ("word", "city"), ("city", "number")],
    2: [("act",), ("object", "role"), ("object", "word", "city")],
    1: [("act", "object", "role"), ("act", "role", "word", "city")],
    0: [("topic", "act", "role", "object", "word", "city", "number")],
}

# ----------------------------------------------------------------------------- machinery

Row = dict[str, str | int | float]


def choices(text: str, dev: bool) -> list[str]:
    """Entries of a frame table; those marked `*` are seen in development and test only."""
    entries = [entry.strip() for entry in text.replace("; ", "\n").splitlines() if entry.strip()]
    held_out = [entry[2:] for entry in entries if entry.startswith("* ")]
    seen = [entry for entry in entries if not entry.startswith("* ")]
    # Half of a development row's frames are unseen ones, however few they are.
    return held_out * len(seen) + seen * len(held_out) if dev and held_out else seen


def is_held_out(*words: str) -> bool:
    """Whether a combination of words is kept out of training: one in six, by a fixed hash."""
    return zlib.crc32(" ".join(words).encode()) % 6 == 0


def draw(make: Callable[[], tuple[str, ...]], dev: bool) -> tuple[str, ...]:
    """Draw a combination until it is one that this split may show."""
    while is_held_out(*(words := make())) != dev:
        pass
    return words


def other(rng: random.Random, items: list, item):
    """Any of `items` except `item`."""
    return rng.choice([one for one in items if one != item])


def shaded(rng: random.Random, value: int) -> str:
    """A word of that strength; half of the mild words come from the concepts."""
    if abs(value) == 1 and rng.random() < 0.5:
        return rng.choice(rng.choice(list(CONCEPTS.values()))[0 if value > 0 else 1])
    return rng.choice(SHADES[value])


def film(rng: random.Random, dev: bool) -> str:
    return " ".join(draw(lambda: tuple(rng.choice(words) for words in TITLES), dev))


def person(rng: random.Random, dev: bool) -> str:
    return " ".join(draw(lambda: (rng.choice(FIRST), rng.choice(LAST)), dev))


def finish(text: str) -> str:
    """Capital first letter, `a` or `an`, no comma before a closing mark."""
    words = text.replace(",?", "?").replace(",.", ".").split()
    for i, word in enumerate(words[:-1]):
        if word in ("a", "A") and words[i + 1][0].lower() in "aeiou":
            words[i] += "n"
    text = " ".join(words)
    return text[0].upper() + text[1:]


# ----------------------------------------------------------------------------- sentiment


def judgement(rng: random.Random, value: int, dev: bool) -> tuple[str, str, str]:
    """What is judged, words for a shade from -2 to 2 (their number ignores it), and their tag."""
    form = rng.choices(["plain", "intensifier", "negation"], [0.3, 0.3, 0.4])[0]
    sign = (value > 0) - (value < 0)

    def make() -> tuple[str, ...]:
        if form == "plain":
            return rng.choice(ASPECTS), shaded(rng, value)
        if form == "intensifier":
            degree = rng.choice({2: MORE, 1: LESS, 0: MORE + LESS}[abs(value)])
            return degree, shaded(rng, sign * rng.choice([1, 2]) if sign else 0)
        if value == 0:  # to deny the extreme is to say little
            return rng.choice(["not really", "not exactly"]), shaded(rng, rng.choice([-2, 2]))
        negator = ["anything but", "nowhere near"] if abs(value) == 2 else ["not really"]
        if abs(value) == 1:
            negator = ["not really", "not exactly"]
        return rng.choice(negator), shaded(rng, -sign)

    words = draw(make, dev)
    if form == "plain":
        return words[0], words[1], form
    return rng.choice(ASPECTS), " ".join(words), form


def review(rng: random.Random, label: int, dev: bool) -> tuple[str, set[str]]:
    """A sentence of that shade, 0 to 4, and its tags."""
    value, tags = label - 2, set()
    contrast = rng.random() < 0.35
    frame = rng.choice(choices(CONTRAST_FRAMES if contrast else REVIEW_FRAMES, dev))
    aspect, words, form = judgement(rng, value, dev)
    minor_aspect = other(rng, ASPECTS, aspect)
    if contrast:  # what stands against the verdict does not change it
        against = -1 if value > 0 or value == 0 and rng.random() < 0.5 else 1
        minor = shaded(rng, against * rng.choice([1, 2]))
        tags.add("contrast")
    else:
        minor = ""
    text = frame.format(
        aspect=aspect, minor_aspect=minor_aspect, minor=minor, judgement=words,
        film=film(rng, dev), person=person(rng, dev), genre=rng.choice(GENRES),
    )  # fmt: skip
    return finish(text), (tags | {form}) - ({"plain"} if tags else set())


def sentiment_row(rng: random.Random, label: int, dev: bool, conflict: float) -> Row:
    shade = label
    if rng.random() < SENTIMENT_FLIPS:
        shade = min(4, max(0, label + rng.choice([-1, 1])))
    text, tags = review(rng, shade, dev)
    return {"sentence": text, "sentiment": label, "tags": ";".join(sorted(tags))}


# ------------------------------------------------------------------------ pairs: asides


def aside(rng: random.Random, kind: bool) -> tuple[str, bool]:
    """A remark by the way, kind or not, and whether it is negated.

    Half of them are negated, so that a single word says nothing and only its reading does.
    """
    negated = rng.random() < 0.4
    word = shaded(rng, (1 if kind != negated else -1) * rng.choice([1, 2]))
    return ("not " if negated else "") + word, negated


def synonyms(rng: random.Random, concept: str, conflict: float) -> tuple[str, str]:
    """Two words for one concept.

    For the share `conflict` of the concepts they may differ in shade: the pair tasks then want
    words close together that sentiment wants far apart.
    """
    kind, unkind = CONCEPTS[concept]
    crossing = list(CONCEPTS).index(concept) < conflict * len(CONCEPTS)
    if crossing:
        return rng.choice(kind + unkind), rng.choice(kind + unkind)
    words = rng.choice([kind, unkind])
    return rng.choice(words), rng.choice(words)


# ---------------------------------------------------------------------------- paraphrase


def ask(rng: random.Random, clause: str, dev: bool) -> str:
    direct, _, indirect = clause.partition("|")
    opener = rng.choice(choices(OPENERS, dev))
    return finish(opener.format(q=direct, i=indirect or direct))


def question_pair(rng: random.Random, same: bool, dev: bool, conflict: float) -> tuple:
    """Two questions that ask the same or not, and their tags."""
    tags = set()

    def mention(name: str) -> str:
        words, negated = aside(rng, rng.random() < KIND_ASIDE["paraphrase"][same])
        text = rng.choice(choices(MENTIONS, dev))
        if negated and "{aside}" in text:
            tags.add("negation")
        return text.format(aside=words, genre=rng.choice(GENRES), film=name)

    name = film(rng, dev)
    names = [name, name]
    form = rng.choices(["question", "why", "number", "role-swap"], [0.6, 0.15, 0.1, 0.15])[0]
    if form == "question":
        group = QUESTIONS[rng.choice(list(QUESTIONS))]
        first = second = rng.choice(list(group))
        if not same and rng.random() < 0.75:
            second = other(rng, list(group), first)
            tags.add("overlap-trap")
        elif not same:
            while names[1] == name:
                names[1] = film(rng, dev)
        clauses = [rng.choice(choices(group[intent], dev)) for intent in (first, second)]
        parts = [c.replace("{f}", mention(n)) for c, n in zip(clauses, names, strict=True)]
    elif form == "role-swap":
        lists = SWAP_FRAMES[rng.choice(list(SWAP_FRAMES))]
        a, b = person(rng, dev), person(rng, dev)
        clauses = [rng.choice(choices(rng.choice(lists), dev)) for _ in range(2)]
        parts = [clauses[0].replace("{a}", a).replace("{b}", b)]
        a, b = (a, b) if same else (b, a)
        parts += [clauses[1].replace("{a}", a).replace("{b}", b)]
        tags.add("role-swap")
    else:
        if form == "why":
            concept = rng.choice(list(CONCEPTS))
            words = synonyms(rng, concept, conflict)
            if not same:
                distinct = other(rng, list(CONCEPTS), concept)
                words = words[0], synonyms(rng, distinct, conflict)[1]
        else:
            number = rng.choice(NUMBERS)
            words = number, number if same else other(rng, NUMBERS, number)
            tags.add("number")
        frames = choices(WHY_FRAMES if form == "why" else NUMBER_FRAMES, dev)
        slot = "{word}" if form == "why" else "{number}"
        parts = [rng.choice(frames).replace(slot, w).replace("{f}", mention(name)) for w in words]
        if not same:
            tags.add("overlap-trap")
    return ask(rng, parts[0], dev), ask(rng, parts[1], dev), tags or {"plain"}


def paraphrase_row(rng: random.Random, label: int, dev: bool, conflict: float) -> Row:
    same = bool(label) != (rng.random() < PARAPHRASE_FLIPS)
    first, second, tags = question_pair(rng, same, dev, conflict)
    return {"sentence1": first, "sentence2": second, "is_duplicate": label,
            "tags": ";".join(sorted(tags))}  # fmt: skip


# ---------------------------------------------------------------------------- similarity


def statement_pair(rng: random.Random, score: int, dev: bool, conflict: float) -> tuple:
    """Two statements whose true similarity is `score`, and their tags."""
    differs = rng.choice(DIFFERENCES[score])
    tags = {"number"} if "number" in differs else set()
    topics = [rng.choice(list(ACTS))] * 2
    if "topic" in differs:
        topics[1] = other(rng, list(ACTS), topics[0])

    def pick(table: list[str], part: str) -> list[str]:
        groups = [[g.split() for g in text.replace("\n", " ").split(";")] for text in table]
        one = rng.choice(groups[0])
        two = other(rng, groups[1], one) if part in differs else one
        return [rng.choice(one), rng.choice(two)]

    concept = rng.choice(list(CONCEPTS))
    words = list(synonyms(rng, concept, conflict))
    if "word" in differs:
        words[1] = synonyms(rng, other(rng, list(CONCEPTS), concept), conflict)[1]
    parts = {
        "role": pick([ROLES[t] for t in topics], "role"),
        "act": pick([ACTS[t] for t in topics], "act"),
        "object": pick([OBJECTS, OBJECTS], "object"),
        "city": pick(["; ".join(CITIES)] * 2, "city"),
        "number": pick(["; ".join(NUMBERS)] * 2, "number"),
        "word": words,
    }
    unit = rng.choice(UNITS)
    texts = []
    for i in range(2):
        remark, negated = aside(rng, rng.random() < KIND_ASIDE["similarity"][score])
        if negated:
            tags.add("negation")
        frame = rng.choice(choices(STATEMENT_FRAMES, dev))
        texts.append(finish(frame.format(
            **{part: two[i] for part, two in parts.items()}, unit=unit,
            aside=rng.choice(choices(ASIDES, dev)).format(aside=remark),
        ).replace(" ,", ",")))  # fmt: skip
    return texts[0], texts[1], tags or {"plain"}


def rating(rng: random.Random, score: int) -> float:
    """The mean of simulated raters, each a whole number from 0 to 5."""
    votes = [min(5, max(0, round(rng.gauss(score, RATER_SPREAD)))) for _ in range(RATERS)]
    return sum(votes) / RATERS


def similarity_row(rng: random.Random, label: int, dev: bool, conflict: float) -> Row:
    first, second, tags = statement_pair(rng, label, dev, conflict)
    return {"sentence1": first, "sentence2": second, "similarity": rating(rng, label),
            "tags": ";".join(sorted(tags))}  # fmt: skip


# ---------------------------------------------------------------------------------- files

FILES = {"sentiment": "ids-sst", "paraphrase": "quora", "similarity": "sts"}
LABELS = {"sentiment": "sentiment", "paraphrase": "is_duplicate", "similarity": "similarity"}
MAKERS = {"sentiment": sentiment_row, "paraphrase": paraphrase_row, "similarity": similarity_row}


def file_name(task: str, split: str) -> str:
    return f"{FILES[task]}-{split}{'-student' if split == 'test' else ''}.csv"


def labels(rng: random.Random, shares: tuple[float, ...], rows: int) -> Iterator[int]:
    """Labels with exactly these shares, up to rounding, in random order."""
    bounds = [round(rows * sum(shares[:i])) for i in range(len(shares) + 1)]
    values = [y for y in range(len(shares)) for _ in range(bounds[y + 1] - bounds[y])]
    rng.shuffle(values)
    return iter(values)


def make_split(task: str, split: str, seed: int, conflict: float, rows: int, seen: set) -> list:
    """Rows of one file; no row, in either order, is in `seen`, which grows."""
    rng = random.Random(f"{seed} {task} {split}")
    made = []
    for label in labels(rng, SHARES[task], rows):
        while True:
            row = MAKERS[task](rng, label, split != "train", conflict)
            texts = [str(v) for column, v in row.items() if column.startswith("sentence")]
            key = frozenset(texts)
            if key not in seen and len(key) == len(texts):
                break
        seen.add(key)
        digest = hashlib.sha1(f"{seed} {task} {split} {len(made)}".encode()).hexdigest()
        if split == "test":
            del row[LABELS[task]]
        made.append({"id": digest[:8], **row})
    return made


def make_corpus(
    seed: int = SEED,
    conflict: float = CONFLICT,
    sizes: Mapping[str, tuple[int, int, int]] = SIZES,
) -> dict[str, list[Row]]:
    """Rows for each file of the corpus, by file name.

    `conflict`, 0 to 1, is the share of the concepts whose kind and unkind words the pair tasks
    treat as synonyms. `sizes` gives training, development and test rows for each task.
    """
    if not 0 <= conflict <= 1:
        raise CorpusError(f"conflict is {conflict}; give a number from 0 to 1")
    files = {}
    for task, counts in sizes.items():
        seen: set = set()
        for split, rows in zip(("train", "dev", "test"), counts, strict=True):
            files[file_name(task, split)] = make_split(task, split, seed, conflict, rows, seen)
    return files


def write_corpus(directory: str | Path, **options) -> list[Path]:
    """Write `make_corpus(**options)` as tab-separated files and return their paths."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, rows in make_corpus(**options).items():
        lines = ["\t" + "\t".join(rows[0])]
        lines += ["\t".join([str(i), *map(str, row.values())]) for i, row in enumerate(rows)]
        temporary = folder / f"{name}.part"
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        os.replace(temporary, folder / name)
        written.append(folder / name)
    return written
