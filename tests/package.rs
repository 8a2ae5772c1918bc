//! The Debian package: built from this build's binary by `.ci/package`, looked at, and installed, upgraded, removed and
//! purged in a Debian of its own. It takes root, debootstrap and dpkg-dev.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SOURCES: &str = env!("CARGO_MANIFEST_DIR");
const CONFIG: &str = "etc/eventsubd/config.toml";
const SECRET: &str = "etc/eventsubd/client_secret";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_owned();
    command.output().unwrap_or_else(|error| panic!("{}: {error}; tests/run installs it", program.display()))
}

/// Returns the output of a command that has to succeed.
fn ok(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The unit files of the project, by name.
fn units() -> Vec<String> {
    let folder = fs::read_dir(Path::new(SOURCES).join("systemd")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut units: Vec<_> =
        names.filter(|name| name.ends_with(".service") || name.ends_with(".socket")).collect();
    units.sort();
    assert!(units.contains(&"eventsubd.service".to_owned()), "{units:?}");
    units
}

/// The package with the binary of this test's build.
fn package() -> PathBuf {
    let mut build = Command::new(Path::new(SOURCES).join(".ci/package"));
    build.arg(env!("CARGO_BIN_EXE_eventsubd"));
    // A person who runs the tests as an ordinary user keeps the files below target/.
    if let Ok(ids) = std::env::var("TESTS_RUN_BY") {
        let (user, group) = ids.split_once(' ').unwrap();
        build.uid(user.parse().unwrap()).gid(group.parse().unwrap());
    }
    let said = ok(&mut build);
    let path = Path::new(SOURCES).join(said.lines().last().expect("it prints a path").trim());
    assert!(path.is_file(), "{said}");
    path
}

/// Each path of the package, with its mode and owner as `tar` shows them.
fn listed(package: &Path) -> BTreeMap<String, String> {
    let list = ok(Command::new("dpkg-deb").arg("--contents").arg(package));
    list.lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let (mode, owner) = (words.next().unwrap(), words.next().unwrap());
            (words.nth(3).unwrap().trim_start_matches("./").to_owned(), format!("{mode} {owner}"))
        })
        .collect()
}

