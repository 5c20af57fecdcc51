package tidewire.peer;

import java.io.IOException;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/**
 * Trades in the Confluent wire format, field by field with Avro's own decoder: less work than generated classes. The
 * schema is that of the workload, so its id is passed over.
 */
final class TradeSerde implements Serde<Trade> {
    private static final int PREFIX = 5;
    private static final int BUYER = 1;

    @Override
    public Serializer<Trade> serializer() {
        return (topic, trade) -> {
            throw new SerializationException("trades are only read");
        };
    }

    @Override
    public Deserializer<Trade> deserializer() {
        return new Reader();
    }

    private static final class Reader implements Deserializer<Trade> {
        private BinaryDecoder decoder;
        private ByteBuffer units = ByteBuffer.allocate(16);

        @Override
        public Trade deserialize(String topic, byte[] data) {
            try {
                decoder = DecoderFactory.get().binaryDecoder(data, PREFIX, data.length - PREFIX, decoder);
                decoder.skipString(); // The instrument is the key.
                long eventTimeUs = decoder.readLong();
                decoder.readLong();
                decoder.readLong();
                BigDecimal price = decimal();
                BigDecimal quantity = decimal();
                boolean buyer = decoder.readEnum() == BUYER;
                return new Trade(eventTimeUs, price, quantity, buyer, decoder.readBoolean());
            } catch (IOException error) {
                throw new SerializationException("no trade", error);
            }
        }

        private BigDecimal decimal() throws IOException {
            units = decoder.readBytes(units);
            return Decimals.read(units.array(), units.limit());
        }
    }
}
