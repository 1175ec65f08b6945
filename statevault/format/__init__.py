"""What lies in a store, as pure data: names, keys, records, manifests and chunk arithmetic.

No I/O and no objects of Python's: ``docs/format.md`` as code.
"""
