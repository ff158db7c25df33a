"""Bytes on disk: files written whole or not at all, tensors, where data lies, downloads."""
