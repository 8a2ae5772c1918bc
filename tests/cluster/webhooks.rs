//! Webhooks of two hosts behind a load balancer: whichever host Twitch reaches, nothing is missed and the leader knows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventsubd::model::cluster::Role;
use eventsubd::sandbox::{Sandbox, SandboxOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::common::{output, port, quick};
use super::servers::{OLDEST, Servers};
use super::{FILE, Host, arrives, made_and_deleted, role};

/// A load balancer that forwards every connection to one port at a time.
struct Balancer {
    port: u16,
    state: Arc<Mutex<(u16, JoinSet<()>)>>,
}

impl Balancer {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new((to, JoinSet::new())));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut state = shared.lock().unwrap();
                let to = state.0;
                state.1.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await {
                        // Either side may go at any time.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { port, state }
    }

    /// Forwards to another port from here on, and ends the connections that there are.
    fn send_to(&self, port: u16) {
        let mut state = self.state.lock().unwrap();
        state.0 = port;
        state.1 = JoinSet::new();
    }
}

/// The stand-in with tries as fast as a test wants them.
fn calling() -> SandboxOptions {
    let mut options = quick();
    options.webhook.retries = vec![Duration::from_millis(50); 100];
    options
}

/// Has a host listen for webhooks that come to the balancer's port.
fn listen(host: &Host, balancer: u16, port: u16, transport: &str) {
    let config = fs::read_to_string(host.path("config.toml")).unwrap();
    let (before, after) =
        config.split_once("[transport.conduit]\nshards = 2\nkeepalive = \"10s\"\n").unwrap();
    let webhook = format!(
        "[transport.webhook]\ncallback = \"http://127.0.0.1:{balancer}/eventsub\"\nlisten = \"127.0.0.1:{port}\"\n\
         secret_file = \"webhook_secret\"\n"
    );
    fs::write(host.path("config.toml"), format!("{before}{transport}\n{webhook}{after}")).unwrap();
    fs::write(host.path("webhook_secret"), "the-same-on-every-host").unwrap();
    fs::set_permissions(host.path("webhook_secret"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// A leader and a host that stands by, and the balancer that sends everything to the leader.
async fn two_hosts(sandbox: &Sandbox, nats: &str, transport: &str) -> (Balancer, [Host; 2], [u16; 2]) {
    let ports = [port(), port()];
    let balancer = Balancer::start(ports[0]).await;
    let mut hosts = ["web-1", "web-2"].map(|name| Host::new(sandbox, nats, name, FILE));
    for (host, port) in hosts.iter_mut().zip(ports) {
        listen(host, balancer.port, port, transport);
        host.start();
        host.until("it knows the leader", |status| {
            status.cluster.as_ref().is_some_and(|cluster| cluster.leader.as_deref() == Some("web-1"))
        })
        .await;
    }
    (balancer, hosts, ports)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_may_reach_any_host() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(calling()).await.unwrap();
    let transport = "[transport]\nmethod = \"webhook\"\n";
    let (balancer, [mut first, second], ports) = two_hosts(&sandbox, &servers.urls(), transport).await;
    first.leads().await;
    assert_eq!(made_and_deleted(&sandbox), (4, 0, 0));
    arrives(&sandbox, &[&first]).await;

    // The other host answers the challenges of the subscriptions that the leader makes.
    balancer.send_to(ports[1]);
    let longer = FILE.replace("\"bob\"", "\"bob\", \"cat\"");
    for (host, name, port) in [(&second, "web-2", ports[1]), (&first, "web-1", ports[0])] {
        host.configure(&sandbox, &servers.urls(), name, &longer);
        listen(host, balancer.port, port, transport);
        assert!(output(host.command(&["reload"])).await.status.success(), "{}", host.log());
    }
    first.leads().await;
    assert_eq!(made_and_deleted(&sandbox), (6, 0, 0));
    arrives(&sandbox, &[&second]).await;

    // A revocation reaches the other host, and the leader acts on it long before it would compare.
    let revoked = sandbox.subscriptions()[0].id.clone();
    sandbox.revoke_subscription(&revoked, "authorization_revoked").await;
    first.until("it knows of the revocation", |status| status.subscription_counts.parked == 1).await;

    balancer.send_to(ports[0]);
    arrives(&sandbox, &[&first]).await;
    first.leads().await;
    let (made, deleted, conduits) = made_and_deleted(&sandbox);
    first.kill();
    balancer.send_to(ports[1]);
    arrives(&sandbox, &[&second]).await;
    second.leads().await;
    arrives(&sandbox, &[&second]).await;
    // The parked subscription is tried once more.
    assert_eq!(made_and_deleted(&sandbox), (made + 1, deleted, conduits), "{}", second.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_that_call_may_reach_any_host() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(calling()).await.unwrap();
    let transport = "[transport.conduit]\nshards = 2\nshard_transport = \"webhook\"\n";
    let (balancer, [mut first, second], ports) = two_hosts(&sandbox, &servers.urls(), transport).await;
    let status = first.leads().await;
    assert!(status.shards.len() == 2 && sandbox.sessions().is_empty(), "{:?}", status.shards);
    arrives(&sandbox, &[&first]).await;
    balancer.send_to(ports[1]);
    arrives(&sandbox, &[&second]).await;
    let before = made_and_deleted(&sandbox);
    assert_eq!(role(&first.answer().await), Role::Leader);
    first.kill();
    balancer.send_to(ports[1]);
    arrives(&sandbox, &[&second]).await;
    second.leads().await;
    arrives(&sandbox, &[&second]).await;
    assert_eq!(made_and_deleted(&sandbox), before, "{}", second.log());
}
