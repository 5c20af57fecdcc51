"""Makes talib_vectors.csv: indicator values of TA-Lib over real one-second closes.

    pip install TA-Lib numpy
    python make_talib_vectors.py CAPTURE.gz > talib_vectors.csv

CAPTURE is a raw Binance capture, lines of `<receive time> <websocket JSON>`, such as
`usdm_btcusdt_20240808.gz` (github.com/nkaz001/hftbacktest, examples/usdm, MIT). The close of a second is the price
of its last trade by trade time; seconds without a trade are left out. A value that TA-Lib does not define is empty.
"""

import gzip
import json
import sys

import numpy
import talib

closes = {}
with gzip.open(sys.argv[1], "rt") as lines:
    for line in lines:
        message = json.loads(line.split(" ", 1)[1])
        trade = message.get("data", {})
        if trade.get("e") == "trade" and trade.get("X", "MARKET") == "MARKET":
            closes[trade["T"] // 1000] = trade["p"]

text = [closes[second] for second in sorted(closes)]
prices = numpy.array([float(price) for price in text])
columns = {
    "ema_2": talib.EMA(prices, 2),
    "ema_12": talib.EMA(prices, 12),
    "ema_60": talib.EMA(prices, 60),
    "rsi_2": talib.RSI(prices, 2),
    "rsi_14": talib.RSI(prices, 14),
    "rsi_50": talib.RSI(prices, 50),
}
print(f"# TA-Lib {talib.__version__} over C library {talib.__ta_version__.decode()}")
print(",".join(["close", *columns]))
for row, price in enumerate(text):
    values = [repr(float(column[row])) for column in columns.values()]
    print(",".join([price, *("" if value == "nan" else value for value in values)]))
