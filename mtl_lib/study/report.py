"""The claims page, `figures/claims.md`: what holds, and the studies that tell it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_lib.files import write_text
from mtl_lib.study.claims import CLAIMS, CONTROLS, FROZEN_ROWS, GAIN, NO_GAIN
from mtl_lib.study.config import STUDY_VERSION
from mtl_lib.study.contrasts import contrasts_markdown
from mtl_lib.study.floors import KINDS, floor_score, read_floors
from mtl_lib.study.forensics import hypotheses_markdown
from mtl_lib.study.gates import ONE_ANSWER, counted, held_words, untrained_tasks
from mtl_lib.study.groups import by_corpora, provenance_line, studies
from mtl_lib.study.paper import ARCHITECTURE, BASELINE, FINAL, PAPER_SCORES, TASK_ORDER
from mtl_lib.study.profiles import PROFILES
from mtl_lib.study.queue import QUEUE
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import ENOUGH_SEEDS, seed_interval
from mtl_lib.study.verdicts import (
    FAILS,
    HOLDS,
    NOISE,
    RULE,
    SIMILARITY_TRAINED,
    UNTOLD,
    claims_table,
    of_three_tasks,
)
from mtl_lib.tasks import BY_NAME

CAUTIONS = {
    "handbook": (
        "The embedded corpora are sentences made by a grammar, and `tiny-pretrained` is two layers "
        "that have read nothing else: no level here compares with the paper's. The differences "
        "show what a change does where everything else is known."
    ),
    "quora-train": (
        "`quora-train.csv` is not the original file (141,506 pairs) but a substitute of 43,086 "
        "labelled pairs, none of them in the development file. Differences between rows of this "
        "study meet the same file on both sides; levels of paraphrase accuracy do not compare with "
        "the paper's."
    ),
    "encoder": (
        "`minilm-l6` was trained on sentence similarity before, Quora's pairs among it: levels on "
        "paraphrase and similarity do not compare with those of the paper's BERT. Both rows of a "
        "difference start from it, and a change may do less, or more, than it would from BERT."
    ),
}


PAGE = "claims.md"
HEAD = """# What holds

The paper reports one run per row. Here its claims are held against the stored runs, each with an
interval and a verdict, by corpora. What has no verdict says why; the runs that are missing stand at
the end, study by study. `make figures` writes this page, and a test recomputes it;
[docs/study.md](../docs/study.md) says how to train them.

"""


CONTRASTS_WORDS = (
    "The list was chosen after the short runs and the first runs of seed 0, before further seeds; "
    "how intervals and ranges are computed was settled later, with seeds at hand. Each difference "
    "of development scores has its 95 % interval over seeds and examples (with one seed, over "
    f"examples alone), and two answers: is there a gain (`{GAIN}`, `{NO_GAIN}` worth a point, or "
    "`open`), and does the difference that the paper prints, of one run of each row, lie where "
    "that of one more run of ours would. Nobody knows whether the paper's two runs shared a seed, "
    "so that range is the one of runs that do not; it allows for the rounding of printed scores, "
    "and is wider than 95 % would need where seeds agree by luck: outside it says more than "
    "inside. Not corrected for their number: one interval in twenty misses by chance. The column "
    "`paper` is the study of the paper's own protocol, `converged` the one whose rate falls to "
    f"zero; both on the real corpora, from `minilm-l6`, with the substitute Quora file. Nothing is "
    f"told with fewer than {ENOUGH_SEEDS} seeds that trained."
)
HYPOTHESES_WORDS = (
    "The distance is the root mean square of six differences, training and development scores of "
    "the three tasks, between the published row and a run of ours in the study `paper`; beside it "
    "that of the row taken at its word. A hypothesis is nearer, or further away, where the "
    "interval of the difference over seeds leaves out zero by more than the rounding of printed "
    "scores can make up. Where a row may be any epoch of a run, the row at its word may be any of "
    "its own. Nearer is no proof: encoder and Quora file are not the paper's, and the published "
    "run's own scatter is in no interval. Arithmetic has a verdict and no distance."
)


def claims_page(runs: Iterable[Run], directory: str | Path) -> Path:
    """Write the page into a folder."""
    path = Path(directory) / PAGE
    write_text(path, HEAD + claims_markdown(runs))
    return path


def claims_markdown(runs: Iterable[Run]) -> str:
    """The page's content: the rule, the claims with a verdict by corpora, and the studies."""
    runs = list(runs)
    by_name = by_corpora(of_three_tasks(runs))
    if not by_name:
        return "No study is stored yet: `mtl sweep` trains one.\n"
    claims, controls = (
        {
            CORPORA.get(name, f"corpora {name}"): claims_table(of, asked)
            for name, of in by_name.items()
        }
        for asked in (CLAIMS, CONTROLS)
    )
    plural = {HOLDS: "hold", FAILS: "do not hold", NOISE: NOISE, UNTOLD: UNTOLD}
    counts = []
    for corpora, table in claims.items():
        verdicts = table["verdict"].value_counts()
        numbers = {verdict: verdicts.get(verdict, 0) for verdict in plural}
        told = ", ".join(f"{n} {v if n == 1 else plural[v]}" for v, n in numbers.items())
        counts.append(f"on the {corpora} {told}")
    parts = [
        f"Of the paper's {len(CLAIMS)} claims, {'; '.join(counts)}.",
        "## Eight contrasts",
        CONTRASTS_WORDS,
        contrasts_markdown(runs),
        "## What the published rows may be",
        HYPOTHESES_WORDS,
        hypotheses_markdown(runs),
        "## All claims",
        RULE,
        _markdown(claims),
        "## Controls that the paper lacks",
        _markdown(controls, "C"),
    ]
    parts.append("## The studies")
    for group in _described(runs):
        parts += [f"The study `{group[0].config['profile']}`:", *_study_markdown(group)]
    return "\n\n".join(parts) + "\n"


