"""Example drivers for funcplat, complete and small: read them to write your own."""
