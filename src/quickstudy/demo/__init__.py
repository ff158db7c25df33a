"""The demonstration: meta-train for two minutes, score on unseen classes, write a page."""

from quickstudy.demo.data import DemoData, find_data
from quickstudy.demo.run import DemoResult, run_demo

__all__ = ["DemoData", "DemoResult", "find_data", "run_demo"]
