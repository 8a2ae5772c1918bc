//! `[cluster]`.

use expect_test::expect;

use super::*;
use crate::model::mode::ShardCount;
use crate::model::sink::SinkType;

#[test]
fn a_cluster_needs_nothing_but_servers() {
    let case = Case::with("[cluster]\nnats = \"nats://n1:4222, tls://me:p4ssw0rd-of-nats@n2\"\n");
    assert_eq!(case.report(), "fine\n");
    let cluster = case.config().cluster.expect("a cluster");
    assert_eq!((&*cluster.name, cluster.host, cluster.replicas), ("eventsubd", None, None));
    assert!(case.config().cluster.is_some_and(|cluster| !format!("{cluster:?}").contains("p4ssw0rd")));
    assert_eq!(Case::with("[cluster]\nname = \"x\"\n").config().cluster, None, "off without servers");
}

#[test]
fn wrong_servers_and_names_are_errors() {
    let case = Case::with(
        "[cluster]\nnats = \"http://n1:4222\"\nname = \"my cluster\"\nhost = \"web.\"\nreplicas = 9\ncredentials = \"none\"\n",
    );
    expect![[r#"
        error: `cluster.nats` is not a list of NATS servers
         --> /etc/eventsubd/config.toml:6:8
          |
        6 | nats = "http://n1:4222"
          |        ^^^^^^^^^^^^^^^^
          |
          = help: with commas between them: `nats = "nats://n1:4222,nats://n2:4222,nats://n3:4222"`; `tls://` for TLS

        error: `my cluster` is not a valid `cluster.name`
         --> /etc/eventsubd/config.toml:7:8
          |
        7 | name = "my cluster"
          |        ^^^^^^^^^^^^
          |
          = help: up to 63 letters and digits, `_` and `-`

        error: `web.` is not a valid `cluster.host`
         --> /etc/eventsubd/config.toml:8:8
          |
        8 | host = "web."
          |        ^^^^^^
          |
          = help: up to 63 letters and digits, `_`, `.` and `-`

        error: `cluster.replicas` must be a whole number from 1 to 5, not `9`
         --> /etc/eventsubd/config.toml:9:12
          |
        9 | replicas = 9
          |            ^
          |
          = help: how many NATS servers keep a copy of the bucket and of the shared log; 3 with three servers or more, else 1, when left out

        error: there is no such file in `/etc/eventsubd`; what stands here is not shown, since it may be a secret
          --> /etc/eventsubd/config.toml:10:15
           |
        10 | credentials = [hidden]
           |               ^^^^^^^^
           |
           = help: the path is relative to the directory of the configuration file
    "#]].assert_eq(&case.report());
}

#[test]
fn webhooks_of_several_hosts_need_one_secret() {
    let text = "[transport]\nmethod = \"webhook\"\n[transport.webhook]\ncallback = \"https://example.org/\"\n[cluster]\n\
                nats = \"nats://n1\"\n";
    expect![[r#"
        error: `[cluster]` with webhooks needs `transport.webhook.secret_file`
          --> /etc/eventsubd/config.toml:10:8
           |
        10 | nats = "nats://n1"
           |        ^^^^^^^^^^^
           |
           = help: Twitch signs with one secret, which every host must know; make a file with 10 to 100 characters, the same on each
    "#]].assert_eq(&Case::with(text).report());
    let case = Case::with(&text.replace("[cluster]", "secret_file = \"webhook\"\n[cluster]"));
    case.file("webhook", "0123456789abcdef\n", 0o600);
    assert_eq!(case.report(), "fine\n");
}

#[test]
fn a_build_without_nats_refuses_a_cluster() {
    let case = Case::with("[cluster]\nnats = \"nats://n1\"\n");
    let report = case.describe(case.load_with(|sink_type| sink_type != SinkType::Nats));
    expect![[r#"
        error: this build of eventsubd cannot use NATS, and `[cluster]` needs it
         --> /etc/eventsubd/config.toml:6:8
          |
        6 | nats = "nats://n1"
          |        ^^^^^^^^^^^
          |
          = help: install a build with it, or build with `cargo build --release --features nats`
    "#]]
    .assert_eq(&report);
}

#[test]
fn a_change_of_the_cluster_needs_a_restart_and_shows_no_secret() {
    let old = Case::with("[cluster]\nnats = \"nats://me:p4ssw0rd-one@n1\"\n").config();
    let new = Case::with("[cluster]\nnats = \"nats://me:p4ssw0rd-two@n1\"\nhost = \"web-2\"\n").config();
    let none = Case::with("").config();
    let show = |old, new| diff(old, new).iter().map(|change| format!("{change}\n")).collect::<String>();
    expect![[r#"
        cluster.nats one -> another one (needs a restart)
        cluster.host unset -> web-2 (needs a restart)
    "#]]
    .assert_eq(&show(&old, &new));
    expect![[r#"
        cluster.nats unset -> set (needs a restart)
    "#]]
    .assert_eq(&show(&none, &old));
    assert!(diff(&old, &new).iter().all(Change::needs_restart));
}

#[test]
fn a_sink_is_pinned_to_a_host() {
    let sinks = "[sink.log]\ntype = \"file\"\npath = \"log\"\n[sink.out]\ntype = \"stdout\"\nhost = \"web-1\"\n\
                 [sink.run]\ntype = \"command\"\ncommand = [\"/bin/true\"]\nhost = \"web 2\"\n";
    let cluster = "[cluster]\nnats = \"nats://n1\"\n";
    expect![[r#"
        error: `host` of sink `run` is not a valid name of a host
          --> /etc/eventsubd/config.toml:16:8
           |
        16 | host = [hidden]
           |        ^^^^^^^^
           |
           = help: up to 63 letters and digits, `_`, `.` and `-`

        warning: sink `log` writes on whichever host works it, now this one and now that
         --> /etc/eventsubd/config.toml:7:7
          |
        7 | [sink.log]
          |       ^^^
          |
          = help: pin it to one: `host = "web-1"` names that host by its `cluster.host`
    "#]]
    .assert_eq(&Case::with(&format!("{cluster}{sinks}")).report());
    let sinks = sinks.replace("web 2", "web-2");
    expect![[r#"
        warning: `host` does nothing without `[cluster]`
          --> /etc/eventsubd/config.toml:10:8
           |
        10 | host = [hidden]
           |        ^^^^^^^^
           |
           = help: it names the host that works the sink; leave it out, or set `cluster.nats`

        warning: `host` does nothing without `[cluster]`
          --> /etc/eventsubd/config.toml:14:8
           |
        14 | host = [hidden]
           |        ^^^^^^^^
           |
           = help: it names the host that works the sink; leave it out, or set `cluster.nats`
    "#]]
    .assert_eq(&Case::with(&sinks).report());
    let config = Case::with(&format!("{cluster}{sinks}")).config();
    let hosts: Vec<Option<&str>> = config.sinks.values().map(|sink| sink.host.as_deref()).collect();
    assert_eq!(hosts, [None, Some("web-1"), Some("web-2")]);
    assert_eq!(Case::with(cluster).report(), "fine\n", "the sink of a file without any is not warned about");
}

#[test]
fn the_number_of_shards_may_follow_the_hosts() {
    let case = Case::with("[transport.conduit]\nshards = \"auto\"\n");
    assert_eq!(case.report(), "fine\n");
    assert_eq!(case.config().conduit.shards, ShardCount::Auto);
    let case = Case::with("").env(&[("EVENTSUBD_TRANSPORT__CONDUIT__SHARDS", "auto")]);
    assert_eq!(case.config().conduit.shards, ShardCount::Auto);
    check(
        "[transport.conduit]\nshards = \"two\"\n",
        &expect![[r#"
            error: `transport.conduit.shards` must be a whole number or "auto", not a string
             --> /etc/eventsubd/config.toml:6:10
              |
            6 | shards = "two"
              |          ^^^^^
              |
              = help: the word is "auto"; a number stands without quotes
        "#]],
    );
    check(
        "[transport.conduit]\nshards = \"2\"\n",
        &expect![[r#"
            error: `transport.conduit.shards` must be a whole number or "auto", not a string
             --> /etc/eventsubd/config.toml:6:10
              |
            6 | shards = "2"
              |          ^^^
              |
              = help: write it without quotes
        "#]],
    );
}
