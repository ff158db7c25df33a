"""The catalogue of data sets: where each comes from, under which licence, and its checksums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quickstudy.core.arguments import checked

__all__ = ["DATASETS", "INK_SETS", "DatasetInfo", "RemoteFile", "same_images"]

INK_SETS = ("omniglot", "quickdraw", "glyphs", "digits", "mnist")
"""Data sets of bright ink on black, as :func:`~quickstudy.tasks.datasets.load_pool` gives them."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A published file: its address, where it lies below the data folder, and its checksum."""

    url: str
    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What is known of a data set.

    Args:
        name: its name in Quickstudy.
        title: its name and contents, for people.
        licence: the terms of use.
        source: who published it, and where.
        size: default height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        path: Parquet file below the data folder; empty if the data set needs no file.
        sha256: checksum of the Parquet file.
        remote: the files as published, which are read if the Parquet file is not there.
        folder: folder as published, with ``images/`` and a CSV per split.
        invert: whether the files hold dark ink on bright paper.
        label: column of the labels.
        group: columns that name a group.
        split_files: split files by their short names, the default first; if there is none, all
            classes are ``"test"``.
    """

    name: str
    title: str
    licence: str
    source: str
    size: int
    channels: int
    path: str = ""
    sha256: str = ""
    remote: tuple[RemoteFile, ...] = ()
    folder: str = ""
    invert: bool = False
    label: str = "label"
    group: tuple[str, ...] = ()
    split_files: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the default split file, and ``"all"``."""
        if self.name == "glyphs" or self.split_files:
            return ("train", "val", "test", "all")
        return ("test", "all")

    @property
    def default_split_file(self) -> str | None:
        """Short name of the split file that is used if none is named."""
        return next(iter(self.split_files), None)


_OMNIGLOT_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
_CIFAR100_FACTS = {
    "licence": "research use (CIFAR-100 names no licence)",
    "size": 32,
    "channels": 3,
    "path": "images/cifar_fs.parquet",
    "sha256": "b5faee8a38a323147f5e6a406a75eec72be5b2168d8cb8acec8167047a1ea97c",
    "remote": (
        RemoteFile(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "cifar100/cifar-100-binary.tar.gz",
            "md5:03b5dce01913d631647c71ecec9e9cb8",
        ),
    ),
}

