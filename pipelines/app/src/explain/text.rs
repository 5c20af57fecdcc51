//! An explanation as an indented tree for people.

use std::io::{self, Write};

use serde_json::Value;

use super::states::short;
use super::tree::{Brief, Explanation, Group, Made, TreeNode};
use super::words::{self, fields, plain};

/// Width that lines are broken at.
const WIDTH: usize = 112;
/// Most entries of a list in a state that are shown.
const MAX_STATE_ITEMS: usize = 4;
/// Most changes of a state that are shown.
const MAX_CHANGES: usize = 8;

/// Writes it.
pub fn write(out: &mut dyn Write, explanation: &Explanation, with_proof: bool) -> io::Result<()> {
    block(out, "", "why: ", &explanation.why)?;
    let size = &explanation.size;
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    writeln!(
        out,
        "     {}, {} of them from outside; {} run again; {} compared with the log: same bytes",
        count(size.records, "record"),
        size.external,
        count(size.epochs, "epoch"),
        count(explanation.proof.records_same, "record")
    )?;
    for note in &explanation.notes {
        block(out, "", "note: ", note)?;
    }
    writeln!(out)?;
    node(out, &explanation.root, "")?;
    if !explanation.after.is_empty() {
        writeln!(out, "\nafter it:")?;
        for brief in &explanation.after {
            block(out, "  ", "- ", &one_line(brief))?;
            checks(out, "      ", &brief.value)?;
        }
    }
    if with_proof {
        writeln!(out)?;
        proof(out, explanation)?;
    }
    Ok(())
}

fn proof(out: &mut dyn Write, explanation: &Explanation) -> io::Result<()> {
    let proof = &explanation.proof;
    let begin = match proof.verdict {
        "same" => "proved: ",
        "differs" => "NOT PROVED: ",
        _ => "not to be proved: ",
    };
    block(out, "", begin, &proof.text)?;
    if !proof.recorded.is_null() {
        block(out, "  ", "recorded  ", &plain(&proof.recorded))?;
        block(out, "  ", "run again ", &plain(&proof.run_again))?;
    }
    Ok(())
}

fn node(out: &mut dyn Write, tree: &TreeNode, indent: &str) -> io::Result<()> {
    let role = if tree.role.is_empty() { String::new() } else { format!("{}: ", tree.role) };
    let number = if tree.number == 0 { String::new() } else { format!("[{}] ", tree.number) };
    let place = tree.place.as_deref().map_or_else(|| "between operators".to_owned(), str::to_owned);
    let outside = if tree.external { "  from outside" } else { "" };
    let what = if tree.kind.is_empty() { "record" } else { &tree.kind };
    let time = tree.event_time.as_deref().unwrap_or_default();
    if tree.shown_elsewhere {
        return writeln!(out, "{indent}{role}{what} {place}: see {}", number.trim_end());
    }
    writeln!(out, "{indent}{role}{number}{what}  {place}  {time}  {}{outside}", tree.key)?;
    let inner = format!("{indent}      ");
    let line = fields(&tree.kind, &tree.key, &tree.value);
    if !line.is_empty() && !tree.value.is_null() {
        block(out, &inner, "", &line)?;
    }
    checks(out, &inner, &tree.value)?;
    for note in &tree.notes {
        block(out, &inner, "note: ", note)?;
    }
    if let Some(made) = &tree.made {
        maker(out, &inner, made)?;
    }
    for child in &tree.children {
        node(out, child, &format!("{indent}  "))?;
    }
    Ok(())
}

