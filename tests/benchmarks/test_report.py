"""Statistics by hand, and what is written."""

import functools
import json

import pytest

from benchmarks import report


def runs():
    values = [("SAM", 0, 90.0), ("SAM", 1, 92.0), ("SAM", 2, 97.0)]
    values += [("SGD", 2, 96.5), ("SGD", 1, 91.0), ("SGD", 5, 1.0)]
    return report.frame(
        [{"method": m, "seed": s, "test": t} for m, s, t in values]
    )


def test_mean_and_standard_error_by_hand():
    # Deviations -3, -1 and 4: variance 26 / 2, over 3 runs.
    values = report.frame([90.0, None, 92.0, 97.0])[0]
    assert report.mean_and_error(values) == "93.00 +- 2.08"
    assert report.mean_and_error(values[:1], digits=1, sign="+") == "+90.0"
    assert report.mean_and_error(values[:0]) == ""


def test_median_and_quartiles_by_hand():
    values = report.frame([4.0, 2.0, 3.0, 1.0, 9.0])[0]
    assert report.median_and_quartiles(values, 1) == "3.0 (2.0 to 4.0)"


def test_reference_is_that_of_the_same_seed():
    table = runs()
    sam = report.reference(table, "test", {"method": "SAM"}, ["seed"])
    table["difference"] = table["test"] - sam
    rows = table.groupby("method", sort=False)["difference"].agg(
        functools.partial(report.mean_and_error, sign="+")
    )
    # 96.5 - 97 and 91 - 92; seed 5 has no reference.
    assert rows.to_dict() == {"SAM": "+0.00 +- 0.00", "SGD": "-0.75 +- 0.25"}


def test_two_references_for_one_row_are_refused():
    with pytest.raises(ValueError, match="not unique"):
        report.reference(runs(), "test", {}, ["method"])


def test_markdown_has_named_levels_of_the_index_and_empty_cells():
    table = runs().groupby("method", sort=False).agg(best=("test", "max"))
    table["count"] = [3, None]
    table["name"] = ["a", None]
    assert report.markdown(table.astype({"count": "Int64"})) == (
        "| method | best | count | name |\n"
        "| --- | --- | --- | --- |\n"
        "| SAM | 97.00 | 3 | a |\n"
        "| SGD | 96.50 |  |  |\n"
    )


def test_written_files_have_command_machine_tables_and_values(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("sys.argv", ["x", "--out", "/a/b/c", "--quick"])
    table = runs()
    table.loc[0, "test"] = None
    text = report.write(
        tmp_path / "new" / "a.b", {"Title": [{"x": 1}]}, {"runs": table}
    )
    assert text == (tmp_path / "new" / "a.b.md").read_text()
    assert text.endswith("\nTitle\n\n| x |\n| --- |\n| 1 |\n")
    values = json.loads((tmp_path / "new" / "a.b.json").read_text())
    assert values["command"].endswith(" --out c --quick")
    assert values["machine"]["keras"] in text
    assert values["runs"][0] == {"method": "SAM", "seed": 0, "test": None}
    assert values["runs"][1]["test"] == 92.0
    assert len(list((tmp_path / "new").iterdir())) == 2
