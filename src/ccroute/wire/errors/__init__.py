"""The errors of all three wires and of the servers that imitate them."""
