package tidewire.peer;

import java.util.SortedMap;

/** A crossing. */
public record Signal(
        String id,
        String instrument,
        String strategy,
        int direction,
        double strength,
        double confidence,
        long eventTimeUs,
        long horizonMs,
        SortedMap<String, Double> values) {
}
