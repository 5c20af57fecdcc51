package tidewire.peer;

import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.Stores;

/**
 * Trades to bars of 1 s and 1 min, to EMA(20) and RSI(14) of their closes, to signals where the close crosses its average.
 *
 * <p>Arguments: a file of properties; what it lacks are Kafka Streams' defaults. Besides Kafka Streams' own it has
 * {@code ticks}, {@code bars} and {@code signals}, the topics, and {@code bar.schema.id} and {@code signal.schema.id}, the
 * ids to write in front of records. Runs until SIGTERM.
 */
public final class Main {
    private Main() {
    }

    /** See the class. */
    public static void main(String[] arguments) throws IOException, InterruptedException {
        if (arguments.length != 1) {
            System.err.println("usage: java -cp 'peer.jar:lib/*' tidewire.peer.Main FILE.properties");
            System.exit(2);
        }
        Properties properties = new Properties();
        try (InputStream in = new FileInputStream(arguments[0])) {
            properties.load(in);
        }
        KafkaStreams streams = new KafkaStreams(topology(properties), properties);
        CountDownLatch done = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            System.err.println(before + " -> " + now);
            if (now == KafkaStreams.State.ERROR) {
                done.countDown();
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            boolean closed = streams.close(Duration.ofSeconds(20));
            // An end by SIGTERM that went well is none of the errors that a virtual machine makes of it.
            Runtime.getRuntime().halt(closed ? 0 : 1);
        }));
        streams.start();
        done.await();
    }

    private static Topology topology(Properties properties) {
        StreamsBuilder builder = new StreamsBuilder();
        KGroupedStream<String, Trade> trades = builder
                .stream(properties.getProperty("ticks"), Consumed.with(stringSerde(), new TradeSerde()))
                .filter((instrument, trade) -> trade.market())
                .groupByKey(Grouped.with(stringSerde(), new TradeSerde()));
        bars(builder, trades, properties, "1s", Duration.ofSeconds(1));
        bars(builder, trades, properties, "1m", Duration.ofMinutes(1));
        return builder.build(properties);
    }

    private static void bars(StreamsBuilder builder, KGroupedStream<String, Trade> trades, Properties properties,
            String name, Duration length) {
        int barId = Integer.parseInt(properties.getProperty("bar.schema.id"));
        int signalId = Integer.parseInt(properties.getProperty("signal.schema.id"));
        String store = "rules-" + name;
        KStream<String, Bar> bars = trades
                .windowedBy(TimeWindows.ofSizeWithNoGrace(length))
                .emitStrategy(EmitStrategy.onWindowClose())
                .aggregate(Window::new, (instrument, trade, window) -> window.add(trade),
                        Materialized.with(stringSerde(), Serdes.window()))
                .toStream()
                .map((key, window) -> KeyValue.pair(key.key(),
                        window.bar(key.key(), key.window().start(), length.toMillis())));
        bars.to(properties.getProperty("bars"), Produced.with(stringSerde(), Serdes.bar(barId)));
        boolean inMemory = properties.getProperty(StreamsConfig.DSL_STORE_SUPPLIERS_CLASS_CONFIG, "").contains("InMemory");
        builder.addStateStore(Stores
                .keyValueStoreBuilder(
                        inMemory ? Stores.inMemoryKeyValueStore(store) : Stores.persistentKeyValueStore(store),
                        stringSerde(), Serdes.rule())
                .withCachingEnabled());
        bars.process(() -> new RuleProcessor("rule_" + name, "cross_" + name, store), store)
                .to(properties.getProperty("signals"), Produced.with(stringSerde(), Serdes.signal(signalId)));
    }

    private static org.apache.kafka.common.serialization.Serde<String> stringSerde() {
        return org.apache.kafka.common.serialization.Serdes.String();
    }
}
