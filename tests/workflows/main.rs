//! The workflows for GitHub: actionlint finds nothing, actions are pinned, and their commands exist.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn workflows() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(".github/workflows")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert_eq!(paths.len(), 2, "{paths:?}");
    paths
}

/// Returns what actionlint says.
fn lint(paths: &[PathBuf]) -> Vec<Value> {
    let script = root().join("tests/workflows/lint.cjs");
    let output = Command::new("node").arg(script).args(paths).output();
    let output = output.expect("node is installed by tests/run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn actionlint_finds_nothing_wrong() {
    let found = lint(&workflows());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn actionlint_finds_a_mistake_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("release.yml");
    let text = fs::read_to_string(&workflows()[1]).unwrap();
    assert!(text.contains("github.token"));
    fs::write(&path, text.replace("github.token", "github.tokn")).unwrap();
    let found = lint(&[path]);
    assert!(found[0]["message"].as_str().unwrap().contains("tokn"), "{found:#?}");
}

#[test]
fn actions_are_pinned_to_a_commit_and_say_which_version_it_is() {
    let mut pinned = 0;
    for path in workflows() {
        let text = fs::read_to_string(&path).unwrap();
        for action in text.lines().filter_map(|line| line.split("uses: ").nth(1)) {
            let (commit, version) = action.split_once('@').unwrap().1.split_once(" # v").expect("a version");
            assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{action}");
            assert!(version.split('.').count() == 3, "{action}");
            pinned += 1;
        }
    }
    assert!(pinned > 5, "only {pinned} actions were found");
}

#[test]
fn the_scripts_and_folders_that_are_named_exist() {
    let mut named = 0;
    for path in workflows() {
        let text = fs::read_to_string(&path).unwrap();
        let words = text.split_whitespace().filter(|word| {
            word.starts_with(".ci/") || word.starts_with("tests/") || word.starts_with("packaging/")
        });
        for word in words.filter(|word| !word.contains('*')) {
            assert!(root().join(word).exists(), "{} names {word}", path.display());
            named += 1;
        }
    }
    assert!(named > 5, "only {named} were found");
    let dependabot = fs::read_to_string(root().join(".github/dependabot.yml")).unwrap();
    for folder in dependabot.split('"').skip(1).step_by(2) {
        assert!(root().join(folder.trim_start_matches('/')).is_dir(), "{folder}");
    }
}
