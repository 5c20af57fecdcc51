package tidewire.peer;

import java.util.TreeMap;

/** EMA(1), EMA(20) and RSI(14) of the closes of one instrument, and the crossing rule over them. */
public final class Rule {
    static final int SLOW = 20;
    static final int RSI = 14;
    static final double HYSTERESIS_BPS = 1.0;
    static final double FULL_STRENGTH_BPS = 20.0;
    static final double RSI_LOW = 50.0;
    static final double RSI_HIGH = 100.0;
    static final long HORIZON_MS = 86_400_000;
    private static final double NO_MOVEMENT = 1e-14;

    int slowCount;
    double slow;
    int changes;
    boolean begun;
    double before;
    double gain;
    double loss;
    /** 0 flat, 1 long, 2 short. */
    int direction;
    long signals;

    /** Takes the next close; the signal that follows from it, or null. */
    Signal next(String node, String strategy, Bar bar) {
        double close = Decimals.toDouble(bar.close());
        Double average = nextSlow(close);
        Double strength = nextRsi(close);
        if (average == null || strength == null || average <= 0) {
            return null;
        }
        double edgeBps = (close / average - 1.0) * 10_000.0;
        int wanted = wanted(edgeBps, strength);
        if (wanted == direction) {
            return null;
        }
        direction = wanted;
        boolean isShort = wanted == 2;
        double sureness = 1.0;
        double full = 0.0;
        if (wanted != 0) {
            full = clamp((isShort ? -edgeBps : edgeBps) / FULL_STRENGTH_BPS);
            double rsi = isShort ? 100.0 - strength : strength;
            sureness = (0.0 + clamp(full) + clamp((rsi - RSI_LOW) / (RSI_HIGH - RSI_LOW))) / 2.0;
        }
        TreeMap<String, Double> values = new TreeMap<>();
        values.put("close", close);
        values.put("ema_20", average);
        values.put("rsi_14", strength);
        values.put("edge_bps", edgeBps);
        String id = node + ":" + bar.instrument() + ":" + signals++;
        return new Signal(id, bar.instrument(), strategy, wanted, full, sureness, bar.endUs(), HORIZON_MS, values);
    }

    private int wanted(double edgeBps, double rsi) {
        if (fits(1, edgeBps, rsi)) {
            return 1;
        }
        return fits(2, -edgeBps, 100.0 - rsi) ? 2 : 0;
    }

    private boolean fits(int wanted, double edgeBps, double rsi) {
        boolean enough = direction == wanted ? edgeBps > 0.0 : edgeBps >= HYSTERESIS_BPS;
        return enough && rsi >= RSI_LOW && rsi <= RSI_HIGH;
    }

    private Double nextSlow(double x) {
        if (slowCount < SLOW) {
            slow += x;
            slowCount++;
            if (slowCount < SLOW) {
                return null;
            }
            slow /= SLOW;
        } else {
            slow += (x - slow) * (2.0 / (SLOW + 1));
        }
        return slow;
    }

    private Double nextRsi(double x) {
        double change = x - before;
        before = x;
        if (!begun) {
            begun = true;
            return null;
        }
        boolean warm = changes == RSI;
        if (warm) {
            gain *= RSI - 1.0;
            loss *= RSI - 1.0;
        }
        if (change < 0.0) {
            loss -= change;
        } else {
            gain += change;
        }
        if (!warm) {
            changes++;
            if (changes < RSI) {
                return null;
            }
        }
        gain *= 1.0 / RSI;
        loss *= 1.0 / RSI;
        double both = gain + loss;
        return both < NO_MOVEMENT ? 0.0 : 100.0 * (gain / both);
    }

    private static double clamp(double x) {
        return Math.max(0.0, Math.min(1.0, x));
    }
}
