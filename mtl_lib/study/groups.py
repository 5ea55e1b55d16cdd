"""Which runs belong together: a study is one profile, encoder, corpus and protocol.

A table or a figure shows one study; numbers of two are never mixed.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from mtl_lib.study.corpora import PHRASES, STEMS
from mtl_lib.study.floors import floors_sentence, read_floors
from mtl_lib.study.gates import gate, gates_sentences
from mtl_lib.study.store import Run

# The most thorough first. `laptop-rates` and `laptop` are of former profiles, kept until the runs
# of `paper` stand in their place.
STUDIES = ("paper", "converged", "laptop-rates", "laptop", "quick")
PROTOCOL = ("epochs", "max_steps", "max_length", "train_sample", "lr_factor")


def studies(runs: Iterable[Run]) -> list[list[Run]]:
    """Groups of runs that may stand in one figure: same profile, encoder, corpora and protocol.

    Returns:
        The groups, best first: by profile (as in `STUDIES`, then others), then by the number of
        steps, then the newer version of the study, then by the number of runs.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(study_of(run), []).append(run)
    return sorted(groups.values(), key=_rank)


def choose_study(runs: Iterable[Run], rows: Collection[str]) -> list[Run]:
    """The runs of some rows from one study: the most thorough one of which more than half as many
    of these rows may be read (`gates.py`) as of any other; where none may be read, the one that
    holds most of them.

    Only studies on the same corpora are weighed against each other, those of the most thorough one.
    So one row of a long study hides neither a complete short one, nor what did not train a row that
    did; and a long study is not left for a shorter one of which a row or two more were run.

    Returns:
        The runs, in the order given; empty where no study holds any of the rows.
    """
    there = by_corpora(run for run in runs if run.config["row"] in rows)
    groups = studies(next(iter(there.values()), []))

    def told(group: list[Run]) -> tuple[int, int]:
        return len(_rows(run for run in group if not gate(run, run.labels))), len(_rows(group))

    counts = [told(group) for group in groups]
    most = max(counts, default=(0, 0))
    both = zip(groups, counts, strict=True)  # the most thorough first
    return next((group for group, n in both if n == most or 2 * n[0] > most[0]), [])


