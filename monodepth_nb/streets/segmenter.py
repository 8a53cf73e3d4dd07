"""A small semantic segmentation network, trained on rendered streets, whose classes are known exactly.

COCO's classes include car and person but not road, building or sky, and its weights must be downloaded. The features
of this network can replace them: `SemanticDispResNet(weights="streets:PATH", trunk="resnet18")`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor, nn
from tqdm.auto import tqdm

from monodepth_nb import figures
from monodepth_nb.checkpoints import write_whole
from monodepth_nb.data.kitti import KittiStereo, split_by_scene
from monodepth_nb.data.sample import Sample
from monodepth_nb.machine import choose_device
from monodepth_nb.networks import Decoder, DispResNet, initialise
from monodepth_nb.pretrained import picture_key, segmentation_trunk
from monodepth_nb.streets.scene import CLASSES

# The palette of the Cityscapes benchmark, in the order of CLASSES.
COLOURS = ("#804080", "#f423e8", "#464646", "#00008e", "#999999", "#6b8e23", "#dc143c", "#4682b4")
BATCH_SIZE, PEAK_LEARNING_RATE = 4, 1e-3


class Segmenter(nn.Module):
    """Scores of CLASSES at every pixel: a 1x1 convolution scores each trunk level, and the upsampled scores are summed.

    A fully convolutional network (Long, Shelhamer and Darrell, CVPR 2015) that uses all five levels.

    trunk, weights: of a `Trunk`, which is trained as well
    forward: (B, 3, H, W), RGB in [0, 1] -> (B, classes, H, W)
    """

    def __init__(self, trunk: str = "resnet18", weights: str = "random"):
        super().__init__()
        self.trunk = segmentation_trunk(trunk, weights, trainable=True)
        self.scores = nn.ModuleList(nn.Conv2d(c, len(CLASSES), 1) for c in self.trunk.channels)

    def forward(self, image: Tensor) -> Tensor:
        levels = self.trunk(image)
        finest = levels[0].shape[-2:]  # 1/2
        scored = [score(level) for score, level in zip(self.scores, levels, strict=True)]
        summed = sum(F.interpolate(s, finest, mode="bilinear") for s in scored)
        return F.interpolate(summed, image.shape[-2:], mode="bilinear")


@torch.no_grad()
def segment(model: Segmenter, image: Tensor, full_size: tuple[int, int] | None = None) -> Tensor:
    """Class of every pixel, uint8 on the CPU: (3, h, w) image -> (h, w), or (H, W) if `full_size` = (H, W)."""
    model.eval()
    scores = model(image[None].to(next(model.parameters()).device))
    return F.interpolate(scores, full_size or image.shape[-2:], mode="bilinear")[0].argmax(0).to("cpu", torch.uint8)


def train_segmenter(views: Tensor, labels: Tensor, epochs: int, seed: int = 0, **options) -> Segmenter:
    """Train on `views` (N, 3, h, w) and their classes `labels` (N, h, w), both uint8; half of the batches are mirrored.

    Adam; the learning rate follows one cycle (`OneCycleLR`). options: of `Segmenter`
    """
    torch.manual_seed(seed)
    device = choose_device()
    model = Segmenter(**options).to(device, memory_format=torch.channels_last).train()
    shares = torch.bincount(labels.flatten().long(), minlength=len(CLASSES)) / labels.numel()
    # So rare classes (poles, people) are learnt; the limit keeps nearly absent ones from dominating.
    weights = shares.clamp(min=1e-3).rsqrt().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=PEAK_LEARNING_RATE)
    steps = epochs * -(-len(views) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for _ in tqdm(range(epochs), desc="train the segmenter", unit="epoch"):
        for batch in torch.randperm(len(views)).split(BATCH_SIZE):
            image, label = views[batch].to(device) / 255, labels[batch].to(device).long()
            if torch.rand(()) < 0.5:
                image, label = image.flip(-1), label.flip(-1)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(image), label, weights).backward()
            optimizer.step()
            schedule.step()
    return model


def load_labelled(samples: Iterable[Sample]) -> tuple[Tensor, Tensor]:
    """Left views (N, 3, h, w) and, at their size, the class maps (N, h, w), both uint8."""
    loaded = [((s.left * 255).round().byte(), resize_classes(classes_of(s), s.left.shape[-2:])) for s in samples]
    views, labels = zip(*loaded, strict=True)
    return torch.stack(views), torch.stack(labels)


def resize_classes(classes: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(classes[None, None], size, mode="nearest-exact")[0, 0]


def classes_of(sample: Sample) -> Tensor:
    """The (H, W) class map of a sample; raises ValueError if it is missing or has unknown classes."""
    if "classes" not in sample:
        remedy = "read a folder written by `render_streets` with `KittiStereo(root, truth='occ')`"
        raise ValueError(f"{sample.name} has no class map: {remedy}")
    if sample.classes.max() >= len(CLASSES):
        raise ValueError(f"{sample.name} has class {int(sample.classes.max())}; known: {dict(enumerate(CLASSES))}")
    return sample.classes


class WithTrueClasses(nn.Module):
    """An encoder whose features are joined by the picture's true class map, one plane per class: perfect semantics.

    samples: all pictures that it will see, with their `classes`
    """

    def __init__(self, encoder: nn.Module, samples: Iterable[Sample]):
        super().__init__()
        self.encoder, self.channels = encoder, [c + len(CLASSES) for c in encoder.channels]
        self.classes = {picture_key(s.left): resize_classes(classes_of(s), s.left.shape[-2:]) for s in samples}

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = torch.stack([self.classes[picture_key(picture)] for picture in image]).to(image.device)
        planes = F.one_hot(maps.long(), len(CLASSES)).permute(0, 3, 1, 2).to(image.dtype)
        features = self.encoder(image)
        return [torch.cat((f, F.adaptive_avg_pool2d(planes, f.shape[-2:])), dim=1) for f in features]


def with_true_classes(network: DispResNet, samples: Iterable[Sample]) -> DispResNet:
    """The network with `WithTrueClasses` around its encoder and a new decoder for that."""
    network.encoder = WithTrueClasses(network.encoder, samples)
    network.decoder = Decoder(network.encoder.channels, network.arguments["width"], network.arguments["upsampling"])
    initialise(network.decoder)
    return network


def class_scores(predict: Callable[[Sample], Tensor], samples: Iterable[Sample]) -> dict[str, float]:
    """Intersection over union (IoU) of each class over all pixels of all samples, and their mean, "mean".

    predict: sample -> (H, W) classes. A class that is neither present nor predicted is NaN and not in the mean.
    """
    counts = np.zeros((len(CLASSES), len(CLASSES)))
    for sample in samples:
        np.add.at(counts, (classes_of(sample).numpy(), predict(sample).numpy()), 1)
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    iou = pd.Series(np.diag(counts), CLASSES) / union  # 0 / 0 is NaN
    return {**iou, "mean": iou.mean()}


def segmentation_figure(image: Tensor, truth: Tensor, prediction: Tensor, label: str) -> Figure:
    """(3, h, w) image, true and predicted classes (H, W), side by side in the Cityscapes palette."""
    palette = np.array([to_rgb(colour) for colour in COLOURS])
    panels = [figures.Panel(image.cpu(), "left view", shape=truth.shape)]
    panels += [figures.Panel(palette[truth], "true classes"), figures.Panel(palette[prediction], "predicted classes")]
    fig = figures.grid(panels, 3, label)
    patches = [Patch(color=colour, label=name) for colour, name in zip(COLOURS, CLASSES, strict=True)]
    fig.legend(handles=patches, loc="outside lower center", ncols=len(CLASSES), fontsize=9, frameon=False)
    return fig


def save_segmenter(model: Segmenter, path: Path) -> Path:
    """Write the file that `load_segmenter` and the weights "streets:PATH" read; replaces an older file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {"trunk": model.trunk.name, "classes": CLASSES, "tensors": model.state_dict()}
    write_whole(path, lambda part: torch.save(saved, part))
    return path


