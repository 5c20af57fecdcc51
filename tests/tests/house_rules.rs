//! The rules of this house that the compiler does not hold: which crate may know which, what code that decides may
//! touch, where unsafe code may stand, how long a file may be. Each rule is also shown a violation, which it must find.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod house;

use std::path::Path;
use std::process::Command;

use house::{Crate, TextFile, checks, crates, root, text_files, tree};

/// Crate, what its code may depend on, what its tests may besides.
const EDGES: &[checks::Edges<'static>] = &[
    ("tidewire-schemas", &[], &[]),
    ("tidewire-contract", &["tidewire-schemas"], &[]),
    ("tidewire-operators", &["tidewire-contract", "tidewire-schemas"], &["tidewire-engine"]),
    ("tidewire-engine", &["tidewire-contract", "tidewire-schemas"], &[]),
    ("tidewire-ingest", &["tidewire-schemas"], &[]),
    (
        "tidewire-runtime",
        &["tidewire-contract", "tidewire-engine", "tidewire-schemas", "tidewire-sinks"],
        &[],
    ),
    ("tidewire-sinks", &["tidewire-schemas"], &[]),
    // Only the binary knows all of them.
    (
        "tidewire",
        &[
            "tidewire-contract",
            "tidewire-engine",
            "tidewire-ingest",
            "tidewire-operators",
            "tidewire-runtime",
            "tidewire-schemas",
            "tidewire-sinks",
        ],
        // How to start Kafka and to ask clients of it.
        &["tidewire-tests"],
    ),
    (
        "tidewire-tests",
        &[
            "tidewire-contract",
            "tidewire-engine",
            "tidewire-ingest",
            "tidewire-operators",
            "tidewire-runtime",
            "tidewire-schemas",
            "tidewire-sinks",
        ],
        &[],
    ),
];

/// Crates whose results must depend on their input alone.
const PURE: &[&str] = &["tidewire-schemas", "tidewire-contract", "tidewire-operators", "tidewire-engine"];

/// Crates that do I/O, start threads, read a clock or draw random numbers.
#[rustfmt::skip]
const FORBIDDEN: &[&str] = &[
    "async-std", "chrono", "clap", "crossbeam-channel", "ctrlc", "fastrand", "fjall", "getrandom", "hyper", "indicatif",
    "lsm-tree", "mio", "num_cpus", "openssl", "postgres", "quanta", "rand", "rayon", "rdkafka", "rdkafka-sys", "redis",
    "reqwest", "rskafka", "rustls", "signal-hook", "smol", "socket2", "tempfile", "time", "tokio", "tonic", "tracing",
    "ureq",
];

/// Crate, who uses it, and why that does no harm.
const EXCUSED: &[(&str, &str, &str)] = &[
    ("rand", "apache-avro", "draws the marks between blocks of Avro files, which nothing here writes"),
    ("getrandom", "rand", "as above"),
];

/// Files that may hold unsafe code.
const UNSAFE_MODULES: &[&str] = &[
    "pipelines/runtime/src/kafka/foreign.rs",
    "pipelines/app/benches/kafka/consume_batch.rs",
    "pipelines/app/tests/allocations.rs",
];

/// Most lines of a source file.
const MOST_LINES: usize = 600;

/// Longer files, and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// Clippy's file for crates whose results must depend on their input alone. That of operators/ covers the contract.
const STRICT_CLIPPY: &[&str] =
    &["operators/clippy.toml", "pipelines/engine/clippy.toml", "schemas/clippy.toml"];

fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn file(path: &str, text: &str) -> TextFile {
    TextFile { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn crates_know_each_other_one_way() {
    none(checks::edges(&crates(), EDGES));

    let schemas = || Crate { name: "schemas".to_owned(), ..Crate::default() };
    let operators = || Crate { name: "operators".to_owned(), ..Crate::default() };
    let allowed: &[checks::Edges<'_>] = &[("schemas", &[], &[]), ("operators", &["schemas"], &[])];
    none(checks::edges(&[schemas(), operators()], allowed));
    let back = Crate { dependencies: vec!["operators".to_owned()], ..schemas() };
    assert_eq!(checks::edges(&[back, operators()], allowed).len(), 1);
    let back = Crate { dev_dependencies: vec!["operators".to_owned()], ..schemas() };
    assert_eq!(checks::edges(&[back, operators()], allowed).len(), 1);
    assert_eq!(checks::edges(&[schemas()], allowed).len(), 1, "a crate that is gone");
    let new = Crate { name: "new".to_owned(), ..Crate::default() };
    assert_eq!(checks::edges(&[schemas(), operators(), new], allowed).len(), 1, "a crate without a line");
}

#[test]
fn what_decides_depends_on_nothing_that_reads_the_world() {
    let trees: Vec<String> = PURE.iter().map(|name| tree(name)).collect();
    for text in &trees {
        none(checks::tree(text, FORBIDDEN, EXCUSED));
    }
    for (found, by, _) in EXCUSED {
        let ways = trees.iter().flat_map(|text| checks::tree(text, &[found], &[]));
        let used = ways.into_iter().any(|way| way.ends_with(&format!("{by} -> {found}")));
        assert!(used, "{by} does not use {found} any more: take it from the excuses");
    }

    let bad = "0 engine v0.1.0\n1 a v1.0.0\n2 tokio v1.0.0\n3 mio v1.0.0\n1 b v1.0.0\n2 mio v1.0.0 (*)\n";
    let wrong = checks::tree(bad, &["tokio", "mio"], &[("mio", "tokio", "a reason")]);
    assert_eq!(wrong, ["tokio comes by engine -> a -> tokio", "mio comes by engine -> b -> mio"]);
    assert_eq!(checks::tree("", &["tokio"], &[]).len(), 1, "no tree is no proof");
}

#[test]
fn unsafe_code_stands_in_named_modules() {
    none(checks::unsafe_code(&text_files(), UNSAFE_MODULES));

    for code in ["@ { f() }", "pub @ fn f() {}", "@ impl Send for X {}", "#[allow(@_code)]"] {
        let code = &code.replace('@', "unsafe");
        assert_eq!(checks::unsafe_code(&[file("a/b.rs", code)], &[]).len(), 1, "{code}");
        none(checks::unsafe_code(&[file("a/b.rs", code)], &["a/b.rs"]));
    }
    none(checks::unsafe_code(&[file("a/b.rs", "// words, unsafe { or not }\nlet not_unsafe = 1;")], &[]));
}

#[test]
fn files_have_one_subject() {
    none(checks::lengths(&text_files(), MOST_LINES, LONG_FILES));

    let long = || file("a.rs", &"x\n".repeat(11));
    assert_eq!(checks::lengths(&[long()], 10, &[]).len(), 1);
    none(checks::lengths(&[long()], 10, &[("a.rs", "a reason")]));
    assert_eq!(
        checks::lengths(&[long()], 11, &[("a.rs", "a reason")]).len(),
        1,
        "an excuse that is not needed"
    );
    none(checks::lengths(&[file("a.json", &"x\n".repeat(11))], 10, &[]));
}

#[test]
fn every_operator_has_its_section() {
    let reference =
        std::fs::read_to_string(root().join("docs/operators.md")).expect("docs/operators.md is there");
    let names: Vec<&str> = tidewire_operators::OPERATORS.iter().map(|operator| operator.name).collect();
    assert!(!names.is_empty());
    none(checks::operator_sections(&names, &reference));

    let wrong =
        checks::operator_sections(&["ema", "rsi", "mid"], "## `ema`\nAs `rsi`.\n### `mid` and `spread`\n");
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].contains("`rsi`"));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    none(checks::lints(&text_files()));

    assert_eq!(checks::lints(&[file("a/Cargo.toml", "[package]\nname = 'a'\n")]).len(), 1);
    assert_eq!(checks::lints(&[file("a/Cargo.toml", "[lints]\nworkspace = false\n")]).len(), 1);
    assert_eq!(checks::lints(&[file("a/Cargo.toml", "[lints\n")]).len(), 1);
    none(checks::lints(&[file("a/Cargo.toml", "[lints]\nworkspace = true\n")]));
    none(checks::lints(&[file("Cargo.toml", "[workspace]\n")]));
}

#[test]
fn no_text_names_a_path_of_one_machine() {
    none(checks::machine_paths(&text_files()));

    for folder in ["home", "root", "Users"] {
        let text = format!("see:\n`/{folder}/me/x`");
        assert_eq!(checks::machine_paths(&[file("a.md", &text)]).len(), 1, "{text}");
    }
    none(checks::machine_paths(&[file("a.md", "https://host/home/x, ./root/x, $DIR/home/x")]));
}

#[test]
fn documents_name_what_is_there() {
    none(checks::stale_names(&text_files(), |path| root().join(path).exists()));

    let doc = |text: &str| [file("docs/a.md", text), file("x/src/b.rs", "")];
    let exists = |path: &str| path == "LICENSE" || path == "docs/a.md";
    none(checks::stale_names(
        &doc("[a](../LICENSE), [b](a.md#c), [c](https://host/d.md), `src/b.rs`, `*.rs`"),
        exists,
    ));
    assert_eq!(checks::stale_names(&doc("[a](LICENSE)"), exists).len(), 1);
    assert_eq!(checks::stale_names(&doc("see `src/c.rs`"), exists).len(), 1);
}

#[test]
fn bugs_of_the_simulation_stay_in_tests() {
    none(checks::feature_users(&text_files(), "tidewire-engine", "sim"));

    let bad = "[dependencies]\ntidewire-engine = { path = 'x', features = ['sim'] }\n";
    assert_eq!(checks::feature_users(&[file("a/Cargo.toml", bad)], "tidewire-engine", "sim").len(), 1);
    none(checks::feature_users(
        &[file("a/Cargo.toml", &bad.replace("[dep", "[dev-dep"))],
        "tidewire-engine",
        "sim",
    ));
}

#[test]
fn clippy_has_one_file_for_what_decides() {
    let files = text_files();
    none(checks::clippy_files(&files, STRICT_CLIPPY));
    assert!(files.iter().any(|file| file.path == "clippy.toml"));

    let (a, b) = (|| file("a/clippy.toml", "x"), |text| file("b/clippy.toml", text));
    none(checks::clippy_files(&[a(), b("x")], &["a/clippy.toml", "b/clippy.toml"]));
    assert_eq!(checks::clippy_files(&[a(), b("y")], &["a/clippy.toml", "b/clippy.toml"]).len(), 1);
    assert_eq!(checks::clippy_files(&[a()], &["a/clippy.toml", "b/clippy.toml"]).len(), 1);
    assert_eq!(checks::clippy_files(&[a(), b("x")], &["a/clippy.toml"]).len(), 1);
}

/// Lines that the strict clippy file must find. The second half must be found under the root's file too.
const STRICT_ONLY: &[&str] = &[
    "pub fn clock() { let _ = std::time::Instant::now(); }",
    "pub fn wall_clock() { let _ = std::time::SystemTime::now(); }",
    "pub fn file() { let _ = std::fs::read(\"x\"); }",
    "pub fn open() { let _ = std::fs::File::open(\"x\"); }",
    "pub fn path(x: &std::path::Path) -> bool { x.exists() }",
    "pub fn net() { let _ = std::net::TcpStream::connect(\"x\"); }",
    "pub fn variable() { let _ = std::env::var(\"x\"); }",
    "pub fn thread() { std::thread::spawn(|| ()); }",
    "pub fn sleep(x: std::time::Duration) { std::thread::sleep(x); }",
    "pub fn child() { let _ = std::process::Command::new(\"x\"); }",
    "pub fn print() { println!(\"x\"); }",
    "pub fn map() { let _ = std::collections::HashMap::<u8, u8>::new(); }",
];
const EVERYWHERE: &[&str] = &[
    "pub fn keys(x: &std::collections::HashMap<u8, u8>) -> usize { x.keys().count() }",
    "pub fn values(x: &std::collections::HashMap<u8, u8>) -> usize { x.values().count() }",
    "pub fn set(x: &std::collections::HashSet<u8>) -> usize { x.iter().count() }",
    "pub fn walk(x: &std::collections::HashMap<u8, u8>) { for _ in x { f(1.0); } }",
    "pub fn chance() { let _ = std::hash::RandomState::new(); }",
    "pub fn f(x: f64) -> f64 { x.exp() }",
    "pub fn g(x: f64) -> f64 { x.ln() }",
    "pub fn h(x: f64) -> f64 { x.powi(3) }",
];

#[test]
fn clippy_finds_each_ban() {
    let all: Vec<&str> = STRICT_ONLY.iter().chain(EVERYWHERE).copied().collect();
    for strict in STRICT_CLIPPY {
        none(not_found(&all, &root().join(strict)));
    }
    none(not_found(EVERYWHERE, &root().join("clippy.toml")));
    // And clippy without these files finds none of it, so that what is found is found by them.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-rules");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("clippy.toml"), "").unwrap();
    let missed = not_found(&all, &folder.join("clippy.toml"));
    assert_eq!(
        missed.len(),
        all.len() - 1,
        "the walk over a map is found by a lint of the workspace: {missed:?}"
    );
}

/// Lines of code that clippy has nothing to say about under this file and the workspace's lints.
fn not_found(lines: &[&str], clippy_file: &Path) -> Vec<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clippy-canary");
    std::fs::create_dir_all(folder.join("src")).unwrap();
    let workspace: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let lints = &workspace["workspace"]["lints"]["clippy"]["iter_over_hash_type"];
    let manifest = format!(
        "[package]\nname = 'canary'\nversion = '0.0.0'\nedition = '2024'\n[workspace]\n\
         [lints.clippy]\niter_over_hash_type = {lints}\n"
    );
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(folder.join("src/lib.rs"), lines.join("\n")).unwrap();
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["clippy", "--offline", "--quiet", "--message-format=short"])
        .current_dir(&folder)
        .env("CLIPPY_CONF_DIR", clippy_file.parent().unwrap())
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cargo clippy failed; install it with `rustup component add clippy`: {said}"
    );
    let found = |number: usize| said.lines().any(|line| line.starts_with(&format!("src/lib.rs:{number}:")));
    let missed = (1..).zip(lines).filter(|(number, _)| !found(*number));
    missed.map(|(_, line)| format!("{}: not found: {line}", clippy_file.display())).collect()
}
