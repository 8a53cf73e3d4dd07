"""EfficientNet-Lite0, an ImageNet classifier small enough for a CPU, written out as a feature extractor."""

import torch.nn.functional as F
from torch import Tensor, nn

LITE0_NORM = {"eps": 1e-3, "momentum": 0.01}  # of batch norm, as in the TensorFlow original


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: where its total is odd, right and below get the larger half."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        padding = kernel_size // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            sizes = zip(x.shape[-2:], self.kernel_size, self.stride, strict=True)
            down, right = (max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in sizes)
            x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection (Sandler et al., CVPR 2018), all with batch norm."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int, stride: int, expansion: int):
        super().__init__()
        wide = in_channels * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and in_channels == channels
        if self.expands:
            self.expand_conv, self.bn0 = SameConv(in_channels, wide, 1), nn.BatchNorm2d(wide, **LITE0_NORM)
        self.depthwise_conv = SameConv(wide, wide, kernel_size, stride, groups=wide)
        self.bn1 = nn.BatchNorm2d(wide, **LITE0_NORM)
        self.project_conv, self.bn2 = SameConv(wide, channels, 1), nn.BatchNorm2d(channels, **LITE0_NORM)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn0(self.expand_conv(x)), inplace=True) if self.expands else x
        y = F.relu6(self.bn1(self.depthwise_conv(y)), inplace=True)
        y = self.bn2(self.project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its head (Tan and Le, ICML 2019; "Lite": no squeeze-and-excite, ReLU6).

    forward: (B, 3, H, W) -> {block: feature} of five levels, 16, 24, 40, 112, 320 channels at 1/2 to 1/32
    """

    STAGES = (  # blocks, kernel size, stride, expansion, channels
        (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )  # fmt: skip
    LEVELS = (0, 2, 4, 10, 15)  # the last block of each size

    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn0 = SameConv(3, 32, 3, stride=2), nn.BatchNorm2d(32, **LITE0_NORM)
        blocks, before = [], 32
        for count, kernel_size, stride, expansion, channels in self.STAGES:
            for index in range(count):
                blocks.append(InvertedResidual(before, channels, kernel_size, 1 if index else stride, expansion))
                before = channels
        self.blocks = nn.ModuleList(blocks)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        x, levels = F.relu6(self.bn0(self.conv_stem(image)), inplace=True), {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.LEVELS:
                levels[index] = x
        return levels
