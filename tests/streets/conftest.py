import numpy as np
import pytest

from monodepth_nb.streets.rendering import render_scene, render_streets


@pytest.fixture(scope="session")
def scenes():
    """Six rendered scenes, stacked: {name: (6, ...)}."""
    rendered = [render_scene((1, number), (64, 128)) for number in range(6)]
    return {name: np.stack([scene[name] for scene in rendered]) for name in rendered[0]}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Four small scenes of seed 4, written in KITTI's layout."""
    return render_streets(tmp_path_factory.mktemp("streets") / "streets", 4, (32, 64), seed=4)
