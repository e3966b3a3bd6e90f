"""Sums up a list of orders by customer: JSON in, JSON out."""

from typing import Any


def main(orders: list[dict[str, Any]], currency: str = "EUR") -> dict[str, Any]:
    """``orders``: objects with ``customer``, ``price`` and, where it is not 1, ``quantity``."""
    totals: dict[str, float] = {}
    for order in orders:
        amount = order["price"] * order.get("quantity", 1)
        totals[order["customer"]] = totals.get(order["customer"], 0.0) + amount
    print(f"{len(orders)} orders of {len(totals)} customers")
    ranking = sorted(totals.items(), key=lambda total: total[1], reverse=True)
    return {
        "currency": currency,
        "customers": [{"customer": name, "total": round(total, 2)} for name, total in ranking],
    }
