//! `eventsubd sandbox` as a program: callbacks with TLS and the certificates that it trusts.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::common::certificate::certificate;
use super::*;

/// Answers challenges over TLS, with the files of the folder that it runs in; prints its port.
const SERVER: &str = r#"
import http.server, json, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = body.get("challenge", "").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain("cert.pem", "key.pem")
server.socket = tls.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// Starts a program that is killed when it is dropped, and reads its output up to the line that has this.
async fn started(command: &mut Command, part: &str) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the program runs");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(part) {
                return line;
            }
        }
        panic!("it ended without saying {part:?}");
    };
    let line = tokio::time::timeout(LIMIT, reading).await.expect("in time");
    (child, line)
}

#[tokio::test]
async fn callbacks_with_tls_need_a_certificate_that_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let mut server = Command::new("python3");
    let (_server, port) = started(server.args(["-c", SERVER]).current_dir(folder.path()), "").await;
    let http = eventsubd::daemon::connections().unwrap().client();
    for (trusted, expected) in
        [("cert.pem", "enabled"), ("nothing.pem", "webhook_callback_verification_failed")]
    {
        let mut sandbox = Command::new(env!("CARGO_BIN_EXE_eventsubd"));
        sandbox
            .args(["sandbox", "--listen", "127.0.0.1:0"])
            .env_clear()
            .env("SSL_CERT_FILE", folder.path().join(trusted));
        let (_sandbox, line) = started(&mut sandbox, "api_url").await;
        let api = line.split('"').nth(1).expect("a URL").to_owned();
        let form = [("client_id", "any"), ("client_secret", "any"), ("grant_type", "client_credentials")];
        let minting = http.post(format!("{}/oauth2/token", api.trim_end_matches("/helix"))).form(&form);
        let (_, token) = read(minting).await;
        let subscriptions = format!("{api}/eventsub/subscriptions");
        let signed_in = |request: reqwest::RequestBuilder| {
            request.bearer_auth(token["access_token"].as_str().unwrap()).header("Client-Id", "any")
        };
        let callback = format!("https://localhost:{port}/eventsub");
        let body = json!({"type": "stream.online", "version": "1", "condition": {"broadcaster_user_id": "7"},
            "transport": {"method": "webhook", "callback": callback, "secret": "a secret of this test"}});
        let (status, answer) = read(signed_in(http.post(&subscriptions)).json(&body)).await;
        assert_eq!(status, 202, "{answer}");
        let judged = async {
            loop {
                let (_, list) = read(signed_in(http.get(&subscriptions))).await;
                let status = list["data"][0]["status"].as_str().unwrap().to_owned();
                if status != "webhook_callback_verification_pending" {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert_eq!(tokio::time::timeout(LIMIT, judged).await.expect("in time"), expected, "{trusted}");
    }
}
