//! An explanation as one page that needs nothing else: no script, no network.

use std::io::{self, Write};

use serde_json::Value;

use super::states::short;
use super::tree::{Brief, Explanation, Group, Made, TreeNode};
use super::words::{self, fields, is_passed, plain};
use crate::safe::Safe;

/// Levels of the tree that are open at first.
const OPEN_LEVELS: usize = 3;
/// Most inputs of a group in the page.
const MAX_INPUTS: usize = 200;
/// Most changes of a state that are open at first.
const OPEN_CHANGES: usize = 6;
/// Most entries of a list in a state.
const MAX_STATE_ITEMS: usize = 12;

const STYLE: &str = "
:root{--ink:#1c2733;--soft:#5b6b7b;--line:#d5dde5;--ground:#f6f8fa;--card:#fff;--mark:#0b63b6;--good:#16794c;--bad:#b3261e;--out:#8a5a00}
@media(prefers-color-scheme:dark){:root{--ink:#e4eaf0;--soft:#98a6b5;--line:#33404d;--ground:#12181f;--card:#1a222b;--mark:#6fb2f5;--good:#5cc795;--bad:#ff8b82;--out:#e0b054}}
*{box-sizing:border-box}
body{margin:0;padding:28px;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}
main{max-width:1180px;margin:0 auto}
h1{font-size:19px;margin:0 0 6px;overflow-wrap:anywhere}
h2{font-size:15px;margin:26px 0 8px}
.why{font-size:16px;margin:0 0 10px;overflow-wrap:anywhere}
.facts{color:var(--soft);font-size:13px;margin:0 0 18px}
details.node{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--mark);border-radius:6px;margin:8px 0;padding:7px 12px}
details.node.outside{border-left-color:var(--out)}
.node .node{margin-left:10px}
summary{cursor:pointer;overflow-wrap:anywhere}
summary b{font-weight:650}
.role{color:var(--mark);font-size:13px;margin-right:8px}
.place,code{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,monospace;font-size:12.5px}
.place{color:var(--soft);margin-left:8px}
.time{color:var(--soft);font-size:12.5px;margin-left:8px}
.fields{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,monospace;font-size:12.5px;margin:5px 0;overflow-wrap:anywhere}
.by{margin:5px 0}
.note{color:var(--bad);margin:5px 0}
.good{color:var(--good)}.bad{color:var(--bad);font-weight:650}
.see{margin:8px 0 8px 10px;color:var(--soft);font-size:13.5px}
a{color:var(--mark)}
table{border-collapse:collapse;margin:6px 0;font-size:13px;width:100%;table-layout:auto}
th,td{border-bottom:1px solid var(--line);padding:3px 12px 3px 0;text-align:left;vertical-align:top;overflow-wrap:break-word}
th{color:var(--soft);font-weight:500;white-space:nowrap}
td.n{overflow-wrap:anywhere}td.p{white-space:nowrap}
td.n{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,monospace;font-size:12.5px}
details.more{margin:4px 0}details.more>summary{color:var(--soft);font-size:13.5px}
pre{margin:6px 0;white-space:pre-wrap;overflow-wrap:anywhere;font-size:12.5px}
";

/// Writes the page.
pub fn write(out: &mut dyn Write, explanation: &Explanation) -> io::Result<()> {
    let title = escape(&explanation.asked);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Why {title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Why {title}?</h1>\n"
    )?;
    writeln!(out, "<p class=\"why\">{}</p>", escape(&explanation.why))?;
    let (size, proof) = (&explanation.size, &explanation.proof);
    let class = match proof.verdict {
        "same" => "good",
        "differs" => "bad",
        _ => "",
    };
    writeln!(
        out,
        "<p class=\"facts\">{} records, {} of them from outside; {} epochs run again; {} records compared with the log. \
         <span class=\"{class}\">{}</span></p>",
        size.records,
        size.external,
        size.epochs,
        proof.records_same,
        escape(&proof.text)
    )?;
    for note in &explanation.notes {
        writeln!(out, "<p class=\"note\">{}</p>", escape(note))?;
    }
    node(out, &explanation.root, 0)?;
    if !explanation.after.is_empty() {
        writeln!(out, "<h2>After it</h2>")?;
        briefs(out, &explanation.after)?;
        for brief in &explanation.after {
            checks(out, &brief.value)?;
        }
    }
    writeln!(out, "</main>\n</body>\n</html>")
}

fn node(out: &mut dyn Write, tree: &TreeNode, level: usize) -> io::Result<()> {
    let role = match tree.role.as_str() {
        "" => String::new(),
        role => format!("<span class=\"role\">{}</span>", escape(role)),
    };
    let place = tree.place.as_deref().unwrap_or("between operators");
    if tree.shown_elsewhere {
        return writeln!(
            out,
            "<p class=\"see\">{role}{} <span class=\"place\">{}</span> is shown at <a href=\"#r{n}\">[{n}]</a></p>",
            escape(&tree.kind),
            escape(place),
            n = tree.number
        );
    }
    let class = if tree.external { "node outside" } else { "node" };
    let open = if level < OPEN_LEVELS { " open" } else { "" };
    let kind = if tree.kind.is_empty() { "record" } else { &tree.kind };
    let (id, number) = match tree.number {
        0 => (String::new(), String::new()),
        number => (format!(" id=\"r{number}\""), format!("[{number}] ")),
    };
    writeln!(
        out,
        "<details class=\"{class}\"{id}{open}><summary>{role}<b>{number}{}</b> {}<span class=\"place\">{}</span>\
         <span class=\"time\">{}</span></summary>",
        escape(kind),
        escape(&tree.key),
        escape(place),
        escape(tree.event_time.as_deref().unwrap_or_default())
    )?;
    if !tree.value.is_null() {
        writeln!(out, "<div class=\"fields\">{}</div>", escape(&fields(&tree.kind, &tree.key, &tree.value)))?;
    }
    checks(out, &tree.value)?;
    for note in &tree.notes {
        writeln!(out, "<p class=\"note\">{}</p>", escape(note))?;
    }
    if let Some(made) = &tree.made {
        maker(out, made, tree)?;
    }
    for child in &tree.children {
        node(out, child, level + 1)?;
    }
    writeln!(out, "</details>")
}

fn maker(out: &mut dyn Write, made: &Made, tree: &TreeNode) -> io::Result<()> {
    let same = match made.same_bytes {
        Some(true) => "<span class=\"good\">same bytes when run again</span>",
        Some(false) => "<span class=\"bad\">other bytes when run again</span>",
        None => "",
    };
    writeln!(
        out,
        "<p class=\"by\">by <b>{}</b> ({}) of {}/{} in epoch {}, as {}. {same}</p>",
        escape(&made.operator),
        escape(&made.type_name),
        escape(&made.stage),
        made.task,
        made.epoch,
        escape(&made.trigger)
    )?;
    if !made.state_changes.is_empty() {
        let (count, open) = (made.state_changes.len(), made.state_changes.len() <= OPEN_CHANGES);
        let (open, word) = (if open { " open" } else { "" }, if count == 1 { "value" } else { "values" });
        writeln!(
            out,
            "<details class=\"more\"{open}><summary>it changed {count} {word} of its state</summary>"
        )?;
        writeln!(out, "<table><tr><th>state</th><th>before</th><th>after</th></tr>")?;
        for change in &made.state_changes {
            writeln!(
                out,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                escape(&change.path),
                escape(&plain(&short(&change.before, MAX_STATE_ITEMS))),
                escape(&plain(&short(&change.after, MAX_STATE_ITEMS)))
            )?;
        }
        writeln!(out, "</table></details>")?;
    }
    if !made.given_with_it.is_empty() {
        writeln!(out, "<details class=\"more\" open><summary>given out with it</summary>")?;
        briefs(out, &made.given_with_it)?;
        for brief in &made.given_with_it {
            checks(out, &brief.value)?;
        }
        writeln!(out, "</details>")?;
    }
    for group in &made.gathered {
        gathered(out, group)?;
    }
    writeln!(out, "<details class=\"more\"><summary>times, settings, state before, build</summary><table>")?;
    let rows = [
        ("identity", tree.identity.clone().unwrap_or_default()),
        ("cause", tree.cause.clone().unwrap_or_default()),
        ("key of the operator", made.key.clone()),
        ("processing time", made.stamp.clone()),
        ("watermark", made.watermark.clone().unwrap_or_default()),
        ("stream time", made.stream_time.clone()),
        ("timers", made.timers.join("; ")),
        (
            "build",
            format!("{}{}", made.build, if made.same_build { " (this one)" } else { " (not this one)" }),
        ),
        ("run again from", format!("the cut of epoch {}", made.from_cut)),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "<tr><th>{name}</th><td class=\"n\">{}</td></tr>", escape(value))?;
    }
    writeln!(out, "</table>")?;
    for (name, value) in [("settings", &made.settings), ("state before", &made.state_before)] {
        if !value.is_null() {
            let text = serde_json::to_string_pretty(&short(value, MAX_STATE_ITEMS * 4)).unwrap_or_default();
            writeln!(out, "<b>{name}</b><pre>{}</pre>", escape(&text))?;
        }
    }
    writeln!(out, "</details>")
}

fn gathered(out: &mut dyn Write, group: &Group) -> io::Result<()> {
    let mut words = format!("gathered {} {}, {}", group.count, group.name, group.rule);
    if group.without_effect > 0 {
        words.push_str(&format!("; {} more changed nothing", group.without_effect));
    }
    if group.earlier_in_cut {
        words.push_str("; earlier ones lie in the state of the cut");
    }
    writeln!(out, "<details class=\"more\"><summary>{}</summary>", escape(&words))?;
    briefs(out, &group.inputs[..group.inputs.len().min(MAX_INPUTS)])?;
    if group.inputs.len() > MAX_INPUTS {
        writeln!(out, "<p>and {} more</p>", group.count - MAX_INPUTS)?;
    }
    writeln!(out, "</details>")
}

fn briefs(out: &mut dyn Write, all: &[Brief]) -> io::Result<()> {
    writeln!(out, "<table><tr><th>record</th><th>place</th><th>event time</th><th>fields</th></tr>")?;
    for brief in all {
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"n p\">{}</td><td class=\"n p\">{}</td><td class=\"n\">{}</td></tr>",
            escape(&brief.kind),
            escape(brief.place.as_deref().unwrap_or("between operators")),
            escape(brief.event_time.as_deref().unwrap_or_default()),
            escape(&fields(&brief.kind, &brief.key, &brief.value))
        )?;
    }
    writeln!(out, "</table>")
}

