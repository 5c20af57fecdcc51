//! The rules themselves: each takes what it judges and returns what is wrong, so that each can be shown a violation.

use super::{Crate, TextFile};

/// A crate and the crates of the workspace that it may know.
pub type Edges<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// Dependencies within the workspace that are not in `allowed`, and crates that it does not name.
pub fn edges(crates: &[Crate], allowed: &[Edges<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for found in crates {
        let Some((_, code, tests)) = allowed.iter().find(|(name, _, _)| *name == found.name) else {
            wrong.push(format!(
                "{} is not in the table of crates: say there what it may depend on",
                found.name
            ));
            continue;
        };
        for name in found.dependencies.iter().filter(|name| !code.contains(&name.as_str())) {
            wrong.push(format!("{} depends on {name}: dependencies point one way", found.name));
        }
        let in_tests = found.dev_dependencies.iter();
        for name in in_tests.filter(|name| !code.contains(&name.as_str()) && !tests.contains(&name.as_str()))
        {
            wrong.push(format!("tests of {} depend on {name}: dependencies point one way", found.name));
        }
    }
    let gone = allowed.iter().filter(|(name, _, _)| !crates.iter().any(|found| found.name == *name));
    wrong.extend(
        gone.map(|(name, _, _)| format!("{name} is in the table of crates, but not in the workspace")),
    );
    wrong
}

/// Crates of `forbidden` in a dependency tree, unless they come by a way that `excused` names: (crate, its user, why).
pub fn tree(text: &str, forbidden: &[&str], excused: &[(&str, &str, &str)]) -> Vec<String> {
    let mut above: Vec<&str> = Vec::new();
    let mut wrong = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (depth, package) = line.split_once(' ').unwrap_or((line, ""));
        let (Ok(depth), Some(name)) = (depth.parse::<usize>(), package.split(' ').next()) else {
            wrong.push(format!("not a line of cargo tree: {line}"));
            continue;
        };
        above.truncate(depth);
        let user = above.last().copied().unwrap_or_default();
        let is_excused = excused.iter().any(|(found, by, _)| *found == name && *by == user);
        if forbidden.contains(&name) && !is_excused {
            wrong.push(format!("{name} comes by {}", [&above[..], &[name]].concat().join(" -> ")));
        }
        above.push(name);
    }
    if above.is_empty() {
        wrong.push("the tree is empty".to_owned());
    }
    wrong
}

/// Unsafe code, and leave given for it, in files that `modules` does not name.
pub fn unsafe_code(files: &[TextFile], modules: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let sources =
        files.iter().filter(|file| file.path.ends_with(".rs") && !modules.contains(&file.path.as_str()));
    for file in sources {
        for (number, line) in (1..).zip(file.text.lines()) {
            let code = line.split("//").next().unwrap_or_default();
            let opens = code.match_indices("unsafe").any(|(at, word)| {
                let (before, after) = (&code[..at], code[at + word.len()..].trim_start());
                let starts_word = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"');
                starts_word
                    && ["{", "fn ", "impl", "trait ", "extern "].iter().any(|next| after.starts_with(next))
            });
            let leave = ["allow", "expect", "warn"]
                .iter()
                .any(|level| code.contains(&format!("{level}(unsafe_code")));
            if opens || leave {
                wrong.push(format!(
                    "{}:{number}: unsafe code belongs into a module that is named for it",
                    file.path
                ));
            }
        }
    }
    wrong
}

/// Source files over `most` lines that `listed` does not excuse, and excuses that are not needed.
pub fn lengths(files: &[TextFile], most: usize, listed: &[(&str, &str)]) -> Vec<String> {
    let is_code = |path: &str| [".rs", ".py", ".sh", ".toml"].iter().any(|end| path.ends_with(end));
    let long = |file: &TextFile| file.text.lines().count() > most;
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| is_code(&file.path) && long(file)) {
        if !listed.iter().any(|(path, _)| *path == file.path) {
            let lines = file.text.lines().count();
            wrong.push(format!("{} has {lines} lines, more than {most}: split it by subject", file.path));
        }
    }
    for (path, _) in listed {
        if !files.iter().any(|file| file.path == *path && long(file)) {
            wrong.push(format!(
                "{path} is listed as longer than {most} lines, but is not: take it from the list"
            ));
        }
    }
    wrong
}

