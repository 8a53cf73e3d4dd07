"""The command line: `python -m monodepth_nb COMMAND --help`.

Each command is a function that adds its options and one that calls the module which does the work.
"""

import argparse
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset, Subset

from monodepth_nb.checkpoints import CheckpointError
from monodepth_nb.data import download, recipes
from monodepth_nb.data.kitti import KittiStereo, split_by_scene, truth_kinds
from monodepth_nb.data.loading import PairCache
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.data.pair_check import check_pairs
from monodepth_nb.losses import PADDINGS
from monodepth_nb.machine import first_process_first, process_rank, processes_of_torchrun
from monodepth_nb.networks import ENCODERS, UPSAMPLINGS, DispResNet, check_size
from monodepth_nb.pretrained import WeightsUnavailable
from monodepth_nb.streets.rendering import street_root
from monodepth_nb.training import (
    PRECISIONS,
    SCHEDULES,
    OutOfMemory,
    TrainConfig,
    TrainingDiverged,
    choose_device,
    fit,
    seed_everything,
)

WRONG_USE = (ValueError, OSError, CheckpointError)
FAILURES = (TrainingDiverged, OutOfMemory, WeightsUnavailable, download.DownloadError)
OTHER_STREETS = 1000  # added to the seed of --data streets, so that --rendered gives others
INTERRUPTED = 130  # the exit status that shells give to Ctrl-C


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    parser = argparse.ArgumentParser("python -m monodepth_nb", description="Depth from one picture.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        add_train,
        add_evaluate,
        add_predict,
        add_export,
        add_download,
        add_render,
        add_train_segmenter,
        add_benchmark,
    ):
        add(commands)
    args = parser.parse_args(arguments)
    try:
        status = args.run(args)
        return status if isinstance(status, int) else 0
    except WRONG_USE + FAILURES as error:
        if isinstance(error, OSError) and error.filename:  # the system's own, which gives no advice
            error = type(error)(f"cannot use {error.filename} ({error.strerror}): choose another file or folder")
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, WRONG_USE) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def add_command(commands, run, summary: str, name: str = "") -> argparse.ArgumentParser:
    """A command of the name of `run`, the function that does it."""
    parser = commands.add_parser(
        name or run.__name__,
        help=summary,
        description=summary,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


# ---- train ----


@dataclass
class TrainingData:
    train: Dataset
    validation: Dataset | None
    truth: Dataset | None


def motorcycle_data(args) -> TrainingData:
    sample = motorcycle(args.size)
    return TrainingData([sample], None, [sample])


def streets_data(args) -> TrainingData:
    return folder_data(render(args), args)


def kitti2015_data(args) -> TrainingData:
    return folder_data(download.download_kitti2015(args.data_root), args)


def folder_data(root: Path, args) -> TrainingData:
    """The training part of a KITTI-like folder, split by scene; truth, where the folder has it, of the rest."""
    everything = KittiStereo(root)
    train, validation = split_by_scene(everything)
    held_out = {everything.names[i] for i in validation.indices}
    kinds = truth_kinds(everything)
    truth = None
    if kinds:
        labelled = part(KittiStereo(root, truth=kinds[0], size=args.size, **camera_of(args)), held_out, True)
        if len(labelled):  # of frames 10 and 11 of one scene, say, only the first has truth
            truth = labelled
            truth[0]  # what is wrong with it is to be said now, not after the training
    return TrainingData(PairCache(train, args.size), PairCache(validation, args.size), truth)


DATA = {"motorcycle": motorcycle_data, "streets": streets_data, "kitti2015": kitti2015_data}


def training_data(args) -> TrainingData:
    """What `--data` names. A folder of one's own is looked at first, for views that are swapped or no pair."""
    if args.data in DATA:
        return DATA[args.data](args)
    if not Path(args.data).is_dir():
        raise ValueError(f"unknown data {args.data!r}; known: {', '.join(DATA)}, or a folder of pairs")
    if process_rank() == 0:
        check_pairs(KittiStereo(args.data), at_most=40)
    return folder_data(Path(args.data), args)


def follow_recipe(data: TrainingData, args) -> tuple[recipes.Recipe, Dataset | None]:
    """What the recipe makes of training and validation data. Streets that are learnt from besides are rendered here."""
    if args.recipe == "course":
        if args.rendered:
            raise ValueError("--rendered belongs to --recipe few-pairs")
        return recipes.course(data.train), data.validation
    besides = None
    if args.rendered:
        root = street_root(args.size, args.rendered, args.seed + OTHER_STREETS, Path(args.data_root))
        besides = PairCache(KittiStereo(root, truth="occ"), args.size)
    return recipes.few_pairs(data.train, besides), data.validation and recipes.few_pairs(data.validation).data


def add_train(commands) -> None:
    parser = add_command(commands, train, "Train on stereo pairs, or go on with a run that was interrupted.")
    add, config = parser.add_argument, TrainConfig()
    add("--data", default="motorcycle", help=f"{', '.join(DATA)}, or a folder with image_2 and image_3")
    add_scene_options(parser)
    add("--recipe", default=config.recipe, choices=recipes.RECIPES, help="as published, or for a few hundred pairs")
    add("--rendered", type=int, default=0, help="streets to render and learn from as well, with few-pairs")
    add("--no-augmentation", action="store_true", help="do not vary the pairs")
    add("--encoder", default="scratch", choices=ENCODERS, help="of the network")
    add("--width", type=float, default=1.0, help="factor of the network's channel counts")
    add("--upsampling", default="nearest", choices=UPSAMPLINGS, help="in the decoder")
    add("--trainable-encoder", action="store_true", help="fine-tune a pretrained encoder, else it is frozen")
    weights = "of an ImageNet encoder: default, V1 or random; or streets:FILE, written by train-segmenter"
    add("--weights", default="default", help=weights)
    add("--epochs", type=int, default=config.epochs, help="passes over the pairs")
    add("--batch-size", type=int, default=config.batch_size, help="pairs per step and process")
    add("--learning-rate", type=float, default=config.learning_rate, help="of Adam, at the start")
    add("--encoder-learning-rate", type=float, help="of the encoder; None: that of the rest")
    add("--schedule", default=config.schedule, choices=SCHEDULES, help="of the learning rate")
    add("--padding", default=config.padding, choices=PADDINGS, help="what the loss sees beyond a picture's edge")
    add("--metrics-every", type=int, default=config.metrics_every, help="epochs; 0: at the end only")
    often = "epochs between checkpoints; None: 1, but 25 for the motorcycle, whose epochs are single steps"
    add("--checkpoint-every", type=int, help=often)
    add("--precision", default=config.precision, choices=PRECISIONS, help="number format; auto: by device")
    add("--compile", action="store_true", help="compile the network first (torch.compile)")
    add("--workers", type=int, help="processes that prepare batches; None: by device")
    add_device_option(parser)
    add_camera_options(parser)
    add("--run-dir", default="runs/train", help="folder for checkpoints, history, scores and figures")


def train(args) -> int:
    """`torchrun --nproc-per-node 2 -m monodepth_nb train ...` shares the work among two processes."""
    if args.checkpoint_every is None:
        args.checkpoint_every = 25 if args.data == "motorcycle" else TrainConfig.checkpoint_every
    fields = TrainConfig.__dataclass_fields__
    config = TrainConfig(**{name: value for name, value in vars(args).items() if name in fields})
    with processes_of_torchrun():
        device = device_of(args)
        check_size(torch.empty(1, 3, *args.size))
        seed_everything(args.seed)
        with first_process_first():  # it downloads and renders for all
            # The network first: weights that cannot be had are to be said before a long download.
            model = DispResNet(args.encoder, args.width, args.upsampling, args.trainable_encoder, args.weights)
            data = training_data(args)
            recipe, validation = follow_recipe(data, args)
        if args.no_augmentation:
            recipe = recipes.Recipe(recipe.data)
        if process_rank() == 0:
            print(f"device: {device}; training pairs: {len(recipe.data)}; run folder: {args.run_dir}")
        history = fit(
            model, recipe.data, config, validation_data=validation, truth_data=data.truth, transform=recipe.transform,
            late_transform=recipe.late_transform, run_dir=args.run_dir, device=device,
        )  # fmt: skip
        if len(history) < config.epochs:
            return INTERRUPTED
        if process_rank() == 0:
            print(history.iloc[-1].to_string(float_format="%.4g"))
    return 0


# ---- data ----


def add_scene_options(parser) -> None:
    add = parser.add_argument
    add("--data-root", default="datasets", help="folder for downloaded and rendered data")
    add("--scenes", type=int, default=200, help="pairs to render, where streets are asked for")
    add("--size", type=int, nargs=2, default=[256, 512], metavar=("HEIGHT", "WIDTH"), help="in pixels")
    add("--seed", type=int, default=0, help="of all random choices, rendered scenes included")


def add_download(commands) -> None:
    parser = add_command(commands, download_data, "Download and unpack KITTI 2015 stereo (1.7 GB).", "download")
    parser.add_argument("data", nargs="?", default="kitti2015", choices=["kitti2015"], help="what to get")
    parser.add_argument("--data-root", default="datasets", help="folder for downloaded data")


def download_data(args) -> None:
    print(download.download_kitti2015(args.data_root))


def add_render(commands) -> None:
    add_scene_options(add_command(commands, render, "Render street scenes with known disparity."))


def render(args) -> Path:
    root = street_root(args.size, args.scenes, args.seed, Path(args.data_root))
    print(root)
    return root


def add_train_segmenter(commands) -> None:
    summary = "Train a network to name what stands in rendered streets."
    parser = add_command(commands, train_segmenter, summary, "train-segmenter")
    add_scene_options(parser)
    parser.set_defaults(size=[128, 256])
    parser.add_argument("--epochs", type=int, default=20, help="passes over the scenes")
    parser.add_argument("--out", default="runs/segmenter", help="folder for weights, table and picture")


def train_segmenter(args) -> None:
    """Four fifths of the scenes teach, the rest is scored on."""
    from monodepth_nb.streets.segmenter import train_on_streets

    table = train_on_streets(render(args), args.out, tuple(args.size), args.epochs, seed=args.seed)
    print("intersection over union on unseen scenes")
    print(table.T.to_string(float_format="%.3f"))


def add_benchmark(commands) -> None:
    summary = "Measure training steps, predictions and loading on this machine, beside plainer ways of doing them."
    parser = add_command(commands, benchmark, summary)
    add_device_option(parser)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="timed calls of each; the median counts")
    add("--cost", action="store_true", help="instead: the time of a step over batch size and image size")
    add("--width", type=float, default=1.0, help="factor of the network's channel counts, with --cost")
    add("--out", default="runs/benchmark", help="folder for cost.csv and cost.png")