def _study_markdown(runs: Sequence[Run]) -> list[str]:
    """What a study is, what to keep in mind about its numbers, and the scores of its key rows."""
    corpus, joint = runs[0].provenance["corpus"], of_three_tasks(runs)
    cautions = [CAUTIONS["handbook"]] if corpus["name"] == "handbook" else []
    if any(note.startswith("quora-train") for note in corpus["notes"]):
        cautions.append(CAUTIONS["quora-train"])
    if Path(runs[0].config["encoder"]).name in SIMILARITY_TRAINED:
        cautions.append(CAUTIONS["encoder"])
    return [provenance_line(joint), *cautions, scores_markdown(joint), *seeds_to_go(runs)]


def seeds_to_go(runs: Sequence[Run]) -> list[str]:
    """Which runs of its plan (`queue.QUEUE`) a study still lacks, and the command that trains them.

    Empty if none. A study of an older version, or of other settings than its profile's, has no
    plan.
    """
    config = runs[0].config
    row, profile, seed = (config[name] for name in ("row", "profile", "seed"))
    if profile not in PROFILES:  # of a former profile: others take its place
        return []
    settings = replace(PROFILES[profile], encoder=config["encoder"])
    as_planned = config == settings.apply(ALL_ROWS[row], profile, seed).as_dict()
    if not as_planned or runs[0].provenance["study_version"] != STUDY_VERSION:
        return []
    stored = {(run.config["row"], run.config["seed"]) for run in runs}
    lacking: dict[str, list[int]] = {}
    for planned, row, seed in QUEUE:
        if planned == profile and (row, seed) not in stored:
            lacking.setdefault(row, []).append(seed)
    if not lacking:
        return []
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for row, seeds in lacking.items():
        by_seeds.setdefault(tuple(seeds), []).append(row)
    parts = [
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} of {', '.join(rows)}"
        for seeds, rows in by_seeds.items()
    ]
    return [
        f"Planned and not trained yet: {'; '.join(parts)}. `mtl study run --data FOLDER` goes on "
        "with them."
    ]


def _described(runs: Iterable[Run]) -> list[list[Run]]:
    """The best study of every profile, if a key row is among its rows."""
    found: dict[str, list[Run]] = {}
    for group in studies(runs):
        if any(run.config["row"] in KEY_ROWS for run in group):
            found.setdefault(group[0].config["profile"], group)
    return list(found.values())


CORPORA = {"handbook": "embedded corpora", "cs224n": "real corpora"}
KEY_ROWS = (BASELINE, "3.2", ARCHITECTURE, FINAL, *FROZEN_ROWS)


