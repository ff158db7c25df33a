"""``quickstudy data list|get|check``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.cli.help import CommandGroup
from quickstudy.cli.output import emit
from quickstudy.cli.protocol import AsJson
from quickstudy.core import DataError

if TYPE_CHECKING:
    from quickstudy.tasks.datasets import DatasetStatus

__all__ = ["data_app"]

data_app = typer.Typer(
    help="Data sets: which there are, where they come from, whether they are complete.",
    cls=CommandGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _document(status: DatasetStatus) -> dict[str, Any]:
    """Return what is known of a data set as JSON-ready values."""
    from quickstudy.tasks.catalogue import DATASETS

    info = DATASETS[status.name]
    return {
        "name": status.name,
        "title": info.title,
        "state": status.state,
        "path": None if status.path is None else str(status.path),
        "message": status.message,
        "licence": info.licence,
        "source": info.source,
        "splits": list(info.split_files),
        "checksums": [asdict(file) for file in info.remote],
    }


@data_app.command("list")
def list_command(
    as_json: AsJson = False,
) -> None:
    """List the data sets: found or missing, licence and source.

    Example: quickstudy data list
    """
    from quickstudy.tasks.catalogue import DATASETS
    from quickstudy.tasks.datasets import dataset_status

    documents = [_document(dataset_status(name)) for name in DATASETS]
    width = max(len(name) for name in DATASETS)
    lines = [
        f"{d['name']:<{width}}  {d['state']:<12}  {d['title']}\n"
        f"{'':<{width}}  {'':<12}  {d['licence']}; {d['source']}"
        for d in documents
    ]
    emit({"command": "data list", "data": documents}, as_json=as_json, text="\n".join(lines))


@data_app.command("get")
def get_command(
    name: Annotated[str, typer.Argument(help="Name of a data set.")],
    as_json: AsJson = False,
) -> None:
    """Find a data set, or download it into the cache with its checksum verified.

    Example: quickstudy data get omniglot
    """
    from quickstudy.tasks.datasets import get_dataset

    status = get_dataset(name)
    emit(
        {"command": "data get", **_document(status)},
        as_json=as_json,
        text=f"{name}: {status.state}. {status.message}",
    )


@data_app.command("check")
def check_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of data sets; by default all that are found."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read data sets again and verify their checksums.

    Example: quickstudy data check omniglot
    """
    from quickstudy.tasks.catalogue import DATASETS
    from quickstudy.tasks.datasets import dataset_status

    chosen = names or [n for n in DATASETS if dataset_status(n).state == "found"]
    checked = [_checked(name) for name in chosen]
    lines = [f"{d['name']}: {d['message']}" for d in checked]
    if not chosen:
        lines = ["no data set was found, so there is nothing to check; see 'quickstudy data list'."]
    emit({"command": "data check", "data": checked}, as_json=as_json, text="\n".join(lines))
    if any(d["state"] == "damaged" for d in checked):
        raise typer.Exit(1)


def _checked(name: str) -> dict[str, Any]:
    """Return the document of a data set after reading it again."""
    from quickstudy.tasks.datasets import check_dataset, dataset_status

    try:
        return _document(check_dataset(name))
    except DataError as error:
        return _document(dataset_status(name)) | {"state": "damaged", "message": str(error)}
