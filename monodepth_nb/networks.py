"""The networks: one image in, four disparity maps out (Godard et al. 2017, section 3.1 and its supplement).

Read from top to bottom: encoder, decoder, networks. Shapes are written for the full width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monodepth_nb.layers import Bottleneck, ConvBlock, DisparityHead, UpConv, check_option, initialise
from monodepth_nb.pretrained import STREETS, Trunk, segmentation_trunk

DECODER_WIDTHS = (512, 256, 128, 64, 32, 16)  # deepest level first
STRIDE = 64  # the encoder halves the image six times


def residual_stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    """`blocks` bottlenecks to 4 * `channels`, halving the size.

    Differs from the paper's code: the first block strides, as in ResNet, not the last: a third less arithmetic.
    """
    rest = (Bottleneck(4 * channels, channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(in_channels, channels, 2), *rest)


class ScratchEncoder(nn.Module):
    """Six features, finest first, like ResNet-50's without batch norm. `channels` lists their widths."""

    def __init__(self, width: float = 1.0):
        super().__init__()
        c64, c128, c256, c512 = (scaled(c, width) for c in (64, 128, 256, 512))
        self.conv1 = ConvBlock(3, c64, 7, stride=2)
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = residual_stage(c64, c64, 3)
        self.conv3 = residual_stage(4 * c64, c128, 4)
        self.conv4 = residual_stage(4 * c128, c256, 6)
        self.conv5 = residual_stage(4 * c256, c512, 3)
        self.channels = [c64, c64, 4 * c64, 4 * c128, 4 * c256, 4 * c512]

    def forward(self, image: Tensor) -> list[Tensor]:  # (B, 3, H, W)
        features = [self.conv1(image)]  # (B, 64, H/2, W/2)
        features.append(self.pool1(features[-1]))  # (B, 64, H/4, W/4)
        features.append(self.conv2(features[-1]))  # (B, 256, H/8, W/8)
        features.append(self.conv3(features[-1]))  # (B, 512, H/16, W/16)
        features.append(self.conv4(features[-1]))  # (B, 1024, H/32, W/32)
        features.append(self.conv5(features[-1]))  # (B, 2048, H/64, W/64)
        return features


class Decoder(nn.Module):
    """From the deepest feature to full size. Skips join on the way, and the last four levels predict disparity."""

    def __init__(self, channels: list[int], width: float, upsampling: str, edges: str = "zeros"):
        super().__init__()
        check_option("upsampling", upsampling, UPSAMPLINGS)
        check_option("edges", edges, EDGES)
        self.upsampling = upsampling
        levels = len(channels)
        widths = [scaled(c, width) for c in DECODER_WIDTHS[-levels:]]
        inputs, skips = [channels[-1], *widths[:-1]], [*channels[-2::-1], 0]  # the finest level has no skip
        self.first_head = levels - 4
        joined = [2 if level > self.first_head else 0 for level in range(levels)]  # coarser level's disparity
        self.upconvs = nn.ModuleList(UpConv(i, o, upsampling) for i, o in zip(inputs, widths, strict=True))
        self.iconvs = nn.ModuleList(ConvBlock(o + s + d, o, 3) for o, s, d in zip(widths, skips, joined, strict=True))
        self.heads = nn.ModuleList(DisparityHead(o) for o in widths[self.first_head :])
        for layer in (*self.upconvs[-2:].modules(), *self.iconvs[-2:].modules(), *self.heads[-2:].modules()):
            if isinstance(layer, nn.Conv2d):
                layer.padding_mode = edges

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        x, skips, disparities = features[-1], features[-2::-1], []
        for level, (upconv, iconv) in enumerate(zip(self.upconvs, self.iconvs, strict=True)):
            parts = [upconv(x), *skips[level : level + 1]]
            if disparities:
                coarser = disparities[-1].to(parts[0].dtype)  # float32 would promote the whole concatenation
                parts.append(F.interpolate(coarser, scale_factor=2, mode=self.upsampling))
            x = iconv(torch.cat(parts, dim=1))
            if level >= self.first_head:
                disparities.append(self.heads[level - self.first_head](x))
        return disparities[::-1]


class DispResNet(nn.Module):
    """Disparity of both views of a stereo pair from its left image.

    >>> import torch
    >>> from monodepth_nb import DispResNet
    >>> maps = DispResNet(width=0.25)(torch.rand(1, 3, 128, 256))
    >>> left_disparity_px = 256 * maps[0][:, 0]  # (1, 128, 256)

    encoder:    "scratch", the paper's ResNet variant without batch norm; "imagenet", torchvision's ResNet-50;
                "imagenet18", its ResNet-18; "lite0", EfficientNet-Lite0, whose ImageNet weights need no download
    width:      multiplies every channel count except those of pretrained encoders; from scratch, 1.0 has 58.45 M
                parameters, 0.25 has 3.7 M
    upsampling: "nearest" (paper) or "bilinear" (the course project)
    trainable_encoder: fine-tune a pretrained encoder instead of freezing it
    weights:    of a pretrained encoder: "imagenet", "streets:PATH" (our segmenter of rendered streets) or "random"
    edges:      how the two finest levels of the decoder pad: "zeros" (paper), or "replicate". Differs from the paper:
                zeros can spoil the last rows of a map

    forward: (B, 3, H, W), RGB in [0, 1], H and W multiples of 64 -> list of four (B, 2, H/2^s, W/2^s), s = 0..3, finest
    first; channel 0 = left disparity, 1 = right disparity, fractions of the image width in (0, 0.3).
    Raises pretrained.WeightsUnavailable.
    """

    def __init__(
        self, encoder: str = "scratch", width: float = 1.0, upsampling: str = "nearest",
        trainable_encoder: bool = False, weights: str = "imagenet", edges: str = "zeros",
    ):  # fmt: skip
        super().__init__()
        check_option("encoder", encoder, ENCODERS)
        if encoder == "scratch" and weights.startswith(STREETS):
            raise ValueError(f"a scratch encoder cannot hold {weights!r}: pass another encoder, such as 'imagenet18'")
        self.arguments = {
            "network": "DispResNet", "encoder": encoder, "width": width, "upsampling": upsampling,
            "trainable_encoder": trainable_encoder, "weights": weights, "edges": edges,
        }  # fmt: skip
        if encoder == "scratch":
            self.encoder = ScratchEncoder(width)
            initialise(self.encoder)
        else:
            self.encoder = Trunk(ENCODERS[encoder], weights, trainable=trainable_encoder).normalise()
        self.decoder = Decoder(self.encoder.channels, width, upsampling, edges)
        initialise(self.decoder)

    def forward(self, image: Tensor) -> list[Tensor]:
        check_size(image)
        return self.decoder(self.encoder(image))


