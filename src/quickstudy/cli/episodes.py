"""``quickstudy episodes write|verify``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.cli.help import CommandGroup
from quickstudy.cli.output import emit, say, writable
from quickstudy.cli.protocol import (
    AsJson,
    Data,
    Episodes,
    Groups,
    KShot,
    NQuery,
    Rotations,
    Seed,
    read_number,
)
from quickstudy.core import ConfigError, ProtocolError
from quickstudy.storage.outputs import is_episode_list

if TYPE_CHECKING:
    from quickstudy.tasks import Pool

__all__ = ["episodes_app"]

episodes_app = typer.Typer(
    help="Lists of episodes as files, so that others can score the same tasks.",
    cls=CommandGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_FOLDER_SIZE = 84  # side in pixels of images of a folder


@episodes_app.command("write")
def write_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("episodes.npz"),
    n_way: Annotated[
        str, typer.Option("--n-way", help="Classes per task: 5, or a range: 5-20.")
    ] = "5",
    k_shot: KShot = "1",
    n_query: NQuery = 15,
    episodes: Episodes = 600,
    seed: Seed = 0,
    split: Annotated[str, typer.Option(help="Split of a named data set.")] = "test",
    split_file: Annotated[
        str | None,
        typer.Option(
            "--split-file", help="Which published division into splits; first by default."
        ),
    ] = None,
    rotations: Rotations = False,
    groups: Groups = False,
    as_json: AsJson = False,
) -> None:
    """Draw episodes and write them to a file, with a hash of every image that they use.

    Example: quickstudy episodes write --data omniglot --n-way 20 --out omniglot-20w1s.npz
    """
    from quickstudy.core import EpisodeSpec
    from quickstudy.tasks import PoolSource
    from quickstudy.tasks.published import draw_episodes

    writable(out, "--out", inputs=[data], ours=is_episode_list)
    pool, about = _pool(data, split, split_file, rotations)
    spec = EpisodeSpec(read_number(n_way, "--n-way"), read_number(k_shot, "--k-shot"), n_query)
    listed = draw_episodes(
        PoolSource(pool, groups), spec, episodes=episodes, seed=seed, about=about
    )
    listed.write(out)
    document = {
        "command": "episodes write",
        "file": str(out),
        "sha256": listed.sha256,
        "data": listed.data,
        "split": listed.split,
        "spec": str(spec),
        "episodes": len(listed),
        "seed": seed,
        "images": len(listed.rows),
    }
    lines = [
        f"{out}: {len(listed)} {spec} episodes of {listed.data} ({listed.split}), seed {seed}",
        f"{len(listed.rows):,} images are named, sha256 {listed.sha256}",
        f"next: quickstudy evaluate RUN --data {shlex.quote(data)} --tasks {shlex.quote(str(out))}",
    ]
    emit(document, as_json=as_json, text="\n".join(lines))


@episodes_app.command("verify")
def verify_command(
    file: Annotated[Path, typer.Argument(help="A file that 'episodes write' wrote.")],
    data: Annotated[
        str | None,
        typer.Option(help="Your copy of the data; by default the data set that the file names."),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Check only the list, not the data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a list of episodes: is it complete and valid, is the data here the same?

    The exit status is 1 if anything is wrong.

    Example: quickstudy episodes verify omniglot-20w1s.npz
    """
    from quickstudy.tasks.published import read_episodes

    listed = read_episodes(file)
    pool = None
    if not alone:
        pool, _ = _pool(
            data or listed.about.get("data", listed.data),
            listed.split,
            listed.about.get("split_file"),
            bool(listed.about.get("rotations")),
        )
    faults = listed.faults(pool)
    document: dict[str, Any] = {
        "command": "episodes verify",
        "file": str(file),
        "sha256": listed.sha256,
        "data": listed.data,
        "data_checked": pool is not None,
        "faults": faults,
    }
    what = f"{len(listed)} {listed.spec} episodes of {listed.data} ({listed.split})"
    if not faults:
        checked = f", {len(listed.rows):,} images are the same" if pool is not None else ""
        emit(document, as_json=as_json, text=f"{file}: {what}: sound{checked}")
        return
    if as_json:
        emit(document, as_json=True, text="")
        raise typer.Exit(1)
    raise ProtocolError(f"{file}: {what}: " + "; ".join(faults[:5]) + ".")


def _pool(
    data: str, split: str, split_file: str | None, rotations: bool
) -> tuple[Pool, dict[str, Any]]:
    """Return the data in its own size, and facts about how it was prepared."""
    from quickstudy.tasks.datasets import load_pool
    from quickstudy.tasks.folders import is_folder, pool_from_folder

    if not data:
        raise ConfigError("--data is empty; name a data set or a folder of class folders.")
    if is_folder(data):
        pool = pool_from_folder(Path(data), size=_FOLDER_SIZE, channels=3, say=say)
    else:
        pool = load_pool(data, split=split, split_file=split_file)
    if rotations:
        pool = pool.with_rotations()
    about = {"split_file": split_file, "rotations": rotations, "shape": list(pool.x.shape[1:])}
    return pool, about if not Path(data).is_dir() else {**about, "data": data}
