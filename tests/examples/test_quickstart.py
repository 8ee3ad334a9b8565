import json
import pathlib

import matplotlib
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[2] / "examples" / "quickstart.ipynb"
SHORT = {"EPOCHS = 25": "EPOCHS = 2", "num_points=11": "num_points=3"}


# `plt.show()` without a screen.
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize(
    "is_short", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_notebook_runs_and_shows_what_its_text_says(
    is_short, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    namespace = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            if is_short:
                for text, short in SHORT.items():
                    source = source.replace(text, short)
            exec(source, namespace)
    assert (tmp_path / "landscape.png").exists()
    if is_short:
        assert namespace["EPOCHS"] == 2
        return
    accuracies = [
        history["val_accuracy"][-1]
        for _, history in namespace["trained"].values()
    ]
    sgd, *sharpness_aware = accuracies
    assert sgd < 0.85 and min(sharpness_aware) > 0.9
