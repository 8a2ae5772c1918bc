//! Parts that all benchmarks share: their arguments, and what the system knows of a process.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "each benchmark uses its part"
)]

pub mod sender;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};

/// The arguments, without the one that cargo adds.
pub fn arguments() -> Vec<String> {
    std::env::args().skip(1).filter(|argument| argument != "--bench").collect()
}

/// Returns whether the command line names a part of the benchmark; it has all parts if it names none.
pub fn wanted_parts() -> impl Fn(&str) -> bool {
    let named: Vec<String> = arguments().into_iter().filter(|argument| !argument.starts_with('-')).collect();
    move |part| named.is_empty() || named.iter().any(|name| name == part)
}

/// A runtime as the daemon has it.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    part(&numbers, 0.5)
}

/// The value below which this part of sorted numbers lies.
pub fn part(sorted: &[f64], part: f64) -> f64 {
    sorted
        .get((sorted.len().max(1) - 1).min((sorted.len() as f64 * part) as usize))
        .copied()
        .unwrap_or(f64::NAN)
}

/// This program, started again for a part of the work; killed when dropped.
pub struct Helper(pub Child);

impl Helper {
    pub fn start<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// The numbers that it prints until its end.
    pub async fn output(mut self) -> Vec<f64> {
        let mut stdout = self.0.stdout.take().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
            text
        });
        let text = read.await.unwrap();
        assert!(self.0.wait().unwrap().success());
        text.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    /// The first line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process, as the system accounts for it.
#[derive(Clone, Copy)]
pub struct Account(u32);

impl Account {
    pub fn own() -> Self {
        Self(std::process::id())
    }

    pub fn of(child: &Child) -> Self {
        Self(child.id())
    }

    fn read(self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap()
    }

    fn status(self, name: &str) -> f64 {
        field(&self.read("status"), name)
    }

    /// Seconds that processors worked for it, in steps of 10 ms.
    pub fn processor_seconds(self) -> f64 {
        let stat = self.read("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // utime and stime, in ticks of 10 ms.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    pub fn resident_mib(self) -> f64 {
        self.status("VmRSS:") / 1_024.0
    }

    /// The most that was ever resident.
    pub fn peak_mib(self) -> f64 {
        self.status("VmHWM:") / 1_024.0
    }

    /// Bytes that it had the system write to disks.
    pub fn written_bytes(self) -> f64 {
        field(&self.read("io"), "write_bytes:")
    }

    /// Seconds of work of its threads, by name; threads that have ended are not counted.
    pub fn threads(self) -> BTreeMap<String, f64> {
        self.by_thread(|folder| {
            let text = fs::read_to_string(format!("{folder}/schedstat")).ok()?;
            Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e9)
        })
    }

    /// How often its threads began to run after a wait, by name.
    pub fn wakeups(self) -> BTreeMap<String, f64> {
        self.by_thread(|folder| {
            let text = fs::read_to_string(format!("{folder}/status")).ok()?;
            Some(field(&text, "\nvoluntary_ctxt_switches:"))
        })
    }

    fn by_thread(self, value: impl Fn(&str) -> Option<f64>) -> BTreeMap<String, f64> {
        let mut threads = BTreeMap::new();
        for thread in fs::read_dir(format!("/proc/{}/task", self.0)).unwrap() {
            let folder = thread.unwrap().path().display().to_string();
            // A thread may end meanwhile.
            let (Ok(name), Some(value)) = (fs::read_to_string(format!("{folder}/comm")), value(&folder))
            else {
                continue;
            };
            *threads.entry(name.trim().to_owned()).or_default() += value;
        }
        threads
    }
}

fn field(text: &str, name: &str) -> f64 {
    let rest = &text[text.find(name).unwrap() + name.len()..];
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// The difference between two readings by thread, greatest first.
pub fn difference(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Vec<(String, f64)> {
    let mut all: Vec<(String, f64)> = after
        .iter()
        .map(|(name, value)| (name.clone(), value - before.get(name).copied().unwrap_or_default()))
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}
