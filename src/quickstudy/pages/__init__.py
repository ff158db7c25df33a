"""What HTML pages share: the style sheet, charts and pictures, a table."""

from quickstudy.pages.document import document
from quickstudy.pages.pictures import (
    bar_chart,
    embedding_map,
    image_uri,
    line_chart,
    map_legend,
    png_uri,
)
from quickstudy.pages.table import table

__all__ = [
    "bar_chart",
    "document",
    "embedding_map",
    "image_uri",
    "line_chart",
    "map_legend",
    "png_uri",
    "table",
]
