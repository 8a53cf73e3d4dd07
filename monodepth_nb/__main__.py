"""The command line: `python -m monodepth_nb COMMAND --help`.

Each command is a function below its options. It imports what only it needs when it runs: `train` needs no notebook
tools, and Matplotlib takes a second to load.
"""

if __name__ == "__main__":  # Ctrl-C during the imports, which take seconds, ends without a traceback
    import signal

    HANDLER = signal.signal(signal.SIGINT, signal.SIG_DFL)

import math
import sys
import warnings
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import torch

from monodepth_nb.checkpoints import CheckpointError, alone_in, checkpoint_file, load_model
from monodepth_nb.course.full_set import follow_recipe, scored_scenes, streets_of, training_data, unbiased
from monodepth_nb.data.download import DownloadError, download_kitti2015
from monodepth_nb.identity import code_of, short_hash
from monodepth_nb.machine import OutOfMemory, choose_device, first_process_first, process_rank, processes_of_torchrun
from monodepth_nb.monitoring import TrainingDiverged
from monodepth_nb.networks import EDGES, ENCODERS, UPSAMPLINGS, DispResNet, check_size
from monodepth_nb.options import PARSER, command, config_option, not_negative, option, positive, with_options
from monodepth_nb.pretrained import WeightsUnavailable
from monodepth_nb.training import TrainConfig, fit, seed_everything

WRONG_USE = (ValueError, OSError, CheckpointError)
FAILURES = (TrainingDiverged, OutOfMemory, WeightsUnavailable, DownloadError)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    args = PARSER.parse_args(arguments)
    try:
        return args.run(args) or 0
    except WRONG_USE + FAILURES as error:
        if isinstance(error, OSError) and error.filename:  # the system's own message, which gives no advice
            error = type(error)(f"cannot use {error.filename} ({error.strerror}): choose another file or folder")
        print(f"{PARSER.prog}: error: {with_options(str(error), args)}", file=sys.stderr)
        return 2 if isinstance(error, WRONG_USE) else 1
    except KeyboardInterrupt as reason:
        print(f"interrupted {reason}".strip(), file=sys.stderr)
        return 130  # the exit status that shells give to Ctrl-C


CHECKPOINT = dict(metavar="CHECKPOINT", help="run folder (its best.pt), .pt file of a run, or exported .onnx file")
SIZE = dict(type=positive, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the input images, in pixels, height first")
DEVICE = option("--device", help="cpu, cuda, mps ... (default: the best one available)")
FOCAL = option("--focal-px", type=float, help="focal length, in pixels of the full-size pictures")
CAMERA = (FOCAL, option("--baseline-m", type=float, help="distance of the two cameras of these pairs, in metres"))
DATA_ROOT = option(
    "--data-root", help="folder for downloaded and rendered data (default: MONODEPTH_DATA, else datasets/ of the "
    "checkout that holds the current folder, else the user's cache folder)",
)  # fmt: skip
SCENES = (
    DATA_ROOT,
    option("--scenes", type=positive, default=200, help="number of streets to render"),
    option("--size", default=[256, 512], **SIZE),
    option("--streets-seed", type=not_negative, default=0, help="random seed of the rendered streets"),
)


def device_of(args) -> torch.device:
    """The device that `--device` names. Raises ValueError if it is unavailable."""
    if args.device is None:
        return choose_device()
    try:
        probe = torch.zeros(1, device=args.device)
        probe.item()  # "meta" has no numbers
        return probe.device
    except (RuntimeError, AssertionError) as error:  # torch raises the latter if built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {args.device!r} cannot be used ({reason}): pass cpu, or omit --device") from error


# ---- Training ----


@command(
    "Train on stereo pairs, or resume a run that was interrupted.",
    option("--data", default="motorcycle", help="motorcycle, streets, kitti2015, or a folder of pairs"),
    *map(config_option, fields(TrainConfig)),
    *SCENES,
    option("--rendered", type=not_negative, default=0, help="rendered streets to add; needs --recipe few-pairs"),
    option("--no-validation", action="store_true", help="train on all pairs and hold none out to choose or score with"),
    option("--no-pair-check", action="store_true", help="do not check whether the pairs are rectified stereo pairs"),
    option("--no-augmentation", action="store_true", help="do not augment the pairs"),
    option("--start-from", metavar="CHECKPOINT", help="train this network further, as it is and at its own size"),
    option("--encoder", default="scratch", choices=ENCODERS, help="of the network; all but scratch are pretrained"),
    option("--width", type=float, default=1.0, help="factor of the network's channel counts"),
    option("--upsampling", default="nearest", choices=UPSAMPLINGS, help="in the decoder"),
    option("--edges", default="zeros", choices=EDGES, help="how the decoder's two finest levels pad"),
    option("--trainable-encoder", action="store_true", help="fine-tune a pretrained encoder; else it is frozen"),
    option("--weights", default="imagenet", help="of a pretrained encoder: imagenet, random, coco or streets:FILE"),
    DEVICE,
    *CAMERA,
    option("--run-dir", default="runs/train", help="folder for checkpoints, history, scores and figures"),
)
def train(args) -> None:
    """`torchrun --nproc-per-node 2 -m monodepth_nb train ...` shares the work between two processes."""
    from monodepth_nb.course.report import write_run_figures

    code_of("training")  # now, because its files may be edited while streets are rendered
    config = TrainConfig(**{field.name: getattr(args, field.name) for field in fields(TrainConfig)})
    with processes_of_torchrun(args.device):
        device = device_of(args)
        seed_everything(args.seed)
        with first_process_first():  # it downloads and renders for all
            model = network_of(args)  # first: unavailable weights should be reported before a long download
            data = training_data(args)
            recipe, validation = follow_recipe(data, args)
        first = process_rank() == 0
        if first:
            state = " (it holds a checkpoint)" if Path(args.run_dir, "last.pt").exists() else ""
            print(f"device: {device}; training pairs: {len(recipe.data)}; run folder: {args.run_dir}{state}")
        with alone_in(Path(args.run_dir)) if first else nullcontext():
            history = fit(
                model, recipe.data, config, validation_data=validation, truth_data=data.test,
                transform=recipe.transform, late_transform=recipe.late_transform, run_dir=args.run_dir, device=device,
                on_mismatch="refuse",
            )  # fmt: skip
            if first:
                write_run_figures(args.run_dir, model, history, recipe.data, data.test)
                print(history.iloc[-1].to_string(float_format="%.4g"))


def network_of(args) -> torch.nn.Module:
    """The network that the options of `train` describe. With `--start-from`, sets `args.size` to the network's."""
    names = ("encoder", "width", "upsampling", "trainable_encoder", "weights", "edges")
    if args.start_from:
        model, plain = load_model(args.start_from), PARSER.parse_args(["train"])
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) != getattr(plain, name)]
        given += ["--size"] if args.size not in (plain.size, list(model.size)) else []
        if given:
            raise ValueError(f"--start-from keeps the network and its size: omit {', '.join(given)}")
        args.size = list(model.size)
        model.started_from = short_hash(checkpoint_file(args.start_from).read_bytes())  # part of the run's identity
        return model
    if args.encoder == "scratch" and args.trainable_encoder:
        raise ValueError("--trainable-encoder fine-tunes a pretrained encoder: pass one, such as --encoder lite0")
    if not math.isfinite(args.width):
        raise ValueError(f"--width is {args.width}; it must be a finite number")
    check_size(torch.empty(1, 3, *args.size))
    return DispResNet(**{name: getattr(args, name) for name in names})


