"""Advice on a labelled set: approaches on the same quick episodes, and what to expect of them."""
