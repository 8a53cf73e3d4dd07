import copy
import re

import pytest
import torch

from monodepth_nb.layers import MAX_DISPARITY, conv_of_upsampled, elu
from monodepth_nb.networks import DispResNet, SemanticDispResNet, build_network, check_size

SMALL = {
    "scratch": lambda: DispResNet(width=0.125),
    "bilinear": lambda: DispResNet(width=0.125, upsampling="bilinear"),
    "imagenet18": lambda: DispResNet("imagenet18", width=0.25, weights="random"),
    "lite0": lambda: DispResNet("lite0", width=0.25, weights="random"),
    "projected": lambda: SemanticDispResNet("random", "resnet18", "projected", width=0.125),
    "wide": lambda: SemanticDispResNet("random", "resnet18", "wide", width=0.125),
}


@pytest.fixture(scope="module", params=SMALL)
def built(request):
    torch.manual_seed(0)
    return SMALL[request.param]()


@pytest.fixture
def network(built):
    """A copy that the test may change."""
    return copy.deepcopy(built)


def parameters(network):
    """Numbers of trainable and of frozen parameters."""
    return tuple(sum(p.numel() for p in network.parameters() if p.requires_grad is t) for t in (True, False))


@pytest.mark.parametrize("size", [(64, 128), (128, 64), (192, 320)])
def test_four_maps_halve_in_size_finest_first(network, size):
    with torch.no_grad():
        maps = network.eval()(torch.rand(1, 3, *size))
    assert [tuple(m.shape) for m in maps] == [(1, 2, size[0] >> s, size[1] >> s) for s in range(4)]


def test_disparity_stays_between_zero_and_three_tenths_for_any_weights(network):
    with torch.no_grad():
        for weight in network.decoder.parameters():
            weight.mul_(3)
        maps = network.eval()(torch.rand(1, 3, 64, 128))
    assert MAX_DISPARITY == 0.3
    assert all(m.min() >= 0 and m.max() <= MAX_DISPARITY for m in maps)
    assert maps[0].std() > 0.01  # the weights were large enough to matter


def test_first_disparity_is_small(network):
    with torch.no_grad():
        maps = network.eval()(torch.rand(2, 3, 128, 256))
    for m in maps:  # the bias alone gives 0.025
        assert 0.005 < m.mean() < 0.06
        assert m.max() < 0.15


def test_gradients_reach_every_trainable_tensor_and_no_frozen_one(network):
    network.train()
    sum(m.square().mean() for m in network(torch.rand(2, 3, 64, 128))).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


def test_each_coarse_map_takes_part_in_the_next_finer_one():
    network = DispResNet(width=0.125).eval()
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        before = network(image)
        network.decoder.heads[0].conv.bias.add_(1)  # of the coarsest
        after = network(image)
    assert all((a - b).abs().max() > 1e-7 for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    "build, trainable, frozen",
    [
        (lambda: DispResNet(), 58_452_008, 0),  # the count of the original code
        (lambda: DispResNet(width=0.25), 3_663_680, 0),
        (lambda: DispResNet("imagenet", weights="random"), 9_018_280, 23_508_032),
        (lambda: DispResNet("imagenet18", weights="random"), 3_156_904, 11_176_512),
        (lambda: DispResNet("imagenet18", weights="random", trainable_encoder=True), 14_333_416, 0),
        (lambda: DispResNet("lite0", width=0.25, weights="random"), 340_384, 2_958_848),
        (lambda: SemanticDispResNet("random", "resnet50", "projected"), 59_111_656, 23_508_032),
        (lambda: SemanticDispResNet("random", "resnet50", "wide"), 62_728_232, 23_508_032),
        (lambda: SemanticDispResNet("random", "resnet18", "projected"), 58_755_304, 11_176_512),
    ],
)
def test_parameter_counts(build, trainable, frozen):
    # ResNet-50 has 25,557,032 parameters, 2,049,000 of them in its last layer, which is dropped.
    with torch.device("meta"):  # shapes without numbers
        assert parameters(build()) == (trainable, frozen)


