//! Rights of the service of a configuration, which `check` as root cannot try: it runs as a user of its own, with less of
//! the file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lines::{Line, Mark, line};
use crate::config::{self, Config, SinkKind};

/// The user of the units.
const USER: &str = "eventsubd";
/// Folders that `ProtectHome=yes` hides ("systemd.exec").
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// The service of a unit.
#[derive(Clone, Debug)]
struct Service {
    unit: String,
    /// User and group id, if the user is there.
    user: Option<(u32, u32)>,
    /// Folders that it may write to.
    writable: Vec<PathBuf>,
    sees_homes: bool,
}

/// A remark for each sink that the service of this file cannot serve.
pub(super) fn remarks(file: &Path, config: &Config) -> Vec<Line> {
    let Some(service) = Service::of(&config::absolute(file)) else { return Vec::new() };
    let remarks = config.sinks.iter().filter_map(|(name, sink)| {
        let text = match &sink.kind {
            SinkKind::File(file) => service.why_not_written(&file.path),
            SinkKind::Command(command) => service.why_not_run(&command.folder.join(&command.program)),
            _ => None,
        };
        text.map(|text| line("service", Mark::Remark, format!("sink {name}: {text}")))
    });
    remarks.collect()
}

impl Service {
    fn of(file: &Path) -> Option<Self> {
        let (state, runtime) = config::unit_directories(file)?;
        let name = state.file_name()?.to_str()?.to_owned();
        let unit = match name.strip_prefix("eventsubd-") {
            Some(instance) => format!("eventsubd@{instance}"),
            None => name.clone(),
        };
        let settings = drop_ins(&unit);
        let values = |key: &str| -> Vec<String> {
            settings.lines().filter_map(|line| line.trim().strip_prefix(key)).map(str::to_owned).collect()
        };
        let more = values("ReadWritePaths=").join(" ");
        let more = more.split_whitespace().map(|path| PathBuf::from(path.trim_start_matches(['-', '+'])));
        let sees_homes = values("ProtectHome=").last().is_some_and(|value| value != "yes" && value != "true");
        Some(Self {
            user: user(&fs::read_to_string("/etc/passwd").unwrap_or_default()),
            writable: [state, runtime, Path::new("/var/log").join(&name)].into_iter().chain(more).collect(),
            unit,
            sees_homes,
        })
    }

    fn why_not_written(&self, path: &Path) -> Option<String> {
        if self.writable.iter().any(|folder| path.starts_with(folder)) {
            return None;
        }
        let folder = path.parent().unwrap_or(path).display();
        Some(format!(
            "the service may not write to {folder}: run `systemctl edit {}`, and add ReadWritePaths={folder} below \
             [Service]; the folder has to belong to the user {USER}",
            self.unit
        ))
    }

    fn why_not_run(&self, program: &Path) -> Option<String> {
        let shown = program.display();
        if !self.sees_homes && HOMES.iter().any(|home| program.starts_with(home)) {
            return Some(format!(
                "the service sees nothing of {shown}, since its unit has ProtectHome=yes: put the program elsewhere, \
                 for example into /usr/local/bin"
            ));
        }
        let user = self.user?;
        let denied =
            program.ancestors().find(|path| !path.as_os_str().is_empty() && !may_execute(path, user))?;
        Some(format!("the user {USER} may not run {shown}: `chmod o+x {}` lets it", denied.display()))
    }
}

/// The settings that `systemctl edit` has added to a unit.
fn drop_ins(unit: &str) -> String {
    let folder = format!("/etc/systemd/system/{unit}.service.d");
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
}

/// The ids of the service's user in the text of `/etc/passwd`.
fn user(passwd: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(USER)).then_some(())?;
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        Some((uid.parse().ok()?, gid.parse().ok()?))
    })
}

/// Whether this user may run a file, or enter a folder. Something that is not there is reported elsewhere.
fn may_execute(path: &Path, (uid, gid): (u32, u32)) -> bool {
    let Ok(found) = fs::metadata(path) else { return true };
    let shift = match (found.uid() == uid, found.gid() == gid) {
        (true, _) => 6,
        (false, true) => 3,
        _ => 0,
    };
    found.mode() >> shift & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn service() -> Service {
        Service {
            unit: "eventsubd".to_owned(),
            user: Some((4_000_000_001, 4_000_000_001)),
            writable: vec!["/var/lib/eventsubd".into(), "/srv/events".into()],
            sees_homes: false,
        }
    }

    #[test]
    fn files_outside_the_writable_folders_get_the_setting_that_is_missing() {
        let why = |path: &str| service().why_not_written(Path::new(path));
        assert_eq!(why("/var/lib/eventsubd/events.jsonl"), None);
        assert_eq!(why("/srv/events/a.jsonl"), None);
        let text = why("/data/a.jsonl").unwrap();
        assert!(
            text.contains("`systemctl edit eventsubd`") && text.contains("ReadWritePaths=/data "),
            "{text}"
        );
    }

    #[test]
    fn programs_that_the_user_cannot_reach_are_named() {
        let text = service().why_not_run(Path::new("/home/ann/on-event.py")).unwrap();
        assert!(text.contains("ProtectHome=yes"), "{text}");
        assert_eq!(Service { sees_homes: true, ..service() }.why_not_run(Path::new("/home/nobody/x")), None);
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(folder.path(), 0o755);
        let program = folder.path().join("hook");
        fs::write(&program, "").unwrap();
        mode(&program, 0o755);
        assert_eq!(service().why_not_run(&program), None);
        mode(&program, 0o750);
        let text = service().why_not_run(&program).unwrap();
        assert!(text.contains(&format!("`chmod o+x {}`", program.display())), "{text}");
        mode(&program, 0o755);
        mode(folder.path(), 0o700);
        let text = service().why_not_run(&program).unwrap();
        assert!(text.contains(&format!("`chmod o+x {}`", folder.path().display())), "{text}");
    }

    #[test]
    fn the_user_is_found_in_passwd() {
        assert_eq!(user("root:x:0:0:r:/:/bin/sh\neventsubd:!*:998:997::/:/bin/false\n"), Some((998, 997)));
        assert_eq!(user("root:x:0:0::/:/bin/sh\n"), None);
    }
}