DATASETS: dict[str, DatasetInfo] = {
    "omniglot": DatasetInfo(
        name="omniglot",
        title="Omniglot, 1,623 characters of 50 alphabets by 20 drawers",
        licence="MIT",
        source="Lake, Salakhutdinov, Tenenbaum (2015), https://github.com/brendenlake/omniglot",
        size=28,
        channels=1,
        path="images/omniglot.parquet",
        sha256="fdd8e648c628ea3c96db1f474e5932151bad55c0f3764db7220fc964250df926",
        remote=(
            RemoteFile(
                _OMNIGLOT_URL + "images_background.zip",
                "omniglot/images_background.zip",
                "md5:68d2efa1b9178cc56df9314c21c6e718",
            ),
            RemoteFile(
                _OMNIGLOT_URL + "images_evaluation.zip",
                "omniglot/images_evaluation.zip",
                "md5:6b91aef0f799c5bb55b94e3f2daec811",
            ),
        ),
        invert=True,
        group=("drawer",),
        split_files={
            "vinyals": "omniglot-vinyals",
            "random": "omniglot-random",
            "background-evaluation": "omniglot-background-evaluation",
            "by-alphabet": "omniglot-by-alphabet",
        },
    ),
    "miniimagenet": DatasetInfo(
        name="miniimagenet",
        title="miniImageNet, 100 classes of ImageNet",
        licence="ImageNet terms: non-commercial research",
        source="Vinyals et al. (2016), split by Ravi and Larochelle (2017); https://image-net.org",
        size=84,
        channels=3,
        path="images/miniimagenet.parquet",
        sha256="1ee0eefff2bd36347e12b7071db4724fdb56c2fe649e1c9c7fb6b04e127959e9",
        folder="miniimagenet",
        label="wnid",
        split_files={"ravi": "miniimagenet-ravi"},
    ),
    "cifar-fs": DatasetInfo(
        name="cifar-fs",
        title="CIFAR-FS, 100 classes of CIFAR-100",
        source="Bertinetto et al. (2019), images of Krizhevsky (2009)",
        split_files={"cifar-fs": "cifar-fs"},
        **_CIFAR100_FACTS,  # type: ignore[arg-type]
    ),
    "fc100": DatasetInfo(
        name="fc100",
        title="FC100, CIFAR-100 split by superclass",
        source="Oreshkin et al. (2018), images of Krizhevsky (2009)",
        split_files={"fc100": "fc100"},
        **_CIFAR100_FACTS,  # type: ignore[arg-type]
    ),
    "quickdraw": DatasetInfo(
        name="quickdraw",
        title="Quick, Draw!, 345 kinds of sketches, 50 each",
        licence="CC BY 4.0",
        source="Google, https://github.com/googlecreativelab/quickdraw-dataset",
        size=28,
        channels=1,
        path="images/quickdraw.parquet",
        sha256="d8a1f0cb41e0b48fdb53882c372c6a965c2384bdfb0cfd5b650730f179f04a52",
    ),
    "gtsrb": DatasetInfo(
        name="gtsrb",
        title="German traffic signs, 43 classes, 60 frames each",
        licence="research use",
        source="Stallkamp et al. (2012), https://benchmark.ini.rub.de",
        size=32,
        channels=3,
        path="images/gtsrb.parquet",
        sha256="996d734931dd6e4af63783626b2f9609b3e66cff0850ffeb9c814936d83bb01b",
        group=("label", "track"),
    ),
    "dtd": DatasetInfo(
        name="dtd",
        title="Describable textures, 10 of 47 classes",
        licence="research use",
        source="Cimpoi et al. (2014), https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        size=64,
        channels=3,
        path="images/dtd10.parquet",
        sha256="6d70a58838bddc4ce6fd0a0084ee7c552961062a8a8793e30838ef234ddb33b9",
    ),
    "fashion-mnist": DatasetInfo(
        name="fashion-mnist",
        title="Fashion-MNIST, 10 kinds of clothes, 150 each",
        licence="MIT",
        source="Xiao, Rasul, Vollgraf (2017), https://github.com/zalandoresearch/fashion-mnist",
        size=28,
        channels=1,
        path="images/fashionmnist.parquet",
        sha256="94d4b69c1c6f0a3e2301555713e59b62331c54dd535e08420c9eb0af97c95865",
    ),
    "mnist": DatasetInfo(
        name="mnist",
        title="MNIST, handwritten digits, 300 each",
        licence="CC BY-SA 3.0",
        source="LeCun et al. (1998)",
        size=28,
        channels=1,
        path="images/mnist.parquet",
        sha256="b3e90f90ecc60cb988d7c67d1bbd458d690bcd1581c1e9d52148e486c55f6e9b",
    ),
    "digits": DatasetInfo(
        name="digits",
        title="Optical digits, 1,797 handwritten digits of 8x8 pixels, with scikit-learn",
        licence="CC BY 4.0",
        source="Alpaydin and Kaynak (1998), UCI Machine Learning Repository",
        size=28,
        channels=1,
    ),
    "glyphs": DatasetInfo(
        name="glyphs",
        title="Characters rendered from matplotlib's fonts and deformed",
        licence="of the fonts: Bitstream Vera and public domain, STIX, Knuth",
        source="rendered here, see quickstudy.tasks.glyphs",
        size=28,
        channels=1,
    ),
}
"""Every data set that can be loaded by name."""


@checked
def same_images(first: str, second: str) -> bool:
    """Return whether two names mean the same images, even if split differently, as CIFAR-FS and
    FC100 are."""
    paths = [DATASETS[name].path for name in (first, second) if name in DATASETS]
    return first == second or (len(paths) == 2 and paths[0] == paths[1] != "")
