"""What tests share: real parts, made and removed, and those who attack them."""
