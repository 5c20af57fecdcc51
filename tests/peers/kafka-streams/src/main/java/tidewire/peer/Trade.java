package tidewire.peer;

import java.math.BigDecimal;

/** What the workload uses of a trade. Prices and quantities have 12 places. */
public record Trade(long eventTimeUs, BigDecimal price, BigDecimal quantity, boolean buyer, boolean market) {
}
