"""What tests share: real parts, which they make and remove, and attackers of these parts."""
