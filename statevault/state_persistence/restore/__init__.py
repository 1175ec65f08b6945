"""From a committed state, or a plain folder, back into components: read, verified, chosen, loaded."""
