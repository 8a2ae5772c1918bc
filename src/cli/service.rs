//! Rights of the service of a configuration, which `check` as root cannot try: it runs as a user of its own, with less of
//! the file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lines::{Line, Mark, line};
use crate::config::{self, Loaded, SinkKind};

/// The user of the units.
const USER: &str = "eventsubd";
/// Folders that `ProtectHome=yes` hides ("systemd.exec").
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// The service of a unit.
#[derive(Clone, Debug)]
struct Service {
    unit: String,
    /// Ids of the user, if it is there.
    user: Option<User>,
    /// Folders that it may write to.
    writable: Vec<PathBuf>,
    sees_homes: bool,
}

/// Ids that decide what a user may do with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    id: u32,
    groups: Vec<u32>,
}

/// Access to a file or a folder, as a bit of its mode.
#[derive(Clone, Copy)]
enum Right {
    Read = 4,
    /// Run a file, or enter a folder.
    Execute = 1,
}

/// A remark for each file that the service may not read, and each sink that it cannot serve.
pub(super) fn remarks(file: &Path, loaded: &Loaded) -> Vec<Line> {
    let file = config::absolute(file);
    let Some(service) = Service::of(&file) else { return Vec::new() };
    let files = [file].into_iter().chain(loaded.files.iter().cloned());
    let unreadable =
        files.filter_map(|file| service.why_not_read(&file)).map(|text| line("service", Mark::Remark, text));
    let remarks = loaded.config.sinks.iter().filter_map(|(name, sink)| {
        let text = match &sink.kind {
            SinkKind::File(file) => service.why_not_written(&file.path),
            SinkKind::Command(command) => service.why_not_run(&command.folder.join(&command.program)),
            _ => None,
        };
        text.map(|text| line("service", Mark::Remark, format!("sink {name}: {text}")))
    });
    unreadable.chain(remarks).collect()
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
            user: {
                let text = |path| fs::read_to_string(path).unwrap_or_default();
                user(&text("/etc/passwd"), &text("/etc/group"))
            },
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

    fn is_hidden(&self, path: &Path) -> bool {
        !self.sees_homes && HOMES.iter().any(|home| path.starts_with(home))
    }

    fn why_not_read(&self, file: &Path) -> Option<String> {
        let shown = file.display();
        if self.is_hidden(file) {
            return Some(format!(
                "the service sees nothing of {shown}, since its unit has ProtectHome=yes: put the file elsewhere, for \
                 example into /etc/eventsubd"
            ));
        }
        let user = self.user.as_ref()?;
        if let Some(closed) = closed_folder(file, user) {
            return Some(format!(
                "the user {USER} may not read {shown}: `chmod o+x {}` lets it into the folder",
                closed.display()
            ));
        }
        (!user.may(Right::Read, file))
            .then(|| format!("the user {USER} may not read {shown}: `chown {USER} {shown}` lets it"))
    }

    fn why_not_run(&self, program: &Path) -> Option<String> {
        let shown = program.display();
        if self.is_hidden(program) {
            return Some(format!(
                "the service sees nothing of {shown}, since its unit has ProtectHome=yes: put the program elsewhere, \
                 for example into /usr/local/bin"
            ));
        }
        let user = self.user.as_ref()?;
        let denied = closed_folder(program, user)
            .or_else(|| (!user.may(Right::Execute, program)).then_some(program))?;
        Some(format!("the user {USER} may not run {shown}: `chmod o+x {}` lets it", denied.display()))
    }
}

/// The settings that `systemctl edit` has added to a unit.
fn drop_ins(unit: &str) -> String {
    let folder = format!("/etc/systemd/system/{unit}.service.d");
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
}

/// The ids of the service's user in the texts of `/etc/passwd` and `/etc/group`.
fn user(passwd: &str, group: &str) -> Option<User> {
    let (id, own) = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(USER)).then_some(())?;
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        Some((uid.parse().ok()?, gid.parse().ok()?))
    })?;
    let member_of = group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, id, members] = fields[..] else { return None };
        members.split(',').any(|member| member == USER).then(|| id.parse().ok())?
    });
    Some(User { id, groups: std::iter::once(own).chain(member_of).collect() })
}

/// The first folder on the way to a file that this user may not enter.
fn closed_folder<'a>(file: &'a Path, user: &User) -> Option<&'a Path> {
    let folders = file.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    folders.filter(|folder| !user.may(Right::Execute, folder)).last()
}

impl User {
    /// Whether the mode of a file allows this. Something that is not there is reported elsewhere.
    fn may(&self, right: Right, path: &Path) -> bool {
        let Ok(found) = fs::metadata(path) else { return true };
        let shift = match (found.uid() == self.id, self.groups.contains(&found.gid())) {
            (true, _) => 6,
            (false, true) => 3,
            _ => 0,
        };
        found.mode() >> shift & right as u32 != 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn service() -> Service {
        Service {
            unit: "eventsubd".to_owned(),
            user: Some(User { id: 4_000_000_001, groups: vec![4_000_000_001] }),
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
    fn secrets_that_the_user_may_not_read_are_named() {
        let text = service().why_not_read(Path::new("/root/secret")).unwrap();
        assert!(text.contains("ProtectHome=yes"), "{text}");
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(folder.path(), 0o755);
        let secret = folder.path().join("secret");
        fs::write(&secret, "s3cret").unwrap();
        mode(&secret, 0o600);
        let shown = secret.display();
        let text = service().why_not_read(&secret).unwrap();
        assert_eq!(
            text,
            format!("the user eventsubd may not read {shown}: `chown eventsubd {shown}` lets it")
        );
        let owner = fs::metadata(&secret).unwrap();
        let with = |id, group| Service { user: Some(User { id, groups: vec![group] }), ..service() };
        assert_eq!(with(owner.uid(), 4_000_000_001).why_not_read(&secret), None);
        mode(&secret, 0o640);
        assert_eq!(with(4_000_000_001, owner.gid()).why_not_read(&secret), None);
        mode(folder.path(), 0o700);
        let text = service().why_not_read(&secret).unwrap();
        assert!(text.contains(&format!("`chmod o+x {}`", folder.path().display())), "{text}");
        mode(folder.path(), 0o755);
        assert_eq!(Service { user: None, ..service() }.why_not_read(&secret), None, "a dynamic user");
    }

    #[test]
    fn the_user_is_found_in_passwd_and_its_groups_in_group() {
        let passwd = "root:x:0:0:r:/:/bin/sh\neventsubd:!*:998:997::/:/bin/false\n";
        let group = "root:x:0:\nssl-cert:x:110:www,eventsubd\nother:x:111:eventsubd2\n";
        assert_eq!(user(passwd, group), Some(User { id: 998, groups: vec![997, 110] }));
        assert_eq!(user("root:x:0:0::/:/bin/sh\n", group), None);
    }
}
