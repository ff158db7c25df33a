"""Tables as users have them: formats, columns, rows by line, and what a cell means."""

from quickstudy.tables.read import Table, read_table

__all__ = ["Table", "read_table"]
