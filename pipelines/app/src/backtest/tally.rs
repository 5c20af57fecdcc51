//! What a setting came to, counted as its records are made, so that they need not be kept.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;
use tidewire_engine::log::{Log, NewRecord, TopicPartition};
use tidewire_schemas::{
    Amount, DecimalError, ExecutionReport, Instrument, Position, Price, Quantity, Record, SchemaBook, topics,
};

/// Instruments by id.
pub type Instruments = BTreeMap<SmolStr, Instrument>;

/// Money of a setting in one currency, over all accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Money {
    /// Fills.
    pub fills: u64,
    /// Value of all fills.
    pub turnover: Amount,
    /// Paid to the venue.
    pub fees: Amount,
    /// Profit and loss of what was closed, without fees.
    pub realised: Amount,
    /// Profit and loss of what is open, at the last marks.
    pub unrealised: Amount,
    /// Greatest fall of `pnl` from a height before it.
    pub max_drawdown: Amount,
    peak: Amount,
}

impl Money {
    /// Realised and unrealised, less fees.
    pub fn pnl(&self) -> Amount {
        let sum = self.realised.checked_add(self.unrealised).and_then(|sum| sum.checked_sub(self.fees));
        sum.unwrap_or_default()
    }
}

/// Counts of a setting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Signals.
    pub signals: u64,
    /// Orders, each once.
    pub orders: u64,
    /// Fills.
    pub fills: u64,
    /// Intents that risk refused.
    pub refusals: u64,
    /// Output records, journals and changelogs not counted.
    pub outputs: u64,
    /// Money by currency.
    pub money: BTreeMap<SmolStr, Money>,
    order_ids: BTreeSet<SmolStr>,
    positions: BTreeMap<(SmolStr, SmolStr), Position>,
    digest: Digest,
}

impl Tally {
    /// Takes what a round wrote.
    ///
    /// # Errors
    /// When a sum is beyond the range of money, or a record can not be read.
    pub fn take(
        &mut self,
        written: &[(TopicPartition, Vec<NewRecord>)],
        book: &SchemaBook,
        instruments: &Instruments,
    ) -> anyhow::Result<()> {
        let mut positions: Vec<Position> = Vec::new();
        for (at, records) in written.iter().filter(|(at, _)| is_output(&at.topic)) {
            self.outputs += records.len() as u64;
            for record in records {
                self.digest.take(at, record);
                let counts = matches!(
                    at.topic.as_str(),
                    topics::SIGNALS
                        | topics::ORDERS
                        | topics::EXECUTIONS
                        | topics::RISK_DECISIONS
                        | topics::POSITIONS
                );
                let Some(value) = record.value.as_deref().filter(|_| counts) else { continue };
                match book.decode(value)? {
                    Record::Signal(_) => self.signals += 1,
                    Record::Order(order) => {
                        self.orders += u64::from(self.order_ids.insert(order.order_id.clone()));
                    }
                    Record::RiskDecision(decision) => self.refusals += u64::from(!decision.approved),
                    Record::ExecutionReport(report) if report.exec_type.name() == "TRADE" => {
                        self.fills += 1;
                        self.traded(&report, instruments)?;
                    }
                    Record::Position(position) => positions.push(*position),
                    _ => {}
                }
            }
        }
        self.moved(positions)?;
        Ok(())
    }

    fn traded(&mut self, report: &ExecutionReport, instruments: &Instruments) -> Result<(), DecimalError> {
        let Some(instrument) = instruments.get(&report.instrument) else { return Ok(()) };
        let value = value_of(instrument, report.last_price, report.last_quantity)?;
        let money = self.money.entry(instrument.settle.clone()).or_default();
        money.fills += 1;
        money.turnover = money.turnover.checked_add(value)?;
        Ok(())
    }

