#!/usr/bin/env python3
"""Makes the sample from the whole public feeds: `extract.py FEEDS` where FEEDS/binance and FEEDS/news are.

Each capture is cut after the same time of receipt; its lines are kept as they are. The captures begin with their
order-book snapshot's deltas, so that a book can be built from the first seconds on. The news file is copied.
The output is the same on every run: no time and no name is in the gzip headers.
"""

import gzip
import pathlib
import shutil
import sys

# 2024-08-08T23:55:50Z by the recorder's clock: 94 to 96 s of each capture.
UNTIL_NS = 1_723_161_350_000_000_000
CAPTURES = ["usdm_btcusdt", "usdm_ethusdt", "spot_btcusdt", "cm_btcusd_perp"]
NEWS = "crypto_news_20220704.csv"


def main(feeds: pathlib.Path, here: pathlib.Path) -> None:
    total = 0
    for name in CAPTURES:
        with gzip.open(feeds / "binance" / f"{name}_20240808.gz", "rb") as whole:
            lines = [line for line in whole if int(line.split(b" ", 1)[0]) < UNTIL_NS]
        target = here / "binance" / f"{name}_20240808.gz"
        with open(target, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
            packed.writelines(lines)
        total += target.stat().st_size
        print(f"{target.name}: {len(lines)} lines, {target.stat().st_size} bytes")
    shutil.copyfile(feeds / "news" / NEWS, here / "news" / NEWS)
    print(f"{total} bytes of captures")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: extract.py FEEDS    (the folder with binance/ and news/)")
    main(pathlib.Path(sys.argv[1]), pathlib.Path(__file__).resolve().parent)
