//! Lists our modules and the crates that are built in, for the check of `log.level` (`src/config/log.rs`).

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let mut modules = vec!["eventsubd".to_owned()];
    collect(Path::new("src"), "eventsubd", &mut modules)?;
    write(&out.join("modules.rs"), modules)?;
    let lock = fs::read_to_string("Cargo.lock")?;
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    write(&out.join("crates.rs"), names.map(|name| name.replace('-', "_")).collect())
}

/// The modules below a folder, by the names of their files.
fn collect(folder: &Path, parent: &str, modules: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let module = format!("{parent}::{stem}");
        if path.is_dir() {
            collect(&path, &module, modules)?;
        } else if path.extension().is_none_or(|kind| kind != "rs") || ["lib", "main", "mod"].contains(&stem) {
            continue;
        }
        modules.push(module);
    }
    Ok(())
}

/// Writes an array of strings.
fn write(path: &Path, mut names: Vec<String>) -> io::Result<()> {
    names.sort_unstable();
    names.dedup();
    fs::write(path, format!("{names:?}"))
}
