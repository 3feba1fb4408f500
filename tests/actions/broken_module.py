"""A module that cannot be imported."""

raise RuntimeError("it broke while it was imported")
