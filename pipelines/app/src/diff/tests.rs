//! Whole comparisons of runs on logs in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use serde_json::Value;
use smol_str::SmolStr;
use tidewire_engine::identity::RECEIVED_HEADER;
use tidewire_engine::log::{Log, NewRecord, TopicPartition};
use tidewire_engine::memory::MemoryLog;
use tidewire_runtime::synchronised::{self, SyncOptions};
use tidewire_schemas::{Aggressor, EventTime, Record, SchemaBook, Trade, topics};

use super::report::{Report, compare};
use super::run::Run;
use super::{Request, page, show};
use crate::files::load_text;
use crate::start::{note_pipeline, prepare};

const FILE: &str = r#"
[pipeline]
name = "small"
partitions = 1

[[stage]]
name = "features"

[[stage.input]]
id = "ticks"
topic = "market.ticks.v1"
role = "driving"

[[stage.operator]]
id = "bars"
type = "time_bars"
from = ["ticks"]
interval_ms = 1_000
allowed_lateness_ms = 2_000

[[stage.operator]]
id = "average"
type = "ema"
from = ["bars"]
period = 3
name = "average"

[[stage.operator]]
id = "vector"
type = "as_of"
from = ["average"]
features = ["average"]
trigger = "average"

[[stage.operator]]
id = "jump"
type = "price_jump"
from = ["ticks"]
window_ms = 5_000
threshold_bps = 500.0

[[stage.output]]
topic = "features.bars.v1"
from = ["bars"]

[[stage.output]]
topic = "features.values.v1"
from = ["vector"]

[[stage.output]]
topic = "alerts.v1"
from = ["jump"]
"#;

/// 2024-08-09T00:00:00Z.
const BEGIN_MS: i64 = 1_723_161_600_000;