def by_corpora(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by the name of their corpora; those first on which the most thorough study stands.

    Different corpora of one name are told apart by their fingerprints.
    """
    found: dict[tuple[str, str], list[Run]] = {}
    for group in studies(runs):
        corpus = group[0].provenance["corpus"]
        found.setdefault((corpus["name"], corpus["fingerprint"]), []).extend(group)
    names = Counter(name for name, _ in found)
    return {
        name if names[name] == 1 else f"{name} {fingerprint[:8]}": of_corpora
        for (name, fingerprint), of_corpora in found.items()
    }


def missing_rows(runs: Iterable[Run], rows: Iterable[str]) -> list[str]:
    """Those of the rows that none of the runs is of."""
    there = _rows(runs)
    return [row for row in rows if row not in there]


def study_of(run: Run) -> tuple[str, ...]:
    """What a run shares with all runs of its study, in words."""
    config, corpus = run.config, run.provenance["corpus"]
    return (
        config["profile"],
        Path(config["encoder"]).name,
        corpus["name"],
        *(f"{name} {config[name]}" for name in PROTOCOL),
        corpus["fingerprint"],
        run.provenance["encoder"]["sha256"],
        f"version {run.provenance['study_version']}",
    )


def facts(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """What was trained on what, and for how long, in words."""
    whole = [run for run in runs if not run.config.get("without")]
    config, corpus = (whole or runs)[0].config, runs[0].provenance["corpus"]
    encoder = Path(config["encoder"]).name
    steps = sorted({run.provenance["steps"] for run in runs})
    length = " to ".join(f"{number:,}" for number in dict.fromkeys((steps[0], steps[-1])))
    factors = sorted({run.config.get("epoch_factor", 1) for run in runs})
    epochs = " or ".join(str(config["epochs"] * factor) for factor in factors)
    what = [
        f"profile {config['profile']}",
        f"encoder {encoder}" + (" (from random weights)" if encoder == "tiny" else ""),
        f"corpora {corpus['name']}",
    ]
    how_long = [
        f"{length} steps in {'at most ' if config['max_steps'] else ''}{epochs} "
        f"epoch{'s' if epochs != '1' else ''}",
        seeds_in_words(runs),
        f"learning rates × {config['lr_factor']:g}",
        *_instrument(config),
    ]
    return what, how_long


def _instrument(config: dict) -> list[str]:
    """What a configuration adds to the paper's protocol, in words."""
    words = {
        "sentence_vector": f"sentence vector: {config.get('sentence_vector')}",
        "head_lr": f"heads at {config.get('head_lr')}",
        "label_mean_bias": "similarity starts at the label mean",
        "schedule": f"warm-up over {config.get('warmup', 0):.0%} of the steps and linear decay",
        "clip": f"gradients clipped at {config.get('clip')}",
    }
    return [text for name, text in words.items() if config.get(name)]


def seeds_in_words(runs: Iterable[Run]) -> str:
    """ "seed 0"; "seeds 0, 1, 2"; rows with fewer seeds are named: "3 of them for 3.3, 3.4"."""
    by_row: dict[str, set[int]] = {}
    for run in runs:
        by_row.setdefault(run.config["row"], set()).add(run.config["seed"])
    seeds = sorted(set().union(*by_row.values()))
    words = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    fewer: dict[int, list[str]] = {}
    for row, some in by_row.items():
        if len(some) < len(seeds):
            fewer.setdefault(len(some), []).append(row)
    return words + "".join(
        f" ({number} of them for {', '.join(rows)})" for number, rows in sorted(fewer.items())
    )


def as_published(run: Run) -> bool:
    """Whether a run follows the paper's protocol, not a shortened one."""
    config = run.config
    return config["profile"] == "paper" and not config["max_steps"] and config["epochs"] >= 10


def kind_of_study(run: Run) -> str:
    """The paper's protocol, another that trains better, or a shortened one, in words."""
    if as_published(run):
        return "The paper's protocol"
    if _instrument(run.config):
        return "Another protocol than the paper's"
    return "A shortened study, not the paper's protocol"


def provenance_line(runs: Sequence[Run], tasks: Collection[str] | None = None) -> str:
    """Which runs stand behind a table, in one line: profile, encoder, corpora, steps, seeds.

    Says too what is not as in the paper, a shortened study, corpus files that are not the
    originals; which runs did not train or give one answer (on these tasks, all by default); and
    what words alone reach.
    """
    if not runs:
        return "Runs: none."
    what, how_long = facts(runs)
    sentences = [f"Runs: {'; '.join(what + how_long)}."]
    if not as_published(runs[0]):
        sentences.append(f"{kind_of_study(runs[0])}.")
    sentences += gates_sentences(runs, tasks)
    sentences += [f"Corpora: {note.rstrip('.')}." for note in corpus_notes(runs)]
    corpus = runs[0].provenance["corpus"]
    if floors := read_floors(corpus["name"], corpus["fingerprint"]):
        sentences.append(floors_sentence(floors))
    return " ".join(sentences)


def corpus_notes(runs: Sequence[Run]) -> list[str]:
    """What is said of the corpus files behind some runs: of those whose tasks they train."""
    notes = runs[0].provenance["corpus"]["notes"]
    trained = {task for run in runs for task in run.config["heads"]}
    others = tuple(f"{stem}-" for stem, (task, _) in STEMS.items() if task.name not in trained)
    further = [run.config["row"] for run in runs if run.config.get("phrases")]
    return [note for note in notes if not note.startswith(others)] + [
        f"sentiment learns from phrases of the treebank as well, {PHRASES}, more than the class "
        f"gives, in row {', '.join(dict.fromkeys(further))}"
    ] * bool(further)


def _rows(runs: Iterable[Run]) -> set[str]:
    return {run.config["row"] for run in runs}


def _rank(group: list[Run]) -> tuple:
    profile = group[0].config["profile"]
    place = STUDIES.index(profile) if profile in STUDIES else len(STUDIES)
    steps = max(run.provenance["steps"] for run in group)
    version = group[0].provenance["study_version"]
    return (place, -steps, -version, -len(group), study_of(group[0]))
