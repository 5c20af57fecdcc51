package tidewire.peer;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.util.Map;
import java.util.function.BiConsumer;
import java.util.function.Function;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/** How states and outputs are written. States are plain fields; outputs are Avro in the Confluent wire format. */
final class Serdes {
    private static final int MOST_BYTES = 512;
    private static final int TIME_BAR = 1;

    private Serdes() {
    }

    static Serde<Window> window() {
        return serde((window, to) -> {
            to.putLong(window.firstUs).putLong(window.lastUs).putLong(window.tradeCount);
            Decimals.put(to, window.open);
            Decimals.put(to, window.high);
            Decimals.put(to, window.low);
            Decimals.put(to, window.close);
            Decimals.put(to, window.volume);
            Decimals.put(to, window.buyVolume);
            Decimals.put(to, window.notional);
        }, from -> {
            Window window = new Window();
            window.firstUs = from.getLong();
            window.lastUs = from.getLong();
            window.tradeCount = from.getLong();
            window.open = Decimals.get(from);
            window.high = Decimals.get(from);
            window.low = Decimals.get(from);
            window.close = Decimals.get(from);
            window.volume = Decimals.get(from);
            window.buyVolume = Decimals.get(from);
            window.notional = Decimals.get(from);
            return window;
        });
    }

    static Serde<Rule> rule() {
        return serde((rule, to) -> to.putInt(rule.slowCount).putDouble(rule.slow).putInt(rule.changes)
                .put((byte) (rule.begun ? 1 : 0)).putDouble(rule.before).putDouble(rule.gain).putDouble(rule.loss)
                .putInt(rule.direction).putLong(rule.signals), from -> {
            Rule rule = new Rule();
            rule.slowCount = from.getInt();
            rule.slow = from.getDouble();
            rule.changes = from.getInt();
            rule.begun = from.get() != 0;
            rule.before = from.getDouble();
            rule.gain = from.getDouble();
            rule.loss = from.getDouble();
            rule.direction = from.getInt();
            rule.signals = from.getLong();
            return rule;
        });
    }

    static Serde<Bar> bar(int schemaId) {
        return output(schemaId, (bar, to) -> {
            to.writeString(bar.instrument());
            to.writeLong(bar.endUs());
            to.writeEnum(TIME_BAR);
            to.writeLong(bar.startUs());
            to.writeLong(bar.endUs());
            to.writeLong(bar.intervalMs());
            to.writeBytes(bar.open().unscaledValue().toByteArray());
            to.writeBytes(bar.high().unscaledValue().toByteArray());
            to.writeBytes(bar.low().unscaledValue().toByteArray());
            to.writeBytes(bar.close().unscaledValue().toByteArray());
            to.writeBytes(bar.volume().unscaledValue().toByteArray());
            to.writeBytes(bar.buyVolume().unscaledValue().toByteArray());
            to.writeBytes(bar.notional().unscaledValue().toByteArray());
            to.writeBytes(bar.vwap().unscaledValue().toByteArray());
            to.writeLong(bar.tradeCount());
            to.writeInt(0);
            to.writeBoolean(true);
        });
    }

    static Serde<Signal> signal(int schemaId) {
        return output(schemaId, (signal, to) -> {
            to.writeString(signal.id());
            to.writeString(signal.instrument());
            to.writeString(signal.strategy());
            to.writeEnum(signal.direction());
            to.writeDouble(signal.strength());
            to.writeDouble(signal.confidence());
            to.writeLong(signal.eventTimeUs());
            to.writeLong(signal.horizonMs());
            to.writeLong(signal.eventTimeUs() + signal.horizonMs() * 1_000);
            to.writeMapStart();
            to.setItemCount(signal.values().size());
            for (Map.Entry<String, Double> value : signal.values().entrySet()) {
                to.startItem();
                to.writeString(value.getKey());
                to.writeDouble(value.getValue());
            }
            to.writeMapEnd();
        });
    }

    private static <T> Serde<T> serde(BiConsumer<T, ByteBuffer> write, Function<ByteBuffer, T> read) {
        return org.apache.kafka.common.serialization.Serdes.serdeFrom((topic, value) -> {
            if (value == null) {
                return null;
            }
            ByteBuffer to = ByteBuffer.allocate(MOST_BYTES);
            write.accept(value, to);
            byte[] bytes = new byte[to.position()];
            to.flip().get(bytes);
            return bytes;
        }, (topic, bytes) -> bytes == null ? null : read.apply(ByteBuffer.wrap(bytes)));
    }

    private interface Write<T> {
        void write(T value, BinaryEncoder to) throws IOException;
    }

    private static <T> Serde<T> output(int schemaId, Write<T> write) {
        Serializer<T> serializer = new Serializer<>() {
            private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(MOST_BYTES);
            private BinaryEncoder encoder;

            @Override
            public byte[] serialize(String topic, T value) {
                try {
                    bytes.reset();
                    bytes.write(ByteBuffer.allocate(5).put((byte) 0).putInt(schemaId).array());
                    encoder = EncoderFactory.get().directBinaryEncoder(bytes, encoder);
                    write.write(value, encoder);
                    encoder.flush();
                    return bytes.toByteArray();
                } catch (IOException error) {
                    throw new UncheckedIOException(error);
                }
            }
        };
        Deserializer<T> deserializer = (topic, bytes) -> {
            throw new SerializationException("outputs are only written");
        };
        return org.apache.kafka.common.serialization.Serdes.serdeFrom(serializer, deserializer);
    }
}