def benchmark(args) -> None:
    from monodepth_nb import benchmark as timing
    from monodepth_nb.course.results import device_name

    device = device_of(args)
    name = device_name(device)
    print(f"device: {name}, torch {torch.__version__}")
    if args.cost:
        from monodepth_nb.figures import cost_figure

        table, out = timing.cost(device, args.width, args.rounds), Path(args.out)
        exponent = timing.cost_exponent(table)
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "cost.csv", index=False)
        cost_figure(table, exponent, f"{name}, width {args.width:g}").savefig(out / "cost.png")
        print(table.to_string(index=False, float_format="%.4g"))
        print(f"step_s grows as megapixels to the power {exponent:.2f}; in {out}")
        return
    print(timing.benchmark(device, args.rounds).T.to_string(header=False, float_format="{:.4g}".format))
    print(timing.ratios(device, args.rounds).to_string(index=False, float_format="%.2f"))


# ---- using a trained network ----
# These import what they need when they run: Matplotlib takes a second to load.


def add_network_options(parser, checkpoint: str, **required) -> None:
    what = "best.pt or last.pt of a run, or an exported .onnx file; it sees images at the size it was trained at"
    parser.add_argument(checkpoint, metavar="CHECKPOINT", help=what, **required)


def add_device_option(parser) -> None:
    parser.add_argument("--device", help="cpu, cuda, mps ...; None: the best there is")