/// A Debian to install it in; gone with this.
struct Debian {
    root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Debian {
    /// A copy of one that is made once, of the same release as this machine, so that the binary finds its libraries.
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "it takes root to install a package");
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
        ok(Command::new(Path::new(SOURCES).join("tests/systemd-root")).arg("build").arg(&kept));
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let root = folder.path().join("root");
        ok(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(kept.join("root")).arg(&root));
        // As if systemd ran, with a `systemctl` that only writes down what it is asked.
        fs::create_dir_all(root.join("run/systemd/system")).unwrap();
        fs::remove_file(root.join("usr/bin/systemctl")).unwrap();
        fs::write(root.join("usr/bin/systemctl"), "#!/bin/sh\necho \"$@\" >>/systemctl.log\n").unwrap();
        fs::set_permissions(root.join("usr/bin/systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { root, _folder: folder }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(arguments).env_clear().env("DEBIAN_FRONTEND", "noninteractive");
        run(command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root"))
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    }

    fn install(&self, package: &Path) -> String {
        fs::copy(package, self.root.join("tmp/package.deb")).unwrap();
        let said = self.ok(&["dpkg", "--force-confold", "--install", "/tmp/package.deb"]);
        fs::remove_file(self.root.join("tmp/package.deb")).unwrap();
        said
    }

    fn state(&self) -> String {
        let output =
            self.run(&["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Version}", "eventsubd"]);
        text(&output.stdout)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn exists(&self, path: &str) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }

    /// Returns the calls of `systemctl` since the last time.
    fn asked(&self) -> String {
        let log = self.root.join("systemctl.log");
        let said = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        said
    }

    /// Every path with the program's name in it.
    fn traces(&self) -> Vec<String> {
        let found = ok(Command::new("find").arg(&self.root).args(["-name", "*eventsubd*"]));
        found.lines().map(str::to_owned).collect()
    }
}

/// The same package as version `-2`, with another configuration in it.
fn next_version(package: &Path, folder: &Path) -> PathBuf {
    let tree = folder.join("next");
    ok(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&tree));
    let control = fs::read_to_string(tree.join("DEBIAN/control")).unwrap();
    let version = control.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap();
    let next = format!("{}-2", version.strip_suffix("-1").unwrap());
    fs::write(tree.join("DEBIAN/control"), control.replace(version, &next)).unwrap();
    let config = fs::read_to_string(tree.join(CONFIG)).unwrap();
    fs::write(tree.join(CONFIG), format!("{config}# More is explained now.\n")).unwrap();
    let path = folder.join("next.deb");
    ok(Command::new("dpkg-deb").args(["-Zgzip", "-z1", "--build"]).arg(&tree).arg(&path));
    path
}

fn check_contents(package: &Path, folder: &Path) {
    let files = listed(package);
    for (path, what) in &files {
        let (mode, owner) = what.split_once(' ').unwrap();
        assert!(["0/0", "root/root"].contains(&owner), "{path} belongs to {owner}");
        let expected = match path.as_str() {
            path if path.ends_with('/') => "drwxr-xr-x",
            "usr/bin/eventsubd" => "-rwxr-xr-x",
            CONFIG => "-rw-r-----",
            _ => "-rw-r--r--",
        };
        assert_eq!(mode, expected, "{path}");
        let known = ["usr/", "etc/"].iter().any(|top| path.starts_with(top)) || path.is_empty();
        assert!(known && !path.starts_with("usr/local"), "{path} is in the wrong place");
        let manual = path.starts_with("usr/share/man/") && !path.ends_with('/');
        assert!(!manual || path.ends_with(".gz"), "{path} is not compressed");
    }
    for path in [
        "usr/bin/eventsubd",
        CONFIG,
        "usr/lib/systemd/system/eventsubd.service",
        "usr/share/man/man1/eventsubd.1.gz",
        "usr/share/man/man1/eventsubd-check.1.gz",
        "usr/share/man/man5/eventsubd.toml.5.gz",
        "usr/share/bash-completion/completions/eventsubd",
        "usr/share/zsh/vendor-completions/_eventsubd",
        "usr/share/fish/vendor_completions.d/eventsubd.fish",
        "usr/share/doc/eventsubd/README.md",
        "usr/share/doc/eventsubd/docs/operating.md",
        "usr/share/doc/eventsubd/docs/images/page-light.png",
        "usr/share/doc/eventsubd/changelog.gz",
        "usr/share/doc/eventsubd/changelog.Debian.gz",
        "usr/share/doc/eventsubd/copyright",
        "usr/share/doc/eventsubd/third-party.gz",
        "usr/share/doc/eventsubd/examples/config.toml",
        "usr/share/doc/eventsubd/contrib/cluster/compose.yaml",
        "usr/share/doc/eventsubd/contrib/cluster/nats.conf",
        "usr/share/doc/eventsubd/contrib/grafana/eventsubd.json",
        "usr/share/doc/eventsubd/contrib/prometheus/eventsubd.rules.yml",
    ] {
        assert!(files.contains_key(path), "{path} is not in the package");
    }
    for unit in units() {
        assert!(
            files.contains_key(&format!("usr/lib/systemd/system/{unit}")),
            "{unit} is not in the package"
        );
    }

    let control = folder.join("control");
    ok(Command::new("dpkg-deb").arg("--control").arg(package).arg(&control));
    assert_eq!(fs::read_to_string(control.join("conffiles")).unwrap().trim(), format!("/{CONFIG}"));
    let fields = ok(Command::new("dpkg-deb").arg("--field").arg(package));
    for field in
        ["Package: eventsubd\n", "Section: net\n", "Priority: optional\n", "Maintainer: ", "Depends: libc6 "]
    {
        assert!(fields.contains(field), "{field:?} is not in\n{fields}");
    }
    let summary = fields.lines().find(|line| line.starts_with("Description: ")).unwrap();
    assert!(summary.len() <= "Description: ".len() + 80, "{summary}");
    for script in ["postinst", "prerm", "postrm"] {
        let path = control.join(script);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755, "{script}");
        ok(Command::new("sh").arg("-n").arg(&path));
        assert!(!fs::read_to_string(&path).unwrap().contains("#DEBHELPER#"), "{script}");
    }
}

