"""From a snapshot to a committed state: what is uploaded of it, in which objects, and the steps of a save."""
