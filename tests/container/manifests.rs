//! The manifests in `contrib/` for Compose, Podman and Kubernetes.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::common::EXE;
use crate::{USER, ok, source};

const COMPOSE: &str = "contrib/compose/compose.yaml";
const CLUSTER: &str = "contrib/cluster/compose.yaml";
const QUADLET: &str = "contrib/podman/eventsubd.container";
const KUBERNETES: &str = "contrib/kubernetes/eventsubd.yaml";

fn image() -> String {
    format!("ghcr.io/eventsubd/eventsubd:{}", env!("CARGO_PKG_VERSION"))
}

/// The documents of a YAML file, as JSON.
fn documents(text: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.argv[1]))))";
    let printed = ok(python().args(["-c", script, text]));
    serde_json::from_str(&printed).unwrap()
}

/// Python with the packages of `requirements.txt`.
fn python() -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", source("tests/container/site-packages"));
    command
}

/// Checks that these words are a command of this build. Words behind `--help` are read before the help is printed.
fn is_command(words: &[&str]) {
    let (program, arguments) = words.split_first().unwrap();
    assert_eq!(*program, "/usr/bin/eventsubd");
    ok(Command::new(EXE).args(arguments).arg("--help"));
}

#[test]
fn compose_accepts_its_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(source(COMPOSE), folder.path().join("compose.yaml")).unwrap();
    fs::write(folder.path().join("client_secret"), "").unwrap();
    let compose = |arguments: &[&str]| {
        let mut command = Command::new("docker-compose");
        ok(command.current_dir(folder.path()).args(["--file", "compose.yaml"]).args(arguments))
    };
    let read = documents(&compose(&["config"]));
    let service = &read[0]["services"]["eventsubd"];
    assert_eq!(service["image"], image());
    let volumes: Vec<_> =
        service["volumes"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert!(volumes.iter().any(|volume| volume.ends_with("/config:/etc/eventsubd:ro")), "{volumes:?}");
    assert!(volumes.contains(&"state:/var/lib/eventsubd:rw"), "{volumes:?}");
    assert_eq!(service["secrets"][0]["source"], "client_secret");
    let text = fs::read_to_string(source(COMPOSE)).unwrap();
    assert!(text.contains(&format!("chown {USER} client_secret")));
    let mut commands = 0;
    for line in text.lines().filter_map(|line| line.split("exec eventsubd ").nth(1)) {
        is_command(&line.split_whitespace().collect::<Vec<_>>());
        commands += 1;
    }
    assert_eq!(commands, 2);
}

#[test]
fn compose_accepts_the_file_for_three_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(source(CLUSTER)).unwrap();
    fs::write(folder.path().join("compose.yaml"), &text).unwrap();
    fs::write(folder.path().join("client_secret"), "").unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let env: Vec<&str> = lines.filter(|line| !line.contains(' ') && line.contains('=')).collect();
    assert_eq!(env.len(), 7, "{env:?}");
    fs::write(folder.path().join(".env"), env.join("\n")).unwrap();
    let mut command = Command::new("docker-compose");
    command.current_dir(folder.path()).args(["--file", "compose.yaml", "config"]);
    let output = command.output().unwrap();
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !warnings.contains("not set"), "{warnings}");
    let read = documents(&String::from_utf8(output.stdout).unwrap());
    let (daemon, nats) = (&read[0]["services"]["eventsubd"], &read[0]["services"]["nats"]);
    assert_eq!(daemon["image"], image());
    assert_eq!(daemon["environment"]["EVENTSUBD_CLUSTER__HOST"], "web-1");
    let addresses = "nats://eventsubd:a-long-random-text@n1:4222,nats://n2:4222,nats://n3:4222";
    assert_eq!(daemon["environment"]["EVENTSUBD_CLUSTER__NATS"], addresses);
    assert_eq!(nats["environment"]["NATS_ROUTE3"], "nats://routes:another-one@n3:6222");
    let conf = fs::read_to_string(source("contrib/cluster/nats.conf")).unwrap();
    for name in nats["environment"].as_object().unwrap().keys() {
        assert!(conf.contains(&format!("${name}")), "nats.conf does not read {name}");
    }
    assert!(text.contains(&format!("chown {USER} client_secret")));
    let commands: Vec<_> = text.lines().filter_map(|line| line.split("exec eventsubd ").nth(1)).collect();
    assert_eq!(commands.len(), 2);
    commands.iter().for_each(|line| is_command(&line.split_whitespace().collect::<Vec<_>>()));
}

