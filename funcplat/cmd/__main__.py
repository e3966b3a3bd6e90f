"""``python -m funcplat.cmd``: the command line without its script."""

from funcplat.cmd import main

main.main()
