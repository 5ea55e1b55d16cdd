"""What the README says was found: three of the chapters' findings, in one sentence or two each."""

from mtl_lib.handbook.findings import Finding
from mtl_lib.handbook.findings import chapter_06 as surgery
from mtl_lib.handbook.findings import chapter_11 as reading
from mtl_lib.handbook.findings import chapter_12 as finished
from mtl_lib.handbook.findings import chapter_13 as bench
from mtl_lib.study.paper import TASK_ORDER

FINDINGS = (
    Finding(
        "- **The tasks' batches do not fight, and surgery gains no point once the rate falls to "
        "zero.** Two tasks conflict at {low:.0%} to {high:.0%} of the last epoch's steps. Surgery "
        "minus sum, {seeds} seeds: paraphrase {paraphrase}, sentiment {sentiment}, similarity "
        "{similarity}; the paper prints {paper_paraphrase:+.3f}, "
        "{paper_sentiment:+.3f}, {paper_similarity:+.3f}. (MiniLM, substitute Quora file; "
        "[chapter 06](notebooks/06_gradient_surgery.ipynb), "
        "[13](notebooks/13_fair_bench.ipynb).)",
        lambda: {**bench._real(), **surgery._fight(), **surgery._gain()},
        lambda v: (
            v["trained"]
            and v["seeds"] == 3
            and v["cosine"] < 0.005
            and all(v[f"small_{task}"] and v[f"outside_{task}"] for task in TASK_ORDER)
            and all(v[f"beyond_{task}"] for task in TASK_ORDER)
            and v["surgery_low"] < 0 < v["surgery_high"] < 0.005
            and all(2 * v[f"most_{task}"] < v[f"paper_{task}"] for task in TASK_ORDER)
        ),
    ),
    Finding(
        "- **Trained as the paper says, its final model has no sure lead over the baseline.** "
        "{seeds} seeds each, same order: {paraphrase}, {sentiment}, {similarity}; the paper prints "
        "{paraphrase_paper:+.3f}, {sentiment_paper:+.3f}, {similarity_paper:+.3f}. (The same "
        "encoder and file; [chapter 11](notebooks/11_reading_a_paper.ipynb).)",
        reading._final,
        lambda v: (
            v["seeds"] == 3
            and (v["trained"] and v["literal"])
            and all(v[f"{task}_open"] for task in TASK_ORDER)
        ),
    ),
    Finding(
        "- **Counting words beats the paper on pairs; a small model beats words.** On the "
        "development sets the best rows of the paper have {paraphrase_paper:.3f} and "
        "r = {similarity_paper:.3f}, counting words {paraphrase_words:.3f} and "
        "{similarity_words:.3f}, the model you end with {paraphrase:.3f} and {similarity:.3f}. "
        "([Chapter 12](notebooks/12_a_model_worth_having.ipynb).)",
        finished._scores,
        lambda v: all(
            v[f"{task}_paper"] < v[f"{task}_words"] < v[f"{task}_low"]
            for task in TASK_ORDER
            if task != "sentiment"
        ),
    ),
)
