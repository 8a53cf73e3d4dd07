import numpy as np
import pytest
import torch

from monodepth_nb.__main__ import main
from monodepth_nb.data.sample import Sample
from monodepth_nb.networks import SemanticDispResNet
from monodepth_nb.pretrained import WeightsUnavailable
from monodepth_nb.streets.rendering import render_streets
from monodepth_nb.streets.scene import CLASSES
from monodepth_nb.streets.segmenter import (
    COLOURS,
    Segmenter,
    class_scores,
    classes_of,
    evaluate_segmenter,
    load_segmenter,
    position_scores,
    save_segmenter,
    segment,
    segmentation_figure,
    train_on_streets,
    train_segmenter,
)

ROAD, CAR, SKY = (CLASSES.index(name) for name in ("road", "car", "sky"))
SIZE = (64, 128)


def toy_street(seed):
    """Blue sky above grey road and a red car somewhere: classes that colour gives away, at twice `SIZE`."""
    rng = np.random.default_rng(seed)
    classes = np.full((128, 256), ROAD, np.uint8)
    classes[: rng.integers(30, 90)] = SKY
    top, left = rng.integers(20, 80), rng.integers(10, 190)
    classes[top : top + 40, left : left + 50] = CAR
    colours = np.zeros((len(CLASSES), 3), np.float32)
    colours[[ROAD, CAR, SKY]] = (0.4, 0.4, 0.4), (0.8, 0.1, 0.1), (0.3, 0.5, 0.9)
    image = colours[classes] + rng.normal(0, 0.05, (128, 256, 3)).astype(np.float32)
    image = torch.from_numpy(image.clip(0, 1)).permute(2, 0, 1)
    return Sample(left=image, right=image, name=f"toy {seed}", classes=torch.from_numpy(classes))


@pytest.fixture(scope="module")
def trained():
    model, history = train_segmenter([toy_street(i) for i in range(12)], SIZE, epochs=8, seed=0)
    return model, history


UNSEEN = [toy_street(i) for i in range(100, 104)]


def test_it_scores_every_class_at_every_pixel():
    assert Segmenter()(torch.rand(2, 3, 64, 128)).shape == (2, len(CLASSES), 64, 128)


def test_it_learns_unseen_scenes_better_than_positions_tell(trained):
    model, history = trained
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["accuracy"].iloc[-1] > 0.95
    learnt = evaluate_segmenter(model, UNSEEN, SIZE)
    positions = position_scores([toy_street(i) for i in range(12)], UNSEEN, SIZE)
    assert learnt["mean"] > 0.75
    assert learnt["car"] > positions["car"] + 0.3


def test_the_same_seed_gives_the_same_network():
    streets = [toy_street(i) for i in range(4)]
    first, second = (train_segmenter(streets, SIZE, epochs=1, seed=5)[0] for _ in range(2))
    again = second.state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.state_dict().items())


def test_intersection_over_union_by_hand():
    truth = torch.full((2, 4), ROAD, dtype=torch.uint8)
    truth[0] = SKY
    prediction = truth.clone()
    prediction[0, :2] = ROAD  # of 4 sky pixels 2 are called road
    scores = class_scores(lambda sample: prediction, [Sample(classes=truth, name="a")])
    assert scores["sky"] == pytest.approx(2 / 4)  # 2 right; 4 are or are called sky
    assert scores["road"] == pytest.approx(4 / 6)
    assert np.isnan(scores["car"])
    assert scores["mean"] == pytest.approx((2 / 4 + 4 / 6) / 2)


def test_counts_are_added_over_images_not_averaged():
    road, sky = (torch.full((1, n), k, dtype=torch.uint8) for n, k in ((9, ROAD), (1, SKY)))
    samples = [Sample(classes=road, name="a"), Sample(classes=sky, name="b")]
    scores = class_scores(lambda sample: torch.full_like(sample.classes, ROAD), samples)
    assert scores["road"] == pytest.approx(0.9) and scores["sky"] == 0


