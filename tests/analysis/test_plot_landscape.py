import numpy as np
import pytest

from keras_esam import analysis

matplotlib_figure = pytest.importorskip("matplotlib.figure")
Axes3D = pytest.importorskip("mpl_toolkits.mplot3d").Axes3D


def landscape(scale, num_draws=1, filter_normalise=True):
    points = np.linspace(-1, 1, 9)
    losses = scale * (points[:, None] ** 2 + points + 2)
    return analysis.Landscape(
        points, np.array([losses] * num_draws), filter_normalise
    )


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved = []
    save = matplotlib_figure.Figure.savefig

    def savefig(self, *args, **kwargs):
        saved.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(matplotlib_figure.Figure, "savefig", savefig)
    return saved


def test_all_have_one_scale_titles_and_units(tmp_path, figures):
    path = tmp_path / "landscape.png"
    analysis.plot_landscape(
        {"SGD": landscape(3, num_draws=10), "ESAM": landscape(1)},
        path,
        title="Two of them",
    )
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    surfaces = [a for a in figure.axes if a.name == "3d"]
    contours = [a for a in figure.axes if "$d_1$, filter" in a.get_xlabel()]
    assert len(surfaces) == len(contours) == 2
    for axes in surfaces:
        assert axes.get_zlim() == (0, np.log10(20))
        assert axes.collections[0].get_clim() == (0, np.log10(20))
        ticks = [label.get_text() for label in axes.get_zticklabels()]
        assert ticks == ["1", "10"]
    for axes in contours:
        assert axes.collections[0].get_clim() == (1, 20)
        assert list(axes.collections[0].levels) == [1, 2, 5, 10, 20]
    titles = [axes.get_title() for axes in surfaces]
    assert titles == [
        "SGD\nloss 3 to 12, mean of 10 draws",
        "ESAM\nloss 1 to 4",
    ]
    assert figure.axes[-1].get_ylabel() == "loss"
    assert figure.get_suptitle() == "Two of them"


def test_levels_are_plain_and_enclose_the_losses(tmp_path, figures):
    points = np.array([-1.0, 1.0])
    losses = np.array([[[0.021, 0.3], [0.4, 0.9]]])
    analysis.plot_landscape(
        {"a": analysis.Landscape(points, losses, True)}, tmp_path / "a.png"
    )
    levels = figures[0].axes[1].collections[0].levels
    assert list(levels) == [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]


def test_first_direction_is_the_horizontal_one(tmp_path, figures, monkeypatch):
    drawn = []
    plot_surface = Axes3D.plot_surface

    def spy(self, *args, **kwargs):
        drawn.append(args)
        return plot_surface(self, *args, **kwargs)

    monkeypatch.setattr(Axes3D, "plot_surface", spy)
    analysis.plot_landscape({"a": landscape(1)}, tmp_path / "a.png")
    surface, contour = figures[0].axes[:2]
    assert "d_1" in surface.get_xlabel() and "d_1" in contour.get_xlabel()
    # Symmetric in the first direction, rising in the second.
    ((x, y, z),) = drawn
    np.testing.assert_allclose(z, x**2 + y + 2)
    lines = contour.collections[1].get_paths()
    for level, path in zip(contour.collections[1].levels, lines, strict=True):
        for x, y in path.vertices:
            assert abs(x**2 + y + 2 - level) < 0.05


def test_nothing_overlaps(tmp_path, figures):
    names = ["SGD", "SAM", "ESAM with a longer name"]
    analysis.plot_landscape(
        {name: landscape(1, filter_normalise=False) for name in names},
        tmp_path / "a.png",
    )
    (figure,) = figures
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert len(boxes) == 7
    for index, box in enumerate(boxes):
        assert figure.bbox.fully_containsx(box.x0 + 1)
        assert figure.bbox.fully_containsx(box.x1 - 1)
        assert not any(box.fully_overlaps(other) for other in boxes[:index])


def test_infinite_losses_are_left_out(tmp_path, figures):
    diverging = landscape(1)
    diverging.losses[0, 0, 0] = np.inf
    flat = analysis.Landscape(
        diverging.coordinates, np.ones_like(diverging.losses), True
    )
    analysis.plot_landscape({"a": diverging}, tmp_path / "a.png")
    analysis.plot_landscape({"a": flat}, tmp_path / "b.png")
    assert figures[0].axes[0].get_zlim()[1] == 4
    assert figures[0].axes[0].get_title() == "a\nloss 1 to 4"
    levels = figures[0].axes[1].collections[0].levels
    np.testing.assert_allclose(np.diff(levels), np.ptp(levels) / 23)
    low, high = figures[1].axes[0].get_zlim()
    assert low == 1 and low < high < 1.01


def test_bad_landscapes(tmp_path):
    nothing = analysis.Landscape(
        np.array([-1.0, 1.0]), np.full((1, 2, 2), np.nan), True
    )
    for landscapes in ({}, {"a": nothing}):
        with pytest.raises(ValueError, match="must have finite losses"):
            analysis.plot_landscape(landscapes, tmp_path / "a.png")
