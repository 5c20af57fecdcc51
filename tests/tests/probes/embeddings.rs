//! (f) A window of 10,000 embeddings: one that joins must not cause the others to be written again.

use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, ListState, Operator, OperatorType, Settings,
};
use tidewire_engine::driver::{StageBuilder, TestDriver};
use tidewire_engine::plan::Role;
use tidewire_schemas::{FeatureValue, Kind, NewsItem, Record};

use super::{ms, values};

const WINDOW: usize = 10_000;
const DIMENSIONS: usize = 64;
const BYTES: u64 = DIMENSIONS as u64 * 4;

/// Distance of each headline from the nearest of the last [`WINDOW`].
struct Novelty;

impl Configured for Novelty {
    const NAME: &'static str = "novelty";
    const ABOUT: &'static str = "How unlike all recent headlines one is";
    type Settings = Settings;

    fn new(_: Settings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Operator for Novelty {
    type State = ListState<Vec<f32>>;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface { accepts: vec![Kind::NewsItem], emits: vec![Kind::FeatureValue], ..Interface::default() }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        window: &mut Self::State,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::NewsItem(news) = input.record else { return Ok(()) };
        let embedding = embed(&news.title);
        let nearest = window.iter().map(|other| dot(other, &embedding)).fold(0.0_f32, f32::max);
        window.push_back(embedding);
        while window.len() > WINDOW {
            window.pop_front();
        }
        let (instrument, name) = (input.key.clone(), "novelty".into());
        let value = f64::from(1.0 - nearest);
        cx.emit(FeatureValue { instrument, event_time: news.event_time, name, value });
        Ok(())
    }
}

/// Counts words by a hash of them, to length 1.
fn embed(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0_f32; DIMENSIONS];
    for word in text.split_whitespace() {
        let hash = word
            .bytes()
            .fold(14_695_981_039_346_656_037_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(1_099_511_628_211));
        vector[usize::try_from(hash >> 32).unwrap() % DIMENSIONS] += 1.0;
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter().map(|x| x / length).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn news(number: usize) -> NewsItem {
    NewsItem {
        event_time: ms(i64::try_from(number).unwrap()),
        title: format!("headline {number} about {} and {}", number * 7 % 1_013, number % 11).into(),
        ..NewsItem::default()
    }
}

#[test]
fn a_long_window_is_written_entry_by_entry() {
    let stage = StageBuilder::new("novelty")
        .input("news", Role::Driving, 1)
        .node("novelty", OperatorType::of::<Novelty>(), "", &["news"])
        .output("out", 1, &["novelty"], &[])
        .with(|spec| {
            spec.flush_interval_ms = 1;
            spec.caps.max_records = WINDOW;
            spec.caps.max_bytes = 64 << 20;
        })
        .build();
    let mut driver = TestDriver::new(stage);
    for number in 0..WINDOW {
        driver.append("news", "BTC", i64::try_from(number).unwrap(), news(number));
    }
    driver.clock(10);
    driver.run();
    let filled = driver.last_step().state_bytes;
    assert!(filled > WINDOW as u64 * BYTES, "{filled}");
    // One more, then ten: each flush writes what joined, and marks what left.
    for (more, number) in [(1, WINDOW), (10, WINDOW + 1)] {
        for number in number..number + more {
            driver.append("news", "BTC", i64::try_from(number).unwrap(), news(number));
        }
        driver.clock(10);
        driver.run();
        let written = driver.last_step().state_bytes;
        let bound = more as u64 * (BYTES + 400) + 2_000;
        assert!(written > more as u64 * BYTES && written < bound, "{written} bytes for {more} entries");
    }
    // The window survives a crash whole: a headline of the newest is no novelty, one that has left is.
    driver.crash();
    driver.run();
    let at = i64::try_from(WINDOW + 50).unwrap();
    let again = NewsItem { event_time: ms(at), ..news(WINDOW + 5) };
    driver.append("news", "BTC", at, again);
    let got = values(&driver.run());
    assert!(got[0].3 < 1e-6, "{got:?}");
}