class SemanticEncoder(nn.Module):
    """A scratch encoder whose skips at 1/4 and 1/8 are widened by frozen features.

    The scratch encoder itself does not receive these features. join: "wide" concatenates them as they are (ResNet-50:
    256 channels at 1/4, 3,584 at 1/8); "projected" first reduces them by 1x1 ConvBlocks to 64 and 128 channels, times
    `width`, so that they do not outnumber the 64 and 256 channels of the skips.
    """

    def __init__(self, trunk: Trunk, join: str, width: float):
        super().__init__()
        self.trunk, self.scratch = trunk, ScratchEncoder(width)
        found = joined = [trunk.channels[1], sum(trunk.channels[2:])]
        self.joins = nn.ModuleList([nn.Identity(), nn.Identity()])
        if join == "projected":
            joined = [scaled(64, width), scaled(128, width)]
            self.joins = nn.ModuleList(ConvBlock(f, j, 1) for f, j in zip(found, joined, strict=True))
        first, quarter, eighth, *deeper = self.scratch.channels
        self.channels = [first, quarter + joined[0], eighth + joined[1], *deeper]

    def forward(self, image: Tensor) -> list[Tensor]:
        features = self.scratch(image)
        _, quarter, *deeper = self.trunk(image)
        size = features[2].shape[-2:]
        eighth = torch.cat([F.interpolate(f, size, mode="bilinear") for f in deeper], dim=1)
        features[1] = torch.cat([features[1], self.joins[0](quarter)], dim=1)
        features[2] = torch.cat([features[2], self.joins[1](eighth)], dim=1)
        return features


class SemanticDispResNet(nn.Module):
    """The scratch network with additional features of a frozen segmentation network.

    weights:    source of the frozen features. "coco": FCN-ResNet50, whose classes include car, bus and person, but
                not road, building or sky; "streets:PATH": our own segmenter of rendered streets. Controls of the same
                shape: "imagenet" (trained, but not to segment), "random" (not trained)
    trunk:      "resnet50", dilated as in FCN-ResNet50; or "resnet18", "lite0", whose last levels are upsampled to 1/8
    join:       "projected", or "wide" as in the course project; see `SemanticEncoder`
    width, upsampling, forward, errors: as in `DispResNet`; `width` does not change the frozen trunk

    Networks of one seed that differ only in `weights` start from the same trainable tensors.
    """

    def __init__(self, weights="coco", trunk="resnet50", join="projected", width=1.0, upsampling="nearest"):
        super().__init__()
        check_option("join", join, ("projected", "wide"))
        self.arguments = {
            "network": "SemanticDispResNet", "weights": weights, "trunk": trunk, "join": join, "width": width,
            "upsampling": upsampling,
        }  # fmt: skip
        self.encoder = SemanticEncoder(segmentation_trunk(trunk, weights).normalise(), join, width)
        self.decoder = Decoder(self.encoder.channels, width, upsampling)
        for new in (self.encoder.scratch, self.encoder.joins, self.decoder):
            initialise(new)

    forward = DispResNet.forward


def build_network(arguments: dict) -> nn.Module:
    """The network with these `arguments` and random weights, ready for `load_state_dict`.

    It needs no file of pretrained weights, because a checkpoint holds the frozen tensors too.
    """
    options = arguments | {"weights": "random"}
    kind = options.pop("network", None)
    check_option("network", kind, NETWORKS)
    network = NETWORKS[kind](**options)
    for trunk in (module for module in network.modules() if isinstance(module, Trunk)):
        trunk.learns_statistics &= arguments["weights"] == "random"
    network.arguments = dict(arguments)
    return network


ENCODERS = {"scratch": None, "imagenet": "resnet50", "imagenet18": "resnet18", "lite0": "lite0"}
UPSAMPLINGS, EDGES = ("nearest", "bilinear"), ("zeros", "replicate")
NETWORKS = {"DispResNet": DispResNet, "SemanticDispResNet": SemanticDispResNet}


def scaled(channels: int, width: float) -> int:
    """Channel count times the width multiplier, at least 1. Raises ValueError unless the width is positive."""
    if width <= 0:
        raise ValueError(f"width is {width}; it must be larger than 0")
    return max(1, round(channels * width))


def check_size(image: Tensor) -> None:
    """Raise ValueError unless `image` is (B, 3, H, W) with H and W multiples of 64."""
    if image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f"expected images of shape (batch, 3, height, width), got {tuple(image.shape)}")
    h, w = image.shape[-2:]
    if h % STRIDE or w % STRIDE or not h or not w:
        better = " x ".join(str(max(STRIDE, round(n / STRIDE) * STRIDE)) for n in (h, w))
        raise ValueError(f"image size {h} x {w} is not a multiple of {STRIDE}; resize to {better}")
