"""Greets: the smallest useful function."""


def main(name: str = "World") -> str:
    print(f"greeting {name}")  # goes to the execution's log
    return f"Hello, {name}!"
