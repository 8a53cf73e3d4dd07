"""A small network that names what stands in a street, trained on rendered streets, whose classes are known.

COCO's weights know car and person but no road, building or sky, and they must be downloaded. The features of
this network stand in for them: `SemanticDispResNet(weights="streets:PATH", trunk="resnet18")`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from monodepth_nb.checkpoints import write_whole
from monodepth_nb.data.kitti import KittiStereo, split_by_scene
from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import resize
from monodepth_nb.pretrained import segmentation_trunk
from monodepth_nb.streets.scene import CLASSES
from monodepth_nb.training import choose_device

# Those of the Cityscapes benchmark, in the order of streets.CLASSES.
COLOURS = ("#804080", "#f423e8", "#464646", "#00008e", "#999999", "#6b8e23", "#dc143c", "#4682b4")


class Segmenter(nn.Module):
    """Class scores of every pixel: a 1x1 convolution scores each ResNet level, upsampled scores are summed.

    A fully convolutional network (Long, Shelhamer and Darrell, CVPR 2015) that joins all five levels.

    trunk: "resnet18", "resnet34" or "resnet50"; trained along, from random weights

    forward: (B, 3, H, W), RGB in [0, 1] -> (B, len(classes), H, W)
    """

    def __init__(self, classes: Sequence[str] = CLASSES, trunk: str = "resnet18"):
        super().__init__()
        self.classes = tuple(classes)
        self.trunk = segmentation_trunk(trunk, "random", trainable=True)
        self.scores = nn.ModuleList(nn.Conv2d(c, len(self.classes), 1) for c in self.trunk.channels)

    def forward(self, image: Tensor) -> Tensor:
        levels = self.trunk(image)
        finest = levels[0].shape[-2:]  # 1/2
        scored = [score(level) for score, level in zip(self.scores, levels, strict=True)]
        summed = sum(F.interpolate(s, finest, mode="bilinear") for s in scored)
        return F.interpolate(summed, image.shape[-2:], mode="bilinear")


def train_segmenter(
    dataset: Dataset, size: tuple[int, int], epochs: int, seed: int = 0
) -> tuple[Segmenter, pd.DataFrame]:
    """Train on the left views of `dataset`, whose samples have `classes`; half of the batches are mirrored.

    Adam at batches of 4, its rate rising to 1e-3 and falling once. Returns the network and the history: epoch, loss,
    accuracy (share of pixels named rightly).
    """
    device, batch_size, learning_rate = choose_device(), 4, 1e-3
    torch.manual_seed(seed)
    model = Segmenter().to(device)
    images, labels = load_labelled(dataset, size)
    rarity = class_weights(labels).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    steps = epochs * -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    history = []
    for epoch in tqdm(range(1, epochs + 1), desc="train the segmenter", unit="epoch"):
        model.train()
        rows = []
        for batch in torch.randperm(len(images)).split(batch_size):
            image, label = images[batch].to(device) / 255, labels[batch].to(device).long()
            if torch.rand(()) < 0.5:
                image, label = image.flip(-1), label.flip(-1)
            scores = model(image)
            loss = F.cross_entropy(scores, label, rarity)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            rows.append((loss.item(), (scores.argmax(1) == label).float().mean().item()))
        history.append((epoch, *np.mean(rows, axis=0)))
    return model, pd.DataFrame(history, columns=["epoch", "loss", "accuracy"])


def load_labelled(dataset: Dataset, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """All left views, (N, 3, h, w) uint8, and their classes, (N, h, w) uint8, at `size` = (h, w)."""
    images, labels = [], []
    for index in range(len(dataset)):
        sample = dataset[index]
        images.append((resize(sample["left"], size) * 255).round().to(torch.uint8))
        classes = classes_of(sample)
        labels.append(F.interpolate(classes[None, None], size, mode="nearest-exact")[0, 0])
    return torch.stack(images), torch.stack(labels)


def class_weights(labels: Tensor) -> Tensor:
    """(classes,) 1 / sqrt(share of the pixels), for the loss: else poles and people, a pixel in fifty, are not worth
    learning. Shares below a thousandth count as one, so a class that is nearly absent cannot rule.
    """
    counts = torch.bincount(labels.flatten().long(), minlength=len(CLASSES))
    return (counts / counts.sum()).clamp(min=1e-3).rsqrt()


def classes_of(sample: Sample) -> Tensor:
    """The (H, W) class map of a sample; ValueError without one, or with classes that do not exist."""
    if "classes" not in sample:
        raise ValueError(
            f"{sample.name} has no class map: render streets with `streets.render_streets` and read them "
            "with `KittiStereo(root, truth='occ')`"
        )
    if sample.classes.max() >= len(CLASSES):
        known = ", ".join(f"{i} {name}" for i, name in enumerate(CLASSES))
        raise ValueError(f"{sample.name} has class {int(sample.classes.max())}; known: {known}")
    return sample.classes


# ---- Scores ----


@torch.no_grad()
def segment(model: Segmenter, image: Tensor, full_size: tuple[int, int] | None = None) -> Tensor:
    """Class of every pixel: (3, h, w) image -> (h, w), or (H, W) = `full_size`, on the CPU."""
    model.eval()
    scores = model(image[None].to(next(model.parameters()).device))
    if full_size is not None:
        scores = F.interpolate(scores, tuple(full_size), mode="bilinear")
    return scores[0].argmax(0).to("cpu", torch.uint8)


def evaluate_segmenter(model: Segmenter, dataset: Dataset, size: tuple[int, int]) -> dict[str, float]:
    """`class_scores` on `dataset`: images seen at `size`, classes compared at the size of their maps."""

    def predict(sample):
        return segment(model, resize(sample["left"], size), classes_of(sample).shape)

    return class_scores(predict, dataset)


def position_scores(train: Dataset, dataset: Dataset, size: tuple[int, int]) -> dict[str, float]:
    """`class_scores` without learning: at each position, the class most common there in `train`."""
    labels = load_labelled(train, size)[1]
    common = torch.stack([(labels == k).sum(0) for k in range(len(CLASSES))]).argmax(0)  # (h, w)

    def predict(sample):
        full_size = classes_of(sample).shape
        return F.interpolate(common[None, None].to(torch.uint8), full_size, mode="nearest-exact")[0, 0]

    return class_scores(predict, dataset)


def class_scores(predict: Callable, dataset: Dataset) -> dict[str, float]:
    """Intersection over union of each class over all pixels of `dataset`, and their mean, "mean".

    predict: sample -> (H, W) classes. A class that is neither there nor predicted is NaN and not in the mean.
    """
    counts = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)  # [truth, prediction]
    for index in range(len(dataset)):
        sample = dataset[index]
        pairs = classes_of(sample).long() * len(CLASSES) + predict(sample).long()
        counts += np.bincount(pairs.numpy().ravel(), minlength=counts.size).reshape(counts.shape)
    hits = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - hits
    iou = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
    return {**dict(zip(CLASSES, iou.tolist(), strict=True)), "mean": float(np.nanmean(iou))}


def segmentation_figure(image: Tensor, truth: Tensor, prediction: Tensor, label: str) -> Figure:
    """(3, h, w) image, true and predicted classes (H, W), side by side in Cityscapes' colours."""
    fig, axes = plt.subplots(1, 3, figsize=(12, 2.9), layout="constrained")
    plt.close(fig)  # else a notebook shows it twice
    height, width = truth.shape
    axes[0].imshow(image.permute(1, 2, 0).cpu().numpy(), extent=(0, width, height, 0))
    for ax, classes in zip(axes[1:], (truth, prediction), strict=True):
        picture = ax.imshow(np.asarray(classes), cmap=ListedColormap(COLOURS), interpolation="nearest")
        picture.set_clim(0, len(COLOURS) - 1)
    for ax, title in zip(axes, ("left view", "true classes", "predicted classes"), strict=True):
        ax.set_title(title, fontsize=10)
        ax.axis("off")
    patches = [Patch(color=colour, label=name) for colour, name in zip(COLOURS, CLASSES, strict=True)]
    fig.legend(handles=patches, loc="outside lower center", ncols=len(CLASSES), fontsize=9, frameon=False)
    fig.suptitle(label, fontsize=12)
    return fig


