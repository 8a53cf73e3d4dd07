"""The layers of the networks (Godard et al. 2017, supplement), written to be fast on a CPU as well."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monodepth_nb.machine import autocast

MAX_DISPARITY = 0.3  # of the image width; monodepth_model.py of the original code
HEAD_BIAS = -2.4  # 0.3 * sigmoid(-2.4) = 0.025 of the width: training starts from a distant plane


class ExpELU(torch.autograd.Function):
    """ELU by `exp`. PyTorch uses `expm1`, which is several times slower on a CPU: a tenth of a training step."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        wide = x.float()  # in 16 bits, exp(x) - 1 would be 0 for small x
        y = wide.clamp(max=0).exp_().sub_(1).add_(wide.clamp(min=0)).to(x.dtype)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return torch.ops.aten.elu_backward(gradient, 1, 1, 1, True, *ctx.saved_tensors)


def elu(x: Tensor) -> Tensor:
    """Exponential linear unit: x where x > 0, else exp(x) - 1. May overwrite `x`."""
    return ExpELU.apply(x) if on_plain_cpu(x) else F.elu(x, inplace=True)


def on_plain_cpu(x: Tensor) -> bool:
    """Whether to use the faster CPU variant of a layer. Compilers and exporters get PyTorch's own layer."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


class ConvBlock(nn.Module):
    """Convolution with 'same' zero padding, then ELU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=(kernel_size - 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return elu(self.conv(x))


class Bottleneck(nn.Module):
    """1x1 to `channels`, strided 3x3, 1x1 to 4 * `channels`; plus a projection of the input; then ELU."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.reduce = ConvBlock(in_channels, channels, 1)
        self.middle = ConvBlock(channels, channels, 3, stride)
        self.expand = nn.Conv2d(channels, 4 * channels, 1)
        self.project = nn.Conv2d(in_channels, 4 * channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return elu(self.expand(self.middle(self.reduce(x))) + self.project(x))


class DisparityHead(nn.Module):
    """Features to (left, right) disparity, each in (0, 0.3) of the width."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, kernel_size=3, padding=1)

    def forward(self, features: Tensor) -> Tensor:  # (B, channels, h, w)
        # In bf16 this convolution rounds disparity by 0.5 %, three times as much as all other layers (motorcycle).
        with autocast(features.device.type):
            return MAX_DISPARITY * self.conv(features.float()).sigmoid()  # (B, 2, h, w)


class UpConv(nn.Module):
    """x2 upsampling, then a 3x3 ConvBlock."""

    def __init__(self, in_channels: int, out_channels: int, upsampling: str):
        super().__init__()
        self.upsampling = upsampling
        self.conv = ConvBlock(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, channels, h, w = x.shape
        if self.upsampling == "nearest" and h * w > channels and on_plain_cpu(x):  # it pays
            return elu(conv_of_upsampled(x, self.conv.conv))
        return self.conv(F.interpolate(x, scale_factor=2, mode=self.upsampling))


def conv_of_upsampled(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """The 3x3 convolution of `x` after x2 nearest upsampling, as one transposed convolution of stride 2.

    Upsampled neighbours are equal, so their weights are added first. That leaves 4 of 9 multiplications.
    """
    kernel = F.pad(conv.weight, (1, 1, 1, 1))
    kernel = kernel[..., 1:, :] + kernel[..., :-1, :]
    kernel = kernel[..., 1:] + kernel[..., :-1]  # (out, in, 4, 4)
    cropped = 1
    if conv.padding_mode == "replicate":
        x, cropped = F.pad(x, (1, 1, 1, 1), mode="replicate"), 3
    return F.conv_transpose2d(x, kernel.flip(-1, -2).transpose(0, 1), conv.bias, stride=2, padding=cropped)


def check_option(name: str, value, known) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases; disparity heads start at a small disparity.

    Differs from the paper: its heads start at 0.15 of the width (bias 0), 186 px on KITTI. Training on a small data set
    may never recover from that.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    for head in (layer for layer in module.modules() if isinstance(layer, DisparityHead)):
        nn.init.constant_(head.conv.bias, HEAD_BIAS)
