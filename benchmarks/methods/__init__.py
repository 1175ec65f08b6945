"""Ways to keep a state, ours and the peers', behind one interface. A module for each; it imports what it needs."""
