"""Runs several waits at once: a coroutine function is awaited by the platform."""

import asyncio
import time


async def main(seconds: list[float]) -> dict[str, float]:
    started = time.perf_counter()
    await asyncio.gather(*(_wait(number, pause) for number, pause in enumerate(seconds)))
    return {"waited": round(time.perf_counter() - started, 3), "in_turn": round(sum(seconds), 3)}


async def _wait(number: int, pause: float) -> None:
    await asyncio.sleep(pause)
    print(f"{number} is done after {pause} s", flush=True)
