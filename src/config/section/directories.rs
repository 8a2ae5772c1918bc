//! Location of the state directory and the control socket.

use std::path::{Path, PathBuf};

use crate::config::files::Folder;
use crate::config::keys::environment::Environment;
use crate::config::keys::table;
use crate::config::locate;
use crate::config::options::{LoadOptions, SOCKET};
use crate::config::report::problems::{At, Problems};

const NAME: &str = "eventsubd";
/// The folder with the state directories of sandboxes.
const SANDBOXES: &str = "eventsubd-sandbox";
/// `sun_path` of Linux has 108 bytes, the last one of which is zero.
const MAX_SOCKET: usize = 107;

/// The state and the runtime directory of the unit whose file this is: `eventsubd.service` for
/// `/etc/eventsubd/config.toml`, `eventsubd@NAME.service` for `/etc/eventsubd/NAME/config.toml`.
pub fn unit_directories(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let parts: Vec<&str> =
        path.strip_prefix("/etc/eventsubd").ok()?.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    let unit = match *parts {
        ["config.toml"] => NAME.to_owned(),
        [instance, "config.toml"] if instance != ".." => format!("{NAME}-{instance}"),
        _ => return None,
    };
    Some((Path::new("/var/lib").join(&unit), Path::new("/run").join(&unit)))
}

/// The folder with the state of this user's programs.
fn state_home(env: &Environment) -> Option<PathBuf> {
    // The XDG Base Directory Specification calls relative paths invalid.
    let absolute = |name| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local/state"));
    absolute("XDG_STATE_HOME").or_else(home)
}

/// The folder with the state directories of this user's sandboxes.
pub fn sandbox_folder(env: &Environment) -> Option<PathBuf> {
    state_home(env).map(|path| path.join(SANDBOXES))
}

/// The state directory and the control socket. Relative paths of keys start in `folder`.
pub(in crate::config) fn find(
    options: &LoadOptions,
    state: &table::State,
    admin: &table::Admin,
    folder: &Folder,
    problems: &mut Problems,
) -> (PathBuf, PathBuf) {
    let env = &options.env;
    // A sandbox must touch neither the state of the daemon that runs from the same file nor another file's sandbox.
    let apart = options.sandbox && options.state_dir.is_none();
    let key = state.directory.as_ref().filter(|_| !apart).map(|path| folder.join(path));
    let found = options
        .state_dir
        .clone()
        .or(key)
        .or_else(|| env.directory("STATE_DIRECTORY"))
        .or_else(|| state_home(env).map(|path| path.join(NAME)));
    let Some(mut directory) = found else {
        problems
            .error(At::Nowhere, "there is no state directory")
            .hint("give one with `--state-dir DIR`, or set `directory` in `[state]`");
        return Default::default();
    };
    if apart {
        // systemd gives a unit that one directory, so there the sandboxes are inside.
        match env.directory("STATE_DIRECTORY") {
            Some(_) => directory.push(SANDBOXES),
            None => directory.set_file_name(SANDBOXES),
        }
        directory.push(locate::mark(&options.path));
    }
    let key = admin.socket.as_ref().map(|path| folder.join(path));
    let runtime = || env.directory("RUNTIME_DIRECTORY").map(|path| path.join(SOCKET));
    let socket = if options.sandbox { None } else { key.or_else(runtime) };
    let socket = socket.unwrap_or_else(|| directory.join(SOCKET));
    let length = socket.as_os_str().len();
    if length > MAX_SOCKET {
        problems
            .error(
                At::Nowhere,
                format!("the path of the control socket is too long: {length} of {MAX_SOCKET} bytes"),
            )
            .hint("set `socket` in `[admin]` to a shorter path");
    }
    (directory, socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_unit_tells_its_directories() {
        let pair = |state: &str, runtime: &str| Some((PathBuf::from(state), PathBuf::from(runtime)));
        for (path, expected) in [
            ("/etc/eventsubd/config.toml", pair("/var/lib/eventsubd", "/run/eventsubd")),
            ("/etc/eventsubd/two/config.toml", pair("/var/lib/eventsubd-two", "/run/eventsubd-two")),
            ("/etc/eventsubd/../config.toml", None),
            ("/etc/eventsubd/two/three/config.toml", None),
            ("/etc/eventsubd/other.toml", None),
            ("/etc/eventsubd", None),
            ("etc/eventsubd/config.toml", None),
            ("/home/me/config.toml", None),
        ] {
            assert_eq!(unit_directories(Path::new(path)), expected, "{path}");
        }
    }
}
