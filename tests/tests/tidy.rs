//! House rules that neither rustfmt nor clippy checks, over every file that people write.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A file that is longer has more than one thing in it.
const LINES_MAX: usize = 400;

/// Words after a mark that make it a reason rather than a note to oneself.
const REASON_WORDS_MIN: usize = 3;

/// Macros that stand for work not done or for debugging. (In two parts, so that this file passes.)
const UNDONE: [&str; 3] = [concat!("to", "do!"), concat!("db", "g!"), concat!("unim", "plemented!")];

/// Marks of work left. (In two parts, as above.)
const MARKS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Macros that write to the terminal, which belongs to the command.
const PRINTS: [&str; 4] = ["println!", "eprintln!", "print!", "eprint!"];

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

/// What the rules need to know of a file besides its text.
#[derive(Clone, Copy)]
struct Kind {
    /// Part of a library crate, which neither prints nor gives up.
    library: bool,
    /// Test code as a whole: it may print, and it fails by panicking.
    test: bool,
}

/// True when `text` contains `word` with nothing before it that makes it part of a longer word.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

/// The lines of a Rust file (from 0) that belong to an inline `#[cfg(test)]` item. rustfmt puts the
/// item's closing brace at the column of its attribute, which is how the end is found.
fn test_lines(text: &str) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    let mut end: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(closing) = &end {
            lines.insert(index);
            let ended =
                line == closing || (line.ends_with(';') && line.starts_with(&closing.replace('}', "mod ")));
            if ended {
                end = None;
            }
        } else if line.trim() == "#[cfg(test)]" {
            lines.insert(index);
            end = Some(line.replace("#[cfg(test)]", "}"));
        }
    }
    lines
}

/// The files that `#[cfg(test)] mod name;` in the Rust file at `path` makes test code.
fn test_files(path: &Path, text: &str) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap_or_default();
    let parent = path.parent().unwrap_or(Path::new(""));
    let is_root = ["lib", "main", "mod"].iter().any(|root| stem == *root);
    let folder = if is_root { parent.to_owned() } else { parent.join(stem) };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    let names = pairs.filter_map(|pair| pair[1].strip_prefix("mod ")?.strip_suffix(';'));
    names.flat_map(|name| [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]).collect()
}

/// Rules for any text file.
fn check_text(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut find = |what: String| findings.push(Finding { path: path.into(), line: index + 1, what });
        if line.contains('\t') {
            find("a tab: indent with spaces".into());
        }
        for mark in MARKS.iter().filter(|mark| has_word(line, mark)) {
            let reason = line.split_once(mark).map_or("", |(_, after)| after);
            if reason.split_whitespace().count() < REASON_WORDS_MIN {
                find(format!("{mark} without a reason: do it, or say what it waits for"));
            }
        }
    }
    findings
}

/// Rules for a Rust file.
fn check_rust(path: &Path, text: &str, kind: Kind) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        let what = format!("{lines} lines, and {LINES_MAX} are the most: split it by what it knows");
        findings.push(Finding { path: path.into(), line: LINES_MAX + 1, what });
    }
    let in_test = test_lines(text);
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        let mut find = |what: String| findings.push(Finding { path: path.into(), line: index + 1, what });
        for undone in UNDONE.iter().filter(|undone| has_word(line, undone)) {
            find(format!("{undone}: finish the work or take it out"));
        }
        if !kind.library || kind.test || in_test.contains(&index) {
            continue;
        }
        for print in PRINTS.iter().filter(|print| has_word(line, print)) {
            find(format!("{print} in a library: use tracing, or return what the caller shall print"));
        }
        if line.contains(".unwrap()") {
            find(".unwrap() in a library: return an error, or assert with the values".into());
        }
    }
    findings
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this crate").to_owned()
}

/// Every file below `folder`, sorted. Build outputs and hidden folders are not people's.
fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder entry").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_ours = name != "target" && (!name.starts_with('.') || name == ".ci");
        if path.is_dir() && is_ours {
            files_below(&path, files);
        } else if path.is_file() && is_ours {
            files.push(path);
        }
    }
}

/// True for a file of a library crate: all of `crates/` but the command's.
fn is_library(path: &Path) -> bool {
    path.starts_with("crates") && !path.starts_with("crates/hoist-cli")
}