#[test]
fn systemd_accepts_the_units_for_three_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(source("contrib/cluster/nats-server.service")).unwrap();
    let nats = folder.path().join("nats-server.service");
    // Neither the program nor the user is here.
    let text = text.replace("/usr/local/bin/nats-server", "/bin/true").replace("=nats\n", "=root\n");
    fs::write(&nats, text).unwrap();
    let unit = folder.path().join("eventsubd.service");
    let drop_in = folder.path().join("eventsubd.service.d");
    fs::create_dir(&drop_in).unwrap();
    fs::copy(source("contrib/cluster/eventsubd.conf"), drop_in.join("cluster.conf")).unwrap();
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    let output =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).args([&nats, &unit]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Keys of podman-systemd.unit(5) that the unit may use.
const CONTAINER_KEYS: [&str; 12] = [
    "Image",
    "ContainerName",
    "Notify",
    "ReadOnly",
    "DropCapability",
    "NoNewPrivileges",
    "Volume",
    "Secret",
    "HealthCmd",
    "HealthInterval",
    "HealthStartPeriod",
    "PublishPort",
];

#[test]
fn the_unit_for_podman_has_known_keys_and_the_same_paths_as_the_image() {
    let text = fs::read_to_string(source(QUADLET)).unwrap();
    let mut section = "";
    let mut sections = BTreeSet::new();
    let mut container = Vec::new();
    let mut rest = String::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            sections.insert(name);
        }
        match line.split_once('=') {
            Some((key, value)) if section == "Container" => {
                assert!(CONTAINER_KEYS.contains(&key), "{line}");
                container.push((key, value));
            }
            _ if section != "Container" => {
                rest.push_str(line);
                rest.push('\n');
                if line == "[Service]" {
                    rest.push_str("Type=notify\nExecStart=/bin/true\n");
                }
            }
            _ => {}
        }
    }
    assert_eq!(sections, BTreeSet::from(["Unit", "Container", "Service", "Install"]));
    assert!(container.contains(&("Image", &image())), "{container:?}");
    let value = |key: &str| container.iter().find(|pair| pair.0 == key).expect(key).1;
    assert!(value("Secret").contains(&format!("target=client_secret,uid={USER},gid={USER}")));
    let health: Vec<String> =
        serde_json::from_str(value("HealthCmd")).expect("a list, since there is no shell");
    is_command(&health.iter().map(String::as_str).collect::<Vec<_>>());
    for line in text.lines().filter_map(|line| line.split("exec eventsubd ").nth(1)) {
        is_command(&line.split_whitespace().collect::<Vec<_>>());
    }
    // The other sections are systemd's. The program is not installed here, and the check would miss it.
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("eventsubd.service");
    fs::write(&unit, rest.replace("ExecReload=/usr/bin/podman", "ExecReload=/bin/echo")).unwrap();
    ok(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
}

#[test]
fn kubernetes_accepts_its_manifests() {
    let text = fs::read_to_string(source(KUBERNETES)).unwrap();
    let said = ok(python().args(["-m", "kubernetes_validate", "--strict"]).arg(source(KUBERNETES)));
    assert!(said.contains("StatefulSet") || said.contains("passed"), "{said}");
    let documents = documents(&text);
    assert_eq!(documents.len(), 2);
    let pod = &documents[0]["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsUser"], USER);
    assert_eq!(pod["securityContext"]["fsGroup"], USER);
    let container = &pod["containers"][0];
    assert_eq!(container["image"], image());
    let mounts: BTreeSet<_> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    assert_eq!(mounts, BTreeSet::from(["/etc/eventsubd", "/run/secrets", "/var/lib/eventsubd"]));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let words = container[probe]["exec"]["command"].as_array().expect(probe);
        is_command(&words.iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>());
    }
}

#[test]
fn a_mistake_in_a_manifest_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.yaml");
    let text = fs::read_to_string(source(KUBERNETES)).unwrap();
    assert!(text.contains("runAsNonRoot"));
    fs::write(&path, text.replace("runAsNonRoot", "runAsNoRoot")).unwrap();
    let output = python().args(["-m", "kubernetes_validate", "--strict"]).arg(&path).output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
