//! `eventsubd man`: the manual, generated from the definition of flags and the table of keys.
//!
//! There is a page for the program, one for each command, and one for the configuration file.

mod commands;
mod file;
mod names;
mod program;
mod roff;

use std::fs;
use std::path::Path;

use self::names::{file_name, short};
use super::args::{Args, ManArgs};
use super::command;
use super::term::{self, Failure};

/// A page, ready for `man`.
#[derive(Debug)]
struct RenderedPage {
    /// File name of the page, such as `eventsubd-check.1`.
    file: String,
    /// Source in roff.
    text: String,
}

pub(super) fn run(args: &Args, flags: &ManArgs) -> Result<u8, Failure> {
    let pages = all();
    if let Some(folder) = &flags.out {
        return write_all(args, &pages, folder);
    }
    let wanted = file_name(flags.page.as_deref().unwrap_or("eventsubd"));
    match pages.iter().find(|page| page.file == wanted) {
        Some(page) => term::write(page.text.as_bytes()),
        None => {
            let known: Vec<_> = pages.iter().map(|page| short(&page.file)).collect();
            Err(Failure::new(format!("there is no page {}", flags.page.as_deref().unwrap_or_default()))
                .hint(format!("there are: {}", known.join(", "))))
        }
    }
}

/// Renders every page: the program, the file, the commands.
fn all() -> Vec<RenderedPage> {
    let mut root = command::command().disable_help_subcommand(true);
    root.build();
    let mut pages = vec![
        RenderedPage { file: "eventsubd.1".to_owned(), text: program::page(&root) },
        RenderedPage { file: "eventsubd.toml.5".to_owned(), text: file::page() },
    ];
    for sub in root.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        pages.push(RenderedPage {
            file: format!("eventsubd-{}.1", sub.get_name()),
            text: commands::page(sub),
        });
    }
    pages
}

fn write_all(args: &Args, pages: &[RenderedPage], folder: &Path) -> Result<u8, Failure> {
    let failure = |path: &Path, error: &std::io::Error| {
        Failure::new(format!("cannot write {}", path.display())).caused_by(error)
    };
    fs::create_dir_all(folder).map_err(|error| failure(folder, &error))?;
    for page in pages {
        let path = folder.join(&page.file);
        fs::write(&path, &page.text).map_err(|error| failure(&path, &error))?;
    }
    args.say(&format!("{} pages are in {}", pages.len(), folder.display()));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_name() {
        let pages = all();
        assert!(pages.len() > 10);
        for page in &pages {
            assert_eq!(file_name(short(&page.file)), page.file);
        }
        assert_eq!(file_name("eventsubd-dead-letters"), "eventsubd-dead-letters.1");
    }
}
