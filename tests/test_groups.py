"""Which runs stand together, on synthetic runs: nothing here was trained."""

from dataclasses import replace

from fake_runs import fake_run, fake_study

from mtl_lib.study.groups import by_corpora, choose_study, missing_rows, provenance_line, studies


def rows(runs):
    return [run.config["row"] for run in runs]


def paper(*names, seeds=(0,)):
    return fake_study(names, seeds, profile="paper", encoder="bert", corpus="cs224n")


def converged(*names, seeds=(0,), trained=True):
    options = {"profile": "converged", "encoder": "bert", "corpus": "cs224n"}
    return fake_study(names, seeds, **options, trained=trained)


def chosen(runs, *names):
    return {run.config["profile"] for run in choose_study(runs, names)}


def test_a_complete_short_study_is_chosen_over_one_row_of_a_long_one():
    assert chosen([*converged("3.1", "3.2"), *paper("3.2")], "3.1", "3.2") == {"converged"}


def test_a_long_study_is_chosen_over_a_short_one_with_a_row_more():
    runs = [*converged("3.1", "3.2", "3.3"), *paper("3.1", "3.2")]
    assert chosen(runs, "3.1", "3.2", "3.3") == {"paper"}


def test_rows_that_trained_are_chosen_over_more_rows_that_did_not():
    runs = [*converged("3.1", "3.2", trained=False), *paper("3.2")]
    assert chosen(runs, "3.1", "3.2") == {"paper"}


def test_studies_on_other_corpora_than_the_most_thorough_one_are_not_weighed():
    assert chosen([*fake_study(["3.1", "3.2"]), *paper("3.2")], "3.1", "3.2") == {"paper"}


def test_of_two_complete_studies_the_most_thorough_is_chosen():
    assert chosen([*converged("3.1", "3.2", "3.3"), *paper("3.2", "3.1")], "3.1", "3.2") == {
        "paper"
    }


def test_where_none_is_complete_the_one_with_most_rows_is_chosen():
    runs = choose_study([*converged("3.1", "3.2"), *paper("3.2")], ["3.1", "3.2", "3.3"])
    assert rows(runs) == ["3.1", "3.2"]
    assert missing_rows(runs, ["3.1", "3.2", "3.3"]) == ["3.3"]


def test_seeds_do_not_count_as_rows():
    runs = [*converged("3.1", seeds=range(5)), *paper("3.1", "3.2")]
    assert chosen(runs, "3.1", "3.2") == {"paper"}


def test_rows_that_nobody_ran_give_no_study():
    assert choose_study(fake_study(["3.1"]), ["4.6"]) == []


def test_a_newer_version_of_a_study_comes_first():
    old = fake_run("3.1")
    new = replace(old, provenance=old.provenance | {"study_version": 2})
    assert studies([old, new])[0] == [new]


def test_the_provenance_line_names_profile_encoder_corpora_steps_seeds_and_notes():
    runs = fake_study(["3.1"], (0, 1), notes=("quora-train.csv is not the original file",))
    line = provenance_line([*runs, fake_run("3.2", 0)])
    for words in ("profile quick", "encoder tiny", "corpora handbook", "60 steps", "seeds 0, 1"):
        assert words in line
    assert "(1 of them for 3.2)" in line
    assert "A shortened study" in line and "quora-train.csv is not the original" in line
    assert "\n" not in line


def test_without_runs_the_line_says_so():
    assert provenance_line([]) == "Runs: none."


def test_a_note_on_a_file_stands_only_where_its_task_was_trained():
    notes = ("quora-train.csv is not the original file", "the sentences are lower-cased")
    (run,) = fake_study(["sst-frozen"], notes=notes)
    assert "quora-train.csv" in provenance_line([fake_run("3.1", notes=notes)])
    line = provenance_line([run])
    assert "quora-train.csv" not in line and "Corpora: the sentences are lower-cased." in line


def test_different_corpora_of_one_name_are_told_apart():
    mine, others = fake_study(["3.1"], (0, 1)), fake_study(["3.1"])
    corpus = others[0].provenance["corpus"] | {"fingerprint": "0123456789abcdef"}
    others = [replace(r, provenance=r.provenance | {"corpus": corpus}) for r in others]
    assert list(by_corpora(mine)) == ["handbook"]
    assert set(by_corpora([*mine, *others])) == {"handbook handbook", "handbook 01234567"}


def test_the_protocol_as_printed_is_called_no_shortened_study():
    assert "A shortened study" not in provenance_line(paper("3.1"))
    (run,) = paper("3.1")
    capped = replace(run, config=run.config | {"max_steps": 100})
    assert "A shortened study" in provenance_line([capped])


def test_of_the_profiles_the_papers_protocol_is_the_most_thorough():
    runs = [fake_run("3.1", profile=profile) for profile in ("quick", "converged", "paper")]
    found = [group[0].config["profile"] for group in studies(runs)]
    assert found == ["paper", "converged", "quick"]
