package tidewire.peer;

import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Takes bars, gives signals. */
final class RuleProcessor extends ContextualProcessor<String, Bar, String, Signal> {
    private final String node;
    private final String strategy;
    private final String store;
    private KeyValueStore<String, Rule> rules;

    RuleProcessor(String node, String strategy, String store) {
        this.node = node;
        this.strategy = strategy;
        this.store = store;
    }

    @Override
    public void init(ProcessorContext<String, Signal> context) {
        super.init(context);
        rules = context.getStateStore(store);
    }

    @Override
    public void process(Record<String, Bar> record) {
        Rule rule = rules.get(record.key());
        if (rule == null) {
            rule = new Rule();
        }
        Signal signal = rule.next(node, strategy, record.value());
        rules.put(record.key(), rule);
        if (signal != null) {
            context().forward(record.withValue(signal));
        }
    }
}
