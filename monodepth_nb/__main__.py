"""The command line: `python -m monodepth_nb COMMAND --help`.

Each command is a function below its options. It imports what only it needs when it runs: `train` needs no notebook
tools, and Matplotlib takes a second to load.
"""

import argparse
import sys
import warnings
from dataclasses import Field, fields
from pathlib import Path
from typing import get_args

import torch

from monodepth_nb.checkpoints import CheckpointError
from monodepth_nb.course.full_set import follow_recipe, scored_scenes, streets_of, training_data
from monodepth_nb.data.download import DownloadError, download_kitti2015
from monodepth_nb.machine import OutOfMemory, choose_device, first_process_first, process_rank, processes_of_torchrun
from monodepth_nb.monitoring import TrainingDiverged
from monodepth_nb.networks import EDGES, ENCODERS, UPSAMPLINGS, DispResNet, check_size
from monodepth_nb.pretrained import WeightsUnavailable
from monodepth_nb.training import TrainConfig, fit, seed_everything

WRONG_USE = (ValueError, OSError, CheckpointError)
FAILURES = (TrainingDiverged, OutOfMemory, WeightsUnavailable, DownloadError)
INTERRUPTED = 130  # the exit status that shells give to Ctrl-C

PARSER = argparse.ArgumentParser("python -m monodepth_nb", description="Depth from one picture.")
COMMANDS = PARSER.add_subparsers(title="commands", metavar="COMMAND", required=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    args = PARSER.parse_args(arguments)
    try:
        return args.run(args) or 0
    except WRONG_USE + FAILURES as error:
        if isinstance(error, OSError) and error.filename:  # the system's own message, which gives no advice
            error = type(error)(f"cannot use {error.filename} ({error.strerror}): choose another file or folder")
        print(f"{PARSER.prog}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, WRONG_USE) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def command(summary: str, *options: tuple):
    """Make the function below a command of its name with these `option`s; of two with one name, the later counts."""

    def register(run):
        layout = dict(formatter_class=argparse.ArgumentDefaultsHelpFormatter, conflict_handler="resolve")
        parser = COMMANDS.add_parser(run.__name__.replace("_", "-"), help=summary, description=summary, **layout)
        for names, settings in options:
            parser.add_argument(*names, **settings)
        parser.set_defaults(run=run)
        return run

    return register


def option(*names: str, **settings) -> tuple:
    """The arguments of `ArgumentParser.add_argument`."""
    return names, settings


def config_option(field: Field) -> tuple:
    """The option for a field of `TrainConfig`, with its default, help, choices and type."""
    settings = {"default": field.default, "help": field.metadata["help"], "action": "store_true"}
    if field.type is not bool:
        settings |= {"action": "store", "choices": field.metadata["choices"]}
        settings["type"] = (*get_args(field.type), field.type)[0]  # float of `float | None`
    return option(f"--{field.name.replace('_', '-')}", **settings)


CHECKPOINT = dict(metavar="CHECKPOINT", help="best.pt or last.pt of a run, or an exported .onnx file")
SIZE = dict(type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the pictures, in pixels")
DEVICE = option("--device", help="cpu, cuda, mps ...; None: the best one available")
CAMERA = (
    option("--focal-px", type=float, help="focal length, in pixels of the full-size pictures"),
    option("--baseline-m", type=float, help="distance of the two cameras of the training pairs, in metres"),
)
DATA_ROOT = option("--data-root", default="datasets", help="folder for downloaded and rendered data")
SCENES = (
    DATA_ROOT,
    option("--scenes", type=int, default=200, help="number of pairs to render, where they are rendered"),
    option("--size", default=[256, 512], **SIZE),
    option("--seed", type=int, default=0, help="of all random choices, rendered scenes included"),
)


def device_of(args) -> torch.device:
    """The device that `--device` names. Raises ValueError if it is unavailable."""
    if args.device is None:
        return choose_device()
    try:
        return torch.zeros(1, device=args.device).device
    except (RuntimeError, AssertionError) as error:  # torch raises the latter if built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {args.device!r} cannot be used here ({reason}): pass cpu, or none") from error


# ---- Training ----


@command(
    "Train on stereo pairs, or resume a run that was interrupted.",
    option("--data", default="motorcycle", help="motorcycle, streets, kitti2015, or a folder of pairs"),
    *map(config_option, fields(TrainConfig)),
    option("--checkpoint-every", type=int, help="epochs between checkpoints; None: 25 for the motorcycle, else 1"),
    *SCENES,
    option("--rendered", type=int, default=0, help="streets to render and train on as well, with few-pairs"),
    option("--no-augmentation", action="store_true", help="do not augment the pairs"),
    option("--encoder", default="scratch", choices=ENCODERS, help="of the network"),
    option("--width", type=float, default=1.0, help="factor of the network's channel counts"),
    option("--upsampling", default="nearest", choices=UPSAMPLINGS, help="in the decoder"),
    option("--edges", default="zeros", choices=EDGES, help="how the decoder's two finest levels pad"),
    option("--trainable-encoder", action="store_true", help="fine-tune a pretrained encoder, which else is frozen"),
    option("--weights", default="imagenet", help="of a pretrained encoder: imagenet, random, or streets:FILE"),
    DEVICE,
    *CAMERA,
    option("--run-dir", default="runs/train", help="folder for checkpoints, history, scores and figures"),
)
def train(args) -> int:
    """`torchrun --nproc-per-node 2 -m monodepth_nb train ...` shares the work between two processes."""
    from monodepth_nb.course.report import write_run_figures

    if args.checkpoint_every is None:  # an epoch of the motorcycle is a single step
        args.checkpoint_every = 25 if args.data == "motorcycle" else 1
    config = TrainConfig(**{field.name: getattr(args, field.name) for field in fields(TrainConfig)})
    with processes_of_torchrun():
        device = device_of(args)
        check_size(torch.empty(1, 3, *args.size))
        seed_everything(args.seed)
        with first_process_first():  # it downloads and renders for all
            # The network first: unavailable weights should be reported before a long download.
            network = ("encoder", "width", "upsampling", "trainable_encoder", "weights", "edges")
            model = DispResNet(**{name: getattr(args, name) for name in network})
            data = training_data(args)
            recipe, validation = follow_recipe(data, args)
        first = process_rank() == 0
        if first:
            print(f"device: {device}; training pairs: {len(recipe.data)}; run folder: {args.run_dir}")
        history = fit(
            model, recipe.data, config, validation_data=validation, truth_data=data.test, transform=recipe.transform,
            late_transform=recipe.late_transform, run_dir=args.run_dir, device=device,
        )  # fmt: skip
        if len(history) < config.epochs:
            return INTERRUPTED
        if first:
            write_run_figures(args.run_dir, model, history, recipe.data, data.test)
            print(history.iloc[-1].to_string(float_format="%.4g"))
    return 0


# ---- Using a trained network ----


@command(
    "Score a checkpoint on scenes with ground truth, next to the pixel-mean baseline.",
    option("checkpoint", **CHECKPOINT),
    option("--data", default="kitti2015", help="kitti2015, or a folder with disp_noc_0 or disp_occ_0 beside image_2"),
    DATA_ROOT,
    option("--all", action="store_true", help="score all labelled scenes, not only those that `train` holds out"),
    *CAMERA,
    DEVICE,
    option("--out", default="runs/evaluate", help="folder for tables and a figure"),
)
def evaluate(args) -> None:
    from monodepth_nb.course.report import write_report
    from monodepth_nb.inference import load_network

    network = load_network(args.checkpoint, device_of(args))
    size = tuple(network.size)
    scored, baseline = scored_scenes(args, size)
    label = f"{args.checkpoint} on {len(next(iter(scored.values())))} scenes of {Path(args.data).name}"
    print(write_report(network, scored, size, args.out, label, baseline))


@command(
    "Predict the depth of photos.",
    option("photos", nargs="+", metavar="PHOTO", help="picture, or folder of pictures"),
    option("--checkpoint", required=True, **CHECKPOINT),
    *CAMERA,
    DEVICE,
    option("--ply", action="store_true", help="also write a coloured point cloud; needs --focal-px and --baseline-m"),
    option("--out", default="runs/predict", help="folder for the results"),
)
def predict(args) -> int:
    from monodepth_nb import inference

    if (args.focal_px is None) != (args.baseline_m is None):
        raise ValueError("depth in metres needs both --focal-px and --baseline-m; omit both for relative disparity")
    camera = None if args.focal_px is None else inference.Camera(args.focal_px, args.baseline_m)
    photos = inference.find_photos(args.photos)
    network = inference.load_network(args.checkpoint, device_of(args))
    failures = inference.predict_photos(network, photos, args.out, tuple(network.size), camera, args.ply)
    for message in failures.values():
        print(f"error: {message}", file=sys.stderr)
    kind = "depth in metres" if camera else "relative disparity (no metres without --focal-px and --baseline-m)"
    print(f"{len(photos) - len(failures)} of {len(photos)} photos: {kind} in {args.out}")
    return 1 if failures else 0


@command(
    "Write a checkpoint as ONNX, which runs without this package.",
    option("checkpoint", metavar="CHECKPOINT", help="best.pt or last.pt of a run"),
    option("--out", default="network.onnx", help="file to write"),
)
def export(args) -> None:
    from monodepth_nb.checkpoints import load_model
    from monodepth_nb.onnx_export import export_onnx

    network = load_model(args.checkpoint)
    export_onnx(network, args.out, network.size)
    print(args.out)


# ---- Data, machine and course ----


@command(
    "Download and unpack KITTI 2015 stereo (1.7 GB).",
    option("data", nargs="?", default="kitti2015", choices=["kitti2015"], help="the data set"),
    DATA_ROOT,
)
def download(args) -> None:
    print(download_kitti2015(args.data_root))


@command(
    "Train a segmentation network on rendered streets.",
    *SCENES,
    option("--epochs", type=int, default=20, help="passes over the scenes"),
    option("--size", default=[128, 256], **SIZE),
    option("--out", default="runs/segmenter", help="folder for weights, table and picture"),
)
def train_segmenter(args) -> None:
    """Trains on four fifths of the scenes and scores on the rest."""
    from monodepth_nb.streets.segmenter import train_on_streets

    root = streets_of(args, args.scenes, args.seed)
    table = train_on_streets(root, args.out, tuple(args.size), args.epochs, seed=args.seed)
    print("intersection over union on unseen scenes")
    print(table.T.to_string(float_format="%.3f"))


@command("Measure training steps and predictions on this machine, next to plainer ways of doing them.", DEVICE)
def benchmark(args) -> None:
    from monodepth_nb import benchmark as timing
    from monodepth_nb.course.results import device_name

    device = device_of(args)
    print(f"device: {device_name(device)}, torch {torch.__version__}")
    print(timing.benchmark(device).T.to_string(header=False, float_format="{:.4g}".format))
    print(f"\nTimes faster\n{timing.ratios(device).to_string(float_format='%.2f')}")


@command(
    "Run the notebooks with the profile of MONODEPTH_PROFILE and build the report: build/index.html.",
    option("notebooks", nargs="*", metavar="NN", help="numbers of notebooks, such as 02; none: all five"),
    option("--commit", action="store_true", help="store the outputs in notebooks/*.ipynb too"),
)
def reproduce(args) -> None:
    from monodepth_nb.course.reproduce import reproduce

    reproduce(args.notebooks, args.commit)


@command(
    "Write the repository's address into the Colab links of README and notebooks.",
    option("address", metavar="ADDRESS", help="https://github.com/OWNER/NAME"),
)
def colab(args) -> None:
    from monodepth_nb.course.colab import set_repository

    for path in set_repository(args.address):
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
