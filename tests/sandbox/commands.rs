//! `eventsubd sandbox …`: what Twitch would do by itself, by hand.

use std::process::Command;

use super::callback::*;
use super::common::{EXE, output, text};
use super::*;

impl Client {
    /// Runs a command; what it prints, or the error.
    async fn command(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(EXE);
        command.arg("sandbox").args(arguments).arg("--address").arg(self.sandbox.address().to_string());
        command.env_clear().env("HOME", "/nonexistent");
        let answer = output(command).await;
        if answer.status.success() { Ok(text(&answer.stdout)) } else { Err(text(&answer.stderr)) }
    }
}

#[tokio::test]
async fn trigger_reaches_every_matching_subscription_with_the_event_that_is_given() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    let (ann, bob) = (client.sandbox.user_id("ann").unwrap(), client.sandbox.user_id("bob").unwrap());
    for (path, id) in [("/1", &ann), ("/2", &ann), ("/3", &bob)] {
        client.enabled(hook(&callback.at(path), id)).await;
    }
    let printed = client.command(&["trigger", "stream.online", "--broadcaster", "ann"]).await.unwrap();
    let got = callback.notified(&client.sandbox, 2).await;
    assert_eq!(printed.lines().count(), 2);
    assert!(got.iter().all(|request| printed.contains(request.id())), "{printed}");
    assert_eq!(got[0].json()["event"], got[1].json()["event"], "one happening");

    let set = ["--set", "event.type=watch_party", "--set", "event.viewers=7", "--set", "event.id=\"7\""];
    let arguments = [&["trigger", "stream.online", "--broadcaster", "bob"][..], &set].concat();
    client.command(&arguments).await.unwrap();
    let event = callback.notified(&client.sandbox, 3).await.pop().unwrap();
    let event = event.body.split_once("\"event\":").unwrap().1.to_owned();
    assert!(event.starts_with("{\"id\":\"7\",\"broadcaster_user_id\":"), "members keep their order: {event}");
    assert!(event.contains("\"type\":\"watch_party\"") && event.ends_with("\"viewers\":7}}"), "{event}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("event.json");
    std::fs::write(&file, "{\"z\": 1.50, \"a\": \"ü\"}\n").unwrap();
    let file = file.to_str().unwrap();
    client.command(&["trigger", "stream.online", "--broadcaster", "bob", "--data", file]).await.unwrap();
    let body = callback.notified(&client.sandbox, 4).await.pop().unwrap().body;
    assert!(body.ends_with("\"event\":{\"z\": 1.50, \"a\": \"ü\"}}"), "{body}");

    std::fs::write(file, "[1]").unwrap();
    for (arguments, part) in [
        (&["trigger", "stream.onlin"][..], "there is no subscription type stream.onlin"),
        (&["trigger", "stream.offline"], "no enabled subscription fits"),
        (&["trigger", "stream.online", "--set", "title=x"], "does not begin with `event.`"),
        (&["trigger", "stream.online", "--set", "event.a.b=x"], "there is no member `a`"),
        (&["trigger", "stream.online", "--data", file], "must be an object"),
        (&["trigger", "stream.online", "--data", "/nonexistent"], "cannot read /nonexistent"),
    ] {
        let error = client.command(arguments).await.unwrap_err();
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
    assert_eq!(callback.got("notification").len(), 4, "what is refused sends nothing");
}

#[tokio::test]
async fn sessions_shards_subscriptions_and_grants_change_on_demand() {
    let client = Client::new(SandboxOptions { reconnect_grace: LIMIT, ..impatient() }).await;
    for (arguments, part) in [
        (&["reconnect"][..], "no WebSocket is connected"),
        (&["close", "Ago"], "there is no session Ago"),
        (&["disable"], "no enabled shard fits"),
        (&["revoke", "stream.online"], "no live subscription fits"),
        (&["revoke", "stream.online", "--status", "enabled"], "not a status that ends a subscription"),
        (&["grant", "missing_ann"], "there is no user missing_ann"),
        (&["moderator", "bot", "ann", "--remove"], "bot is not a moderator of ann"),
        (&["grant", "ann", "nonsense"], "no subscription type needs the scope `nonsense`"),
        (&["revoke"], "required"),
    ] {
        let error = client.command(arguments).await.unwrap_err();
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
    let conduit = client.conduit(2).await;
    let (mut socket, welcome) = open(&client.sandbox.eventsub_url()).await;
    let session = welcome["payload"]["session"]["id"].as_str().unwrap().to_owned();
    client.bind(&conduit, "0", &session).await;
    client.bind(&conduit, "1", &session).await;
    let of_client = |kind: &str| {
        json!({"type": kind, "version": "1", "condition": {"client_id": "sandbox"},
            "transport": {"method": "conduit", "conduit_id": conduit}})
    };
    for kind in ["user.authorization.grant", "user.authorization.revoke", "conduit.shard.disabled"] {
        assert_eq!(client.create(of_client(kind)).await.0, 202);
    }
    client.create(online(&conduit, "7")).await;
    let mut heard = async |kind: &str| loop {
        let message = next(&mut socket).await.unwrap();
        let of = &message["metadata"]["subscription_type"];
        if *of == kind || message["metadata"]["message_type"] == kind {
            return message["payload"].clone();
        }
    };
    let printed = client.command(&["moderator", "bot", "ann"]).await.unwrap();
    assert_eq!(printed, "bot is a moderator of ann\n");
    let printed = client.command(&["moderator", "bot", "ann", "--remove"]).await.unwrap();
    assert_eq!(printed, "bot is not a moderator of ann any more\n");
    let printed = client.command(&["grant", "ann", "bits:read"]).await.unwrap();
    assert_eq!(printed, "ann has granted bits:read\n");
    assert_eq!(heard("user.authorization.grant").await["event"]["user_login"], "ann");
    client.command(&["revoke", "--user", "ann"]).await.unwrap();
    assert_eq!(heard("user.authorization.revoke").await["event"]["user_login"], "ann");
    client.command(&["revoke", "stream.online", "--status", "user_removed"]).await.unwrap();
    assert_eq!(heard("revocation").await["subscription"]["status"], "user_removed");
    client.command(&["disable", "1", "--conduit", &conduit]).await.unwrap();
    let event = heard("conduit.shard.disabled").await["event"].clone();
    assert_eq!((&event["shard_id"], &event["status"]), (&json!("1"), &json!("websocket_internal_error")));
    assert_eq!(event["transport"]["callback"], Value::Null);

    client.command(&["reconnect"]).await.unwrap();
    let url = heard("session_reconnect").await["session"]["reconnect_url"].as_str().unwrap().to_owned();
    let (mut new, _) = open(&url).await;
    client.command(&["close", &session, "--code", "4006"]).await.unwrap();
    let code = loop {
        if let Err(code) = next(&mut new).await {
            break code;
        }
    };
    assert_eq!(code, 4006);
    let lost = |sandbox: &Sandbox| {
        sandbox.shards(&conduit).iter().all(|(_, status, _)| status == "websocket_network_error")
    };
    assert!(client.sandbox.wait_for(LIMIT, lost).await, "{:?}", client.sandbox.shards(&conduit));
}
