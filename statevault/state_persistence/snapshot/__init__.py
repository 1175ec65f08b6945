"""The cut: what the components wrote at one instant, held until it is published, and where files are staged."""
