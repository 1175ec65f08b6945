"""What takes states away and keeps others from it: removal, collection, pins, and what states share."""