fn checks(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    let Some((decided, skipped)) = words::checks(value) else { return Ok(()) };
    writeln!(out, "<table><tr><th>check</th><th>verdict</th><th>value</th><th>limit</th><th></th></tr>")?;
    for check in decided {
        let get = |name: &str| check.get(name).map(plain).unwrap_or_default();
        let text = check.get("text").and_then(Value::as_str).unwrap_or_default();
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"{}\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            escape(&get("check")),
            if is_passed(check) { "good" } else { "bad" },
            escape(&get("verdict")),
            escape(&get("value")),
            escape(&get("limit")),
            escape(text)
        )?;
    }
    writeln!(out, "</table>")?;
    match skipped.is_empty() {
        true => Ok(()),
        false => writeln!(out, "<p class=\"facts\">not applied: {}</p>", escape(&skipped.join(", "))),
    }
}

/// Text that stands for itself in a page, and for nothing else.
fn escape(text: &str) -> String {
    Safe(text).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn hostile_text_stays_text_and_nothing_is_fetched() {
        let hostile = "</title><script>alert(1)</script>\"'&<img src=http://x onerror=y>\u{1b}[2J";
        let brief = Brief {
            kind: hostile.into(),
            place: Some(hostile.into()),
            value: json!({ hostile: hostile, "checks": [{ "check": hostile, "verdict": hostile, "text": hostile }] }),
            ..Brief::default()
        };
        let made = Made {
            operator: hostile.into(),
            trigger: hostile.into(),
            settings: json!({ hostile: hostile }),
            state_before: json!([hostile]),
            given_with_it: vec![brief.clone()],
            gathered: vec![Group { name: hostile.into(), inputs: vec![brief.clone()], ..Group::default() }],
            ..Made::default()
        };
        let root = TreeNode {
            role: hostile.into(),
            kind: hostile.into(),
            key: hostile.into(),
            value: brief.value.clone(),
            notes: vec![hostile.into()],
            made: Some(Box::new(made)),
            ..TreeNode::default()
        };
        let explanation = Explanation {
            asked: hostile.into(),
            why: hostile.into(),
            notes: vec![hostile.into()],
            proof: super::super::tree::Proof { text: hostile.into(), ..Default::default() },
            root,
            after: vec![brief],
            size: Default::default(),
        };
        let mut page = Vec::new();
        write(&mut page, &explanation).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains("&lt;script&gt;"));
        for banned in ["<script", "<img", "<link", "<iframe", "\u{1b}", "src=\"", "url(", "@import"] {
            assert!(!page.contains(banned), "{banned}");
        }
        assert_eq!(page.matches("</title>").count(), 1);
    }
}