#[test]
fn every_file_is_tidy() {
    let root = workspace();
    let mut paths = Vec::new();
    files_below(&root, &mut paths);
    let is_text = |path: &&PathBuf| {
        let extension = path.extension().unwrap_or_default();
        ["rs", "toml", "md"].iter().any(|text| extension == *text)
            || path.ends_with("justfile")
            || path.ends_with("run")
    };
    let mut findings = Vec::new();
    let mut texts = Vec::new();
    for path in paths.iter().filter(is_text) {
        let relative = path.strip_prefix(&root).expect("below the root").to_owned();
        match fs::read_to_string(path) {
            Ok(text) => texts.push((relative, text)),
            Err(error) => {
                findings.push(Finding { path: relative, line: 1, what: format!("{error}: save it as UTF-8") })
            }
        }
    }
    let rust =
        || texts.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(
        rust().count() > 50,
        "only {} Rust files below {}: the walk is broken",
        rust().count(),
        root.display()
    );
    let tests: BTreeSet<_> = rust().flat_map(|(path, text)| test_files(path, text)).collect();
    for (path, text) in rust() {
        let test = tests.contains(path) || path.components().any(|part| part.as_os_str() == "tests");
        findings.extend(check_rust(path, text, Kind { library: is_library(path), test }));
    }
    findings.extend(texts.iter().flat_map(|(path, text)| check_text(path, text)));
    let list: Vec<_> = findings.iter().map(Finding::to_string).collect();
    assert!(list.is_empty(), "\n{}\n", list.join("\n"));
}

mod rules {
    use super::*;

    const LIBRARY: Kind = Kind { library: true, test: false };
    const COMMAND: Kind = Kind { library: false, test: false };

    fn lines(findings: Vec<Finding>) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    fn rust(text: &str, kind: Kind) -> Vec<usize> {
        lines(check_rust(Path::new("crates/x/src/a.rs"), text, kind))
    }

    #[test]
    fn a_finding_names_file_and_line_and_what_to_do() {
        let found = check_rust(Path::new("crates/x/src/a.rs"), "fn f() {\n    x.unwrap();\n}\n", LIBRARY);
        let expected =
            "crates/x/src/a.rs:2: .unwrap() in a library: return an error, or assert with the values";
        assert_eq!(found[0].to_string(), expected);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(rust(&"x;\n".repeat(LINES_MAX), LIBRARY), []);
        assert_eq!(rust(&"x;\n".repeat(LINES_MAX + 1), LIBRARY), [LINES_MAX + 1]);
    }

    #[test]
    fn undone_work_is_found_everywhere() {
        for undone in UNDONE {
            assert_eq!(rust(&format!("a;\n{undone}(1);\n"), COMMAND), [2]);
            assert_eq!(rust(&format!("my_{undone}(1);\n// {undone}\n"), COMMAND), []);
        }
    }

    #[test]
    fn prints_are_found_in_libraries_only() {
        for print in PRINTS {
            let text = format!(
                "#[cfg(test)]\nmod tests {{\n    {print}(\"\");\n}}\nfn f() {{\n    {print}(\"\");\n}}\n"
            );
            assert_eq!(rust(&text, LIBRARY), [6]);
            assert_eq!(rust(&text, COMMAND), []);
        }
    }

    #[test]
    fn unwrap_is_for_tests() {
        let text = "#[cfg(test)]\nmod tests {\n    a.unwrap();\n}\n\nfn f() {\n    b.unwrap();\n}\n";
        assert_eq!(rust(text, LIBRARY), [7]);
        assert_eq!(rust(text, Kind { library: true, test: true }), []);
        assert_eq!(rust("#[cfg(test)]\nmod model;\nfn f() { b.unwrap() }\n", LIBRARY), [3]);
        assert_eq!(rust("/// Doc: `a.unwrap()`\nfn f() {}\n", LIBRARY), []);
    }

    #[test]
    fn modules_for_tests_are_known_by_their_declaration() {
        let text = "mod a;\n#[cfg(test)]\nmod model;\n";
        let found = test_files(Path::new("crates/x/src/lib.rs"), text);
        assert!(found.contains(&PathBuf::from("crates/x/src/model.rs")), "{found:?}");
        let found = test_files(Path::new("crates/x/src/ring.rs"), text);
        assert!(found.contains(&PathBuf::from("crates/x/src/ring/model.rs")), "{found:?}");
    }

    #[test]
    fn tabs_and_marks_without_a_reason_are_found() {
        let (first, second) = (MARKS[0], MARKS[1]);
        let text = format!(
            "a\n\tb\n// {first}\n// {second}: later\n// {first}: when the kernel has clone buffers\n"
        );
        assert_eq!(lines(check_text(Path::new("README.md"), &text)), [2, 3, 4]);
    }
}