# ---- Using a trained network ----


@command(
    "Score a checkpoint on scenes with ground truth, next to the pixel-mean baseline.",
    option("checkpoint", **CHECKPOINT),
    option("--data", default="kitti2015", help="folder of pairs with ground truth, or kitti2015: 1.7 GB, downloaded"),
    DATA_ROOT,
    option("--all", action="store_true", help="score all labelled scenes, not only those that `train` holds out"),
    FOCAL,
    option("--baseline-m", type=float, help="distance of the two cameras of the scored pictures, in metres"),
    DEVICE,
    option("--out", default="runs/evaluate", help="folder for tables and a figure"),
)
def evaluate(args) -> None:
    from monodepth_nb.course.report import write_report
    from monodepth_nb.inference import load_network, training_baseline_m

    path, device = checkpoint_file(args.checkpoint), device_of(args)
    network = load_network(path, device)
    size = tuple(network.size)
    scored = scored_scenes(args, size)
    fair = unbiased(path, network, scored.names(), held_out=not args.all)
    if fair != path:
        path, network = fair, load_network(fair, device)
    baseline_m = training_baseline_m(network)
    trained = f" (trained at a baseline of {baseline_m:g} m)" if baseline_m else ""
    label = f"{path}{trained} on {scored.label}"
    print(write_report(network, scored.scenes, size, args.out, label, scored.baseline, baseline_m))