def test_a_prediction_has_the_size_of_the_class_map(trained):
    prediction = segment(trained[0], torch.rand(3, *SIZE), (90, 250))
    assert prediction.shape == (90, 250) and prediction.dtype == torch.uint8


def test_classes_that_are_missing_or_unknown_are_refused():
    with pytest.raises(ValueError, match=r"toy has no class map.*render_streets"):
        classes_of(Sample(left=torch.rand(3, 8, 8), name="toy"))
    with pytest.raises(ValueError, match="toy has class 200; known: 0 road"):
        classes_of(Sample(classes=torch.full((2, 2), 200, dtype=torch.uint8), name="toy"))


def test_a_saved_segmenter_predicts_as_before(trained, tmp_path):
    path = save_segmenter(trained[0], tmp_path / "new" / "segmenter.pt")
    image = torch.rand(3, *SIZE)
    assert torch.equal(segment(load_segmenter(path), image), segment(trained[0], image))
    assert [p.name for p in path.parent.iterdir()] == ["segmenter.pt"]  # nothing half-written beside it


def test_its_trunk_serves_the_semantic_network(trained, tmp_path):
    path = save_segmenter(trained[0], tmp_path / "segmenter.pt")
    network = SemanticDispResNet(f"streets:{path}", "resnet18", width=0.125)
    held, learnt = network.encoder.trunk.body.state_dict(), trained[0].trunk.body.state_dict()
    assert held.keys() == learnt.keys() and all(torch.equal(held[k], learnt[k]) for k in held)
    assert not any(p.requires_grad for p in network.encoder.trunk.parameters())


def test_a_file_of_another_kind_or_trunk_is_refused(trained, tmp_path):
    path = tmp_path / "segmenter.pt"
    with pytest.raises(WeightsUnavailable, match=r"segmenter.pt does not exist: run .*train-segmenter"):
        SemanticDispResNet(f"streets:{path}", "resnet18")
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsUnavailable, match=r"segmenter.pt is not a segmenter's file"):
        SemanticDispResNet(f"streets:{path}", "resnet18")
    save_segmenter(trained[0], path)
    with pytest.raises(ValueError, match="holds a resnet18, not a resnet50: pass trunk='resnet18'"):
        SemanticDispResNet(f"streets:{path}")


def test_the_picture_shows_image_truth_and_prediction_with_every_class_named(trained):
    sample = UNSEEN[0]
    fig = segmentation_figure(sample.left, sample.classes, segment(trained[0], sample.left), "toy streets")
    assert [ax.get_title() for ax in fig.axes] == ["left view", "true classes", "predicted classes"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == list(CLASSES)
    assert len(COLOURS) == len(set(COLOURS)) == len(CLASSES)
    for ax, classes in zip(fig.axes[1:], (sample.classes, segment(trained[0], sample.left)), strict=True):
        assert np.array_equal(ax.images[0].get_array(), classes)


def test_training_on_a_folder_of_streets_leaves_network_table_and_picture(tmp_path):
    streets = render_streets(tmp_path / "streets", 5, size=SIZE, progress=False)
    table = train_on_streets(streets, tmp_path / "out", SIZE, epochs=1)
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["segmenter.csv", "segmenter.png", "segmenter.pt"]
    assert table.index.tolist() == ["segmenter", "most common class at each position"]
    assert table.columns.tolist() == [*CLASSES, "mean"]


def test_the_command_renders_trains_scores_and_keeps_the_weights(tmp_path, capsys):
    options = ["--scenes", "5", "--size", "64", "128", "--epochs", "1"]
    folders = ["--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main(["train-segmenter", *options, *folders]) == 0
    assert "sidewalk" in capsys.readouterr().out
    assert load_segmenter(tmp_path / "out" / "segmenter.pt").classes == CLASSES
