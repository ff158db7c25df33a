"""Published archives: tiny real zips and tars, and hostile ones."""

import io
import pickle  # the tests write what the reader must understand or refuse
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.core import DataError
from quickstudy.tasks import archives
from quickstudy.tasks.archives import (
    pool_from_cifar100,
    pool_from_omniglot_zips,
    read_plain_pickle,
)


def drawing(value: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.full((105, 105), 255, np.uint8)
    pixels[:, :value] = 0
    Image.fromarray(pixels).convert("1").save(stream, "PNG")
    return stream.getvalue()


def omniglot_zip(path: Path, alphabet: str, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for character in ("character02", "character01"):
            for drawer in (10, 1, 2):
                name = f"{path.stem}/{alphabet}/{character}/0709_{drawer:02d}.png"
                archive.writestr(name, drawing(drawer * 10))
        archive.writestr(f"__MACOSX/{path.stem}/{alphabet}/character01/0709_01.png", b"litter")
        archive.writestr(f"{path.stem}/readme.txt", b"text")
        for name, data in more.items():
            archive.writestr(name, data)
    return path


def test_omniglot_zips(tmp_path: Path) -> None:
    background = omniglot_zip(tmp_path / "images_background.zip", "Greek")
    evaluation = omniglot_zip(tmp_path / "images_evaluation.zip", "Tibetan")
    pool = pool_from_omniglot_zips([background, evaluation], size=28)
    assert pool.class_names == (
        *("Greek/character01", "Greek/character02"),
        *("Tibetan/character01", "Tibetan/character02"),
    )
    assert pool.x.shape == (12, 1, 28, 28)
    ink = pool.x.float().mean((1, 2, 3)).view(4, 3)
    assert bool((ink[:, 0] < ink[:, 1]).all())  # drawers in order 1, 2, 10: more ink each
    assert bool((ink[:, 1] < ink[:, 2]).all())
    assert pool.groups is not None
    assert pool.groups.view(4, 3).unique(dim=0).shape[0] == 1  # the same drawers in every class


def test_zip_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match=r"bad\.zip.*zip"):
        pool_from_omniglot_zips([bad])
    with pytest.raises(DataError, match="no such file"):
        pool_from_omniglot_zips([tmp_path / "gone.zip"])
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("cat.png", b"x")
    with pytest.raises(DataError, match="no Omniglot images"):
        pool_from_omniglot_zips([bad])
    good = omniglot_zip(tmp_path / "good.zip", "Greek")
    data = bytearray(good.read_bytes())
    data[60:80] = bytes(20)  # damage inside the first member
    good.write_bytes(data)
    with pytest.raises(DataError, match=r"good\.zip"):
        pool_from_omniglot_zips([good])
    bomb = omniglot_zip(tmp_path / "bomb.zip", "Greek", **{"a/b/1_01.png": bytes(5000)})
    monkeypatch.setattr(archives, "_MAX_IMAGE_BYTES", 4000)
    with pytest.raises(DataError, match=r"1_01\.png: larger than"):
        pool_from_omniglot_zips([bomb])


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def rows(fine: list[int]) -> bytes:
    return b"".join(bytes([9, f]) + bytes([f]) * 1024 + bytes([0]) * 2048 for f in fine)


def test_cifar_binary(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "c.tar.gz",
        {
            "cifar-100-binary/fine_label_names.txt": b"apple\nfish\nbaby\n\n",
            "cifar-100-binary/train.bin": rows([2, 0]),
            "cifar-100-binary/test.bin": rows([1, 2]),
        },
    )
    pool = pool_from_cifar100(path)
    assert pool.class_names == ("apple", "baby", "fish")
    assert pool.x.shape == (4, 3, 32, 32)
    assert pool.x[:, 0, 0, 0].tolist() == [0, 2, 2, 1]
    assert int(pool.x[:, 1:].max()) == 0
    assert pool_from_cifar100(path, size=16).x.shape == (4, 3, 16, 16)


def python_2_array(pixels: np.ndarray) -> bytes:
    """What Python 2 and NumPy wrote for an uint8 matrix, as in the published archive."""
    height, width = (b"J" + n.to_bytes(4, "little") for n in pixels.shape)
    no_fields = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|" + no_fields
    data = b"T" + pixels.nbytes.to_bytes(4, "little") + pixels.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + height + width + b"\x86" + dtype + b"\x89" + data + b"tb"
    )


def test_cifar_python(tmp_path: Path) -> None:
    def batch(fine: list[int]) -> bytes:
        data = np.repeat(np.array(fine, np.uint8)[:, None] * 250, 3072, axis=1)
        labels = b"](" + b"".join(bytes([ord("K"), f]) for f in fine) + b"e"
        body = b"U\x0bfine_labels" + labels + b"U\x04data" + python_2_array(data)
        return b"\x80\x02}q\x01(" + body + b"u."

    meta = pickle.dumps({"fine_label_names": ["apple", "fish"]}, 2)
    members = {"p/meta": meta, "p/test": batch([1]), "p/train": batch([0, 1])}
    pool = pool_from_cifar100(tar(tmp_path / "c.tar.gz", members))
    assert pool.class_names == ("apple", "fish")
    assert pool.x.shape == (3, 3, 32, 32)
    assert pool.x[:, 0, 0, 0].tolist() == [0, 250, 250]


def test_arrays_of_other_types_are_refused() -> None:
    array = python_2_array(np.zeros((2, 2), np.uint8))
    assert read_plain_pickle(b"}U\x01a" + array + b"s.", what="train")["a"].shape == (2, 2)
    with pytest.raises(DataError, match="refused"):
        read_plain_pickle(b"}U\x01a" + array.replace(b"u1", b"O8") + b"s.", what="train")


class Attack:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("executed",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_is_executed(protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="refused"):
        read_plain_pickle(pickle.dumps({"data": Attack()}, protocol), what="train")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "data", [b"", b".", b"\x80\x02}", b"\x80\x02K\x01.", b"\x80\x02h\x05.", b"(((", b"\x80\x02]}s."]
)
def test_damaged_pickles_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="train"):
        read_plain_pickle(data, what="train")


def test_cifar_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.tar.gz"
    path.write_bytes(b"\x1f\x8b broken")
    with pytest.raises(DataError, match=r"c\.tar\.gz.*tar"):
        pool_from_cifar100(path)
    with pytest.raises(DataError, match="not an archive of CIFAR-100"):
        pool_from_cifar100(tar(path, {"x/other.bin": b""}))
    members = {"fine_label_names.txt": b"a b", "train.bin": rows([0]), "test.bin": b"123"}
    with pytest.raises(DataError, match=r"test\.bin: 3 bytes"):
        pool_from_cifar100(tar(path, members))
    members["test.bin"] = rows([7])
    with pytest.raises(DataError, match="2 class names"):
        pool_from_cifar100(tar(path, members))
    monkeypatch.setattr(archives, "_MAX_CIFAR_BYTES", 100)
    with pytest.raises(DataError, match="larger than any file"):
        pool_from_cifar100(path)
