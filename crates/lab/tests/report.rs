//! Reports, looked at as a reader and his browser do.
//!
//! **Guarantee.** A page is well-formed, shows what it is to show, escapes what it is told, and asks for nothing outside itself; in a browser, dark or light, wide
//! or narrow, no script fails, and no request leaves it.
//!
//! **Mechanism.** [`page`] reads the page as the HTML standard says; [`browser`] opens it in a headless Chromium, if there is one (`SPILE_CHROMIUM` names another).
//! What it drew is left below the target directory, in `tmp/report`, to be looked at. The controls spoil a good page in one way each.

#[path = "report/browser.rs"]
mod browser;
#[path = "report/page.rs"]
mod page;

use spile_lab::output::table;
use spile_lab::report::chart::bands::Bands;
use spile_lab::report::chart::bars::{Bars, Form};
use spile_lab::report::chart::spaces::{Area, Spaces};
use spile_lab::report::chart::{Axis, Plot};
use spile_lab::report::{Chart, Report, Section};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

/// What nobody may take for a part of the page.
const HOSTILE: &str = "</title><script>alert(1)</script>\"'&";
/// The same as the name of a file.
const HOSTILE_FILE: &str = "<script>alert(1)<\"'&";

/// A small recording under every design, by the command itself.
static REPLAYED: LazyLock<String> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join(format!("{HOSTILE_FILE}.mmt.xz"));
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mmtrace/traces/ls.mmt.xz");
    std::fs::copy(bundled, &trace).expect("a copy of a recording");
    let file = directory.path().join("report.html");
    let command = ["replay", "--design", "all", "--html"].map(Path::new);
    let run = Command::new(env!("CARGO_BIN_EXE_spile")).args(command).args([&file, &trace]).output().expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    std::fs::read_to_string(file).expect("a report was written")
});

/// How many charts [`REPLAYED`] has: the address space, what changes wait for, and what they leave to grace periods.
const CHARTS: usize = 3;

fn bars(form: Form) -> Plot {
    let series = ["2 CPUs", "16 CPUs", "64 CPUs"].map(String::from).to_vec();
    let group = |name: &str, values: [f64; 3]| (name.to_string(), values.map(Some).to_vec());
    let groups = vec![
        group("mmap_lock", [1.44, 2.51, 3.02]),
        group("vma_refcount", [0.0, 0.0, 0.0]),
        group("range_lock", [2.71, 7.26, 17.76]),
        group(HOSTILE, [0.5, 12.0, 4.0]),
    ];
    Plot::Bars(Bars { axis: Axis("transfers of cache lines per fault".into()), form, group: "design".into(), series, groups })
}

fn bands() -> Plot {
    let counts = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
    let band = |per: f64, most: f64| counts.map(|n| (n, (n * per * 0.8).min(most * 0.7), (n * per * 1.2).min(most))).to_vec();
    let lines = vec![("published, \u{2018}2019\u{2019}".to_string(), vec![(1.0, 0.9), (16.0, 12.0), (64.0, 30.0)])];
    let bands = vec![("vma_refcount".to_string(), band(1.0, 1e9)), (HOSTILE.to_string(), band(0.9, 6.0))];
    Plot::Bands(Bands { across: Axis("CPUs".into()), up: Axis("million faults per second".into()), bands, lines })
}

fn spaces() -> Plot {
    let area = |low: u64, pages: u64, kind: usize| Area {
        low,
        high: low + pages * 4096,
        from_ns: 0,
        to_ns: 2_000_000,
        kind,
        told: HOSTILE.into(),
    };
    let areas = vec![
        area(0x5555_0000_0000, 20, 3),
        area(0x5555_0010_0000, 300, 1),
        area(0x7f00_0000_0000, 9000, 0),
        area(0x7f00_0232_8000, 1, 5),
        area(0x7f00_1000_0000, 4, 4),
        area(0x7ffe_0000_0000, 33, 2),
    ];
    Plot::Spaces(Spaces { kinds: ["a", "b", "c", "d", "e", HOSTILE].map(String::from).to_vec(), end_ns: 3_000_000, areas })
}

/// Every kind of chart, with text that is not to be trusted in every place.
fn every_kind() -> String {
    let mut table = table(&["design", HOSTILE], 1);
    table.add_row([HOSTILE, "1"]);
    table.add_row(["b", "2"]);
    table.note = HOSTILE.into();
    let chart = |plot| Chart { title: HOSTILE.into(), caption: HOSTILE.into(), plot };
    let charts = [bars(Form::Beside), bars(Form::Stacked), bands(), spaces()].map(chart).into();
    let section = Section { heading: HOSTILE.into(), text: format!("One.\n\n{HOSTILE}"), tables: vec![table], charts };
    let mut report = Report::new(HOSTILE, vec![section, Section::default(), Section::default()]);
    report.command = HOSTILE.into();
    report.page()
}

