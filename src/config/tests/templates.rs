use expect_test::expect;

use super::*;

const HOOK: &str = "[sink.hook]\ntype = \"http\"\nurl = \"http://127.0.0.1:1/\"\n";

#[test]
fn a_template_that_can_never_work_is_an_error_with_its_place() {
    check(
        r#"[sink.a]
type = "http"
url = "http://127.0.0.1:1/"
headers = { Title = "{{ type | uper }}" }
body = """
{ "content": {{ "\u00e9" ~ event.broadcaster_user_name | tojsn }} }"""

[sink.b]
type = "http"
url = "http://127.0.0.1:1/"
body = '{{ event.id'

[sink.c]
type = "nats"
url = "nats://127.0.0.1"
subject = "a.{{ rang(1) }}"
"#,
        &expect![[r#"
            error: `headers.title` of sink `a`: there is no filter `uper`
             --> /etc/eventsubd/config.toml:8:13
              |
            8 | headers = [hidden]
              |           ^^^^^^^^
              |
              = help: did you mean `upper`?

            error: `body` of sink `a`: there is no filter `tojsn`
              --> /etc/eventsubd/config.toml:10:58
               |
            10 | [hidden]
               | ^^^^^^^^
               |
               = help: did you mean `tojson`?

            error: `body` of sink `b`: syntax error: unexpected end of input, expected end of variable block
              --> /etc/eventsubd/config.toml:15:18
               |
            15 | body = [hidden]
               |        ^^^^^^^^

            error: `subject` of sink `c`: there is no function `rang`
              --> /etc/eventsubd/config.toml:20:17
               |
            20 | subject = [hidden]
               |           ^^^^^^^^
               |
               = help: did you mean `range`?
        "#]],
    );
}

#[test]
fn names_that_no_sample_has_are_warnings() {
    check(
        r#"[sink.a]
type = "http"
url = "http://127.0.0.1:1/"
body = '{ "content": {{ event.broadcastr_user_name | tojson }}, "n": {{ evnt.id | tojson }} }'

[sink.b]
type = "nats"
url = "nats://127.0.0.1"
subject = "a.{{ event.broadcaster_user_login }}"
"#,
        &expect![[r#"
            warning: `body` of sink `a`: no sample event has `event.broadcastr_user_name`
             --> /etc/eventsubd/config.toml:8:31
              |
            8 | body = [hidden]
              |        ^^^^^^^^
              |
              = help: did you mean `broadcaster_user_name`?

            warning: `body` of sink `a`: no sample event has `evnt`
             --> /etc/eventsubd/config.toml:8:73
              |
            8 | body = [hidden]
              |        ^^^^^^^^
              |
              = help: did you mean `event`?

            warning: `subject` of sink `b`: `event.broadcaster_user_login` is undefined, in 2 of 7 sample events, such as revocation
              --> /etc/eventsubd/config.toml:13:17
               |
            13 | subject = [hidden]
               |           ^^^^^^^^
               |
               = help: such events go to the dead letters: `| default("")` stands in for a missing value, `types` leaves them out
        "#]],
    );
}

#[test]
fn a_body_that_is_meant_as_json_is_parsed() {
    check(
        r#"[sink.a]
type = "http"
url = "http://127.0.0.1:1/"
body = '{ "content": {{ event.broadcaster_user_name }}, "key": "abcdefghijklmnopqrstuvwx012345" }'

[sink.b]
type = "http"
url = "http://127.0.0.1:1/"
headers = { Content-Type = "application/json" }
body = '{{ event.broadcaster_user_name }}'

[sink.c]
type = "http"
url = "http://127.0.0.1:1/"
body = '{{ event.broadcaster_user_name }}'
"#,
        &expect![[r#"
            warning: `body` of sink `a` is sent as JSON, but becomes `{ "content": User_12826, "key": "[hidden]" }`, which is not valid JSON: expected value at line 1 column 14
             --> /etc/eventsubd/config.toml:8:8
              |
            8 | body = [hidden]
              |        ^^^^^^^^
              |
              = help: `| tojson` makes a JSON value of anything, with its quotes: { "content": {{ event.title | tojson }} }

            warning: `body` of sink `b` is sent as JSON, but becomes `User_12826`, which is not valid JSON: expected value at line 1 column 1
              --> /etc/eventsubd/config.toml:14:8
               |
            14 | body = [hidden]
               |        ^^^^^^^^
               |
               = help: `| tojson` makes a JSON value of anything, with its quotes: { "content": {{ event.title | tojson }} }
        "#]],
    );
}

#[test]
fn every_variant_of_every_type_that_reaches_the_sink_is_tried() {
    let subscription =
        "\n[[subscription]]\ntype = \"channel.chat.notification\"\nbroadcaster = \"a\"\nuser = \"b\"\n";
    let report = |sink: &str| Case::new(format!("{HEAD}{HOOK}{sink}{subscription}{ONE}")).report();
    // Two of many variants have what is asked for; a sink that does not get the type is not concerned.
    let raid = report("types = [\"channel.chat.*\"]\nbody = '{{ event.raid.viewer_count }}'\n");
    assert!(
        raid.contains("`event.raid.viewer_count` is undefined")
            && raid.contains("such as channel.chat.notification"),
        "{raid}"
    );
    assert_eq!(report("types = [\"stream.*\"]\nbody = '{{ event.started_at }}'\n"), "fine\n");
    assert_eq!(
        report(
            "types = [\"channel.chat.*\"]\nbody = '{% if event.raid %}{{ event.raid.viewer_count }}{% endif %}'\n"
        ),
        "fine\n"
    );
    let stream = report("body = '{{ event.started_at }}'\n");
    assert!(stream.contains("sample events, such as channel.chat.notification"), "{stream}");
    // Asked for by name, revocations and gaps come too.
    let revocation = report("types = [\"stream.*\", \"revocation\"]\nbody = '{{ event.started_at }}'\n");
    assert!(revocation.contains("such as revocation"), "{revocation}");
    let gap = report("types = [\"stream.*\", \"eventsubd.gap\"]\nbody = '{{ event.started_at }}'\n");
    assert!(gap.contains("such as eventsubd.gap"), "{gap}");
    assert_eq!(report("types = [\"eventsubd.*\"]\nbody = '{{ event.reason }}'\n"), "fine\n");
}