    /// Positions come by partition; profit and loss goes by time.
    fn moved(&mut self, mut positions: Vec<Position>) -> Result<(), DecimalError> {
        positions.sort_by_key(|position| position.event_time);
        for of_one_time in positions.chunk_by(|one, other| one.event_time == other.event_time) {
            for position in of_one_time {
                let money = self.money.entry(position.currency.clone()).or_default();
                let key = (position.account.clone(), position.instrument.clone());
                let before = self.positions.insert(key, position.clone()).unwrap_or_default();
                let change = |sum: &mut Amount, now: Amount, then: Amount| -> Result<(), DecimalError> {
                    *sum = sum.checked_add(now)?.checked_sub(then)?;
                    Ok(())
                };
                change(&mut money.realised, position.realised_pnl, before.realised_pnl)?;
                change(&mut money.unrealised, position.unrealised_pnl, before.unrealised_pnl)?;
                change(&mut money.fees, position.fees, before.fees)?;
            }
            for money in self.money.values_mut() {
                let pnl = money.pnl();
                money.peak = money.peak.max(pnl);
                money.max_drawdown = money.max_drawdown.max(money.peak.checked_sub(pnl)?);
            }
        }
        Ok(())
    }

    /// Digest of all output records.
    pub fn digest(&self) -> blake3::Hash {
        self.digest.finish()
    }
}

/// What a fill is worth in the currency that the instrument settles in.
fn value_of(instrument: &Instrument, price: Price, quantity: Quantity) -> Result<Amount, DecimalError> {
    let of_one = if instrument.inverse {
        if price.is_zero() {
            return Ok(Amount::ZERO);
        }
        // Contracts of so much of the quote currency, paid in the other one.
        let amount = Amount::from_units(quantity.units())?.checked_scale(instrument.contract_multiplier)?;
        return Ok(Amount::from_units(amount.checked_div_price(price)?.units())?.abs());
    } else {
        price.checked_mul(quantity)?
    };
    Ok(of_one.checked_scale(instrument.contract_multiplier)?.abs())
}

/// Whether a topic is one of results: not a journal, a changelog or a note.
pub fn is_output(topic: &str) -> bool {
    !topic.ends_with(".epochs") && !topic.ends_with(".changelog") && !topic.starts_with('_')
}

/// BLAKE3 over all records of each partition in their order: timestamps, keys, values and headers. It does not depend
/// on how the records came in rounds.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    partitions: BTreeMap<TopicPartition, (u64, blake3::Hasher)>,
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.finish() == other.finish()
    }
}

impl Eq for Digest {}

