"""A network as one .onnx file, which runs without PyTorch. Needs the extra: `pip install -e .[onnx]`."""

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from monodepth_nb.checkpoints import write_whole


class Finest(nn.Sequential):
    """Returns only the finest maps, (B, 2, H, W); the coarser ones serve training."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image)[0]


def export_onnx(network: nn.Module, path: str | Path, size: tuple[int, int]) -> None:
    """Write `network` for images of one `size` (height, width) and any batch size.

    Input "image": (B, 3, H, W) float32, RGB in [0, 1]. Output "disparity": (B, 2, H, W), fractions of the width.
    Raises ValueError if the packages `onnx` and `onnxscript` are missing.
    """
    require("onnx", "onnxscript")
    copy = Finest(deepcopy(network)).eval().cpu()
    image = torch.zeros(2, 3, *size)  # torch.export would fix a batch size of 1
    program = torch.onnx.export(
        copy, (image,), dynamo=True, input_names=["image"], output_names=["disparity"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}}, verbose=False,
    )  # fmt: skip
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(path), lambda part: program.save(part, external_data=False))


class OnnxNetwork:
    """Called like a network: (B, 3, H, W) in [0, 1] -> [(B, 2, H, W)]. `size` is (height, width) as exported.

    Raises FileNotFoundError; ValueError if the file is not an exported network or `onnxruntime` is missing.
    """

    def __init__(self, path: str | Path):
        require("onnxruntime")
        import onnxruntime

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist: write it with `python -m monodepth_nb export`")
        try:
            wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
            providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
            self.session = onnxruntime.InferenceSession(str(path), providers=providers)
            (image,), (_,) = self.session.get_inputs(), self.session.get_outputs()
            self.input, (_, _, *self.size) = image.name, image.shape
        except Exception as error:  # onnxruntime has a class of error for each cause
            raise ValueError(f"{path} is not an exported network ({type(error).__name__}): export it again") from error

    def __call__(self, images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(self.session.run(None, {self.input: images.cpu().numpy()})[0])]


def require(*modules: str) -> None:
    from importlib.util import find_spec

    if missing := [name for name in modules if find_spec(name) is None]:
        remedy = "pip install onnx onnxscript onnxruntime"
        raise ValueError(f"the package {' and '.join(missing)} is not installed: {remedy}")
