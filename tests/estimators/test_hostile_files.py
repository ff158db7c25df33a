"""Whatever a user's file holds, the commands answer or say what is wrong with it, in our words."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickstudy.cli import main

GOOD = "a,b,label\n" + "".join(f"{i % 2 * 5 + i / 9},{i % 3},{'xy'[i % 2]}\n" for i in range(12))

ODD_CELLS = [
    *("", "NA", "nan", "1", "2", "1.0", "1e999", "-inf", "007", "true", "2020-01-01", "0000-00-00"),
    *("08:00", "1,5", "1.234,5", "é", "\x00", '"', '""', "'", "a\nb", "\r", ";", "=1+1", "[]"),
    *("x" * 200_000, "9" * 400, "\u202e", "😀", "\ufeff", "1 days 00:00:00", "-0", ".", "e"),
]
ODD_NAMES = [
    *("a", "b", "label", "y", "text", "path", "image", "split", "id", "", " ", "a b", "é", "\x00"),
    *("class", "x" * 300, "<b>", "../x", "$HOME", "1", "-", "--out"),
]
cells = st.sampled_from(ODD_CELLS) | st.text(max_size=5)
# mostly the columns that a table needs, or nearly all files would be refused for lack of labels
names = st.sampled_from(["a", "b", "label"]) | st.sampled_from(ODD_NAMES)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), cells, st.integers(10**30, 10**40)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=3,
)


@st.composite
def delimited(draw: Any) -> bytes:
    mark = draw(st.sampled_from([",", ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))
    width = draw(st.integers(1, 4))
    rows = [draw(st.lists(names, min_size=width, max_size=width))]
    row = st.lists(cells, min_size=width, max_size=width)
    ragged = st.lists(cells, min_size=max(1, width - 1), max_size=width + 1)
    for _ in range(draw(st.integers(0, 6))):
        rows.append(draw(row if draw(st.integers(0, 9)) else ragged))
    quoted = draw(st.booleans())
    lines = [
        mark.join('"' + c.replace('"', '""') + '"' if quoted else c for c in row) for row in rows
    ]
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-16-le"]))
    return end.join(lines).encode(encoding, "replace")


@st.composite
def json_lines(draw: Any) -> bytes:
    rows = draw(st.lists(st.dictionaries(names, values, max_size=4) | values, max_size=5))
    text = draw(st.sampled_from(["\n", "\n\n", ","])).join(json.dumps(row) for row in rows)
    return (f"[{text}]" if draw(st.booleans()) else text).encode("utf-8", "surrogatepass")


@st.composite
def records(draw: Any) -> bytes:
    columns = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    kinds: list[st.SearchStrategy[Any]] = [st.integers(-5, 5), st.floats(), st.booleans(), cells]
    kinds += [st.binary(max_size=4), st.dates(), st.datetimes(), st.lists(st.integers(-5, 5))]
    kinds += [st.times(), st.timedeltas(), st.decimals(allow_nan=False, places=2, max_value=9)]
    n = draw(st.integers(0, 5))
    table = {
        name: draw(st.lists(draw(st.sampled_from(kinds)) | st.none(), min_size=n, max_size=n))
        for name in columns
    }
    buffer = io.BytesIO()
    try:
        pq.write_table(pa.table(table), buffer)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return b"PAR1"
    return buffer.getvalue()


@st.composite
def hostile(draw: Any) -> tuple[str, bytes]:
    """Return the ending and the content of a file; in one of four another than the ending says."""
    kind = draw(st.sampled_from(["csv", "jsonl", "parquet", "random"]))
    data = draw(
        {
            "csv": delimited(),
            "jsonl": json_lines(),
            "parquet": records(),
            "random": st.binary(max_size=60),
        }[kind]
    )
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    endings = ["csv", "tsv", "jsonl", "json", "parquet", "xlsx", "txt", "gz", "task"]
    right = kind if kind != "random" and draw(st.integers(0, 3)) else draw(st.sampled_from(endings))
    return right, data


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "good.csv").write_text(GOOD)
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    assert code("fit", folder / "good.csv", "--out", folder / "good.task") == 0
    yield folder
    patch.undo()


def code(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def commands(file: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    return {
        "fit": ("fit", file, "--out", folder / "new.task"),
        "fit with a label": ("fit", file, "--label", "a", "--out", folder / "new.task"),
        "predict": ("predict", folder / "good.task", file),
        "predict as json": ("predict", folder / "good.task", file, "--label", "label", "--json"),
        "advise": ("advise", file, "--episodes", 5),
        "check": ("check", file),
        "show": ("show", file, "--out", folder / "page.html"),
    }


def assert_in_our_words(said: str, name: str, exit_code: int, what: object) -> None:
    assert exit_code in (0, 1, 2, 3), what
    assert "Traceback" not in said, what
    assert "fault of Quickstudy" not in said, (what, said[-400:])
    if exit_code in (1, 2):
        assert name in said or "column" in said or "label" in said, (what, said[-400:])
    assert max(map(len, said.splitlines()), default=0) < 3000, what


@pytest.mark.parametrize("command", ["fit", "fit with a label", "predict", "predict as json"])
@given(file=hostile())
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_generated_files(command, file, work, capsys):
    ending, data = file
    path = work / f"given.{ending}"
    path.write_bytes(data)
    found = code(*commands(path, work)[command])
    out = capsys.readouterr()
    assert_in_our_words(out.err + (out.out if found == 1 else ""), path.name, found, data[:300])


PICTURE = b"\x89PNG\r\n\x1a\n"
WRITTEN: dict[str, bytes] = {
    "twice.csv": b"text,label,note,note\nhello,a,1,2\nbye,b,3,4\n",
    "lists.jsonl": b'{"text":"hi","label":["a","b"]}\n{"text":"yo","label":["b"]}\n',
    "fractions.jsonl": b'{"a":1.0,"b":2.0,"label":0.5}\n{"a":2.0,"b":1.0,"label":1.0}\n',
    "dates.jsonl": b'{"a":1.0,"label":"2024-01-01"}\n{"a":2.0,"label":"2024-02-01"}\n',
    "mixed.jsonl": b'{"a":1,"label":1}\n{"a":2,"label":"1"}\n{"a":3,"label":true}\n',
    "records.jsonl": b'{"a":{"b":1},"label":"x"}\n{"a":{"b":2},"label":"y"}\n',
    "one.csv": b"label\nx\ny\n",
    "header.csv": b"a,b,label\n",
    "ragged.csv": b"a,b,label\n1,2,x\n1,2\n",
    "quote.csv": b'a,b,label\n1,"2,x\n2,3,y\n',
    "nothing.csv": b"",
    "bom.csv": b"\xef\xbb\xbf",
    "zeros.csv": b"\x00" * 50,
    "gzip.csv": b"\x1f\x8b\x08\x00\x00",
    "picture.csv": PICTURE,
    "broken.parquet": b"PAR1\x00\x00PAR1",
    "broken.xlsx": b"PK\x03\x04",
    "latin.csv": "größe;label\n1,5;ä\n2,5;ö\n1,6;ä\n2,6;ö\n".encode("latin-1"),
    "caf\udce9.csv": b"a,label\n1,x\n2,y\n",
    "deep.json": b"[" * 5_000,
}


def write_hostile_folder(folder: Path) -> None:
    for name, data in WRITTEN.items():
        (folder / name).write_bytes(data)
    (folder / "folder.csv").mkdir()
    os.mkfifo(folder / "pipe.csv")
    (folder / "circle.csv").symlink_to("circle.csv")
    (folder / "closed.csv").write_text(GOOD)
    (folder / "closed.csv").chmod(0)


@pytest.mark.parametrize("command", ["fit", "predict as json", "advise", "check", "show"])
def test_written_files(command, work, tmp_path, capsys):
    write_hostile_folder(tmp_path)
    for path in [*sorted(tmp_path.iterdir()), tmp_path / "none.csv", Path("/dev/zero")]:
        found = code(*commands(path, work)[command])
        out = capsys.readouterr()
        name = path.name.encode("utf-8", "ignore").decode()[:3]
        assert_in_our_words(out.err, name, found, path.name)