#[test]
fn the_package_comes_and_goes_as_debian_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let package = package();
    check_contents(&package, folder.path());

    let debian = Debian::new();
    let said = debian.install(&package);
    assert!(said.contains("systemctl enable --now eventsubd"), "it says what to do:\n{said}");
    assert!(debian.state().starts_with("ii "), "{}", debian.state());
    let secret = fs::metadata(debian.root.join(SECRET)).unwrap();
    assert_eq!((secret.mode() & 0o777, secret.uid(), secret.len()), (0o600, 0, 0));
    assert!(debian.read("etc/passwd").lines().any(|line| line.starts_with("eventsubd:")));
    let shown = debian.ok(&["stat", "-c", "%U:%G %a", &format!("/{CONFIG}")]);
    assert_eq!(shown, "root:eventsubd 640\n", "the daemon reads it, other users do not");
    // Neither started nor enabled: there is no client id yet.
    let asked = debian.asked();
    assert!(asked.contains("daemon-reload"), "{asked}");
    assert!(!asked.lines().any(|line| line.contains("start") || line.contains("enable")), "{asked}");
    assert!(!debian.exists("etc/systemd/system/multi-user.target.wants/eventsubd.service"));

    assert_eq!(
        debian.ok(&["eventsubd", "--version"]),
        concat!("eventsubd ", env!("CARGO_PKG_VERSION"), "\n")
    );
    for page in ["man1/eventsubd.1.gz", "man5/eventsubd.toml.5.gz"] {
        let page = debian.root.join("usr/share/man").join(page);
        assert!(ok(Command::new("mandoc").args(["-T", "ascii"]).arg(page)).contains("eventsubd"));
    }
    // The installed program says what is missing, and nothing else is.
    let check = debian.run(&["eventsubd", "check"]);
    let said = text(&check.stdout);
    assert_eq!(check.status.code(), Some(78), "{said}{}", text(&check.stderr));
    assert!(said.contains("`twitch.client_id` is missing") && said.contains("it is empty"), "{said}");
    assert_eq!(said.matches("error:").count(), 2, "{said}");
    let edited = debian.read(CONFIG).replace("# client_id = \"your client id\"", "client_id = \"mine\"");
    let edited = ["[[subscription]]", "type = [", "broadcaster = "]
        .iter()
        .fold(edited, |text, line| text.replace(&format!("# {line}"), line));
    fs::write(debian.root.join(CONFIG), &edited).unwrap();
    fs::write(debian.root.join(SECRET), "the-secret\n").unwrap();
    let check = debian.run(&["eventsubd", "check"]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
    assert!(text(&check.stdout).contains("4 subscriptions (2 types, 2 logins)"), "{}", text(&check.stdout));

    // An upgrade restarts what runs, and keeps what a person has written.
    debian.install(&next_version(&package, folder.path()));
    assert!(debian.state().ends_with("-2"), "{}", debian.state());
    assert_eq!(debian.read(CONFIG), edited);
    assert_eq!(debian.read(SECRET), "the-secret\n");
    let asked = debian.asked();
    let units: Vec<_> = units().into_iter().filter(|unit| !unit.contains('@')).collect();
    let units = units.join(" ");
    for line in [&format!("try-restart {units}"), "try-restart eventsubd@*.service"] {
        assert!(asked.lines().any(|asked| asked == line), "{line}:\n{asked}");
    }
    assert!(!asked.lines().any(|line| line.starts_with("stop") || line.starts_with("start")), "{asked}");

    // Removing it stops the daemons, and keeps everything that is not the program.
    let others = ["var/lib/eventsubd-exporter", "var/log/eventsubd-exporter"];
    let ours =
        ["var/lib/eventsubd", "var/lib/eventsubd-two", "var/log/eventsubd-two", "etc/eventsubd/certificates"];
    for path in [&ours[..], &others].concat() {
        fs::create_dir_all(debian.root.join(path)).unwrap();
        fs::write(debian.root.join(path).join("file"), "data").unwrap();
    }
    fs::create_dir_all(debian.root.join("etc/eventsubd/two")).unwrap();
    fs::write(debian.root.join("etc/eventsubd/two/config.toml"), "data").unwrap();
    debian.ok(&["dpkg", "--remove", "eventsubd"]);
    assert!(debian.state().starts_with("rc "), "{}", debian.state());
    assert!(
        !debian.exists("usr/bin/eventsubd") && !debian.exists("usr/lib/systemd/system/eventsubd.service")
    );
    assert_eq!(debian.read(CONFIG), edited);
    assert_eq!(debian.read(SECRET), "the-secret\n");
    assert!(debian.exists("var/lib/eventsubd/file") && debian.exists("etc/eventsubd/two/config.toml"));
    let asked = debian.asked();
    for line in [&format!("stop {units}"), "stop eventsubd@*.service"] {
        assert!(asked.lines().any(|asked| asked == line), "{line}:\n{asked}");
    }
    debian.install(&package);
    assert_eq!(debian.read(CONFIG), edited, "it is there again as it was");

    debian.ok(&["dpkg", "--purge", "eventsubd"]);
    assert!(!debian.state().starts_with("ii") && !debian.state().starts_with("rc"), "{}", debian.state());
    let left = others.map(|path| debian.root.join(path).display().to_string());
    let mut traces = debian.traces();
    traces.sort();
    assert_eq!(traces, left, "nothing is left but what belongs to another package");
}
