"""Tree files: nested Python values, arrays and tensors as one structure and aligned raw segments.

``docs/format-tree.md`` is the specification. :mod:`.layout` holds the bytes around the values, :mod:`.encode`
and :mod:`.decode` the two directions, :mod:`.file` the functions that work on paths.
"""
