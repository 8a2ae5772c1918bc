//! TLS and logins, on real servers: no more rights than docs/several-hosts.md lists are needed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventsubd::sandbox::Sandbox;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::common::{WAIT, output, quick, text};
use super::host::Host;
use super::servers::{NEWEST, OLDEST, PASSWORD, Servers};
use super::{FILE, arrives, made_and_deleted};

/// The permissions that the page gives a user.
fn permissions() -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/several-hosts.md")).unwrap();
    let block = page.split("```text\n").find(|block| block.starts_with("permissions = ")).expect("the block");
    block.split("```").next().unwrap().to_owned()
}

/// The subjects of the page, after `publish =` or `subscribe =`.
fn subjects(of: &str) -> Vec<String> {
    let permissions = permissions();
    let list = permissions.split(&format!("{of} = [")).nth(1).unwrap().split(']').next().unwrap();
    list.split(',').map(|subject| subject.trim().trim_matches('"').to_owned()).collect()
}

/// Two hosts that trust the server's certificate; the second one takes over from the first.
async fn work(servers: &Servers, nats: &str, credentials: Option<&str>) {
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let mut hosts = Vec::new();
    for nth in 1..=2 {
        let mut host = Host::new(&sandbox, nats, &format!("web-{nth}"), FILE);
        let trusted = servers.path("cert.pem").display().to_string();
        host.environment = vec![("SSL_CERT_FILE".to_owned(), trusted)];
        if let Some(credentials) = credentials {
            let path = host.path("nats.creds");
            fs::write(&path, credentials).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            host.edit("[cluster]\n", "[cluster]\ncredentials = \"nats.creds\"\n");
        }
        // Servers that have just met need some seconds to be a cluster.
        let begun = Instant::now();
        loop {
            let answer = output(host.command(&["check", "--online"])).await;
            let said = text(&answer.stdout);
            if said.contains("NATS 2.") {
                break;
            }
            assert!(begun.elapsed() < WAIT, "{said}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        host.start();
        if nth == 1 {
            host.leads().await
        } else {
            host.stands_by().await
        };
        hosts.push(host);
    }
    let before = made_and_deleted(&sandbox);
    hosts[0].kill();
    hosts[1].leads().await;
    // A shard that the first host had is moved once that host counts as dead.
    hosts[1].until("it has all shards", |status| status.shards.len() == 2 && status.converged).await;
    arrives(&sandbox, &[&hosts[1]]).await;
    assert_eq!(made_and_deleted(&sandbox), before);
    let log = hosts[1].log();
    assert!(!log.contains("ermissions"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_rights_of_the_page_is_enough_over_tls() {
    let config = format!(
        "tls {{ cert_file: cert.pem, key_file: key.pem }}\nauthorization {{ users = [{{ user: bot, password: {PASSWORD}, \
         {} }}] }}\n",
        permissions()
    );
    for program in [OLDEST, NEWEST] {
        let servers = Servers::start_configured(program, 1, &config);
        let address = format!("localhost:{}", servers.port(0));
        work(&servers, &format!("tls://bot:{PASSWORD}@{address}"), None).await;

        let sandbox = Sandbox::start(quick()).await.unwrap();
        for (nats, trusts, problem) in [
            (format!("tls://bot:wrong@{address}"), true, "refuses the user"),
            (format!("tls://bot:{PASSWORD}@{address}"), false, "certificate"),
        ] {
            let mut host = Host::new(&sandbox, &nats, "web-1", FILE);
            if trusts {
                let trusted = servers.path("cert.pem").display().to_string();
                host.environment = vec![("SSL_CERT_FILE".to_owned(), trusted)];
            }
            let answer = output(host.command(&["check", "--online"])).await;
            let said = text(&answer.stdout) + &text(&answer.stderr);
            assert!(said.contains(problem) && !said.contains(PASSWORD), "{said}");
        }
    }
}

/// A signed token of NATS ("JWT" in its documentation).
fn token(signer: &KeyPair, subject: &KeyPair, name: &str, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let body = encode(&json!({
        "jti": name, "iat": 1_700_000_000, "iss": signer.public_key(), "sub": subject.public_key(), "name": name,
        "nats": claims,
    }));
    let signed = format!("{head}.{body}");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes()).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credentials_file_of_a_server_with_accounts_is_enough() {
    let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
    let (account, user) = (KeyPair::new_account(), KeyPair::new_user());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let root = json!({"type": "operator", "version": 2, "system_account": system.public_key()});
    let of_account = json!({"type": "account", "version": 2, "limits": limits});
    let of_system = json!({"type": "account", "version": 2, "limits": {
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    }});
    let of_user = json!({
        "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
        "pub": {"allow": subjects("publish")}, "sub": {"allow": subjects("subscribe")},
    });
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
        token(&operator, &operator, "operator", &root),
        system.public_key(),
        system.public_key(),
        token(&operator, &system, "SYS", &of_system),
        account.public_key(),
        token(&operator, &account, "bots", &of_account),
    );
    let servers = Servers::start_configured(NEWEST, 1, &config);
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n\
         ------END USER NKEY SEED------\n",
        token(&account, &user, "eventsubd", &of_user),
        user.seed().unwrap()
    );
    work(&servers, &servers.urls(), Some(&credentials)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_of_contrib_are_a_cluster_that_serves_eventsubd() {
    let config =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/cluster/nats.conf")).unwrap();
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(squeezed(&config).contains(&squeezed(&permissions())), "the page and the file differ");
    let servers = Servers::start_configured(OLDEST, 3, &config);
    work(&servers, &servers.urls().replacen("nats://", &format!("nats://eventsubd:{PASSWORD}@"), 1), None)
        .await;
}
