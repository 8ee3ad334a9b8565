"""Statistics by hand, and what is written."""

import json

from benchmarks import report


def test_mean_and_standard_error_by_hand():
    # Deviations -3, -1 and 4: variance 26 / 2, over 3 runs.
    values = report.frame([90.0, None, 92.0, 97.0])[0]
    assert report.mean_and_error(values) == "93.00 +- 2.08"
    assert report.mean_and_error(values, error="std") == "93.00 +- 3.61"
    assert report.mean_and_error(values[:1], digits=1, sign="+") == "+90.0"
    assert report.mean_and_error(values[:0]) == ""


def test_median_and_quartiles_by_hand():
    values = report.frame([4.0, 2.0, 3.0, 1.0, 9.0])[0]
    assert report.median_and_quartiles(values, 1) == "3.0 (2.0 to 4.0)"


def test_markdown_has_named_levels_of_the_index_and_empty_cells():
    table = report.frame({"best": [97.0, 96.5], "count": [3, None]})
    table["name"] = ["a", None]
    table.index = ["SAM", "SGD"]
    table = table.rename_axis("method")
    assert report.markdown(table.astype({"count": "Int64"})) == (
        "| method | best | count | name |\n"
        "| --- | --- | --- | --- |\n"
        "| SAM | 97.00 | 3 | a |\n"
        "| SGD | 96.50 |  |  |\n"
    )


def test_written_files_have_command_machine_tables_and_values(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("sys.argv", ["x", "--out", "/a/b/c", "--quick"])
    values = {"runs": [{"seed": 0, "test": float("nan")}]}
    report.write(
        tmp_path / "new", values, lambda v: {"Title": report.frame(v["runs"])}
    )
    text = (tmp_path / "new/results.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    assert text.endswith(
        "\nTitle\n\n| seed | test |\n| --- | --- |\n| 0 |  |\n"
    )
    written = json.loads((tmp_path / "new/results.json").read_text())
    assert written["command"].endswith(" --out c --quick")
    assert written["machine"]["keras"] in text
    assert written["runs"] == [{"seed": 0, "test": None}]
    assert len(list((tmp_path / "new").iterdir())) == 2
