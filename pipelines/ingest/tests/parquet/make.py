"""Makes the files of this folder, each table once as CSV and in several ways as Parquet, by writers that are not ours.

    pip install pyarrow==26.0.1 polars==2.1.0 duckdb==2.0.0
    python3 make.py

The trades and the capture are of the samples that ship (samples/README.md has their source and licence).
"""

import csv
import decimal
import gzip
import itertools
import json
import pathlib
from datetime import date, datetime, timezone

import duckdb
import polars
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
SAMPLES = HERE / "../../../../samples"
CAPTURE = SAMPLES / "binance/usdm_btcusdt_20240808.gz"
ROWS = 300


def capture_lines():
    with gzip.open(CAPTURE, "rt") as lines:
        for line in lines:
            received, message = line.rstrip("\n").split(" ", 1)
            yield int(received), message


def trades():
    rows = []
    for received, message in capture_lines():
        data = json.loads(message).get("data", {})
        if data.get("e") != "trade" or data["p"] == "0":
            continue
        rows.append((data["T"], received, data["t"], data["p"], data["q"], data["m"]))
        if len(rows) == ROWS:
            return rows


def trade_table(rows, time_unit, price_type):
    price = {
        "decimal": lambda text: decimal.Decimal(text),
        "double": float,
        "text": str,
    }[price_type]
    types = {"decimal": pa.decimal128(18, 8), "double": pa.float64(), "text": pa.string()}
    per_ms = {"ms": 1, "us": 1_000, "ns": 1_000_000}[time_unit]
    columns = {
        "time": pa.array([t * per_ms for t, *_ in rows], pa.timestamp(time_unit, tz="UTC")),
        "received_time": pa.array([received for _, received, *_ in rows], pa.timestamp("ns", tz="UTC")),
        "trade_id": pa.array([i for _, _, i, *_ in rows], pa.int64()),
        "price": pa.array([price(p) for *_, p, _, _ in rows], types[price_type]),
        "quantity": pa.array([price(q) for *_, q, _ in rows], types[price_type]),
        # Every seventh trade does not say whose order took liquidity.
        "side": pa.array(
            [None if n % 7 == 0 else "sell" if row[5] else "buy" for n, row in enumerate(rows)], pa.string()
        ),
    }
    return pa.table(columns)


