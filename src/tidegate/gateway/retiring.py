"""Connections that nobody is sent over any more, and that are closed when nothing is under way over them."""

import asyncio
from typing import Final

from tidegate.http.client import Pool

# How often it is looked whether what was taken out has answered all that it was asked.
RETIRE_S: Final = 0.25


async def retire(pool: Pool) -> None:
    """Close it once nothing is under way; the time-outs of what is see to that. Cancelled, it is closed at once."""
    try:
        # What waits for the ledger is sent within this time, too.
        await asyncio.sleep(RETIRE_S)
        while pool.busy:  # noqa: ASYNC110 - an event would cost every request that ends, for the sake of a reload
            await asyncio.sleep(RETIRE_S)
    finally:
        await pool.close()