def load_segmenter(path: str | Path) -> Segmenter:
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model = Segmenter(saved["trunk"])
    model.load_state_dict(saved["tensors"])
    return model.eval()


def train_on_streets(root: Path, out: str | Path, size: tuple[int, int], epochs: int, **options) -> pd.DataFrame:
    """Train on the first four fifths of the rendered streets below `root` and score on the rest, unseen scenes.

    options: of `train_segmenter` and `Segmenter`
    Writes to the folder `out`: `segmenter.pt`, `segmenter.csv` (the returned table: IoU of the network and of the
    most common class at each position) and `segmenter.png` (the first unseen scene).
    """
    train, unseen = split_by_scene(KittiStereo(root, truth="occ", size=size))
    views, labels = load_labelled(train)
    model = train_segmenter(views, labels, epochs, **options)
    weights = save_segmenter(model, Path(out) / "segmenter.pt")
    common = labels.mode(dim=0).values  # (h, w)
    predictors = {
        "segmenter": lambda sample: segment(model, sample.left, sample.classes.shape),
        "most common class at each position": lambda sample: resize_classes(common, sample.classes.shape),
    }
    table = pd.DataFrame({name: class_scores(predict, unseen) for name, predict in predictors.items()}).T
    write_whole(weights.with_suffix(".csv"), partial(table.to_csv, index_label="predictor"))
    sample, label = unseen[0], f"An unseen scene; mean IoU of {len(unseen)} unseen scenes {table['mean'].iloc[0]:.3f}"
    figure = segmentation_figure(sample.left, sample.classes, predictors["segmenter"](sample), label)
    write_whole(weights.with_suffix(".png"), partial(figure.savefig, dpi=150, format="png"))
    return table