/// A trade: instrument, milliseconds from the beginning, price.
#[derive(Clone, Debug)]
struct Tick(&'static str, i64, String);

/// Trades of two instruments, four a second each.
fn ticks() -> Vec<Tick> {
    let of = |number: i64| {
        let instrument = if number % 2 == 0 { "A.V" } else { "B.V" };
        Tick(instrument, number * 125, format!("{}", 100 + number * 7 % 13))
    };
    (0..160).map(of).collect()
}

fn run(name: &str, file: &str, ticks: &[Tick]) -> Run {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let book = Arc::new(SchemaBook::of_this_build());
    let loaded = load_text("small.toml".into(), file.into(), Vec::new()).unwrap();
    prepare(&*log, &book, &loaded.pipeline).unwrap();
    let records = ticks.iter().map(|Tick(instrument, ms, price)| {
        let time = EventTime::from_ms(BEGIN_MS + ms);
        let trade = Trade {
            instrument: (*instrument).into(),
            event_time: time,
            received_time: tidewire_schemas::ReceivedTime::from_nanos(time.as_micros() * 1_000),
            trade_id: *ms,
            price: price.parse().unwrap(),
            quantity: "1".parse().unwrap(),
            aggressor: Aggressor::Buyer,
            market: true,
        };
        let mut value = Vec::new();
        book.encode(&Record::from(trade), &mut value).unwrap();
        let received = Bytes::from((time.as_micros() * 1_000).to_string());
        NewRecord {
            timestamp_ms: time.as_ms(),
            key: Some(Bytes::copy_from_slice(instrument.as_bytes())),
            value: Some(value.into()),
            headers: vec![(SmolStr::new_static(RECEIVED_HEADER), received)],
        }
    });
    log.append(&TopicPartition::new(topics::TICKS, 0), records.collect()).unwrap();
    note_pipeline(&*log, &loaded, true).unwrap();
    let stop = AtomicBool::new(false);
    synchronised::run(&log, &book, &loaded.pipeline.stages, &SyncOptions::default(), &stop, |_| {}).unwrap();
    Run::of(name, "memory", log, book).unwrap()
}

fn request() -> Request {
    Request { limit: 1_000, ..Request::default() }
}

fn diff(a: &Run, b: &Run, request: &Request) -> Report {
    compare(a, b, request, &mut |_, _| {}).unwrap()
}

/// Kinds of causes of all differences, each once.
fn kinds(report: &Report) -> Vec<&'static str> {
    let mut kinds: Vec<&str> = report.causes.iter().map(|first| first.cause.kind()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn topics_that_differ(report: &Report) -> Vec<&str> {
    let differing = report.topics.iter().filter(|topic| topic.total.differences() > 0);
    differing.map(|topic| topic.topic.as_str()).collect()
}

/// Every difference is counted once, in its topic and under its first cause.
fn check_sums(report: &Report) {
    let all = report.total().differences();
    assert_eq!(report.causes.iter().map(|first| first.direct + first.following).sum::<u64>(), all);
    assert_eq!(report.topics.iter().flat_map(|topic| topic.causes.values()).sum::<u64>(), all);
    assert_eq!(report.shown.len() as u64, all);
}

#[test]
fn a_run_is_as_itself_and_as_another_of_the_same() {
    let (one, other) = (run("one", FILE, &ticks()), run("other", FILE, &ticks()));
    for (a, b) in [(&one, &one), (&one, &other)] {
        let report = diff(a, b, &Request { timestamps: true, ..request() });
        assert!(report.is_same() && report.causes.is_empty() && report.shown.is_empty());
        assert!(report.total().same > 50, "{:?}", report.total());
        assert!(report.topics.iter().any(|topic| topic.topic == topics::FEATURES));
    }
}

#[test]
fn a_changed_setting_explains_what_it_feeds_and_nothing_else() {
    let a = run("a", FILE, &ticks());
    let b = run("b", &FILE.replacen("period = 3", "period = 4", 1), &ticks());
    let report = diff(&a, &b, &request());
    check_sums(&report);
    assert_eq!(topics_that_differ(&report), [topics::FEATURES]);
    assert_eq!(report.causes.len(), 1);
    assert_eq!(
        report.causes[0].cause.to_string(),
        "changed setting: stage features, operator average, period: 3 -> 4"
    );
    // The first value of each instrument comes a bar later.
    let missing = report.topics.iter().map(|topic| topic.total.missing).sum::<u64>();
    assert_eq!((missing, report.total().extra), (2, 0));
    let back = diff(&b, &a, &request());
    assert_eq!((back.total().missing, back.total().extra), (0, 2));
    assert_eq!(back.total().changed, report.total().changed);
}

#[test]
fn an_altered_input_is_found_and_what_follows_from_it() {
    let mut altered = ticks();
    altered[46].2 = "90".to_owned();
    let (a, b) = (run("a", FILE, &ticks()), run("b", FILE, &altered));
    let report = diff(&a, &b, &request());
    check_sums(&report);
    assert_eq!(kinds(&report), ["changed input"]);
    assert_eq!(report.causes.len(), 1);
    let text = report.causes[0].cause.to_string();
    assert!(text.contains("market.ticks.v1-0@46 (A.V of 2024-08-09T00:00:05.750Z"), "{text}");
    assert!(report.causes[0].following > 0 && report.causes[0].direct > 0);
    assert_eq!((report.inputs.only_a, report.inputs.only_b, report.inputs.same), (1, 1, 159));
    assert!(report.shown.iter().all(|shown| shown.difference.key == "A.V"));
    let vector = report.shown.iter().find(|shown| shown.difference.topic == topics::FEATURES).unwrap();
    assert_eq!(vector.follows.as_ref().unwrap().topic, topics::BARS);
    // A record more in one run is named too.
    let mut more = ticks();
    more.insert(80, Tick("B.V", 10_000, "777".to_owned()));
    let report = diff(&a, &run("b", FILE, &more), &request());
    assert_eq!(kinds(&report), ["changed input"]);
    assert!(report.causes[0].cause.to_string().contains("only B took market.ticks.v1-0@80"));
}

#[test]
fn inputs_in_another_order_are_late_arrivals() {
    let in_order = ticks();
    let mut late = ticks();
    // A trade of the third second comes after the fourth is over.
    let moved = late.remove(22);
    late.insert(34, moved.clone());
    let (a, b) = (run("a", FILE, &late), run("b", FILE, &in_order));
    let report = diff(&a, &b, &request());
    check_sums(&report);
    assert!(!report.is_same());
    assert_eq!(kinds(&report), ["late arrival"], "{}", report.json());
    assert_eq!((report.inputs.only_a, report.inputs.only_b), (0, 0));
    assert_eq!(report.causes.len(), 1);
    let text = report.causes[0].cause.to_string();
    assert!(
        text.contains("market.ticks.v1-0@34 (A.V of 2024-08-09T00:00:02.750Z, A) came 1,500 ms late"),
        "{text}"
    );
    assert!(report.shown.iter().any(|shown| shown.difference.topic == topics::FEATURES));
}

#[test]
fn tolerances_fields_ranges_and_keys_narrow_the_comparison() {
    let mut altered = ticks();
    altered[46].2 = "100.5".to_owned();
    let was: f64 = ticks()[46].2.parse().unwrap();
    let (a, b) = (run("a", FILE, &ticks()), run("b", FILE, &altered));
    let with = |tolerances: &[&str], ignored: &[&str]| {
        let mut request = request();
        request.rules.tolerances = tolerances.iter().map(|text| text.parse().unwrap()).collect();
        request.rules.ignored = ignored.iter().map(|text| text.parse().unwrap()).collect();
        diff(&a, &b, &request)
    };
    assert!(!with(&[], &[]).is_same());
    let bars = ["open", "high", "low", "close", "vwap", "notional"];
    let near: Vec<String> =
        bars.iter().map(|field| format!("Bar.{field}={}", (was - 100.5).abs() * 10.0)).collect();
    let near: Vec<&str> = near.iter().map(String::as_str).collect();
    assert_eq!(topics_that_differ(&with(&near, &[])), [topics::FEATURES]);
    assert!(with(&[&near[..], &["values=50%"]].concat(), &[]).is_same());
    assert!(with(&[], &[&bars[..], &["values"]].concat()).is_same());

    assert!(diff(&a, &b, &Request { key: Some("B.V".into()), ..request() }).is_same());
    let until = EventTime::from_ms(BEGIN_MS + 5_000);
    let before = diff(&a, &b, &Request { to: Some(until), ..request() });
    assert!(before.is_same() && before.total().same > 8);
    let alerts = Request { topics: vec![topics::ALERTS.into()], ..request() };
    assert_eq!(diff(&a, &b, &alerts).topics.len(), 1);
    // Topics from outside can be compared too.
    let ticks = diff(&a, &b, &Request { topics: vec![topics::TICKS.into()], ..request() });
    assert_eq!((ticks.total().same, ticks.total().changed), (159, 1));
    assert_eq!(kinds(&ticks), ["changed input"]);
    let error = compare(&a, &b, &Request { topics: vec!["nothing".into()], ..request() }, &mut |_, _| {});
    assert!(error.err().unwrap().to_string().contains("neither run has a topic nothing"));
}

#[test]
fn a_range_that_one_run_was_made_over_is_the_default() {
    let (a, mut b) = (run("a", FILE, &ticks()), run("b", FILE, &ticks()[80..]));
    assert!(diff(&a, &b, &request()).total().missing > 0);
    b.from = Some(EventTime::from_ms(BEGIN_MS + 10_001));
    let report = diff(&a, &b, &request());
    let bars = report.topics.iter().find(|topic| topic.topic == topics::BARS).unwrap();
    assert_eq!(bars.total.differences(), 0, "only what both were made over: {:?}", bars.total);
    // Averages warm up again: what only A took before is the cause.
    assert_eq!(kinds(&report), ["changed input"]);
}

#[test]
fn changed_code_is_told_from_what_is_not_known() {
    let mut altered = ticks();
    altered[46].2 = "90".to_owned();
    let (mut a, mut b) = (run("a", FILE, &ticks()), run("b", FILE, &altered));
    // As if nothing had been noted of the inputs.
    a.epochs.taken.clear();
    b.epochs.taken.clear();
    assert_eq!(kinds(&diff(&a, &b, &request())), ["unknown"], "never invented");
    b.epochs.builds = ["another".to_owned()].into();
    assert_eq!(kinds(&diff(&a, &b, &request())), ["changed code"]);
}

#[test]
fn runs_of_different_pipelines_are_refused() {
    let a = run("a", FILE, &ticks());
    let b = run("b", &FILE.replacen("\"small\"", "\"other\"", 1), &ticks());
    let error = compare(&a, &b, &request(), &mut |_, _| {}).err().unwrap().to_string();
    assert!(error.contains("A (memory) ran small, B (memory) ran other"), "{error}");
}

#[test]
fn the_page_needs_nothing_else_and_shows_hostile_text_as_text() {
    const HOSTILE: &str = "<script>alert('x')</script>\"&.V";
    let mut ticks = ticks();
    ticks.iter_mut().for_each(|tick| tick.0 = HOSTILE);
    let mut altered = ticks.clone();
    altered[47].2 = "90".to_owned();
    let (a, b) = (run("<b>a</b>", FILE, &ticks), run("b", FILE, &altered));
    let report = diff(&a, &b, &request());
    let page = page::page(&report).unwrap();
    assert!(!page.contains("alert('x')") && !page.contains("<b>a"), "escaped");
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;.V"));
    assert_eq!(page.matches("<script>").count(), 1, "its own");
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("default-src 'none'"));
    assert!(page.contains("changed input") && page.contains("features.values.v1"));

    let mut shown = Vec::new();
    show::show(&mut shown, &report, 20).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("first causes:\n  1. changed input: market.ticks.v1-0@47"), "{shown}");
    // Its size has a bound.
    let few = diff(&a, &b, &Request { limit: 1, ..Request::default() });
    assert_eq!(few.shown.len(), 2, "one of each topic that differs");
    assert_eq!(few.total(), report.total(), "counts are whole");
    assert!(page::page(&few).unwrap().contains("differences are on this page"));
}