def test_width_scales_the_channels_of_every_layer():
    with torch.device("meta"):
        full, half = DispResNet().encoder, DispResNet(width=0.5).encoder
    assert full.channels == [64, 64, 256, 512, 1024, 2048]
    assert half.channels == [c // 2 for c in full.channels]


def test_upsampling_modes_differ_with_equal_weights():
    torch.manual_seed(0)
    nearest, bilinear = DispResNet(width=0.125), DispResNet(width=0.125, upsampling="bilinear")
    bilinear.load_state_dict(nearest.state_dict())
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        assert (nearest(image)[0] - bilinear(image)[0]).abs().max() > 1e-4


def test_semantic_features_widen_the_skips_at_a_quarter_and_an_eighth_only():
    with torch.device("meta"):
        plain = DispResNet(width=0.5).encoder.channels
        wide = SemanticDispResNet("random", join="wide", width=0.5).encoder.channels
        projected = SemanticDispResNet("random", join="projected", width=0.5).encoder.channels
    assert [w - p for w, p in zip(wide, plain, strict=True)] == [0, 256, 512 + 1024 + 2048, 0, 0, 0]
    assert [w - p for w, p in zip(projected, plain, strict=True)] == [0, 64 // 2, 128 // 2, 0, 0, 0]


@pytest.mark.parametrize("join", ["wide", "projected"])
def test_semantic_features_change_the_maps_and_not_the_depth_encoder(join):
    network = SemanticDispResNet("random", "resnet18", join, width=0.125).eval()
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        maps, features = network(image), network.encoder(image)
        network.encoder.trunk.scale.mul_(2)
        changed_maps, changed = network(image), network.encoder(image)
    own = network.encoder.scratch.channels
    assert all(torch.equal(f[:, :c], g[:, :c]) for f, g, c in zip(features, changed, own, strict=True))
    assert not torch.equal(features[1], changed[1]) and not torch.equal(features[2], changed[2])
    assert not torch.equal(maps[0], changed_maps[0])


@pytest.mark.parametrize("size", [(100, 256), (64, 100), (375, 1242), (32, 64)])
def test_a_size_that_does_not_halve_six_times_raises_with_a_size_that_does(size):
    with pytest.raises(ValueError) as raised:
        check_size(torch.empty(1, 3, *size))
    h, w = (int(n) for n in re.findall(r"(\d+) x (\d+)", str(raised.value))[-1])
    assert h % 64 == w % 64 == 0 and abs(h - size[0]) <= 32 and abs(w - size[1]) <= 32


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64), (1, 3, 64, 100)])
def test_every_network_refuses_anything_but_colour_images_of_such_a_size(built, shape):
    with pytest.raises(ValueError, match=re.escape(str(shape)) if shape[1:2] != (3,) else "64 x 128"):
        built(torch.rand(*shape))


@pytest.mark.parametrize(
    "build",
    [
        lambda: DispResNet("vgg"),
        lambda: DispResNet(upsampling="cubic"),
        lambda: DispResNet("imagenet", weights="V3"),
        lambda: SemanticDispResNet("random", join="sum"),
        lambda: SemanticDispResNet("random", trunk="resnet101"),
        lambda: SemanticDispResNet("cityscapes"),
        lambda: build_network({"encoder": "scratch"}),
    ],
)
def test_an_unknown_option_is_answered_with_the_known_ones(build):
    with pytest.raises(ValueError, match="known"):
        build()


def test_a_network_is_rebuilt_from_its_arguments_and_tensors(network):
    rebuilt = build_network(network.arguments)
    assert type(rebuilt) is type(network) and rebuilt.arguments == network.arguments
    rebuilt.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        assert torch.equal(network.eval()(image)[0], rebuilt.eval()(image)[0])


def test_disparity_is_not_rounded_to_16_bits():
    torch.manual_seed(0)
    network, image = DispResNet(width=0.125), torch.rand(1, 3, 64, 128)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        finest = network(image)[0]
    assert finest.dtype == torch.float32
    assert len(finest.unique()) > 0.9 * finest.numel()  # 16 bits know some hundred values here


def test_in_16_bits_the_coarser_map_joins_in_16_bits():
    network, seen = DispResNet(width=0.125), set()
    for layer in network.decoder.iconvs:
        layer.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(1, 3, 64, 128))
    assert seen == {torch.bfloat16}


def test_elu_and_its_gradient_equal_pytorchs_in_32_and_16_bits():
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        ours, theirs = (torch.linspace(-9, 9, 999, dtype=dtype, requires_grad=True) for _ in range(2))
        elu(ours).sum().backward()
        torch.nn.functional.elu(theirs).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=tolerance)
        torch.testing.assert_close(elu(ours), torch.nn.functional.elu(theirs), rtol=0, atol=tolerance)


@pytest.mark.parametrize("edges", ["zeros", "replicate"])
def test_a_transposed_convolution_replaces_upsampling_and_convolution(edges):
    x, conv = torch.rand(2, 5, 6, 8), torch.nn.Conv2d(5, 7, 3, padding=1, padding_mode=edges)
    enlarged = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    torch.testing.assert_close(conv_of_upsampled(x, conv), conv(enlarged), rtol=1e-5, atol=1e-5)


def test_replicated_edges_change_the_border_of_the_map_only():
    torch.manual_seed(0)
    zeros, replicate = DispResNet(width=0.125), DispResNet(width=0.125, edges="replicate")
    replicate.load_state_dict(zeros.state_dict())
    with torch.no_grad():
        difference = (zeros(torch.ones(1, 3, 64, 128))[0] - replicate(torch.ones(1, 3, 64, 128))[0]).abs()[0, 0]
    assert difference[-1].mean() > 1e-4 and difference[16:-16, 16:-16].max() < 1e-6
