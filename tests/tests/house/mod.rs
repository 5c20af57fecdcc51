//! What the house rules are checked on: the repository's files, its crates and their dependencies.

pub mod checks;

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the repository.
pub struct TextFile {
    /// Its path from the repository's root, with `/`.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// A crate of the workspace, with the crates of the workspace it depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// What its code depends on.
    pub dependencies: Vec<String>,
    /// What only its tests depend on.
    pub dev_dependencies: Vec<String>,
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the repository").to_owned()
}

/// Every text file of the repository, by path. Target folders and data are left out.
pub fn text_files() -> Vec<TextFile> {
    let root = root();
    let mut files = Vec::new();
    walk(&root, &root, &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<TextFile>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            // Cargo marks every target folder with this tag, whatever its name.
            let made = path.join("CACHEDIR.TAG").exists()
                || path == root.join("data")
                || path == root.join("target");
            if name != ".git" && !made {
                walk(root, &path, files);
            }
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let path = path.strip_prefix(root).expect("the path lies below the root");
            files.push(TextFile { path: path.to_string_lossy().replace('\\', "/"), text });
        }
    }
}

/// The crates of the workspace, as cargo knows them.
pub fn crates() -> Vec<Crate> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline", "--locked"]);
    let metadata: serde_json::Value = serde_json::from_str(&text).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    let members: Vec<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().expect("cargo lists dependencies");
            let of = |dev: bool| {
                let kind = |value: &serde_json::Value| value["kind"].as_str() == Some("dev");
                let found = all.iter().filter(|dependency| kind(dependency) == dev).map(name);
                let mut found: Vec<String> = found.filter(|name| members.contains(name)).collect();
                found.sort();
                found
            };
            Crate { name: name(package), dependencies: of(false), dev_dependencies: of(true) }
        })
        .collect()
}

/// All that a crate's code depends on, as `cargo tree` shows it: each line a depth and a package.
pub fn tree(name: &str) -> String {
    cargo(&["tree", "--offline", "--locked", "-e", "normal", "--prefix", "depth", "-f", " {p}", "-p", name])
}

/// What cargo writes to its standard output.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {}: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}