def write_trades():
    rows = trades()
    with open(HERE / "trades.csv", "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["time", "received_time", "trade_id", "price", "quantity", "side"])
        for n, (time, received, trade_id, price, quantity, is_sell) in enumerate(rows):
            side = "" if n % 7 == 0 else "sell" if is_sell else "buy"
            writer.writerow([time, received, trade_id, price, quantity, side])

    def write(name, table, **options):
        pq.write_table(table, HERE / f"trades_{name}.parquet", **options)

    write("decimal_us_snappy", trade_table(rows, "us", "decimal"), compression="snappy", row_group_size=64)
    write(
        "double_ns_gzip_v2",
        trade_table(rows, "ns", "double"),
        compression="gzip",
        data_page_version="2.0",
        data_page_size=512,
        write_page_checksum=True,
    )
    write("text_ms_zstd", trade_table(rows, "ms", "text"), compression="zstd", use_dictionary=False)
    write(
        "decimal_as_int_lz4",
        trade_table(rows, "us", "decimal"),
        compression="lz4",
        store_decimal_as_integer=True,
        version="2.6",
    )
    write(
        "double_int96_plain",
        trade_table(rows, "ns", "double"),
        compression="none",
        use_deprecated_int96_timestamps=True,
    )
    # Delta encodings, a group's worth of nulls in a column of its own, and a column of lists.
    nested = trade_table(rows, "us", "decimal")
    nested = nested.append_column("levels", pa.array([[n, n + 1] for n in range(len(rows))], pa.list_(pa.int32())))
    nested = nested.append_column("note", pa.nulls(len(rows), pa.string()))
    nested = nested.append_column("payload", pa.array([b"\xff\xfe"] * len(rows), pa.binary()))
    encodings = {"time": "DELTA_BINARY_PACKED", "trade_id": "DELTA_BINARY_PACKED", "side": "DELTA_BYTE_ARRAY"}
    write("nested_delta", nested, use_dictionary=False, column_encoding=encodings)
    write("brotli", trade_table(rows, "us", "decimal").slice(0, 5), compression="brotli")

    frame = polars.from_arrow(trade_table(rows, "us", "double"))
    frame.write_parquet(HERE / "trades_polars.parquet", compression="zstd", row_group_size=100)
    duckdb.from_arrow(trade_table(rows, "us", "decimal")).write_parquet(str(HERE / "trades_duckdb.parquet"))


def write_bars():
    """Bars of a second of the trades."""
    bars = {}
    for time, _, _, price, quantity, is_sell in trades():
        price, quantity = decimal.Decimal(price), decimal.Decimal(quantity)
        bars.setdefault(time // 1_000 * 1_000, []).append((price, quantity, is_sell))
    rows = []
    for start, of_bar in sorted(bars.items()):
        prices = [price for price, *_ in of_bar]
        rows.append(
            {
                "window_start": start,
                "interval_ms": 1_000,
                "open": prices[0],
                "high": max(prices),
                "low": min(prices),
                "close": prices[-1],
                "volume": sum(quantity for _, quantity, _ in of_bar),
                "buy_volume": sum((quantity for _, quantity, is_sell in of_bar if not is_sell), decimal.Decimal(0)),
                "trade_count": len(of_bar),
            }
        )
    with open(HERE / "bars.csv", "w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    arrays = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name == "window_start":
            # Without a time zone, as many tables have them.
            naive = [datetime.fromtimestamp(ms / 1_000, timezone.utc).replace(tzinfo=None) for ms in values]
            arrays[name] = pa.array(naive, pa.timestamp("ms"))
        elif isinstance(values[0], decimal.Decimal):
            arrays[name] = pa.array(values, pa.decimal128(38, 10))
        else:
            arrays[name] = pa.array(values, pa.uint32() if name == "trade_count" else pa.int64())
    pq.write_table(pa.table(arrays), HERE / "bars.parquet")


def write_news():
    table = pyarrow.csv.read_csv(
        SAMPLES / "news/crypto_news_20220704.csv",
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
    )
    assert table.schema.field("published_at").type == pa.timestamp("s", tz="UTC"), table.schema
    pq.write_table(table, HERE / "news.parquet", compression="zstd")


def write_capture():
    lines = [line for _, line in zip(range(400), capture_lines())]
    lines = [line for line in lines if len(line[1]) < 1_000][:ROWS]
    # One line that is none, so that something is rejected.
    lines.insert(100, (lines[99][0], '{"e":"trade",\n"s":'))
    table = pa.table(
        {
            "received_time": pa.array([received for received, _ in lines], pa.timestamp("ns", tz="UTC")),
            "message": pa.array([message for _, message in lines], pa.large_string()),
        }
    )
    pq.write_table(table, HERE / "capture.parquet", compression="zstd")
    with open(HERE / "capture.txt", "w") as out:
        out.writelines(f"{received} {message}\n".replace(",\n", ", ", 1) for received, message in lines)


def write_odd_ones():
    rows = trades()[:20]
    # A table that has the columns of a capture too.
    both = trade_table(rows, "us", "decimal").append_column("message", pa.array(['{"a": 1}'] * len(rows)))
    pq.write_table(both, HERE / "odd_trades_with_message.parquet")
    lines = list(itertools.islice((line for line in capture_lines() if len(line[1]) < 1_000), 3))
    # Times as text, to the microsecond, and a row that holds nothing.
    received = []
    for nanos, _ in lines:
        second = datetime.fromtimestamp(nanos // 10**9, timezone.utc)
        received.append(f"{second:%Y-%m-%dT%H:%M:%S}.{nanos % 10**9 // 1000:06}Z")
    messages = [message for _, message in lines]
    table = pa.table({"received_time": [*received, None], "message": [*messages, None], "Note": ["x"] * 4})
    pq.write_table(table, HERE / "odd_capture_with_text_times.parquet")
    pq.write_table(pa.table({"a": [[1], [2]], "b": [{"c": 1}, {"c": 2}]}), HERE / "odd_nested_alone.parquet")
    pq.write_table(trade_table([], "us", "decimal"), HERE / "odd_no_rows.parquet")
    described = {
        "instrument": ["BTC-29NOV24.DERIBIT", "OLD.X"],
        "asset_class": ["FUTURE", "SPOT"],
        "base": ["BTC", "OLD"],
        "quote": ["USD", "USD"],
        "settle": ["BTC", "USD"],
        "contract_multiplier": [decimal.Decimal("10"), decimal.Decimal("1")],
        "inverse": [True, False],
        "tick_size": [decimal.Decimal("2.5"), decimal.Decimal("0.01")],
        "lot_size": [decimal.Decimal("1"), decimal.Decimal("1")],
        "expiry": pa.array([date(2024, 11, 29), None], pa.date32()),
        "valid_from": pa.array([datetime(2024, 1, 2, 3), datetime(1971, 1, 1)], pa.timestamp("us")),
        "valid_to": pa.array([datetime(9999, 12, 31), None], pa.timestamp("us")),
    }
    pq.write_table(pa.table(described), HERE / "instruments.parquet")
    with open(HERE / "instruments.csv", "w") as out:
        out.write(",".join(described) + "\n")
        out.write("BTC-29NOV24.DERIBIT,FUTURE,BTC,USD,BTC,10,true,2.5,1,2024-11-29,2024-01-02T03:00:00Z,9999-12-31T00:00:00Z\n")
        out.write("OLD.X,SPOT,OLD,USD,USD,1,false,0.01,1,,1971-01-01T00:00:00Z,\n")


write_trades()
write_odd_ones()
write_bars()
write_news()
write_capture()
