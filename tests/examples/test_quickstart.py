import json
import pathlib

import matplotlib
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


# `plt.show()` without a screen.
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_notebook_runs_and_shows_what_its_text_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    namespace = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), namespace)
    accuracies = [
        history["val_accuracy"][-1]
        for _, history in namespace["trained"].values()
    ]
    sgd, *sharpness_aware = accuracies
    assert sgd < 0.85 and min(sharpness_aware) > 0.9
    assert (tmp_path / "landscape.png").exists()