def scores_markdown(runs: Sequence[Run]) -> str:
    """Development scores of the key rows as a Markdown table: mean over seeds, the paper's beside.

    Below the rows stands what a bag of words reaches on the same corpora, where that is stored.
    """
    head = "| development set, the paper in brackets | paraphrase | sentiment | similarity (r) |"
    lines = [f"{head} seeds |", "|---|---|---|---|---|"]
    for row in KEY_ROWS:
        there = [run for run in runs if run.config["row"] == row]
        if not there:
            continue
        cells = []
        for task in TASK_ORDER:
            metric, of_row = BY_NAME[task].metric, counted(there, task)
            scores = [run.metrics["best"]["dev"][task][metric] for run in of_row]
            mean, low, high = seed_interval(scores or [np.nan])
            half = "" if np.isnan(low) else f" ± {(high - low) / 2:.3f}"
            paper = ""
            if row in PAPER_SCORES.index:
                paper = f" ({PAPER_SCORES.loc[row, f'dev_{task}']:.3f})"
            cells.append(f"{mean:.3f}{half}{paper}" if of_row else f"{ONE_ANSWER}{paper}")
        name = there[0].config["name"]
        name = f"{row} {name}" if row in PAPER_SCORES.index else name
        if held := held_words(there):
            name += f" ({held})"
        trained = sum(not untrained_tasks(run) for run in there)
        seeds = f"{trained} of {len(there)}" if 0 < trained < len(there) else f"{len(there)}"
        lines.append(f"| {name} | {' | '.join(cells)} | {seeds} |")
    corpus = runs[0].provenance["corpus"]
    floors = read_floors(corpus["name"], corpus["fingerprint"])
    for kind in KINDS if floors else ():
        cells = " | ".join(f"{floor_score(floors, task, kind):.3f}" for task in TASK_ORDER)
        lines.append(f"| words alone, no network: {kind} | {cells} | |")
    if any("±" in line for line in lines):
        lines.append("\n±: half of Student's 95 % interval of the mean over seeds, examples apart.")
    return "\n".join(lines)


def _markdown(tables: Mapping[str, pd.DataFrame], letter: str = "") -> str:
    """The claims in one table, a column a set of corpora with its verdicts; then their numbers,
    claim by claim, under the names that the first table gives them.
    """
    head = ["", "claim (section)", *tables]
    overview, details = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)], []
    claims = zip(*(table.to_dict("records") for table in tables.values()), strict=True)
    for number, same_claim in enumerate(claims, start=1):
        line, name = same_claim[0], f"{letter}{number}"
        cells = [name, f"{line['claim']} ({line['source']})", *map(_verdict_cell, same_claim)]
        overview.append(f"| {' | '.join(cells)} |")
        details.append(f"**{name}. {line['claim']}** {line['note']}".strip())
        if line["numbers"]:
            details.append(_numbers_markdown(dict(zip(tables, same_claim, strict=True))))
    return "\n\n".join(["\n".join(overview), *details])


def _verdict_cell(line: Mapping) -> str:
    """A verdict, the study that gives it, and on how many seeds it stands."""
    if not line["seeds"]:
        return f"**{line['verdict']}**"
    seeds = f"{line['seeds']} seed{'s' if line['seeds'] > 1 else ''}"
    if line["readable"] < line["seeds"]:
        seeds += f", {line['readable'] or 'none'} to be read"
    return f"**{line['verdict']}** (`{line['study']}`, {seeds})"


def _numbers_markdown(by_corpora: Mapping[str, Mapping]) -> str:
    """The differences of a claim, a line each, and what to know of each study's numbers."""
    head = ["rows, task", "paper", *by_corpora]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for same in zip(*(line["numbers"] for line in by_corpora.values()), strict=True):
        cells = [*same[0][:2], *(ours for *_, ours in same)]
        lines.append(f"| {' | '.join(cells)} |")
    reasons = [f"- {name}: {line['reason']}" for name, line in by_corpora.items() if line["reason"]]
    return "\n".join([*lines, *([""] if reasons else []), *reasons])


def write_section(path: str | Path, name: str, text: str) -> Path:
    """Put a text between `<!-- name -->` and `<!-- /name -->` of a file; the rest stays as it is.

    Raises:
        ValueError: if the markers are not there.
    """
    path = Path(path)
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{path}: no {start} .. {end}")
    write_text(path, f"{before}{start}\n{text.strip()}\n{end}{after}")
    return path
