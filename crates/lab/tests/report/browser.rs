//! A page in a headless Chromium.
//!
//! Chromium asks for things by itself, too. Its log of requests says who began each: those that no page began are not the page's.

use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const SWITCHES: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    // Whoever asks for a name gets no answer.
    "--host-resolver-rules=MAP * ~NOTFOUND",
];
/// Longer than any page needs on a busy computer.
const PATIENCE: Duration = Duration::from_secs(90);
/// What the log says of requests that the browser makes for itself.
const NO_PAGE: &str = "not an origin";
/// Writes beside the title whether the page is wider than its window.
const MEASURE: &str = "<script>addEventListener('load',()=>{const e=document.documentElement;e.dataset.excess=e.scrollWidth-innerWidth})</script></body>";

/// The browser that is installed, or a word why the test is skipped.
pub fn find() -> Option<PathBuf> {
    let told = std::env::var_os("SPILE_CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed =
        || std::env::split_paths(&path).flat_map(|place| NAMES.map(|name| place.join(name))).find(|file| file.is_file());
    let found = told.or_else(installed);
    if found.is_none() {
        println!("skipped: none of {} is installed (SPILE_CHROMIUM names a browser)", NAMES.join(", "));
    }
    found
}

/// What a browser made of a page.
struct Seen {
    document: String,
    /// What it wrote to its console.
    console: Vec<String>,
    /// What the page asked for.
    requests: Vec<String>,
    picture: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Theme {
    Dark,
    Light,
}

fn look(browser: &Path, name: &str, page: &str, theme: Theme, width: u32) -> Seen {
    let (number, theme) = match theme {
        Theme::Dark => (0, "dark"),
        Theme::Light => (1, "light"),
    };
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let (file, document, errors, log) = (at("page.html"), at("document"), at("errors"), at("net.json"));
    std::fs::write(&file, page.replacen("</body>", MEASURE, 1)).expect("a page");
    let gallery = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&gallery).expect("a place for pictures");
    let picture = gallery.join(format!("{name}-{theme}-{width}.png"));
    let with = |switch: &str, path: &Path| format!("--{switch}={}", path.display());
    let mut child = Command::new(browser)
        .args(SWITCHES)
        .args([with("user-data-dir", &at("profile")), with("log-net-log", &log), with("screenshot", &picture)])
        .args([
            format!("--window-size={width},3000"),
            format!("--blink-settings=preferredColorScheme={number}"),
            "--dump-dom".into(),
        ])
        .arg(format!("file://{}", file.display()))
        .stdin(Stdio::null())
        .stdout(File::create(&document).expect("a file"))
        .stderr(File::create(&errors).expect("a file"))
        .spawn()
        .expect("it starts");
    let start = Instant::now();
    let ended = loop {
        match child.try_wait().expect("its end can be waited for") {
            Some(status) => break status,
            None if start.elapsed() > PATIENCE => {
                child.kill().expect("it can be ended");
                panic!("{} did not come to an end", browser.display());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let errors = read(&errors);
    assert!(ended.success(), "{} failed: {errors}", browser.display());
    Seen {
        document: read(&document),
        console: errors.lines().filter(|line| line.contains("CONSOLE")).map(str::to_string).collect(),
        requests: requests(&read(&log)),
        picture: std::fs::read(&picture).expect("a picture"),
    }
}

/// The addresses for which a page asked. Files are not asked for over a network, and not in the log.
fn requests(log: &str) -> Vec<String> {
    let log: Value = serde_json::from_str(log).expect("the log of requests is whole");
    let begins = &log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"];
    assert!(begins.is_number(), "the log of requests names no beginnings");
    let events = log["events"].as_array().expect("events").iter().filter(|event| event["type"] == *begins);
    let of_page = events.filter(|event| event["params"]["initiator"] != NO_PAGE);
    of_page.filter_map(|event| event["params"]["url"].as_str().map(str::to_string)).collect()
}

/// What is wrong with `page` in the eyes of a browser so many pixels wide; it is to have so many charts.
pub fn flaws(browser: &Path, name: &str, widths: &[u32], page: &str, charts: usize) -> Vec<String> {
    let mut flaws = Vec::new();
    for &width in widths {
        let [dark, light] = [Theme::Dark, Theme::Light].map(|theme| look(browser, name, page, theme, width));
        if dark.picture == light.picture {
            flaws.push("dark and light look the same".to_string());
        }
        for seen in [&dark, &light] {
            flaws.extend(seen.console.iter().cloned());
            flaws.extend(seen.requests.iter().map(|url| format!("asks for {url}")));
            let drawn = seen.document.matches("<svg class=\"plot").count();
            if drawn != charts {
                flaws.push(format!("{drawn} charts instead of {charts}"));
            }
            if !seen.document.contains("data-excess=\"0\"") {
                flaws.push(format!("wider than {width} pixels"));
            }
            if !seen.document.contains("<button type=\"button\">") {
                flaws.push("no table can be sorted".into());
            }
        }
    }
    flaws.sort();
    flaws.dedup();
    flaws
}
