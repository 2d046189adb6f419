"""Real data that experiments share, each a small frozen object: `EMG.load()`."""

from eigenworks.data.archive import ImageFiles
from eigenworks.data.cifar10 import CIFAR10
from eigenworks.data.digits import DIGITS
from eigenworks.data.efficientnet import EFFICIENTNET_LITE0
from eigenworks.data.emg import EMG
from eigenworks.data.faces import FACES
from eigenworks.data.imagenet import IMAGENET
from eigenworks.data.imu import WATCH
from eigenworks.data.labelled import Labelled, read_labelled
from eigenworks.data.mnist import MNIST
from eigenworks.data.molecules import MOSES, ZINC250K, ZINC_LOW_PLOGP, MoleculeFile
from eigenworks.data.photographs import PHOTOGRAPHS
from eigenworks.data.skeletons import MSR_ACTION3D
from eigenworks.data.smollm2 import SMOLLM2
from eigenworks.data.squeezenet import SQUEEZENET
from eigenworks.data.textures import TEXTURES
from eigenworks.data.wikitext import WIKITEXT2
from eigenworks.dataset import DataError, DataSet, development_file

__all__ = [
    "CIFAR10",
    "DIGITS",
    "EFFICIENTNET_LITE0",
    "EMG",
    "FACES",
    "IMAGENET",
    "MNIST",
    "MOSES",
    "PHOTOGRAPHS",
    "MSR_ACTION3D",
    "SMOLLM2",
    "SQUEEZENET",
    "TEXTURES",
    "WATCH",
    "WIKITEXT2",
    "ZINC250K",
    "ZINC_LOW_PLOGP",
    "DataError",
    "DataSet",
    "ImageFiles",
    "Labelled",
    "MoleculeFile",
    "development_file",
    "read_labelled",
]
