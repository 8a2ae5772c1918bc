//! The container image and what starts it: built from a static binary of this source by `.ci/static` and `.ci/image`, and
//! run as its ordinary user in a root with nothing else in it. It takes root (for `chroot`), buildah and qemu.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

#[path = "../common/mod.rs"]
mod common;
mod manifests;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Home, SECRET, WAIT, output, quick, text};

const USER: u32 = 65_532;

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a command that has to succeed, and returns what it prints.
fn ok(command: &mut Command) -> String {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; tests/run installs it", program.display()));
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Builds a static binary of this source. A person who runs the tests as an ordinary user keeps the files below target/.
fn static_binary(arch: &str) -> PathBuf {
    let mut build = Command::new(source(".ci/static"));
    build.args(["--debug", arch]);
    if let Ok(ids) = std::env::var("TESTS_RUN_BY") {
        let (user, group) = ids.split_once(' ').unwrap();
        build.uid(user.parse().unwrap()).gid(group.parse().unwrap());
    }
    let said = ok(&mut build);
    let path = PathBuf::from(said.lines().last().expect("a path").trim());
    let headers = ok(Command::new("readelf").arg("--program-headers").arg("--wide").arg(&path));
    assert!(headers.contains("LOAD") && !headers.contains("INTERP"), "{arch} is not static: {headers}");
    path
}

/// An image unpacked: its root, and its configuration.
struct Image {
    _folder: tempfile::TempDir,
    root: PathBuf,
    config: Value,
}

impl Image {
    fn build(arch: &str, binary: &Path) -> Self {
        let said = ok(Command::new(source(".ci/image")).arg(arch).arg(binary));
        let archive = PathBuf::from(said.lines().last().expect("a path").trim());
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (parts, root) = (folder.path().join("parts"), folder.path().join("root"));
        for path in [&parts, &root] {
            fs::create_dir(path).unwrap();
        }
        ok(Command::new("tar").arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(&parts));
        let read =
            |name: &str| -> Value { serde_json::from_slice(&fs::read(parts.join(name)).unwrap()).unwrap() };
        let manifest = read("manifest.json");
        let layers = manifest[0]["Layers"].as_array().unwrap();
        assert!(!layers.is_empty(), "{manifest}");
        for layer in layers {
            let layer = parts.join(layer.as_str().unwrap());
            ok(Command::new("tar")
                .args(["--extract", "--numeric-owner", "--same-owner", "--same-permissions"])
                .arg("--file")
                .arg(layer)
                .arg("--directory")
                .arg(&root));
        }
        let config = read(manifest[0]["Config"].as_str().unwrap());
        Self { root, config, _folder: folder }
    }

    fn words(&self, key: &str) -> Vec<String> {
        let words =
            self.config["config"][key].as_array().unwrap_or_else(|| panic!("{key} in {}", self.config));
        words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    /// The command that a container runtime would start, as the image's user, with the image's environment only.
    fn command(&self, words: &[String]) -> Command {
        let user = self.config["config"]["User"].as_str().unwrap();
        let mut command = Command::new("chroot");
        command
            .arg(format!("--userspec={user}"))
            .arg(&self.root)
            .args(words)
            .env_clear()
            .stdin(Stdio::null());
        for variable in self.words("Env") {
            let (name, value) = variable.split_once('=').unwrap();
            command.env(name, value);
        }
        command
    }

    /// `eventsubd ARGUMENTS`, as `docker exec` starts it.
    async fn run(&self, arguments: &[&str]) -> Output {
        let words: Vec<_> = self
            .words("Entrypoint")
            .into_iter()
            .chain(arguments.iter().map(|&word| word.to_owned()))
            .collect();
        output(self.command(&words)).await
    }

    /// The health check that the image names.
    async fn health(&self) -> Output {
        let test = self.config["config"]["Healthcheck"]["Test"].as_array().expect("a health check");
        assert_eq!(test[0], "CMD", "there is no shell");
        let words: Vec<_> = test[1..].iter().map(|word| word.as_str().unwrap().to_owned()).collect();
        output(self.command(&words)).await
    }
}

/// The daemon in the image; killed when dropped.
struct Daemon(Child);

impl Daemon {
    async fn ended(&mut self) -> std::process::ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < WAIT, "the daemon does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything below a folder that is not a folder itself.
fn files(root: &Path) -> Vec<String> {
    let found = ok(Command::new("find").arg(root).args(["-not", "-type", "d", "-printf", "/%P\n"]));
    let mut files: Vec<_> = found.lines().map(str::to_owned).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_runs_as_its_user_in_a_root_with_nothing_else() {
    assert!(rustix::process::geteuid().is_root(), "it takes root to change the root");
    let image = Image::build("amd64", &static_binary("x86_64"));
    assert_eq!(files(&image.root), ["/etc/ssl/certs/ca-certificates.crt", "/usr/bin/eventsubd"]);
    assert_eq!(image.config["config"]["User"], format!("{USER}:{USER}"));
    assert_eq!(image.config["architecture"], "amd64");
    let state = fs::metadata(image.root.join("var/lib/eventsubd")).unwrap();
    assert_eq!((state.uid(), state.gid(), state.mode() & 0o7777), (USER, USER, 0o750));

    // Without a file, the daemon says so and ends; the health check fails.
    let missing = image.run(&["run"]).await;
    assert_eq!(missing.status.code(), Some(78), "{}", text(&missing.stderr));
    assert!(!image.health().await.status.success());

    // The file in its folder, and the secret behind links, as Kubernetes mounts it.
    let home = Home::new(quick()).await;
    let twitch: String = home
        .sandbox
        .twitch_block()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .fold(String::new(), |text, line| text + line + "\n");
    let twitch: String = twitch
        .lines()
        .filter(|line| !line.starts_with("client_secret"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::create_dir(image.root.join("etc/eventsubd")).unwrap();
    let config = format!(
        "{twitch}watch_grants = false\n\n[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n\n\
         [sink.log]\ntype = \"file\"\npath = \"/var/lib/eventsubd/events.jsonl\"\n"
    );
    fs::write(image.root.join("etc/eventsubd/config.toml"), config).unwrap();
    let secrets = image.root.join("run/secrets");
    fs::create_dir_all(secrets.join("..2026")).unwrap();
    fs::write(secrets.join("..2026/client_secret"), SECRET).unwrap();
    fs::set_permissions(secrets.join("..2026/client_secret"), fs::Permissions::from_mode(0o440)).unwrap();
    chown(secrets.join("..2026/client_secret"), Some(0), Some(USER)).unwrap();
    symlink("..2026", secrets.join("..data")).unwrap();
    symlink("..data/client_secret", secrets.join("client_secret")).unwrap();

    let words: Vec<_> = [image.words("Entrypoint"), image.words("Cmd")].concat();
    let log = image.root.parent().unwrap().join("log");
    let child = image.command(&words).stderr(fs::File::create(&log).unwrap()).stdout(Stdio::null()).spawn();
    let mut daemon = Daemon(child.unwrap());
    let begun = Instant::now();
    loop {
        let health = image.health().await;
        if health.status.success() {
            assert!(health.stdout.is_empty() && health.stderr.is_empty(), "{}", text(&health.stderr));
            break;
        }
        let said = || format!("{}{}", text(&health.stderr), fs::read_to_string(&log).unwrap());
        assert!(begun.elapsed() < WAIT && daemon.0.try_wait().unwrap().is_none(), "{}", said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status = image.run(&["status", "--wait", "--timeout", "60s"]).await;
    assert!(status.status.success(), "{}", text(&status.stderr));
    let id = home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    let path = image.root.join("var/lib/eventsubd/events.jsonl");
    let begun = Instant::now();
    while !fs::read_to_string(&path).unwrap_or_default().contains("stream.online") {
        assert!(begun.elapsed() < WAIT, "{id:?} does not arrive: {}", fs::read_to_string(&log).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    kill_process(Pid::from_child(&daemon.0), Signal::TERM).unwrap();
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", fs::read_to_string(&log).unwrap());
    assert!(!image.health().await.status.success(), "nobody answers any more");
}

#[test]
fn the_image_for_arm64_has_a_binary_that_runs() {
    let binary = static_binary("aarch64");
    let image = Image::build("arm64", &binary);
    assert_eq!(image.config["architecture"], "arm64");
    let program = image.root.join("usr/bin/eventsubd");
    let emulated = |arguments: &[&str]| {
        let mut command = Command::new("qemu-aarch64-static");
        ok(command.arg(&program).args(arguments).env_clear())
    };
    assert_eq!(emulated(&["--version"]).trim(), format!("eventsubd {}", env!("CARGO_PKG_VERSION")));
    assert!(emulated(&["types", "stream.online"]).contains("stream.online"));
}
