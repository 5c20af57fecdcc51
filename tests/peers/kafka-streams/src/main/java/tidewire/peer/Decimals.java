package tidewire.peer;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;

/** Numbers with 12 places, as Avro's decimal has them: two's complement, big end first. */
final class Decimals {
    static final int SCALE = 12;
    static final BigDecimal ZERO = BigDecimal.valueOf(0, SCALE);
    private static final double UNITS_PER_ONE = 1e12;
    private static final long EXACT = 1L << 53;
    private static final long UNITS = 1_000_000_000_000L;

    private Decimals() {
    }

    static BigDecimal read(byte[] bytes, int length) {
        if (length <= Long.BYTES) {
            long value = length > 0 && bytes[0] < 0 ? -1 : 0;
            for (int place = 0; place < length; place++) {
                value = value << 8 | bytes[place] & 0xff;
            }
            return BigDecimal.valueOf(value, SCALE);
        }
        return new BigDecimal(new BigInteger(bytes, 0, length), SCALE);
    }

    static void put(ByteBuffer to, BigDecimal value) {
        byte[] bytes = value.unscaledValue().toByteArray();
        to.put((byte) bytes.length).put(bytes);
    }

    static BigDecimal get(ByteBuffer from) {
        byte[] bytes = new byte[from.get()];
        from.get(bytes);
        return read(bytes, bytes.length);
    }

    /** The nearest double: whole and fraction apart where the units are too many for one. */
    static double toDouble(BigDecimal value) {
        BigInteger units = value.unscaledValue();
        if (units.bitLength() <= 53 && Math.abs(units.longValue()) <= EXACT) {
            return units.longValue() / UNITS_PER_ONE;
        }
        BigInteger[] parts = units.divideAndRemainder(BigInteger.valueOf(UNITS));
        return parts[0].doubleValue() + parts[1].doubleValue() / UNITS_PER_ONE;
    }
}
