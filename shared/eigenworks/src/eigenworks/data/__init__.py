"""Real data that experiments share, each a small frozen object: `EMG.load()`."""

from eigenworks.data.digits import DIGITS
from eigenworks.data.efficientnet import EFFICIENTNET_LITE0
from eigenworks.data.emg import EMG
from eigenworks.data.faces import FACES
from eigenworks.data.imu import WATCH
from eigenworks.data.mnist import MNIST
from eigenworks.data.skeletons import MSR_ACTION3D
from eigenworks.data.smollm2 import SMOLLM2
from eigenworks.data.textures import TEXTURES
from eigenworks.dataset import DataError, DataSet, development_file

__all__ = [
    "DIGITS",
    "EFFICIENTNET_LITE0",
    "EMG",
    "FACES",
    "MNIST",
    "MSR_ACTION3D",
    "SMOLLM2",
    "TEXTURES",
    "WATCH",
    "DataError",
    "DataSet",
    "development_file",
]