@command(
    "Predict the depth of photos.",
    option("photos", nargs="+", metavar="PHOTO", help="picture, or folder of .jpg, .png, .webp, .tif or .bmp files"),
    option("--checkpoint", **CHECKPOINT | {"help": f"{CHECKPOINT['help']} (default: the network that ships)"}),
    FOCAL,
    option("--baseline-m", type=float, help="distance of the cameras of the training pairs, in metres, if not stored"),
    DEVICE,
    option("--ply", action="store_true", help="also write a coloured point cloud; needs --focal-px"),
    option("--out", default="runs/predict", help="folder for the results"),
)
def predict(args) -> int:
    from monodepth_nb import inference

    photos = inference.find_photos(args.photos)
    network = inference.load_network(args.checkpoint, device_of(args))
    if args.baseline_m is None and args.focal_px is not None:
        args.baseline_m = inference.training_baseline_m(network)
    if args.ply and args.focal_px is None:
        raise ValueError("--ply writes points in metres: pass --focal-px, the focal length of the camera in pixels")
    if (args.focal_px is None) != (args.baseline_m is None):
        raise ValueError("depth in metres needs both --focal-px and --baseline-m; omit both for relative disparity")
    camera = None if args.focal_px is None else inference.Camera(args.focal_px, args.baseline_m)
    for start in inference.unique_names(photos).values():
        for path in (Path(args.out, f"{start}_{kind}") for kind in inference.PICTURES):
            if path.exists() and not inference.is_result(path):
                raise ValueError(f"{path} is not a result of predict and would be overwritten: pass another --out")
    failures = inference.predict_photos(network, photos, args.out, tuple(network.size), camera, args.ply)
    for message in failures.values():
        print(f"error: {message}", file=sys.stderr)
    relative = "relative disparity (metres need --focal-px, and --baseline-m if it is not stored)"
    kind = "depth in metres" if camera else relative
    print(f"{len(photos) - len(failures)} of {len(photos)} photos: {kind} in {args.out}")
    return 1 if failures else 0


@command(
    "Write a checkpoint as ONNX, which runs without this package.",
    option("checkpoint", metavar="CHECKPOINT", help="run folder (its best.pt), or .pt file of a run"),
    option("--out", default="network.onnx", help="file to write"),
)
def export(args) -> None:
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
    option("--epochs", type=positive, default=20, help="passes over the scenes"),
    option("--seed", type=not_negative, default=0, help="of the weights, and of order and augmentation"),
    option("--size", default=[128, 256], **SIZE),
    option("--out", default="runs/segmenter", help="folder for weights, table and picture"),
)
def train_segmenter(args) -> None:
    """Trains on four fifths of the scenes and scores on the rest."""
    from monodepth_nb.streets.segmenter import train_on_streets

    Path(args.out).mkdir(parents=True, exist_ok=True)  # an error in it should come before the training
    root = streets_of(args, args.scenes, args.streets_seed)
    table = train_on_streets(root, args.out, tuple(args.size), args.epochs, seed=args.seed)
    print("intersection over union on unseen scenes")
    print(table.T.to_string(float_format="%.3f"))


@command(
    "Time training steps and predictions on this machine, and compare with simpler implementations.",
    option("--reference", help="compare with this Python file only, see benchmark.against_reference"),
    DEVICE,
)
def benchmark(args) -> None:
    from monodepth_nb import benchmark as timing
    from monodepth_nb.course.results import device_name

    device = device_of(args)
    print(f"device: {device_name(device)}, torch {torch.__version__}")
    if args.reference:
        ratios = timing.against_reference(args.reference, device)
        print(f"Times faster, or smaller, than {args.reference}\n{ratios.to_string(float_format='%.2f')}")
        return
    print(timing.benchmark(device).T.to_string(header=False, float_format="{:.4g}".format))
    print(f"\nTimes faster\n{timing.ratios(device).to_string(float_format='%.2f')}")


@command(
    "Run the tests, timings and trainings that need a GPU, and write one report.",
    option("--data", type=Path, help="folder of pairs to train on with the few-pairs recipe (default: without)"),
    option("--labelled", type=Path, help="folder with ground truth, to score that network on"),
    option("--reference", type=Path, help="Python file to compare with, see benchmark.against_reference"),
    option("--minutes", type=float, default=8, help="limit of time"),
    option("--out", type=Path, default="runs/gpu", help="folder for report.md, logs and runs"),
)
def gpu_check(args) -> int:
    from monodepth_nb import gpu_check as gpu

    if not torch.cuda.is_available():
        print("There is no GPU here, so there is nothing to check.")
        return 0
    if args.labelled and not args.data:
        raise ValueError("--labelled scores the network that --data trains: pass --data too")
    out, *given = (path and path.resolve() for path in (args.out, args.data, args.labelled, args.reference))
    return 0 if gpu.check(gpu.parts(out, *given), args.minutes, out) else 1


@command(
    "Run the notebooks with the profile of MONODEPTH_PROFILE and build the report: build/index.html.",
    option("notebooks", nargs="*", metavar="NN", help="numbers of notebooks, such as 02; none: all five"),
    option("--commit", action="store_true", help="store the outputs in notebooks/*.ipynb too"),
)
def reproduce(args) -> None:
    try:
        from monodepth_nb.course.reproduce import reproduce
    except ModuleNotFoundError as error:
        raise ValueError(f"the package {error.name} is not installed: pip install -r requirements.txt") from error
    reproduce(args.notebooks, args.commit)


@command(
    "Write the repository's address into the Colab links of README and notebooks.",
    option(
        "address", metavar="ADDRESS", nargs="?", help="https://github.com/OWNER/NAME (default: that of git's origin)"
    ),
)
def colab(args) -> None:
    from monodepth_nb.course.colab import set_repository

    for path in set_repository(args.address) or ["nothing: the address is there already"]:
        print(f"wrote {path}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, HANDLER)
    sys.exit(main())
