"""Self-supervised depth from a single picture: data, network, loss, training and evaluation."""

from monodepth_nb.data.kitti import KittiStereo
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.losses import MonodepthLoss
from monodepth_nb.networks import DispResNet
from monodepth_nb.training import TrainConfig, fit

__all__ = ["DispResNet", "KittiStereo", "MonodepthLoss", "TrainConfig", "fit", "motorcycle"]
