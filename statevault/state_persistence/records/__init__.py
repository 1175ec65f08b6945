"""The records of a store: the states that they tell of, the saves under way, and when what they say is old."""
