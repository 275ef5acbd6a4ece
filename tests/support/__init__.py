"""Parts that tests share: real ones, which they make and remove, and attackers of these."""