const KINDS: usize = 4;

#[test]
fn pages_are_well_formed_and_ask_for_nothing() {
    assert_eq!(page::flaws(&REPLAYED, CHARTS), Vec::<String>::new());
    assert_eq!(page::flaws(&every_kind(), KINDS), Vec::<String>::new());
}

#[test]
fn text_is_escaped() {
    let kinds = every_kind();
    for page in [&*REPLAYED, &kinds] {
        assert!(!page.contains("<script>alert"), "a name became a script");
        assert!(page.contains("&lt;script&gt;alert(1)"), "a name is not there at all");
    }
    let texts = page::texts(&REPLAYED);
    assert!(texts.iter().any(|text| text == HOSTILE_FILE), "the name of the recording is not a text: {texts:?}");
    assert!(page::texts(&kinds).iter().filter(|text| *text == HOSTILE).count() > 20);
}

#[test]
fn browsers_draw_pages_as_they_are() {
    let Some(browser) = browser::find() else { return };
    for (name, page, charts) in [("replay", &*REPLAYED, CHARTS), ("kinds", &every_kind(), KINDS)] {
        assert_eq!(browser::flaws(&browser, name, &[1280, 480], page, charts), Vec::<String>::new());
    }
}

/// A good page, spoiled: what is replaced, by what, and what must be said of it.
struct Control {
    name: &'static str,
    from: &'static str,
    to: &'static str,
    told: &'static str,
}

const fn control(name: &'static str, from: &'static str, to: &'static str, told: &'static str) -> Control {
    Control { name, from, to, told }
}

fn spoiled(page: &str, control: &Control) -> String {
    assert!(page.contains(control.from), "{}: there is no {}", control.name, control.from);
    page.replacen(control.from, control.to, 1)
}

/// Without it a browser does not even try to fetch what the page names.
const POLICY: &str = "http-equiv=\"Content-Security-Policy\"";

#[test]
fn spoiled_pages_are_found() {
    let good = every_kind();
    let controls = [
        control("an image", "</header>", "</header><img src=\"http://example.com/x.png\">", "img"),
        control("an import", "<style>", "<style>@import 'x.css';", "@import"),
        control("a background", "<style>", "<style>body{background:url(x.png)}", "url("),
        control("a link", "href=\"#section-1\"", "href=\"https://example.com/\"", "href"),
        control("no policy", POLICY, "name=\"nothing\"", "policy"),
        control("an end without a beginning", "</header>", "</b></header>", "not well-formed"),
        control("a name that is a script", "</h1>", "</h1><script>alert(1)</script>", "2 scripts"),
        control("a chart that is not there", "<svg class=\"plot", "<svg class=\"lost", "3 charts"),
    ];
    for control in &controls {
        let flaws = page::flaws(&spoiled(&good, control), KINDS);
        assert!(flaws.iter().any(|flaw| flaw.contains(control.told)), "{} was not found: {flaws:?}", control.name);
    }
}

#[test]
fn browsers_find_spoiled_pages() {
    let Some(browser) = browser::find() else { return };
    let good = every_kind();
    let controls = [
        control(
            "what the policy forbids",
            "</header>",
            "</header><img src=\"http://127.0.0.1:9/x.png\">",
            "Content Security Policy",
        ),
        control("a script that fails", "\"use strict\";", "nobody();", "nobody is not defined"),
        control("a chart that is not there", "<svg class=\"plot", "<svg class=\"lost", "3 charts"),
        control("no dark theme", "prefers-color-scheme: dark", "width < 0px", "dark and light"),
        control("a page that is too wide", "</header>", "</header><div style=\"width:3000px\">.</div>", "wider"),
    ];
    for control in &controls {
        let flaws = browser::flaws(&browser, "control", &[480], &spoiled(&good, control), KINDS);
        assert!(flaws.iter().any(|flaw| flaw.contains(control.told)), "{} was not found: {flaws:?}", control.name);
    }
    let unguarded = spoiled(&good, &control("no policy", POLICY, "name=\"nothing\"", ""));
    let fetching = spoiled(&unguarded, &controls[0]);
    let flaws = browser::flaws(&browser, "control", &[480], &fetching, KINDS);
    assert!(flaws.iter().any(|flaw| flaw.contains("asks for http://127.0.0.1:9/x.png")), "a request was not found: {flaws:?}");
}

#[test]
fn what_cannot_be_written_is_told_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("not/there.html");
    let run = Command::new(env!("CARGO_BIN_EXE_spile")).arg("replay").arg("--html").arg(&place).output().expect("it starts");
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code() == Some(2) && told.contains(&format!("{} cannot be written", place.display())), "{told}");
    assert!(run.stdout.is_empty(), "it was told after the work");
}