#[test]
fn the_json_has_what_scripts_rely_on() {
    let mut altered = ticks();
    altered[46].2 = "90".to_owned();
    let (a, b) = (run("a", FILE, &ticks()), run("b", FILE, &altered));
    let json = diff(&a, &b, &request()).json();
    assert_eq!(json["same"], false);
    assert_eq!(json["a"]["name"], "a");
    assert_eq!(json["b"]["order"], "event");
    let counts = |value: &Value| value["changed"].as_u64().unwrap();
    let topics = json["topics"].as_array().unwrap();
    assert_eq!(topics.iter().map(counts).sum::<u64>(), counts(&json["counts"]));
    assert!(topics.iter().any(|topic| topic["kinds"]["Bar"]["changed"] == 1), "{json}");
    assert_eq!(json["causes"][0]["cause"], "changed input");
    assert_eq!(json["causes"][0]["detail"]["offset"], 46);
    assert_eq!(json["causes"][0]["detail"]["altered"], true);
    let bar = &json["differences"][0];
    assert_eq!((bar["topic"].as_str(), bar["class"].as_str()), (Some("features.bars.v1"), Some("changed")));
    assert_eq!((bar["kind"].as_str(), bar["key"].as_str()), (Some("Bar"), Some("A.V")));
    assert!(bar["a"]["offset"].is_u64() && bar["b"]["identity"].is_string(), "{bar}");
    let fields = bar["fields"].as_array().unwrap();
    let close = fields.iter().find(|field| field["field"] == "close").unwrap();
    assert_eq!(close["b"], "90");
    assert_eq!(bar["first_cause"], 0);
    assert!(bar["follows_from"].is_null());
    assert!(
        json["differences"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["follows_from"]["topic"] == "features.bars.v1")
    );
}
