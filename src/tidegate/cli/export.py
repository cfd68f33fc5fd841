"""One row a request, in files that other programs read: Parquet and CSV."""

import csv
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tidegate import clock
from tidegate.core.rows import Row

# Rows in memory at once, and in one group of a Parquet file: some MB, and enough of them to compress and to skip.
GROUP_ROWS = 20_000
# With one of these a spreadsheet takes a text for a formula, unless an apostrophe stands before it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Column(NamedTuple):
    """One column: its name with the unit, the row's field, what kind of value it has, and what that means."""

    name: str
    field: str
    kind: str
    means: str


COLUMNS = (
    Column("id", "id", "text", "the request, as `tidegate explain` takes it (`x-tidegate-decision` of its answer)"),
    Column("arrived_at", "arrived_s", "time", "when it arrived, UTC, in microseconds"),
    Column("class", "klass", "text", "its class"),
    Column("model", "model", "text", "the model that it asked for"),
    Column("key", "key", "text", "the id of the client's key, empty without one"),
    Column("prompt_tokens", "prompt_tokens", "count", "tokens of the prompt, as the engine told, else as estimated"),
    Column("cached_tokens", "cached_tokens", "count", "of these, cached by the engine"),
    Column("output_tokens", "output_tokens", "count", "tokens of the output, of what had come of it"),
    Column("endpoint", "endpoint", "text", "who answered, else who was asked last, empty where nobody was"),
    Column("site", "site", "text", "its site"),
    Column("local", "local", "flag", "whether who answered is local; null where nobody did"),
    Column("why", "why", "text", "the reason of its last decision: [reasons](reasons.md)"),
    Column("outcome", "outcome", "text", "what came of it, see below"),
    Column("ttft_s", "ttft_s", "number", "seconds from its arrival to the first content"),
    Column("tpot_s", "tpot_s", "number", "seconds per token after the first, of whole answers"),
    Column("e2e_s", "e2e_s", "number", "seconds from its arrival to its end"),
    Column("sent_s", "sent_s", "number", "seconds from its arrival to the sending of the attempt at `endpoint`"),
    Column("predicted_ttft_s", "predicted_ttft_s", "number", "`ttft_s` as predicted when the attempt was sent: median"),
    Column("predicted_ttft_s_high", "predicted_ttft_s_high", "number", "the same: the quantile of `policy.quantile`"),
    Column("slo_ttft_s", "slo_ttft_s", "number", "the promise on `ttft_s`"),
    Column("slo_tpot_s", "slo_tpot_s", "number", "the promise on `tpot_s`"),
    Column("slo_e2e_s", "slo_e2e_s", "number", "the promise on `e2e_s`"),
    Column("kept", "kept", "flag", "whether all of the promise was kept; null without one, or where nobody can say"),
    Column("usd", "usd", "number", "dollars that all of its attempts cost"),
    Column("paid_usd", "paid_usd", "number", "of these, paid to others; the rest is running our own"),
    Column(
        "remote_usd",
        "remote_usd",
        "number",
        "a whole answer at the cheapest remote that may ever serve it: its tokens by the list, or, at the one that "
        "gave it, what it cost",
    ),
    Column("attempts", "attempts", "count", "attempts that were sent"),
    Column("hedged", "hedged", "flag", "whether one was started beside another"),
    Column("held_s", "held_s", "number", "seconds that it was held in the gateway"),
    Column(
        "handover", "handover", "text", "by which its prompt's KV cache came, or was to: `source>target`, else empty"
    ),
    Column(
        "handover_s", "handover_s", "number", "seconds that took, once the prompt was computed; null: it did not come"
    ),
)


def write_csv(file: Path, rows: Iterable[Row]) -> int:
    """With the names of the columns first; how many rows. Raises OSError."""
    count = 0
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow([column.name for column in COLUMNS])
        for row in rows:
            writer.writerow([_text(column, getattr(row, column.field)) for column in COLUMNS])
            count += 1
    return count


def write_parquet(file: Path, rows: Iterable[Row]) -> int:
    """What each column means stands in its metadata; how many rows. Raises OSError, and ModuleNotFoundError without
    the extra `parquet`."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    types = {
        "text": pyarrow.string(),
        "count": pyarrow.int64(),
        "number": pyarrow.float64(),
        "flag": pyarrow.bool_(),
        "time": pyarrow.timestamp("us", tz="UTC"),
    }
    schema = pyarrow.schema(
        [pyarrow.field(column.name, types[column.kind], metadata={"means": column.means}) for column in COLUMNS]
    )
    count, rest = 0, iter(rows)
    with ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(rest, GROUP_ROWS)):
            columns = [
                pyarrow.array([_value(column, getattr(row, column.field)) for row in group], types[column.kind])
                for column in COLUMNS
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            count += len(group)
    return count


def _value(column: Column, value: object) -> object:
    if column.kind == "time":
        assert isinstance(value, float)
        return round(value * 1e6)
    return str(value) if column.kind == "text" and value is not None else value


def _text(column: Column, value: object) -> str:
    if value is None:
        return ""
    if column.kind == "time":
        assert isinstance(value, float)
        return clock.utc(value).isoformat(timespec="microseconds")
    text = str(value).lower() if column.kind == "flag" else str(value)
    return f"'{text}" if column.kind == "text" and text.startswith(_FORMULA) else text
