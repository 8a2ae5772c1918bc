//! A headless Chromium, driven over plain HTTP as the W3C's "WebDriver" describes it, and Chromium's own
//! protocol where that has no word.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use super::WAIT;

/// The key of an element in the answers of a driver.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one tab; it ends with this.
pub struct Browser {
    driver: Child,
    http: reqwest::Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver is there: tests/run installs it");
        let port = port(driver.stdout.take().unwrap());
        let http =
            eventsubd::auth::http_client("test", eventsubd::auth::tls_config().unwrap()).expect("a client");
        let mut browser = Self { driver, http, session: String::new(), _profile: profile };
        let data = browser._profile.path().join("data");
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
            "goog:chromeOptions": {"args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--window-size=1280,900",
                format!("--user-data-dir={}", data.display()),
            ]},
        }}});
        let base = format!("http://127.0.0.1:{port}/session");
        let value = browser.call(Method::POST, &base, Some(capabilities)).await;
        browser.session = format!("{base}/{}", value["sessionId"].as_str().expect("a session"));
        browser
    }

    async fn call(&self, method: Method, url: &str, body: Option<Value>) -> Value {
        let mut request = self.http.request(method, url).timeout(WAIT);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("the driver answers");
        let code = answer.status();
        let mut value: Value = answer.json().await.expect("JSON");
        assert!(code.is_success(), "{url}: {value:#}");
        value["value"].take()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, &format!("{}{path}", self.session), Some(body)).await
    }

    /// Opens an address.
    pub async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// Runs a function's body in the page; it may return a promise.
    pub async fn run(&self, script: &str, arguments: Value) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": arguments })).await
    }

    /// The value of an expression in the page.
    pub async fn eval(&self, expression: &str) -> Value {
        self.run(&format!("return {expression}"), json!([])).await
    }

    /// Waits until an expression is true.
    pub async fn until(&self, expression: &str) {
        let begun = Instant::now();
        while self.eval(&format!("Boolean({expression})")).await != true {
            if begun.elapsed() > WAIT {
                let text = self.eval("document.body.innerText").await;
                panic!("never: {expression}; the page says: {}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Presses keys on whatever has the focus.
    pub async fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})))
            .collect();
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]})).await;
    }

    /// Clicks what a selector finds.
    pub async fn click(&self, selector: &str) {
        let found = self.post("/element", json!({"using": "css selector", "value": selector})).await;
        let id = found[ELEMENT].as_str().expect("an element");
        self.post(&format!("/element/{id}/click"), json!({})).await;
    }

    async fn protocol(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// Prefers `light` or `dark`.
    pub async fn scheme(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.protocol("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// A window of this many CSS pixels, with so many real ones for each.
    pub async fn size(&self, width: u32, height: u32, scale: f32) {
        let mobile = width < 600;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile});
        self.protocol("Emulation.setDeviceMetricsOverride", metrics).await;
        self.protocol("Emulation.setScrollbarsHidden", json!({"hidden": true})).await;
    }

    /// Whether scripts run, from the next page on.
    pub async fn scripts(&self, run: bool) {
        self.protocol("Emulation.setScriptExecutionDisabled", json!({ "value": !run })).await;
    }

    /// The text of the page as it stands, which needs no script.
    pub async fn source(&self) -> String {
        let value = self.call(Method::GET, &format!("{}/source", self.session), None).await;
        value.as_str().expect("a text").to_owned()
    }

    /// Writes what the window shows to a file.
    pub async fn picture(&self, path: &Path) {
        let python = "import base64, sys; open(sys.argv[1], 'wb').write(base64.b64decode(sys.stdin.read()))";
        let shot = self.protocol("Page.captureScreenshot", json!({"format": "png"})).await;
        let mut child = Command::new("python3")
            .args(["-c", python])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("python3 is there: tests/run installs it");
        let text = shot["data"].as_str().expect("a picture");
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), text.as_bytes()).unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }

    /// The addresses that were asked for since the last call.
    pub async fn requests(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "performance"})).await;
        let entries = log.as_array().expect("a list").iter();
        let read = |entry: &Value| -> Option<String> {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            let sent = message["method"] == "Network.requestWillBeSent";
            sent.then(|| message["params"]["request"]["url"].as_str().unwrap_or_default().to_owned())
        };
        entries.filter_map(read).collect()
    }

    /// Returns the complaints of the console since the last call.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let entries = log.as_array().expect("a list").iter();
        entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// The port that the driver says it has.
fn port(stdout: std::process::ChildStdout) -> u16 {
    let mut lines = BufReader::new(stdout).lines();
    let port = lines.by_ref().find_map(|line| {
        let line = line.expect("text");
        line.strip_suffix('.')?.rsplit_once(" on port ")?.1.parse().ok()
    });
    // A writer to a pipe without a reader is killed.
    std::thread::spawn(move || lines.for_each(drop));
    port.expect("the driver has a port")
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser is in the group of its driver.
        let _ = kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        let _ = self.driver.wait();
    }
}

/// The script that checks a page.
pub fn axe() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(path).expect("axe-core is there: tests/run installs it")
}

/// No violation of what can be checked by a machine.
pub async fn is_accessible(browser: &Browser, axe: &str, what: &str) {
    browser.run(axe, json!([])).await;
    let found = browser
        .run(
            "return axe.run(document, { resultTypes: ['violations'] }).then(({ violations, passes }) => ({
                passes: passes.length,
                violations: violations.map(({ id, nodes }) => [id, nodes.map(node => node.html + node.failureSummary)]),
             }))",
            json!([]),
        )
        .await;
    assert!(found["passes"].as_u64().unwrap() > 15, "{what}: the check looks at something: {found}");
    assert_eq!(found["violations"], json!([]), "{what}: {found:#}");
}
