"""A network as one .onnx file, which runs without PyTorch; needs the extra `pip install -e .[onnx]`."""

from pathlib import Path

import torch
from torch import Tensor, nn

from monodepth_nb.checkpoints import write_whole

INSTALL = "pip install onnx onnxscript onnxruntime"


class Finest(nn.Module):
    """Only the finest maps, (B, 2, H, W): the others serve training."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)[0]


def export_onnx(network: nn.Module, path: str | Path, size: tuple[int, int]) -> None:
    """Write `network` for images of one `size` (height, width) and any batch size.

    Input "image": (B, 3, H, W) float32, RGB in [0, 1]. Output "disparity": (B, 2, H, W), fractions of the width.
    Raises ValueError if the packages `onnx` and `onnxscript` are missing.
    """
    require("onnx", "onnxscript")
    image = torch.zeros(2, 3, *size)  # a batch of 1 would be taken for a constant
    program = torch.onnx.export(
        Finest(network).eval().cpu(), (image,), dynamo=True, input_names=["image"], output_names=["disparity"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}}, verbose=False,
    )  # fmt: skip
    write_whole(Path(path), lambda part: program.save(part, external_data=False))


class OnnxNetwork:
    """Call it like a network: (B, 3, H, W) in [0, 1] -> [(B, 2, H, W)]. `size` is the one it was exported for.

    Raises FileNotFoundError; ValueError if the file is not such a network or `onnxruntime` is missing.
    """

    def __init__(self, path: str | Path):
        require("onnxruntime")
        import onnxruntime

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist: write it with `python -m monodepth_nb export`")
        try:
            there = onnxruntime.get_available_providers()
            providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in there]
            self.session = onnxruntime.InferenceSession(str(path), providers=providers)
            (image,), (_,) = self.session.get_inputs(), self.session.get_outputs()
            _, _, *self.size = image.shape
        except Exception as error:  # onnxruntime has a class of error for each cause
            raise ValueError(f"{path} is no exported network ({type(error).__name__}): export it again") from error

    def __call__(self, images: Tensor) -> list[Tensor]:
        name = self.session.get_inputs()[0].name
        return [torch.from_numpy(self.session.run(None, {name: images.cpu().numpy()})[0])]


def require(*modules: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ValueError(f"the package {' and '.join(missing)} is not installed: {INSTALL}")
