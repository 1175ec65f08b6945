"""The bytes of one file, as chunks: where they come from, their digests, and how they are encoded."""