/// Operators without a section of their own: a heading with their name in backquotes.
pub fn operator_sections(names: &[&str], reference: &str) -> Vec<String> {
    let headings: Vec<&str> = reference.lines().filter(|line| line.starts_with('#')).collect();
    let has_one = |name: &str| headings.iter().any(|heading| heading.contains(&format!("`{name}`")));
    let missing = names.iter().filter(|name| !has_one(name));
    missing.map(|name| format!("docs/operators.md has no section with `{name}` in its heading")).collect()
}

/// Manifests of crates that do not take the workspace's lints.
pub fn lints(files: &[TextFile]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        match file.text.parse::<toml::Table>() {
            Err(error) => wrong.push(format!("{}: {error}", file.path)),
            // A manifest with a workspace of its own is not part of this one.
            Ok(manifest) if manifest.contains_key("workspace") => {}
            Ok(manifest) => {
                let taken = manifest.get("lints").and_then(|lints| lints.get("workspace"));
                if taken.and_then(toml::Value::as_bool) != Some(true) {
                    wrong.push(format!("{}: add `[lints] workspace = true`", file.path));
                }
            }
        }
    }
    wrong
}

/// Paths that exist on one machine only.
pub fn machine_paths(files: &[TextFile]) -> Vec<String> {
    // Put together here, so that this file does not name them.
    let marks = ["work", "home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let mut wrong = Vec::new();
    for file in files {
        for (number, line) in (1..).zip(file.text.lines()) {
            let found = marks.iter().find(|mark| {
                line.match_indices(mark.as_str()).any(|(at, _)| {
                    // A path begins here: not the middle of an address, a relative path or a longer one.
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~*$}/".contains(c))
                })
            });
            if let Some(mark) = found {
                wrong.push(format!("{}:{number}: {mark} is a path of one machine", file.path));
            }
        }
    }
    wrong
}

/// Clippy's files: those in `strict` are there and equal, and no other stands below the root.
pub fn clippy_files(files: &[TextFile], strict: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let text = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    for path in strict {
        match text(path) {
            None => wrong.push(format!("{path} is missing")),
            found if found != text(strict[0]) => wrong.push(format!("{path} differs from {}", strict[0])),
            Some(_) => {}
        }
    }
    let named = |path: &str| path.ends_with("clippy.toml") && path != "clippy.toml";
    for file in files.iter().filter(|file| named(&file.path) && !strict.contains(&file.path.as_str())) {
        wrong.push(format!("{} takes the place of the rules above it", file.path));
    }
    wrong
}

/// Links of Markdown files to files that are not there, and source files that they name in backquotes and that are gone.
pub fn stale_names(files: &[TextFile], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in (1..).zip(file.text.lines()) {
            let links = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
            for link in links.filter(|link| !link.is_empty() && !link.contains(':')) {
                if !exists(&joined(folder, link)) {
                    wrong.push(format!("{}:{number}: links to {link}, which is not there", file.path));
                }
            }
            for name in line.split('`').skip(1).step_by(2).filter(|name| is_source(name)) {
                let end = format!("/{name}");
                if !files.iter().any(|other| other.path == name || other.path.ends_with(&end)) {
                    wrong.push(format!("{}:{number}: names {name}, which is not there", file.path));
                }
            }
        }
    }
    wrong
}

/// Whether text in backquotes is the path of a source file, and no pattern.
fn is_source(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
    plain && [".rs", ".avsc", ".py"].iter().any(|end| name.ends_with(end) && name.len() > end.len())
}

/// A link's target from the root of the repository.
fn joined(folder: &str, link: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Crates whose code, not only whose tests, switches on `feature` of `of`.
pub fn feature_users(manifests: &[TextFile], of: &str, feature: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in manifests.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let Ok(manifest) = file.text.parse::<toml::Table>() else { continue };
        let workspace = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
        for table in [manifest.get("dependencies"), workspace].into_iter().flatten() {
            let features =
                table.get(of).and_then(|found| found.get("features")).and_then(toml::Value::as_array);
            if features.is_some_and(|features| features.iter().any(|found| found.as_str() == Some(feature))) {
                wrong.push(format!("{} switches on {of}/{feature} outside of tests", file.path));
            }
        }
    }
    wrong
}