def device_of(args) -> torch.device:
    """What `--device` names. Raises ValueError if it cannot be used."""
    if args.device is None:
        return choose_device()
    try:
        return torch.zeros(1, device=args.device).device
    except (RuntimeError, AssertionError) as error:  # torch raises the latter if built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {args.device!r} cannot be used here ({reason}): pass cpu, or none") from error


def add_camera_options(parser) -> None:
    parser.add_argument("--focal-px", type=float, help="focal length, in pixels of the full-size pictures")
    parser.add_argument("--baseline-m", type=float, help="distance of the two cameras of the training pairs, in metres")


def camera_of(args) -> dict:
    """The options of `add_camera_options`, as `KittiStereo` takes them."""
    return {"focal_px": args.focal_px, "baseline_m": args.baseline_m}


def add_evaluate(commands) -> None:
    parser = add_command(commands, evaluate, "Score a checkpoint on scenes with ground truth, beside the pixel mean.")
    add_network_options(parser, "checkpoint")
    add_device_option(parser)
    add = parser.add_argument
    add("--data", default="kitti2015", help="kitti2015, or a folder with disp_noc_0 or disp_occ_0 beside image_2")
    add("--data-root", default="datasets", help="folder for downloaded data")
    add("--all", action="store_true", help="score all labelled scenes, not only those that `train` leaves out")
    add_camera_options(parser)
    add("--out", default="runs/evaluate", help="folder for tables, figures and predictions in KITTI's format")


