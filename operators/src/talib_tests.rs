//! Values of TA-Lib over real one-second closes; `testdata/make_talib_vectors.py` made them.

use tidewire_schemas::{Bar, FeatureValue, Record};

use crate::ema::Ema;
use crate::rsi::Rsi;
use crate::testing::{Harness, dec, ms, only};

const VECTORS: &str = include_str!("../testdata/talib_vectors.csv");

fn rows() -> Vec<Vec<&'static str>> {
    VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(',').collect()).collect()
}

fn bar(at: i64, close: &str) -> Bar {
    Bar { instrument: "A.V".into(), event_time: ms(at), close: dec(close), ..Bar::default() }
}

fn values(records: &[Record]) -> Vec<f64> {
    only::<FeatureValue>(records).iter().map(|value| value.value).collect()
}

#[test]
fn values_and_warm_up_are_those_of_talib() {
    let rows = rows();
    let mut compared = 0;
    for (column, name) in rows[0].iter().enumerate().skip(1) {
        let (kind, period) = name.split_once('_').unwrap();
        let settings = format!("period = {period}");
        let mut operator =
            if kind == "ema" { Harness::new::<Ema>(&settings) } else { Harness::new::<Rsi>(&settings) };
        if column % 2 == 0 {
            operator = operator.restarting();
        }
        for (number, row) in (1_i64..).zip(rows.iter().skip(1)) {
            let got = values(&operator.send("A.V", bar(number * 1_000, row[0])));
            // Neither sooner nor later than TA-Lib, and to the last bit: the operations are the same.
            let want: Vec<f64> = row[column].parse().into_iter().collect();
            assert_eq!(got, want, "{name}, row {number}");
            compared += got.len();
        }
    }
    assert!(compared > 1_500, "{compared} values compared");
}

#[test]
fn revisions_and_old_bars_change_nothing() {
    for make in [Harness::new::<Ema>, Harness::new::<Rsi>] {
        let run = |disturbed: bool| {
            let mut operator = make("period = 3");
            let mut all = Vec::new();
            for number in 1..20 {
                all.extend(
                    operator.send("A.V", bar(number * 1_000, &format!("{}", number * number % 7 + 1))),
                );
                if disturbed {
                    let revision = Bar { revision: 1, ..bar(number * 1_000 + 1, "99") };
                    assert!(operator.send("A.V", revision).is_empty());
                    assert!(operator.send("A.V", bar(number * 1_000, "99")).is_empty());
                    assert!(operator.send("A.V", bar(number * 1_000 - 86_400_000, "99")).is_empty());
                }
            }
            all
        };
        let undisturbed = run(false);
        assert_eq!(undisturbed, run(true));
        assert!(undisturbed.len() > 10);
    }
}

#[test]
fn nothing_moved_is_zero() {
    let mut rsi = Harness::new::<Rsi>("period = 2");
    let all: Vec<f64> = (0..5).flat_map(|n| values(&rsi.send("A.V", bar(n, "5")))).collect();
    assert_eq!(all, [0.0, 0.0, 0.0]);
}

#[test]
fn other_fields_and_names() {
    let mut ema = Harness::new::<Ema>("period = 1\nfield = \"volume\"\nname = \"size\"");
    let bar = Bar { volume: dec("2.5"), ..bar(0, "1") };
    let got = only::<FeatureValue>(&ema.send("A.V", bar));
    assert_eq!((got[0].name.as_str(), got[0].value), ("size", 2.5));
    let settings = |text: &str| toml::from_str::<tidewire_contract::Settings>(text).unwrap();
    let build = crate::find("ema").unwrap().build;
    let words = |text: &str| build(&settings(text)).err().unwrap();
    assert!(words("period = 0").contains("from 1 to 100000"));
    assert!(words("period = 3\nfield = \"closing\"").contains("close"));
    assert!(words("period = 3\nfeild = \"close\"").contains("feild"));
}