impl Digest {
    /// Takes the next record of a partition.
    pub fn take(&mut self, at: &TopicPartition, record: &NewRecord) {
        if !self.partitions.contains_key(at) {
            self.partitions.insert(at.clone(), Default::default());
        }
        let Some((count, hasher)) = self.partitions.get_mut(at) else { return };
        *count += 1;
        hasher.update(&record.timestamp_ms.to_le_bytes());
        // Lengths keep apart what would else run together; what is absent is not what is empty.
        let mut part = |bytes: Option<&[u8]>| {
            hasher.update(&bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
            hasher.update(bytes.unwrap_or_default());
        };
        part(record.key.as_deref());
        part(record.value.as_deref());
        for (name, value) in &record.headers {
            part(Some(name.as_bytes()));
            part(Some(value));
        }
        hasher.update(&(record.headers.len() as u64).to_le_bytes());
    }

    /// The digest of all that was taken.
    pub fn finish(&self) -> blake3::Hash {
        let mut all = blake3::Hasher::new();
        for (at, (count, hasher)) in &self.partitions {
            all.update(&(at.topic.len() as u64).to_le_bytes()).update(at.topic.as_bytes());
            all.update(&at.partition.to_le_bytes()).update(&count.to_le_bytes());
            all.update(hasher.finalize().as_bytes());
        }
        all.finalize()
    }

    /// The digest of what lies in these topics of a log.
    ///
    /// # Errors
    /// When the log fails.
    pub fn of_log(log: &dyn Log, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Self> {
        let mut digest = Self::default();
        for topic in log.topics()?.into_iter().filter(|topic| wanted(&topic.name)) {
            for partition in 0..topic.partitions {
                let at = TopicPartition::new(topic.name.clone(), partition);
                let bounds = log.bounds(&at)?;
                let mut from = bounds.start;
                while from < bounds.stable_end {
                    let fetched = log.read(&at, from, 1 << 20)?;
                    fetched.records.iter().for_each(|stored| digest.take(&at, &stored.record));
                    if fetched.next_offset <= from {
                        break;
                    }
                    from = fetched.next_offset;
                }
            }
        }
        Ok(digest)
    }
}

/// Reads the instruments of a log; of each the version that came last.
///
/// # Errors
/// When the log fails.
pub fn instruments(log: &dyn Log, book: &SchemaBook) -> anyhow::Result<Instruments> {
    let mut all = Instruments::new();
    let Some(topic) = log.topic(topics::INSTRUMENTS)? else { return Ok(all) };
    for partition in 0..topic.partitions {
        let at = TopicPartition::new(topics::INSTRUMENTS, partition);
        let bounds = log.bounds(&at)?;
        let mut from = bounds.start;
        while from < bounds.stable_end {
            let fetched = log.read(&at, from, 1 << 20)?;
            for value in fetched.records.iter().filter_map(|stored| stored.record.value.as_deref()) {
                if let Ok(Record::Instrument(instrument)) = book.decode(value) {
                    all.insert(instrument.instrument.clone(), *instrument);
                }
            }
            if fetched.next_offset <= from {
                break;
            }
            from = fetched.next_offset;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use bytes::Bytes;
    use tidewire_schemas::EventTime;

    fn position(account: &str, at_ms: i64, realised: &str, fees: &str) -> Position {
        Position {
            account: account.into(),
            instrument: "X".into(),
            currency: "USDT".into(),
            realised_pnl: realised.parse().unwrap(),
            fees: fees.parse().unwrap(),
            event_time: EventTime::from_ms(at_ms),
            ..Position::default()
        }
    }

    #[test]
    fn drawdown_goes_by_time_over_all_accounts_and_fees_count() {
        let mut tally = Tally::default();
        // By partition: `b` loses at the second at which `a` gains, and only then falls further.
        let a = [position("a", 1_000, "10", "0"), position("a", 2_000, "20", "1")];
        let b = [position("b", 1_000, "-4", "0"), position("b", 3_000, "-30", "2")];
        tally.moved(a.into_iter().chain(b).collect()).unwrap();
        let money = &tally.money["USDT"];
        assert_eq!(money.pnl().to_string(), "-13");
        // Up to 20 - 1 - 4 = 15, down to -13.
        assert_eq!(money.max_drawdown.to_string(), "28");
        assert_eq!((money.realised.to_string(), money.fees.to_string()), ("-10".to_owned(), "3".to_owned()));
    }

    #[test]
    fn a_fill_is_worth_its_price_or_of_inverse_contracts_its_share() {
        let linear = Instrument { contract_multiplier: "2".parse().unwrap(), ..Instrument::default() };
        let inverse =
            Instrument { contract_multiplier: "100".parse().unwrap(), inverse: true, ..linear.clone() };
        let worth =
            |instrument| value_of(instrument, "50000".parse().unwrap(), "5".parse().unwrap()).unwrap();
        assert_eq!(worth(&linear).to_string(), "500000");
        assert_eq!(worth(&inverse).to_string(), "0.01");
    }

    #[test]
    fn the_digest_sees_every_part_and_not_the_rounds() {
        let record = |key: &'static str, value: &'static str| NewRecord {
            timestamp_ms: 7,
            key: Some(Bytes::from_static(key.as_bytes())),
            value: Some(Bytes::from_static(value.as_bytes())),
            headers: vec![("h".into(), Bytes::from_static(b"1"))],
        };
        let (p0, p1) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let of = |records: &[(&TopicPartition, NewRecord)]| {
            let mut digest = Digest::default();
            records.iter().for_each(|(at, record)| digest.take(at, record));
            digest.finish()
        };
        let base = of(&[(&p0, record("a", "b")), (&p1, record("c", "d"))]);
        assert_eq!(base, of(&[(&p1, record("c", "d")), (&p0, record("a", "b"))]));
        assert_ne!(base, of(&[(&p0, record("ab", "")), (&p1, record("c", "d"))]));
        assert_ne!(base, of(&[(&p0, record("a", "b")), (&p0, record("c", "d"))]));
        let later = NewRecord { timestamp_ms: 8, ..record("a", "b") };
        assert_ne!(base, of(&[(&p0, later), (&p1, record("c", "d"))]));
        let plain = NewRecord { headers: Vec::new(), ..record("a", "b") };
        assert_ne!(base, of(&[(&p0, plain), (&p1, record("c", "d"))]));
    }
}
