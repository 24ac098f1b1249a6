"""The sources: each module holds a function of its own name, `(config, root) -> RawData`, which is the source.

A module added here is known by its name (see `vision/names.py`), except those that begin with an underscore. A source
looks at what lies under `root`, and raises a DataError that says all that is absent or wrong; it downloads and decodes
nothing.
"""