fn maker(out: &mut dyn Write, inner: &str, made: &Made) -> io::Result<()> {
    let watermark = made.watermark.as_deref().map_or_else(String::new, |time| format!(", watermark {time}"));
    let line = format!(
        "{} ({}) of {}/{} in epoch {}, as {}{watermark}",
        made.operator, made.type_name, made.stage, made.task, made.epoch, made.trigger
    );
    block(out, inner, "by ", &line)?;
    if made.same_bytes == Some(false) {
        block(out, inner, "", "the bytes that this build gives are NOT those in the log")?;
    }
    if made.settings.as_object().is_some_and(|settings| !settings.is_empty()) {
        block(out, inner, "settings ", plain(&short(&made.settings, 40)).trim_matches(['{', '}']))?;
    }
    if !made.state_before.is_null() {
        let state = plain(&short(&made.state_before, MAX_STATE_ITEMS));
        block(out, inner, "state before ", state.trim_matches(['{', '}']))?;
    }
    for change in made.state_changes.iter().take(MAX_CHANGES) {
        let path = if change.path.is_empty() { "all" } else { &change.path };
        let value = |value| plain(&short(value, MAX_STATE_ITEMS));
        block(
            out,
            inner,
            "changed ",
            &format!("{path}: {} -> {}", value(&change.before), value(&change.after)),
        )?;
    }
    if made.state_changes.len() > MAX_CHANGES {
        writeln!(out, "{inner}changed {} values more", made.state_changes.len() - MAX_CHANGES)?;
    }
    for timer in &made.timers {
        block(out, inner, "timer ", timer)?;
    }
    for brief in &made.given_with_it {
        block(out, inner, "with it ", &one_line(brief))?;
        checks(out, &format!("{inner}    "), &brief.value)?;
    }
    // A vector's values stand below, each with what led to it.
    for group in made.gathered.iter().filter(|group| group.count > 1 || !group.rule.contains("of its name")) {
        gathered(out, inner, group)?;
    }
    Ok(())
}

fn gathered(out: &mut dyn Write, inner: &str, group: &Group) -> io::Result<()> {
    let mut line = format!("{} {}, {}", group.count, group.name, group.rule);
    if group.without_effect > 0 {
        line.push_str(&format!("; {} more changed nothing", group.without_effect));
    }
    if group.earlier_in_cut {
        line.push_str("; earlier ones lie in the state of the cut");
    }
    block(out, inner, "gathered ", &line)?;
    let (first, last) = (group.inputs.first(), group.inputs.last());
    if let Some(first) = first {
        block(out, &format!("{inner}    "), if group.count > 1 { "first " } else { "" }, &one_line(first))?;
    }
    if let (true, Some(last)) = (group.count > 1, last) {
        block(out, &format!("{inner}    "), "last  ", &one_line(last))?;
    }
    Ok(())
}

/// A record in short on one line.
pub fn one_line(brief: &Brief) -> String {
    let place = brief.place.as_deref().map_or_else(String::new, |place| format!("  {place}"));
    let time = brief.event_time.as_deref().unwrap_or_default();
    format!("{}{place}  {time}  {}", brief.kind, fields(&brief.kind, &brief.key, &brief.value))
}

/// The checks of a decision, one a line; those that do not apply together.
fn checks(out: &mut dyn Write, inner: &str, value: &Value) -> io::Result<()> {
    let Some((decided, skipped)) = words::checks(value) else { return Ok(()) };
    for check in decided {
        let get = |name: &str| check.get(name).map(plain).unwrap_or_default();
        let text = check.get("text").and_then(Value::as_str).unwrap_or_default();
        let numbers = match (check.get("value"), check.get("limit")) {
            (Some(Value::String(value)), Some(Value::String(limit))) => {
                format!("value {value}, limit {limit}  ")
            }
            _ => String::new(),
        };
        block(
            out,
            inner,
            &format!("{:<4} {:<24} ", get("verdict"), get("check")),
            &format!("{numbers}{text}"),
        )?;
    }
    match skipped.is_empty() {
        true => Ok(()),
        false => block(out, inner, "not applied: ", &skipped.join(", ")),
    }
}

/// Writes words, broken into lines that keep their indent.
pub fn block(out: &mut dyn Write, indent: &str, begin: &str, words: &str) -> io::Result<()> {
    let room = WIDTH.saturating_sub(indent.chars().count() + begin.chars().count()).max(40);
    let hang = format!("{indent}{}", " ".repeat(begin.chars().count()));
    let mut line = String::new();
    let mut is_first = true;
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            writeln!(out, "{}{line}", if is_first { format!("{indent}{begin}") } else { hang.clone() })?;
            is_first = false;
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        // What is not for the eye must not reach a terminal.
        line.extend(word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
    }
    let last = format!("{}{line}", if is_first { format!("{indent}{begin}") } else { hang });
    writeln!(out, "{}", last.trim_end())
}