# ---- Files ----


def save_segmenter(model: Segmenter, path: str | Path) -> Path:
    """Write the file that `load_segmenter` and the weights "streets:PATH" read: beside it, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {"trunk": model.trunk.name, "classes": model.classes, "tensors": model.state_dict()}
    write_whole(path, lambda part: torch.save(saved, part))
    return path


def load_segmenter(path: str | Path) -> Segmenter:
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model = Segmenter(saved["classes"], saved["trunk"])
    model.load_state_dict(saved["tensors"])
    return model.eval()


def train_on_streets(
    root: str | Path, out: str | Path, size: tuple[int, int], epochs: int, seed: int = 0
) -> pd.DataFrame:
    """Train on the first four fifths of the rendered streets below `root`, score on the rest, unseen scenes.

    Writes to the folder `out`: `segmenter.pt`, `segmenter.csv` (the returned table: intersection over union
    of the network and of the most common class at each position) and `segmenter.png` (an unseen scene).
    """
    out = Path(out)
    train, unseen = split_by_scene(KittiStereo(root, truth="occ", size=size))
    model, _ = train_segmenter(train, size, epochs, seed)
    save_segmenter(model, out / "segmenter.pt")
    rows = {
        "segmenter": evaluate_segmenter(model, unseen, size),
        "most common class at each position": position_scores(train, unseen, size),
    }
    table = pd.DataFrame(rows).T
    table.to_csv(out / "segmenter.csv", index_label="predictor")
    sample = unseen[0]
    prediction = segment(model, sample["left"], sample["classes"].shape)
    label = f"An unseen scene; mean IoU of {len(unseen)} unseen scenes {table['mean'].iloc[0]:.3f}"
    figure = segmentation_figure(sample["left"], sample["classes"], prediction, label)
    figure.savefig(out / "segmenter.png", dpi=150)
    return table
