"""Self-supervised depth from a single picture: data, network, loss, training and evaluation."""

__all__ = ["DispResNet", "KittiStereo", "MonodepthLoss", "TrainConfig", "fit", "motorcycle"]


def __getattr__(name: str):
    """Load PyTorch, which takes seconds, when it is needed, so that the command line can see to Ctrl-C before."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    from monodepth_nb.data.kitti import KittiStereo
    from monodepth_nb.data.motorcycle import motorcycle
    from monodepth_nb.losses import MonodepthLoss
    from monodepth_nb.networks import DispResNet
    from monodepth_nb.training import TrainConfig, fit

    globals().update({f.__name__: f for f in (DispResNet, KittiStereo, MonodepthLoss, TrainConfig, fit, motorcycle)})
    return globals()[name]
