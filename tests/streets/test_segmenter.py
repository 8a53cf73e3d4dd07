import numpy as np
import pandas as pd
import pytest
import torch

from monodepth_nb.__main__ import main
from monodepth_nb.data.sample import Sample
from monodepth_nb.networks import DispResNet, SemanticDispResNet
from monodepth_nb.pretrained import WeightsUnavailable
from monodepth_nb.streets.scene import CLASSES
from monodepth_nb.streets.segmenter import (
    Segmenter,
    class_scores,
    classes_of,
    load_labelled,
    load_segmenter,
    resize_classes,
    save_segmenter,
    segment,
    segmentation_figure,
    train_segmenter,
    with_true_classes,
)

ROAD, CAR, SKY = (CLASSES.index(name) for name in ("road", "car", "sky"))


def toy_street(seed):
    """Blue sky above grey road and a red car somewhere: 32 x 64 pixels with a class map of twice that size."""
    rng = np.random.default_rng(seed)
    classes = np.full((64, 128), ROAD, np.uint8)
    classes[: rng.integers(15, 45)] = SKY
    top, left = rng.integers(10, 38), rng.integers(5, 85)
    classes[top : top + 24, left : left + 36] = CAR
    colours = np.zeros((len(CLASSES), 3), np.float32)
    colours[[ROAD, CAR, SKY]] = (0.4, 0.4, 0.4), (0.8, 0.1, 0.1), (0.3, 0.5, 0.9)
    image = colours[classes[::2, ::2]] + rng.normal(0, 0.05, (32, 64, 3)).astype(np.float32)
    image = torch.from_numpy(image.clip(0, 1)).permute(2, 0, 1)
    return Sample(left=image, right=image, name=f"toy {seed}", classes=torch.from_numpy(classes))


TAUGHT, UNSEEN = [toy_street(i) for i in range(12)], [toy_street(i) for i in range(100, 104)]


@pytest.fixture(scope="module")
def trained():
    return train_segmenter(*load_labelled(TAUGHT), epochs=6, seed=0)


@pytest.mark.parametrize("trunk", ["resnet18", "resnet50", "lite0"])
def test_it_scores_every_class_at_every_pixel(trunk):
    with torch.device("meta"):
        assert Segmenter(trunk)(torch.rand(2, 3, 64, 128)).shape == (2, len(CLASSES), 64, 128)


def test_it_learns_unseen_scenes_better_than_positions_tell_and_depends_on_the_seed_alone(trained):
    common = load_labelled(TAUGHT)[1].mode(dim=0).values
    learnt = class_scores(lambda s: segment(trained, s.left, s.classes.shape), UNSEEN)
    positions = class_scores(lambda s: resize_classes(common, s.classes.shape), UNSEEN)
    assert learnt["mean"] > 0.75
    assert learnt["car"] > positions["car"] + 0.3
    first, second = (train_segmenter(*load_labelled(TAUGHT[:4]), epochs=1, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def test_intersection_over_union_by_hand_counts_the_pixels_of_all_images():
    truths = {"a": [SKY, SKY, SKY, SKY, ROAD, ROAD], "b": [ROAD, ROAD]}
    predictions = {"a": [ROAD, ROAD, SKY, SKY, ROAD, ROAD], "b": [ROAD, ROAD]}
    samples = [Sample(name=name, classes=torch.tensor(truth, dtype=torch.uint8)) for name, truth in truths.items()]
    scores = class_scores(lambda sample: torch.tensor(predictions[sample.name], dtype=torch.uint8), samples)
    assert scores["sky"] == pytest.approx(2 / 4)  # 2 right; 4 are or are called sky
    assert scores["road"] == pytest.approx(4 / 6)  # the mean of both images would be 3 / 4
    assert np.isnan(scores["car"])
    assert scores["mean"] == pytest.approx((2 / 4 + 4 / 6) / 2)


def test_missing_or_unknown_classes_are_refused():
    with pytest.raises(ValueError, match="toy.*render_streets"):
        classes_of(Sample(left=torch.rand(3, 8, 8), name="toy"))
    with pytest.raises(ValueError, match="toy.*200.*road"):
        classes_of(Sample(classes=torch.full((2, 2), 200, dtype=torch.uint8), name="toy"))


def test_a_saved_segmenter_predicts_as_before_and_its_trunk_serves_the_semantic_network(trained, tmp_path):
    path, image = tmp_path / "new" / "segmenter.pt", UNSEEN[0].left
    with pytest.raises(WeightsUnavailable, match=f"{path}.*train-segmenter"):
        SemanticDispResNet(f"streets:{path}", "resnet18")
    assert save_segmenter(trained, path) == path
    assert torch.equal(segment(load_segmenter(path), image), segment(trained, image))
    assert [p.name for p in path.parent.iterdir()] == ["segmenter.pt"]  # no incomplete file beside it
    trunk = SemanticDispResNet(f"streets:{path}", "resnet18", width=0.125).encoder.trunk
    held, learnt = trunk.body.state_dict(), trained.trunk.body.state_dict()
    assert held.keys() == learnt.keys() and all(torch.equal(held[k], learnt[k]) for k in held)
    assert not any(p.requires_grad for p in trunk.parameters())
    with pytest.raises(ValueError, match="resnet18.*resnet50"), torch.device("meta"):
        SemanticDispResNet(f"streets:{path}", "resnet50")


def test_true_classes_join_every_level_as_shares_of_its_cells():
    classes = torch.full((64, 128), ROAD, dtype=torch.uint8)
    classes[:, 64:96] = SKY
    sample = Sample(name="toy", left=torch.rand(3, 64, 128), classes=classes)
    network = with_true_classes(DispResNet("lite0", width=0.125, weights="random"), [sample])
    levels = network.encoder(sample.left[None])
    assert [level.shape[1] for level in levels] == network.encoder.channels
    for level in levels:
        road, sky = level[0, -len(CLASSES) :][[ROAD, SKY]]
        assert torch.equal(road + sky, torch.ones_like(road))
        quarters = sky.unflatten(1, (4, -1)).mean((0, 2))
        assert quarters.tolist() == [0, 0, 1, 0]
    assert network(sample.left[None])[0].shape == (1, 2, 64, 128)


def test_the_figure_shows_image_truth_and_prediction_at_one_size_with_every_class_named(trained):
    sample = UNSEEN[0]
    prediction = segment(trained, sample.left, sample.classes.shape)
    assert prediction.shape == sample.classes.shape and prediction.dtype == torch.uint8
    fig = segmentation_figure(sample.left, sample.classes, prediction, "toy streets")
    assert [text.get_text() for text in fig.legends[0].get_texts()] == list(CLASSES)
    colours = np.array([patch.get_facecolor()[:3] for patch in fig.legends[0].get_patches()])
    assert len(np.unique(colours, axis=0)) == len(CLASSES)
    for ax, classes in zip(fig.axes[1:], (sample.classes, prediction), strict=True):
        assert np.array_equal(ax.images[0].get_array(), colours[classes])
    assert len({tuple(ax.images[0].get_extent()) for ax in fig.axes}) == 1


def test_the_command_renders_trains_scores_and_keeps_network_table_and_figure(tmp_path, capsys):
    options = ["--scenes", "5", "--size", "32", "64", "--epochs", "1"]
    assert main(["train-segmenter", *options, "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "sidewalk" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["segmenter.csv", "segmenter.png", "segmenter.pt"]
    table = pd.read_csv(tmp_path / "out" / "segmenter.csv", index_col="predictor")
    assert table.index.tolist() == ["segmenter", "most common class at each position"]
    assert table.columns.tolist() == [*CLASSES, "mean"]
