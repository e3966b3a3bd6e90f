"""Add the numbers that are given as arguments; what is no number is an error."""

import sys


def main(arguments):
    try:
        total = sum(float(argument) for argument in arguments)
    except ValueError as error:
        sys.exit(f"total: {error}")
    print(f"the total is {total:g}")


main(sys.argv[1:])
