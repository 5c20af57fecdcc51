//! `docs/operators.md` has a section for each operator, with each of its settings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

const DOCS: &str = include_str!("../../docs/operators.md");

/// Text of each section by its operator.
fn sections() -> BTreeMap<&'static str, &'static str> {
    let sections = DOCS.split("\n## `").skip(1);
    sections.map(|section| section.split_once("`\n").unwrap()).collect()
}

/// Settings as the operator knows them: it names them all when it is given one that it does not know.
fn settings(build: impl Fn(&tidewire_contract::Settings) -> Option<String>) -> Vec<String> {
    let unknown: tidewire_contract::Settings = toml::from_str("no_such_setting = 1").unwrap();
    let error = build(&unknown).unwrap();
    let (_, known) = error.split_once("expected ").unwrap_or_else(|| panic!("{error}"));
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_operator_and_setting_has_its_words() {
    let sections = sections();
    let names: Vec<_> = tidewire_operators::OPERATORS.iter().map(|operator| operator.name).collect();
    assert_eq!(sections.keys().copied().collect::<Vec<_>>(), names);
    for operator in tidewire_operators::OPERATORS {
        let section = sections[operator.name];
        let known = settings(|settings| (operator.build)(settings).err());
        assert!(!known.is_empty(), "{}", operator.name);
        for setting in known {
            assert!(
                section.contains(&format!("`{setting}`")),
                "{}: `{setting}` is not described",
                operator.name
            );
        }
        let rows = section.lines().filter(|line| line.starts_with("| `") && !line.contains("passes while"));
        let table = section.split("**Checks.**").next().unwrap();
        for row in rows.filter(|row| table.contains(*row)) {
            let cell = row.split('|').nth(1).unwrap();
            let known = settings(|settings| (operator.build)(settings).err());
            for named in cell.split('`').skip(1).step_by(2) {
                assert!(
                    known.iter().any(|setting| setting == named),
                    "{}: no setting `{named}`",
                    operator.name
                );
            }
        }
    }
}
