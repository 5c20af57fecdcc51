package tidewire.peer;

import java.math.BigDecimal;
import java.math.RoundingMode;

/** A window so far. Not shared: the store holds bytes. */
public final class Window {
    long firstUs;
    long lastUs;
    BigDecimal open;
    BigDecimal high;
    BigDecimal low;
    BigDecimal close;
    BigDecimal volume = Decimals.ZERO;
    BigDecimal buyVolume = Decimals.ZERO;
    BigDecimal notional = Decimals.ZERO;
    long tradeCount;

    /** Takes a trade: open and close go by event time, then arrival. */
    Window add(Trade trade) {
        BigDecimal price = trade.price();
        if (tradeCount == 0) {
            firstUs = lastUs = trade.eventTimeUs();
            open = high = low = close = price;
        }
        if (trade.eventTimeUs() < firstUs) {
            firstUs = trade.eventTimeUs();
            open = price;
        }
        if (trade.eventTimeUs() >= lastUs) {
            lastUs = trade.eventTimeUs();
            close = price;
        }
        high = high.max(price);
        low = low.min(price);
        volume = volume.add(trade.quantity());
        if (trade.buyer()) {
            buyVolume = buyVolume.add(trade.quantity());
        }
        notional = notional.add(price.multiply(trade.quantity()).setScale(Decimals.SCALE, RoundingMode.HALF_EVEN));
        tradeCount++;
        return this;
    }

    Bar bar(String instrument, long startMs, long intervalMs) {
        BigDecimal vwap = notional.divide(volume, Decimals.SCALE, RoundingMode.HALF_EVEN);
        return new Bar(instrument, startMs * 1_000, intervalMs, open, high, low, close, volume, buyVolume, notional,
                vwap, tradeCount);
    }
}
