"""What the five notebooks share: how much work they do, what they found, and the report."""