def evaluate(args) -> None:
    from monodepth_nb.course.report import write_report
    from monodepth_nb.evaluation import PixelMeanBaseline
    from monodepth_nb.inference import load_network

    network = load_network(args.checkpoint, device_of(args))
    root = download.download_kitti2015(args.data_root) if args.data == "kitti2015" else Path(args.data)
    everything = KittiStereo(root)
    kinds = truth_kinds(everything)
    if not kinds:
        raise ValueError(f"{everything.folder} has neither disp_noc_0 nor disp_occ_0: nothing to score against")
    scored = {kind: KittiStereo(root, truth=kind, size=tuple(network.size), **camera_of(args)) for kind in kinds}
    baseline = None
    if not args.all:
        try:
            known = {everything.names[i] for i in split_by_scene(everything)[0].indices}
        except ValueError as error:
            raise ValueError(f"{error}, or pass --all") from error
        training, scored = ({kind: part(data, known, keep) for kind, data in scored.items()} for keep in (True, False))
        if not (len(training[kinds[0]]) and len(scored[kinds[0]])):
            raise ValueError(f"{root} has no ground truth of what `train` leaves out, or none of the rest: pass --all")
        baseline = PixelMeanBaseline(training[kinds[0]])
    label = f"{Path(args.checkpoint)} on {len(scored[kinds[0]])} scenes of {root.name}"
    print(write_report(network, scored, tuple(network.size), args.out, label, baseline))


def part(data: KittiStereo, names: set[str], keep: bool) -> Subset:
    """The samples whose name is, or is not, among `names`."""
    return Subset(data, [i for i, name in enumerate(data.names) if (name in names) == keep])


def add_predict(commands) -> None:
    parser = add_command(commands, predict, "Predict the depth of photos.")
    add = parser.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="picture, folder of pictures, or pattern such as 'trip/*.jpg'")
    add_network_options(parser, "--checkpoint", required=True)
    add_device_option(parser)
    add_camera_options(parser)
    add("--out", default="runs/predict", help="folder for the results")
    add("--ply", action="store_true", help="write a coloured point cloud too; needs --focal-px and --baseline-m")
    add("--batch-size", type=int, default=4, help="photos predicted at once")


def predict(args) -> int:
    from monodepth_nb import inference

    if (args.focal_px is None) != (args.baseline_m is None):
        raise ValueError("metres need both --focal-px and --baseline-m; without, disparity stays relative")
    camera = None if args.focal_px is None else inference.Camera(args.focal_px, args.baseline_m)
    photos = inference.find_photos(args.photos)
    network = inference.load_network(args.checkpoint, device_of(args))
    failures = inference.predict_photos(
        network, photos, args.out, tuple(network.size), camera=camera, ply=args.ply, batch_size=args.batch_size
    )
    for message in failures.values():
        print(f"error: {message}", file=sys.stderr)
    kind = "depth in metres" if camera else "relative disparity (no metres without --focal-px and --baseline-m)"
    print(f"{len(photos) - len(failures)} of {len(photos)} photos: {kind} in {args.out}")
    return 1 if failures else 0


def add_export(commands) -> None:
    parser = add_command(commands, export, "Write a checkpoint as ONNX, which runs without this package.")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="best.pt or last.pt of a run")
    parser.add_argument("--out", default="network.onnx", help="file to write")


def export(args) -> None:
    from monodepth_nb.checkpoints import load_model
    from monodepth_nb.onnx_export import export_onnx

    network = load_model(args.checkpoint)
    export_onnx(network, args.out, network.size)
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
