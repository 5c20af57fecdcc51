package tidewire.peer;

import java.math.BigDecimal;

/** A closed window of one instrument. */
public record Bar(
        String instrument,
        long startUs,
        long intervalMs,
        BigDecimal open,
        BigDecimal high,
        BigDecimal low,
        BigDecimal close,
        BigDecimal volume,
        BigDecimal buyVolume,
        BigDecimal notional,
        BigDecimal vwap,
        long tradeCount) {

    /** The end of the window, exclusive. */
    public long endUs() {
        return startUs + intervalMs * 1_000;
    }
}
